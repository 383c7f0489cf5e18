"""Supervised learning: the baseline trained on the labels."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.distributed import mean_over_processes, world_size
from ..training.step import Batch, Step
from .base import Context, Method, register


@register("supervised")
class Supervised(Method):
    """Encoders for the views, with one linear layer per task on each encoder.

    Raises:
        ValueError: no task, or a task without a known label.
    """

    views = (1, None)
    needs_labels = True

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        unknown = [name for name, task in context.tasks.items() if not task.size]
        if unknown or not context.tasks:
            raise ValueError(
                f"Supervised: needs labels, got none for {', '.join(unknown) or 'any task'}; "
                "use other data"
            )
        self.heads = nn.ModuleList()
        for dim in self.encoders.features:
            layers = {name: nn.Linear(dim, task.size) for name, task in context.tasks.items()}
            self.heads.append(nn.ModuleDict(layers))
        for name, task in context.tasks.items():
            if task.mean:
                # Standardised coordinates have a loss of the same order as a cross-entropy.
                self.register_buffer(f"mean_{name}", torch.tensor(task.mean))
                self.register_buffer(f"deviation_{name}", torch.tensor(task.deviation))

    def forward(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Views `[B, C, H, W]` each -> the losses of all tasks, summed, averaged over views.

        Classes: cross-entropy in nats, averaged over the known labels of all processes.
        Coordinates: mean squared error in units of their standard deviation.
        """
        losses: dict[str, Tensor] = {}
        heads: list[Any] = list(self.heads) * (len(views) if len(self.heads) == 1 else 1)
        for features, layers in zip(self.features(views), heads, strict=True):
            for name, layer in layers.items():
                loss = self._loss(name, layer(features).float(), batch.labels[name]) / len(views)
                losses[name] = losses[name] + loss if name in losses else loss
        total = torch.stack(list(losses.values())).sum()
        stats = {f"loss_{name}": mean_over_processes(loss) for name, loss in losses.items()}
        return Step(total, {"loss": mean_over_processes(total), **stats})

    def _loss(self, name: str, outputs: Tensor, labels: Tensor) -> Tensor:
        if labels.is_floating_point():
            centred = labels - self.get_buffer(f"mean_{name}")
            targets = centred / self.get_buffer(f"deviation_{name}")
            return F.mse_loss(outputs, targets.to(outputs.dtype))
        # Averaged over processes as gradients are: one with more labels has a larger weight.
        known = mean_over_processes((labels >= 0).sum().to(outputs.dtype))
        total = F.cross_entropy(outputs, labels, ignore_index=-1, reduction="sum")
        # Below 1 / world_size no process has a label, and the total is 0.
        return total / known.clamp(min=1 / world_size())
