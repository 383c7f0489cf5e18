"""Lower bounds of mutual information: scores in, nats out."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def infonce(scores: Tensor, partner: Tensor | None = None) -> Tensor:
    """I_NCE = log K - L_NCE, averaged over rows; never above its ceiling log K.

    Args:
        scores: `[B, K]`; row i scores one item against K candidates, one of them its true partner.
        partner: integers `[B]`, the column of each row's true partner, 0 to K - 1; by default row
            i's is column i.

    Returns:
        scalar, in nats, differentiable; K counts the positive. NaN if a score is NaN.

    Raises:
        TypeError: scores that are not floating point, partners that are not integers.
        ValueError: scores of another shape, K < B without `partner`, partners out of range.

    Source: van den Oord et al. 2018; InfoMin.

    >>> round(infonce(torch.zeros(4, 4)).item(), 6)  # an uninformative critic
    0.0
    >>> round(infonce(100 * torch.eye(4)).item(), 4)  # a perfect one: log 4
    1.3863
    """
    scores = _check_type(scores, "infonce")
    is_matrix = scores.dim() == 2 and 0 not in scores.shape
    if not is_matrix or (partner is None and scores.shape[0] > scores.shape[1]):
        raise ValueError(
            f"infonce: scores must be [B, K] with K >= B >= 1, got {list(scores.shape)}; "
            "if K < B, pass the column of each row's partner"
        )
    if partner is None:
        partner = torch.arange(len(scores), device=scores.device)
    else:
        partner = _check_partner(partner, *scores.shape).to(scores.device)
    if scores.dtype.itemsize < 4:
        scores = scores.float()
    return math.log(scores.shape[1]) - F.cross_entropy(scores, partner)


def infonce_symmetric(scores: Tensor) -> Tensor:
    """Mean of I_NCE over rows and over columns of a square score matrix `[K, K]`, in nats.

    Raises:
        TypeError, ValueError: as `infonce`, or scores that are not square.
    """
    scores = _check_type(scores, "infonce_symmetric")
    if scores.dim() != 2 or scores.shape[0] != scores.shape[1] or 0 in scores.shape:
        raise ValueError(
            f"infonce_symmetric: scores must be [K, K], got {list(scores.shape)}; "
            "pass the same number of items from both views"
        )
    return (infonce(scores) + infonce(scores.T)) / 2


def _check_type(scores: object, who: str) -> Tensor:
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(
            f"{who}: scores must be a floating-point tensor [B, K], got {got}; "
            "use torch.as_tensor(scores).float()"
        )
    return scores


def _check_partner(partner: object, b: int, k: int) -> Tensor:
    if not isinstance(partner, Tensor) or partner.dtype not in INTEGERS:
        got = partner.dtype if isinstance(partner, Tensor) else type(partner).__name__
        raise TypeError(
            f"infonce: partner must be an integer tensor [{b}], got {got}; "
            "use torch.as_tensor(partner).long()"
        )
    if list(partner.shape) != [b]:
        raise ValueError(
            f"infonce: partner must have the shape [{b}], got {list(partner.shape)}; "
            "pass one column per row of scores"
        )
    least, most = int(partner.min()), int(partner.max())
    if least < 0 or most >= k:
        raise ValueError(
            f"infonce: partner must be a column, 0 to {k - 1}, got {least if least < 0 else most}; "
            "leave out rows without a partner"
        )
    return partner.long()
