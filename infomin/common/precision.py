"""Where half precision and rounded products are allowed, and where not.

Autocast is off around similarities and pixels. The rounding of float32 products ("high" and
"medium" of `torch.set_float32_matmul_precision`) is a setting of the whole process, so only a run
changes it, from its start to its end; everything else follows the caller's setting.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


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


def no_autocast(device: str) -> AbstractContextManager[Any]:
    """Context without autocast, on devices that have it."""
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


@contextmanager
def unrounded_products() -> Iterator[None]:
    """Compute float32 matrix products of unrounded factors until the block ends.

    The setting applies to the whole process, and is then as it was.
    """
    backends: Any = torch.backends
    everywhere = backends.fp32_precision
    matmuls = (backends.cuda.matmul, backends.mkldnn.matmul)
    before = [(matmul, matmul.fp32_precision) for matmul in matmuls]
    try:
        for matmul, _ in before:
            matmul.fp32_precision = "ieee"
        yield
    finally:
        for matmul, precision in before:
            # "none" goes on following the setting for everything
            matmul.fp32_precision = "none" if precision == everywhere else precision
