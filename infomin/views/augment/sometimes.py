"""Augmentations that change some of the images, each with probability p: flip and grey."""

import torch
from torch import Tensor

from ...common.checks import check_range, to_unit
from ..base import Augmentation, Views, register
from ..dials import read_number
from ..draws import Selection, apply_where, bernoulli
from .jitter import luma


class Sometimes(Augmentation[Selection]):
    """The base class: changes an image with probability p; in eval mode images stay unchanged.

    Args:
        p: 0 to 1.

    Raises:
        ValueError: p out of range.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = check_range(p, 0, 1, f"{type(self).__name__}(p)")

    @classmethod
    def from_dial(cls, dial: str) -> "Sometimes":
        """`name:P`."""
        return cls(read_number(dial))

    def change(self, images: Tensor) -> Tensor:
        """Change all of the floating-point images `[n, C, H, W]`."""
        raise NotImplementedError(f"{type(self).__name__} has no change")

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> Selection:
        """Draw which of n images are changed."""
        return Selection(bernoulli((n,), self.p, generator))

    def augment(self, images: Tensor, draws: Selection, *, inplace: bool = False) -> Views:
        """Make the view from given draws."""

        def change(selected: Tensor, rows: Tensor) -> Tensor:
            return self.change(selected)

        return (apply_where(to_unit(images), draws.which, change, inplace=inplace),)

    def extra_repr(self) -> str:
        return f"p={self.p}"


@register("flip", dial="the probability of mirroring left and right: flip:0.5")
class Flip(Sometimes):
    """Horizontal flip with probability p; in eval mode images stay unchanged.

    >>> (view,) = Flip(1.0)(torch.eye(2).view(1, 1, 2, 2))
    >>> view[0, 0]
    tensor([[0., 1.],
            [1., 0.]])
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def change(self, images: Tensor) -> Tensor:
        """Mirror images left and right."""
        return images.flip(3)


@register("grey", dial="the probability that an image loses its colour: grey:0.2")
class Grey(Sometimes):
    """Conversion to grey with probability p; in eval mode images stay unchanged.

    Source: equals torchvision.transforms.v2.functional.rgb_to_grayscale with three channels.

    >>> (view,) = Grey(1.0)(torch.rand(2, 3, 8, 8))
    >>> torch.equal(view[:, 0], view[:, 2])
    True
    """

    in_channels = 3

    def __init__(self, p: float = 0.2) -> None:
        super().__init__(p)

    def change(self, images: Tensor) -> Tensor:
        """Replace all three channels by their luma."""
        return luma(images).repeat(1, 3, 1, 1)
