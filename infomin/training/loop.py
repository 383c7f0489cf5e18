"""The training loop. It knows no view and no method by name, so a difference between two runs can only come from these."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..common import checkpoint as disk
from ..common.checks import check_choice, check_positive
from ..common.distributed import rank, world_size
from ..common.precision import autocast
from ..common.seeds import seeded_generator, torch_seeded

SAVE_EVERY = 5.0  # seconds between checkpoints: what a crash can cost
SAVE_SLOWLY = 4.0  # times as many for each second that one takes: of a large network they would be a quarter of the run
EMA = 0.02  # weight of the newest step in the logged averages


class Diverged(RuntimeError):
    """The loss, or what else a method tells, became NaN or Inf; the state at that moment is in the checkpoint."""


def fit(
    method: Any,
    view: Any,
    batches: Callable[[int], tuple[Any, Tensor, Any]],
    *,
    steps: int,
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float | Sequence[float]],
    seed: int = 0,
    precision: str = "fp32",
    checkpoint: str | Path | None = None,
    log_every: int = 10,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train `method` on views of batches; yield `(step, stats)` every `log_every` steps and after the last.

    The caller's for-loop is the log, the plot and the brake. With a checkpoint the loop goes on where it was cut, and the
    result is equal bit for bit: batches, views and the schedule are functions of the step, everything else is in the state.

    Args:
        method: `(views, index, labels) -> Step`; trained in place.
        view: `(batch, generator) -> (v1, v2, …)`.
        batches: step -> (what the view takes, index `[B]`, labels), this process's part of the batch.
        steps: optimiser steps in all.
        optimizer: over the method's (and view's) parameters; its learning rates are those of factor one, and so again in the end.
        rate: step -> factor on the learning rates, or one for each of the optimizer's groups.
        seed: of the views' random draws, and of what a method draws by itself.
        precision: `fp32`, or `bf16` for autocast.
        checkpoint: file to save to every few seconds (for a twentieth of the time at most), and to go on from if it exists.
        log_every: steps between yields.

    Yields:
        step from 1, and floats: the method's own, their averages (`loss_ema`, `i_nce_ema` in nats, …), `rate` (the first factor).

    Raises:
        Diverged: the loss or another stat is NaN or Inf (looked at when stats are due; reading it at each step would stall a
            GPU).
        ValueError: the checkpoint is unreadable or belongs to another recipe; or several processes are to train a view.
    """
    check_choice(precision, ("fp32", "bf16"), "fit: precision")
    check_positive(log_every, "fit: log_every")
    if world_size() > 1 and any(parameter.requires_grad for parameter in view.parameters()):
        raise ValueError(
            f"fit: got a view that learns and {world_size()} processes, wanted 1, for its gradients are not averaged"
        )
    rates = [group["lr"] for group in optimizer.param_groups]
    state: dict[str, Any] = {
        "method": method,
        "view": view,
        "optimizer": optimizer,
        "progress": {"step": 0, "average": {}},
    }
    if checkpoint is not None and Path(checkpoint).exists():
        state.update(disk.load(checkpoint, state))
    if "diverged" in state["progress"]:  # a run that was cut before it could say so
        raise Diverged(state["progress"]["diverged"])
    average: dict[str, Tensor] = state["progress"]["average"]
    method.train()
    step_method = DistributedDataParallel(method) if world_size() > 1 else method
    saved, pause = time.monotonic(), SAVE_EVERY
    try:
        for step in range(state["progress"]["step"], steps):
            factors = rate(step)
            factors = factors if isinstance(factors, Sequence) else [factors] * len(rates)
            for group, base, factor in zip(optimizer.param_groups, rates, factors, strict=True):
                group["lr"] = base * factor
            stats = _step(
                step_method,
                view,
                batches(step),
                optimizer,
                seeded_generator(seed, "views", step, rank()),
                precision,
            )
            method.after_step()
            weight = max(EMA, 1 / (step + 1))
            average = {
                k: torch.lerp(average[k].to(v.device), v.float(), weight)
                if k in average
                else v.float()
                for k, v in stats.items()
            }
            state["progress"] = {"step": step + 1, "average": average}
            last = step + 1 == steps
            values = _read(stats, average) if last or (step + 1) % log_every == 0 else {}
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if values and not bad:
                # before the save: a log that is ahead of its checkpoint can be cut, one behind has a hole
                yield step + 1, {**values, "rate": factors[0]}
            if bad:
                reason = f"step {step + 1}: the {bad[0]} is {values[bad[0]]}; lower the learning rate or raise tau"
                state["progress"]["diverged"] = reason
            if (
                checkpoint is not None
                and rank() == 0
                and (bad or last or time.monotonic() - saved > pause)
            ):
                began = time.monotonic()
                disk.save(checkpoint, state)
                saved = time.monotonic()
                pause = SAVE_EVERY * max(1.0, SAVE_SLOWLY * (saved - began))
            if bad:
                raise Diverged(reason)
    finally:  # restore the rates for those who train further
        for group, base in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = base


def _step(
    method: Any,
    view: Any,
    batch: tuple[Any, Tensor, Any],
    optimizer: torch.optim.Optimizer,
    draws: torch.Generator,
    precision: str,
) -> dict[str, Tensor]:
    inputs, index, labels = batch
    with torch_seeded(
        draws.initial_seed(), optimizer.param_groups[0]["params"][0].device
    ):  # of dropout, say
        views = view(inputs, draws)
        with autocast(views[0].device.type, precision):
            loss, stats = method(views, index, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    optimizer.step()
    return stats


def _read(stats: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> dict[str, float]:
    return {
        **{k: float(v) for k, v in stats.items()},
        **{f"{k}_ema": float(v) for k, v in average.items()},
    }
