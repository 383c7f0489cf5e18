"""Colour jitter: two crops whose colours are changed, by the strength of the change (InfoMin, section 4).

    python experiments/color_jitter.py                                  # 6 minutes on 2 cores, no download
    python experiments/color_jitter.py --save experiments/figures       # the same, and the committed rows and figure
    python experiments/color_jitter.py --preset paper                   # for a GPU; first python data_tools/fetch.py stl10

The stronger the jitter, the less two crops share. Expected from the paper (ImageNet, MoCo): an inverted U with its top at 1. Here
the task is a white digit over photographs: the colours of the background, which give two crops away, are pure noise to it, so
expect a steep rise; a digit survives jitter of any strength, so there is little reason for a fall.
"""

from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli

from infomin.experiment import TINY, experiment

VIEWS = [f"crop:0.6+jitter:{strength}" for strength in (0.125, 0.25, 0.5, 1, 2, 4, 8)]
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "views": VIEWS[::3], "seeds": 1, "data": "digits", "task": "digit", "share_encoder": True},
    "quick": {"views": VIEWS, "seeds": 3, "data": "digits", "task": "digit", "share_encoder": True},
    "paper": {
        "views": [view.replace("0.6", "0.2") for view in VIEWS],
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
    out: str = "runs/color_jitter",
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
        save: Folder to put color_jitter.jsonl and color_jitter.png into as well.
    """
    where = Path(save) / "color_jitter" if save else ""
    experiment(PRESETS, preset, out, dial="strength of the colour jitter", jobs=jobs, save=where, data=data, task=task)


if __name__ == "__main__":
    auto_cli(main)
