"""The cross-view contrast: pick an image's other view out of a batch. Two-view CMC is this with a colour split."""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from ..common.distributed import gather
from ..measure.bounds import infonce_symmetric
from ..measure.critics import cosine_scores
from ..networks.encoders import Encoders
from ..networks.heads import Projection
from .base import Step


class InfoNCE(nn.Module):
    """Encoders for the views, trained so that a view's embedding finds that of its partner (InfoMin; CMC).

    Args:
        channels: of each view; two views or more (with more, the mean over all pairs).
        encoder: a name of `encoders.ENCODERS`.
        width: factor on the encoder's channels.
        shared: one encoder for all views instead of one each.
        dim: size of the embedding that is compared.
        head: `none`, `linear` or `mlp`, between features and embedding.
        tau: temperature, above 0.
    """

    def __init__(
        self,
        channels: Sequence[int],
        encoder: str = "tiny",
        width: float = 1.0,
        shared: bool = False,
        dim: int = 64,
        head: str = "linear",
        tau: float = 0.1,
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(
                f"InfoNCE: got a view of {len(channels)} part, wanted two or more to contrast; "
                "split it, for example color:lab/0-12"
            )
        self.views, self.tau = len(channels), tau
        self.encoders = Encoders(channels, encoder, width, shared)
        self.heads = nn.ModuleList(Projection(size, dim, head) for size in self.encoders.features)

    def forward(
        self, views: Sequence[Tensor], index: Tensor | None = None, labels: object = None
    ) -> Step:
        """Views `[B, C, H, W]` each -> loss = log K - I_NCE, mean over both directions and over pairs; K = B x processes."""
        z = [gather(embedding) for embedding in self.embed(views)]
        pairs = [infonce_symmetric(cosine_scores(a, b, self.tau)) for a, b in combinations(z, 2)]
        i_nce = torch.stack(pairs).mean()
        loss = math.log(len(z[0])) - i_nce
        return Step(loss, {"loss": loss.detach(), "i_nce": i_nce.detach()})

    def features(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Views `[B, C, H, W]` each -> what a probe reads, `[B, D]` each: the encoder's output before the head."""
        features: tuple[Tensor, ...] = self.encoders(views)
        return features

    def embed(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Views `[B, C, H, W]` each -> what the critic compares, `[B, dim]` each."""
        if len(views) != self.views:
            raise ValueError(
                f"InfoNCE: got {len(views)} views, wanted {self.views}; build it with their channels"
            )
        heads = list(self.heads) * (self.views if len(self.heads) == 1 else 1)
        return tuple(head(h) for head, h in zip(heads, self.features(views), strict=True))

    def after_step(self) -> None:
        """Nothing to keep up to date."""
