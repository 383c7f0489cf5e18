"""Many recipes, many rows: in parallel processes, each run once, resumed where it was cut."""

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from ..common import files
from ..common.allocator import keep_memory
from ..common.checks import INF, check_choice, check_integer
from ..common.distributed import setup_device
from ..common.registry import Entry
from ..methods import METHODS
from ..networks import ENCODERS
from ..views import VIEWS
from .folder import RunFolder, default_torch_state
from .recipe import LOG_EVERY, BaseRecipe, Recipe, recipe_keys
from .single import load_inputs, run

REGISTRIES = (VIEWS, METHODS, ENCODERS)
PROBE = 100  # steps of the default recipe that take about as long as its probe

R = TypeVar("R", bound=BaseRecipe)
Work: TypeAlias = Callable[[Any, str | Path], files.Row]


def grid(base: R, **axes: Iterable[object]) -> list[R]:
    """Every combination of the given values, the last axis running fastest.

    >>> from infomin import Recipe
    >>> [recipe.seed for recipe in grid(Recipe(), view=["color:lab", "color:rgb"], seed=[0, 1])]
    [0, 1, 0, 1]
    """
    if not isinstance(base, BaseRecipe):
        raise TypeError(f"grid: got {type(base).__name__}, wanted a Recipe, for example Recipe()")
    names = [field.name for field in fields(base)]
    for name, values in axes.items():
        check_choice(name, names, "grid: axis")
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(
                f"grid: {name} must be a list of values, got {values!r}; write {name}=[{values!r}]"
            )
    combinations = product(*axes.values())
    changes: list[dict[str, Any]] = [dict(zip(axes, c, strict=True)) for c in combinations]
    return [replace(base, **change) for change in changes]


def sweep(
    recipes: Sequence[BaseRecipe],
    out: files.PathLike,
    *,
    jobs: int | None = None,
    bar: bool = True,
    work: Work | None = None,
) -> list[files.Row]:
    """Carry out recipes in parallel and return their rows, in the order given.

    Run the same command again after a crash: finished rows are read, runs that were cut resume,
    with the same result. A run that diverges gives a row that says so, and the others go on.

    Args:
        recipes: what to do.
        out: folder; every run writes into `out/<key>`.
        jobs: processes at a time; by default one per core, or one if a GPU is used. Each has its
            share of the cores as threads, or OMP_NUM_THREADS if that is set; another number of
            threads, which rows tell, can change their last digits.
        bar: show progress and the time left.
        work: carries out one recipe, from it and `out` to a row, for example `learn`; by default
            `run`. For a finished run it returns the row.

    Raises:
        TypeError: not a list of recipes.
        ChildProcessError: a process was killed from outside.
        ValueError: data or view of a recipe do not fit, and no run was started; or some runs
            failed, after all others were carried out. The message has the first reason.
        files.Locked: another sweep is writing into the folder.
    """
    jobs = check_integer(jobs or 0, 0, INF, "sweep: jobs")
    recipes, out = _check_recipes(recipes), files.as_path(out, "sweep: out")
    gpu = torch.cuda.is_available() and any(recipe.device != "cpu" for recipe in recipes)
    cores = cpu_count()  # of this process, as its affinity and its container have it
    jobs = min(jobs or (1 if gpu else cores), max(1, len(recipes)))
    threads = max(1, cores // jobs)
    if "OMP_NUM_THREADS" in os.environ:
        threads = torch.get_num_threads()
    folders = [out / key for key in recipe_keys(recipes)]
    wanted = dict(zip(recipes, folders, strict=True))  # each once
    todo = {r: folder for r, folder in wanted.items() if not (folder / "row.json").exists()}
    # A finished sweep can be on a disk that cannot be written.
    held = files.lock(out) if todo else nullcontext()
    with held, _progress(recipes, folders, bar):
        own = [registry.own() for registry in REGISTRIES]

        def carry_out(todo: Mapping[BaseRecipe, Path], work: Work) -> list[str | None]:
            calls = [
                delayed(_carry_out)(recipe, folder, threads, os.getpid(), work, own)
                for recipe, folder in todo.items()
            ]
            errors: list[str | None] = Parallel()(calls)
            return errors

        checked = {} if work else _one_of_each(todo)
        errors: list[str | None] = []
        try:
            with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=threads):
                misfits = carry_out(checked, _check_inputs)
                if not any(misfits):
                    errors = carry_out(todo, work or run)
            if jobs > 1:
                # Workers would do the next call's work in the folder and environment they began in.
                get_reusable_executor().shutdown()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"{out}: a process was killed, most likely for lack of memory; finished work is "
                f"kept: run the same command again, with fewer than {jobs} jobs if it happens again"
            ) from error
        for recipe, reason in zip(checked, misfits, strict=True):
            if reason is not None:
                described = _describe(recipe, recipes)
                raise ValueError(f"sweep: no run was started; {described}: {reason}")
        _raise_first(todo, errors, recipes)
        return _finished_rows(recipes, folders, work)


def _finished_rows(
    recipes: Sequence[BaseRecipe], folders: Sequence[Path], work: Work | None
) -> list[files.Row]:
    if work:
        return [
            work(recipe, folder.parent) for recipe, folder in zip(recipes, folders, strict=True)
        ]
    rows = []
    for recipe, folder in zip(recipes, folders, strict=True):
        row = RunFolder(folder.parent, folder.name, recipe).finished_row()
        if row is None:
            raise FileNotFoundError(
                f"{folder / 'row.json'}: wanted the row of a finished run, got no file; it was "
                "deleted during the sweep: run the same command again"
            )
        rows.append(row)
    return rows


def _one_of_each(todo: Mapping[BaseRecipe, Path]) -> dict[BaseRecipe, Path]:
    """One recipe for each combination of data, view and numbers of images."""
    chosen: dict[tuple[object, ...], tuple[BaseRecipe, Path]] = {}
    for recipe, folder in todo.items():
        if isinstance(recipe, Recipe):
            sizes = (recipe.size, recipe.batch, recipe.probe_images, recipe.candidates)
            chosen.setdefault((recipe.data, recipe.view, *sizes), (recipe, folder))
    return dict(chosen.values())


def _check_inputs(recipe: Recipe, out: files.PathLike) -> files.Row:
    """Load data and try the view, which the worker then has for its runs."""
    device = setup_device(None if recipe.device == "auto" else recipe.device)
    load_inputs(recipe, recipe.build_view(), device)
    return {}


def _check_recipes(recipes: Sequence[BaseRecipe]) -> list[BaseRecipe]:
    if isinstance(recipes, BaseRecipe):
        raise TypeError("sweep: got one Recipe, wanted a list of them; write [recipe], or use grid")
    if not isinstance(recipes, Iterable):
        raise TypeError(f"sweep: got {type(recipes).__name__}, wanted a list of Recipes")
    recipes = list(recipes)
    for recipe in recipes:
        if not isinstance(recipe, BaseRecipe):
            raise TypeError(
                f"sweep: got {type(recipe).__name__}, wanted a Recipe, for example "
                "Recipe(view='color:lab')"
            )
    return recipes


def _raise_first(
    todo: Iterable[BaseRecipe], errors: Sequence[str | None], recipes: Sequence[BaseRecipe]
) -> None:
    """Raise a ValueError with the first reason why a run failed, if any did."""
    failed = [(r, reason) for r, reason in zip(todo, errors, strict=True) if reason is not None]
    if failed:
        others = "none is done" if len(failed) == len(recipes) else "the others are done"
        recipe, reason = failed[0]
        raise ValueError(
            f"{len(failed)} of {len(recipes)} runs failed, {others}; first, "
            f"{_describe(recipe, recipes)}: {reason}"
        )


def _describe(recipe: BaseRecipe, recipes: Sequence[BaseRecipe]) -> str:
    """A recipe by its view, its seed and what else varies among the recipes."""
    values = asdict(recipe)
    others = [asdict(other) for other in recipes]
    varied = [
        f", {name}={value}"
        for name, value in values.items()
        if name not in ("view", "seed") and len({other.get(name) for other in others}) > 1
    ]
    return f"{recipe.view} with seed {recipe.seed}" + "".join(varied)


def _carry_out(
    recipe: Any,
    folder: Path,
    threads: int,
    parent: int,
    work: Work,
    own: Sequence[Mapping[str, Entry]],
) -> str | None:
    """Carry out one recipe in a worker; return what went wrong, to be raised in the end."""
    _leave_with(parent)
    if os.getpid() != parent:  # with one job this is the caller's own process
        keep_memory()
    for registry, entries in zip(REGISTRIES, own, strict=True):
        registry.add_entries(entries)
    try:
        with default_torch_state("sweep"), _torch_threads(threads):
            key = work(recipe, folder.parent).get("key", folder.name)
    except Exception as error:
        if not isinstance(error, ValueError | TypeError | OSError | files.Locked):  # unforeseen
            traceback.print_exc()
        return str(error) or type(error).__name__
    if key != folder.name:
        return (
            f"the files that it names have changed since the sweep began, so its row is {key}, not "
            f"{folder.name}; run the same command again to repeat what was done before"
        )
    return None


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """Let torch use so many threads in this block: with one job it is in the caller's process."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _leave_with(parent: int) -> None:
    """End this worker when the process that started it is killed, instead of working on unseen."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if os.getpid() != parent:
        threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _progress(recipes: Sequence[BaseRecipe], folders: Sequence[Path], bar: bool) -> Iterator[None]:
    """A bar over all steps of all runs, read from their logs: the runs are in other processes."""
    steps = {folder: recipe.steps for recipe, folder in zip(recipes, folders, strict=True)}

    def count() -> tuple[int, str]:
        """Steps done, and how many runs are finished."""
        done = finished = probing = 0
        for folder, total in steps.items():
            if (folder / "row.json").exists():
                done += total + PROBE
                finished += 1
            elif (folder / "log.jsonl").is_file():
                lines = len((folder / "log.jsonl").read_bytes().splitlines())
                trained = min(total, lines * LOG_EVERY)
                done += trained
                probing += trained == total
        return done, f"{finished} done" + (f", {probing} finishing" if probing else "")

    stop = threading.Event()
    before, _ = count()  # took no time of this command
    total = sum(steps.values()) + PROBE * len(steps)
    name = f"{len(steps)} run" + "s" * (len(steps) != 1)
    with tqdm(
        total=total, initial=before, unit="step", disable=not bar, smoothing=0.05, desc=name
    ) as line:

        def show() -> None:
            done, state = count()
            line.update(done - line.n)
            line.set_postfix_str(state)

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
