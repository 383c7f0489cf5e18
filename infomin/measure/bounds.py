"""Bounds of mutual information: scores in, nats out.

Each takes the scores `[K, K]` of a batch of pairs: row i has f(x_i, y_j) of one item against all
candidates, with its true partner on the diagonal. `E_p` is the mean over the diagonal, `E_q` the
mean over all other entries. `BOUNDS` lists them by name, with the side they are on.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import check_positive, check_range

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def infonce(scores: Tensor, partner: Tensor | None = None) -> Tensor:
    """I_NCE = log K - L_NCE, averaged over rows: a lower bound for every critic, at most log K.

    L_NCE is the cross-entropy of the true partner among the candidates. Optimal scores are
    log p(y|x) / p(y), up to a constant per row.

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
    scores = _square(scores, "infonce_symmetric", 1)
    return (infonce(scores) + infonce(scores.T)) / 2


def tuba(scores: Tensor, *, log_baseline: Tensor | float = 0.0) -> Tensor:
    """1 + E_p[f - log a(y)] - E_q[exp(f) / a(y)]: a lower bound for every critic and every a > 0.

    Optimal scores are log a(y) + log p(y|x) / p(y). Its variance grows like exp(I).

    Args:
        scores: `[K, K]` of any critic, K of 2 or more.
        log_baseline: log a(y), one number or `[K]`, one for each column.

    Returns:
        scalar, in nats, differentiable; NaN if a score is NaN.

    Raises:
        TypeError, ValueError: scores that are not floating point or not square; a baseline of
            another shape.

    Source: Poole et al. 2019, I_TUBA; after Barber and Agakov 2003.

    >>> tuba(torch.zeros(3, 3)).item()  # a critic that knows nothing
    0.0
    """
    scores = _square(scores, "tuba")
    joint, product = _parts(scores - _check_baseline(log_baseline, scores, "tuba"))
    return 1 + joint.mean() - _log_mean_exp(product).exp()


def nwj(scores: Tensor) -> Tensor:
    """E_p[f] - E_q[exp(f)] / e: `tuba` with a = e, a lower bound for every critic.

    Optimal scores are 1 + log p(y|x) / p(y).

    Source: Nguyen, Wainwright and Jordan 2010; MINE-f of Belghazi et al. 2018.
    Arguments, result and errors as `tuba`.

    >>> nwj(torch.ones(3, 3)).item()
    0.0
    """
    return tuba(_square(scores, "nwj"), log_baseline=1.0)


def donsker_varadhan(scores: Tensor) -> Tensor:
    """E_p[f] - log E_q[exp(f)]: with finite batches neither a lower nor an upper bound.

    With all pairs of the product it is a lower bound for every critic, and invariant to constants
    added to the scores; the logarithm of a finite mean makes it too large on average. Optimal
    scores are log p(y|x) / p(y), up to one constant.

    Source: Donsker and Varadhan 1983; Belghazi et al. 2018. Arguments, result, errors as `tuba`.

    >>> donsker_varadhan(torch.full((3, 3), 7.0)).item()
    0.0
    """
    joint, product = _parts(_square(scores, "donsker_varadhan"))
    return joint.mean() - _log_mean_exp(product)


def mine(scores: Tensor, *, log_average: Tensor | None = None) -> Tensor:
    """The value of `donsker_varadhan`, with the gradient of MINE.

    The gradient, E_p[f'] - E_q[exp(f) f'] / a, divides by a running average a of E_q[exp(f)] over
    batches, as that of one batch is biased. You keep the average:

        average = average_for_mine(scores, average)  # None before the first batch
        loss = -mine(scores, log_average=average)

    Args:
        scores: `[K, K]` of any critic, K of 2 or more.
        log_average: log a, from `average_for_mine`; None takes that of this batch.

    Source: Belghazi et al. 2018, on correcting the bias of stochastic gradients. Result and errors
    as `tuba`.
    """
    joint, product = _parts(_square(scores, "mine"))
    log_mean = _log_mean_exp(product)
    log_average = (log_mean if log_average is None else log_average).detach().to(log_mean)
    weight = (log_mean.detach() - log_average).exp().clamp(max=torch.finfo(log_mean.dtype).max)
    surrogate = joint.mean() - weight * (log_mean - log_mean.detach())  # no infinity minus infinity
    return _value_and_gradient(joint.mean() - log_mean, surrogate)


def average_for_mine(
    scores: Tensor, previous: Tensor | None = None, *, decay: float = 0.99
) -> Tensor:
    """The logarithm of the exponential moving average of E_q[exp(f)], for `mine`.

    Args:
        scores: `[K, K]` of the newest batch.
        previous: what this returned for the batch before; None at the first.
        decay: the weight of the previous average, 0 to 1.

    Returns:
        scalar without gradient. Errors as `tuba`; a decay out of range is a ValueError.

    >>> average_for_mine(torch.ones(3, 3)).item()
    1.0
    """
    check_range(decay, 0, 1, "average_for_mine(decay)")
    log_mean = _log_mean_exp(_parts(_square(scores, "average_for_mine"))[1]).detach()
    return log_mean if previous is None else _log_interpolate(previous, log_mean, 1 - decay)


def jensen_shannon(scores: Tensor) -> Tensor:
    """1 + E_p[f] - E_q[exp(f)], a lower bound, with the gradient of the Jensen-Shannon bound.

    The gradient is that of -E_p[softplus(-f)] - E_q[softplus(f)], which has little variance; its
    optimal scores are log p(y|x) / p(y), those of `tuba` with a = 1, whose value is returned.

    Source: Hjelm et al. 2019 (Deep InfoMax) for the gradient, Poole et al. 2019 for the value.
    Arguments, result and errors as `tuba`.

    >>> jensen_shannon(torch.zeros(3, 3)).item()
    0.0
    """
    scores = _square(scores, "jensen_shannon")
    return _value_and_gradient(tuba(scores), _jensen_shannon_objective(scores))


def smile(scores: Tensor, *, clip: float = 5.0) -> Tensor:
    """E_p[f] - log E_q[exp(f), clipped to exp(-clip) .. exp(clip)]: neither lower nor upper bound.

    Clipping trades the variance of `donsker_varadhan` for bias. The gradient is that of
    `jensen_shannon`; optimal scores are log p(y|x) / p(y).

    Args:
        scores: `[K, K]`, K of 2 or more.
        clip: the authors' tau, above 0; a large one gives the value of `donsker_varadhan`.

    Source: Song and Ermon 2020. Result and errors as `tuba`; a clip out of range is a ValueError.

    >>> smile(torch.zeros(3, 3)).item()
    0.0
    """
    scores = _square(scores, "smile")
    check_positive(clip, "smile(clip)")
    joint, product = _parts(scores)
    value = joint.mean() - _log_mean_exp(product.clamp(-clip, clip))
    return _value_and_gradient(value, _jensen_shannon_objective(scores))


def interpolated(
    scores: Tensor, *, alpha: float = 0.5, log_baseline: Tensor | float = 1.0
) -> Tensor:
    """`tuba` whose a(y) is alpha m(y) + (1 - alpha) q(y): a lower bound between NWJ and InfoNCE.

    m(y) is the mean of exp(f) over K - 1 items x of the batch: of all but one, in turn, where y is
    one's own partner, and of all others where it is not. With alpha = 0 this is `tuba`; with
    alpha = 1 it is at most log(K - 1), as InfoNCE is. In between it trades bias for variance.

    Args:
        scores: `[K, K]` of any critic, K of 2 or more.
        alpha: 0 to 1.
        log_baseline: log q(y), one number or `[K]`, one for each column.

    Source: Poole et al. 2019, nonlinearly interpolated lower bounds. Result and errors as `tuba`;
    an alpha out of range is a ValueError.

    >>> round(interpolated(torch.zeros(3, 3), log_baseline=0.0).item(), 6)
    0.0
    """
    scores = _square(scores, "interpolated")
    check_range(alpha, 0, 1, "interpolated(alpha)")
    baseline = _check_baseline(log_baseline, scores, "interpolated")
    log_a = _log_interpolate(baseline, _mean_of_others(scores), alpha)
    own = log_a.diagonal()  # without one's own partner
    _, others = _parts(log_a)
    joint = scores.diagonal().mean() - others.mean()
    _, product = _parts(scores - own)
    return 1 + joint - _log_mean_exp(product).exp()


def leave_one_out(scores: Tensor) -> Tensor:
    """E[log p(y_i|x_i) - log of the mean of p(y_i|x_j) over j != i]: an upper bound.

    Args:
        scores: `[K, K]`, log p(y_j|x_i) in row i and column j, known exactly, K of 2 or more.

    Returns:
        scalar, in nats, differentiable; NaN if a score is NaN.

    Raises:
        TypeError, ValueError: scores that are not floating point or not square.

    Source: Poole et al. 2019, structured bounds with tractable encoders.

    >>> leave_one_out(torch.zeros(3, 3)).item()
    0.0
    """
    scores = _square(scores, "leave_one_out")
    return (scores - _mean_of_others(scores)).diagonal().mean()


def club(scores: Tensor) -> Tensor:
    """E_p[log p(y|x)] - E_q[log p(y|x)]: an upper bound if the conditional is exact.

    With a learned conditional it is an upper bound only where that is close enough.

    Source: Cheng et al. 2020. Arguments, result and errors as `leave_one_out`.

    >>> club(torch.zeros(3, 3)).item()
    0.0
    """
    joint, product = _parts(_square(scores, "club"))
    return joint.mean() - product.mean()


class Bound(NamedTuple):
    """A bound, and where it is in expectation over batches of any size.

    Attributes:
        of: scores `[K, K]` to nats; further arguments have defaults.
        side: `lower`, `upper` or `neither`.
        scores: what its scores must be for that: those of `any` critic, or the exact `log p(y|x)`.
    """

    of: Callable[..., Tensor]
    side: str
    scores: str = "any"


BOUNDS: dict[str, Bound] = {
    "infonce": Bound(infonce, "lower"),
    "tuba": Bound(tuba, "lower"),
    "nwj": Bound(nwj, "lower"),
    "jensen_shannon": Bound(jensen_shannon, "lower"),
    "interpolated": Bound(interpolated, "lower"),
    "donsker_varadhan": Bound(donsker_varadhan, "neither"),
    "mine": Bound(mine, "neither"),
    "smile": Bound(smile, "neither"),
    "leave_one_out": Bound(leave_one_out, "upper", "log p(y|x)"),
    "club": Bound(club, "upper", "log p(y|x)"),
}


def _parts(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The scores `[K]` of pairs, and those `[K * (K - 1)]` of all others."""
    k = len(scores)
    # without its first entry, K - 1 rows of a diagonal's K + 1 entries end in the next one
    product = scores.flatten()[1:].view(k - 1, k + 1)[:, :-1]
    return scores.diagonal(), product.flatten()


def _log_mean_exp(scores: Tensor) -> Tensor:
    return scores.logsumexp(0) - math.log(len(scores))


def _log_interpolate(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """The logarithm of (1 - weight) exp(first) + weight exp(second)."""
    weights = torch.tensor([1 - weight, weight], dtype=torch.float64)
    log_first, log_second = weights.log().tolist()  # minus infinity at a weight of 0
    return torch.logaddexp(first + log_first, second + log_second)


def _mean_of_others(scores: Tensor) -> Tensor:
    """Entry (k, j): the logarithm of the mean of exp(scores[i, j]) over all rows i but k."""
    nothing = scores.new_full((1, scores.shape[1]), -math.inf)
    before = torch.cat([nothing, scores[:-1].logcumsumexp(0)])
    after = torch.cat([scores[1:].flip(0).logcumsumexp(0).flip(0), nothing])
    return torch.logaddexp(before, after) - math.log(len(scores) - 1)


def _jensen_shannon_objective(scores: Tensor) -> Tensor:
    joint, product = _parts(scores)
    return -F.softplus(-joint).mean() - F.softplus(product).mean()


def _value_and_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    """The value of one expression with the gradient of another."""
    return value.detach() + (surrogate - surrogate.detach())


def _square(scores: object, who: str, least: int = 2) -> Tensor:
    """Check scores and return them as float32 or float64."""
    scores = _check_type(scores, who)
    if scores.dim() != 2 or scores.shape[0] != scores.shape[1] or 0 in scores.shape:
        raise ValueError(
            f"{who}: scores must be [K, K], got {list(scores.shape)}; "
            "pass the same number of items from both views"
        )
    if len(scores) < least:
        raise ValueError(f"{who}: needs other pairs to compare with, got one; pass {least} or more")
    return scores.float() if scores.dtype.itemsize < 4 else scores


def _check_baseline(log_baseline: Tensor | float, scores: Tensor, who: str) -> Tensor:
    baseline = torch.as_tensor(log_baseline, dtype=scores.dtype, device=scores.device)
    k, shape = len(scores), list(baseline.shape)
    if shape not in ([], [k]):
        raise ValueError(
            f"{who}: log_baseline must be one number or [{k}], got {shape}; pass one per column"
        )
    return baseline


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
