"""A device that is not the CPU and yet has values: what a GPU would refuse or wait for.

Its tensors say that they are on `meta`. Behind each is one on the CPU, and what is done to the one
is done to the other. As on CUDA, tensors of both devices may meet only where one is copied, is a
single number, or is an index.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from traceback import extract_stack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE = torch.device("meta")
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# their results, or the sizes of them, are read by the program
READ = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten._unique2.default,
    aten.unique_dim.default,
}
READ |= {aten.masked_select.default, aten.equal.default, aten.bincount.default}


class Away(Tensor):
    """A tensor elsewhere."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "Away":
        like = {
            "strides": here.stride(),
            "storage_offset": here.storage_offset(),
            "dtype": here.dtype,
        }
        away = Tensor._make_wrapper_subclass(cls, here.shape, device=ELSEWHERE, **like)
        away.here = here
        return away

    is_meta = False  # for checks that leave out what has no values

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"Away({self.here})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {}, Counter())


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {}, self.waits)


class _Constants(TorchFunctionMode):
    """torch.tensor(…, device=…) fills its memory behind all modes: a copy here, as on CUDA."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and _is_away(kwargs.get("device")):
            return torch.tensor(*args, **{**kwargs, "device": "cpu"}).to(ELSEWHERE)
        if func is Tensor.new_tensor and isinstance(args[0], Away):
            return torch.tensor(*args[1:], **({"dtype": args[0].dtype} | kwargs)).to(ELSEWHERE)
        return func(*args, **kwargs)


@contextmanager
def elsewhere() -> Iterator[Counter[str]]:
    """Inside, `meta` has values. Yields where infomin has waited for that device, and how often."""
    with _Operations() as operations, _Constants():
        yield operations.waits


def _is_away(device: Any) -> bool:
    return device is not None and torch.device(device).type == ELSEWHERE.type


def _carry_out(func: Any, args: Any, kwargs: Any, waits: Counter[str]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    away = [tensor for tensor in tensors if isinstance(tensor, Away)]
    here = [tensor for tensor in tensors if not isinstance(tensor, Away) and tensor.dim()]
    goes = (
        _is_away(kwargs["device"]) if kwargs.get("device") is not None else bool(away)
    )  # whether the result is elsewhere
    waited = bool(away) and func in READ
    if func in COPIES:
        *onto, source = args[:2] if func is aten.copy_.default else args[:1]
        goes = isinstance(onto[0], Away) if onto else goes
        at_once = kwargs.get("non_blocking") or (onto and len(args) > 2 and args[2])
        waited = isinstance(source, Away) != goes and not (goes and at_once)
    elif func in INDEXED:
        goes = isinstance(args[0], Away)
        waited = goes and any(
            not isinstance(index, Away) or index.dtype == torch.bool
            for index in args[1]
            if index is not None
        )
    if (away and here and func not in COPIES | INDEXED) or (away and not goes and func in INDEXED):
        raise RuntimeError(
            f"{func}: got tensors of two devices, those on the CPU of the shapes "
            f"{[list(t.shape) for t in here]}"
        )
    if waited:
        waits[_where()] += 1
    given = {**kwargs, "device": torch.device("cpu")} if _is_away(kwargs.get("device")) else kwargs
    with _disable_current_modes():
        found = func(*tree_map(_behind, args), **tree_map(_behind, given))
    known = {
        id(tensor.here): tensor for tensor in away
    }  # of an operation in place, the tensor that it was given
    return tree_map(partial(_sent, known=known, goes=goes), found)


def _behind(x: Any) -> Any:
    return x.here if isinstance(x, Away) else x


def _sent(x: Any, known: dict[int, Away], goes: bool) -> Any:
    if not (goes and isinstance(x, Tensor)):
        return x
    return known[id(x)] if id(x) in known else Away(x)


def _where() -> str:
    frames = [frame for frame in extract_stack() if "/infomin/" in frame.filename]
    return (
        f"{frames[-1].filename.rpartition('/')[2]} {frames[-1].name}: {frames[-1].line}"
        if frames
        else "elsewhere"
    )
