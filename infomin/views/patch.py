"""Patch views: two patches of one image; the dial is the distance between them."""

import torch
from torch import Tensor

from ..common.checks import check_integer, to_unit
from ..common.seeds import to_device
from ..data.windows import cut_windows
from .base import Augmentation, Views, register
from .dials import match_dial
from .draws import check_sides, randint_below


def cut_patches(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Cut one square patch out of each image of a batch.

    Args:
        images: `[B, C, H, W]`.
        top: the first row of each patch, long `[B]`.
        left: the first column, long `[B]`.
        size: side of the patches in pixels; they must lie inside their images.

    Returns:
        `[B, C, size, size]`.

    >>> image = torch.arange(16).view(1, 1, 4, 4)
    >>> cut_patches(image, torch.tensor([1]), torch.tensor([2]), 2).flatten()
    tensor([ 6,  7, 10, 11])
    """
    image = torch.arange(len(images), device=images.device)
    if not images.requires_grad:
        return cut_windows(images, image, torch.stack([top, left], 1), size, size)
    # Not `cut_windows`: the gradient of its overlapping rows takes `size` times the images' memory.
    channel = torch.arange(images.shape[1], device=images.device)
    span = torch.arange(size, device=images.device)
    row, column = top[:, None] + span, left[:, None] + span
    return images[
        image[:, None, None, None],
        channel[:, None, None],
        row[:, None, :, None],
        column[:, None, None, :],
    ]


@register(
    "patch",
    dial="the distance of two patches in px, optionally with their side: patch:64, patch:16/32",
)
class PatchPair(Augmentation[tuple[Tensor, Tensor]]):
    """Two patches of each image, at (x, y) and at (x + d, y + d), with d the distance in pixels.

    Each image's (x, y) is uniform over all positions where both patches fit inside. The larger the
    distance, the less the patches share; once it reaches their side, they do not overlap. In eval
    mode both views are the whole image, so a probe reads the same pixels whatever the distance.

    Args:
        distance: d in pixels, 0 or more.
        size: side of a patch in pixels, 1 or more.

    Raises:
        ValueError: a distance or size that is not a whole number or is out of range; from
            `draw`, images too small for both patches.

    Source: InfoMin, spatial distance between patches.

    >>> v1, v2 = PatchPair(distance=16, size=32)(torch.rand(4, 3, 64, 80))
    >>> v1.shape, v2.shape
    (torch.Size([4, 3, 32, 32]), torch.Size([4, 3, 32, 32]))
    """

    channels = (3, 3)
    readout = (0, 1)

    def __init__(self, distance: int, size: int = 64) -> None:
        super().__init__()
        self.distance = check_integer(distance, 0, 1e6, "PatchPair(distance)")
        self.size = check_integer(size, 1, 1e6, "PatchPair(size)")

    @classmethod
    def from_dial(cls, dial: str) -> "PatchPair":
        """`patch:DISTANCE` or `patch:DISTANCE/SIDE`."""
        distance, side = match_dial(dial, r"(\d+)(?:/(\d+))?").groups()
        return cls(int(distance), int(side)) if side else cls(int(distance))

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The top row and left column of the first patch, long `[n]` each, uniform."""
        check_sides(height, width, self.size + self.distance, type(self).__name__)
        positions = torch.tensor([height, width], device="cpu") - self.size - self.distance + 1
        top, left = randint_below((n, 2), positions, generator).unbind(1)
        return top, left

    def augment(self, images: Tensor, draws: tuple[Tensor, Tensor]) -> Views:
        """The patches for given draws."""
        top = to_device(draws[0], images.device)
        left = to_device(draws[1], images.device)
        first = cut_patches(images, top, left, self.size)
        second = cut_patches(images, top + self.distance, left + self.distance, self.size)
        return to_unit(first), to_unit(second)

    def extra_repr(self) -> str:
        return f"distance={self.distance}, size={self.size}"
