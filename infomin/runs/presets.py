"""Budgets that experiments share, and the views of the demo."""

from typing import Any

TINY: dict[str, Any] = {  # seconds; only shows that it runs
    "steps": 4,
    "batch": 32,
    "candidates": 64,
    "probe_images": 256,
    "width": 0.25,
}
STL10: dict[str, Any] = {  # 100 epochs of two views that share an encoder, for a GPU
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

# Each view shares what the one before it shares, and something more: from nothing to every pixel.
U_CURVE_VIEWS = (
    "shared:nothing",
    "shared:digit%2",
    "shared:digit%5",
    "shared:digit",
    "shared:digit-position",
    "shared:digit-position-background",
    "shared:digit-position-background_image",
    "shared:all",
)
_U_CURVE = {"views": U_CURVE_VIEWS, "task": "digit", "share_encoder": True}
U_CURVE: dict[str, dict[str, Any]] = {
    "tiny": {**_U_CURVE, **TINY, "seeds": 1},
    "quick": {**_U_CURVE, "seeds": 3},
}
