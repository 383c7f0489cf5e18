"""What views are made from: data sets, scenes with known factors, clips, image files."""

from .batches import Part, first, order
from .datasets import Split, load, tasks

__all__ = ["Part", "Split", "first", "load", "order", "tasks"]
