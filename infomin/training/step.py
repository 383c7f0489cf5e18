"""The contract between the training loop and what it trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..common.seeds import seeded_generator


@dataclass(frozen=True)
class Batch:
    """The metadata of a step's images: everything but the views.

    Attributes:
        index: training-set rows of the images, long `[B]`. If a file cannot be read, this is the
            row of the image shown in its place.
        labels: task -> long `[B]`, -1 where unknown, or floating point `[B, P]`.
        step: the step's number, counted from 0.
        generator: on the CPU, for the method's own random draws; determined by seed, step and
            process.
    """

    index: Tensor
    labels: Mapping[str, Tensor]
    step: int
    generator: torch.Generator


def make_batch(
    n: int, labels: Mapping[str, Tensor] = MappingProxyType({}), step: int = 0, seed: int = 0
) -> Batch:
    """The batch of images 0 to n - 1, for calling a method outside the loop."""
    return Batch(torch.arange(n), labels, step, seeded_generator(seed, "method", step))


class Step(NamedTuple):
    """The result of a forward pass.

    Attributes:
        loss: scalar to minimise.
        stats: detached scalars to log, including `loss` and, for methods that contrast views,
            `i_nce` in nats: of this batch, by the critic in training. The `i_nce` of a row is
            another number, see `measure.probe.evaluate`.
    """

    loss: Tensor
    stats: dict[str, Tensor]


def check_step(result: object, who: str) -> Step:
    """Return what a forward pass returned.

    Raises:
        TypeError: it is no Step, or its loss or a stat is not what the loop can train and log.
    """
    if not isinstance(result, Step):
        raise TypeError(f"{who}: wanted Step(loss, stats), got {type(result).__name__}")
    loss, stats = result
    if not _is_scalar(loss) or not loss.requires_grad:
        raise TypeError(f"{who}: loss: wanted a scalar with a gradient, got {_describe(loss)}")
    if not isinstance(stats, Mapping):
        raise TypeError(f"{who}: stats: wanted a dict, got {type(stats).__name__}")
    for name, value in stats.items():
        if not _is_scalar(value) or value.requires_grad:
            raise TypeError(
                f"{who}: stats[{name!r}]: wanted a detached scalar, got {_describe(value)}; "
                "use value.detach().mean()"
            )
    if reserved := {"step", "rate"} & stats.keys():
        raise ValueError(
            f"{who}: stats: got {min(reserved)!r}, the name of a column of the log; choose another"
        )
    return result


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    gradient = "with a gradient" if value.requires_grad else "without a gradient"
    return f"a tensor {list(value.shape)} {gradient}"


class Group(NamedTuple):
    """Parameters that share a learning rate, weight decay and schedule.

    Attributes:
        name: name of the group, for logs.
        parameters: frozen ones are left out of the optimiser.
        rate: factor on the recipe's learning rate.
        decay: factor on the recipe's weight decay.
        schedule: a key of `optim.SCHEDULES`; empty means the recipe's schedule.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    rate: float = 1.0
    decay: float = 1.0
    schedule: str = ""


class Learner(nn.Module):
    """A module that the training loop can train and a probe can read.

    Everything a step changes (queues, banks, momentum encoders, counters) must be a parameter or a
    persistent buffer of fixed shape, so that an interrupted run resumes bit for bit. All processes
    must hold equal buffers: gather first, then update.
    """

    def forward(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Views `[B, C, H, W]` each and the batch's metadata -> the loss of this step."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def features(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Views `[B, C, H, W]` each -> the features that a probe reads, `[B, D]` each."""
        raise NotImplementedError(f"{type(self).__name__} has no features")

    def groups(self) -> list[Group]:
        """The parameters to train; by default all of them, at the recipe's rate."""
        return [Group("all", list(self.parameters()))]

    def after_step(self, step: int) -> None:
        """Run after the optimiser has taken step number `step`, counted from 0."""
