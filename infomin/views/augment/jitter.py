"""Colour jitter per image: torchvision's operations, clamped to [0, 1]."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from ...common.checks import INF, check_range, to_unit
from ...common.seeds import to_device
from ..base import Augmentation, Views, register
from ..dials import read_number
from ..draws import (
    Change,
    apply_in_sequence,
    bernoulli,
    per_sample,
    permutations,
    uniform,
)

Adjust: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def luma(images: Tensor) -> Tensor:
    """The luma `[B, 1, H, W]` of RGB images `[B, 3, H, W]`.

    The weights are those of torchvision (ITU-R BT.601), which add up to 0.9999.
    """
    red, green, blue = images.split(1, 1)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = per_sample(factor, images)
    return images.mul(factor).add_((1 - factor) * other).clamp_(0, 1)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply images by a brightness factor.

    Args:
        images: `[B, 3, H, W]` in [0, 1].
        factor: `[B]`, 0 or more: 0 is black, 1 changes nothing.
    """
    return images.mul(per_sample(factor, images)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the difference between images and their mean luma.

    Args:
        images: `[B, 3, H, W]` in [0, 1].
        factor: `[B]`, 0 or more: 0 is uniform grey, 1 changes nothing.
    """
    return _blend(images, luma(images).mean((2, 3), keepdim=True), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the difference between images and their luma.

    Args:
        images: `[B, 3, H, W]` in [0, 1].
        factor: `[B]`, 0 or more: 0 is a grey image, 1 changes nothing.
    """
    return _blend(images, luma(images), factor)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Rotate the hue of images; greys stay unchanged.

    A full conversion to HSV is not needed. With red at 0, the hue in sixths of the circle is
    +-(1 + g + b - r), where the channels r, g, b are scaled so that their minimum is 0 and their
    maximum is 1. This needs no case distinction, which would be slow.

    Args:
        images: `[B, 3, H, W]` in [0, 1].
        turn: `[B]` in [-0.5, 0.5] of the circle.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> adjust_hue(red, torch.tensor([1 / 3])).flatten()
    tensor([0., 1., 0.])
    """
    red, green, blue = images.unbind(1)
    low = red.minimum(green).minimum(blue)
    chroma = red.maximum(green).maximum(blue).sub_(low)
    # The numerator is 0 for a grey; the minimum divisor also keeps its gradient finite.
    sixths = (chroma + green).add_(blue).sub_(red).sub_(low).div_(chroma.clamp(min=1e-9))
    sixths = sixths.copysign(green - blue) + 6 * per_sample(turn, images, 3)
    sixths = sixths.sub_((sixths / 6).round_(), alpha=6)  # to [-3, 3]
    # A channel is full up to one sixth from its own hue, and empty from two sixths on.
    channel_hue = torch.tensor([0.0, 2.0, -2.0], device="cpu")
    channel_hue = to_device(channel_hue, sixths).view(3, 1, 1)
    level = sixths.unsqueeze(1).sub(channel_hue).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
    return torch.addcmul(low.unsqueeze(1), level, chroma.unsqueeze(1))


ADJUST: tuple[Adjust, ...] = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
NEUTRAL = (1, 1, 1, 0)


class JitterDraws(NamedTuple):
    """The draws of `Jitter`.

    Three factors `[n]`, the rotation of the hue `[n]` as a share of the circle, and the order of
    the four operations `[n, 4]`: 0 brightness, 1 contrast, 2 saturation, 3 hue, 4 none.
    """

    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    order: Tensor


@torch.compiler.disable  # what it does depends on its draws
def jitter(
    images: Tensor,
    brightness: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    hue: Tensor,
    order: Tensor,
    *,
    inplace: bool = False,
) -> Tensor:
    """Adjust brightness, contrast, saturation and hue of each image by its own amounts and order.

    Args:
        images: `[B, 3, H, W]` floating point in [0, 1].
        brightness: factors `[B]`, 0 or more; 1 is neutral, also for contrast and saturation.
        contrast: factors `[B]`.
        saturation: factors `[B]`.
        hue: `[B]` in [-0.5, 0.5] of the circle; 0 is neutral.
        order: long `[B, 4]`, permutations of 0 brightness, 1 contrast, 2 saturation, 3 hue; a 4
            does nothing.
        inplace: whether to overwrite the images.

    Source: equals torchvision.transforms.v2.functional's adjust_* functions in that order.
    """
    amounts = (brightness, contrast, saturation, hue)
    operations: list[Change] = []
    for adjust, amount, neutral in zip(ADJUST, amounts, NEUTRAL, strict=True):
        changes = bool((amount != neutral).any())
        operations.append(partial(_adjust_rows, adjust, amount) if changes else _identity)
    operations.append(_identity)
    # More operations per pass read and write the batch less often, but leave fewer images in each
    # group: one core prefers small groups, which fit in its cache; threads and GPUs prefer large.
    if images.device.type != "cpu":
        per_pass = 1
    else:
        per_pass = 4 if torch.get_num_threads() == 1 else 2
    for k, choices in enumerate(order.split(per_pass, 1)):
        images = apply_in_sequence(images, choices, operations, inplace=inplace or k > 0)
    return images


def _adjust_rows(adjust: Adjust, amount: Tensor, images: Tensor, rows: Tensor) -> Tensor:
    return adjust(images, amount[rows])


def _identity(images: Tensor, rows: Tensor) -> Tensor:
    return images


@register(
    "jitter",
    dial="the strength x: 0.8x for brightness, contrast and saturation, 0.2x for hue "
    "(0.5 at most): jitter:1",
)
class Jitter(Augmentation[JitterDraws]):
    """Colour jitter, drawn per image; in eval mode images stay unchanged.

    Args:
        brightness: b, 0 or more: the factor is uniform in [max(0, 1 - b), 1 + b].
        contrast: likewise.
        saturation: likewise.
        hue: h, 0 to 0.5: the rotation is uniform in [-h, h] of the circle.
        p: the probability that an image is jittered at all.

    Raises:
        ValueError: a number out of range.

    Source: torchvision.transforms.v2.ColorJitter.

    >>> Jitter.from_strength(1)
    Jitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, p=1.0)
    """

    in_channels = 3

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        p: float = 1.0,
    ) -> None:
        super().__init__()
        self.brightness = check_range(brightness, 0, INF, "Jitter(brightness)")
        self.contrast = check_range(contrast, 0, INF, "Jitter(contrast)")
        self.saturation = check_range(saturation, 0, INF, "Jitter(saturation)")
        self.hue = check_range(hue, 0, 0.5, "Jitter(hue)")
        self.p = check_range(p, 0, 1, "Jitter(p)")

    @classmethod
    def from_strength(cls, strength: float, p: float = 1.0) -> "Jitter":
        """Colour jitter of one strength, as in InfoMin and SimCLR.

        Args:
            strength: x, 0 or more: 0.8 x for brightness, contrast and saturation; 0.2 x for hue,
                0.5 at most.
            p: the probability that an image is jittered at all.
        """
        amount = 0.8 * check_range(strength, 0, 1e6, "Jitter.from_strength(strength)")
        return cls(amount, amount, amount, min(0.2 * strength, 0.5), p)

    @classmethod
    def from_dial(cls, dial: str) -> "Jitter":
        """`jitter:STRENGTH`."""
        return cls.from_strength(read_number(dial))

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> JitterDraws:
        """Draw factors, a hue rotation and an order for each of n images."""
        brightness = _draw_factors(n, self.brightness, generator)
        contrast = _draw_factors(n, self.contrast, generator)
        saturation = _draw_factors(n, self.saturation, generator)
        hue = uniform((n,), -self.hue, self.hue, generator)
        jittered = bernoulli((n, 1), self.p, generator)
        order = torch.where(jittered, permutations(n, 4, generator), 4)
        return JitterDraws(brightness, contrast, saturation, hue, order)

    def augment(self, images: Tensor, draws: JitterDraws, *, inplace: bool = False) -> Views:
        """Make the view from given draws."""
        return (jitter(to_unit(images), *draws, inplace=inplace),)

    def extra_repr(self) -> str:
        amounts = {
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": self.hue,
        }
        rounded = [f"{name}={amount:.4g}" for name, amount in amounts.items()]
        return ", ".join([*rounded, f"p={self.p}"])


def _draw_factors(n: int, amount: float, generator: torch.Generator | None) -> Tensor:
    """Uniform factors `[n]` in [max(0, 1 - amount), 1 + amount]."""
    return uniform((n,), max(0, 1 - amount), 1 + amount, generator)
