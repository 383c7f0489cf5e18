"""From words to views: `color:lab` is a view; parts are joined by `+`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..check import known
from .color import ColorSplit
from .shared import SharedFactors


def _color(dial: str) -> nn.Module:
    space, slash, split = dial.partition("/")
    return ColorSplit(space, split) if slash else ColorSplit(space)


FAMILIES: dict[str, Callable[[str], nn.Module]] = {"color": _color, "shared": SharedFactors}
DIALS = {
    "color": "the colour space, and after a slash how its channels are split: color:lab, color:ydbdr/01-2",
    "shared": "the factors that both views show: shared:nothing, shared:digit%5, shared:digit-position, shared:all",
}


class Then(nn.Module):
    """One view generator after another: view i of the whole is view i of `second`, made from view i of `first`.

    So `shared:digit+color:lab` shows the lightness of one scene and the colour of another that shares its digit.

    Args:
        first: gives n views.
        second: gives n views of an image, of which the i-th is kept for the i-th image.
    """

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__()
        if len(first.channels) != len(second.channels):
            raise ValueError(
                f"Then: got {len(first.channels)} views and then {len(second.channels)}, wanted equally many; change one"
            )
        self.first, self.second = first, second
        self.channels, self.readout, self.takes = second.channels, first.readout, getattr(first, "takes", "images")

    def forward(self, batch: object, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """A batch of what `first` takes -> as many views as each part gives."""
        return tuple(self.second(view, generator)[i] for i, view in enumerate(self.first(batch, generator)))


def parse(view: str) -> nn.Module:
    """The view that is written `family:dial`, or several joined by `+`.

    Args:
        view: for example `color:lab`, `color:rgb/01-2`, `shared:digit-position`, `shared:digit+color:lab`.

    Raises:
        ValueError: the family or its dial is unknown; the message lists the known ones.

    >>> parse("color:ydbdr").channels
    (1, 2)
    """
    first, plus, last = view.rpartition("+")
    if plus:
        return Then(parse(first), parse(last))
    family, colon, dial = view.partition(":")
    known(family, FAMILIES, f"view {view!r}: its family")
    if not colon or not dial:
        raise ValueError(f"view {view!r}: got no dial, wanted {family}:DIAL, where DIAL is {DIALS[family]}")
    return FAMILIES[family](dial)
