"""The training loop. It knows no view and no method by name: a difference between two runs comes from these."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..common import checkpoint as checkpoints
from ..common.checks import check_choice, check_positive
from ..common.distributed import average_gradients, rank, world_size
from ..common.precision import autocast
from ..common.seeds import seeded_generator, torch_seeded
from .step import Batch, Learner

SAVE_EVERY = 5.0  # seconds between checkpoints: what a crash can cost
SAVE_COST = 4.0  # times longer for each second that a save takes: no more than a quarter of the run
EMA = 0.02  # weight of the newest step in the logged averages

# step -> what the view takes, rows of the images shown `[B]`, task -> labels
BatchesByStep: TypeAlias = Callable[[int], tuple[object, Tensor, Mapping[str, Tensor]]]


class Diverged(RuntimeError):
    """The loss or another logged metric became non-finite; the checkpoint holds the state then."""


def fit(
    method: Learner,
    view: nn.Module,
    batches: BatchesByStep,
    *,
    steps: int,
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float | Sequence[float]],
    seed: int = 0,
    precision: str = "fp32",
    checkpoint: str | Path | None = None,
    log_every: int = 10,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train `method` on views of batches; yield `(step, stats)` every `log_every` steps.

    The caller's for-loop is the log, the plot and the brake. With a checkpoint, training resumes
    where it was cut, and the result is equal bit for bit: batches, views and the schedule are
    functions of the step, and everything else is in the state.

    Args:
        method: trained in place.
        view: `(batch, generator) -> (v1, v2, …)`.
        batches: step -> (what the view takes, rows `[B]` of the images shown, labels): this
            process's part of the batch.
        steps: optimiser steps in all.
        optimizer: over the parameters of method and view. Its learning rates are those of factor 1;
            they are restored in the end.
        rate: step -> factor on the learning rates, or one for each of the optimiser's groups.
        seed: of the random draws of view and method.
        precision: `fp32`, or `bf16` for autocast.
        checkpoint: file to save to every few seconds (at most a twentieth of the time), and to
            resume from if it exists.
        log_every: steps between yields; the last step always yields.

    Yields:
        the number of steps taken, and floats: the method's stats, their moving averages
        (`loss_ema`, `i_nce_ema` in nats, …) and `rate` (of the first group).

    Raises:
        Diverged: the loss or another stat is non-finite. They are read when they are logged:
            reading them at each step would stall a GPU.
        ValueError: the checkpoint is unreadable or belongs to another recipe, or several processes
            are to train a view.
    """
    check_choice(precision, ("fp32", "bf16"), "fit: precision")
    check_positive(log_every, "fit: log_every")
    if world_size() > 1 and any(parameter.requires_grad for parameter in view.parameters()):
        raise ValueError(
            f"fit: a view that learns needs 1 process, got {world_size()}; its gradients are not "
            "averaged"
        )
    rates = [group["lr"] for group in optimizer.param_groups]
    state: dict[str, Any] = {
        "method": method,
        "view": view,
        "optimizer": optimizer,
        "progress": {"step": 0, "average": {}},
    }
    if checkpoint is not None and Path(checkpoint).exists():
        state.update(checkpoints.load(checkpoint, state))
    if "diverged" in state["progress"]:  # cut before the run could say so
        raise Diverged(state["progress"]["diverged"])
    average: dict[str, Tensor] = state["progress"]["average"]
    method.train()
    parallel = average_gradients(method)
    saved, pause = time.monotonic(), SAVE_EVERY
    try:
        for step in range(state["progress"]["step"], steps):
            factors = _set_rates(optimizer, rates, rate(step))
            stats = _train_step(parallel, view, batches(step), optimizer, step, seed, precision)
            method.after_step(step)
            average = _update_average(average, stats, step)
            state["progress"] = {"step": step + 1, "average": average}
            last = step + 1 == steps
            values = _read(stats, average) if last or (step + 1) % log_every == 0 else {}
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if values and not bad:
                # Before the save: a log ahead of its checkpoint can be cut, one behind has a hole.
                yield step + 1, {**values, "rate": factors[0]}
            if bad:
                state["progress"]["diverged"] = (
                    f"step {step + 1}: the {bad[0]} is {values[bad[0]]}; lower the learning rate or "
                    "raise tau"
                )
            due = bad or last or time.monotonic() - saved > pause
            if checkpoint is not None and rank() == 0 and due:
                began = time.monotonic()
                checkpoints.save(checkpoint, state)
                saved = time.monotonic()
                pause = SAVE_EVERY * max(1.0, SAVE_COST * (saved - began))
            if bad:
                raise Diverged(state["progress"]["diverged"])
    finally:  # for those who train further
        _set_rates(optimizer, rates, 1.0)


def _set_rates(
    optimizer: torch.optim.Optimizer, rates: Sequence[float], factors: float | Sequence[float]
) -> Sequence[float]:
    """Set the learning rate of each group to its base times a factor; return a factor per group."""
    each = factors if isinstance(factors, Sequence) else [factors] * len(rates)
    for group, base, factor in zip(optimizer.param_groups, rates, each, strict=True):
        group["lr"] = base * factor
    return each


def _train_step(
    method: nn.Module,
    view: nn.Module,
    inputs: tuple[object, Tensor, Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    step: int,
    seed: int,
    precision: str,
) -> dict[str, Tensor]:
    images, index, labels = inputs
    view_draws = seeded_generator(seed, "views", step, rank())
    method_draws = seeded_generator(seed, "method", step, rank())
    device = optimizer.param_groups[0]["params"][0].device
    with torch_seeded(view_draws.initial_seed(), device):  # for dropout
        views = view(images, view_draws)
        with autocast(views[0].device.type, precision):
            loss, stats = method(views, Batch(index, labels, step, method_draws))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    optimizer.step()
    return dict(stats)


def _update_average(
    average: Mapping[str, Tensor], stats: Mapping[str, Tensor], step: int
) -> dict[str, Tensor]:
    """Plain means at first, exponential moving averages later."""
    weight = max(EMA, 1 / (step + 1))
    updated = {}
    for name, value in stats.items():
        new = value.float()
        if name in average:
            new = torch.lerp(average[name].to(value.device), new, weight)
        updated[name] = new
    return updated


def _read(stats: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> dict[str, float]:
    averages = {f"{name}_ema": float(value) for name, value in average.items()}
    return {name: float(value) for name, value in stats.items()} | averages
