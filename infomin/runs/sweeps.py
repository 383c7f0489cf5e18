"""Many recipes, many rows: in parallel processes, skipping what is done, going on where it was cut."""

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from ..common import files
from ..common.checks import check_choice, check_positive
from ..methods import METHODS
from ..networks.encoders import ENCODERS
from ..views import FAMILIES
from .recipe import LOG_EVERY, Recipe, refresh_digests
from .single import run

REGISTRIES: tuple[dict[str, Any], ...] = (FAMILIES, METHODS, ENCODERS)  # to which users add
BUILT_IN = tuple(dict(registry) for registry in REGISTRIES)
PROBE = 100  # steps of the default recipe that take about as long as its probe


def grid(base: Recipe, **axes: Sequence[Any]) -> list[Recipe]:
    """Every combination of the given values, the last axis running fastest.

    >>> [recipe.seed for recipe in grid(Recipe(), view=["color:lab", "color:rgb"], seed=[0, 1])]
    [0, 1, 0, 1]
    """
    for name, values in axes.items():
        check_choice(name, [field.name for field in fields(base)], "grid: axis")
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(
                f"grid: got {name}={values!r}, wanted a list of values; write {name}=[{values!r}]"
            )
    return [
        replace(base, **dict(zip(axes, values, strict=True))) for values in product(*axes.values())
    ]


def sweep(
    recipes: Sequence[Recipe],
    out: str | Path,
    *,
    jobs: int | None = None,
    bar: bool = True,
    work: Callable[[Any, str | Path], dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Carry out recipes and return their rows, in the order given.

    Run the same command again after a crash: rows that exist are read, runs that were cut go on, with the same result. A run that
    diverges gives a row that says so, and the others go on.

    Args:
        recipes: what to do.
        out: folder; every run writes into `out/<key>`.
        jobs: processes at a time; by default one per core, or one if a GPU is to be used. Cores are shared out among them;
            another number of jobs can mean another number of threads each, and so other roundings. OMP_NUM_THREADS has no say.
        bar: show progress and the time left.
        work: what carries out a recipe, from it and `out` to a row, for example `learn`; by default `run`. Of what is done, it
            gives the row.

    Raises:
        ChildProcessError: a process was killed from outside.
        ValueError: some runs failed, after all others were carried out; the message has the first one's reason.
        files.Locked: another sweep is writing into the folder.
    """
    check_positive(jobs or 0, "sweep: jobs", zero=True)
    if isinstance(recipes, Recipe):
        raise TypeError("sweep: got a Recipe, wanted a list of them; write [recipe], or take grid")
    recipes = refresh_digests(recipes)
    gpu = torch.cuda.is_available() and any(recipe.device != "cpu" for recipe in recipes)
    cores = cpu_count()  # of this process, as its affinity and its container have it
    jobs = min(jobs or (1 if gpu else cores), max(1, len(recipes)))
    threads = max(1, cores // jobs)
    with files.lock(out), _progress(recipes, Path(out), bar):
        todo = [
            recipe
            for recipe in dict.fromkeys(recipes)
            if not (Path(out) / recipe.key / "row.json").exists()
        ]
        own = [
            {
                name: make for name, make in now.items() if before.get(name) is not make
            }  # workers do not know them
            for now, before in zip(REGISTRIES, BUILT_IN, strict=True)
        ]
        try:
            with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=threads):
                said = Parallel()(
                    delayed(_one)(recipe, out, threads, os.getpid(), work, own) for recipe in todo
                )
            if (
                jobs > 1
            ):  # workers would do the next call's work too, in the folder and the environment that they began in
                get_reusable_executor().shutdown()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"{out}: a process was killed, most likely for want of memory; what was done is kept: run the same command "
                f"again, with fewer than {jobs} jobs if it happens again"
            ) from error
        if failed := [
            f"{_called(r, recipes)}: {reason}"
            for r, reason in zip(todo, said, strict=True)
            if reason is not None
        ]:
            others = "none is done" if len(failed) == len(recipes) else "the others are done"
            raise ValueError(
                f"{len(failed)} of {len(recipes)} runs failed, {others}; first, {failed[0]}"
            )
        return [
            work(r, out) if work else files.read_json(Path(out) / r.key / "row.json")
            for r in recipes
        ]


def _called(recipe: Recipe, recipes: Sequence[Recipe]) -> str:
    others = [field.name for field in fields(recipe) if field.name not in ("view", "seed")]
    varied = [name for name in others if len({getattr(other, name, None) for other in recipes}) > 1]
    return f"{recipe.view} with seed {recipe.seed}" + "".join(
        f", {name}={getattr(recipe, name)}" for name in varied
    )


def _one(
    recipe: Recipe,
    out: str | Path,
    threads: int,
    parent: int,
    work: Any,
    own: Iterable[Mapping[str, Any]],
) -> str | None:
    """Carry out one recipe in a worker; what goes wrong with it is said once the others are done."""
    _leave_with(parent)
    for registry, more in zip(REGISTRIES, own, strict=True):
        registry.update(more)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        (work or run)(recipe, out)
    except Exception as error:
        if not isinstance(
            error, ValueError | TypeError | OSError | files.Locked
        ):  # nobody foresaw it
            traceback.print_exc()
        return str(error) or type(error).__name__
    finally:
        torch.set_num_threads(before)  # with one job this is the caller's own process
    return None


@cache
def _leave_with(parent: int) -> None:
    """End this worker when the process that started it is killed: it would go on, unseen, with what it was handed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if os.getpid() != parent:
        threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _progress(recipes: Sequence[Recipe], out: Path, bar: bool) -> Iterator[None]:
    """A bar over all steps of all runs, read off their logs: the runs themselves are in other processes."""
    logs = {out / recipe.key: recipe.steps for recipe in recipes}

    def look() -> tuple[int, str]:
        done, finished, ending = 0, 0, 0
        for folder, steps in logs.items():
            if (folder / "row.json").exists():
                done, finished = done + steps + PROBE, finished + 1
            elif (folder / "log.jsonl").exists():
                made = min(steps, len((folder / "log.jsonl").read_bytes().splitlines()) * LOG_EVERY)
                done, ending = done + made, ending + (made == steps)
        return done, f"{finished} done" + (f", {ending} finishing" if ending else "")

    stop, (before, _) = (
        threading.Event(),
        look(),
    )  # what was done before took no time of this command
    steps = sum(steps + PROBE for steps in logs.values())
    with tqdm(
        total=steps,
        initial=before,
        unit="step",
        disable=not bar,
        smoothing=0.05,
        desc=f"{len(logs)} runs",
    ) as line:

        def show() -> None:
            done, said = look()
            line.update(done - line.n)
            line.set_postfix_str(said)

        def watch() -> None:
            while not stop.wait(1.0):
                show()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
            show()
        finally:
            stop.set()
            watcher.join()
