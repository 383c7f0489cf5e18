"""An experiment: one base recipe, the views to try, some seeds; out come a table, a figure and a sentence."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from jsonargparse import auto_cli

from .common import files
from .common.checks import check_choice
from .data.datasets import tasks
from .report import plots
from .report.shape import by_dial
from .runs.presets import TINY
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
) -> list[dict[str, Any]]:
    """Carry out a preset and report it; the same call again goes on where it was cut.

    Args:
        presets: budget -> fields of the recipe, and with them `views` (what is varied), `seeds` (how many) and `task` (what
            accuracy is measured on).
        preset: a key of `presets`.
        out: folder of runs, table and figure.
        dial: what the views' dial is, with its unit, if it is a number.
        jobs: processes at a time; 0 means one per core.
        save: where to put rows and figure as well, without a suffix.
        overrides: entries that take the place of the preset's, unless they are empty.

    Returns:
        the rows.
    """
    fields = {
        **presets[check_choice(preset, presets, "preset")],
        **{name: value for name, value in overrides.items() if value not in ("", None)},
    }
    views, seeds, task = (fields.pop(name) for name in ("views", "seeds", "task"))
    recipes = grid(Recipe(**fields), seed=range(seeds), view=views)
    check_choice(
        task, tasks(recipes[0].data), "task"
    )  # now: hours later, the rows would have to be reported again
    rows = sweep([*recipes, *untrained(recipes)], out, jobs=jobs)
    print_report(rows, out, task, dial, save)
    return rows


def untrained(recipes: Iterable[Recipe]) -> list[Recipe]:
    """The same recipes without a step of training: what a curve has to rise above before its views have taught a task."""
    return [replace(recipe, steps=0) for recipe in recipes]


def command(
    presets: Mapping[str, Mapping[str, Any]], name: str, dial: str = "", about: str | None = None
) -> None:
    """The command line of an experiment: what a script in experiments/ ends with.

    Args:
        presets: as for `experiment`.
        name: of the script; runs go to `runs/NAME`, and what is saved is called so.
        dial: what the views' dial is, with its unit.
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
            preset: Budget: tiny only shows that it runs, quick is the figure, paper is meant for a GPU.
            data: What the views are made from, if not the preset's: digits, photos, clips, clips:DIGITS@BACKGROUNDS,
                stl10, cifar10 or folder:PATH.
            task: What accuracy is measured on, if not the preset's.
            out: Folder of runs; the same command again goes on where it was cut.
            jobs: Processes at a time; 0 means one per core.
            save: Folder to put rows (.jsonl) and figure (.png) into as well.
        """
        where = Path(save) / name if save else ""
        experiment(presets, preset, out, dial=dial, jobs=jobs, save=where, data=data, task=task)

    run_script(main, about)


def run_script(main: Callable[..., int | None], about: str | None) -> NoReturn:
    """Run a script: its arguments are those of `main`, a mistake is told in one line, and the process ends.

    The exit status is what `main` returns, 0 for None; 2 for a mistake, 130 when interrupted, 141 when nobody reads the output.

    Args:
        main: with a docstring that says what each argument is for.
        about: the script's docstring, which its `--help` shows, but for the commands in it, which are indented.
    """
    tolerate_encoding()
    file = Path(sys.argv[0]).name
    said = " ".join(part for part in (about or "").split("\n\n") if not part.startswith(" "))
    try:
        sys.exit(auto_cli(main, description=said))
    except BrokenPipeError:  # who read the output has gone, as `head` does
        silence_stdout()
        sys.exit(141)
    except (ValueError, TypeError, OSError, files.Locked) as error:
        print(f"{file}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            f"\n{file}: stopped; run the same command again to go on where it was cut",
            file=sys.stderr,
        )
        sys.exit(130)


def tolerate_encoding() -> None:
    """Let what standard output cannot write, such as the ± of a table where all has to be ASCII, become a question mark.

    And let what is told on the standard error of a process that has none be told to nobody.
    """
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 it stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a notebook's is another
            stream.reconfigure(errors="replace")


def silence_stdout() -> None:
    """Send the rest of the output nowhere: to flush it at the end would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_report(
    rows: Sequence[dict[str, Any]] | pd.DataFrame,
    out: str | Path,
    task: str = "",
    dial: str = "",
    save: str | Path = "",
) -> None:
    """Print a table of means over seeds, draw the curve, and say in one sentence what it shows.

    Args:
        rows: as `run` returns them.
        out: folder for `table.csv` and `u_curve.png`.
        task: what accuracy is measured on; by default the first task of the rows.
        dial: what the views' dial is, with its unit; the figure is then `dial_curve.png`, along the dial.
        save: where to put rows and figure as well, without a suffix: `.jsonl` and `.png` are added.
    """
    frame = pd.DataFrame(rows)
    if lacking := {"view", "seed", "status"} - set(frame):
        raise ValueError(
            f"rows: got rows without {', '.join(sorted(lacking))}, wanted those of infomin run or sweep; name another file"
        )
    bad = frame[frame["status"] == "diverged"]
    lost = (
        f"{len(bad)} of {len(frame)} runs diverged; first, {bad['view'].iloc[0]}: {bad['reason'].iloc[0]}"
        if len(bad)
        else ""
    )
    if len(frame) == len(bad):
        raise ValueError(
            f"rows: got none that can be shown, wanted some; {lost or 'there are no rows at all'}"
        )
    tasks = [name[4:] for name in frame if name.startswith("acc_")]
    task = task or next(
        (name for name in tasks if frame[f"acc_{name}"].notna().sum() == len(frame) - len(bad)),
        *tasks[:1] or [""],
    )
    at = plots.points(rows, task)
    at = by_dial(at, rows) if dial else at
    with files.atomic_write(Path(out) / "table.csv") as file:
        file.write(
            at.to_csv(index=False).encode(errors="surrogateescape")
        )  # a path in a view may be any bytes

    def draw(path: Path) -> Path:
        return plots.dial_curve(rows, path, task, dial) if dial else plots.u_curve(rows, path, task)

    picture = draw(Path(out) / ("dial_curve.png" if dial else "u_curve.png"))
    if save:
        files.write_jsonl(
            Path(f"{save}.jsonl"),
            frame.to_dict("records") if isinstance(rows, pd.DataFrame) else rows,
        )
        draw(Path(f"{save}.png"))
    print(
        at.drop(columns=["spread"])
        .rename(columns=lambda name: name.removesuffix("_mean"))
        .to_string(index=False, float_format="%.3f", na_rep="")
    )
    print(
        f"\nfigure: {picture}\ntable:  {Path(out) / 'table.csv'}\n\n{plots.verdict(rows, task, dial=bool(dial))}"
    )
    if lost:
        print(lost)
    if "protocol" in frame and (ways := frame["protocol"].nunique()) > 1:
        print(
            f"The rows were measured in {ways} ways (see their protocol); to compare them to the last digit, run older ones anew."
        )
    if "files" in frame and (frame.groupby("data")["files"].nunique() > 1).any():
        print(
            "The files of the data were not the same for all rows (see their files); keep rows apart by their folder."
        )


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
    fields = dict(PRESETS[check_choice(preset, PRESETS, "preset")])
    seeds = range(fields.pop("seeds"))
    return grid(Recipe(share_encoder=True, **fields), seed=seeds, view=views)


def demo(
    out: str | Path = "runs/demo", preset: str = "quick", jobs: int | None = None
) -> list[dict[str, Any]]:
    """Carry out the sweep, write `table.csv` and `u_curve.png` beside its runs, and print what they say.

    Args:
        out: folder of runs; the same command again goes on where it was cut.
        preset: `tiny` (seconds, says nothing) or `quick` (minutes on two cores).
        jobs: processes at a time; by default one per core.

    Returns:
        the rows.
    """
    rows = sweep([*recipes(preset), *untrained(recipes(preset))], out, jobs=jobs)
    print_report(rows, out, TASK)
    return rows
