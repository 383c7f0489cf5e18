"""Augmentations: views with random draws for each image of a batch."""

from .blur import Blur
from .crop import Crop, Flip
from .jigsaw import Jigsaw
from .jitter import Grey, Jitter
from .multicrop import MultiCrop
from .randaugment import RandAugment

__all__ = ["Blur", "Crop", "Flip", "Grey", "Jigsaw", "Jitter", "MultiCrop", "RandAugment"]
