"""Save and load a run's state: a dict of named stateful things. Nothing is ever unpickled.

A stateful thing is a module, an optimiser, anything else with `state_dict` and `load_state_dict`, or a `torch.Generator`.
Every other value (a number, a tensor, a dict of those) is plain: it is saved as it is, and `load` returns it.
"""

import hashlib
import io
import pickle
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .files import PathLike, atomic_write

# What torch.load(weights_only=True) takes back. Exact types: numpy.float64 is a float too, and would be refused on the way back.
BRANCHES = (dict, OrderedDict, Counter, list, tuple, torch.Size)
LEAVES = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
REMEDY = "delete it and run the same command again, this run will start anew"
AS_IT_WAS = "put that back which it is a checkpoint of, or run the recipe in another folder"


def save(path: PathLike, state: Mapping[str, Any]) -> None:
    """Write a state to one file atomically.

    Args:
        path: for example `runs/colors/0123456789ab/checkpoint.pt`; replaced if it exists.
        state: for example `{"encoder": module, "optimizer": optimizer, "order": generator, "step": 100}`.

    Raises:
        TypeError: a value that could not be loaded again.
        OSError: the file cannot be written; an older one is as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     a, b = nn.Linear(2, 3), nn.Linear(2, 3)
    ...     save(f"{folder}/checkpoint.pt", {"model": a, "step": 7})
    ...     load(f"{folder}/checkpoint.pt", {"model": b, "step": 0}), torch.equal(a.weight, b.weight)
    ({'step': 7}, True)
    """
    captured = _capture(state)
    buffer = (
        io.BytesIO()
    )  # given the file itself, torch.save turns a full disk into a RuntimeError about positions
    torch.save({"state": captured, "layout": _layout(state)}, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load(path: PathLike, state: Mapping[str, Any], *, part: bool = False) -> dict[str, Any]:
    """Load a file that `save` wrote into the same things, and return the plain values.

    Checked before anything is loaded: the bytes, the names, and the shape and dtype of the modules' tensors, of the optimisers'
    parameters and of plain tensors.

    Args:
        path: the file.
        state: as it was given to `save`, freshly built; stateful things are changed in place, plain values are not.
        part: whether `state` may have fewer names than what was saved.

    Returns:
        The plain values by name; tensors among them on the device of the tensor in `state`, otherwise on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, not a checkpoint, or the checkpoint of something else.
    """
    remedy = AS_IT_WAS if part else REMEDY
    saved = _read(path, remedy)
    have = saved["layout"]
    if part:
        others = set(saved["state"]) - set(state)
        starts = tuple(f"{other}." for other in others)
        have = {
            key: kind
            for key, kind in have.items()
            if key in state
            or not (key in others or key.startswith(starts) or key.rpartition(" of ")[2] in others)
        }
    wrong = _differences(_layout(state), have)
    if wrong:
        raise ValueError(
            f"{path}: got the checkpoint of something else, {len(wrong)} of its parts are not as wanted: "
            f"{', '.join(wrong[:3])}; {remedy}"
        )
    plain = {}
    for name, thing in state.items():
        value = saved["state"][name]
        if isinstance(thing, torch.Generator):
            thing.set_state(value)
        elif hasattr(thing, "load_state_dict"):
            try:
                thing.load_state_dict(value)
            except Exception as error:  # a class of the caller's own may raise anything
                raise ValueError(
                    f"{path}: {type(thing).__name__} {name!r} did not take its state back ({error}), "
                    f"and what comes before it is loaded already; {remedy}"
                ) from error
        else:
            plain[name] = value.to(thing.device) if isinstance(thing, Tensor) else value
    return plain


def fingerprint(state: Mapping[str, Any]) -> str:
    """Return 64 hex digits, the sha256 of a state: equal if and only if every name, shape, dtype and bit is equal.

    The memory format and the device make no difference.

    >>> fingerprint({"x": torch.tensor([0.0])}) == fingerprint({"x": torch.tensor([-0.0])})
    False
    """
    digest = hashlib.sha256()
    for where, leaf in sorted(_leaves(_capture(state)), key=lambda pair: pair[0]):
        digest.update(
            f"{where} {_kind(leaf) if isinstance(leaf, Tensor) else repr(leaf)}\n".encode()
        )
        if isinstance(leaf, Tensor):
            digest.update(leaf.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _capture(state: Mapping[str, Any]) -> dict[str, Any]:
    captured = {}
    for name, thing in state.items():
        stateful = hasattr(thing, "state_dict")
        captured[name] = (
            thing.get_state()
            if isinstance(thing, torch.Generator)
            else thing.state_dict()
            if stateful
            else thing
        )
    for where, leaf in _leaves(captured):
        if not (isinstance(leaf, Tensor) or type(leaf) in LEAVES):
            raise TypeError(
                f"checkpoint: {where} is a {type(leaf).__module__}.{type(leaf).__qualname__}, wanted tensors, "
                "numbers, strings, None, and dicts, lists or tuples of them; convert it, for example with float()"
            )
    return captured


def _leaves(tree: Any, where: str = "state") -> Iterator[tuple[str, Any]]:
    """Every leaf with its path, such as `state['encoder']['0.weight']`; an empty branch has none."""
    if type(tree) not in BRANCHES:
        yield where, tree
        return
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _leaves(value, f"{where}[{name!r}]")


def _layout(state: Mapping[str, Any]) -> dict[str, str]:
    """What a state is made of, by name. An optimiser is known by its parameters; it has no other tensors at first."""
    layout = {}
    for name, thing in state.items():
        layout[name] = _kind(thing)
        if isinstance(thing, nn.Module):
            layout |= {f"{name}.{key}": _kind(value) for key, value in thing.state_dict().items()}
        elif isinstance(thing, torch.optim.Optimizer):
            parameters = [p for group in thing.param_groups for p in group["params"]]
            layout |= {f"parameter {i} of {name}": _kind(p) for i, p in enumerate(parameters)}
    return layout


def _kind(x: Any) -> str:
    if isinstance(x, Tensor):
        return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
    return (
        "stateful" if isinstance(x, torch.Generator) or hasattr(x, "load_state_dict") else "plain"
    )


def _differences(wanted: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    names = [*wanted, *(name for name in got if name not in wanted)]
    return [
        f"{name}: {got.get(name, 'missing')}, wanted {wanted.get(name, 'no such part')}"
        for name in names
        if wanted.get(name) != got.get(name)
    ]


def _read(path: PathLike, remedy: str) -> dict[str, Any]:
    data = io.BytesIO(Path(path).read_bytes())
    try:
        with zipfile.ZipFile(data) as archive:
            damaged = (
                archive.testzip()
            )  # torch.load leaves the checksums alone and takes a flipped bit for another number
        if damaged:
            raise ValueError(f"wrong checksum in {damaged}")
        data.seek(0)
        saved = torch.load(data, map_location="cpu", weights_only=True)
        if not (isinstance(saved, dict) and {"state", "layout"} <= set(saved)):
            raise ValueError("infomin did not write it")
    except Exception as error:  # what damaged bytes raise is not written down anywhere
        why = (
            "it holds a Python object, which is never unpickled"
            if isinstance(error, pickle.UnpicklingError)
            else error
        )
        # without the cause: the advice in torch's own message is to unpickle the file
        raise ValueError(
            f"{path}: wanted a whole checkpoint, got one that cannot be read ({why}); {remedy}"
        ) from None
    return saved
