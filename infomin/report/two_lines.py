"""Tests of a curve's shape from seeds that run through all its views, many curves at a time.

The two-lines test (Simonsohn, 2018, "Two lines: a valid alternative to the invalid testing of
U-shaped relationships with quadratic regressions"): a curve is an inverted U if a line rises before
a break and another falls after it, both significantly. Lines run over the ranks of the views, so
that neither the unit of the dial nor a far point decides.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Array = NDArray[np.float64]
LEVEL = 0.05  # of a claim
TURN_LEVEL = 0.01  # of a pair of views that contradicts a claimed shape; it only withholds claims
MARGIN = 0.05  # accuracy: a flat curve has no two views that differ by more
POWER = 0.84  # normal deviate: more seeds would decide with a probability of 80 %
MOST_SEEDS = 100
TINY = 1e-18  # least variance, where seeds agree to the last digit
CLAIMS = ("An inverted U", "Rising", "Falling", "Flat")


@dataclass(frozen=True)
class Curves:
    """Means over seeds and their errors, of B curves of P views.

    Args:
        mean: [B, P].
        covariance: of the means, [B, P, P]; for contrasts, whose weights add up to 0.
        seeds: how many; also the degrees of freedom of every t.
    """

    mean: Array
    covariance: Array
    seeds: int

    def sort(self, order: NDArray[np.intp]) -> "Curves":
        """The same curves with views in another order, [B, P]."""
        mean = np.take_along_axis(self.mean, order, 1)
        return replace(self, mean=mean, covariance=_sort_pairs(self.covariance, order))

    def test(self, contrasts: Array) -> Array:
        """The t of each contrast, [C, P] -> [B, C]."""
        variance = ((contrasts @ self.covariance) * contrasts).sum(-1)
        return self.mean @ contrasts.T / np.sqrt(np.maximum(variance, TINY))

    def differences(self) -> tuple[Array, Array]:
        """Mean and error of each view minus each other one, [B, P, P]."""
        own = np.diagonal(self.covariance, axis1=1, axis2=2)
        variance = own[:, :, None] + own[:, None, :] - 2 * self.covariance
        return self.mean[:, :, None] - self.mean[:, None, :], np.sqrt(np.maximum(variance, TINY))


def summarise_seeds(numbers: Array) -> Curves:
    """Means and errors of numbers [B, n, P]; a seed may shift all views of a curve alike.

    Few seeds say little about the variance of each contrast. So its own one, of n - 1 degrees of
    freedom, is averaged with that of all views and seeds pooled, which counts as one more degree.
    """
    _, n, p = numbers.shape
    mean = numbers.mean(1)
    residuals = numbers - mean[:, None]
    own = np.swapaxes(residuals, 1, 2) @ residuals / (n - 1)
    pooled = (np.trace(own, axis1=1, axis2=2) - own.sum((1, 2)) / p) / (p - 1)
    pooled = np.maximum(pooled, TINY)[:, None, None] * np.eye(p)
    return Curves(mean, (pooled + (n - 1) * own) / n / n, n)


def resample_orders(nats: Array, draws: int, seed: int = 0) -> NDArray[np.intp]:
    """Orders of views that their nats [B, n, P] allow, [draws, B, P]: a bootstrap over seeds.

    Each draw shifts the means by the seeds' deviations with random weights. These are normal, not
    counts, as two or three seeds have few counts; and of Student's t, with n degrees of freedom.
    """
    curves, n, _ = nats.shape
    generator = np.random.default_rng(seed)
    mean = nats.mean(1)
    weights = generator.standard_normal((draws, curves, n))
    weights *= np.sqrt(n / generator.chisquare(n, (draws, curves, 1)))
    weights[0] = 0  # the order as measured
    shifts = np.einsum("dbn,bnp->dbp", weights, nats - mean[:, None]) / np.sqrt(n * (n - 1))
    return (mean + shifts).argsort(-1, kind="stable")


def weigh_shapes(curves: Curves, orders: NDArray[np.intp]) -> tuple[Array, Array]:
    """The evidence for each of `CLAIMS`.

    Args:
        curves: of four views or more.
        orders: of their views, [draws, B, P].

    Returns:
        p of each claim, averaged over the draws, [B, 4]; and whether accuracy turns back, so that
        no line is left in any draw, [B].
    """
    ranks = orders.argsort(-1)
    before = (ranks[..., None] < ranks[..., None, :]).all(0)
    sure = before | np.swapaxes(before, 1, 2)
    t = np.array([_claim(curves.sort(order), _sort_pairs(sure, order)) for order in orders])
    return _p(t, curves).mean(0), np.isinf(t[..., :3]).all((0, 2))


def count_more_seeds(curves: Curves, level: float = LEVEL) -> int | None:
    """How many more seeds would make a claim significant, with a probability of 80 %.

    Args:
        curves: a single one, whose means and order are taken for the truth.
        level: p that decides.

    Returns:
        the number, or None if `MOST_SEEDS` would not do.
    """
    for more in range(1, MOST_SEEDS + 1):
        seeds = curves.seeds + more
        grown = replace(curves, seeds=seeds, covariance=curves.covariance * curves.seeds / seeds)
        if _p(_claim(grown) - POWER, grown).min() < level:
            return more
    return None


def find_peak(curves: Curves, level: float = LEVEL) -> NDArray[np.bool_]:
    """Views that may be the best, [B, P]: not worse than that of highest mean, corrected for P."""
    mean, error = curves.differences()
    best = curves.mean.argmax(1)
    lead = np.take_along_axis(mean / error, best[:, None, None], 1)[:, 0]
    return np.asarray(lead <= -stdtrit(curves.seeds, level / (curves.mean.shape[1] - 1)))


def correct(p: Array) -> Array:
    """P-values of several curves, [B, ...], corrected for their number (Holm, 1979).

    >>> correct(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = p.argsort(0)
    factors = np.arange(len(p), 0, -1).reshape(-1, *[1] * (p.ndim - 1))
    grown = np.maximum.accumulate(np.take_along_axis(p, order, 0) * factors, 0)
    return np.minimum(1, np.take_along_axis(grown, order.argsort(0), 0))


def _p(t: Array, curves: Curves) -> Array:
    """P of each claim: of all breaks (Bonferroni), of both directions of a trend, of flatness."""
    tests = np.array([curves.mean.shape[1] - 3, 2, 2, 1])
    return np.minimum(1, tests * stdtr(curves.seeds, -t))


def _sort_pairs(pairs: NDArray[Any], order: NDArray[np.intp]) -> NDArray[Any]:
    """Sort both axes of [B, P, P]."""
    rows = np.take_along_axis(pairs, order[:, :, None], 1)
    return np.take_along_axis(rows, order[:, None, :], 2)


def _claim(curves: Curves, sure: NDArray[np.bool_] | bool = True) -> Array:
    """The t of each claim, [B, 4], minus infinity where two views contradict it, significantly.

    Of pairs that are not in a sure order, [B, P, P], none contradicts a rise or a fall.
    """
    views = curves.mean.shape[1]
    ranks, breaks = np.arange(views), np.arange(2, views - 1)  # two views or more on each side
    left = ranks < breaks[:, None]  # [S, P]
    up, down = curves.test(_line(left)), -curves.test(_line(~left))
    mean, error = curves.differences()
    later = ranks[:, None] < ranks  # [i, j]: j comes after i
    ahead = mean / error * later  # [B, i, j]: by how much j lies below i, before it
    turn, turn_of_any = -stdtrit(curves.seeds, [TURN_LEVEL, LEVEL / later.sum()])
    contradicted = _any_within(ahead > turn, left) | _any_within(-ahead > turn, ~left)
    lines = np.where(contradicted, -np.inf, np.minimum(up, down)).max(1)
    trend = curves.test(_line(np.ones((1, views), bool)))[:, 0]
    rising = np.where((sure & (ahead > turn_of_any)).any((1, 2)), -np.inf, trend)
    falling = np.where((sure & (-ahead > turn_of_any)).any((1, 2)), -np.inf, -trend)
    flat = ((MARGIN - np.abs(mean)) / error)[:, later].min(1)
    return np.stack([lines, rising, falling, flat], 1)


def _line(side: NDArray[np.bool_]) -> Array:
    """Contrasts that give the slope over the ranks of some views, [S, P], up to a factor."""
    ranks = np.arange(side.shape[1])
    centre = (ranks * side).sum(1, keepdims=True) / side.sum(1, keepdims=True)
    return (ranks - centre) * side


def _any_within(pairs: NDArray[np.bool_], side: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether any pair [B, P, P] lies within each side [S, P]: [B, S]."""
    return np.any(pairs[:, None] & side[:, :, None] & side[:, None, :], axis=(2, 3))
