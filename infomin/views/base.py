"""The door of a view: what every `forward` does with its images before and after the view's own mathematics."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..common.checks import is_validated, mark_validated, was_validated
from ..common.precision import full_precision

Forward: TypeAlias = Callable[..., tuple[Tensor, ...]]


def door(forward: Forward) -> Forward:
    """Let a `forward(self, images, generator=None)` that takes batches take a single image `[C, H, W]` as well.

    So a view stands last in a torchvision transform list, or in a DataLoader's data set, as it stands before an encoder. What
    would round the pixels is left outside, see `exact`; half precision is computed in float32 and rounded once by each part of a
    chain. In a chain of augmentations the first part alone reads its pixels merely to check them, and of bytes not even that:
    what an augmentation makes of images in [0, 1] lies in [0, 1].
    """

    @wraps(forward)
    def call(
        self: Any, images: Any, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        if not isinstance(images, Tensor):
            return forward(self, images, generator)  # which says what it wants
        half = images.dtype in (torch.float16, torch.bfloat16)
        batch = images[None] if images.dim() == 3 else images
        batch = batch.float() if half else batch
        ours = getattr(self, "augments", False) and not torch.compiler.is_compiling()
        kind, sure = (
            images.device.type,
            ours and (images.dtype == torch.uint8 or is_validated(images)),
        )  # before they are written to
        if sure:
            mark_validated(batch)  # for it may be another tensor by now
        with full_precision(kind):
            views = forward(self, batch, generator)
        sure = sure or (
            ours and was_validated(batch)
        )  # they were checked in there, before they were written to
        views = tuple(view.to(images.dtype) for view in views) if half else views
        views = tuple(view[0] for view in views) if images.dim() == 3 else views
        return tuple(map(mark_validated, views)) if sure else views

    # torch.compile keeps few variants for each code object; without a name of its own every view would share one.
    named: Any = call
    named.__code__ = named.__code__.replace(co_name=forward.__qualname__)
    return call
