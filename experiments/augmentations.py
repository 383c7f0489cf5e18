"""Augmentations, one after the other, from plain crops to SimCLR's and InfoMin Aug: two views share ever less (InfoMin).

    python experiments/augmentations.py                                  # 6 minutes on 2 cores, no download
    python experiments/augmentations.py --save experiments/figures       # the same, and the committed rows and figure
    python experiments/augmentations.py --preset paper                   # for a GPU; first python data_tools/fetch.py stl10

Expected from the paper (ImageNet): InfoMin Aug is best. Here the task is a white digit over photographs: what changes the
background's look should help, mirrored digits should hurt.
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
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        **TINY,
        "views": VIEWS[::3],
        "seeds": 1,
        "data": "digits",
        "task": "digit",
        "share_encoder": True,
    },
    "quick": {"views": VIEWS, "seeds": 3, "data": "digits", "task": "digit", "share_encoder": True},
    "paper": {**STL10, "views": VIEWS},
}

if __name__ == "__main__":
    command(PRESETS, "augmentations", dial="what is drawn for each view", about=__doc__)
