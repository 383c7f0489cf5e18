"""Crop area: two random resized crops of an image, by the smallest area of a crop (InfoMin).

    python experiments/crop_area.py                             # 7 minutes on 2 cores
    python experiments/crop_area.py --save experiments/figures  # also saves rows and figure
    python experiments/crop_area.py --preset paper              # on a GPU, with STL-10

The smaller the crops may be, the less they share. Expected from the paper (ImageNet, MoCo): an
inverted U with its peak at 0.2. Here the task is which of ten photographs a patch comes from, and
nearly any part of it tells. So expect a fall on the right, where both crops are nearly the whole
image, and hardly any on the left. At 1 both views are the same pixels and share at least log K
nats; an I_NCE below that is the fault of the encoders and the critic that measure it. The preset
paper needs `infomin data fetch stl10` first; the others download nothing.
"""

from typing import Any

from infomin.experiment import command
from infomin.runs.presets import STL10, TINY

VIEWS = [f"crop:{area}" for area in (0.02, 0.08, 0.2, 0.4, 0.6, 0.8, 1)]
PHOTOS: dict[str, Any] = {"data": "photos", "task": "background", "share_encoder": True}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "views": VIEWS[::3], "seeds": 1, **PHOTOS},
    "quick": {"views": VIEWS, "seeds": 3, **PHOTOS},
    "paper": {**STL10, "views": VIEWS},
}

if __name__ == "__main__":
    command(PRESETS, "crop_area", dial="least share of the image in a crop", about=__doc__)
