"""Composition of views: one after another (`Then`) or side by side (`Each`)."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..common.checks import check_images, is_traced
from .base import View, Views, check_and_make, check_declared, check_tuple, on_batch
from .bits import Bits


class Then(View):
    """One view after another.

    If both give n views, view i of the result is view i of `second` applied to view i of `first`:
    `shared:digit+color:lab` shows the lightness of one scene and the colour of another scene with
    the same digit. A part that gives a single view is combined with every view of the other part:
    Then(Crop(), ColorSplit()) splits the colours of one crop, Then(PatchPair(8), Grey()) turns both
    patches grey. Then(first, Bits(8)) appends the same bits to all views of `first`; its nats are
    known where those of `first` are.

    Images are checked on the way in, and after a view of your own that is no `ImageView`.

    Args:
        first: gives one or more views.
        second: takes images. Gives one view or as many as `first`; any number if `first` gives one;
            Bits after any number.

    Raises:
        TypeError: a part is not a View.
        ValueError: the numbers of views or channels do not match, `second` does not take images, or
            it needs values in [0, 1] and `first` gives others.
    """

    def __init__(self, first: View, second: View) -> None:
        super().__init__()
        _check_views("Then", first, second)
        _check_chain(first, second)
        self.first, self.second = first, second
        n, m = len(first.channels), len(second.channels)
        if isinstance(second, Bits):
            self.channels = second.channels_after(first.channels)
        elif second.in_channels is None:  # its views have as many channels as its images
            self.channels = first.channels * m if n == 1 else first.channels
        else:
            self.channels = second.channels * n if m == 1 else second.channels
        if n == 1:
            self.readout = second.readout
        elif m == 1 or isinstance(second, Bits):
            self.readout = first.readout
        else:
            common = tuple(i for i in first.readout if i in second.readout)
            self.readout = common or first.readout
        self.takes = first.takes
        self.in_channels = first.in_channels or second.in_channels
        self.bounded = first.bounded and second.bounded
        self.augments = first.augments or second.augments
        self.beside = dict(second.beside if n == 1 else first.beside)
        self.tiles = second.tiles if n == 1 else first.tiles

    @property
    def forward_only_checks(self) -> bool:
        """Whether that is so for both parts."""
        own = type(self).forward is Then.forward
        return own and self.first.forward_only_checks and self.second.forward_only_checks

    @property
    def is_trusted(self) -> bool:
        """Whether the second part is."""
        return type(self).forward is Then.forward and self.second.is_trusted

    def forward(self, batch: object, generator: torch.Generator | None = None) -> Views:
        """A batch of what `first` takes, to as many views as the part that gives more of them."""
        if self.forward_only_checks:
            return check_and_make(self, _name(self), batch, generator)

        def make_second(view: Tensor) -> Views:
            if not self.second.forward_only_checks:
                return self.second(view, generator)
            if self.first.is_trusted:
                return on_batch(lambda images: self.second.make_views(images, generator), view)
            who = f"views of {_name(self.first)}"
            return check_and_make(self.second, who, view, generator, unit=self.first.bounded)

        return self.pair(self.first(batch, generator), make_second, generator)

    def nats(self, batch: object) -> float | None:
        """Those of `first` and of Bits after it, which are independent; otherwise unknown."""
        if not isinstance(self.second, Bits):
            return None
        nats = self.first.nats(batch)
        return None if nats is None else nats + self.second.bit_nats

    @property
    def takes_inplace(self) -> bool:
        """Whether both parts do."""
        own = type(self).make_views is Then.make_views
        return own and self.first.takes_inplace and self.second.takes_inplace

    def make_views(
        self, images: Tensor, generator: torch.Generator | None = None, *, inplace: bool = False
    ) -> Views:
        """The same of a checked batch of images, which no part checks again."""
        views = _make(self.first, images, generator, inplace)
        may_write = self.takes_inplace and (inplace or not _share_memory(views, images))
        return self.pair(
            views, lambda view: _make(self.second, view, generator, may_write), generator
        )

    def pair(
        self,
        views: Views,
        make_second: Callable[[Tensor], Views],
        generator: torch.Generator | None = None,
    ) -> Views:
        """The views of the chain from those of its first part."""
        views = check_tuple(views, _name(self.first))
        if isinstance(self.second, Bits):
            return self.second.append(views, generator)
        outputs = [check_tuple(make_second(view), _name(self.second)) for view in views]
        if len(views) == 1:
            return outputs[0]
        return tuple(
            output[i] if len(output) > 1 else output[0] for i, output in enumerate(outputs)
        )


class Each(View):
    """Views side by side: those of the first part, then those of the second, …, of one batch.

    Each(Grey(1), Crop()) contrasts an image without colour with a crop of it;
    Each(pipeline, pipeline) contrasts two draws of one pipeline.

    Args:
        parts: one or more; all take images, or all scenes, or all clips.

    Raises:
        TypeError: a part is not a View.
        ValueError: no parts, or parts that take different inputs.

    >>> from infomin.views import ColorSplit
    >>> Each(ColorSplit("lab"), ColorSplit("rgb", "012")).channels
    (1, 2, 3)
    """

    def __init__(self, *parts: View) -> None:
        super().__init__()
        _check_views("Each", *parts)
        takes = {part.takes for part in parts}
        in_channels = {part.in_channels for part in parts} - {None}
        if not parts:
            raise ValueError("Each: need at least one part, got none")
        if len(takes) > 1:
            raise ValueError(
                f"Each: parts must take the same input, got parts for {' and '.join(sorted(takes))}"
            )
        if len(in_channels) > 1:
            raise ValueError(
                "Each: parts must take images of the same number of channels, got parts for "
                f"{' and '.join(sorted(map(str, in_channels)))}"
            )
        self.parts: Any = nn.ModuleList(parts)
        self.takes = takes.pop()
        self.in_channels = next(iter(in_channels), None)
        self.bounded = all(part.bounded for part in parts)
        self.augments = any(part.augments for part in parts)
        tiles = [part.tiles or (1,) * len(part.channels) for part in parts]
        self.tiles = sum(tiles, ()) if any(part.tiles for part in parts) else ()
        self.channels, self.readout, self.beside = (), (), {}
        for part in parts:
            start = len(self.channels)
            self.channels += part.channels
            self.readout += tuple(start + i for i in part.readout)
            for name, views in part.beside.items():
                self.beside[name] = tuple(start + i for i in views)

    @property
    def forward_only_checks(self) -> bool:
        """Whether that is so for all parts."""
        own = type(self).forward is Each.forward
        return own and all(part.forward_only_checks for part in self.parts)

    @property
    def is_trusted(self) -> bool:
        """Whether all parts are."""
        return type(self).forward is Each.forward and all(part.is_trusted for part in self.parts)

    def forward(self, batch: object, generator: torch.Generator | None = None) -> Views:
        """A batch of what the parts take, to the views of all parts."""
        if self.forward_only_checks:
            return check_and_make(self, _name(self), batch, generator)
        views = (check_tuple(part(batch, generator), _name(part)) for part in self.parts)
        return tuple(view for some in views for view in some)

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """The same of a checked batch of images, which no part checks again."""
        views = (
            check_tuple(part.make_views(images, generator), _name(part)) for part in self.parts
        )
        return tuple(view for some in views for view in some)


class PerView(nn.Module):
    """Apply a transform to every view of a tuple: PerView(v2.Normalize([0.5], [0.5])).

    For transforms that follow a view in a torchvision pipeline: of several plain tensors, those of
    torchvision change the first one only.

    Args:
        transform: takes one view. A random transform is drawn separately for each view.

    >>> PerView(torch.neg)((torch.ones(1), torch.zeros(1)))
    (tensor([-1.]), tensor([-0.]))
    """

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, views: Views) -> Views:
        """The tuple of transformed views."""
        if not isinstance(views, tuple | list):
            raise TypeError(
                f"PerView: views must be a tuple, got {type(views).__name__}; pass (view,)"
            )
        return tuple(self.transform(view) for view in views)


def try_parts(
    view: View, batch: object, generator: torch.Generator | None = None, *, unit: bool = True
) -> Views:
    """Make the views of a batch and check those of each part against what the part declares.

    A chain trusts its parts; a run calls this before its first step.

    Args:
        view: a chain, or any view.
        batch: what it takes; images `[B, C, H, W]` that were checked.
        generator: for random draws, on the CPU; None uses torch's global generator.
        unit: whether floating-point images lie in [0, 1]; those of a colour space do not.

    Raises:
        TypeError: a part gives no tuple of images.
        ValueError: another number of views, of channels, or values outside [0, 1] though the part
            is `bounded`.
    """

    def try_part(part: View, images: object, unit: bool) -> Views:
        return try_parts(part, images, generator, unit=unit)

    if isinstance(view, Then):
        still = unit and view.first.bounded
        views = try_part(view.first, batch, unit)
        views = view.pair(views, lambda made: try_part(view.second, made, still), generator)
    elif isinstance(view, Each):
        views = tuple(made for part in view.parts for made in try_part(part, batch, unit))
    elif view.forward_only_checks and isinstance(batch, Tensor):
        views = view.make_views(batch, generator)
    else:
        views = view(batch, generator)
    name = _name(view)
    views = check_tuple(views, name)
    if len(views) != len(view.channels):
        raise ValueError(
            f"{name}: got {len(views)} views, wanted {len(view.channels)}, as its channels declare"
        )
    for made, channels in zip(views, view.channels, strict=True):
        wanted = channels if view.in_channels else None
        check_images(made, f"views of {name}", channels=wanted, unit=unit and view.bounded)
    return views


def _make(view: View, images: Tensor, generator: torch.Generator | None, inplace: bool) -> Views:
    if not inplace:
        return view.make_views(images, generator)
    return cast(Any, view).make_views(images, generator, inplace=True)


def _share_memory(views: Views, images: Tensor) -> bool:
    """Whether writing into a view might change the images, another view or a gradient."""
    if len(views) > 1 or views[0].requires_grad or is_traced():
        return True
    return views[0].untyped_storage().data_ptr() == images.untyped_storage().data_ptr()


def _name(view: View) -> str:
    """The classes of a chain, as error messages call it."""
    if isinstance(view, Then):
        return f"{_name(view.first)}+{_name(view.second)}"
    if isinstance(view, Each):
        return "|".join(map(_name, view.parts))
    return type(view).__name__


def _check_views(caller: str, *parts: object) -> None:
    for part in parts:
        if not isinstance(part, View):
            raise TypeError(
                f"{caller}: parts must be of type infomin.views.View, got {type(part).__name__}; "
                "derive its class from View"
            )
        check_declared(part, f"{caller}({_name(part)})")


def _check_chain(first: View, second: View) -> None:
    """Raise a ValueError unless `second` can take the views of `first`."""
    n, m = len(first.channels), len(second.channels)
    name = type(second).__name__
    if isinstance(second, Bits):
        if first.tiles:
            raise ValueError(
                f"Then: Bits takes views of one image each, got {_name(first)}, which stacks "
                "several in a view; leave the bits out"
            )
        return
    if n > 1 and any(isinstance(part, Bits) for part in second.modules()):
        raise ValueError(
            f"Then: got Bits inside {_name(second)} after {n} views, each of which would get bits "
            "of its own; compose from the left: Then(Then(first, Bits(8)), last)"
        )
    if n != m and 1 not in (n, m):
        raise ValueError(
            f"Then: got {n} views and then {m}, wanted equally many, or one on either side"
        )
    if second.takes != "images":
        raise ValueError(
            f"Then: the second part must take images, got one that takes {second.takes}; "
            "put it first"
        )
    if second.in_channels is None:
        return
    if set(first.channels) != {second.in_channels}:
        remedy = "leave it out"
        if first.takes == "images":
            remedy = "put it before the part that splits channels"
        raise ValueError(
            f"Then: {name} takes images of {second.in_channels} channels, got views of "
            f"{', '.join(map(str, first.channels))}; {remedy}"
        )
    if not first.bounded:
        raise ValueError(
            f"Then: {name} takes images in [0, 1], got views with other values; "
            "put it before the part that gives them"
        )
