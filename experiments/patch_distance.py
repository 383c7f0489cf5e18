"""Patches: two patches of an image, by how far apart they are along the diagonal (InfoMin).

    python experiments/patch_distance.py                                  # 6 minutes on 2 cores, no download
    python experiments/patch_distance.py --save experiments/figures       # the same, and the committed rows and figure
    python experiments/patch_distance.py --preset paper                   # for a GPU; first python data_tools/fetch.py stl10

The farther apart, the less two patches share. Recalled from the paper (64 px patches, 64 to 384 px apart, of large photographs):
I_NCE falls with the distance, accuracy is an inverted U. Here scenes are 64 px wide and a digit some 40, so patches of 32 px that
are 16 px apart both show much of it; nearer ones share the background's pixels, farther ones hardly the digit. The probe reads
whole scenes. The paper read its features on other data (STL-10, CIFAR-10) than it learned them from; here both are the same.
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
