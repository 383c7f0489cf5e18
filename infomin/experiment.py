"""What experiments/ and `infomin demo` share: a sweep over views, its report, a command line."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from jsonargparse import auto_cli

from .common import files
from .common.allocator import keep_memory
from .common.checks import check_choice
from .common.files import Row
from .common.terminal import exit_status, tolerate_encoding
from .data.datasets import tasks
from .report import plots
from .report.shape import by_dial
from .report.summary import drop_diverged
from .runs.recipe import Recipe
from .runs.sweeps import grid, sweep


def experiment(
    presets: Mapping[str, Mapping[str, Any]],
    preset: str,
    out: str | Path,
    *,
    dial: str = "",
    jobs: int = 0,
    save: str | Path = "",
    **overrides: Any,
) -> list[Row]:
    """Carry out a preset, trained and untrained, and report it; call it again to resume.

    Args:
        presets: budget -> fields of the recipe, and with them `views` (what is varied), `seeds`
            (how many) and `task` (what accuracy is measured on).
        preset: a key of `presets`.
        out: folder of runs, table and figure.
        dial: the name of the views' dial, with its unit, if it is a number.
        jobs: processes at a time; 0 means one per core.
        save: where to put rows and figure as well, without a suffix.
        overrides: entries that replace the preset's, unless they are empty.

    Returns:
        the rows.
    """
    fields = _preset_fields(presets, preset, overrides)
    planned = recipes(presets, preset, **overrides)
    task = check_choice(fields["task"], tasks(planned[0].data), "task")  # now, not hours later
    rows = sweep([*planned, *untrained(planned)], out, jobs=jobs)
    print_report(rows, out, task, dial, save)
    return rows


def recipes(
    presets: Mapping[str, Mapping[str, Any]], preset: str, **overrides: Any
) -> list[Recipe]:
    """The recipes of a preset, every view over all seeds; arguments as for `experiment`."""
    fields = _preset_fields(presets, preset, overrides)
    views, seeds, _ = (fields.pop(name) for name in ("views", "seeds", "task"))
    return grid(Recipe(**fields), seed=range(seeds), view=views)


def _preset_fields(
    presets: Mapping[str, Mapping[str, Any]], preset: str, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    given = {name: value for name, value in overrides.items() if value not in ("", None)}
    return {**presets[check_choice(preset, presets, "preset")], **given}


def untrained(recipes: Iterable[Recipe]) -> list[Recipe]:
    """The same recipes without training: what a curve has to rise above."""
    return [replace(recipe, steps=0) for recipe in recipes]


def command(
    presets: Mapping[str, Mapping[str, Any]], name: str, dial: str = "", about: str | None = None
) -> None:
    """The command line of an experiment: what a script in experiments/ ends with.

    Args:
        presets: as for `experiment`.
        name: of the script; runs go to `runs/NAME`, and what is saved has this name.
        dial: the name of the views' dial, with its unit.
        about: as for `run_script`.
    """

    def main(
        preset: str = "quick",
        data: str = "",
        task: str = "",
        out: str = f"runs/{name}",
        jobs: int = 0,
        save: str = "",
    ) -> None:
        """Carry out the experiment.

        Args:
            preset: Budget: tiny is a smoke test, quick draws the figure, paper needs a GPU.
            data: What the views are made from, if not the preset's: digits, photos, clips,
                clips:DIGITS@BACKGROUNDS, stl10, cifar10 or folder:PATH.
            task: What accuracy is measured on, if not the preset's.
            out: Folder of runs; run the same command again to resume.
            jobs: Runs in parallel; 0 means one per core. Another number may change the last
                digits of a row, by rounding.
            save: Folder that also gets the rows (.jsonl) and the figure (.png).
        """
        where = Path(save) / name if save else ""
        experiment(presets, preset, out, dial=dial, jobs=jobs, save=where, data=data, task=task)

    run_script(main, about)


def run_script(
    main: Callable[..., int | None], about: str | None, *, keeps_memory: bool = True
) -> NoReturn:
    """Run a script and end the process: its command line has the arguments of `main`.

    Args:
        main: with a docstring that says what each argument is for; returns the exit status, None
            for 0.
        about: the script's docstring; `--help` shows it without the indented commands.
        keeps_memory: whether the process keeps the memory it frees, see `infomin.keep_memory`.
    """
    tolerate_encoding()
    if keeps_memory:
        keep_memory()
    paragraphs = (about or "").split("\n\n")
    description = " ".join(text for text in paragraphs if not text.startswith(" "))
    script = partial(auto_cli, main, description=description)
    sys.exit(exit_status(script, Path(sys.argv[0]).name))


def print_report(
    rows: Sequence[Row] | pd.DataFrame,
    out: str | Path,
    task: str = "",
    dial: str = "",
    save: str | Path = "",
) -> None:
    """Print a table of means over seeds, draw the curve, and say in one sentence what it shows.

    Args:
        rows: as `run` returns them, or your own with the columns view and i_nce.
        out: folder for `table.csv` and `u_curve.png`; or the figure itself (.png, .pdf or .svg),
            with the table beside it.
        task: what accuracy is measured on; by default the first task of the rows.
        dial: the name of the views' dial, with its unit; the figure is then `dial_curve.png`, along
            the dial.
        save: where to put rows and figure as well, without a suffix: `.jsonl` and `.png` are added.

    Raises:
        ValueError: rows that all diverged, or that are no points of a curve, see `points`.
    """
    frame = pd.DataFrame(rows)
    diverged = _describe_diverged(frame)
    task = task or _first_task(frame)
    points = plots.points(rows, task)
    points = by_dial(points, rows) if dial else points
    picture, table = _figure_and_table(files.as_path(out), "dial_curve" if dial else "u_curve")
    with files.atomic_write(table) as file:  # a path in a view may have any bytes
        file.write(points.to_csv(index=False).encode(errors="surrogateescape"))

    def draw(path: Path) -> Path:
        return plots.dial_curve(rows, path, task, dial) if dial else plots.u_curve(rows, path, task)

    draw(picture)
    if save:
        records = frame.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
        files.write_jsonl(Path(f"{save}.jsonl"), records)
        draw(Path(f"{save}.png"))
    shown = points.drop(columns=["spread"]).rename(columns=lambda name: name.removesuffix("_mean"))
    print(shown.to_string(index=False, float_format="%.3f", na_rep=""))
    print(f"\nfigure: {picture}\ntable:  {table}\n")
    print(plots.verdict(rows, task, dial=bool(dial)))
    if diverged:
        print(diverged)
    _warn_of_mixtures(frame)


def _figure_and_table(out: Path, name: str) -> tuple[Path, Path]:
    """Where they go: `out` is the figure if it is named like one, else the folder of both."""
    if out.suffix.lower() in plots.SUFFIXES and not out.is_dir():
        return out, out.with_suffix(".csv")
    return out / f"{name}.png", out / "table.csv"


def _describe_diverged(frame: pd.DataFrame) -> str:
    """Return a sentence on rows that diverged, if any did; raise a ValueError if all did."""
    bad = frame.drop(drop_diverged(frame).index)
    if bad.empty:
        return ""
    first = bad.iloc[0]
    sentence = (
        f"{len(bad)} of {len(frame)} runs diverged; first, {first.get('view')}: "
        f"{first.get('reason')}"
    )
    if len(bad) == len(frame):
        raise ValueError(f"rows: nothing to show; {sentence}")
    return sentence


def _first_task(frame: pd.DataFrame) -> str:
    """The first task that all rows know, or else the first."""
    done = drop_diverged(frame)
    tasks = [name.removeprefix("acc_") for name in frame if name.startswith("acc_")]
    complete = [name for name in tasks if done[f"acc_{name}"].notna().all()]
    return next(iter([*complete, *tasks]), "")


def _warn_of_mixtures(frame: pd.DataFrame) -> None:
    if "protocol" in frame and frame["protocol"].nunique() > 1:
        print(
            f"The rows were measured by {frame['protocol'].nunique()} protocols (see their column "
            "protocol); to compare them to the last digit, run the older ones again."
        )
    if {"data", "files"} <= set(frame) and (frame.groupby("data")["files"].nunique() > 1).any():
        print(
            "The data files were not the same for all rows (see their column files); keep such "
            "rows in separate folders."
        )
