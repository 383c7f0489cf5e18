"""Frequency: an image below and above a spatial frequency, set by sigma (InfoMin).

    python experiments/frequency.py                             # 7 minutes on 2 cores
    python experiments/frequency.py --save experiments/figures  # also saves rows and figure
    python experiments/frequency.py --preset paper              # on a GPU, with STL-10

The two parts add up to the image. At small sigma nearly everything is in the low pass, at large
sigma in the high pass; in between, both show structure of a few pixels. Recalled from the paper
(STL-10): I_NCE peaks near 0.7, accuracy near 1.0.

Here a digit's strokes are about two pixels wide, so expect an inverted U along sigma. At 0.1 the
blur changes no pixel, so the high pass is 0 and shows nothing. In between a network can amplify
even a faint high pass, so expect a plateau.

The preset paper needs `infomin data fetch stl10` first; the others download nothing.
"""

from typing import Any

from infomin.experiment import command
from infomin.runs.presets import STL10, TINY

VIEWS = [f"frequency:{sigma}" for sigma in (0.1, 0.3, 0.7, 1.5, 2.5, 4, 6, 8)]
VIEWS_OF_PAPER = [f"frequency:{sigma}" for sigma in (0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5)]
DIGITS: dict[str, Any] = {"data": "digits", "task": "digit"}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "views": VIEWS[::3], "seeds": 1, **DIGITS},
    "quick": {"views": VIEWS, "seeds": 3, **DIGITS},
    "paper": {**STL10, "views": VIEWS_OF_PAPER, "share_encoder": False, "width": 0.5},
}

if __name__ == "__main__":
    command(PRESETS, "frequency", dial="sigma [px]", about=__doc__)
