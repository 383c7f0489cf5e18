"""What the training loop asks of whatever it trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..common.seeds import seeded_generator


@dataclass(frozen=True)
class Batch:
    """What a step knows of its images beside the views.

    Attributes:
        index: rows of the training set that the images show, long `[B]`; where a file cannot be
            read, of the one that stands in for it.
        labels: task -> long `[B]`, -1 where unknown, or floating point `[B, P]`.
        step: number of the step, from 0.
        generator: on the CPU, for the method's own random draws; a function of seed, step and
            process.
    """

    index: Tensor
    labels: Mapping[str, Tensor]
    step: int
    generator: torch.Generator


def make_batch(
    n: int, labels: Mapping[str, Tensor] = MappingProxyType({}), step: int = 0, seed: int = 0
) -> Batch:
    """A batch of images 0 to n - 1, to call a method outside the loop."""
    return Batch(torch.arange(n), labels, step, seeded_generator(seed, "method", step))


class Step(NamedTuple):
    """What a step returns.

    Attributes:
        loss: scalar to minimise.
        stats: scalars to log, without gradient; among them `loss` and, for methods that contrast
            views, `i_nce` in nats.
    """

    loss: Tensor
    stats: dict[str, Tensor]


class Group(NamedTuple):
    """Parameters that share a learning rate.

    Attributes:
        name: of the group, for logs.
        parameters: those that need no gradient are left out.
        rate: factor on the recipe's learning rate.
        decay: factor on the recipe's weight decay.
        schedule: how the rate falls; empty means as the recipe says.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    rate: float = 1.0
    decay: float = 1.0
    schedule: str = ""


class Learner(nn.Module):
    """A module that the training loop can train and a probe can read.

    All that a step changes (queues, banks, slow encoders, counters) must be parameters or buffers,
    so that a run that was killed resumes with the same bits. With several processes every one holds
    the same buffers: gather first, then update.
    """

    def forward(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Views `[B, C, H, W]` each and what is known of their images -> the loss of this step."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def features(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Views `[B, C, H, W]` each -> what a probe reads of each, `[B, D]`."""
        raise NotImplementedError(f"{type(self).__name__} has no features")

    def groups(self) -> list[Group]:
        """The parameters to train; by default all, at the recipe's rate."""
        return [Group("all", list(self.parameters()))]

    def after_step(self, step: int) -> None:
        """Called after the optimiser has taken step number `step`, counted from 0."""
