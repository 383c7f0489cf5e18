"""Axis 1: the views. A view is a module: a batch in, a tuple of views out.

`base` has the contract, `compose` the words (`crop:0.2+color:lab`). A new family is one file in this
room: a class derived from `View`, `ImageView` or `Augmentation` and decorated with
`@register("name", dial="…")`. Every module here is imported, so nothing else has to be edited.

Where a view changes nothing it may return the very tensor that came in, as torchvision does: clone
it before you write to it. Random draws come from a generator on the CPU.
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
