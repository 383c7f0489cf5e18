"""From words to views, `crop:0.2+color:lab`: parts joined by `+` follow each other, those joined by `|` stand side by side."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as everywhere

from ..common.checks import check_choice, check_type
from .augment.presets import (
    AUGMENTATION_DIALS,
    AUGMENTATIONS,
    Blur,
    Crop,
    Flip,
    Grey,
    Jigsaw,
    Jitter,
    RandAugment,
)
from .color import ColorSplit
from .draws import writable
from .flow import learned
from .frequency import Frequency
from .patch import PatchPair
from .shared import SharedFactors, SharedFrames


class Then(nn.Module):
    """One view generator after another.

    If both give n views, view i of the whole is view i of `second`, made from view i of `first`: `shared:digit+color:lab` shows
    the lightness of one scene and the colour of another that shares its digit. If one of them gives a single view, it serves all
    views of the other: Then(Crop(), ColorSplit()) splits the colours of one crop, Then(PatchPair(8), Grey()) greys both patches.

    Args:
        first: gives one view or more.
        second: takes images; gives one view, or as many as `first`.

    Raises:
        TypeError: a part is no view.
        ValueError: the numbers of views or of channels do not fit, `second` takes scenes, or it takes colours in [0, 1] and
            `first` gives other numbers.
    """

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__()
        _views("Then", first, second)
        n, m = len(first.channels), len(second.channels)
        if n != m and 1 not in (n, m):
            raise ValueError(
                f"Then: got {n} views and then {m}, wanted equally many, or one on either side; change one"
            )
        if (takes := getattr(second, "takes", "images")) != "images":
            raise ValueError(
                f"Then: got a second part that takes {takes}, wanted one that takes images; put it first"
            )
        wanted = _wants(second)
        if wanted and set(first.channels) != {wanted}:
            cure = (
                "put it before the part that splits channels"
                if getattr(first, "takes", "images") == "images"
                else "leave it out"
            )
            raise ValueError(
                f"Then: got views of {', '.join(map(str, first.channels))} channels for {type(second).__name__}, wanted {wanted} "
                f"each; {cure}"
            )
        if wanted and getattr(first, "signed", False):
            raise ValueError(
                f"Then: got views with values outside [0, 1] for {type(second).__name__}, wanted colours; "
                "put it before the part that splits them"
            )
        self.first, self.second = first, second
        inner, outer = first.channels * (m if n == 1 else 1), second.channels * (n if m == 1 else 1)
        self.channels = outer if wanted else inner
        both = tuple(i for i in first.readout if i in second.readout) or first.readout
        self.readout = second.readout if n == 1 else first.readout if m == 1 else both
        self.takes = getattr(first, "takes", "images")
        self.wants, self.signed = (
            _wants(first) or wanted,
            any(getattr(part, "signed", False) for part in (first, second)),
        )
        self.beside = getattr(second if n == 1 else first, "beside", {})

    def forward(
        self, batch: object, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """A batch of what `first` takes -> as many views as the part that gives more."""
        views = self.first(batch, generator)
        if len(views) == 1:
            with writable(
                views[0],
                _ours(self)
                and isinstance(batch, Tensor)
                and batch.dim() == 4
                and views[0] is not batch,
            ):
                return self.second(views[0], generator)
        seconds = (self.second(view, generator) for view in views)
        return tuple(found[i if len(found) > 1 else 0] for i, found in enumerate(seconds))


# Of these it is known that they give either the images they take or memory of their own, and keep nothing that they hand on.
_KNOWN = (Blur, Crop, Flip, Grey, Jigsaw, Jitter, RandAugment)


def _ours(chain: Then) -> bool:
    """Whether no one but its two parts reads what lies between them, so that the second may write its result over it."""
    hooks = [
        hooks
        for part in chain.modules()
        for hooks in (part._forward_hooks, part._forward_pre_hooks)
    ]
    if torch.compiler.is_compiling() or any(
        (*hooks, everywhere._global_forward_hooks, everywhere._global_forward_pre_hooks)
    ):
        return False
    return all(
        type(part) in _KNOWN or (type(part) is Then and _ours(part))
        for part in (chain.first, chain.second)
    )


class Each(nn.Module):
    """View generators side by side: the views of the first, then those of the second, …, all of the same batch.

    So Each(Grey(1), Crop()) contrasts an image without colour with a part of it, and Each(pipeline, pipeline) an image's two
    draws of the same pipeline.

    Args:
        parts: one or more, all of images or all of scenes.

    >>> from infomin.views import ColorSplit
    >>> Each(ColorSplit("lab"), ColorSplit("rgb", "012")).channels
    (1, 2, 3)
    """

    def __init__(self, *parts: Any) -> None:
        super().__init__()
        _views("Each", *parts)
        takes = {getattr(part, "takes", "images") for part in parts}
        wants = {_wants(part) for part in parts} - {None}
        if len(takes) != 1 or len(wants) > 1:
            raise ValueError(
                f"Each: got parts that take {' and '.join(sorted(takes)) or 'nothing'} of {sorted(map(str, wants))} channels, "
                "wanted one part or more, all alike; change one"
            )
        self.parts = nn.ModuleList(parts)
        self.channels = tuple(channels for part in parts for channels in part.channels)
        starts = [sum(len(part.channels) for part in parts[:i]) for i in range(len(parts))]
        self.readout = tuple(
            start + i for start, part in zip(starts, parts, strict=True) for i in part.readout
        )
        told = [
            (start, getattr(part, "beside", {})) for start, part in zip(starts, parts, strict=True)
        ]
        self.beside = {
            name: tuple(start + i for i in views)
            for start, some in told
            for name, views in some.items()
        }
        self.takes, self.wants = takes.pop(), next(iter(wants), None)
        self.signed = any(getattr(part, "signed", False) for part in parts)

    def forward(
        self, batch: object, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """A batch of what the parts take -> the views of all."""
        return tuple(view for part in self.parts for view in part(batch, generator))


def _views(who: str, *parts: Any) -> None:
    for part in parts:
        if not hasattr(part, "channels"):
            raise TypeError(
                f"{who}: got a {type(part).__name__}, wanted views, which have .channels; call it on the images "
                "before, or on each view after"
            )


def _wants(view: Any) -> int | None:
    """How many channels a view wants its images to have; None is any, and then its views have as many."""
    return getattr(view, "wants", 3)


def _color(dial: str) -> nn.Module:
    space, slash, split = dial.partition("/")
    return ColorSplit(space, split) if slash else ColorSplit(space)


def _patch(dial: str) -> nn.Module:
    distance, slash, size = dial.partition("/")
    if not distance.isdecimal() or (slash and not size.isdecimal()):
        raise ValueError(
            f"view 'patch:{dial}': got no whole numbers, wanted the distance, or distance/side, in px: patch:64/32"
        )
    return PatchPair(int(distance), int(size)) if slash else PatchPair(int(distance))


def _frequency(dial: str) -> nn.Module:
    written = "write sigmas in px, for example frequency:1 or frequency:1-4"
    try:
        sigmas = [float(sigma) for sigma in dial.split("-")]
    except ValueError:
        raise ValueError(f"view 'frequency:{dial}': got no numbers; {written}") from None
    try:
        return Frequency(*sigmas)
    except ValueError as error:
        raise ValueError(f"view 'frequency:{dial}': {error}; {written}") from error


FAMILIES: dict[str, Callable[[str], Any]] = {
    "color": _color,
    "shared": SharedFactors,
    "frames": SharedFrames,
    "patch": _patch,
    "frequency": _frequency,
    "flow": learned,
    **AUGMENTATIONS,
}
BUILT_IN = dict(FAMILIES)  # for a user may add to the families, and put another in the place of one
DIALS = {
    "color": "the colour space, and after a slash how its channels are split: color:lab, color:ydbdr/01-2",
    "shared": "the factors that both views show: shared:nothing, shared:digit%5, shared:digit-position, shared:all",
    "frames": "what the past of a clip shares with one image: frames:nothing, frames:digit, frames:digit-background, frames:all",
    "patch": "the distance of two patches along the diagonal, and after a slash their side, in px: patch:64, patch:16/32",
    "frequency": "where the image is split into low and high frequencies, sigma in px: frequency:0.7, frequency:1-4",
    "flow": "the file of a learned flow, whose first channel is contrasted with the others: flow:learned.safetensors",
    **AUGMENTATION_DIALS,
}


def parse(view: str) -> Any:
    """The view that is written `family:dial`, or several joined by `+` and `|`.

    An augmentation gives one view of an image, and is drawn anew for each view that a chain has: `crop:0.2+color:lab` shows the
    lightness of one crop and the colour of another. A chain of nothing but augmentations has two: `crop:0.2+grey:0.2` is drawn
    twice. A slash and a number fix how often: `crop:0.2/1+color:lab` splits the colours of one crop, `crop:0.2/3` makes three.

    Args:
        view: for example `color:lab`, `shared:digit+color:lab`, `crop:0.2+jitter:1`, `patch:8/32`, `grey:1|crop:0.2+jitter:1`.

    Raises:
        ValueError: a family or its dial is unknown, or parts do not fit; the message says what is known.

    >>> parse("color:ydbdr").channels, parse("crop:0.2").channels, parse("crop:0.2|grey:1|blur:1").channels
    ((1, 2), (3, 3), (3, 3, 3))
    """
    check_type(view, str, "view")
    if view and not all(view.replace("|", "+").split("+")):
        raise ValueError(
            f"view {view!r}: got nothing beside a + or |, wanted one of {', '.join(FAMILIES)}; pick one of those"
        )
    chains = [_chain(words) for words in view.split("|")]
    if len(chains) > 1:
        return Each(*(chain for chain, _ in chains))
    chain, anew = chains[0]
    return Each(chain, chain) if anew else chain


def _chain(words: str) -> tuple[Any, bool]:
    """Parts joined by `+`, and whether they are drawn anew for each view."""
    return reduce(_follow, map(_part, words.split("+")))


def _follow(before: tuple[Any, bool], after: tuple[Any, bool]) -> tuple[Any, bool]:
    (first, anew), (second, also) = before, after
    views = len(second.channels)
    return Then(Each(*[first] * views) if anew and views > 1 else first, second), anew and also


def _own(word: str, make: Callable[[str], Any], dial: str) -> Any:
    """The view that a user's family makes of a dial; what goes wrong there is told with the words that were written."""
    try:
        made = make(dial)
    except (TypeError, ValueError) as error:
        raise ValueError(f"view {word!r}: {error}") from error
    for name, what in (
        ("channels", "the channels of each of its views"),
        ("readout", "the numbers of those a probe reads"),
    ):
        if not isinstance(getattr(made, name, None), Sequence):
            raise ValueError(
                f"view {word!r}: got a {type(made).__name__}, wanted a module with .{name}, a tuple of {what}"
            )
    return made


def _part(word: str) -> tuple[Any, bool]:
    family, colon, dial = word.partition(":")
    check_choice(family, FAMILIES, f"view {word!r}: its family")
    if not colon or not dial:
        raise ValueError(
            f"view {word!r}: got no dial, wanted {family}:DIAL, where DIAL is {DIALS.get(family, 'what it can be varied by')}"
        )
    make, augments = FAMILIES[family], family in AUGMENTATIONS
    if make is not BUILT_IN.get(family):
        make, augments = partial(_own, word, make), getattr(make, "augments", False)
    if not augments:
        return make(dial), False
    dial, slash, times = dial.partition("/")
    made: Any = make(dial)
    view: Any = reduce(Then, made) if isinstance(made, list) else made
    if slash and (not times.isdecimal() or int(times) < 1 or len(view.channels) > 1):
        raise ValueError(
            f"view {word!r}: got {times!r} after the slash, wanted how often a single view is drawn: {family}:{dial}/1"
        )
    if slash:
        return (Each(*[view] * int(times)) if times != "1" else view), False
    return view, len(view.channels) == 1
