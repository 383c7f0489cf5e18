"""Pairs of known information, to hold estimators against.

Half of the families are Gaussian up to a change of each column, which critics in closed form can
see; the others are not. All can share any number of nats.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.checks import check_choice, check_integer, check_positive
from ..common.seeds import seeded_generator

Draw = Callable[[int, float, torch.Generator], tuple[Tensor, Tensor]]
CLASSES, CODE = 100, 64  # of codes: log 100 = 4.6 nats at most, and their columns
FREEDOM = 5  # degrees of freedom of Student's t


class Family(NamedTuple):
    """Pairs whose information is a dial.

    Attributes:
        draw: number of pairs, nats, generator -> x `[N, D1]`, y `[N, D2]`.
        gaussian: whether columns or their normal scores are jointly Gaussian.
    """

    draw: Draw
    gaussian: bool


def pairs(family: str, n: int, nats: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw pairs that share a given number of nats.

    Args:
        family: a key of `FAMILIES`.
        n: the number of pairs.
        nats: I(x; y), 0 or more; codes share at most log 100, and Student's t 0.051 and more.
        seed: of the pairs; rotations, tables and networks are the same for all seeds.

    Returns:
        x `[N, D1]` and y `[N, D2]`, float32.

    Raises:
        ValueError: an unknown family, a number out of range.

    >>> x, y = pairs("gaussian", 1000, nats=2.0)
    >>> x.shape, y.shape
    (torch.Size([1000, 2]), torch.Size([1000, 2]))
    """
    check_choice(family, FAMILIES, "pairs(family)")
    check_integer(n, 1, 1e9, "pairs(n)")
    check_positive(nats, "pairs(nats)", zero=True)
    x, y = FAMILIES[family].draw(n, nats, seeded_generator(seed, "pairs", family))
    return x.float(), y.float()


def gaussian(
    n: int, nats: float, draws: torch.Generator, *, columns: int = 2, active: int | None = None
) -> tuple[Tensor, Tensor]:
    """Gaussians of `columns` columns; the first `active` of both correlate, one with one.

    I = -active / 2 log(1 - r^2), from Shannon's entropy of a Gaussian.
    """
    active = active or columns
    r = math.sqrt(-math.expm1(-2 * nats / active))
    x, y = torch.randn(2, n, columns, generator=draws, dtype=torch.float64)
    y[:, :active] = r * x[:, :active] + math.sqrt(1 - r**2) * y[:, :active]
    return x, y


def rotated(
    n: int, nats: float, draws: torch.Generator, *, columns: int, active: int | None = None
) -> tuple[Tensor, Tensor]:
    """`gaussian`, each side turned by a rotation of its own: no column has a partner."""
    sides = gaussian(n, nats, draws, columns=columns, active=active)
    turned = [side @ torch.linalg.qr(_fixed(i, columns, columns)).Q for i, side in enumerate(sides)]
    return turned[0], turned[1]


def powered(n: int, nats: float, draws: torch.Generator, *, power: float) -> tuple[Tensor, Tensor]:
    """`gaussian` of 8 columns, each number raised to a power with its sign kept.

    A bijection of each side leaves the information as it is.
    """
    x, y = gaussian(n, nats, draws, columns=8)
    return x.sign() * x.abs() ** power, y.sign() * y.abs() ** power


def student(n: int, nats: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Student's t of 5 degrees of freedom, 2 columns each: they share their scale besides.

    Source: Arellano-Valle, Contreras-Reyes and Genton 2013; the information of the scale alone is
    that of no correlation.
    """

    def f(freedom: float) -> float:
        half = torch.tensor(freedom / 2, dtype=torch.float64)
        return float(torch.lgamma(half) - half * torch.digamma(half))

    of_scale = f(FREEDOM) + f(FREEDOM + 4) - 2 * f(FREEDOM + 2)
    if nats < of_scale:
        raise ValueError(f"pairs: Student's t shares {of_scale:.3f} nats or more, got {nats}")
    x, y = gaussian(n, nats - of_scale, draws)
    squares = torch.randn(n, FREEDOM, generator=draws, dtype=torch.float64).square().sum(1)
    scale = (FREEDOM / squares).sqrt()[:, None]
    return x * scale, y * scale


def codes(
    n: int, nats: float, draws: torch.Generator, *, network: bool = False
) -> tuple[Tensor, Tensor]:
    """Classes through a symmetric channel, each shown by a code of 64 noisy columns.

    Codes lie so far apart that the noise hides no class: I is that of the channel, see
    `channel_error`. With `network`, the codes go through a random network, one for each side.
    """
    error = channel_error(nats, CLASSES)
    first = torch.randint(CLASSES, (n,), generator=draws)
    shift = torch.randint(1, CLASSES, (n,), generator=draws)
    wrong = torch.rand(n, generator=draws, dtype=torch.float64) < error
    views = []
    for i, label in enumerate((first, torch.where(wrong, (first + shift) % CLASSES, first))):
        noise = torch.randn(n, CODE, generator=draws, dtype=torch.float64)
        view = _fixed(i, CLASSES, CODE)[label] + 0.3 * noise
        if network:
            view = torch.tanh(view @ _fixed(10 + i, CODE, CODE) / math.sqrt(CODE))
            view = view @ _fixed(20 + i, CODE, CODE) / math.sqrt(CODE)
        views.append(view)
    return views[0], views[1]


def channel_error(nats: float, classes: int) -> float:
    """The error of a symmetric channel that passes so many nats of equally frequent classes.

    I = log c + (1 - e) log(1 - e) + e log(e / (c - 1)), by bisection.

    >>> round(channel_error(0.0, 10), 3), channel_error(math.log(10), 10)
    (0.9, 0.0)
    """
    if nats >= math.log(classes):
        if nats > math.log(classes) + 1e-9:
            raise ValueError(f"pairs: {classes} classes share {math.log(classes):.3f} nats at most")
        return 0.0

    def passed(e: float) -> float:
        kept = (1 - e) * math.log(1 - e) if e < 1 else 0.0
        return math.log(classes) + kept + (e * math.log(e / (classes - 1)) if e else 0.0)

    return _bisect(lambda e: -passed(e), -nats, 0.0, 1 - 1 / classes)


def signed(n: int, nats: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """x is 4 Gaussian columns and a random sign, y correlates with their product: no column does.

    The product is as Gaussian as x and independent of the sign, so I is that of `gaussian`.
    """
    x, y = gaussian(n, nats, draws, columns=4)
    sign = 2.0 * torch.randint(2, (n, 1), generator=draws) - 1
    return torch.cat([x * sign, sign], 1), y


def mixture(n: int, nats: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Numbers whose correlation is r or -r, by a coin that no one sees.

    I is the mean of log(p(y|x) / p(y)), integrated on a grid, and r is found by bisection.
    """
    noise = _noise(_mixture_nats, nats)
    x, y = torch.randn(2, n, 1, generator=draws, dtype=torch.float64)
    sign = 2.0 * torch.randint(2, (n, 1), generator=draws) - 1
    return x, sign * math.sqrt(max(0.0, 1 - noise**2)) * x + noise * y


def _mixture_nats(noise: float) -> float:
    """Of y = +-r x + noise e, with r^2 + noise^2 = 1: on a grid of x and e."""
    t = torch.linspace(-7, 7, 401, dtype=torch.float64)
    weight = torch.exp(-t.square() / 2)
    weight = weight / weight.sum()
    noise = min(noise, 1.0)
    r = math.sqrt(1 - noise**2)
    x, e = t[:, None], t
    y = r * x + noise * e
    own, other = -e.square() / 2, -((y + r * x) / noise).square() / 2
    given_x = torch.logaddexp(own.expand_as(other), other) - math.log(2 * noise)
    return float((weight[:, None] * weight * (given_x + y.square() / 2)).sum())


def square(n: int, nats: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """y is the square of x, standardised, and noise, in each of 2 columns: no correlation.

    I = 2 (h(y) - h(noise)), with the density of y by the trapezoid rule; the noise by bisection.
    """
    noise = _noise(_square_nats, nats / 2)
    x, e = torch.randn(2, n, 2, generator=draws, dtype=torch.float64)
    return x, (x.square() - 1) / math.sqrt(2) + noise * e


def _square_nats(noise: float) -> float:
    x = torch.linspace(-7.5, 7.5, 1201, dtype=torch.float64)
    weight = torch.exp(-x.square() / 2)
    weight = weight / weight.sum()
    means = (x.square() - 1) / math.sqrt(2)
    y = torch.linspace(-0.75 - 8 * noise, 39 + 8 * noise, 1501, dtype=torch.float64)
    density = torch.zeros_like(y)
    for part, share in zip(means.split(300), weight.split(300), strict=True):
        distance = (y - part[:, None]) / noise
        density += share @ torch.exp(-distance.square() / 2) / (noise * math.sqrt(2 * math.pi))
    entropy = -torch.trapezoid(torch.special.xlogy(density, density), y)
    return float(entropy) - math.log(noise * math.sqrt(2 * math.pi * math.e))


def spiral(n: int, nats: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """`gaussian` of 3 columns, whose first two are turned by 2 radians per unit of length.

    A bijection of each side, so I stays. Source: Czyz et al. 2023.
    """
    views = []
    for side in gaussian(n, nats, draws, columns=3):
        angle = 2 * side.norm(dim=1)
        a, b = side[:, 0], side[:, 1]
        cos, sin = angle.cos(), angle.sin()
        views.append(torch.stack([cos * a - sin * b, sin * a + cos * b, side[:, 2]], 1))
    return views[0], views[1]


FAMILIES: dict[str, Family] = {
    "gaussian": Family(gaussian, True),
    "dense": Family(lambda n, nats, draws: rotated(n, nats, draws, columns=32), True),
    "sparse": Family(lambda n, nats, draws: rotated(n, nats, draws, columns=128, active=4), True),
    "cubed": Family(lambda n, nats, draws: powered(n, nats, draws, power=3), True),
    "half-cubed": Family(lambda n, nats, draws: powered(n, nats, draws, power=1.5), True),
    "student": Family(student, False),
    "codes": Family(codes, False),
    "network": Family(lambda n, nats, draws: codes(n, nats, draws, network=True), False),
    "signed": Family(signed, False),
    "mixture": Family(mixture, False),
    "square": Family(square, False),
    "spiral": Family(spiral, False),
}


@cache
def _noise(of_noise: Callable[[float], float], nats: float) -> float:
    """The noise, below 1 or not, with which so many nats are left."""
    return math.exp(_bisect(lambda log: -of_noise(math.exp(log)), -nats, -9.0, 4.0))


def _bisect(rising: Callable[[float], float], target: float, low: float, high: float) -> float:
    for _ in range(36):  # to 1e-9 of the interval
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def _fixed(index: int, *shape: int) -> Tensor:
    """The same Gaussian matrix for all seeds."""
    generator = seeded_generator(index, "calibration")
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
