"""A run's folder: its recipe, its log, its row. What is there already is not done again."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..common import files
from ..common.distributed import barrier, is_main_process
from ..common.precision import full_precision


def load_or_run(
    key: str,
    recipe: Mapping[str, Any],
    out: str | Path | None,
    work: Callable[[Path | None], dict[str, Any]],
) -> dict[str, Any]:
    """The row of a recipe: read from `out/<key>` if it is there, otherwise worked out and written there.

    Args:
        key: name of the run's folder.
        recipe: what `recipe.json` says.
        out: folder of runs; None writes nothing.
        work: from the run's folder, or None, to the row.

    Raises:
        ValueError: torch is set so that no training can be done.
        files.Locked: another process is at this very run.
    """
    if out is None:
        with default_torch_state():
            return work(None)
    folder = Path(out) / key
    if (
        folder / "row.json"
    ).exists():  # asked before the lock, by all processes alike: rows are written whole
        return files.read_json(folder / "row.json")
    writes = is_main_process()
    with files.lock(folder) if writes else nullcontext():
        if writes:
            files.write_json(folder / "recipe.json", recipe)
        with default_torch_state():
            row = work(folder)
        if writes:
            files.write_json(folder / "row.json", row)
    barrier()  # a process that asked for this row again before it is written would start anew, alone
    return row


@contextmanager
def default_torch_state(who: str = "run") -> Iterator[None]:
    """A run's numbers are those of its recipe: what is set around it would change them, and not the key that they are kept by."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    odd = {
        "inference mode": torch.is_inference_mode_enabled(),
        f"the default dtype {dtype}": dtype != torch.float32,
        f"the default device {device}": device.type != "cpu",
    }
    for name in (name for name, is_set in odd.items() if is_set):
        raise ValueError(
            f"{who}: got {name}, wanted torch as it is when it is imported; call it outside, or set that back"
        )
    with torch.enable_grad(), full_precision("cpu"), full_precision("cuda"):
        yield


def log_training(
    steps: Iterable[tuple[int, Mapping[str, float]]],
    folder: Path | None,
    *,
    total: int,
    name: str,
    bar: bool = False,
    tensorboard: bool = False,
) -> None:
    """Go through a training to its end, and log it to the run's folder, the screen and TensorBoard.

    Args:
        steps: yields (step, numbers), as `fit` does.
        folder: of the run, for `log.jsonl` and TensorBoard's events; None writes nothing.
        total: how many steps there will be.
        name: what the bar is called.
        bar: show progress, the time left and I_NCE.
        tensorboard: also write events.
    """
    log, first = folder / "log.jsonl" if folder and is_main_process() else None, True
    with (
        tqdm(total=total, desc=name, unit="step", disable=not (bar and is_main_process())) as line,
        ExitStack() as ends,
    ):
        writer, events = _writer() if tensorboard and log else None, None
        for step, stats in steps:
            if log and first:  # lines later than the checkpoint that this run goes on from
                files.truncate_log(log, step - 1)
                line.initial = line.n = max(
                    (row["step"] for row in files.read_log(log)), default=0
                )  # took no time of this one
            if writer and first:
                events = ends.enter_context(
                    writer(str(folder), purge_step=step)
                )  # of what is there, those later do not count
            first = False
            if log:
                files.append_jsonl(log, {"step": step, **stats})
            if events:
                for name, value in stats.items():
                    events.add_scalar(name, value, step)
            line.update(step - line.n)
            if "i_nce_ema" in stats:
                line.set_postfix_str(f"I_NCE {stats['i_nce_ema']:.2f} nats")


def _writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "tensorboard: it is not installed; run pip install 'infomin[tensorboard]', or leave the option out"
        ) from error
    return SummaryWriter
