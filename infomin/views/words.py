"""View words: `crop:0.2+color:lab` is one view after another, `grey:1|crop:0.2` side by side."""

from collections.abc import Callable
from functools import reduce

from ..common.checks import check_type
from .base import VIEWS, View, check_declared
from .compose import Each, Then


def parse(view: str) -> View:
    """Build a view from its word: `family:dial`, or several joined by `+` and `|`.

    An augmentation that gives one view of an image is drawn separately for each view of a chain:
    `crop:0.2+color:lab` shows the lightness of one crop and the colour of another. A chain of
    augmentations only has two views: `crop:0.2+grey:0.2` is drawn twice. A number after a slash
    sets how often it is drawn: `crop:0.2/1+color:lab` splits the colours of one crop, `crop:0.2/3`
    gives three crops. `bits:8` at the end of a chain shows the same bits in all of its views.

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
    if family not in VIEWS:
        raise ValueError(
            f"view {word!r}: family: got {family!r}, wanted one of {', '.join(VIEWS)}; "
            "a view of your own has to be registered first, which is done in Python"
        )
    about = f"the dial of {family} is {VIEWS.dial(family) or 'the text it is built from'}"
    if "," in dial:
        about += "; commas join several views in a sweep only"
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
    except (ArithmeticError, LookupError) as error:  # whose text says little
        raise ValueError(f"view {word!r}: {type(error).__name__}: {error}; {about}") from error
    if not isinstance(view, View):
        raise ValueError(
            f"view {word!r}: a family must build an infomin.views.View, "
            f"got {type(view).__name__}; derive its class from View"
        )
    check_declared(view, f"view {word!r}")
    return view
