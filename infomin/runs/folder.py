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
        self.path = None if out is None else Path(out) / key
        self._recipe = recipe

    def finished_row(self) -> files.Row | None:
        """The row, if the run is finished. All processes ask before one of them takes the lock.

        Raises:
            ValueError: the folder holds another recipe of the same key, or is damaged.
        """
        if self.path is None or not (self.path / "row.json").exists():
            return None
        self._check_recipe(self.path)
        row: files.Row = files.read_json(self.path / "row.json")
        if row.get("key") != self.path.name or "status" not in row:
            raise ValueError(
                f"{self.path / 'row.json'}: wanted a row with a status and key {self.path.name}, "
                f"got {row.get('status')!r} and {row.get('key')!r}; "
                "delete it and run the same command again"
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

    def save_context(self, context: Context) -> None:
        """Write what the method is built from, or compare it on resume.

        Raises:
            ValueError: it has changed since the run was cut.
        """
        if self.path is None or not is_main_process():
            return
        path = self.path / "context.json"
        if path.exists() and (self.path / "checkpoint.pt").exists():
            stored, given = files.read_json(path), files.to_plain(_stored_fields(context))
            changed = [name for name in given if stored.get(name) != given[name]]
            if changed:
                was, now = (facts.get(changed[0]) for facts in (stored, given))
                raise ValueError(
                    f"{self.path}: this run was begun with {changed[0]}={was}, got {now}; "
                    "resume it with the same, or choose another folder"
                )
        files.write_json(path, _stored_fields(context))

    def save_row(self, row: Mapping[str, object]) -> None:
        """Write the row; processes wait for each other, so that none asks for it too early."""
        if self.path is not None and is_main_process():
            files.write_json(self.path / "row.json", row)
        barrier()

    def _check_recipe(self, path: Path) -> None:
        if not (path / "recipe.json").exists():
            return
        if changed := changed_fields(self._recipe, files.read_json(path / "recipe.json")):
            raise ValueError(
                f"{path}: holds the run of another recipe, which differs in "
                f"{', '.join(changed)}; choose another folder"
            )


def read_context(path: Path, encoders: Callable[[], Encoders]) -> Context:
    """The context that `save_context` wrote, with JSON's lists as tuples again.

    Raises:
        ValueError: the file is damaged.
    """
    stored = files.read_json(path)
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
        return Context(**{**stored, **restored})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: wanted the context of a run, got {type(error).__name__}: {error}; "
            "delete the folder and repeat the run"
        ) from error


def _stored_fields(context: Context) -> dict[str, object]:
    return {name: value for name, value in vars(context).items() if name != "encoders"}


@contextmanager
def default_torch_state(who: str = "run") -> Iterator[None]:
    """Keep a caller's settings from changing the numbers of a run: its key does not know them.

    What a run sets applies to the whole process, so a second run in another thread waits.

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
