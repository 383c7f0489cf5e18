"""Random resized crops and flips of whole batches, each sample with a box of its own.

A crop scaled to its size is two products with banded matrices, rows @ image @ columns^T, which hold the antialiased triangle
filter. (grid_sample would take three quarters of the time and has no such filter.)
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...common.checks import to_unit
from ...common.seeds import to_device
from ..base import Augmentation, Views, register
from ..dials import NUMBER, match_dial, read_number
from ..draws import (
    Which,
    apply_where,
    bernoulli,
    check_integer,
    check_interval,
    check_range,
    chunk_size,
    randint_below,
    uniform,
)

TRIES = 10


class Box(NamedTuple):
    """Boxes in whole pixels, each long `[n]`."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def boxes(
    n: int,
    height: int,
    width: int,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    generator: torch.Generator | None = None,
) -> Box:
    """Draw n boxes as torchvision's RandomResizedCrop does: ten tries, then the greatest central box that has the ratio.

    Args:
        n: how many.
        height: of the image, px.
        width: of the image, px.
        area: the least and greatest share of the image, uniform.
        ratio: the least and greatest width over height, uniform in the logarithm.
        generator: on the CPU; None is torch's global one.

    >>> box = boxes(3, 8, 8, area=(1, 1), ratio=(1, 1))
    >>> box.top.tolist(), box.width.tolist()
    ([0, 0, 0], [8, 8, 8])
    """
    pixels = uniform((n, TRIES), *area, generator) * (height * width)
    ratios = uniform((n, TRIES), math.log(ratio[0]), math.log(ratio[1]), generator).exp()
    w, h = (pixels * ratios).sqrt().round().long(), (pixels / ratios).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.long().argmax(1, keepdim=True)  # the first of the tries that fit
    w, h, fits = (x.gather(1, first)[:, 0] for x in (w, h, fits))
    top, left = (
        randint_below((n,), (height - h + 1).clamp(min=1), generator),
        randint_below((n,), (width - w + 1).clamp(min=1), generator),
    )
    h_all, w_all = _central(height, width, ratio)
    drawn, central = (top, left, h, w), ((height - h_all) // 2, (width - w_all) // 2, h_all, w_all)
    return Box(*[torch.where(fits, x, whole) for x, whole in zip(drawn, central, strict=True)])


def _central(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the box to fall back to."""
    if width < ratio[0] * height:
        return max(1, min(height, round(width / ratio[0]))), width
    return height, max(1, min(width, round(height * ratio[1])))


def crop(images: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Cut a box out of each image and scale it: bilinear, antialiased, no pixel outside the box is read.

    Args:
        images: `[B, C, H, W]`, uint8 or floating point.
        box: one for each image, inside it.
        size: height and width of the result in px.

    Source: equals torchvision.transforms.v2.functional.resized_crop.

    >>> crop(torch.ones(1, 1, 4, 4), Box(*torch.tensor([[1], [0], [2], [3]])), (5, 6)).shape
    torch.Size([1, 1, 5, 6])
    """
    if images.shape[0] > (most := chunk_size(images)):
        result = to_unit(images[:1]).new_empty(*images.shape[:2], *size)
        for start in range(0, len(images), most):
            part = slice(start, start + most)
            result[part] = crop(images[part], Box(*[field[part] for field in box]), size)
        return result
    images = to_unit(images)
    n, channels, height, width = images.shape
    top, left, tall, broad = (to_device(field, images) for field in box)
    columns, rows = _weights(left, broad, width, size[1]), _weights(top, tall, height, size[0])
    wide = (images.reshape(n, channels * height, width) @ columns.mT).view(
        n, channels, height, size[1]
    )
    return torch.stack(
        [rows @ plane for plane in wide.unbind(1)], 1
    )  # a broadcast product would copy `rows` for each channel


def _weights(start: Tensor, length: Tensor, full: int, size: int) -> Tensor:
    """The linear map `[n, size, full]` from the pixels of a line to those of its scaled part."""
    pixel = torch.arange(full, dtype=start.dtype, device=start.device) - start[:, None] + 0.5
    outside = (pixel < 0) | (pixel > length[:, None])
    scale = length[:, None] / size
    centre = (torch.arange(size, dtype=start.dtype, device=start.device) + 0.5) * scale
    reach = scale.clamp(
        min=1
    )  # in source pixels: the filter is as wide as a target pixel, or a source pixel if that is wider
    pixel = (pixel / reach).masked_fill_(outside, torch.inf)
    distance = pixel[:, None, :].sub((centre / reach)[:, :, None]).abs_()
    negative = distance.sub_(1).clamp_(
        max=0
    )  # the weights with the other sign, which their sum has too
    return negative.div_(negative.sum(2, keepdim=True))


@register(
    "crop",
    dial="the least share of the image, or the least and the greatest: crop:0.2, crop:0.2-0.9",
)
class Crop(Augmentation[Box]):
    """A random part of each image, scaled to one size; in eval mode the whole image, scaled if a size is given.

    Args:
        area: the least and greatest share of the image, above 0 and at most 1.
        ratio: the least and greatest width over height, above 0.
        size: side of the square result in px; None keeps the size of the images.

    Raises:
        ValueError: bounds out of range or in the wrong order.

    Source: InfoMin, whose sweet spot is a least area of 0.2.

    >>> (view,) = Crop((0.2, 1.0), size=24)(torch.rand(4, 3, 32, 32))
    >>> view.shape
    torch.Size([4, 3, 24, 24])
    """

    checks_range = False

    def __init__(
        self,
        area: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        size: int | None = None,
    ) -> None:
        super().__init__()
        self.area = check_interval(area, 1e-6, 1, "Crop(area)")
        self.ratio = check_interval(ratio, 1e-3, 1e3, "Crop(ratio)")
        self.size = size if size is None else check_integer(size, 1, 1e6, "Crop(size)")

    @classmethod
    def from_dial(cls, dial: str) -> "Crop":
        """`crop:LEAST` or `crop:LEAST-GREATEST`."""
        low, high = match_dial(dial, f"{NUMBER}(?:-{NUMBER})?").groups()
        return cls((float(low), float(high or 1)))

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> Box:
        """A box for each of n images."""
        return boxes(n, height, width, self.area, self.ratio, generator)

    def augment(self, images: Tensor, draws: Box) -> Views:
        """The view for given draws."""
        size = (self.size, self.size) if self.size else (images.shape[2], images.shape[3])
        return (crop(images, draws, size),)

    def still(self, images: Tensor) -> Views:
        """The whole images, scaled if a size is given."""
        if not self.size:
            return super().still(images)
        n, _, height, width = images.shape
        return self.augment(images, whole(n, height, width))

    def extra_repr(self) -> str:
        return (
            f"area={self.area}, ratio=({self.ratio[0]:.3g}, {self.ratio[1]:.3g}), size={self.size}"
        )


def whole(n: int, height: int, width: int) -> Box:
    """The boxes that are n whole images."""
    return Box(*[torch.full((n,), value, device="cpu") for value in (0, 0, height, width)])


def flip(images: Tensor, which: Tensor) -> Tensor:
    """Mirror left and right the images `[B, C, H, W]` that `which`, bool `[B]`, picks.

    >>> flip(torch.arange(2.0).view(1, 1, 1, 2), torch.tensor([True])).flatten()
    tensor([1., 0.])
    """
    return apply_where(images, which, lambda some, rows: some.flip(3))


@register("flip", dial="the probability of a mirror image: flip:0.5")
class Flip(Augmentation[Which]):
    """Each image mirrored left and right with probability p; in eval mode none is.

    Args:
        p: 0 to 1.

    Raises:
        ValueError: p out of range.

    >>> (view,) = Flip(1.0)(torch.arange(2.0).view(1, 1, 1, 2))
    >>> view.flatten()
    tensor([1., 0.])
    """

    checks_range = False

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = check_range(p, 0, 1, "Flip(p)")

    @classmethod
    def from_dial(cls, dial: str) -> "Flip":
        """`flip:P`."""
        return cls(read_number(dial))

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> Which:
        """Which of n images to mirror."""
        return Which(bernoulli((n,), self.p, generator))

    def augment(self, images: Tensor, draws: Which) -> Views:
        """The view for given draws."""
        return (flip(to_unit(images), draws.which),)

    def extra_repr(self) -> str:
        return f"p={self.p}"
