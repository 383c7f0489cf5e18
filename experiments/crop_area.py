"""Crops: two random resized crops of an image, by the least share of it that a crop may have (InfoMin).

    python experiments/crop_area.py                                  # 5 minutes on 2 cores, no download
    python experiments/crop_area.py --save experiments/figures       # the same, and the committed rows and figure
    python experiments/crop_area.py --preset paper                   # for a GPU; first python data_tools/fetch.py stl10

The smaller the crops may be, the less they share. Expected from the paper (ImageNet, MoCo): an inverted U with its top at 0.2.
Here the task is which of ten photographs a patch is from, which nearly any part of it tells: expect the fall on the right, where
both crops are nearly the whole image, but hardly one on the left.
"""

from typing import Any

from infomin.experiment import command
from infomin.runs.presets import STL10, TINY

VIEWS = [f"crop:{area}" for area in (0.02, 0.08, 0.2, 0.4, 0.6, 0.8, 1)]
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        **TINY,
        "views": VIEWS[::3],
        "seeds": 1,
        "data": "photos",
        "task": "background",
        "share_encoder": True,
    },
    "quick": {
        "views": VIEWS,
        "seeds": 3,
        "data": "photos",
        "task": "background",
        "share_encoder": True,
    },
    "paper": {**STL10, "views": VIEWS},
}

if __name__ == "__main__":
    command(PRESETS, "crop_area", dial="least share of the image in a crop", about=__doc__)
