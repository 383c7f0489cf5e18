"""A run's folder: its recipe, its log, its row. What is there already is not done again."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..common import files
from ..common.distributed import barrier, is_main_process
from ..common.precision import no_autocast, unrounded_products
from ..methods import Context, Task
from ..networks.encoders import Encoders
from .recipe import BaseRecipe, changed_fields

_ONE_AT_A_TIME = threading.RLock()
REPEAT = "put it back, or delete the folder and repeat the run"


class RunFolder:
    """The folder `out/key` of a run or a game, which holds its recipe, log, checkpoint and row.

    Of several processes the main one alone writes.

    Args:
        out: folder of runs; None keeps nothing.
        key: of the recipe.
        recipe: what is carried out.

    Attributes:
        path: the folder; None if nothing is kept.
    """

    def __init__(self, out: files.PathLike | None, key: str, recipe: BaseRecipe) -> None:
        self.path = None if out is None else files.as_path(out, "out") / key
        self._recipe = recipe

    def finished_row(self) -> files.Row | None:
        """The row, if the run is finished. All processes ask before one of them takes the lock.

        Raises:
            ValueError: the folder holds another recipe of the same key, or is damaged.
        """
        if self.path is None or not (self.path / "row.json").exists():
            return None
        self._check_recipe(self.path)
        row = read_row(self.path)
        if row.get("key") != self.path.name:
            raise ValueError(
                f"{self.path / 'row.json'}: wanted a row with a status and key {self.path.name}, "
                f"got {row.get('key')!r}; {files.AGAIN}"
            )
        return row

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this block, and write the recipe into it.

        Raises:
            files.Locked: another process is at this very run.
            ValueError: the folder holds another recipe of the same key.
        """
        if self.path is None or not is_main_process():
            yield
            return
        with files.lock(self.path):
            self._check_recipe(self.path)
            files.write_json(self.path / "recipe.json", asdict(self._recipe))
            yield

    def save_context(self, context: Context, **facts: str) -> None:
        """Write what the method is built from, or compare it on resume.

        Args:
            context: of the method.
            facts: what else numbers depend on, such as the device.

        Raises:
            FileNotFoundError, ValueError: it has changed since the run was cut, or is unknown.
        """
        if self.path is None or not is_main_process():
            return
        path, given = self.path / "context.json", files.to_plain(_stored_fields(context) | facts)
        if (self.path / "checkpoint.pt").exists():  # numbers that another context would continue
            stored = files.read_json(path, REPEAT)
            for name, value in given.items():
                if name not in stored:
                    raise ValueError(
                        f"{path}: wanted the {name} that the run was begun with, got none; {REPEAT}"
                    )
                if stored[name] != value:
                    raise ValueError(
                        f"{self.path}: this run was begun with {name}={stored[name]}, got "
                        f"{value}; resume it with the same, or choose another folder"
                    )
        files.write_json(path, given)

    def save_row(self, row: files.Row) -> files.Row:
        """Write the row and return it, with its digest.

        Processes wait for each other, so that none asks for it too early.
        """
        row = row | {"row_digest": _row_digest(row)}
        if self.path is not None and is_main_process():
            files.write_json(self.path / "row.json", row)
        barrier()
        return row

    def _check_recipe(self, path: Path) -> None:
        if not (path / "recipe.json").exists():
            return
        stored = files.read_json(path / "recipe.json", REPEAT)
        if changed := changed_fields(self._recipe, stored):
            raise ValueError(
                f"{path}: holds the run of another recipe, which differs in "
                f"{', '.join(changed)}; choose another folder"
            )


def read_row(folder: Path) -> files.Row:
    """The row of a finished run or game.

    Raises:
        FileNotFoundError: no row is there.
        ValueError: it is damaged, or has been edited since it was written.
    """
    path = folder / "row.json"
    row: files.Row = files.read_json(path)
    nested = [name for name, value in row.items() if isinstance(value, dict | list)]
    if nested or row.get("status") not in ("done", "diverged"):
        raise ValueError(
            f"{path}: wanted a row with a status and plain values, got "
            f"status={row.get('status')!r} and nested {nested}; {files.AGAIN}"
        )
    if row.get("row_digest", _row_digest(row)) != _row_digest(row):  # older rows have none
        raise ValueError(
            f"{path}: got a row that differs from its row_digest: it was edited; {files.AGAIN}"
        )
    return row


def _row_digest(row: files.Row) -> str:
    """12 hex digits: a hash of what is equal whenever a recipe is repeated on one machine."""
    varying = ("row_digest", "seconds", "file")
    return files.hash_json({name: value for name, value in row.items() if name not in varying})


def read_context(path: Path, encoders: Callable[[], Encoders]) -> Context:
    """The context that `save_context` wrote, with JSON's lists as tuples again.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged.
    """
    stored = files.read_json(path, REPEAT)
    try:
        restored = {
            "shapes": tuple(tuple(shape) for shape in stored["shapes"]),
            "tiles": tuple(stored["tiles"]),
            "tasks": {
                name: Task(size, tuple(mean), tuple(deviation))
                for name, (size, mean, deviation) in dict(stored["tasks"]).items()
            },
            "encoders": encoders,
        }
        known = {name: stored[name] for name in Context.__dataclass_fields__ if name in stored}
        return Context(**{**known, **restored})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: wanted the context of a run, got {type(error).__name__}: {error}; {REPEAT}"
        ) from error


def _stored_fields(context: Context) -> dict[str, object]:
    return {name: value for name, value in vars(context).items() if name != "encoders"}


@contextmanager
def default_torch_state(who: str = "run") -> Iterator[None]:
    """Keep a caller's settings from changing the numbers of a run: its key does not know them.

    What a run sets applies to the whole process, so a run in another thread waits for this one.

    Raises:
        ValueError: settings that cannot be undone from inside.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    odd = {
        "inference mode": torch.is_inference_mode_enabled(),
        f"the default dtype {dtype}": dtype != torch.float32,
        f"the default device {device}": device.type != "cpu",
    }
    for name in (name for name, is_set in odd.items() if is_set):
        raise ValueError(
            f"{who}: got {name}, wanted torch as it is when it is imported; call it outside, or "
            "set that back"
        )
    with (
        _ONE_AT_A_TIME,
        torch.enable_grad(),
        no_autocast("cpu"),
        no_autocast("cuda"),
        unrounded_products(),
    ):
        yield


def run_training(
    steps: Iterable[tuple[int, Mapping[str, float]]],
    folder: Path | None,
    *,
    total: int,
    name: str,
    bar: bool = False,
    tensorboard: bool = False,
) -> None:
    """Run a training to its end and log it to the run's folder, the screen and TensorBoard.

    Args:
        steps: yields (step, numbers), as `fit` does.
        folder: of the run, for `log.jsonl` and TensorBoard's events; None writes nothing.
        total: how many steps there will be.
        name: what the bar is called.
        bar: show progress, the time left and I_NCE.
        tensorboard: also write events.
    """
    log = folder / "log.jsonl" if folder and is_main_process() else None
    shown = bar and is_main_process()
    with tqdm(total=total, desc=name, unit="step", disable=not shown) as line, ExitStack() as ends:
        writer = _summary_writer() if tensorboard and log else None
        events = None
        first = True
        for step, stats in steps:
            if log and first:
                files.truncate_log(log, step - 1)  # lines later than the checkpoint
                logged = [row["step"] for row in files.read_log(log)]
                line.initial = line.n = max(logged, default=0)  # took no time of this command
            if writer and first:  # events from this step on are those of a run that was cut
                events = ends.enter_context(writer(str(folder), purge_step=step))
            first = False
            if log:
                files.append_jsonl(log, {"step": step, **stats})
            if events:
                for stat, value in stats.items():
                    events.add_scalar(stat, value, step)
            line.update(step - line.n)
            if "i_nce_ema" in stats:
                line.set_postfix_str(f"I_NCE {stats['i_nce_ema']:.2f} nats")


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "tensorboard: it is not installed; run pip install 'infomin[tensorboard]', or leave "
            "the option out"
        ) from error
    return SummaryWriter
