"""Parts of a flow: the network in a coupling, the order of channels, and the file format."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
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
REMEDY = "copy the file again from where it was learned, or learn the flow again"


class Conditioner(nn.Module):
    """The network that computes the shifts and scales of a coupling.

    It holds the parameters; `forward` is the form for rows `[N, in]` that nflows calls.

    Each layer divides its product by the square root of its number of inputs. Weights of a given
    size then have about the same effect at any width and depth, and a flow whose weights have a
    standard deviation of 0.5 still inverts in float32.

    Args:
        inputs: number of channels that the network sees.
        outputs: numbers per pixel that it computes.
        hidden: width of the hidden layers, 1 or more.
        depth: number of hidden layers, 0 or more.
        generator: draws the hidden layers. The last layer is zero: a new coupling is the identity.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: int, depth: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * depth, outputs]
        shapes = [(fan_out, fan_in) for fan_in, fan_out in pairwise(widths)]
        weights = [torch.randn(shape, device="cpu", generator=generator) for shape in shapes]
        biases = [torch.rand(n, device="cpu", generator=generator) - 0.5 for n in widths[1:]]
        device = torch.get_default_device()
        hidden_weights = [weight.to(device) for weight in weights[:-1]]
        hidden_biases = [bias.to(device) for bias in biases[:-1]]
        self.weights = nn.ParameterList([*hidden_weights, torch.zeros(shapes[-1])])
        self.biases = nn.ParameterList([*hidden_biases, torch.zeros(outputs)])

    def layers(self, dtype: torch.dtype) -> Layers:
        """The scaled weights `[out, in]` and the biases `[out, 1]` of each layer."""
        return [
            (weights.to(dtype) / sqrt(weights.shape[1]), biases.to(dtype)[:, None])
            for weights, biases in zip(self.weights, self.biases, strict=True)
        ]

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        """Rows `[N, in]` to `[N, out]`; nflows always passes a context, here None."""
        for i, (weights, biases) in enumerate(self.layers(rows.dtype)):
            rows = F.linear(rows.relu() if i else rows, weights, biases[:, 0])
        return rows


def groups_of(
    order: Iterable[Iterable[int]] | None, channels: int, couplings: int
) -> list[list[int]]:
    """The channels that each coupling changes.

    Raises:
        ValueError: an order that leaves a coupling nothing to change or nothing to see, or has more
            groups than there are couplings.
    """
    if order is None:
        half = channels // 2
        starts = range(0, couplings * half, half)
        return [sorted((start + i) % channels for i in range(half)) for start in starts]
    try:
        groups = [sorted(map(int, group)) for group in order]
    except (TypeError, ValueError):
        raise ValueError(
            f"PixelFlow(order): got {order!r}, wanted groups of channels; "
            "write for example ((0,), (1,))"
        ) from None
    if len(groups) > couplings:
        raise ValueError(
            f"PixelFlow(order): got {len(groups)} groups for {couplings} couplings, "
            f"wanted at most {couplings}; leave some out"
        )
    if not groups or not all(_is_proper_subset(group, channels) for group in groups):
        raise ValueError(
            f"PixelFlow(order): got {groups}, wanted at least one group, each of some but not all "
            f"of the channels 0 to {channels - 1}; write for example ((0,), (1,))"
        )
    return [groups[i % len(groups)] for i in range(couplings)]


def _is_proper_subset(group: Sequence[int], channels: int) -> bool:
    """Whether a group has some but not all of the channels, none of them twice."""
    distinct = set(group)
    return 0 < len(distinct) == len(group) < channels and distinct <= set(range(channels))


def groups_in(split: str | Iterable[Iterable[int]], channels: int) -> list[list[int]]:
    """The channels of each view of FlowSplit.

    Raises:
        ValueError: a split that does not use each channel once.
    """
    groups = []
    for group in split.split("-") if isinstance(split, str) else split:
        numbers = group if isinstance(group, Iterable) else [-1]
        groups.append([int(c) if str(c).isdecimal() else -1 for c in numbers])
    if sorted(chain(*groups)) != list(range(channels)) or [] in groups:
        example = "".join(map(str, range(1, channels)))
        raise ValueError(
            f"FlowSplit(split): got {split!r}, wanted the channels 0 to {channels - 1} once each, "
            f"in groups joined by '-'; write for example '0-{example}', or groups of numbers: "
            f"[[0], range(1, {channels})]"
        )
    return groups


def write(
    path: PathLike,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write one safetensors file atomically.

    Its metadata are the configuration, the provenance, the version and a checksum.

    Raises:
        ValueError: a provenance that JSON cannot represent.
        OSError: the file cannot be written; an existing file is left unchanged.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, value in provenance.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"PixelFlow.save({name}): got a {type(value).__name__} ({error}), wanted something "
                "JSON can represent; pass text, plain numbers, or lists or dicts of them "
                "(tensor.item() or tensor.tolist())"
            ) from None
    entries = {"config": config, "provenance": provenance, "version": VERSION}
    metadata = json.loads(json.dumps(entries))  # as `read` gets it: keys become text
    metadata["sha256"] = _checksum(metadata, tensors)
    # A single entry: safetensors writes several in random order.
    data = safetensors.torch.save(tensors, {FORMAT: json.dumps(metadata, sort_keys=True)})
    with atomic_write(path) as file:
        file.write(data)


def read(path: PathLike) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """Read configuration, provenance and parameters of a file and verify its checksum.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is truncated, damaged, or from another program or version.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: got no file, wanted one that PixelFlow.save or infomin learn-views --save "
            "wrote; check the path (in a view word it cannot contain + or |, in a list of views on "
            "the command line no comma)"
        )
    data = Path(path).read_bytes()
    try:
        tensors = safetensors.torch.load(data)
        header_length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + header_length])
        entries = header.get("__metadata__", {})
        metadata = json.loads(entries[FORMAT]) if FORMAT in entries else None
    except Exception as error:  # it is not documented what damaged bytes raise
        raise ValueError(
            f"{path}: got a file that cannot be read ({error}), "
            f"wanted a complete safetensors file; {REMEDY}"
        ) from None
    if metadata is None:
        raise ValueError(
            f"{path}: got a safetensors file from another program, "
            "wanted one that PixelFlow.save wrote"
        )
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"{path}: got version {metadata.get('version')} of the format, wanted {VERSION}; "
            "use the version of infomin that wrote it"
        )
    if metadata.pop("sha256", None) != _checksum(metadata, tensors):
        raise ValueError(
            f"{path}: got a wrong checksum: the file has changed since it was written; {REMEDY}"
        )
    return metadata["config"], metadata["provenance"], tensors


def _checksum(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    # The key `facts` is part of the format: another one would change every checksum.
    return fingerprint({"facts": json.dumps(metadata, sort_keys=True), "tensors": dict(tensors)})
