"""InfoNCE: pick out an image's other view among those of a batch.

With a colour split as the view this is two-view CMC.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from ..common.distributed import gather
from ..measure.bounds import infonce_symmetric
from ..measure.critics import cosine_scores
from ..networks.heads import Projection
from ..training.step import Batch, Step
from .base import Context, Method, register


@register("infonce")
class InfoNCE(Method):
    """Encoders trained so that the embedding of a view identifies its partner in the batch.

    With more than two views the loss is the mean over all pairs of views.

    Source: InfoMin; CMC.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.tau = context.tau
        self.heads = nn.ModuleList(
            Projection(size, context.dim, context.head) for size in self.encoders.features
        )

    def forward(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Views `[B, C, H, W]` each -> loss = log K - I_NCE with K = B x processes.

        I_NCE is the mean over both directions and over all pairs of views.
        """
        z = [gather(embedding) for embedding in self.embed(views)]
        pairs = [infonce_symmetric(cosine_scores(a, b, self.tau)) for a, b in combinations(z, 2)]
        i_nce = torch.stack(pairs).mean()
        loss = math.log(len(z[0])) - i_nce
        return Step(loss, {"loss": loss.detach(), "i_nce": i_nce.detach()})

    def embed(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Views `[B, C, H, W]` each -> the embeddings that the critic compares, `[B, dim]` each."""
        heads = list(self.heads) * (len(views) if len(self.heads) == 1 else 1)
        return tuple(head(h) for head, h in zip(heads, self.features(views), strict=True))
