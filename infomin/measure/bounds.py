"""Lower bounds of mutual information: scores in, nats out."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def infonce(scores: Tensor, partner: Tensor | None = None) -> Tensor:
    """I_NCE = log K - L_NCE, averaged over rows: never above its ceiling log K (van den Oord et al. 2018; InfoMin).

    Args:
        scores: `[B, K]`; row i scores one item against K candidates, of which one is its true partner.
        partner: long `[B]`, the column of each row's true partner; row i's is column i unless given.

    Returns:
        scalar, in nats, differentiable; K counts the positive.

    >>> round(infonce(torch.zeros(4, 4)).item(), 6)  # a critic that knows nothing
    0.0
    >>> round(infonce(100 * torch.eye(4)).item(), 4)  # a perfect one: log 4
    1.3863
    """
    if (
        scores.dim() != 2
        or not len(scores)
        or (partner is None and scores.shape[0] > scores.shape[1])
    ):
        raise ValueError(
            f"infonce: scores must be [B, K] with K >= B >= 1, got {list(scores.shape)}; or give each row's partner"
        )
    if partner is None:
        partner = torch.arange(len(scores), device=scores.device)
    return math.log(scores.shape[1]) - F.cross_entropy(
        scores.float() if scores.dtype.itemsize < 4 else scores, partner
    )


def infonce_symmetric(scores: Tensor) -> Tensor:
    """Mean of I_NCE over both directions of a square score matrix `[K, K]`: rows choose columns, columns choose rows."""
    if scores.dim() != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(
            f"infonce_both_ways: scores must be [K, K], got {list(scores.shape)}; give as many of the one view as of the other"
        )
    return (infonce(scores) + infonce(scores.T)) / 2
