"""The door of a view: what every `forward` does with its images before and after the view's own mathematics."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..check import vouch, vouched

Forward: TypeAlias = Callable[..., tuple[Tensor, ...]]


def door(forward: Forward) -> Forward:
    """Let a `forward(self, images, generator=None)` that takes batches take a single image `[C, H, W]` as well.

    So a view stands last in a torchvision transform list, or in a DataLoader's data set, as it stands before an encoder. Autocast
    is left outside, for it would round the pixels; half precision is computed in float32 and rounded once. In a chain of
    augmentations of bytes no part reads its pixels merely to check them: bytes, and what an augmentation makes of images in
    [0, 1], lie in [0, 1].
    """

    @wraps(forward)
    def call(self: Any, images: Any, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        if not isinstance(images, Tensor):
            return forward(self, images, generator)  # which says what it wants
        half = images.dtype in (torch.float16, torch.bfloat16)
        batch = images[None] if images.dim() == 3 else images
        ours = getattr(self, "augments", False) and not torch.compiler.is_compiling()
        kind, sure = images.device.type, ours and (images.dtype == torch.uint8 or vouched(images))  # before they are written to
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            views = forward(self, batch.float() if half else batch, generator)
        views = tuple(view.to(images.dtype) for view in views) if half else views
        views = tuple(view[0] for view in views) if images.dim() == 3 else views
        return tuple(map(vouch, views)) if sure else views

    return call
