"""Random resized crops of whole batches, with a box per image.

A resized crop is two products with banded matrices, rows @ image @ columns^T, which contain the
antialiasing triangle filter. (grid_sample takes three quarters of the time, but has no such
filter.)
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...common.checks import check_integer, check_interval, to_unit
from ...common.seeds import to_device
from ..base import Augmentation, Views, register
from ..dials import NUMBER, match_dial
from ..draws import chunk_size, randint_below, uniform

TRIES = 10


class Box(NamedTuple):
    """Boxes in whole pixels, each field long `[n]`."""

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
    """Draw n boxes like torchvision's RandomResizedCrop.

    If none of ten tries fits, the box is the largest central one whose aspect ratio is in range.

    Args:
        n: the number of boxes.
        height: of the image, px.
        width: of the image, px.
        area: the minimum and maximum area as a share of the image; drawn uniformly.
        ratio: the minimum and maximum width over height; its logarithm is drawn uniformly.
        generator: on the CPU; None is torch's global generator.

    >>> box = boxes(3, 8, 8, area=(1, 1), ratio=(1, 1))
    >>> box.top.tolist(), box.width.tolist()
    ([0, 0, 0], [8, 8, 8])
    """
    areas = uniform((n, TRIES), *area, generator) * (height * width)
    ratios = uniform((n, TRIES), math.log(ratio[0]), math.log(ratio[1]), generator).exp()
    widths = (areas * ratios).sqrt().round().long()
    heights = (areas / ratios).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.long().argmax(1, keepdim=True)  # of the tries that fit
    box_width = widths.gather(1, first)[:, 0]
    box_height = heights.gather(1, first)[:, 0]
    any_fits = fits.gather(1, first)[:, 0]
    top = randint_below((n,), (height - box_height + 1).clamp(min=1), generator)
    left = randint_below((n,), (width - box_width + 1).clamp(min=1), generator)
    drawn = (top, left, box_height, box_width)
    h, w = _central_size(height, width, ratio)
    central = ((height - h) // 2, (width - w) // 2, h, w)
    fields = zip(drawn, central, strict=True)
    return Box(*[torch.where(any_fits, field, fallback) for field, fallback in fields])


def _central_size(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the largest box whose aspect ratio is in range."""
    if width < ratio[0] * height:
        return max(1, min(height, round(width / ratio[0]))), width
    return height, max(1, min(width, round(height * ratio[1])))


def crop(images: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Crop a box from each image and resize it: bilinear and antialiased, from inside the box only.

    Args:
        images: `[B, C, H, W]`, uint8 or floating point.
        box: one box per image, inside it.
        size: height and width of the result in px.

    Source: equals torchvision.transforms.v2.functional.resized_crop.

    >>> crop(torch.ones(1, 1, 4, 4), Box(*torch.tensor([[1], [0], [2], [3]])), (5, 6)).shape
    torch.Size([1, 1, 5, 6])
    """
    at_once = chunk_size(images)
    if images.shape[0] > at_once:
        result = to_unit(images[:1]).new_empty(*images.shape[:2], *size)
        for start in range(0, len(images), at_once):
            chunk = slice(start, start + at_once)
            result[chunk] = crop(images[chunk], Box(*[field[chunk] for field in box]), size)
        return result
    images = to_unit(images)
    n, channels, height, width = images.shape
    box = Box(*[to_device(field, images) for field in box])
    columns = _resize_matrix(box.left, box.width, width, size[1])
    rows = _resize_matrix(box.top, box.height, height, size[0])
    resized = images.reshape(n, channels * height, width) @ columns.mT
    planes = resized.view(n, channels, height, size[1]).unbind(1)
    # not one broadcast product, which would copy `rows` for each channel
    return torch.stack([rows @ plane for plane in planes], 1)


def _resize_matrix(start: Tensor, length: Tensor, full: int, size: int) -> Tensor:
    """Matrices `[n, size, full]` that resize a part of a line.

    Args:
        start, length: the part in px, `[n]` each.
        full: the length of the line in px.
        size: the length of the result in px.
    """
    pixel = torch.arange(full, dtype=start.dtype, device=start.device) - start[:, None] + 0.5
    outside = (pixel < 0) | (pixel > length[:, None])
    scale = length[:, None] / size
    centre = (torch.arange(size, dtype=start.dtype, device=start.device) + 0.5) * scale
    # of the triangle filter, in source px: a target pixel, or a source pixel if that is larger
    reach = scale.clamp(min=1)
    pixel = (pixel / reach).masked_fill_(outside, torch.inf)
    distance = pixel[:, None, :].sub((centre / reach)[:, :, None]).abs_()
    # the weights with the opposite sign, which cancels when they are divided by their sum
    negative = distance.sub_(1).clamp_(max=0)
    return negative.div_(negative.sum(2, keepdim=True))


@register(
    "crop",
    dial="the minimum area as a share of the image, or minimum-maximum: crop:0.2, crop:0.2-0.9",
)
class Crop(Augmentation[Box]):
    """Random resized crop; in eval mode the whole image, resized if `size` is given.

    Args:
        area: the minimum and maximum area as a share of the image, above 0 and at most 1.
        ratio: the minimum and maximum width over height, above 0.
        size: side of the square result in px; None keeps the size of the images.

    Raises:
        ValueError: bounds out of range or in the wrong order.

    Source: InfoMin, where a minimum area of 0.2 is the sweet spot.

    >>> (view,) = Crop((0.2, 1.0), size=24)(torch.rand(4, 3, 32, 32))
    >>> view.shape
    torch.Size([4, 3, 24, 24])
    """

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
        """`crop:MINIMUM` or `crop:MINIMUM-MAXIMUM`."""
        low, high = match_dial(dial, f"{NUMBER}(?:-{NUMBER})?").groups()
        return cls((float(low), float(high or 1)))

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> Box:
        """Draw a box for each of n images."""
        return boxes(n, height, width, self.area, self.ratio, generator)

    def augment(self, images: Tensor, draws: Box, *, inplace: bool = False) -> Views:
        """Make the view from given draws; it is new, also with `inplace`."""
        size = (self.size, self.size) if self.size else (images.shape[2], images.shape[3])
        return (crop(images, draws, size),)

    def still(self, images: Tensor) -> Views:
        """The view in eval mode: the whole images, resized if `size` is given."""
        if not self.size:
            return super().still(images)
        n, _, height, width = images.shape
        return self.augment(images, whole(n, height, width))

    def extra_repr(self) -> str:
        ratio = f"({self.ratio[0]:.3g}, {self.ratio[1]:.3g})"
        return f"area={self.area}, ratio={ratio}, size={self.size}"


def whole(n: int, height: int, width: int) -> Box:
    """Boxes that cover n whole images."""
    return Box(*[torch.full((n,), value, device="cpu") for value in (0, 0, height, width)])
