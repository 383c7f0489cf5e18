"""Axis 1: the views. Each is a module: `forward(batch, generator=None) -> (v1, v2, …)`, with `.channels` and `.readout`."""

from .color import ColorSplit
from .compose import FAMILIES, parse
from .shared import SharedFactors

__all__ = ["FAMILIES", "ColorSplit", "SharedFactors", "parse"]
