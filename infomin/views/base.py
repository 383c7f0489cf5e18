"""The contract of a view: what it declares, and what every view of images does with its input."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ..common.checks import (
    check_images,
    check_tensor,
    is_validated,
    mark_validated,
    to_unit,
    was_validated,
)
from ..common.precision import full_precision
from ..common.registry import Registry

Views = tuple[Tensor, ...]
Draws = TypeVar("Draws")


class View(nn.Module):
    """A batch in, a tuple of views out.

    A subclass declares, on the class or on the instance, what differs from the defaults here.

    Attributes:
        channels: the number of channels of each view.
        readout: which views a probe reads, counted from 0.
        in_channels: the number of channels that images must have; None accepts any, and the views
            then have as many as the images.
        takes: what `forward` takes: `images`, `scenes` or `clips`.
        bounded: whether values stay in [0, 1], so that another view of images can follow.
        augments: whether views are drawn at random in training and show the whole input in eval
            mode.
        beside: further views that a probe reads, by the name that their columns get.
        tiles: how many images are stacked in the channels of each view; empty means one.
        digest: sha256 of the file that the view was loaded from; empty if there is none.
    """

    channels: tuple[int, ...] = ()
    readout: tuple[int, ...] = ()
    in_channels: int | None = 3
    takes: str = "images"
    bounded: bool = True
    augments: bool = False
    beside: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    tiles: tuple[int, ...] = ()
    digest: str = ""

    def forward(self, batch: object, generator: torch.Generator | None = None) -> Views:
        """Make the views of a batch.

        Args:
            batch: images `[B, C, H, W]`, uint8 or floating point in [0, 1], or what else the view
                `takes`.
            generator: for random draws, on the CPU; None uses torch's global one.

        Returns:
            one tensor `[B, channels[i], H, W]` a view.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def nats(self, batch: object) -> float | None:
        """I(v1; v2) in nats where it is known in closed form, otherwise None."""
        return None

    @classmethod
    def from_dial(cls, dial: str) -> "View":
        """The view that `name:dial` stands for; a class whose argument is no text overrides this."""
        make: Callable[[str], View] = cls
        return make(dial)


VIEWS = Registry("view")
register = VIEWS.register


class ImageView(View):
    """A view of images: checks its input once, then calls `make_views`.

    It takes a batch, or a single image `[C, H, W]`, so it can stand last in a torchvision transform
    list. Pixels are computed in full precision, see `full_precision`; half precision is raised to
    float32 and rounded once at the end.

    Attributes:
        checks_range: whether floating-point images must lie in [0, 1].
    """

    checks_range: bool = True

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """The views of a checked batch `[B, C, H, W]` of uint8, float32 or float64."""
        raise NotImplementedError(f"{type(self).__name__} has no make_views")

    def smallest_side(self) -> int:
        """The least height and width that an image may have, in pixels."""
        return 1

    def forward(self, batch: object, generator: torch.Generator | None = None) -> Views:
        """Images `[B, C, H, W]`, uint8 or in [0, 1], or one image `[C, H, W]`, to a tuple of views.

        Raises:
            TypeError: not a tensor, or of another dtype.
            ValueError: images of another shape or range, or too small.
        """

        def checked_split(images: Tensor) -> Views:
            self.check(images)
            return self.make_views(images, generator)

        images = check_tensor(batch, type(self).__name__, self.in_channels)
        return on_batch(checked_split, images, keeps_range=self.augments)

    def check(self, images: Tensor) -> None:
        """Raise an error unless this is a batch of images that the view can split."""
        check_images(
            images,
            f"{type(self).__name__}({self.extra_repr()})",
            channels=self.in_channels,
            smallest=self.smallest_side(),
            unit=self.checks_range,
        )


class Augmentation(ImageView, Generic[Draws]):
    """A view drawn at random for each image of a batch; in eval mode the images stay as they are.

    `forward` checks the batch, draws on the CPU and augments; `draw` and `augment` are its two halves,
    so that draws can be kept, changed or shown. A class of one view is drawn once for each view of
    a chain, as in `crop:0.2+color:lab`.
    """

    channels: tuple[int, ...] = (3,)
    readout: tuple[int, ...] = (0,)
    in_channels: int | None = None
    augments = True

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> Draws:
        """Random numbers for n images of height x width pixels, on the CPU."""
        raise NotImplementedError(f"{type(self).__name__} has no draw")

    def augment(self, images: Tensor, draws: Draws) -> Views:
        """The views of images `[B, C, H, W]`, uint8, float32 or float64, for given draws."""
        raise NotImplementedError(f"{type(self).__name__} has no augment")

    def still(self, images: Tensor) -> Views:
        """What is shown in eval mode: the whole images, once a view."""
        return (to_unit(images),) * len(self.channels)

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """Draw and augment in training mode; the whole images in eval mode."""
        if not self.training:
            return self.still(images)
        n, _, height, width = images.shape
        return self.augment(images, self.draw(n, height, width, generator))


def on_batch(
    split: Callable[[Tensor], Views], images: Tensor, *, keeps_range: bool = False
) -> Views:
    """Call `split` on a batch in full precision, whatever came in.

    A single image `[C, H, W]` becomes a batch of one and its views lose that axis again. Half
    precision is computed in float32. In a chain of augmentations only the first one reads the
    pixels to check them, and of bytes not even that.

    Args:
        split: batch `[B, C, H, W]` -> views.
        images: `[B, C, H, W]` or `[C, H, W]`.
        keeps_range: whether views of images in [0, 1] lie in [0, 1] too.
    """
    half = images.dtype in (torch.float16, torch.bfloat16)
    single = images.dim() == 3
    batch = images[None] if single else images
    batch = batch.float() if half else batch
    notes = keeps_range and not torch.compiler.is_compiling()
    valid = notes and (images.dtype == torch.uint8 or is_validated(images))
    if valid:
        mark_validated(batch)  # it may be another tensor by now
    with full_precision(images.device.type):
        views = split(batch)
    valid = valid or (notes and was_validated(batch))  # checked before it was written to
    if half:
        views = tuple(view.to(images.dtype) for view in views)
    if single:
        views = tuple(view[0] for view in views)
    if valid:
        for view in views:
            mark_validated(view)
    return views
