"""Patch distance: two patches of an image, by their distance along the diagonal (InfoMin).

    python experiments/patch_distance.py                             # 7 minutes on 2 cores
    python experiments/patch_distance.py --save experiments/figures  # also saves rows and figure
    python experiments/patch_distance.py --preset paper              # on a GPU, with STL-10

The farther apart, the less two patches share. Recalled from the paper (64 px patches of large
photographs, 64 to 384 px apart): I_NCE falls with the distance, accuracy is an inverted U.

Here scenes are 64 px wide and a digit about 40 px, so two 32 px patches at a distance of 16 px both
show much of it; closer ones also share the background's pixels, farther ones hardly the digit. The
probe reads whole scenes. The paper trained and probed on different data (it probed on STL-10 and
CIFAR-10); here both are the same. The preset paper needs `infomin data fetch stl10` first;
the others download nothing.
"""

from typing import Any

from infomin.experiment import command
from infomin.runs.presets import STL10, TINY

VIEWS = [f"patch:{distance}/32" for distance in (4, 8, 12, 16, 20, 24, 32)]
SCENES: dict[str, Any] = {"data": "digits", "task": "digit", "size": 64, "share_encoder": True}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "views": VIEWS[::3], "seeds": 1, **SCENES},
    "quick": {"views": VIEWS, "seeds": 3, "probe_images": 2048, **SCENES},
    "paper": {**STL10, "views": VIEWS, "size": 96},
}

if __name__ == "__main__":
    command(PRESETS, "patch_distance", dial="distance [px]", about=__doc__)
