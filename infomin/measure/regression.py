"""The regressions of the probes: logistic for classes, ridge for places. Products are not rounded, whatever surrounds them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.precision import full_precision


@torch.enable_grad()
def fit_logistic(
    x: Tensor, y: Tensor, penalty: float, start: Tensor, iterations: int = 30
) -> Tensor:
    """Weights `[classes, D + 1]`, bias last, that minimise mean cross entropy + penalty / 2 * |weights|^2, from `start`."""
    weights = start.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [weights],
        max_iter=iterations,
        history_size=10,
        tolerance_grad=1e-5,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = (
            F.cross_entropy(_scores(weights, x), y) + penalty / 2 * weights[:, :-1].square().sum()
        )
        loss.backward()
        return loss

    with full_precision(x.device.type):
        solver.step(closure)
    return weights.detach()


def accuracy(weights: Tensor, x: Tensor, y: Tensor) -> float:
    """Share of the rows of `x` `[N, D]` that these weights put into their classes `y`, long `[N]`."""
    with full_precision(x.device.type):
        return (_scores(weights, x).argmax(1) == y).double().mean().item()


def _scores(weights: Tensor, x: Tensor) -> Tensor:
    """Scores `[N, classes]` of `x` `[N, D]`; weights before images, for a CPU takes a quarter of the time for that gradient."""
    return torch.addmm(weights[:, -1:], weights[:, :-1], x.T).T


def ridge_distance(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, penalty: float) -> float:
    """Mean distance between `y_test` `[M, P]` and what ridge regression of `y` `[N, P]` on `x` `[N, D]` reads off `x_test`."""
    x, y, x_test, y_test = (values.double() for values in (x, y, x_test, y_test))
    middle, mean = x.mean(0), y.mean(0)
    x = x - middle
    gram = x.T @ x / len(x)
    gram.diagonal().add_(penalty)
    weights = torch.linalg.solve(gram, x.T @ (y - mean) / len(x))
    return (torch.addmm(mean, x_test - middle, weights) - y_test).norm(dim=1).mean().item()


import torch
from torch import Tensor


def standardise(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Shift and scale columns, all `[N, D]`, so that those of `train` have mean 0 and deviation 1.

    Those that hardly vary, less than a ten-thousandth as much as columns do on average, become 0: of what is constant, rounding
    would be made large.
    """
    mean, deviation = train.mean(0), train.std(0)
    scale = torch.where(deviation > 1e-4 * deviation.mean(), 1 / deviation, 0)
    return tuple((x - mean) * scale for x in (train, *others))
