"""Parts of a flow: the network in a coupling, the order of channels, and the file format."""

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
from .dials import read_groups

FORMAT, VERSION = "infomin.PixelFlow", 1
LARGEST_FILE = 2**30  # bytes
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


def coupling_groups(
    order: str | Iterable[Iterable[int]] | None, channels: int, couplings: int
) -> list[list[int]]:
    """The channels that each coupling changes, ascending.

    Raises:
        ValueError: an order that leaves a coupling nothing to change or nothing to see, or has more
            groups than there are couplings.
    """
    if order is None:
        half = channels // 2
        starts = range(0, couplings * half, half)
        return [sorted((start + i) % channels for i in range(half)) for start in starts]
    groups = [sorted(group) for group in read_groups(order, channels, "PixelFlow(order)")]
    if len(groups) > couplings:
        raise ValueError(
            f"PixelFlow(order): got {len(groups)} groups for {couplings} couplings, "
            f"wanted at most {couplings}; leave some out"
        )
    if any(len(group) == channels for group in groups):
        raise ValueError(
            f"PixelFlow(order): got {groups}, wanted groups of some but not all of the channels "
            f"0 to {channels - 1}; write for example ((0,), (1,))"
        )
    return [groups[i % len(groups)] for i in range(couplings)]


def write_flow(
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
                f"PixelFlow.save({name}): got {type(value).__name__} ({error}), wanted something "
                "JSON can represent; pass text, plain numbers, or lists or dicts of them "
                "(tensor.item() or tensor.tolist())"
            ) from None
    entries = {"config": config, "provenance": provenance, "version": VERSION}
    metadata = json.loads(json.dumps(entries))  # as `read_flow` gets it: keys become text
    metadata["sha256"] = _checksum(metadata, tensors)
    # A single entry: safetensors writes several in random order.
    data = safetensors.torch.save(tensors, {FORMAT: json.dumps(metadata, sort_keys=True)})
    with atomic_write(path) as file:
        file.write(data)


def read_flow(path: PathLike) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
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
    if Path(path).stat().st_size > LARGEST_FILE:
        raise ValueError(
            f"{path}: got more than 1 GiB, wanted a flow, which has less; check the path"
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
    if not isinstance(metadata, dict):
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
    return metadata.get("config", {}), metadata.get("provenance", {}), tensors


def check_size(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise a ValueError if a flow has more parameters than its file: it could fill the memory."""
    couplings, hidden, depth = (config[name] for name in ("couplings", "hidden", "depth"))
    least = couplings * (1 + depth * hidden + max(0, depth - 1) * hidden**2)
    if least > (total := sum(tensor.numel() for tensor in tensors.values())):
        raise ValueError(f"{least} parameters or more, but the file has {total}")


def is_finite_float(tensor: Tensor) -> bool:
    """Whether a parameter is floating point, without NaN and Inf."""
    return tensor.is_floating_point() and bool(tensor.double().isfinite().all())


def _checksum(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    # The key `facts` is part of the format: another one would change every checksum.
    return fingerprint({"facts": json.dumps(metadata, sort_keys=True), "tensors": dict(tensors)})
