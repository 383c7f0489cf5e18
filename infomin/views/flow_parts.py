"""What a flow is put together from: the network in a coupling, the order of channels, the file."""

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.checkpoint import fingerprint
from ..common.files import PathLike, atomic_write
from .couplings import Layers

FORMAT, VERSION = "infomin.PixelFlow", 1
REMEDY = "copy it anew from where it was learned, or learn it again"


class Conditioner(nn.Module):
    """Parameters of the network in a coupling, and the network for rows `[N, in]` that nflows wants.

    Each layer divides its product by the square root of the number of its inputs. So weights of a given size do about the same at
    any width and depth, and a flow whose weights have a deviation of 0.5 still inverts in float32.

    Args:
        inputs: channels that condition.
        outputs: numbers per pixel that are wanted.
        hidden: width of the hidden layers, 1 or more.
        depth: number of hidden layers, 0 or more.
        generator: draws the hidden layers; the last layer is zero, so a new coupling changes nothing.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: int, depth: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        shapes = [(out, into) for into, out in pairwise([inputs, *[hidden] * depth, outputs])]
        home = torch.get_default_device()  # where the zeros are made too
        weights = [
            torch.randn(shape, device="cpu", generator=generator).to(home) for shape in shapes
        ]
        biases = [
            (torch.rand(out, device="cpu", generator=generator) - 0.5).to(home) for out, _ in shapes
        ]
        self.weights = nn.ParameterList([*weights[:-1], torch.zeros(shapes[-1])])
        self.biases = nn.ParameterList([*biases[:-1], torch.zeros(outputs)])

    def layers(self, dtype: torch.dtype) -> Layers:
        """What the couplings take: weights over the square root of the number of inputs, biases as a column."""
        return [
            (w.to(dtype) / sqrt(w.shape[1]), b.to(dtype)[:, None])
            for w, b in zip(self.weights, self.biases, strict=True)
        ]

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        """Rows `[N, in]` to `[N, out]`; there is no context, nflows only hands it on."""
        for i, (weights, biases) in enumerate(self.layers(rows.dtype)):
            rows = F.linear(rows.relu() if i else rows, weights, biases[:, 0])
        return rows


def groups_of(
    order: Iterable[Iterable[int]] | None, channels: int, couplings: int
) -> list[list[int]]:
    """The channels that each coupling changes."""
    if order is None:
        half = channels // 2
        return [
            sorted((start * half + i) % channels for i in range(half)) for start in range(couplings)
        ]
    try:
        groups = [sorted(map(int, group)) for group in order]
    except (TypeError, ValueError):
        raise ValueError(
            f"PixelFlow(order): got {order!r}, wanted groups of channels; write for example ((0,), (1,))"
        ) from None
    if len(groups) > couplings:
        raise ValueError(
            f"PixelFlow(order): got {len(groups)} groups for {couplings} couplings, wanted no more; leave some out"
        )
    if not groups or any(
        not 0 < len(set(g)) == len(g) < channels or not set(g) <= set(range(channels))
        for g in groups
    ):
        raise ValueError(
            f"PixelFlow(order): got {groups}, wanted one group or more, each of some but not all of the channels 0 to "
            f"{channels - 1}; write for example ((0,), (1,))"
        )
    return [groups[i % len(groups)] for i in range(couplings)]


def groups_in(split: str | Iterable[Iterable[int]], channels: int) -> list[list[int]]:
    """The channels of each view of FlowSplit."""
    words = split.split("-") if isinstance(split, str) else split
    groups = [
        [int(c) if str(c).isdecimal() else -1 for c in word] if isinstance(word, Iterable) else [-1]
        for word in words
    ]
    if sorted(c for group in groups for c in group) != list(range(channels)) or [] in groups:
        raise ValueError(
            f"FlowSplit(split): got {split!r}, wanted the channels 0 to {channels - 1} once each, groups joined by '-'; "
            f"write for example '0-{''.join(map(str, range(1, channels)))}', or groups of numbers: [[0], range(1, {channels})]"
        )
    return groups


def write(
    path: PathLike,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write one safetensors file atomically; configuration, provenance, version and checksum are its metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, value in provenance.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"PixelFlow.save({name}): got a {type(value).__name__} ({error}), wanted what JSON has a word for; "
                "pass words, plain numbers, lists or dicts of them: of a tensor .item() or .tolist()"
            ) from None
    facts = json.loads(json.dumps({"config": config, "provenance": provenance, "version": VERSION}))
    facts["sha256"] = _checksum(facts, tensors)
    # one entry, for safetensors puts several in an order that it draws anew each time
    data = safetensors.torch.save(tensors, {FORMAT: json.dumps(facts, sort_keys=True)})
    with atomic_write(path) as file:
        file.write(data)


def read(path: PathLike) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """Configuration, provenance and parameters of a file, once its checksum is right."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: got no file, wanted one that PixelFlow.save or infomin learn-views --save wrote; see its path, in which a "
            "view has neither + nor |, and a list of views on the command line no comma"
        )
    data = Path(path).read_bytes()
    try:
        tensors = safetensors.torch.load(data)
        entries = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get(
            "__metadata__", {}
        )
        facts = json.loads(entries[FORMAT]) if FORMAT in entries else None
    except Exception as error:  # what damaged bytes raise is not written down anywhere
        raise ValueError(
            f"{path}: got a file that cannot be read ({error}), wanted a whole safetensors file; {REMEDY}"
        ) from None
    if facts is None:
        raise ValueError(
            f"{path}: got a safetensors file of another program, wanted one that PixelFlow.save wrote; give its path"
        )
    if facts.get("version") != VERSION:
        raise ValueError(
            f"{path}: got version {facts.get('version')} of the format, wanted {VERSION}; take the infomin that wrote it"
        )
    if facts.pop("sha256", None) != _checksum(facts, tensors):
        raise ValueError(
            f"{path}: got a wrong checksum, so some of its bytes are not those that were written; {REMEDY}"
        )
    return facts["config"], facts["provenance"], tensors


def _checksum(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    return fingerprint({"facts": json.dumps(facts, sort_keys=True), "tensors": dict(tensors)})
