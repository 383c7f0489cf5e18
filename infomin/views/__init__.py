"""Axis 1: the views. Each is a module: `forward(batch, generator=None) -> (v1, v2, …)`, with `.channels` and `.readout`.

`.channels` are the channels of each view, `.readout` numbers the views that a probe reads. `batch` is images `[B, C, H, W]`,
uint8 or floating point in [0, 1], on any device, or a single image `[C, H, W]`, unless the view says what else it `.takes`.
`.wants` is the number of channels that images must have, None for any. Draws come from `generator`, on the CPU, else from
torch's own; what draws says so by `.augments`, and leaves images as they are in eval mode. Where nothing is changed a view may be
the very tensor that came in, as in torchvision: clone it before you write over it. What `FAMILIES` maps a name to is called with
the dial of `name:dial`; a class that `.augments` and gives a single view is drawn anew for each view, as a crop is.
"""

from .augment.presets import Blur, Crop, Flip, Grey, Jigsaw, Jitter, MultiCrop, RandAugment, preset
from .color import ColorSplit
from .compose import FAMILIES, Each, Then, parse
from .flow import FlowSplit, PixelFlow
from .frequency import Frequency
from .patch import PatchPair
from .shared import SharedFactors, SharedFrames

__all__ = [
    "FAMILIES",
    "Blur",
    "ColorSplit",
    "Crop",
    "Each",
    "Flip",
    "FlowSplit",
    "Frequency",
    "Grey",
    "Jigsaw",
    "Jitter",
    "MultiCrop",
    "PatchPair",
    "PixelFlow",
    "RandAugment",
    "SharedFactors",
    "SharedFrames",
    "Then",
    "parse",
    "preset",
]
