"""The door of a view: what every `forward` does with its images before and after the view's own mathematics."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..check import vouch, vouched

Forward: TypeAlias = Callable[..., tuple[Tensor, ...]]


def exact(device: str) -> AbstractContextManager[None]:
    """A context without autocast, and without products of float32 with rounded factors, as "high" and "medium" precision have.

    Pixels would be rounded to three digits; and what a flow did with them could not be undone.
    """
    plain: Any = torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
    return plain if torch.compiler.is_compiling() else _unrounded(plain)


@contextmanager
def _unrounded(plain: AbstractContextManager[None]) -> Iterator[None]:
    backends: Any = torch.backends
    kinds = [kind for kind in (backends.cuda.matmul, backends.mkldnn.matmul) if kind.fp32_precision != "ieee"]
    # What equals the setting above it is taken to come from there, and goes on doing so: put back by value it would stay.
    above = backends.fp32_precision
    before = ["none" if kind.fp32_precision == above else kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        with plain:
            yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


def door(forward: Forward) -> Forward:
    """Let a `forward(self, images, generator=None)` that takes batches take a single image `[C, H, W]` as well.

    So a view stands last in a torchvision transform list, or in a DataLoader's data set, as it stands before an encoder. What
    would round the pixels is left outside, see `exact`; half precision is computed in float32 and rounded once by each part of a
    chain. In a chain of augmentations of bytes no part reads its pixels merely to check them: bytes, and what an augmentation
    makes of images in [0, 1], lie in [0, 1].
    """

    @wraps(forward)
    def call(self: Any, images: Any, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        if not isinstance(images, Tensor):
            return forward(self, images, generator)  # which says what it wants
        half = images.dtype in (torch.float16, torch.bfloat16)
        batch = images[None] if images.dim() == 3 else images
        ours = getattr(self, "augments", False) and not torch.compiler.is_compiling()
        kind, sure = images.device.type, ours and (images.dtype == torch.uint8 or vouched(images))  # before they are written to
        with exact(kind):
            views = forward(self, batch.float() if half else batch, generator)
        views = tuple(view.to(images.dtype) for view in views) if half else views
        views = tuple(view[0] for view in views) if images.dim() == 3 else views
        return tuple(map(vouch, views)) if sure else views

    # torch.compile keeps few variants for each code object; without a name of its own every view would share one.
    named: Any = call
    named.__code__ = named.__code__.replace(co_name=forward.__qualname__)
    return call
