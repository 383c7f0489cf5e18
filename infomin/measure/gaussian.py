"""A critic in closed form: the log density ratio of jointly Gaussian features."""

import math

import torch
from torch import Tensor

LARGEST = 1 - 1e-9  # correlation; equal columns would have an infinite ratio


class GaussianCritic:
    """log p(y|x) / p(y) of Gaussians with the canonical correlations of the given pairs.

    Canonical correlation analysis finds pairs of directions that correlate with each other and with
    nothing else, so the ratio is a sum over them. A direction fits the pairs that it was found on
    too well, so its correlation is read from other pairs, and left out where those do not show it.

    Args:
        x: standardised features `[N, D1]` that directions are found on.
        y: `[N, D2]`, row by row their partners.
        x_held: `[M, D1]`, that correlations are read from.
        y_held: `[M, D2]`.

    Source: Hotelling 1936; I(x; y) of Gaussians is -log(1 - r^2) / 2 summed over correlations r.
    """

    def __init__(self, x: Tensor, y: Tensor, x_held: Tensor, y_held: Tensor) -> None:
        x, y, x_held, y_held = (part.double() for part in (x, y, x_held, y_held))
        to_white_x, to_white_y = _whitening(x), _whitening(y)
        cross = to_white_x.T @ (x.T @ y / len(x)) @ to_white_y
        left, _, right = torch.linalg.svd(cross, full_matrices=False)
        to_x, to_y = to_white_x @ left, to_white_y @ right.T
        u, v = x_held @ to_x, y_held @ to_y
        scale_u, scale_v = u.square().mean(0).sqrt(), v.square().mean(0).sqrt()
        r = (u * v).mean(0) / (scale_u * scale_v).clamp_min(1e-30)
        seen = r > 2 / math.sqrt(len(x_held))  # two standard errors of a correlation of 0
        self.r = r[seen].clamp(max=LARGEST)
        self.to_x, self.to_y = (to_x / scale_u)[:, seen], (to_y / scale_v)[:, seen]

    def variates(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The canonical variates `[N, C]` of both, C directions in descending correlation."""
        return x.double() @ self.to_x, y.double() @ self.to_y

    def embed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings `[N, C + 2]` whose inner products are the scores, float64."""
        u, v = self.variates(x, y)
        rest = 1 - self.r.square()
        square = self.r.square() / (2 * rest)
        of_x = -(u.square() * square).sum(1, keepdim=True) - rest.log().sum() / 2
        of_y = -(v.square() * square).sum(1, keepdim=True)
        one_x, one_y = torch.ones_like(of_x), torch.ones_like(of_y)
        first = torch.cat([u * (self.r / rest), of_x, one_x], 1)
        return first, torch.cat([v, one_y, of_y], 1)


def normal_scores(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Map columns `[N, D]` to normal quantiles of their ranks among those of `train`.

    Equal values have their mean rank; those between two values of `train` a rank in between.

    Source: van der Waerden scores; a Gaussian copula becomes Gaussian.

    >>> normal_scores(torch.tensor([[0.0], [1e9], [5.0]]))[0].flatten()
    tensor([-0.6745,  0.6745,  0.0000])
    """
    n = len(train)
    ordered = train.T.contiguous().sort(1).values
    scores = []
    for x in (train, *others):
        columns = x.T.contiguous()
        below = torch.searchsorted(ordered, columns)
        not_above = torch.searchsorted(ordered, columns, right=True)
        lower = ordered.gather(1, (below - 1).clamp_(min=0))
        upper = ordered.gather(1, below.clamp(max=n - 1))
        share = ((columns - lower) / (upper - lower)).nan_to_num_(0.5, 0.5, 0.5).clamp_(0, 1)
        mean_of_ties = (below + not_above + 1).double() / 2
        rank = torch.where(below < not_above, mean_of_ties, below + share.double())
        scores.append(torch.special.ndtri(rank.clamp_(0.5, n + 0.5) / (n + 1)).T.to(x.dtype))
    return tuple(scores)


def _whitening(x: Tensor) -> Tensor:
    """`[D, R]`: x times it has the identity as its covariance; constant directions are left out."""
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    kept = values > 1e-6 * values.max()
    return vectors[:, kept] / values[kept].sqrt()
