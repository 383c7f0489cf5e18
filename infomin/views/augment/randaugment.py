"""RandAugment of whole batches, with operations and magnitudes per image.

Each round runs an operation once, on the images that drew it. All operations that move pixels share
one warp. Magnitudes are continuous; PIL would round them.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from ...common.checks import INF, check_integer, check_range, to_unit
from ..base import Augmentation, Views, register
from ..dials import read_number
from ..draws import apply_in_sequence, bernoulli, normal, randint_below
from .jitter import adjust_brightness, adjust_contrast, adjust_saturation
from .tone import (
    adjust_sharpness,
    autocontrast,
    equalize,
    invert,
    posterize,
    solarize,
    solarize_add,
)
from .warp import rotation, shear, translation, warp

MOST = 10.0  # the maximum magnitude
Tone: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # images, m in 0..1 -> images
Move: TypeAlias = Callable[[Tensor, int, int], Tensor]  # m in -1..1, height, width -> matrices


def _enhance(adjust: Tone, images: Tensor, m: Tensor) -> Tensor:
    return adjust(images, 0.1 + 1.8 * m)


TONES: dict[str, Tone] = {
    "Identity": lambda x, m: x,
    "AutoContrast": lambda x, m: autocontrast(x),
    "Equalize": lambda x, m: equalize(x),
    "Invert": lambda x, m: invert(x),
    "Posterize": lambda x, m: posterize(x, (4 * m).floor()),
    "Solarize": lambda x, m: solarize(x, m * 256 / 255),
    "SolarizeAdd": lambda x, m: solarize_add(x, m * 110 / 255),
    "Color": partial(_enhance, adjust_saturation),
    "Contrast": partial(_enhance, adjust_contrast),
    "Brightness": partial(_enhance, adjust_brightness),
    "Sharpness": partial(_enhance, adjust_sharpness),
}
MOVES: dict[str, Move] = {
    "Rotate": lambda m, height, width: rotation(30 * m),
    "ShearX": lambda m, height, width: shear(0.3 * m, 0 * m, height, width),
    "ShearY": lambda m, height, width: shear(0 * m, 0.3 * m, height, width),
    "TranslateX": lambda m, height, width: translation(0.45 * width * m, 0 * m),
    "TranslateY": lambda m, height, width: translation(0 * m, 0.45 * height * m),
}
OPERATIONS = (*TONES, *MOVES)  # the number of an operation is its index here
COLOR = tuple(name for name in OPERATIONS if name != "Identity")
NO_COLOR = (
    "AutoContrast",
    "Identity",
    "Rotate",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)


class RandDraws(NamedTuple):
    """The draws of `RandAugment`, `[n, rounds]` each.

    The number of the operation, its magnitude in 0..10, and its sign, -1 or 1.
    """

    operation: Tensor
    magnitude: Tensor
    sign: Tensor


def randaugment(
    images: Tensor, operation: Tensor, magnitude: Tensor, sign: Tensor, *, inplace: bool = False
) -> Tensor:
    """Apply to each image its own operations, one per round.

    Args:
        images: `[B, 3, H, W]` floating point in [0, 1].
        operation: long `[B, rounds]`, indices into OPERATIONS; 0 does nothing.
        magnitude: `[B, rounds]` in 0..10.
        sign: `[B, rounds]`, -1 or 1: the direction of operations that move pixels.
        inplace: whether to overwrite the images.

    >>> operation, one = torch.tensor([[OPERATIONS.index("Invert")]]), torch.tensor([[1.0]])
    >>> randaugment(torch.ones(1, 3, 1, 1), operation, one, one).flatten()
    tensor([0., 0., 0.])
    """
    m = magnitude / MOST
    for k in range(operation.shape[1]):  # one round at a time: each has its own magnitudes
        operations = [partial(_apply_tone, tone, m[:, k]) for tone in TONES.values()]
        operations.append(partial(_apply_move, operation[:, k], m[:, k] * sign[:, k]))
        choices = operation[:, k : k + 1].clamp(max=len(TONES))
        images = apply_in_sequence(images, choices, operations, inplace=inplace or k > 0)
    return images


def _apply_tone(tone: Tone, m: Tensor, images: Tensor, rows: Tensor) -> Tensor:
    return tone(images, m[rows])


def _apply_move(operation: Tensor, m: Tensor, images: Tensor, rows: Tensor) -> Tensor:
    height, width = images.shape[2:]
    matrices = torch.stack([move(m[rows], height, width) for move in MOVES.values()])
    move_index = operation[rows] - len(TONES)
    sample = torch.arange(len(rows), device="cpu")
    return warp(images, matrices[move_index, sample])


@register("randaugment", dial="the mean magnitude of two operations, 0 to 10: randaugment:10")
class RandAugment(Augmentation[RandDraws]):
    """RandAugment with Gaussian magnitudes; in eval mode images stay unchanged.

    With m as a share of 10, the operations are

    * AutoContrast, Equalize, Invert, which have no magnitude;
    * Posterize to floor(4 m) bits, Solarize from level 256 m, SolarizeAdd of 110 m levels to those
      below 128;
    * Color, Contrast, Brightness, Sharpness by the factor 0.1 + 1.8 m;
    * Rotate by +-30 m degrees, ShearX and ShearY by +-0.3 m, TranslateX and TranslateY by +-0.45 m
      of the side; pixels from outside the image are mid-grey.

    As in the original, a larger m is not always a stronger change.

    Args:
        n: rounds; each draws one operation uniformly.
        m: the mean magnitude, 0 to 10.
        std: the standard deviation of the magnitude, 0 or more; magnitudes are clipped to 0..10.
        p: the probability that a drawn operation is applied.
        color: False leaves out operations on colours, as in CMC v2: it keeps AutoContrast,
            Identity, Rotate, Sharpness, the shears and the translations.

    Raises:
        ValueError: a number out of range.

    Source: InfoMin Aug (rand-m10-n2-mstd0.5); RandAugment is arXiv 1909.13719, the operations are
    those of timm.

    >>> (view,) = RandAugment()(torch.rand(4, 3, 16, 16))
    >>> view.shape
    torch.Size([4, 3, 16, 16])
    """

    in_channels = 3

    def __init__(
        self, n: int = 2, m: float = 10, std: float = 0.5, p: float = 0.5, color: bool = True
    ) -> None:
        super().__init__()
        self.n = check_integer(n, 0, 100, "RandAugment(n)")
        self.m = check_range(m, 0, MOST, "RandAugment(m)")
        self.std = check_range(std, 0, INF, "RandAugment(std)")
        self.p = check_range(p, 0, 1, "RandAugment(p)")
        self.color = color
        self.names = COLOR if color else NO_COLOR

    @classmethod
    def from_dial(cls, dial: str) -> "RandAugment":
        """`randaugment:MAGNITUDE`."""
        return cls(m=read_number(dial))

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> RandDraws:
        """Draw operations, magnitudes and signs for n images; an operation not applied is 0."""
        size = (n, self.n)
        numbers = torch.tensor([OPERATIONS.index(name) for name in self.names], device="cpu")
        drawn = numbers[randint_below(size, len(numbers), generator)]
        operation = drawn * bernoulli(size, self.p, generator)
        magnitude = normal(size, self.m, self.std, generator).clamp(0, MOST)
        sign = 2.0 * bernoulli(size, 0.5, generator) - 1
        return RandDraws(operation, magnitude, sign)

    def augment(self, images: Tensor, draws: RandDraws, *, inplace: bool = False) -> Views:
        """Make the view from given draws."""
        return (randaugment(to_unit(images), *draws, inplace=inplace),)

    def extra_repr(self) -> str:
        return f"n={self.n}, m={self.m}, std={self.std}, p={self.p}, color={self.color}"
