"""Colour spaces: the first channel against the other two, in ten spaces (InfoMin; CMC).

    python experiments/color_spaces.py                             # 7 minutes on 2 cores
    python experiments/color_spaces.py --save experiments/figures  # also saves rows and figure
    python experiments/color_spaces.py --preset paper              # on a GPU, with STL-10

A linear map of RGB keeps all the information but splits it differently between the channels: R and
(G, B) share far more than luma and chroma do. Expected from the paper, which used natural
photographs: the less the two parts share, the better the features, as long as both show the task;
Lab and YDbDr are near the sweet spot. Here the task is a white digit over photographs. The preset
paper needs `infomin data fetch stl10` first; the others download nothing.
"""

from typing import Any

from infomin.experiment import command
from infomin.runs.presets import TINY
from infomin.views.color import SPACES

VIEWS = [f"color:{space}" for space in SPACES]
DIGITS: dict[str, Any] = {"data": "digits", "task": "digit"}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "views": VIEWS, "seeds": 1, **DIGITS},
    "quick": {"views": VIEWS, "seeds": 3, **DIGITS},
    "paper": {
        "views": [f"crop:0.2/1+flip:0.5/1+{view}" for view in VIEWS],  # one crop for both parts
        "seeds": 3,
        "data": "stl10",
        "task": "class",
        "size": 64,
        "encoder": "alexnet",
        "width": 0.5,
        "dim": 128,
        "tau": 0.1,
        "batch": 256,
        "steps": 41_000,  # 100 epochs
    },
}

if __name__ == "__main__":
    command(PRESETS, "color_spaces", dial="colour space, first channel | the others", about=__doc__)
