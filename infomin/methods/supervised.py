"""Supervised learning, for comparison: what encoders reach that are told the labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.distributed import mean_over_processes, world_size
from ..networks.encoders import Encoders
from .base import Step


class Supervised(nn.Module):
    """Encoders for the views, and for each task a linear layer on each encoder.

    Args:
        channels: of each view, one or more.
        encoder: a name of `encoders.ENCODERS`.
        width: factor on the encoder's channels.
        shared: one encoder for all views instead of one each.
        dim, head, tau: of a critic, as for the other methods; there is none here.
        tasks: task -> labels of the training set: long `[N]` for classes, -1 where unknown; floating point `[N, P]` for places.

    Raises:
        ValueError: no labels, or views that cannot share an encoder.
    """

    needs_labels = True

    def __init__(
        self,
        channels: Sequence[int],
        encoder: str = "tiny",
        width: float = 1.0,
        shared: bool = False,
        dim: int = 0,
        head: str = "none",
        tau: float = 0.0,
        *,
        tasks: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        unknown = [
            task
            for task, labels in tasks.items()
            if not labels.is_floating_point() and (labels < 0).all()
        ]
        if unknown or not tasks:
            raise ValueError(
                f"Supervised: got no label of {', '.join(unknown) or 'any task'}, wanted some; take other data"
            )
        self.views = len(channels)
        self.encoders = Encoders(channels, encoder, width, shared)
        sizes = {
            task: y.shape[1] if y.is_floating_point() else int(y.max()) + 1
            for task, y in tasks.items()
        }
        own = self.encoders.features
        self.heads = nn.ModuleList(
            nn.ModuleDict({task: nn.Linear(d, n) for task, n in sizes.items()}) for d in own
        )
        for task, places in tasks.items():
            if places.is_floating_point():  # to the same size as an entropy
                self.register_buffer(f"mean_{task}", places.mean(0))
                self.register_buffer(f"deviation_{task}", places.std(0).clamp_min(1e-6))

    def forward(
        self,
        views: Sequence[Tensor],
        index: Tensor | None = None,
        labels: Mapping[str, Tensor] | None = None,
    ) -> Step:
        """Views `[B, C, H, W]` each, task -> labels `[B]` or `[B, P]` -> the losses of all tasks added up, mean over views.

        That of classes is the cross entropy (nats), the mean over all known labels of all processes; that of places the mean
        squared error in units of their deviation.
        """
        losses: dict[str, Tensor] = {}
        each: list[Any] = list(self.heads) * (self.views if len(self.heads) == 1 else 1)
        for h, heads in zip(self.features(views), each, strict=True):
            for task, head in heads.items():
                losses[task] = (
                    losses.get(task, 0)
                    + self._loss(task, head(h).float(), (labels or {})[task]) / self.views
                )
        loss = torch.stack(list(losses.values())).sum()
        return Step(
            loss,
            {
                "loss": mean_over_processes(loss),
                **{f"loss_{task}": mean_over_processes(value) for task, value in losses.items()},
            },
        )

    def _loss(self, task: str, found: Tensor, labels: Tensor) -> Tensor:
        if labels.is_floating_point():
            wanted = (labels - self.get_buffer(f"mean_{task}")) / self.get_buffer(
                f"deviation_{task}"
            )
            return F.mse_loss(found, wanted.to(found.dtype))
        usual = mean_over_processes(
            (labels >= 0).sum().to(found.dtype)
        )  # over processes, as gradients are: one that knows more weighs more
        total = F.cross_entropy(found, labels, ignore_index=-1, reduction="sum")
        return total / usual.clamp(
            min=1 / world_size()
        )  # less means that no process has a label, and then the total is 0

    def features(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What a probe reads: `[B, D]` of each view."""
        features: tuple[Tensor, ...] = self.encoders(views)
        return features

    def after_step(self) -> None:
        """Nothing to do."""
