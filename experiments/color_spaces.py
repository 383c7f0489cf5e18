"""Colour spaces as views: the first channel against the other two, in ten spaces (InfoMin, section 4; CMC).

    python experiments/color_spaces.py                                  # 6 minutes on 2 cores, no download
    python experiments/color_spaces.py --save experiments/figures       # the same, and the committed rows and figure
    python experiments/color_spaces.py --preset paper                   # for a GPU; first python data_tools/fetch.py stl10

A linear map of RGB keeps all the information, but splits it otherwise between the channels: R and (G, B) share far more than
luma and chroma do. Expected from the paper: the less the two parts share, the better the features, as long as both show the task;
Lab and YDbDr are near the sweet spot. That was seen on natural photographs; here the task is a white digit over photographs.
"""

from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli

from infomin.experiment import TINY, experiment
from infomin.views.color import SPACES

VIEWS = [f"color:{space}" for space in SPACES]
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "views": VIEWS, "seeds": 1, "data": "digits", "task": "digit"},
    "quick": {"views": VIEWS, "seeds": 3, "data": "digits", "task": "digit"},
    "paper": {
        "views": [f"crop:0.2/1+flip:0.5/1+{view}" for view in VIEWS],  # the crop is the same for both parts
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


def main(
    preset: Literal["tiny", "quick", "paper"] = "quick",
    data: str = "",
    task: str = "",
    out: str = "runs/color_spaces",
    jobs: int = 0,
    save: str = "",
) -> None:
    """Carry out the experiment; see the top of this file.

    Args:
        preset: Budget: tiny only shows that it runs, quick is the figure, paper is meant for a GPU.
        data: What the views are made from, if not the preset's: digits, photos, stl10, cifar10 or folder:PATH.
        task: What accuracy is measured on, if not the preset's.
        out: Folder of runs; the same command again goes on where it was cut.
        jobs: Processes at a time; 0 means one per core.
        save: Folder to put color_spaces.jsonl and color_spaces.png into as well.
    """
    where = Path(save) / "color_spaces" if save else ""
    experiment(PRESETS, preset, out, jobs=jobs, save=where, data=data, task=task)


if __name__ == "__main__":
    auto_cli(main)
