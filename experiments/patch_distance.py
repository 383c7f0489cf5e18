"""Patches: two patches of an image, by how far apart they are along the diagonal (InfoMin, section 4).

    python experiments/patch_distance.py                                  # 6 minutes on 2 cores, no download
    python experiments/patch_distance.py --save experiments/figures       # the same, and the committed rows and figure
    python experiments/patch_distance.py --preset paper                   # for a GPU; first python data_tools/fetch.py stl10

The farther apart, the less two patches share. Recalled from the paper (64 px patches, 64 to 384 px apart, of large photographs):
I_NCE falls with the distance, accuracy is an inverted U. Here scenes are 64 px wide and a digit some 40, so patches of 32 px that
are 16 px apart both show much of it; nearer ones share the background's pixels, farther ones hardly the digit. The probe reads
whole scenes. The paper read its features on other data (STL-10, CIFAR-10) than it learned them from; here both are the same.
"""

from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli

from infomin.experiment import TINY, experiment

VIEWS = [f"patch:{distance}/32" for distance in (4, 8, 12, 16, 20, 24, 32)]
SCENES: dict[str, Any] = {"data": "digits", "task": "digit", "size": 64, "share_encoder": True}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "views": VIEWS[::3], "seeds": 1, **SCENES},
    "quick": {"views": VIEWS, "seeds": 3, "probe_images": 2048, **SCENES},
    "paper": {
        "views": VIEWS,
        "seeds": 3,
        "data": "stl10",
        "task": "class",
        "size": 96,
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
    out: str = "runs/patch_distance",
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
        save: Folder to put patch_distance.jsonl and patch_distance.png into as well.
    """
    where = Path(save) / "patch_distance" if save else ""
    experiment(PRESETS, preset, out, dial="distance [px]", jobs=jobs, save=where, data=data, task=task)


if __name__ == "__main__":
    auto_cli(main)
