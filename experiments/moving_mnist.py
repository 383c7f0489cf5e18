"""Colorful Moving-MNIST: an encoder learns what the past of a clip shares with one image (InfoMin).

    python experiments/moving_mnist.py                             # 8 minutes on 2 cores
    python experiments/moving_mnist.py --save experiments/figures  # also saves rows and figure
    python experiments/moving_mnist.py --digits idx:PATH --backgrounds folder:PATH
    python experiments/moving_mnist.py --preset paper              # on a GPU, MNIST over STL-10

A digit moves over a photograph. v1 is ten frames; v2 is one image that shares the picture of the
digit, its position or the crop of the background of a later frame, or several of them, and draws
the rest at random.
Probes then read the digit's class, its position and the background's class from the encoder of
single images and, for a second table, from the encoder of the past. Expected: each factor is read
best where it alone is shared, and a shared background drives the digit out, because it is an easier
way to the same loss.

The supervised row trains on all three labels; the untrained row shows networks at initialisation.
`true_nats` is the information of the shared factors, of which I_NCE sees as much as its number of
candidates allows. Nothing is downloaded, except by the preset paper.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from infomin import Recipe, sweep
from infomin.common import files
from infomin.common.checks import check_choice
from infomin.experiment import run_script
from infomin.report import panels
from infomin.report.summary import summarise
from infomin.runs.presets import TINY

# The very digit and background of the later frame, not others of their classes.
DIGIT, PLACE, GROUND = "digit_image", "position", "background_crop"
SHARED = {
    "digit": [DIGIT],
    "place": [PLACE],
    "background": [GROUND],
    "digit, place": [DIGIT, PLACE],
    "digit, background": [DIGIT, GROUND],
    "place, background": [PLACE, GROUND],
    "digit, place, background": [DIGIT, PLACE, GROUND],
}
REFERENCES: dict[str, dict[str, Any]] = {  # rows that do not compete with those above
    "supervised": {"view": "frames:all", "method": "supervised"},
    "untrained": {"view": "frames:all", "steps": 0},
}
CNN = {"encoder": "tiny", "width": 0.5, "size": 64}  # four layers of 8, 16, 32, 64 channels
BUDGETS: dict[str, dict[str, Any]] = {
    "tiny": {**TINY, "seeds": 1, "size": 32},
    # Half the pixels, to end in 20 minutes on a CPU.
    "quick": {**CNN, "seeds": 3, "steps": 1600, "batch": 32, "size": 48},
    "paper": {**CNN, "seeds": 3, "steps": 94_000, "digits": "mnist", "backgrounds": "stl10"},
}
COLUMNS = {
    "error_digit": "digit, error",
    "error_background": "background, error",
    "px_place": "place, error [px]",
}


def recipes(preset: str, digits: str = "", backgrounds: str = "") -> dict[str, list[Recipe]]:
    """Row of the table -> its recipes, one per seed."""
    fields = {"digits": "digits", "backgrounds": "photos"}
    fields |= BUDGETS[check_choice(preset, BUDGETS, "preset")]
    seeds = fields.pop("seeds")
    preset_digits, preset_backgrounds = fields.pop("digits"), fields.pop("backgrounds")
    fields["data"] = f"clips:{digits or preset_digits}@{backgrounds or preset_backgrounds}"
    rows: dict[str, dict[str, Any]] = {
        name: {"view": f"frames:{'-'.join(factors)}"} for name, factors in SHARED.items()
    }
    rows |= REFERENCES
    return {
        name: [Recipe(**(fields | row), seed=seed) for seed in range(seeds)]
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
    """Compare what is shared with what is learned.

    Args:
        preset: Budget: tiny is a smoke test, quick draws the figure, paper needs a GPU.
        digits: Source of digits, if not the preset's: digits, mnist, fashion, emnist:letters,
            idx:PATH or folder:PATH.
        backgrounds: Source of backgrounds, if not the preset's: photos, stl10 or folder:PATH.
        out: Folder of runs; run the same command again to resume.
        jobs: Runs in parallel; 0 means one per core. Another number may change the last
            digits of a row, by rounding.
        save: Folder that also gets the rows (.jsonl) and the figure (.png).
    """
    by_name = recipes(preset, digits, backgrounds)
    plan = [(name, recipe) for name, seeds in by_name.items() for recipe in seeds]
    done = sweep([recipe for _, recipe in plan], out, jobs=jobs)
    rows = [row | {"shared": name} for row, (name, _) in zip(done, plan, strict=True)]
    frame = pd.DataFrame(rows)
    for name in [name for name in frame if name.startswith("acc_")]:
        frame[name.replace("acc", "error")] = 1 - frame[name]
    # Backgrounds of a single class have no error.
    columns = {name: label for name, label in COLUMNS.items() if name in frame}
    for suffix, encoder in {"": "of single images", "_past": "of the past"}.items():
        numbers = [f"{name}{suffix}" for name in columns]
        table = summarise(frame, "shared", [*numbers, "i_nce", "true_nats"])
        print(f"The encoder {encoder}:")
        print(table.to_string(index=False, float_format="%.3f", na_rep=""))
        with files.atomic_write(f"{out}/table{suffix}.csv") as file:
            file.write(table.to_csv(index=False).encode())
    aside = list(REFERENCES)
    panels.dot_table(frame, f"{out}/moving_mnist.png", "shared", columns, aside=aside)
    if save:
        files.write_jsonl(Path(save) / "moving_mnist.jsonl", rows)
        panels.dot_table(frame, Path(save) / "moving_mnist.png", "shared", columns, aside=aside)


if __name__ == "__main__":
    run_script(main, __doc__)
