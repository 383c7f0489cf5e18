"""Regressions of the probes: logistic for classes, ridge for positions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.precision import no_autocast


@torch.inference_mode(False)
@torch.enable_grad()
def fit_logistic(
    x: Tensor, y: Tensor, penalty: float, start: Tensor, iterations: int = 500
) -> Tensor:
    """Minimise mean cross-entropy + penalty / 2 * |weights|^2 by L-BFGS.

    Args:
        x: features `[N, D]`.
        y: classes, long `[N]`.
        penalty: factor on the squared weights, biases excluded.
        start: initial weights `[classes, D + 1]`, bias last.
        iterations: the maximum number of L-BFGS iterations; loose penalties and correlated columns
            take a few hundred.

    Returns:
        weights `[classes, D + 1]`, bias last.
    """
    weights = start.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [weights],
        max_iter=iterations,
        max_eval=2 * iterations,
        history_size=10,
        tolerance_grad=1e-6,
        tolerance_change=1e-7,  # of the loss, in nats
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(_scores(weights, x), y)
        loss = loss + penalty / 2 * weights[:, :-1].square().sum()
        loss.backward()
        return loss

    with no_autocast(x.device.type):
        solver.step(closure)
    return weights.detach()


def predict(weights: Tensor, x: Tensor) -> Tensor:
    """The class, long `[N]`, that each row of `x` `[N, D]` is assigned to by `fit_logistic`."""
    with no_autocast(x.device.type):
        return _scores(weights, x).argmax(1)


def _scores(weights: Tensor, x: Tensor) -> Tensor:
    """Scores `[N, classes]` of `x` `[N, D]`.

    As weights @ x.T: on a CPU its gradient takes a quarter of the time that x @ weights.T takes.
    """
    return torch.addmm(weights[:, -1:], weights[:, :-1], x.T).T


def ridge_distance(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, penalty: float) -> float:
    """Mean distance between test targets and the predictions of a ridge regression.

    Args:
        x: training features `[N, D]`.
        y: training targets `[N, P]`.
        x_test: test features `[M, D]`.
        y_test: test targets `[M, P]`.
        penalty: factor on the squared weights, in units of the features' variance.

    Returns:
        the mean Euclidean distance, in the unit of the targets.
    """
    x, x_test = x.double(), x_test.double()
    y, y_test = y.double(), y_test.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x = x - x_mean
    covariance = x.T @ x / len(x)
    covariance.diagonal().add_(penalty)
    weights = torch.linalg.solve(covariance, x.T @ (y - y_mean) / len(x))
    predicted = torch.addmm(y_mean, x_test - x_mean, weights)
    return (predicted - y_test).norm(dim=1).mean().item()


def standardise(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Shift and scale columns, all `[N, D]`, to mean 0 and standard deviation 1 on `train`.

    Each column for itself, in float64. One that varies by no more than its own rounding error
    becomes 0, as a constant one does. Values beyond 1e15 deviations are clipped.
    """
    mean = train.mean(0, dtype=torch.float64)
    centred = train - mean
    # in units of a power of two, which rounds nothing: the square of 1e200 would be infinite
    unit = centred.abs().amax(0).clamp_(min=1e-300).log2_().floor_().exp2_()
    deviation = centred.div_(unit).square_().mean(0).sqrt_() * unit
    # of the values, and of their mean
    precision = torch.finfo(train.dtype).eps + len(train) * torch.finfo(torch.float64).eps
    scale = torch.where(deviation > precision * mean.abs(), 1 / deviation, 0)
    # a value of 1e15 deviations is far enough, and its square is finite in float32
    return tuple(
        (x - mean).mul_(scale).clamp_(-1e15, 1e15).to(train.dtype) for x in (train, *others)
    )
