"""Budgets that experiments share."""

from typing import Any

TINY: dict[str, Any] = {
    "steps": 4,
    "batch": 32,
    "candidates": 64,
    "probe_images": 256,
    "width": 0.25,
}  # only shows that it runs
STL10: dict[str, Any] = {  # 100 epochs of two views that one network sees, for a GPU
    "seeds": 3,
    "data": "stl10",
    "task": "class",
    "size": 64,
    "encoder": "resnet18",
    "share_encoder": True,
    "dim": 128,
    "head": "mlp",
    "batch": 256,
    "steps": 41_000,
}
