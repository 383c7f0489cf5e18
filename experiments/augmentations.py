"""Augmentations, added one by one: two views share less and less (InfoMin).

    python experiments/augmentations.py                             # 6 minutes on 2 cores
    python experiments/augmentations.py --save experiments/figures  # also saves rows and figure
    python experiments/augmentations.py --preset paper              # on a GPU, with STL-10

The sequence runs from plain crops to the augmentations of SimCLR and InfoMin. Expected from the
paper (ImageNet): InfoMin Aug is best. Here the task is a white digit over photographs, so changing
the look of the background should help and mirroring digits should hurt. The preset paper needs
`infomin data fetch stl10` first; the others download nothing.
"""

from typing import Any

from infomin.experiment import command
from infomin.runs.presets import STL10, TINY

CROP, JITTER = "crop:0.2", "crop:0.2+flip:0.5+jitter:1"
VIEWS = [
    CROP,
    f"{CROP}+flip:0.5",
    JITTER,
    f"{JITTER}+grey:0.2",
    f"{JITTER}+blur:0.5+grey:0.2",
    "aug:simclr",
    "aug:infomin",
]
DIGITS: dict[str, Any] = {"data": "digits", "task": "digit", "share_encoder": True}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "views": VIEWS[::3], "seeds": 1, **DIGITS},
    "quick": {"views": VIEWS, "seeds": 3, **DIGITS},
    "paper": {**STL10, "views": VIEWS},
}

if __name__ == "__main__":
    command(PRESETS, "augmentations", dial="what is drawn for each view", about=__doc__)
