"""Frequency views: an image's coarse part against its fine part. The dial: sigma, where the two are parted."""

from itertools import pairwise

import torch
from torch import Tensor

from ..common.checks import check_positive, to_unit
from ..common.seeds import to_device
from .base import ImageView, Views, register


def gaussian(n: int, sigma: float, like: Tensor) -> Tensor:
    """The matrix `[n, n]` that blurs a line of n pixels, in the dtype and on the device of `like`.

    Each row is a sampled Gaussian, cut off at 4 sigma, that adds up to 1; what falls over the edge is reflected, edge pixel
    included, as often as it takes, so sigma may be larger than the line.

    Args:
        n: pixels.
        sigma: standard deviation in pixels, 0 or more; 0 leaves the line as it is.
    """
    reach = int(4 * sigma + 0.5)
    offset = torch.arange(-reach, reach + 1, device="cpu")
    weight = (
        torch.exp(-0.5 * (offset.double() / sigma) ** 2)
        if reach
        else torch.ones_like(offset).double()
    )
    place = (torch.arange(n, device="cpu")[:, None] + offset).remainder(2 * n)
    place = torch.minimum(
        place, 2 * n - 1 - place
    )  # the line is followed by its mirror image, over and over
    matrix = torch.zeros(n, n, dtype=torch.float64, device="cpu").scatter_add_(
        1, place, (weight / weight.sum()).expand(n, -1)
    )
    return to_device(matrix, like)


def low_pass(images: Tensor, sigma: float) -> Tensor:
    """Blur `[..., H, W]` with a Gaussian of `sigma` pixels, by a matrix product along each side.

    >>> low_pass(torch.ones(2, 3, 8, 8), 1.5).sub(1).abs().max() < 1e-6
    tensor(True)
    """
    height, width = images.shape[-2:]
    return gaussian(height, sigma, images) @ images @ gaussian(width, sigma, images).T


@register(
    "frequency",
    dial="where the image is split into low and high frequencies, sigma in px: frequency:0.7, frequency:1-4",
)
class Frequency(ImageView):
    """Views that are bands of spatial frequency, from coarse to fine: `low, high = Frequency(1.0)(images)`.

    The low pass is a Gaussian blur, the high pass is what it takes away; with more sigmas, each band lies between two blurs. The
    views add up to the image.

    Args:
        sigmas: standard deviations of the blurs in pixels, above 0, ascending; n of them give n + 1 views.

    Raises:
        ValueError: no sigma, one that is not above 0, or sigmas that do not ascend.

    Source: InfoMin, its frequency separation.

    >>> images = torch.rand(4, 3, 16, 16)
    >>> low, high = Frequency(1.0)(images)
    >>> (low + high - images).abs().max() < 1e-6
    tensor(True)
    """

    in_channels = None
    bounded = False
    checks_range = False

    def __init__(self, *sigmas: float) -> None:
        super().__init__()
        if not sigmas or any(
            a >= b
            for a, b in pairwise(check_positive(sigma, "Frequency(sigma)") for sigma in sigmas)
        ):
            raise ValueError(
                f"Frequency: got sigmas {sigmas}, wanted one or more, ascending; sort them"
            )
        self.sigmas = tuple(map(float, sigmas))
        self.channels = (3,) * (len(sigmas) + 1)
        self.readout = tuple(range(len(self.channels)))

    @classmethod
    def from_dial(cls, dial: str) -> "Frequency":
        """`frequency:SIGMA` or several, joined by `-`."""
        try:
            sigmas = [float(sigma) for sigma in dial.split("-")]
        except ValueError:
            raise ValueError(f"got {dial!r}") from None
        return cls(*sigmas)

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """One view of the images' shape a band, from coarse to fine; nothing is drawn at random."""
        images = to_unit(images)
        blurred = [images, *(low_pass(images, sigma) for sigma in self.sigmas)]
        bands = [fine - coarse for fine, coarse in pairwise(blurred)]
        return (blurred[-1], *reversed(bands))

    def extra_repr(self) -> str:
        return ", ".join(f"{sigma:g}" for sigma in self.sigmas)
