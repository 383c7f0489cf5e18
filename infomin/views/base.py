"""The base classes of views: what a view declares, and how views of images treat their input."""

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
from ..common.precision import no_autocast
from ..common.registry import Registry

Views = tuple[Tensor, ...]
Draws = TypeVar("Draws")


class View(nn.Module):
    """A batch in, a tuple of views out.

    A subclass overrides these attributes, on the class or on the instance, where it differs.

    Attributes:
        channels: the number of channels of each view.
        readout: which views a probe reads, counted from 0.
        in_channels: the number of channels that images must have; None accepts any number, and
            the views then have the channels of the images.
        takes: the input of `forward`: `images`, `scenes` or `clips`.
        bounded: whether values stay in [0, 1], so that another view of images can follow.
        augments: whether views are random in training mode and show the whole input in eval mode.
        beside: further views that a probe reads, keyed by the suffix of their columns in a row.
        tiles: the number of images stacked in the channels of each view; empty means one.
        digest: sha256 of the file that the view was loaded from; empty without a file.
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
            batch: images `[B, C, H, W]`, uint8 or floating point in [0, 1], or the scenes or clips
                that the view `takes`.
            generator: for random draws, on the CPU; None uses torch's global generator.

        Returns:
            one tensor `[B, channels[i], H, W]` per view.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def nats(self, batch: object) -> float | None:
        """I(v1; v2) in nats if it is known in closed form, otherwise None."""
        return None

    @classmethod
    def from_dial(cls, dial: str) -> "View":
        """Build the view of `name:dial`; override it unless `__init__` takes the dial as it is."""
        make: Callable[[str], View] = cls
        return make(dial)


VIEWS = Registry("view")
register = VIEWS.register


class ImageView(View):
    """A view of images: checks its input once, then calls `make_views`.

    The input is a batch or a single image `[C, H, W]`, so a view can be the last transform of a
    torchvision pipeline. Pixels are computed outside autocast; half precision is converted to
    float32 and rounded once at the end. All views of images share this
    `forward`, of which torch.compile keeps 8 variants; to compile many views or long chains, raise
    `torch._dynamo.config.recompile_limit`.

    Attributes:
        checks_range: whether floating-point images must lie in [0, 1].
    """

    checks_range: bool = True

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """Make the views of a checked batch `[B, C, H, W]`, uint8, float32 or float64."""
        raise NotImplementedError(f"{type(self).__name__} has no make_views")

    def smallest_side(self) -> int:
        """The minimum height and width of an image, in pixels."""
        return 1

    def forward(self, batch: object, generator: torch.Generator | None = None) -> Views:
        """Make the views of images `[B, C, H, W]` or of one image `[C, H, W]`.

        Args:
            batch: uint8 or floating point in [0, 1].
            generator: for random draws, on the CPU; None uses torch's global generator.

        Raises:
            TypeError: not a tensor, or a dtype that is neither uint8 nor floating point.
            ValueError: images of the wrong shape, too small, or out of range.
        """

        def check_and_split(images: Tensor) -> Views:
            self.check(images)
            return self.make_views(images, generator)

        images = check_tensor(batch, type(self).__name__, self.in_channels)
        return on_batch(check_and_split, images, keeps_range=self.augments and self.bounded)

    def check(self, images: Tensor) -> None:
        """Raise an error unless `images` is a batch that the view accepts."""
        check_images(
            images,
            f"{type(self).__name__}({self.extra_repr()})",
            channels=self.in_channels,
            smallest=self.smallest_side(),
            unit=self.checks_range,
        )


class Augmentation(ImageView, Generic[Draws]):
    """A view with random draws for each image of a batch; in eval mode it leaves images unchanged.

    `forward` checks the batch, then calls `draw` and `augment`; call these two yourself to keep,
    edit or plot the draws. A class with a single view is drawn independently for each view of a
    chain, as in `crop:0.2+color:lab`. One whose values leave [0, 1] must declare `bounded = False`.
    """

    channels: tuple[int, ...] = (3,)
    readout: tuple[int, ...] = (0,)
    in_channels: int | None = None
    augments = True

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> Draws:
        """Draw the random numbers for n images of height x width pixels, on the CPU."""
        raise NotImplementedError(f"{type(self).__name__} has no draw")

    def augment(self, images: Tensor, draws: Draws) -> Views:
        """Make the views of images `[B, C, H, W]`, uint8, float32 or float64, from given draws."""
        raise NotImplementedError(f"{type(self).__name__} has no augment")

    def still(self, images: Tensor) -> Views:
        """The views in eval mode: the whole images, once per view."""
        return (to_unit(images),) * len(self.channels)

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """Draw and augment in training mode; return the whole images in eval mode."""
        if not self.training:
            return self.still(images)
        n, _, height, width = images.shape
        return self.augment(images, self.draw(n, height, width, generator))


def on_batch(
    split: Callable[[Tensor], Views], images: Tensor, *, keeps_range: bool = False
) -> Views:
    """Call `split` on a batch, outside autocast.

    A single image `[C, H, W]` becomes a batch of one, and its views lose that axis again. Half
    precision is computed in float32. Views that are known to lie in [0, 1] are marked as validated:
    in a chain of augmentations only the first one reads pixels to check their range, and none does
    for uint8 images.

    Args:
        split: a function from a batch `[B, C, H, W]` to its views.
        images: `[B, C, H, W]` or `[C, H, W]`.
        keeps_range: whether the views of images in [0, 1] also lie in [0, 1].
    """
    half = images.dtype in (torch.float16, torch.bfloat16)
    single = images.dim() == 3
    batch = images[None] if single else images
    batch = batch.float() if half else batch
    notes = keeps_range and not torch.compiler.is_compiling()
    valid = notes and (images.dtype == torch.uint8 or is_validated(images))
    if valid:
        mark_validated(batch)  # which may be a new tensor
    with no_autocast(images.device.type):
        views = split(batch)
    # `split` may have checked the batch and then overwritten it
    valid = valid or (notes and was_validated(batch))
    if half:
        views = tuple(view.to(images.dtype) for view in views)
    if single:
        views = tuple(view[0] for view in views)
    if valid:
        for view in views:
            mark_validated(view)
    return views
