"""Colorful Moving-MNIST: what the past of a clip shares with one image is what is learned, and nothing else (InfoMin).

    python experiments/moving_mnist.py                                  # 8 minutes on 2 cores; no download
    python experiments/moving_mnist.py --save experiments/figures       # the same, and the committed rows and figure
    python experiments/moving_mnist.py --digits idx:PATH --backgrounds folder:PATH      # other pictures
    python experiments/moving_mnist.py --preset paper                   # MNIST over STL-10, for a GPU

A digit moves over a photograph. v1 is ten frames; v2 is one image that shares with a later frame the digit, its place, the
background, or several of them, the rest being drawn anew. A probe then asks the encoder of single images for the digit's class,
its place and the background's class; and, for a second table, it asks the encoder of the past. Expected: each factor is read best
where it alone is shared, and a background that is shared as well drives the digit out, for it is the easier way to the same loss.
The supervised row is told all three; the untrained one is what networks show as they are made. `true_nats` is what the factors
share, of which I_NCE sees as much as its candidates allow.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from infomin import Recipe, sweep
from infomin.common import files
from infomin.common.checks import check_choice
from infomin.experiment import run_script
from infomin.report import panels
from infomin.report.summary import summary
from infomin.runs.presets import TINY

DIGIT, PLACE, GROUND = (
    "digit_image",
    "position",
    "background_crop",
)  # the very digit and background of the later frame
SHARED = {
    "digit": [DIGIT],
    "place": [PLACE],
    "background": [GROUND],
    "digit, place": [DIGIT, PLACE],
    "digit, background": [DIGIT, GROUND],
    "place, background": [PLACE, GROUND],
    "digit, place, background": [DIGIT, PLACE, GROUND],
}
ASIDE = ("supervised", "untrained")  # rows that nothing was shared for
CNN = {"encoder": "tiny", "width": 0.5, "size": 64}  # four layers of 8, 16, 32, 64 channels
BUDGETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "seeds": 1, "size": 32},
    "quick": {
        **CNN,
        "seeds": 3,
        "steps": 1600,
        "batch": 32,
        "size": 48,
    },  # half the pixels: to end in 20 minutes on a CPU
    "paper": {**CNN, "seeds": 3, "steps": 94_000, "digits": "mnist", "backgrounds": "stl10"},
}


def recipes(preset: str, digits: str = "", backgrounds: str = "") -> dict[str, list[Recipe]]:
    """Row of the table -> its recipes, one a seed."""
    fields = {
        "digits": "digits",
        "backgrounds": "photos",
        **BUDGETS[check_choice(preset, BUDGETS, "preset")],
    }
    seeds, *words = (fields.pop(name) for name in ("seeds", "digits", "backgrounds"))
    fields["data"] = f"clips:{digits or words[0]}@{backgrounds or words[1]}"
    rows = {name: {"view": f"frames:{'-'.join(parts)}"} for name, parts in SHARED.items()}
    rows |= {
        "supervised": {"view": "frames:all", "method": "supervised"},
        "untrained": {"view": "frames:all", "steps": 0},
    }
    return {
        name: [Recipe(**{**fields, **row}, seed=seed) for seed in range(seeds)]
        for name, row in rows.items()
    }


def main(
    preset: str = "quick",
    digits: str = "",
    backgrounds: str = "",
    out: str = "runs/moving_mnist",
    jobs: int = 0,
    save: str = "",
) -> None:
    """Hold what is shared against what is learned.

    Args:
        preset: Budget: tiny only shows that it runs, quick is the figure, paper is meant for a GPU.
        digits: Where digits come from, if not the preset's: digits, mnist, fashion, emnist:letters, idx:PATH or folder:PATH.
        backgrounds: Where backgrounds come from, if not the preset's: photos, stl10 or folder:PATH.
        out: Folder of runs; the same command again goes on where it was cut.
        jobs: Processes at a time; 0 means one per core.
        save: Folder to put rows (.jsonl) and figure (.png) into as well.
    """
    plan = [
        (name, recipe)
        for name, some in recipes(preset, digits, backgrounds).items()
        for recipe in some
    ]
    done = sweep([recipe for _, recipe in plan], out, jobs=jobs)
    rows = [row | {"shared": name} for row, (name, _) in zip(done, plan, strict=True)]
    frame = pd.DataFrame(rows)
    for name in [name for name in frame if name.startswith("acc_")]:
        frame[name.replace("acc", "error")] = 1 - frame[name]
    columns = {
        "error_digit": "digit, error",
        "error_background": "background, error",
        "px_place": "place, error [px]",
    }
    columns = {
        name: label for name, label in columns.items() if name in frame
    }  # of a single class there is no error
    for end, encoder in {"": "of single images", "_past": "of the past"}.items():
        at = summary(frame, "shared", [*(name + end for name in columns), "i_nce", "true_nats"])
        print(
            f"The encoder {encoder}:",
            at.to_string(index=False, float_format="%.3f", na_rep=""),
            sep="\n",
        )
        with files.atomic_write(f"{out}/table{end}.csv") as file:
            file.write(at.to_csv(index=False).encode())
    panels.dot_table(frame, f"{out}/moving_mnist.png", "shared", columns, aside=ASIDE)
    if save:
        files.write_jsonl(Path(save) / "moving_mnist.jsonl", rows)
        panels.dot_table(frame, Path(save) / "moving_mnist.png", "shared", columns, aside=ASIDE)


if __name__ == "__main__":
    run_script(main, __doc__)
