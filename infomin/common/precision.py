"""Products of float32 that are what they say, whatever a program has allowed torch to round."""

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

_LOCK = threading.Lock()
_INSIDE: list[object] = []  # those whom the settings serve, of all threads
_BEFORE: list[tuple[Any, str]] = []  # what was rounded when the first of them came, and how


if hasattr(os, "register_at_fork"):  # a child has none of the threads that could let go of the lock
    os.register_at_fork(after_in_child=lambda: globals().update(_LOCK=threading.Lock()))


@contextmanager
def autocast(device: str, precision: str) -> Iterator[None]:
    """torch's autocast to bfloat16 if the precision is `bf16`; each rounds the weights anew.

    torch forgets what it has rounded when the outermost autocast ends. Within another one, as a run is, it would go on with the
    first weights for ever, whatever an optimiser makes of them.
    """
    try:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.clear_autocast_cache()


def full_precision(device: str) -> AbstractContextManager[None]:
    """A context without autocast, and without products of float32 with rounded factors, as "high" and "medium" precision have.

    Pixels would be rounded to three digits, and what a flow did with them could not be undone; similarities as well, before a
    temperature makes them larger. In code that torch.compile traces the products are as torch is set.

    torch has these settings once for a process: in other threads, too, no product is rounded as long as it lasts.
    """
    plain: Any = (
        torch.autocast(device, enabled=False)
        if torch.amp.is_autocast_available(device)
        else nullcontext()
    )
    return plain if torch.compiler.is_compiling() else _unrounded(plain)


@contextmanager
def _unrounded(plain: AbstractContextManager[None]) -> Iterator[None]:
    """The first to come notes the settings, the last to leave puts them back: if each did, one would round what others do."""
    me = object()
    with _LOCK:
        found = _rounding()
        _BEFORE.extend([] if _INSIDE else found)
        _INSIDE.append(me)
        for kind, _ in found:
            kind.fp32_precision = "ieee"
    try:
        with plain:
            yield
    finally:
        with _LOCK:
            _INSIDE.remove(me)
            while _BEFORE and not _INSIDE:
                kind, precision = _BEFORE.pop()
                kind.fp32_precision = precision


def _rounding() -> list[tuple[Any, str]]:
    """The products that may round their factors, and how they are set."""
    backends: Any = torch.backends
    # What equals the setting above it is taken to come from there, and goes on doing so: put back by value it would stay.
    above = backends.fp32_precision
    kinds = [
        kind
        for kind in (backends.cuda.matmul, backends.mkldnn.matmul)
        if kind.fp32_precision != "ieee"
    ]
    return [
        (kind, "none" if kind.fp32_precision == above else kind.fp32_precision) for kind in kinds
    ]
