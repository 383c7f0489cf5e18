"""Composition of views, in Python and in words: `crop:0.2+color:lab`, `grey:1|crop:0.2`.

`+` applies one view after another (`Then`), `|` puts views side by side (`Each`).
"""

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.nn.modules import module as module_hooks

from ..common.checks import check_choice, check_type
from .augment.blur import Blur
from .augment.crop import Crop, Flip
from .augment.jigsaw import Jigsaw
from .augment.jitter import Grey, Jitter
from .augment.randaugment import RandAugment
from .base import VIEWS, View, Views
from .draws import writable


class Then(View):
    """One view after another.

    If both give n views, view i of the result is view i of `second` applied to view i of `first`:
    `shared:digit+color:lab` shows the lightness of one scene and the colour of another scene with
    the same digit. A part that gives a single view is combined with every view of the other part:
    Then(Crop(), ColorSplit()) splits the colours of one crop, Then(PatchPair(8), Grey()) turns both
    patches grey.

    Args:
        first: gives one or more views.
        second: takes images. Gives one view or as many as `first`; any number if `first` gives one.

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
        if second.in_channels is None:  # its views have as many channels as its images
            self.channels = first.channels * m if n == 1 else first.channels
        else:
            self.channels = second.channels * n if m == 1 else second.channels
        if n == 1:
            self.readout = second.readout
        elif m == 1:
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

    def forward(self, batch: object, generator: torch.Generator | None = None) -> Views:
        """A batch of what `first` takes, to as many views as the part that gives more of them."""
        views = self.first(batch, generator)
        if len(views) == 1:
            is_new = isinstance(batch, Tensor) and batch.dim() == 4 and views[0] is not batch
            with writable(views[0], is_new and _may_overwrite(self)):
                return self.second(views[0], generator)
        outputs = [self.second(view, generator) for view in views]
        return tuple(
            output[i] if len(output) > 1 else output[0] for i, output in enumerate(outputs)
        )


# Each returns its input or new memory, and keeps no reference to what it returns.
_KEEPS_NOTHING = (Blur, Crop, Flip, Grey, Jigsaw, Jitter, RandAugment)


def _may_overwrite(chain: Then) -> bool:
    """Whether nothing but the two parts of a chain reads the images between them."""
    hooks: list[object] = [
        module_hooks._global_forward_hooks,
        module_hooks._global_forward_pre_hooks,
    ]
    for module in chain.modules():
        hooks += [module._forward_hooks, module._forward_pre_hooks]
    if torch.compiler.is_compiling() or any(hooks):
        return False
    return all(
        type(part) in _KEEPS_NOTHING or (isinstance(part, Then) and _may_overwrite(part))
        for part in (chain.first, chain.second)
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
        self.parts = torch.nn.ModuleList(parts)
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

    def forward(self, batch: object, generator: torch.Generator | None = None) -> Views:
        """A batch of what the parts take, to the views of all parts."""
        return tuple(view for part in self.parts for view in part(batch, generator))


def _check_views(caller: str, *parts: object) -> None:
    for part in parts:
        if not isinstance(part, View):
            raise TypeError(
                f"{caller}: parts must be of type infomin.views.View, got a {type(part).__name__}; "
                "derive its class from View"
            )


def _check_chain(first: View, second: View) -> None:
    """Raise a ValueError unless `second` can take the views of `first`."""
    n, m = len(first.channels), len(second.channels)
    name = type(second).__name__
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


def parse(view: str) -> View:
    """Build a view from its word: `family:dial`, or several joined by `+` and `|`.

    An augmentation that gives one view of an image is drawn separately for each view of a chain:
    `crop:0.2+color:lab` shows the lightness of one crop and the colour of another. A chain of
    augmentations only has two views: `crop:0.2+grey:0.2` is drawn twice. A number after a slash
    sets how often it is drawn: `crop:0.2/1+color:lab` splits the colours of one crop, `crop:0.2/3`
    gives three crops.

    Args:
        view: for example `color:lab`, `shared:digit+color:lab`, `crop:0.2+jitter:1`, `patch:8/32`,
            `grey:1|crop:0.2+jitter:1`.

    Raises:
        ValueError: an unknown family (the message lists the known ones), a dial that the family
            does not accept, or parts that do not fit together.

    >>> parse("color:ydbdr").channels, parse("crop:0.2").channels
    ((1, 2), (3, 3))
    >>> parse("crop:0.2|grey:1|blur:1").channels
    (3, 3, 3)
    """
    check_type(view, str, "view")
    if view and not all(view.replace("|", "+").split("+")):
        raise ValueError(
            f"view {view!r}: a part is missing next to + or |; add one of {', '.join(VIEWS)}"
        )
    chains = [_parse_chain(words) for words in view.split("|")]
    if len(chains) > 1:
        return Each(*(chain for chain, _ in chains))
    chain, redrawn = chains[0]
    return Each(chain, chain) if redrawn else chain


def _parse_chain(words: str) -> tuple[View, bool]:
    """The view of parts joined by `+`, and whether it is drawn separately for each view."""
    return reduce(_append_part, map(_parse_part, words.split("+")))


def _append_part(before: tuple[View, bool], after: tuple[View, bool]) -> tuple[View, bool]:
    (first, first_redrawn), (second, second_redrawn) = before, after
    views = len(second.channels)
    if first_redrawn and views > 1:
        first = Each(*[first] * views)
    return Then(first, second), first_redrawn and second_redrawn


def _parse_part(word: str) -> tuple[View, bool]:
    """The view of one `family:dial`, and whether it is drawn separately for each view."""
    family, colon, dial = word.partition(":")
    check_choice(family, VIEWS, f"view {word!r}: family")
    about = f"the dial of {family} is {VIEWS.dial(family) or 'the text it is built from'}"
    if not colon or not dial:
        raise ValueError(f"view {word!r}: the dial is missing; {about}")
    make = VIEWS[family]
    if not _is_single_augmentation(make):
        return _make_view(make, word, dial, about), False
    dial, slash, times = dial.partition("/")
    view = _make_view(make, word, dial, about)
    if not slash:
        return view, True
    if not times.isdecimal() or int(times) < 1:
        raise ValueError(
            f"view {word!r}: the number after the slash must be 1 or more, got {times!r}; "
            f"write {family}:{dial}/1 to draw the view once"
        )
    return (Each(*[view] * int(times)) if times != "1" else view), False


def _is_single_augmentation(make: Callable[..., object]) -> bool:
    """Whether a family is an augmentation of one view, which a chain draws once per view."""
    if not (isinstance(make, type) and issubclass(make, View)):
        return False
    return make.augments and isinstance(make.channels, tuple) and len(make.channels) == 1


def _make_view(make: Callable[..., object], word: str, dial: str, about: str) -> View:
    """Build a view from its dial and check what it declares."""
    build = make
    if isinstance(make, type) and issubclass(make, View):
        build = make.from_dial
    try:
        view = build(dial)
    except (TypeError, ValueError) as error:
        raise ValueError(f"view {word!r}: {error}; {about}") from error
    if not isinstance(view, View):
        raise ValueError(
            f"view {word!r}: a family must build an infomin.views.View, "
            f"got a {type(view).__name__}; derive its class from View"
        )
    channels, readout = view.channels, view.readout
    for suffix, indices in view.beside.items():
        if not isinstance(indices, tuple) or not set(indices) <= set(range(len(channels))):
            raise ValueError(
                f"view {word!r}: beside must give a tuple of views counted from 0, got "
                f"{suffix}={indices!r}"
            )
    are_tuples = isinstance(channels, tuple) and isinstance(readout, tuple)
    if not are_tuples or not readout or not set(readout) <= set(range(len(channels))):
        raise ValueError(
            f"view {word!r}: channels must be a tuple of the number of channels of each view, and "
            "readout a tuple of the views that a probe reads, counted from 0; "
            f"got channels={channels!r} and readout={readout!r}"
        )
    return view
