"""Data sets: scenes with known factors, clips, image files, and batches of them."""

from .batches import Part, batch_rows, batches_by_step, first_rows
from .datasets import Split, load, tasks

__all__ = ["Part", "Split", "batch_rows", "batches_by_step", "first_rows", "load", "tasks"]
