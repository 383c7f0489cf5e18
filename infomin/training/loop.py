"""The training loop.

It knows no view and no method by name, so a difference between two runs comes from one of those.
"""

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
from ..common.seeds import seeded_draws, seeded_generator
from .step import Batch, Learner, check_step

SAVE_EVERY = 5.0  # seconds of training between checkpoints, the most that a crash can cost
SAVE_COST = 4.0  # factor on it per second that a save takes: saving takes 1/20 of the time at most
EMA = 0.02  # weight of the newest step in the logged moving averages

# step -> (input of the view, dataset rows of the images `[B]`, labels by task)
BatchesByStep: TypeAlias = Callable[[int], tuple[object, Tensor, Mapping[str, Tensor]]]


class Diverged(RuntimeError):
    """The loss or another logged metric became non-finite; the checkpoint has that state."""


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

    The caller's for-loop logs, plots, or stops the training. With a checkpoint, an interrupted run
    resumes and ends in the same state bit for bit: batches, views and the schedule are functions
    of the step, and everything else is in the checkpoint.

    Args:
        method: trained in place.
        view: `(batch, generator) -> (v1, v2, …)`.
        batches: step -> (input of the view, dataset rows `[B]` of the images, labels by task):
            this process's part of the batch.
        steps: total number of optimiser steps.
        optimizer: over the parameters of method and view. Its learning rates are the base rates
            that `rate` multiplies; they are restored at the end.
        rate: step -> factor on the learning rates: a float, or one for each parameter group.
        seed: seed of the random draws of view and method.
        precision: `fp32`, or `bf16` for autocast.
        checkpoint: file to save to every few seconds, for at most a twentieth of the time, and to
            resume from if it exists.
        log_every: steps between yields; the last step always yields.

    Yields:
        the number of steps taken, and floats: the method's stats of the last batch, their moving
        averages (`loss_ema`, `i_nce_ema` in nats, …) and `rate`, the first group's factor.

    Raises:
        Diverged: the loss or another stat is non-finite. Stats are checked only when logged:
            reading them at every step would stall a GPU.
        TypeError: the method returns something else than a Step of scalars.
        ValueError: the checkpoint is unreadable or belongs to another recipe, a view with trainable
            parameters is trained by several processes, or the method has a state that a checkpoint
            could not restore.
    """
    check_choice(precision, ("fp32", "bf16"), "fit: precision")
    check_positive(log_every, "fit: log_every")
    if world_size() > 1 and any(parameter.requires_grad for parameter in view.parameters()):
        raise ValueError(
            f"fit: a view with trainable parameters needs 1 process, got {world_size()}; "
            "its gradients are not averaged over processes"
        )
    base_rates = [group["lr"] for group in optimizer.param_groups]
    state: dict[str, Any] = {
        "method": method,
        "view": view,
        "optimizer": optimizer,
        "progress": {"step": 0, "average": {}},
    }
    if checkpoint is not None and Path(checkpoint).exists():
        state.update(checkpoints.load(checkpoint, state))
    if "diverged" in state["progress"]:  # interrupted before the row was written
        raise Diverged(state["progress"]["diverged"])
    average: dict[str, Tensor] = state["progress"]["average"]
    first = state["progress"]["step"]
    shapes, unsaved = _saved_shapes(method), _unsaved_buffers(method)
    method.train()
    parallel = average_gradients(method)
    last_save, save_interval = time.monotonic(), SAVE_EVERY
    try:
        for step in range(first, steps):
            factors = _set_rates(optimizer, base_rates, rate(step))
            stats = _train_step(
                method, parallel, view, batches(step), optimizer, step, seed, precision
            )
            average = _update_average(average, stats, step)
            state["progress"] = {"step": step + 1, "average": average}
            is_last = step + 1 == steps
            is_logged = is_last or (step + 1) % log_every == 0
            values = _to_floats(stats, average) if is_logged else {}
            nonfinite = [name for name, value in values.items() if not math.isfinite(value)]
            if values and not nonfinite:
                # Yield before saving: on resume, a log that is ahead of its checkpoint is
                # truncated; one that is behind would have a gap.
                yield step + 1, {**values, "rate": factors[0]}
            if nonfinite:
                name = nonfinite[0]
                state["progress"]["diverged"] = (
                    f"step {step + 1}: the {name} is {values[name]}; "
                    "lower the learning rate or raise tau"
                )
            save_due = nonfinite or is_last or time.monotonic() - last_save > save_interval
            if step == first or save_due:
                _check_state(method, shapes, unsaved)
            if checkpoint is not None and rank() == 0 and save_due:
                began = time.monotonic()
                checkpoints.save(checkpoint, state)
                last_save = time.monotonic()
                save_interval = SAVE_EVERY * max(1.0, SAVE_COST * (last_save - began))
            if nonfinite:
                raise Diverged(state["progress"]["diverged"])
    finally:
        _set_rates(optimizer, base_rates, 1.0)


def _set_rates(
    optimizer: torch.optim.Optimizer,
    base_rates: Sequence[float],
    factors: float | Sequence[float],
) -> Sequence[float]:
    """Set the learning rate of each group to base * factor; return one factor per group."""
    group_factors = factors if isinstance(factors, Sequence) else [factors] * len(base_rates)
    for group, base, factor in zip(optimizer.param_groups, base_rates, group_factors, strict=True):
        group["lr"] = base * factor
    return group_factors


def _train_step(
    method: Learner,
    parallel: nn.Module,
    view: nn.Module,
    inputs: tuple[object, Tensor, Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    step: int,
    seed: int,
    precision: str,
) -> dict[str, Tensor]:
    images, index, labels = inputs
    method_draws = seeded_generator(seed, "method", step, rank())
    device = optimizer.param_groups[0]["params"][0].device
    with seeded_draws(device, seed, "views", step, rank()) as view_draws:
        views = view(images, view_draws)
        with autocast(views[0].device.type, precision):
            result = parallel(views, Batch(index, labels, step, method_draws))
        loss, stats = check_step(result, f"fit: {type(method).__name__}.forward")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        method.after_step(step)
    return dict(stats)


def _saved_shapes(method: Learner) -> dict[str, list[int]]:
    state = method.state_dict().items()
    return {name: list(value.shape) for name, value in state if isinstance(value, Tensor)}


def _unsaved_buffers(method: Learner) -> dict[str, Tensor]:
    saved = method.state_dict()
    return {name: value.clone() for name, value in method.named_buffers() if name not in saved}


def _check_state(
    method: Learner, shapes: Mapping[str, list[int]], unsaved: Mapping[str, Tensor]
) -> None:
    """Raise a ValueError if training changed what a checkpoint could not restore."""
    who, now = f"fit: {type(method).__name__}", _saved_shapes(method)
    for name in (name for name in {**now, **shapes} if now.get(name) != shapes.get(name)):
        raise ValueError(
            f"{who}: {name}: got the shape {now.get(name)} after a step, {shapes.get(name)} before "
            "it; a run is resumed only if shapes stay, so allocate the largest one at once"
        )
    buffers = dict(method.named_buffers())
    for name, value in unsaved.items():
        if name not in buffers or not torch.equal(buffers[name], value):
            raise ValueError(
                f"{who}: {name}: a step changed this buffer, which is not saved, so that the run "
                "could not be resumed; register it without persistent=False"
            )


def _update_average(
    average: Mapping[str, Tensor], stats: Mapping[str, Tensor], step: int
) -> dict[str, Tensor]:
    """Update the logged averages: plain means for the first 50 steps, exponential ones later."""
    weight = max(EMA, 1 / (step + 1))
    updated = {}
    for name, value in stats.items():
        new = value.detach().float()
        if name in average:
            new = torch.lerp(average[name].to(value.device), new, weight)
        updated[name] = new
    return updated


def _to_floats(stats: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> dict[str, float]:
    averages = {f"{name}_ema": float(value) for name, value in average.items()}
    return {name: float(value) for name, value in stats.items()} | averages
