"""Augmentations: views with random draws for each image of a batch."""

from .blur import Blur
from .crop import Crop
from .jigsaw import Jigsaw
from .jitter import Jitter
from .multicrop import MultiCrop
from .randaugment import RandAugment
from .sometimes import Flip, Grey

__all__ = ["Blur", "Crop", "Flip", "Grey", "Jigsaw", "Jitter", "MultiCrop", "RandAugment"]
