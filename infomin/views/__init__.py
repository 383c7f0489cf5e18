"""Axis 1: the views. A view is a module: a batch in, a tuple of views out.

`base` defines the contract; `words` parses words such as `crop:0.2+color:lab`. To add a family,
add one file here with a class derived from `View`, `ImageView` or `Augmentation` and decorate it
with `@register("name", dial="…")`. Every module of this package is imported, so no other file
changes.

A view that changes nothing may return its input tensor itself, as torchvision's transforms do:
clone it before writing to it. Random draws come from a generator on the CPU.
"""

from .augment import Blur, Crop, Flip, Grey, Jigsaw, Jitter, MultiCrop, RandAugment
from .augment.presets import preset
from .base import VIEWS, Augmentation, ImageView, View, register
from .bits import Bits
from .color import ColorSplit
from .compose import Each, PerView, Then, try_parts
from .flow import FlowSplit, PixelFlow
from .frequency import Frequency
from .patch import PatchPair
from .shared import SharedFactors, SharedFrames
from .words import parse

__all__ = [
    "VIEWS",
    "Augmentation",
    "Bits",
    "Blur",
    "ColorSplit",
    "Crop",
    "Each",
    "Flip",
    "FlowSplit",
    "Frequency",
    "Grey",
    "ImageView",
    "Jigsaw",
    "Jitter",
    "MultiCrop",
    "PatchPair",
    "PerView",
    "PixelFlow",
    "RandAugment",
    "SharedFactors",
    "SharedFrames",
    "Then",
    "View",
    "parse",
    "preset",
    "register",
    "try_parts",
]

VIEWS.load_members(__name__, __path__)
