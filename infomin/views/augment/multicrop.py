"""Multi-crop: a few large and more small crops of each image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...common.checks import check_integer, check_interval, to_unit
from ..base import Augmentation, Views, register
from ..dials import match_dial
from .crop import Box, boxes, crop, whole

LARGE_AREA, SMALL_AREA = (0.14, 1.0), (0.05, 0.14)  # shares of the image, as in SwAV


@register(
    "multicrop", dial="the number of crops x their side in px, large first: multicrop:2x32-4x16"
)
class MultiCrop(Augmentation[Box]):
    """Several crops of each image, one view per crop; in eval mode the whole image at each size.

    Args:
        sizes: the side of each kind of crop, in px.
        counts: the number of views of each kind.
        areas: the minimum and maximum area of each kind, as a share of the image.

    Raises:
        ValueError: sizes, counts and areas are not equally many, or one is out of range.

    Source: SwAV (arXiv 2006.09882); the default is its two crops of 224 px and six of 96 px.

    >>> views = MultiCrop((32, 16), (2, 4))(torch.rand(8, 3, 40, 40))
    >>> len(views), views[0].shape, views[5].shape
    (6, torch.Size([8, 3, 32, 32]), torch.Size([8, 3, 16, 16]))
    """

    channels: tuple[int, ...] = ()  # set in __init__, one entry per crop

    def __init__(
        self,
        sizes: Sequence[int] = (224, 96),
        counts: Sequence[int] = (2, 6),
        areas: Sequence[tuple[float, float]] = (LARGE_AREA, SMALL_AREA),
    ) -> None:
        super().__init__()
        if not 0 < len(sizes) == len(counts) == len(areas):
            raise ValueError(
                "MultiCrop: need at least one size, and one count and one area per size, got "
                f"{len(sizes)} sizes, {len(counts)} counts and {len(areas)} areas"
            )
        self.sizes = tuple(check_integer(size, 1, 1e6, "MultiCrop(sizes)") for size in sizes)
        self.counts = tuple(check_integer(count, 1, 1e3, "MultiCrop(counts)") for count in counts)
        self.areas = tuple(check_interval(area, 1e-6, 1, "MultiCrop(areas)") for area in areas)
        self.crops: list[tuple[int, tuple[float, float]]] = []  # size and area of each view
        for size, count, area in zip(self.sizes, self.counts, self.areas, strict=True):
            self.crops += [(size, area)] * count
        self.channels = (3,) * len(self.crops)

    @classmethod
    def from_dial(cls, dial: str) -> "MultiCrop":
        """`multicrop:COUNTxSIZE-COUNTxSIZE`, large crops first."""
        match_dial(dial, r"\d+x\d+(-\d+x\d+)*")
        kinds = [kind.split("x") for kind in dial.split("-")]
        counts = [int(count) for count, _ in kinds]
        sizes = [int(size) for _, size in kinds]
        return cls(sizes, counts, [LARGE_AREA, *[SMALL_AREA] * (len(sizes) - 1)])

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> Box:
        """Draw a box for each of n images and each view: long `[n, views]`."""
        drawn = [boxes(n, height, width, area, generator=generator) for _, area in self.crops]
        return Box(*[torch.stack(field, 1) for field in zip(*drawn, strict=True)])

    def augment(self, images: Tensor, draws: Box) -> Views:
        """Make the views from given draws."""
        images = to_unit(images)
        fields = [field.unbind(1) for field in draws]
        per_view = zip(self.crops, *fields, strict=True)
        return tuple(crop(images, Box(*box), (size, size)) for (size, _), *box in per_view)

    def still(self, images: Tensor) -> Views:
        """The views in eval mode: the whole image, resized to the side of each crop."""
        n, _, height, width = images.shape
        box = whole(n, height, width)
        return tuple(crop(to_unit(images), box, (size, size)) for size, _ in self.crops)

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}, counts={self.counts}, areas={self.areas}"
