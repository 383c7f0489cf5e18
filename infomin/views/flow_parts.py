"""What a flow is put together from: the network in a coupling, the coupling, the order of channels, the file.

The network is a perceptron over pixels. A hidden layer of width 32 over 64 images of 64 px is 32 MB, ten times the images. So it
is computed by columns and in pieces, whose hidden layers fit into the cache, and again for the gradient: that takes a fraction of
the time of writing whole layers out and reading them back.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Any, TypeAlias

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint import fingerprint
from ..table import Where, atomic

Planes: TypeAlias = list[Tensor]  # a tensor [B, H, W] for each channel
FORMAT, VERSION = "infomin.PixelFlow", 1
REMEDY = "copy it anew from where it was learned, or learn it again"
Layers: TypeAlias = Sequence[tuple[Tensor, Tensor]]  # weights [out, in] and biases [out, 1] of each layer
CHUNK = {"cpu": 2**13}  # pixels of a piece: 1 MB of a hidden layer of width 32
LARGE = 2**20  # elsewhere, where memory is wider than the cache and each call costs


def perceptron(x: Tensor, layers: Layers) -> Tensor:
    """Columns `[in, N]` to `[out, N]`, with ReLU between the layers.

    >>> weights, biases = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5]])
    >>> perceptron(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), [(weights, biases)])
    tensor([[ 1.5000, -0.5000]])
    """
    for i, (weights, biases) in enumerate(layers):
        x = torch.addmm(biases, weights, x.relu() if i else x)
    return x


def in_pieces(x: Tensor, layers: Layers) -> Tensor:
    """What `perceptron` gives, and its gradients, while no more than one piece of the hidden layers is in memory.

    >>> x, layers = torch.rand(2, 5), [(torch.rand(8, 2), torch.rand(8, 1)), (torch.rand(1, 8), torch.rand(1, 1))]
    >>> torch.allclose(in_pieces(x, layers), perceptron(x, layers))
    True
    """
    return _InPieces.apply(x, *(part for layer in layers for part in layer))


def _pairs(parts: Sequence[Tensor]) -> Layers:
    return list(zip(parts[::2], parts[1::2], strict=True))


def _pieces(x: Tensor) -> Iterable[Tensor]:
    return x.split(CHUNK.get(x.device.type, LARGE), 1)


@contextmanager
def _exact(device: str) -> Iterator[None]:
    """No autocast, and no products of float32 with rounded factors, which would be undone to three digits only."""
    backends: Any = torch.backends
    kinds = [kind for kind in (backends.cuda.matmul, backends.mkldnn.matmul) if kind.fp32_precision != "ieee"]
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(x, *parts)
        with _exact(x.device.type):
            return torch.cat([_activations(piece, _pairs(parts), out=True)[-1] for piece in _pieces(x)], 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled():  # the gradient of this gradient is wanted, and autograd's own has one
            return _gradients(ctx.saved_tensors, needed, grad)
        x, *parts = ctx.saved_tensors
        sums = [torch.zeros_like(part) for part in parts] if any(needed[1:]) else []
        with _exact(x.device.type):
            pieces = zip(_pieces(x), _pieces(grad), strict=True)
            pulled = torch.cat([_pull(piece, of, _pairs(parts), sums) for piece, of in pieces], 1)
        grads: list[Tensor | None] = [pulled, *sums] if sums else [pulled, *[None] * len(parts)]
        return tuple(found if need else None for found, need in zip(grads, needed, strict=True))


def _gradients(saved: Sequence[Tensor], needed: Sequence[bool], grad: Tensor) -> tuple[Tensor | None, ...]:
    x, *parts = own = [tensor.view_as(tensor) for tensor in saved]  # so that what one was computed from another is left out
    wanted = [tensor for tensor, need in zip(own, needed, strict=True) if need]
    found = iter(torch.autograd.grad(perceptron(x, _pairs(parts)), wanted, grad, create_graph=True))
    return tuple(next(found) if need else None for need in needed)


def _activations(x: Tensor, layers: Layers, out: bool) -> list[Tensor]:
    """The input, the hidden layers and, if wanted, the output."""
    found = [x]
    for i, (weights, biases) in enumerate(layers if out else layers[:-1]):
        found.append(torch.addmm(biases, weights, found[-1]))
        if i < len(layers) - 1:
            found[-1].relu_()
    return found


def _pull(x: Tensor, grad: Tensor, layers: Layers, sums: Sequence[Tensor]) -> Tensor:
    """Take a gradient from a piece's output back to its input, adding the parameters' gradients to `sums`, if there are any."""
    inputs = _activations(x, layers, out=False)
    for i, (weights, _) in reversed(list(enumerate(layers))):
        if sums:
            sums[2 * i].add_((inputs[i] @ grad.T).T)  # the other way round this product takes five times as long on a CPU
            sums[2 * i + 1].add_(grad.sum(1, keepdim=True))
        grad = weights.T @ grad
        if i:
            grad.mul_(inputs[i].sign_())  # 1 where the ReLU let through, else 0
    return grad


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

    def __init__(self, inputs: int, outputs: int, hidden: int, depth: int, generator: torch.Generator) -> None:
        super().__init__()
        shapes = [(out, into) for into, out in pairwise([inputs, *[hidden] * depth, outputs])]
        weights = [torch.randn(shape, generator=generator) for shape in shapes]
        biases = [torch.rand(out, generator=generator) - 0.5 for out, _ in shapes]
        self.weights = nn.ParameterList([*weights[:-1], torch.zeros(shapes[-1])])
        self.biases = nn.ParameterList([*biases[:-1], torch.zeros(outputs)])

    def layers(self, dtype: torch.dtype) -> Layers:
        """What `perceptron` takes: weights over the square root of the number of inputs, biases as a column."""
        return [(w.to(dtype) / sqrt(w.shape[1]), b.to(dtype)[:, None]) for w, b in zip(self.weights, self.biases, strict=True)]

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        """Rows `[N, in]` to `[N, out]`; there is no context, nflows only hands it on."""
        for i, (weights, biases) in enumerate(self.layers(rows.dtype)):
            rows = F.linear(rows.relu() if i else rows, weights, biases[:, 0])
        return rows


def couple(
    planes: Planes,
    changed: Sequence[int],
    layers: Layers,
    inverse: bool = False,
    net: Callable[[Tensor, Layers], Tensor] = in_pieces,
) -> tuple[Planes, Tensor | None]:
    """One coupling, or its inverse: a plane becomes `plane * exp(tanh(raw)) + shift`, without `raw` only `plane + shift`.

    Args:
        planes: a tensor `[B, H, W]` for each channel.
        changed: the channels to change, ascending; the others condition.
        layers: of the network that gives one shift for each of them, or all shifts and then one `raw` for each.
        inverse: undo it.
        net: how the network is computed.

    Returns:
        New planes, and the logarithm of the factor by which the forward coupling scales each pixel's volume, `[B, H, W]`; None
        stands for zeros.

    Source: NICE, additive coupling layers; RealNVP, affine ones.

    >>> planes = [torch.ones(1, 1, 1), torch.zeros(1, 1, 1)]
    >>> double = [(torch.tensor([[2.0]]), torch.zeros(1, 1))]
    >>> [plane.item() for plane in couple(planes, [1], double)[0]]
    [1.0, 2.0]
    """
    planes, kept = list(planes), [plane for channel, plane in enumerate(planes) if channel not in changed]
    shift, *raw = net(torch.stack(kept).flatten(1), layers).view(-1, *kept[0].shape).split(len(changed))
    log_scale = torch.tanh(raw[0]) if raw else None
    scale = [None] * len(changed) if log_scale is None else log_scale.exp()
    for channel, by, times in zip(changed, shift, scale, strict=True):
        if inverse:
            planes[channel] = planes[channel] - by if times is None else (planes[channel] - by) / times
        else:
            planes[channel] = planes[channel] + by if times is None else planes[channel] * times + by
    return planes, None if log_scale is None else log_scale.sum(0)


def groups_of(order: Iterable[Iterable[int]] | None, channels: int, couplings: int) -> list[list[int]]:
    """The channels that each coupling changes."""
    if order is None:
        half = channels // 2
        return [sorted((start * half + i) % channels for i in range(half)) for start in range(couplings)]
    groups = [sorted(group) for group in order]
    if not groups or any(not 0 < len(set(g)) == len(g) < channels or not set(g) <= set(range(channels)) for g in groups):
        raise ValueError(
            f"PixelFlow(order): got {groups}, wanted one group or more, each of some but not all of the channels 0 to "
            f"{channels - 1}; write for example ((0,), (1,))"
        )
    return [groups[i % len(groups)] for i in range(couplings)]


def write(path: Where, config: Mapping[str, Any], provenance: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file atomically; configuration, provenance, version and checksum are its metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = json.loads(json.dumps({"config": config, "provenance": provenance, "version": VERSION}))
    facts["sha256"] = _checksum(facts, tensors)
    # one entry, for safetensors puts several in an order that it draws anew each time
    data = safetensors.torch.save(tensors, {FORMAT: json.dumps(facts, sort_keys=True)})
    with atomic(path) as file:
        file.write(data)


def read(path: Where) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """Configuration, provenance and parameters of a file, once its checksum is right."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: got no file, wanted one that PixelFlow.save or infomin learn-views --save wrote; see its path"
        )
    data = Path(path).read_bytes()
    try:
        tensors = safetensors.torch.load(data)
        entries = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        facts = json.loads(entries[FORMAT]) if FORMAT in entries else None
    except Exception as error:  # what damaged bytes raise is not written down anywhere
        raise ValueError(f"{path}: got a file that cannot be read ({error}), wanted a whole safetensors file; {REMEDY}") from None
    if facts is None:
        raise ValueError(
            f"{path}: got a safetensors file of another program, wanted one that PixelFlow.save wrote; give its path"
        )
    if facts.get("version") != VERSION:
        raise ValueError(
            f"{path}: got version {facts.get('version')} of the format, wanted {VERSION}; take the infomin that wrote it"
        )
    if facts.pop("sha256", None) != _checksum(facts, tensors):
        raise ValueError(f"{path}: got a wrong checksum, so some of its bytes are not those that were written; {REMEDY}")
    return facts["config"], facts["provenance"], tensors


def _checksum(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    return fingerprint({"facts": json.dumps(facts, sort_keys=True), "tensors": dict(tensors)})
