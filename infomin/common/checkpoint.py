"""Save and load a run's state: a dict of named stateful things. Nothing is ever unpickled.

A stateful thing is a module, an optimiser, anything else with `state_dict` and `load_state_dict`,
or a `torch.Generator`. Every other value (a number, a tensor, a dict of those) is plain: it is
saved as is, and `load` returns it.
"""

import hashlib
import io
import pickle
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .files import PathLike, atomic_write, read_bytes

# What torch.load(weights_only=True) accepts. Types are compared exactly: numpy.float64 is a
# subclass of float, but would be refused by torch.load.
BRANCHES = (dict, OrderedDict, Counter, list, tuple, torch.Size)
LEAVES = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
REMEDY = "delete it and run the same command again to restart this run"
AS_IT_WAS = "restore the recipe and files it was saved with, or run the recipe in another folder"


def save(path: PathLike, state: Mapping[str, Any]) -> None:
    """Write a state to one file atomically.

    Args:
        path: for example `runs/colors/0123456789ab/checkpoint.pt`; replaced if it exists.
        state: for example `{"encoder": module, "optimizer": optimizer, "order": generator}`.

    Raises:
        TypeError: a value that `load` could not read back.
        OSError: the file cannot be written; an older one is unchanged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     a, b = nn.Linear(2, 3), nn.Linear(2, 3)
    ...     save(f"{folder}/checkpoint.pt", {"model": a, "step": 7})
    ...     print(load(f"{folder}/checkpoint.pt", {"model": b, "step": 0}))
    {'step': 7}
    >>> torch.equal(a.weight, b.weight)
    True
    """
    captured = _capture(state)
    # In memory first: writing to the file itself, torch.save reports a full disk as a RuntimeError
    # about stream positions.
    buffer = io.BytesIO()
    torch.save({"state": captured, "layout": _layout(state)}, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load(path: PathLike, state: Mapping[str, Any], *, part: bool = False) -> dict[str, Any]:
    """Load a file written by `save` into the same things, and return the plain values.

    The whole file is checked before anything is loaded: the checksums, the names, and the shape and
    dtype of modules' tensors, optimisers' parameters and plain tensors.

    Args:
        path: the file.
        state: what was passed to `save`, freshly built; stateful things are loaded in place, plain
            values are not changed.
        part: whether `state` may name fewer things than were saved.

    Returns:
        The plain values by name; tensors on the device of the tensor in `state`, or else on the
        CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated, damaged, not a checkpoint, or of another state.
    """
    remedy = AS_IT_WAS if part else REMEDY
    saved = _read(path, remedy)
    layout = saved["layout"] | _layout_found(saved["state"], state)
    if part:
        layout = _selected(layout, state, saved["state"])
    mismatches = _mismatches(_layout(state), layout)
    if mismatches:
        raise ValueError(
            f"{path}: got the checkpoint of something else, {len(mismatches)} entries differ: "
            f"{'; '.join(mismatches[:3])}; {remedy}"
        )
    plain = {}
    for name, thing in state.items():
        value = saved["state"][name]
        if isinstance(thing, torch.Generator):
            thing.set_state(value)
        elif hasattr(thing, "load_state_dict"):
            try:
                thing.load_state_dict(value)
            except Exception as error:  # user-defined classes may raise anything
                raise ValueError(
                    f"{path}: {type(thing).__name__} {name!r} rejected its saved state ({error}), "
                    f"after the entries before it were loaded; {remedy}"
                ) from error
        else:
            plain[name] = value.to(thing.device) if isinstance(thing, Tensor) else value
    return plain


def fingerprint(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a state as 64 hex digits.

    Two states have the same fingerprint exactly if all names, shapes, dtypes and bits are equal.
    The memory format and the device make no difference.

    >>> fingerprint({"x": torch.tensor([0.0])}) == fingerprint({"x": torch.tensor([-0.0])})
    False
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(_leaves(_capture(state)), key=lambda pair: pair[0]):
        description = _describe(leaf) if isinstance(leaf, Tensor) else repr(leaf)
        digest.update(f"{path} {description}\n".encode())
        if isinstance(leaf, Tensor):
            digest.update(leaf.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _capture(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with every stateful thing replaced by what it saves."""
    captured = {}
    for name, thing in state.items():
        if isinstance(thing, torch.Generator):
            captured[name] = thing.get_state()
        else:
            captured[name] = thing.state_dict() if hasattr(thing, "state_dict") else thing
    for path, leaf in _leaves(captured):
        if not (isinstance(leaf, Tensor) or type(leaf) in LEAVES):
            raise TypeError(
                f"checkpoint: {path} must be a tensor, number, string, None, or a dict, list or "
                f"tuple of those, got {type(leaf).__module__}.{type(leaf).__qualname__}; "
                "convert it, for example with float()"
            )
    return captured


def _leaves(tree: Any, path: str = "state") -> Iterator[tuple[str, Any]]:
    """Yield every leaf with its path, for example `state['encoder']['0.weight']`."""
    if type(tree) not in BRANCHES:
        yield path, tree
        return
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _leaves(value, f"{path}[{name!r}]")


def _layout(state: Mapping[str, Any]) -> dict[str, str]:
    """Describe each entry of a state and each tensor of its modules and optimisers, by name.

    Optimisers are described by their parameters: before the first step they have no other tensors.
    """
    layout = {}
    for name, thing in state.items():
        layout[name] = _describe(thing)
        if isinstance(thing, nn.Module):
            for key, value in thing.state_dict().items():
                layout[f"{name}.{key}"] = _describe(value)
        elif isinstance(thing, torch.optim.Optimizer):
            parameters = [p for group in thing.param_groups for p in group["params"]]
            for i, parameter in enumerate(parameters):
                layout[f"parameter {i} of {name}"] = _describe(parameter)
    return layout


def _layout_found(saved: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, str]:
    """Describe what was saved of the modules and tensors in a state, whatever the file says."""
    layout = {}
    for name, thing in state.items():
        value = saved.get(name)
        if name not in saved:
            layout[name] = "nothing"
        elif isinstance(thing, Tensor):
            layout[name] = _describe(value)
        elif isinstance(thing, nn.Module) and isinstance(value, dict):
            layout |= {f"{name}.{key}": _describe(part) for key, part in value.items()}
    return layout


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    stateful = isinstance(value, torch.Generator) or hasattr(value, "load_state_dict")
    return "stateful" if stateful else "plain"


def _selected(
    layout: Mapping[str, str], names: Collection[str], saved_names: Collection[str]
) -> dict[str, str]:
    """Keep what belongs to `names` of a layout."""

    def owner(key: str) -> str:
        """The longest name that fits: `net.head.weight` may be of `net` or of `net.head`."""
        parameter_of = key.rpartition(" of ")[2]
        fitting = [
            name
            for name in (*names, *saved_names)
            if name in (key, parameter_of) or key.startswith(f"{name}.")
        ]
        return max(fitting, key=len, default="")

    return {key: description for key, description in layout.items() if owner(key) in names}


def _mismatches(wanted: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    names = [*wanted, *(name for name in got if name not in wanted)]
    return [
        f"{name}: got {got.get(name, 'nothing')}, wanted {wanted.get(name, 'nothing')}"
        for name in names
        if wanted.get(name) != got.get(name)
    ]


def _read(path: PathLike, remedy: str) -> dict[str, Any]:
    try:
        data = io.BytesIO(read_bytes(path))
        # torch.load does not verify checksums and would read a flipped bit as another number
        with zipfile.ZipFile(data) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"wrong checksum in {damaged}")
        data.seek(0)
        saved = torch.load(data, map_location="cpu", weights_only=True)
        parts = [saved.get(name) for name in ("state", "layout")] if isinstance(saved, dict) else []
        if not parts or not all(isinstance(part, dict) for part in parts):
            raise ValueError("infomin did not write it")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: wanted a checkpoint, got no file; {remedy}") from error
    except Exception as error:  # damaged bytes may raise anything
        if isinstance(error, pickle.UnpicklingError):
            reason = "it contains a Python object, which is never unpickled"
        else:
            reason = str(error)
        # `from None`: torch's own message advises unpickling the file
        raise ValueError(
            f"{path}: wanted a whole checkpoint, got one that cannot be read ({reason}); {remedy}"
        ) from None
    return saved
