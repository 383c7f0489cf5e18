"""Critics: two embeddings to a score matrix `[B, K]`, row i's true partner in column i."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.checks import check_positive, check_type
from ..common.precision import no_autocast


def cosine_scores(z1: Tensor, z2: Tensor, tau: float) -> Tensor:
    """Cosine similarity divided by a temperature.

    Computed without autocast and in float32 or more, because 1 / tau magnifies rounding errors.
    Float32 products are rounded as the caller's `torch.set_float32_matmul_precision` says.

    Args:
        z1: `[B, D]`, floating point, any scale.
        z2: `[K, D]`, the candidates.
        tau: temperature, above 0.

    Returns:
        Scores `[B, K]`, each in [-1 / tau, 1 / tau].

    Raises:
        TypeError: embeddings that are not floating-point tensors.
        ValueError: shapes that do not match, or a tau that is not above 0.

    Source: CMC; the critic of InfoMin's experiments.

    >>> z = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    >>> cosine_scores(z, z, tau=0.5).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    check_positive(tau, "cosine(tau)")
    _check_floats("cosine: embeddings", z1, z2)
    if z1.dim() != 2 or z2.dim() != 2 or z1.shape[1] != z2.shape[1] or 0 in (*z1.shape, *z2.shape):
        raise ValueError(
            "cosine: embeddings must be [B, D] and [K, D], "
            f"got {list(z1.shape)} and {list(z2.shape)}; flatten them or project both to one size"
        )
    dtype = torch.promote_types(torch.promote_types(z1.dtype, z2.dtype), torch.float32)
    with no_autocast(z1.device.type):
        return unit_rows(z1.to(dtype)) @ unit_rows(z2.to(dtype)).T / tau


def unit_rows(z: Tensor) -> Tensor:
    """Rows `[N, D]` scaled to length 1, however long they are; rows of zeros stay."""
    largest = z.detach().abs().amax(1, keepdim=True)
    # of a power of two, which rounds nothing: the square of 1e20 would be infinite in float32
    unit = largest.clamp_(min=torch.finfo(z.dtype).tiny).log2_().floor_().exp2_()
    return F.normalize(z / unit, dim=1)


def _check_floats(what: str, *tensors: object) -> None:
    for x in tensors:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{what} must be floating-point tensors, got {got}; use x.float()")


class SeparableCritic(nn.Module):
    """Separable critic: the cosine of two networks, times a learned scale.

    `measure.nats` trains it beside critics in closed form, stops early on held-out pairs, and
    weighs all of them; `experiments/calibration.py` shows how close that gets.

    Args:
        d1: size of the first features, `x`.
        d2: size of the second features, `y`.
        dim: size of the common embedding.
        hidden: width of the two hidden layers.

    Raises:
        ValueError: a size that is not a whole number above 0.

    >>> critic = SeparableCritic(128, 512)
    >>> critic(torch.zeros(2, 128), torch.zeros(5, 512)).shape
    torch.Size([2, 5])
    """

    def __init__(self, d1: int, d2: int, dim: int = 64, hidden: int = 128) -> None:
        super().__init__()
        for name, size in (("d1", d1), ("d2", d2), ("dim", dim), ("hidden", hidden)):
            check_type(size, int, f"SeparableCritic({name})")
            check_positive(size, f"SeparableCritic({name})")
        self.d1, self.d2 = d1, d2
        self.g, self.h = _mlp(d1, hidden, dim), _mlp(d2, hidden, dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Scores `[B, K]` of features `x [B, d1]` against candidates `y [K, d2]`.

        Raises:
            TypeError, ValueError: features of another type or shape.
        """
        first, second = self.embed(x, y)
        return first @ second.T

    def embed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings `[B, dim]` and `[K, dim]` whose inner products are the scores."""
        _check_floats("SeparableCritic: features", x, y)
        if [list(z.shape[1:]) for z in (x, y) if z.numel()] != [[self.d1], [self.d2]]:
            raise ValueError(
                f"SeparableCritic: features must be [B, {self.d1}] and [K, {self.d2}], "
                f"got {list(x.shape)} and {list(y.shape)}; build the critic for these sizes"
            )
        first = F.normalize(self.g(x), dim=1) * self.log_scale.exp()
        return first, F.normalize(self.h(y), dim=1)


def _mlp(d: int, hidden: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(d, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, dim),
    )
