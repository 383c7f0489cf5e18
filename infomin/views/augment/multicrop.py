"""Multi-crop: several crops of each image, a few large ones and more small ones."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...common.checks import to_unit
from ..base import Augmentation, Views, register
from ..dials import match_dial
from ..draws import check_integer, check_interval
from .crop import Box, boxes, crop, whole


@register(
    "multicrop", dial="how many crops of which side in px, large ones first: multicrop:2x32-4x16"
)
class MultiCrop(Augmentation[Box]):
    """Several crops of each image as so many views; in eval mode each is the whole image at its size.

    Args:
        sizes: sides of the kinds of crop in px.
        counts: how many views of each kind.
        areas: the least and greatest share of the image for each kind.

    Raises:
        ValueError: not equally many sizes, counts and areas, or one out of range.

    Source: SwAV (arXiv 2006.09882), whose two crops of 224 px and six of 96 px are the default.

    >>> views = MultiCrop((32, 16), (2, 4))(torch.rand(8, 3, 40, 40))
    >>> len(views), views[0].shape, views[5].shape
    (6, torch.Size([8, 3, 32, 32]), torch.Size([8, 3, 16, 16]))
    """

    checks_range = False
    channels: tuple[int, ...] = ()  # as many as there are crops

    def __init__(
        self,
        sizes: Sequence[int] = (224, 96),
        counts: Sequence[int] = (2, 6),
        areas: Sequence[tuple[float, float]] = ((0.14, 1.0), (0.05, 0.14)),
    ) -> None:
        super().__init__()
        if not 0 < len(sizes) == len(counts) == len(areas):
            raise ValueError(
                f"MultiCrop: got {len(sizes)} sizes, {len(counts)} counts and {len(areas)} areas, wanted equally many; "
                "add or drop some"
            )
        self.sizes = tuple(check_integer(size, 1, 1e6, "MultiCrop(sizes)") for size in sizes)
        self.counts = tuple(check_integer(count, 1, 1e3, "MultiCrop(counts)") for count in counts)
        self.areas = tuple(check_interval(area, 1e-6, 1, "MultiCrop(areas)") for area in areas)
        self.kinds = [
            (size, area)
            for size, count, area in zip(self.sizes, self.counts, self.areas, strict=True)
            for _ in range(count)
        ]
        self.channels = (3,) * len(self.kinds)

    @classmethod
    def from_dial(cls, dial: str) -> "MultiCrop":
        """`multicrop:COUNTxSIZE-COUNTxSIZE`, large crops first."""
        match_dial(dial, r"\d+x\d+(-\d+x\d+)*")
        counts, sizes = zip(*[map(int, part.split("x")) for part in dial.split("-")], strict=True)
        return cls(sizes, counts, ((0.14, 1.0), *[(0.05, 0.14)] * (len(sizes) - 1)))

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> Box:
        """A box for each of n images and each view: long `[n, views]`."""
        drawn = [boxes(n, height, width, area, generator=generator) for _, area in self.kinds]
        return Box(*[torch.stack(field, 1) for field in zip(*drawn, strict=True)])

    def augment(self, images: Tensor, draws: Box) -> Views:
        """The views for given draws."""
        images = to_unit(images)
        each = zip(self.kinds, *[field.unbind(1) for field in draws], strict=True)
        return tuple(crop(images, Box(*box), (size, size)) for (size, _), *box in each)

    def still(self, images: Tensor) -> Views:
        """The whole image at the size of each crop."""
        n, _, height, width = images.shape
        boxes = whole(n, height, width)
        return tuple(crop(to_unit(images), boxes, (size, size)) for size, _ in self.kinds)

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}, counts={self.counts}, areas={self.areas}"
