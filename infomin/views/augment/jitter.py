"""Colour jitter and loss of colour, per sample: the operations of torchvision, each clamped to [0, 1]."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from ...common.checks import to_unit
from ...common.seeds import to_device
from ..base import Augmentation, Views, register
from ..dials import read_number
from ..draws import (
    Change,
    Which,
    apply_in_sequence,
    apply_where,
    bernoulli,
    check_range,
    per_sample,
    permutations,
    uniform,
    writable,
)

INF = float("inf")
Adjust: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def luma(images: Tensor) -> Tensor:
    """The grey of colours `[B, 3, H, W]` as `[B, 1, H, W]`, with torchvision's weights (ITU-R BT.601, which add up to 0.9999)."""
    red, green, blue = images.split(1, 1)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = per_sample(factor, images)
    return images.mul(factor).add_((1 - factor) * other).clamp_(0, 1)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Images `[B, 3, H, W]` in [0, 1] times a factor `[B]` of 0 or more: 0 is black, 1 changes nothing."""
    return images.mul(per_sample(factor, images)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Images `[B, 3, H, W]` in [0, 1] away from their mean grey by a factor `[B]`: 0 is that grey, 1 changes nothing."""
    return _blend(images, luma(images).mean((2, 3), keepdim=True), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Images `[B, 3, H, W]` in [0, 1] away from their own grey by a factor `[B]`: 0 is grey, 1 changes nothing."""
    return _blend(images, luma(images), factor)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of images `[B, 3, H, W]` in [0, 1] by `turn` `[B]` in [-0.5, 0.5] of the circle; a grey stays as it is.

    HSV is not needed in full. With red at 0 the hue, counted in sixths, is +-(1 + g + b - r), where r, g, b are the channels
    brought to 0..1 by the least and the greatest of them; so there are no cases to choose between, which would be slow.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> adjust_hue(red, torch.tensor([1 / 3])).flatten()
    tensor([0., 1., 0.])
    """
    red, green, blue = images.unbind(1)
    low = red.minimum(green).minimum(blue)
    chroma = red.maximum(green).maximum(blue).sub_(low)
    # A grey has 0 above; the least divisor also keeps its gradient finite.
    sixths = (chroma + green).add_(blue).sub_(red).sub_(low).div_(chroma.clamp(min=1e-9))
    sixths = sixths.copysign(green - blue) + 6 * per_sample(turn, images, 3)
    sixths = sixths.sub_((sixths / 6).round_(), alpha=6)  # to [-3, 3]
    # A channel is full within one sixth of its own hue, and empty from two sixths on.
    own = to_device(torch.tensor([0.0, 2.0, -2.0], device="cpu"), sixths).view(3, 1, 1)
    full = sixths.unsqueeze(1).sub(own).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
    return torch.addcmul(low.unsqueeze(1), full, chroma.unsqueeze(1))


ADJUST: tuple[Adjust, ...] = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
NEUTRAL = (1, 1, 1, 0)


class JitterDraws(NamedTuple):
    """Factors `[n]`, the turn of the hue `[n]`, the order of the four `[n, 4]` (0 brightness … 3 hue, or 4 for nothing)."""

    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    order: Tensor


@torch.compiler.disable  # as `in_turn` is: it lends memory, which a compiler does not see
def jitter(
    images: Tensor,
    brightness: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    hue: Tensor,
    order: Tensor,
) -> Tensor:
    """Brightness, contrast, saturation and hue, each sample with its own amounts in its own order.

    Args:
        images: `[B, 3, H, W]` floating point in [0, 1].
        brightness: factors `[B]`, 0 or more; 1 is neutral, and of contrast and saturation too.
        contrast: factors `[B]`.
        saturation: factors `[B]`.
        hue: `[B]` in [-0.5, 0.5] of the circle; 0 is neutral.
        order: long `[B, 4]`, permutations of 0 brightness, 1 contrast, 2 saturation, 3 hue; a 4 is nothing.

    Source: equals torchvision.transforms.v2.functional's adjust_brightness, … one after the other.
    """
    amounts = (brightness, contrast, saturation, hue)
    steps: list[Change] = [
        partial(_adjust, adjust, amount)
        if (amount != neutral).any()
        else _nothing  # a dial at 0 costs nothing
        for adjust, amount, neutral in zip(ADJUST, amounts, NEUTRAL, strict=True)
    ]
    steps.append(_nothing)
    # All four at a time move the batch about least, in groups of a few images, which a core keeps in its cache. Several threads
    # would rather have more to do at a call, which is two at a time; and other devices most, which is one.
    together = 1 if images.device.type != "cpu" else 4 if torch.get_num_threads() == 1 else 2
    first, *others = order.split(together, 1)
    images = apply_in_sequence(images, first, steps)
    for some in others:
        with writable(images):
            images = apply_in_sequence(images, some, steps)
    return images


def _adjust(adjust: Adjust, amount: Tensor, images: Tensor, rows: Tensor) -> Tensor:
    return adjust(images, amount[rows])


def _nothing(images: Tensor, rows: Tensor) -> Tensor:
    return images


@register(
    "jitter",
    dial="the strength x, 0.8x for brightness, contrast and saturation, 0.2x for hue (0.5 at most): jitter:1",
)
class Jitter(Augmentation[JitterDraws]):
    """Colour jitter, drawn for each sample; in eval mode images stay as they are.

    Args:
        brightness: b of 0 or more: the factor is uniform in [max(0, 1 - b), 1 + b].
        contrast: likewise.
        saturation: likewise.
        hue: h of 0 to 0.5: the turn is uniform in [-h, h].
        p: the probability with which a sample is jittered at all.

    Raises:
        ValueError: a number out of range.

    Source: as torchvision.transforms.v2.ColorJitter defines it.

    >>> Jitter.of(1)
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
    def of(cls, strength: float, p: float = 1.0) -> "Jitter":
        """The dial of the paper: 0.8 x strength for brightness, contrast and saturation, 0.2 x for hue, which ends at 0.5."""
        most = 0.8 * check_range(strength, 0, 1e6, "Jitter.of(strength)")
        return cls(most, most, most, min(0.2 * strength, 0.5), p)

    @classmethod
    def from_dial(cls, dial: str) -> "Jitter":
        """`jitter:STRENGTH`."""
        return cls.of(read_number(dial))

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> JitterDraws:
        """Factors, a turn and an order for each of n samples."""
        parts = (self.brightness, self.contrast, self.saturation)
        bright, contrast, saturation = (
            uniform((n,), max(0, 1 - part), 1 + part, generator) for part in parts
        )
        turn = uniform((n,), -self.hue, self.hue, generator)
        order = torch.where(bernoulli((n, 1), self.p, generator), permutations(n, 4, generator), 4)
        return JitterDraws(bright, contrast, saturation, turn, order)

    def augment(self, images: Tensor, draws: JitterDraws) -> Views:
        """The view for given draws."""
        return (jitter(to_unit(images), *draws),)

    def extra_repr(self) -> str:
        parts = {
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": self.hue,
            "p": self.p,
        }
        return ", ".join(
            f"{name}={value:.4g}" if name != "p" else f"p={value}" for name, value in parts.items()
        )


def grey(images: Tensor, which: Tensor) -> Tensor:
    """Take the colour from the images `[B, 3, H, W]` that `which`, bool `[B]`, picks: all channels become their luma.

    Source: equals torchvision.transforms.v2.functional.rgb_to_grayscale with three channels.

    >>> grey(torch.ones(1, 3, 1, 1), torch.tensor([True])).flatten()
    tensor([0.9999, 0.9999, 0.9999])
    """
    return apply_where(images, which, lambda some, rows: luma(some).repeat(1, 3, 1, 1))


@register("grey", dial="the probability of losing the colour: grey:0.2")
class Grey(Augmentation[Which]):
    """Each image without its colour with probability p; in eval mode all keep it.

    Args:
        p: 0 to 1.

    Raises:
        ValueError: p out of range.

    >>> (view,) = Grey(1.0)(torch.rand(2, 3, 8, 8))
    >>> torch.equal(view[:, 0], view[:, 2])
    True
    """

    in_channels = 3

    def __init__(self, p: float = 0.2) -> None:
        super().__init__()
        self.p = check_range(p, 0, 1, "Grey(p)")

    @classmethod
    def from_dial(cls, dial: str) -> "Grey":
        """`grey:P`."""
        return cls(read_number(dial))

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> Which:
        """Which of n images lose their colour."""
        return Which(bernoulli((n,), self.p, generator))

    def augment(self, images: Tensor, draws: Which) -> Views:
        """The view for given draws."""
        return (grey(to_unit(images), draws.which),)

    def extra_repr(self) -> str:
        return f"p={self.p}"
