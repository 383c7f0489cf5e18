"""Augmentations, one after the other, from plain crops to InfoMin Aug: each takes away what two views share (InfoMin, section 5).

    python experiments/augmentations.py                                  # 8 minutes on 2 cores, no download
    python experiments/augmentations.py --save experiments/figures       # the same, and the committed rows and figure
    python experiments/augmentations.py --preset paper                   # for a GPU; first python data_tools/fetch.py stl10

Expected from the paper (ImageNet, MoCo v2): every one of them helps, and InfoMin Aug is best. Here the task is a white digit over
photographs: what changes the background's look should help, mirrored digits should hurt.
"""

from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli

from infomin.experiment import TINY, experiment

CROP, JITTER = "crop:0.2", "crop:0.2+flip:0.5+jitter:1"
VIEWS = [CROP, f"{CROP}+flip:0.5", JITTER, f"{JITTER}+grey:0.2", f"{JITTER}+blur:0.5+grey:0.2", "aug:simclr", "aug:infomin"]
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "views": VIEWS[::3], "seeds": 1, "data": "digits", "task": "digit", "share_encoder": True},
    "quick": {"views": VIEWS, "seeds": 3, "data": "digits", "task": "digit", "share_encoder": True},
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
    out: str = "runs/augmentations",
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
        save: Folder to put augmentations.jsonl and augmentations.png into as well.
    """
    where = Path(save) / "augmentations" if save else ""
    experiment(PRESETS, preset, out, dial="what is drawn for each view", jobs=jobs, save=where, data=data, task=task)


if __name__ == "__main__":
    auto_cli(main)
