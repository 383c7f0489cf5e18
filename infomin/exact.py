"""Products of float32 that are what they say, whatever a program has allowed torch to round."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


def exact(device: str) -> AbstractContextManager[None]:
    """A context without autocast, and without products of float32 with rounded factors, as "high" and "medium" precision have.

    Pixels would be rounded to three digits, and what a flow did with them could not be undone; similarities as well, before a
    temperature makes them larger. In code that torch.compile traces the products are as torch is set.
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
