"""Bits that views share by construction, beside the picture: information of known size."""

import torch
from torch import Tensor

from ..common.checks import check_integer, check_range, to_unit
from ..common.seeds import to_device
from ..data.scenes import channel_nats
from .base import ImageView, Views, check_batch_draws, register
from .dials import NUMBER, match_dial
from .draws import bernoulli


@register(
    "bits",
    dial="how many random bits all views show as planes beside the picture, then * their contrast "
    "and ~ the probability that a bit flips: bits:8, bits:8*0.1, bits:8~0.25, crop:0.2+bits:8",
)
class Bits(ImageView):
    """Constant planes beside the picture that show random bits, the same in all views of a sample.

    Alone it gives two views of an image. At the end of a chain, Then(Crop(), Bits(8)), it appends
    planes to every view of the part before it, after that one's draws, and shows a single view
    twice. Bits are fair, independent of each other and of all else, and drawn anew at each call: in
    eval mode too, like the factors of SharedFactors, because an encoder that they occupy has to be
    probed on what it was trained on.

    Args:
        count: planes, 0 to 1000.
        contrast: the value of a plane whose bit is 1, 0..1; where it is 0, so is the plane.
        flip: the probability that a view other than the first shows the opposite of a bit.

    Raises:
        ValueError: a number out of range.

    Source: RandBit (Chen, Luo and Li, 2021); contrast and flips are added here.

    >>> v1, v2 = Bits(2)(torch.zeros(4, 3, 8, 8))
    >>> v1.shape, torch.equal(v1, v2), round(Bits(2).bit_nats, 3)
    (torch.Size([4, 5, 8, 8]), True, 1.386)
    """

    readout = (0, 1)
    in_channels = None

    def __init__(self, count: int, contrast: float = 1.0, flip: float = 0.0) -> None:
        super().__init__()
        self.count = check_integer(count, 0, 1000, "Bits(count)")
        self.contrast = check_range(contrast, 0, 1, "Bits(contrast)")
        self.flip = check_range(flip, 0, 1, "Bits(flip)")
        self.channels = self.channels_after((3,))

    @classmethod
    def from_dial(cls, dial: str) -> "Bits":
        """`bits:COUNT`, then `*CONTRAST`, then `~FLIP`."""
        match = match_dial(dial, rf"(\d+)(?:\*{NUMBER})?(?:~{NUMBER})?")
        count, contrast, flip = match.groups()
        return cls(int(count), float(contrast or 1), float(flip or 0))

    @property
    def bit_nats(self) -> float:
        """The nats that the bits of the first view and of another one share."""
        fair = torch.full((2,), 0.5, dtype=torch.float64, device="cpu")
        return self.count * channel_nats(fair, self.flip) if self.contrast else 0.0

    def channels_after(self, channels: tuple[int, ...]) -> tuple[int, ...]:
        """The channels of `append` to views of these channels."""
        return tuple(c + self.count for c in (channels * 2 if len(channels) == 1 else channels))

    def append(self, views: Views, generator: torch.Generator | None = None) -> Views:
        """Append planes to all views `[B, C, H, W]` of a batch at once; one view becomes two."""
        check_batch_draws(type(self).__name__)
        first, *others = views * 2 if len(views) == 1 else views
        size = (len(first), self.count)
        bits = bernoulli(size, 0.5, generator)
        flipped = [bits ^ bernoulli(size, self.flip, generator) for _ in others]
        return (
            self._show(first, bits),
            *(self._show(view, own) for view, own in zip(others, flipped, strict=True)),
        )

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """Two views of each image, with planes."""
        return self.append((images,), generator)

    def _show(self, view: Tensor, bits: Tensor) -> Tensor:
        """A view and planes of bits `[B, count]` beside it."""
        view = to_unit(view)
        planes = (to_device(bits, view) * self.contrast)[:, :, None, None]
        return torch.cat([view, planes.expand(-1, -1, *view.shape[2:])], 1)

    def extra_repr(self) -> str:
        return f"{self.count}, contrast={self.contrast:g}, flip={self.flip:g}"
