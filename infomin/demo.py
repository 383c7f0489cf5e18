"""The inverted U in one command: views of handwritten digits that share nothing … everything, the truth known in nats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .check import known
from .experiment import TINY, report, untrained
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
    "tiny": {**TINY, "seeds": 1},
    "quick": {"seeds": 3},
}


def recipes(preset: str = "quick", views: Sequence[str] = VIEWS) -> list[Recipe]:
    """The sweep: every view, over seeds; all else is equal.

    Args:
        preset: a key of `PRESETS`.
        views: of scenes, both parts seen by one encoder.

    Raises:
        ValueError: an unknown preset.
    """
    fields = dict(PRESETS[known(preset, PRESETS, "preset")])
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
    rows = sweep([*recipes(preset), *untrained(recipes(preset))], out, jobs=jobs)
    report(rows, out, TASK)
    return rows
