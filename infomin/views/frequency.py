"""Frequency views: low against high spatial frequencies; sigma sets where they are separated."""

from itertools import pairwise

import torch
from torch import Tensor

from ..common.checks import check_range, to_unit
from ..common.seeds import to_device
from .base import ImageView, Views, register
from .dials import NUMBER, match_dial

WIDEST = 1e4  # px: a blur takes 8 sigma weights for each pixel of a line


def gaussian(n: int, sigma: float, like: Tensor) -> Tensor:
    """The matrix `[n, n]` that blurs a line of n pixels, in the dtype and on the device of `like`.

    Each row is a sampled Gaussian, truncated at 4 sigma, that sums to 1. At both ends the line is
    continued by its mirror image (edge pixel included), repeatedly, so sigma may exceed its length.

    Args:
        n: pixels.
        sigma: standard deviation in pixels, 0 or more; 0 gives the identity.
        like: a tensor whose dtype and device the matrix gets.
    """
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, device="cpu")
    if radius:
        weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    else:
        weights = torch.ones_like(offsets).double()
    source = (torch.arange(n, device="cpu")[:, None] + offsets).remainder(2 * n)
    source = torch.minimum(source, 2 * n - 1 - source)  # the line and its mirror image, repeated
    rows = (weights / weights.sum()).expand(n, -1)
    matrix = torch.zeros(n, n, dtype=torch.float64, device="cpu").scatter_add_(1, source, rows)
    return to_device(matrix, like)


def low_pass(images: Tensor, sigma: float) -> Tensor:
    """Blur `[..., H, W]` with a Gaussian of `sigma` pixels: one matrix product along each side.

    >>> low_pass(torch.ones(2, 3, 8, 8), 1.5).sub(1).abs().max() < 1e-6
    tensor(True)
    """
    height, width = images.shape[-2:]
    return gaussian(height, sigma, images) @ images @ gaussian(width, sigma, images).T


@register(
    "frequency",
    dial="sigma of the blur in px, or several in ascending order: frequency:0.7, frequency:1-4",
)
class Frequency(ImageView):
    """Bands of spatial frequency, from coarse to fine: `low, high = Frequency(1.0)(images)`.

    The low-pass view is a Gaussian blur, the high-pass view is what the blur removes. With several
    sigmas, each band in between is the difference of two blurs. The views add up to the image.

    Args:
        sigmas: standard deviations of the blurs in pixels, above 0 and at most 1e4, ascending; n of
            them give n + 1 views.

    Raises:
        ValueError: no sigma, a sigma out of range, or sigmas that are not ascending.

    Source: InfoMin, its frequency separation.

    >>> images = torch.rand(4, 3, 16, 16)
    >>> low, high = Frequency(1.0)(images)
    >>> (low + high - images).abs().max() < 1e-6
    tensor(True)
    """

    in_channels = None
    bounded = False

    def __init__(self, *sigmas: float) -> None:
        super().__init__()
        for sigma in sigmas:
            check_range(sigma, 1e-6, WIDEST, "Frequency(sigma)")
        if not sigmas or any(low >= high for low, high in pairwise(sigmas)):
            raise ValueError(
                f"Frequency: got sigmas {sigmas}, wanted one or more in ascending order; sort them"
            )
        self.sigmas = tuple(map(float, sigmas))
        self.channels = (3,) * (len(sigmas) + 1)
        self.readout = tuple(range(len(self.channels)))

    @classmethod
    def from_dial(cls, dial: str) -> "Frequency":
        """`frequency:SIGMA`, or several sigmas joined by `-`."""
        return cls(*map(float, match_dial(dial, rf"{NUMBER}(-{NUMBER})*")[0].split("-")))

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """One view of the images' shape per band, from coarse to fine; nothing is random."""
        images = to_unit(images)
        blurred = [images, *(low_pass(images, sigma) for sigma in self.sigmas)]
        bands = [finer - coarser for finer, coarser in pairwise(blurred)]
        return (blurred[-1], *reversed(bands))

    def extra_repr(self) -> str:
        return ", ".join(f"{sigma:g}" for sigma in self.sigmas)
