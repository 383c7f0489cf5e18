"""Axis 1: the views. A view is a module: a batch in, a tuple of views out.

`base` defines the contract; `compose` parses view words such as `crop:0.2+color:lab`. To add a
family, add one file here with a class derived from `View`, `ImageView` or `Augmentation` and
decorated with `@register("name", dial="…")`. Every module of this package is imported, so no other
file changes.

A view that changes nothing may return its input tensor itself, as torchvision's transforms do:
clone it before writing to it. Random draws come from a generator on the CPU.
"""

from .augment import Blur, Crop, Flip, Grey, Jigsaw, Jitter, MultiCrop, RandAugment
from .augment.presets import preset
from .base import VIEWS, Augmentation, ImageView, View, register
from .color import ColorSplit
from .compose import Each, Then, parse
from .flow import FlowSplit, PixelFlow
from .frequency import Frequency
from .patch import PatchPair
from .shared import SharedFactors, SharedFrames

__all__ = [
    "VIEWS",
    "Augmentation",
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
    "PixelFlow",
    "RandAugment",
    "SharedFactors",
    "SharedFrames",
    "Then",
    "View",
    "parse",
    "preset",
    "register",
]

VIEWS.load_members(__name__, __path__)
