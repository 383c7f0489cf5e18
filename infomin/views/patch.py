"""Patch views: two windows into one photograph. The dial: how far apart they are."""

import torch
from torch import Tensor

from ..common.checks import to_unit
from ..common.seeds import to_device
from ..data.windows import cut_windows as cut
from .base import Augmentation, Views, register
from .dials import match_dial
from .draws import check_integer, randint_below


def cut_patches(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Square windows of a batch, one an image.

    Args:
        images: `[B, C, H, W]`.
        top, left: long `[B]`, the window's first row and column.
        size: its side in pixels; windows lie inside their images.

    Returns:
        `[B, C, size, size]`.

    >>> cut_patches(torch.arange(16).view(1, 1, 4, 4), torch.tensor([1]), torch.tensor([2]), 2).flatten()
    tensor([ 6,  7, 10, 11])
    """
    image = torch.arange(len(images), device=images.device)
    if not images.requires_grad:
        return cut(images, image, torch.stack([top, left], 1), size, size)
    # the gradient of rows that overlap in memory would take `size` times the memory of the images
    image = image[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[:, None, None]
    span = torch.arange(size, device=images.device)
    row, column = (top[:, None] + span)[:, None, :, None], (left[:, None] + span)[:, None, None, :]
    return images[image, channel, row, column]


@register(
    "patch",
    dial="the distance of two patches along the diagonal, and after a slash their side, in px: patch:64, patch:16/32",
)
class PatchPair(Augmentation[tuple[Tensor, Tensor]]):
    """Two patches of each image, `distance` pixels apart in both directions: at (x, y) and at (x + d, y + d).

    The place is drawn uniformly, per image, among those where both patches lie inside. The farther apart they are, the less
    they share; from a distance of their side on they do not overlap. In eval mode both views are the whole image, so that a
    probe reads the same pixels whatever the distance.

    Args:
        distance: d in pixels, 0 or more.
        size: side of a patch in pixels.

    Raises:
        ValueError: distance or size is no such number.

    Source: InfoMin, its spatial distance between patches.

    >>> v1, v2 = PatchPair(distance=16, size=32)(torch.rand(4, 3, 64, 80))
    >>> v1.shape, v2.shape
    (torch.Size([4, 3, 32, 32]), torch.Size([4, 3, 32, 32]))
    """

    channels = (3, 3)
    readout = (0, 1)
    checks_range = False

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
        """Where the first patch begins: (row, column), long `[n]` each, uniform."""
        room = torch.tensor([height, width], device="cpu") - self.size - self.distance + 1
        row, column = randint_below((n, 2), room, generator).unbind(1)
        return row, column

    def augment(self, images: Tensor, draws: tuple[Tensor, Tensor]) -> Views:
        """The patches for given draws."""
        top, left = (to_device(place, images.device) for place in draws)
        first = cut_patches(images, top, left, self.size)
        second = cut_patches(images, top + self.distance, left + self.distance, self.size)
        return to_unit(first), to_unit(second)

    def smallest_side(self) -> int:
        return self.size + self.distance

    def extra_repr(self) -> str:
        return f"distance={self.distance}, size={self.size}"
