"""Colour jitter: two crops, with colours changed by a varied strength (InfoMin).

    python experiments/color_jitter.py                             # 6 minutes on 2 cores
    python experiments/color_jitter.py --save experiments/figures  # also saves rows and figure
    python experiments/color_jitter.py --preset paper              # on a GPU, with STL-10

The stronger the jitter, the less two crops share. Expected from the paper (ImageNet, MoCo): an
inverted U with its peak at 1. Here the task is a white digit over photographs. The colours of the
background identify a pair of crops but are pure noise for the task, so expect a steep rise; a digit
survives jitter of any strength, so there is little reason for a fall. The preset paper needs
`infomin data fetch stl10` first; the others download nothing.
"""

from typing import Any

from infomin.experiment import command
from infomin.runs.presets import STL10, TINY

VIEWS = [f"crop:0.6+jitter:{strength}" for strength in (0.125, 0.25, 0.5, 1, 2, 4, 8)]
DIGITS: dict[str, Any] = {"data": "digits", "task": "digit", "share_encoder": True}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "views": VIEWS[::3], "seeds": 1, **DIGITS},
    "quick": {"views": VIEWS, "seeds": 3, **DIGITS},
    "paper": {**STL10, "views": [view.replace("0.6", "0.2") for view in VIEWS]},
}

if __name__ == "__main__":
    command(PRESETS, "color_jitter", dial="strength of the colour jitter", about=__doc__)
