"""Gaussian blur with a sigma per image, as products with banded matrices.

The matrices include the reflection at the border.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...common.checks import check_interval, check_range, to_unit
from ...common.seeds import to_device
from ..base import Augmentation, Views, register
from ..dials import read_number
from ..draws import apply_where, bernoulli, uniform


class BlurDraws(NamedTuple):
    """The draws of `Blur`: sigma in px `[n]`, and which images are blurred, bool `[n]`."""

    sigma: Tensor
    which: Tensor


def blur(images: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Blur each image with its own Gaussian; the border is reflected without its last pixel.

    Args:
        images: `[B, C, H, W]` floating point.
        sigma: standard deviations in px `[B]`, above 0.
        kernel: the number of weights, odd; half of it must be less than either side.

    Raises:
        ValueError: the kernel is even or too wide.

    Source: equals torchvision.transforms.v2.functional.gaussian_blur.

    >>> blur(torch.tensor([[[[0.0, 0.0, 1.0]] * 3]]), torch.tensor([1.0]), 3)[0, 0, 0]
    tensor([0.0000, 0.2741, 0.4519])
    """
    n, channels, height, width = images.shape
    widest = 2 * min(height, width) - 1
    if kernel % 2 == 0 or not 0 < kernel <= widest:
        raise ValueError(
            f"blur(kernel): got {kernel} for images of {height}x{width}, wanted an odd number from "
            f"1 to {widest}; use a smaller kernel or larger images"
        )
    offsets = torch.arange(kernel // 2 + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-0.5 * (offsets / to_device(sigma, images)[:, None]).square())
    weights = weights / (2 * weights.sum(1, keepdim=True) - weights[:, :1])
    blurred = images.reshape(n, channels * height, width) @ _blur_matrix(weights, width).mT
    vertical = _blur_matrix(weights, height)
    planes = blurred.view(n, channels, height, width).unbind(1)
    return torch.stack([vertical @ plane for plane in planes], 1)


def _blur_matrix(weights: Tensor, size: int) -> Tensor:
    """Matrices `[n, size, size]` that convolve a line with a symmetric kernel.

    Args:
        weights: half of the kernel, from its centre outwards: `[n, reach + 1]`.
        size: the length of the line.
    """
    offsets = torch.arange(1 - weights.shape[1], weights.shape[1], device=weights.device)
    source = (torch.arange(size, device=weights.device)[:, None] + offsets).abs()
    # beyond its last pixel a line continues with its mirror image, which leaves out that pixel
    source = size - 1 - (size - 1 - source).abs()
    source = source.expand(len(weights), -1, -1)
    kernel = weights[:, offsets.abs()][:, None].expand(-1, size, -1)
    return weights.new_zeros(len(weights), size, size).scatter_add_(2, source, kernel)


@register("blur", dial="the probability of a blur with sigma 0.1 to 2 px: blur:0.5")
class Blur(Augmentation[BlurDraws]):
    """Gaussian blur with a random sigma, with probability p; in eval mode images stay unchanged.

    Args:
        sigma: the minimum and maximum standard deviation in px, above 0; drawn uniformly.
        p: 0 to 1.
        kernel: the number of weights, odd. Below 1 it is a share of the shorter side (SimCLR: 0.1),
            rounded to an odd number; None covers three times the maximum sigma, cut to what the
            image can reflect.

    Raises:
        ValueError: a number out of range; from `forward`, a kernel too wide for the images.

    Source: SimCLR (arXiv 2002.05709, appendix A); MoCo v2 and InfoMin use sigma 0.1 to 2, p 0.5.

    >>> (view,) = Blur(sigma=(1, 1), p=1)(torch.eye(9).view(1, 1, 9, 9))
    >>> view.shape, bool(view.max() < 0.5)
    (torch.Size([1, 1, 9, 9]), True)
    """

    def __init__(
        self, sigma: tuple[float, float] = (0.1, 2.0), p: float = 0.5, kernel: float | None = None
    ) -> None:
        super().__init__()
        self.sigma = check_interval(sigma, 1e-3, 1e6, "Blur(sigma)")
        self.p = check_range(p, 0, 1, "Blur(p)")
        if kernel is not None:
            kernel = check_range(kernel, 0, 1e6, "Blur(kernel)")
            if kernel >= 1 and kernel % 2 != 1:
                raise ValueError(
                    f"Blur(kernel): got {kernel!r}, wanted an odd whole number or a share below 1"
                )
        self.kernel = kernel

    def size(self, side: int) -> int:
        """The number of weights for images whose shorter side is `side` px.

        >>> Blur().size(64), Blur().size(4), Blur(kernel=0.1).size(224), Blur(kernel=0.1).size(64)
        (13, 7, 23, 7)
        """
        if self.kernel is None:
            return 2 * min(math.ceil(3 * self.sigma[1]), side - 1) + 1
        return int(self.kernel) if self.kernel >= 1 else 2 * (int(self.kernel * side) // 2) + 1

    @classmethod
    def from_dial(cls, dial: str) -> "Blur":
        """`blur:P`."""
        return cls(p=read_number(dial))

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> BlurDraws:
        """Draw a sigma for each of n images, and whether it is blurred."""
        sigma = uniform((n,), *self.sigma, generator)
        return BlurDraws(sigma, bernoulli((n,), self.p, generator))

    def augment(self, images: Tensor, draws: BlurDraws, *, inplace: bool = False) -> Views:
        """Make the view from given draws."""
        kernel = self.size(min(images.shape[2:]))

        def blur_rows(images: Tensor, rows: Tensor) -> Tensor:
            return blur(images, draws.sigma[rows], kernel)

        return (apply_where(to_unit(images), draws.which, blur_rows, inplace=inplace),)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, p={self.p}, kernel={self.kernel}"
