"""Lower bounds of mutual information: scores in, nats out."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def infonce(scores: Tensor, partner: Tensor | None = None) -> Tensor:
    """I_NCE = log K - L_NCE, averaged over rows; never above its ceiling log K.

    Args:
        scores: `[B, K]`; row i scores one item against K candidates, one of them its true partner.
        partner: long `[B]`, the column of each row's true partner; by default row i's is column i.

    Returns:
        scalar, in nats, differentiable; K counts the positive.

    Raises:
        ValueError: scores of another shape, or K < B without `partner`.

    Source: van den Oord et al. 2018; InfoMin.

    >>> round(infonce(torch.zeros(4, 4)).item(), 6)  # an uninformative critic
    0.0
    >>> round(infonce(100 * torch.eye(4)).item(), 4)  # a perfect one: log 4
    1.3863
    """
    is_matrix = scores.dim() == 2 and len(scores) > 0
    if not is_matrix or (partner is None and scores.shape[0] > scores.shape[1]):
        raise ValueError(
            f"infonce: scores must be [B, K] with K >= B >= 1, got {list(scores.shape)}; "
            "if K < B, pass the column of each row's partner"
        )
    if partner is None:
        partner = torch.arange(len(scores), device=scores.device)
    if scores.dtype.itemsize < 4:
        scores = scores.float()
    return math.log(scores.shape[1]) - F.cross_entropy(scores, partner)


def infonce_symmetric(scores: Tensor) -> Tensor:
    """Mean of I_NCE over rows and over columns of a square score matrix `[K, K]`, in nats."""
    if scores.dim() != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(
            f"infonce_symmetric: scores must be [K, K], got {list(scores.shape)}; "
            "pass the same number of items from both views"
        )
    return (infonce(scores) + infonce(scores.T)) / 2
