"""Crops: two random resized crops of an image, by the least share of it that a crop may have (InfoMin, section 4).

    python experiments/crop_area.py                                  # 5 minutes on 2 cores, no download
    python experiments/crop_area.py --save experiments/figures       # the same, and the committed rows and figure
    python experiments/crop_area.py --preset paper                   # for a GPU; first python data_tools/fetch.py stl10

The smaller the crops may be, the less they share. Expected from the paper (ImageNet, MoCo): an inverted U with its top at 0.2.
Here the task is which of ten photographs a patch is from, which nearly any part of it tells: expect the fall on the right, where
both crops are nearly the whole image, but hardly one on the left.
"""

from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli

from infomin.experiment import TINY, experiment

VIEWS = [f"crop:{area}" for area in (0.02, 0.08, 0.2, 0.4, 0.6, 0.8, 1)]
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "views": VIEWS[::3], "seeds": 1, "data": "photos", "task": "background", "share_encoder": True},
    "quick": {"views": VIEWS, "seeds": 3, "data": "photos", "task": "background", "share_encoder": True},
    "paper": {
        "views": VIEWS,
        "seeds": 3,
        "data": "stl10",
        "task": "class",
        "size": 64,
        "encoder": "resnet18",
        "share_encoder": True,
        "dim": 128,
        "head": "mlp",
        "batch": 256,
        "steps": 41_000,  # 100 epochs
    },
}


def main(
    preset: Literal["tiny", "quick", "paper"] = "quick",
    data: str = "",
    task: str = "",
    out: str = "runs/crop_area",
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
        save: Folder to put crop_area.jsonl and crop_area.png into as well.
    """
    where = Path(save) / "crop_area" if save else ""
    experiment(PRESETS, preset, out, dial="least share of the image in a crop", jobs=jobs, save=where, data=data, task=task)


if __name__ == "__main__":
    auto_cli(main)
