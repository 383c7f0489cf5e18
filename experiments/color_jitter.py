"""Colour jitter: two crops whose colours are changed, by the strength of the change (InfoMin).

    python experiments/color_jitter.py                                  # 6 minutes on 2 cores, no download
    python experiments/color_jitter.py --save experiments/figures       # the same, and the committed rows and figure
    python experiments/color_jitter.py --preset paper                   # for a GPU; first python data_tools/fetch.py stl10

The stronger the jitter, the less two crops share. Expected from the paper (ImageNet, MoCo): an inverted U with its top at 1. Here
the task is a white digit over photographs: the colours of the background, which give two crops away, are pure noise to it, so
expect a steep rise; a digit survives jitter of any strength, so there is little reason for a fall.
"""

from typing import Any

from infomin.experiment import command
from infomin.runs.presets import STL10, TINY

VIEWS = [f"crop:0.6+jitter:{strength}" for strength in (0.125, 0.25, 0.5, 1, 2, 4, 8)]
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
    "paper": {**STL10, "views": [view.replace("0.6", "0.2") for view in VIEWS]},
}

if __name__ == "__main__":
    command(PRESETS, "color_jitter", dial="strength of the colour jitter", about=__doc__)
