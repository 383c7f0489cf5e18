"""Full-precision float32 products, even where the program lets torch round their factors."""

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

_LOCK = threading.Lock()
_ACTIVE: list[object] = []  # one token per open `full_precision` context, over all threads
_SAVED: list[tuple[Any, str]] = []  # backends and their settings before the first context opened


if hasattr(os, "register_at_fork"):  # the thread that holds the lock does not exist in the child
    os.register_at_fork(after_in_child=lambda: globals().update(_LOCK=threading.Lock()))


@contextmanager
def autocast(device: str, precision: str) -> Iterator[None]:
    """Autocast to bfloat16 if the precision is `bf16`; the weights are cast once per context.

    torch drops its cache of cast weights only when the outermost autocast ends. A context nested
    in another one, as in a run, would keep using the weights of the first step whatever the
    optimiser does.
    """
    try:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.clear_autocast_cache()


def full_precision(device: str) -> AbstractContextManager[None]:
    """Context without autocast and with float32 products of unrounded factors.

    With "high" or "medium" precision torch rounds the factors to about three digits. That makes
    a flow impossible to invert, and distorts similarities before a temperature magnifies them.
    Code that torch.compile traces keeps torch's setting.

    torch has one such setting per process, so other threads also compute unrounded products while
    the context is open.
    """
    no_autocast: Any = (
        torch.autocast(device, enabled=False)
        if torch.amp.is_autocast_available(device)
        else nullcontext()
    )
    return no_autocast if torch.compiler.is_compiling() else _unrounded(no_autocast)


@contextmanager
def _unrounded(no_autocast: AbstractContextManager[None]) -> Iterator[None]:
    """Save torch's settings when the first context opens, restore them when the last one closes.

    If each context restored them, it would turn rounding on again inside the others.
    """
    token = object()
    with _LOCK:
        rounding = _rounding_backends()
        if not _ACTIVE:
            _SAVED.extend(rounding)
        _ACTIVE.append(token)
        for backend, _ in rounding:
            backend.fp32_precision = "ieee"
    try:
        with no_autocast:
            yield
    finally:
        with _LOCK:
            _ACTIVE.remove(token)
            while _SAVED and not _ACTIVE:
                backend, precision = _SAVED.pop()
                backend.fp32_precision = precision


def _rounding_backends() -> list[tuple[Any, str]]:
    """The matrix-product backends that may round their factors, each with the value to restore.

    A backend whose setting equals the global one is assumed to inherit it, and is restored to
    "none" (inherit): restored by value, it would stop following the global setting.
    """
    backends: Any = torch.backends
    inherited = backends.fp32_precision
    rounding = []
    for backend in (backends.cuda.matmul, backends.mkldnn.matmul):
        precision = backend.fp32_precision
        if precision != "ieee":
            rounding.append((backend, "none" if precision == inherited else precision))
    return rounding
