"""Frequencies: an image below and above a spatial frequency, by sigma, where it is parted (InfoMin).

    python experiments/frequency.py                                  # 7 minutes on 2 cores, no download
    python experiments/frequency.py --save experiments/figures       # the same, and the committed rows and figure
    python experiments/frequency.py --preset paper                   # for a GPU; first python data_tools/fetch.py stl10

The two parts add up to the image. At small sigma nearly all of it is in the low pass, at large sigma in the high pass; between
them both show what is at scales of a few pixels. Recalled from the paper (STL-10): I_NCE is highest near 0.7, accuracy near 1.0.
Expect an inverted U along sigma: a digit's strokes are some two pixels wide, and at 0.1 the blur changes no pixel, so the high
pass is 0 and nothing is shared. In between a network can scale up even a faint high pass, so expect a plateau. (At 0.15 the blur
changes black pixels alone, by 1e-10; networks made 0.3 nats of that.)
"""

from typing import Any

from infomin.experiment import command
from infomin.runs.presets import STL10, TINY

VIEWS = [f"frequency:{sigma}" for sigma in (0.1, 0.3, 0.7, 1.5, 2.5, 4, 6, 8)]
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "views": VIEWS[::3], "seeds": 1, "data": "digits", "task": "digit"},
    "quick": {"views": VIEWS, "seeds": 3, "data": "digits", "task": "digit"},
    "paper": {
        **STL10,
        "views": [f"frequency:{sigma}" for sigma in (0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5)],
        "share_encoder": False,
        "width": 0.5,
    },
}

if __name__ == "__main__":
    command(PRESETS, "frequency", dial="sigma [px]", about=__doc__)
