"""The inverted U in one command: views of handwritten digits that share nothing … everything, the truth known in nats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from . import plots, table
from .run import Recipe
from .sweep import grid, sweep

TASK = "digit"
VIEWS = (
    "shared:nothing",
    "shared:digit%2",
    "shared:digit%5",
    "shared:digit",
    "shared:digit-position",
    "shared:digit-position-background",
    "shared:digit-position-background_image",
    "shared:all",
)
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"steps": 4, "batch": 32, "candidates": 64, "probe_images": 256, "width": 0.25, "seeds": 1},
    "quick": {"seeds": 3},
}


def recipes(preset: str = "quick", views: Sequence[str] = VIEWS) -> list[Recipe]:
    """The sweep: every view, over seeds; all else is equal.

    Args:
        preset: a key of `PRESETS`.
        views: of scenes, both parts seen by one encoder.
    """
    fields = dict(PRESETS[preset])
    seeds = range(fields.pop("seeds"))
    return grid(Recipe(share_encoder=True, **fields), seed=seeds, view=views)


def demo(out: str | Path = "runs/demo", preset: str = "quick", jobs: int | None = None) -> list[dict[str, Any]]:
    """Carry out the sweep, write `table.csv` and `u_curve.png` beside its runs, and print what they say.

    Args:
        out: folder of runs; the same command again goes on where it was cut.
        preset: `tiny` (seconds, says nothing) or `quick` (minutes on two cores).
        jobs: processes at a time; by default one per core.

    Returns:
        the rows.
    """
    rows = sweep(recipes(preset), out, jobs=jobs)
    report(rows, out, TASK)
    return rows


def report(rows: Sequence[dict[str, Any]] | pd.DataFrame, out: str | Path, task: str = "") -> None:
    """Print a table of means over seeds, draw the curve, and say in one sentence what it shows.

    Args:
        rows: as `run` returns them.
        out: folder for `table.csv` and `u_curve.png`.
        task: what accuracy is measured on; by default the first task of the rows.
    """
    task = task or next((name[4:] for name in pd.DataFrame(rows) if name.startswith("acc_")), TASK)
    at = plots.points(rows, task)
    with table.atomic(Path(out) / "table.csv") as file:
        file.write(at.to_csv(index=False).encode())
    picture = plots.u_curve(rows, Path(out) / "u_curve.png", task)
    print(
        at.drop(columns=["spread"])
        .rename(columns=lambda name: name.removesuffix("_mean"))
        .to_string(index=False, float_format="%.3f", na_rep="")
    )
    print(f"\nfigure: {picture}\ntable:  {Path(out) / 'table.csv'}\n\n{plots.verdict(rows, task)}")
