"""The base classes of views: what a view declares, and how views of images treat their input."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..common.checks import check_choice, check_images, is_mapped, to_unit
from ..common.precision import no_autocast
from ..common.registry import Registry

Views = tuple[Tensor, ...]
Draws = TypeVar("Draws")
TAKES = ("images", "scenes", "clips")


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

    @property
    def forward_only_checks(self) -> bool:
        """Whether `forward` checks images and then calls `make_views`, without more."""
        return False

    @property
    def is_trusted(self) -> bool:
        """Whether a chain uses its views unchecked."""
        return False

    @property
    def takes_inplace(self) -> bool:
        """Whether `make_views` takes `inplace=True`, which lets it write into the images.

        Its views are then the images or new tensors, none that it keeps.
        """
        return False

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """Make the views of a checked batch `[B, C, H, W]`, uint8, float32 or float64."""
        raise NotImplementedError(f"{type(self).__name__} has no make_views")

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
    """A view of images: checks its input, then calls `make_views`.

    The input is a batch, or a single image `[C, H, W]` of `in_channels` channels (1 or 3 if that is
    None), so a view can be a transform of a torchvision pipeline: of a `tv_tensors.Image` it makes
    such images. Pixels are computed outside autocast; half precision is converted to float32 and
    rounded once at the end.

    A chain of such views checks its input once and calls the `make_views` of its parts, so hooks of
    a part see nothing. All views of images share this `forward`, of which torch.compile keeps 8
    variants; to compile more views, raise `torch._dynamo.config.recompile_limit`.
    """

    @property
    def forward_only_checks(self) -> bool:
        """False for a class with a `forward` of its own."""
        return type(self).forward is ImageView.forward

    @property
    def is_trusted(self) -> bool:
        """Whether its images were checked."""
        return self.forward_only_checks

    def forward(self, batch: object, generator: torch.Generator | None = None) -> Views:
        """Make the views of images `[B, C, H, W]` or of one image `[C, H, W]`.

        Args:
            batch: uint8 or floating point in [0, 1].
            generator: for random draws, on the CPU; None uses torch's global generator.

        Raises:
            TypeError: not a tensor, or a dtype that is neither uint8 nor floating point.
            ValueError: images of the wrong shape, too small, or out of range.
        """
        return check_and_make(self, type(self).__name__, batch, generator)


class Augmentation(ImageView, Generic[Draws]):
    """A view with random draws for each image of a batch; in eval mode it leaves images unchanged.

    `forward` checks the batch, then calls `draw` and `augment`; call these two yourself to keep,
    edit or plot the draws. A class with a single view is drawn independently for each view of a
    chain, as in `crop:0.2+color:lab`. One whose values leave [0, 1] must declare `bounded = False`.

    An `augment` with a keyword `inplace` is passed True where a chain needs the images no more: it
    may then write into them, and must return them or new tensors, none that it keeps.
    """

    channels: tuple[int, ...] = (3,)
    readout: tuple[int, ...] = (0,)
    in_channels: int | None = None
    augments = True
    _augments_inplace: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)  # here, because a chain asks at every batch
        own = cls.make_views is Augmentation.make_views
        cls._augments_inplace = own and "inplace" in inspect.signature(cls.augment).parameters

    @property
    def takes_inplace(self) -> bool:
        """Whether `augment` does, and `make_views` is not overridden."""
        return self._augments_inplace

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

    def make_views(
        self, images: Tensor, generator: torch.Generator | None = None, *, inplace: bool = False
    ) -> Views:
        """Draw and augment in training mode; return the whole images in eval mode."""
        if not self.training:
            return self.still(images)
        check_batch_draws(type(self).__name__)
        n, _, height, width = images.shape
        draws = self.draw(n, height, width, generator)
        augment: Callable[..., Views] = self.augment
        views = augment(images, draws, inplace=True) if inplace else augment(images, draws)
        return check_tuple(views, f"{type(self).__name__}.augment")


def check_batch_draws(who: str) -> None:
    """Raise a RuntimeError where torch.func.vmap passes single images, as draws are for a batch."""
    if is_mapped():
        raise RuntimeError(
            f"{who}: got one image at a time from torch.func.vmap, for which nothing is drawn; "
            "call the view on the whole batch, outside vmap"
        )


def check_declared(view: View, who: str) -> None:
    """Raise a ValueError unless what a view declares fits together."""
    channels, readout = view.channels, view.readout

    def are_indices(value: object) -> bool:
        return isinstance(value, tuple) and all(
            type(i) is int and 0 <= i < len(channels) for i in value
        )

    are_counts = isinstance(channels, tuple) and all(type(c) is int and c > 0 for c in channels)
    if not are_counts or not readout or not are_indices(readout):
        raise ValueError(
            f"{who}: channels must be a tuple of the number of channels of each view, and "
            "readout a tuple of the views that a probe reads, counted from 0; "
            f"got channels={channels!r} and readout={readout!r}"
        )
    for suffix, indices in view.beside.items():
        if not are_indices(indices):
            raise ValueError(
                f"{who}: beside must give a tuple of views counted from 0, got {suffix}={indices!r}"
            )
    check_choice(view.takes, TAKES, f"{who}: takes")
    if view.tiles and (
        len(view.tiles) != len(channels)
        or any(
            type(n) is not int or n < 1 or c % n for c, n in zip(channels, view.tiles, strict=True)
        )
    ):
        raise ValueError(
            f"{who}: tiles must give the number of images stacked in the channels of each view, "
            f"got {view.tiles!r} for channels={channels!r}"
        )


def check_and_make(
    view: View,
    who: str,
    batch: object,
    generator: torch.Generator | None = None,
    *,
    unit: bool = True,
) -> Views:
    """Check images, then call `make_views`: the `forward` of views of images and their chains.

    Args:
        view: takes images.
        who: starts the error messages.
        batch: images `[B, C, H, W]` or `[C, H, W]`.
        generator: for random draws, on the CPU; None uses torch's global generator.
        unit: whether floating-point images must lie in [0, 1].
    """

    def make(images: Tensor) -> Views:
        return check_tuple(view.make_views(images, generator), who)

    images = check_images(batch, who, channels=view.in_channels, unit=unit)
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(
            f"{who}: generator must be a torch.Generator or None, got {type(generator).__name__}; "
            "in a torchvision pipeline, pass images only"
        )
    if type(images) is not Tensor:
        from torchvision import tv_tensors  # whoever has such images has imported it

        if isinstance(images, tv_tensors.Image):
            views = on_batch(make, images.as_subclass(Tensor))
            return tuple(tv_tensors.wrap(made, like=images) for made in views)
    return on_batch(make, images)


def check_tuple(views: object, who: str) -> Views:
    """Return a tuple of views; otherwise raise a TypeError."""
    if not isinstance(views, tuple | list):
        raise TypeError(
            f"{who}: must return a tuple of views, got {type(views).__name__}; "
            "return (view,) for a single one"
        )
    return tuple(views)


def on_batch(split: Callable[[Tensor], Views], images: Tensor) -> Views:
    """Call `split` on a batch, outside autocast.

    A single image becomes a batch of one, and its views lose that axis again. Half precision is
    computed in float32.

    Args:
        split: a function from a batch `[B, C, H, W]` to its views.
        images: `[B, C, H, W]` or `[C, H, W]`.
    """
    half = images.dtype in (torch.float16, torch.bfloat16)
    single = images.dim() == 3
    batch = images[None] if single else images
    with no_autocast(images.device.type):
        views = split(batch.float() if half else batch)
    if half:
        views = tuple(view.to(images.dtype) for view in views)
    return tuple(view[0] for view in views) if single else views
