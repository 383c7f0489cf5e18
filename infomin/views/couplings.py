"""Couplings one after the other, over planes `[B, C, N]`: B images of C channels and N pixels.

A coupling changes some channels by what a perceptron computes from the others. A hidden layer of width 32 over 64 images of 64 px
is 32 MB, ten times the images. So a piece of the images goes through all couplings while its hidden layers are in the cache, and
comes back through them for the gradient: that takes a fraction of the time of writing whole layers out and reading them back.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..common.precision import full_precision
from ..common.seeds import to_device

Layers: TypeAlias = Sequence[
    tuple[Tensor, Tensor]
]  # weights [out, in] and biases [out, 1] of each layer
Chain: TypeAlias = Sequence[
    tuple[Sequence[int], Layers]
]  # of each coupling the channels that it changes, ascending, and its layers
FLOATS = {
    "cpu": 2**19
}  # of a hidden layer of a piece: 2 MB, of which each of two cores has its half
LARGE = 2**25  # elsewhere, where memory is wider than the cache and each call costs
relu_gradient = (
    torch.ops.aten.threshold_backward
)  # in one pass, also where the gradient is one for all units
PIXELS = (
    2**10
)  # of an image that go together: a core that has computed a plane's layer finds it in its own cache


def perceptron(x: Tensor, layers: Layers) -> Tensor:
    """Planes `[..., in, N]` to `[..., out, N]`, with ReLU between the layers.

    >>> weights, biases = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5]])
    >>> perceptron(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), [(weights, biases)])
    tensor([[ 1.5000, -0.5000]])
    """
    for i, (weights, biases) in enumerate(layers):
        x = weights @ (x.relu() if i else x) + biases
    return x


def apply_couplings(x: Tensor, chain: Chain, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """All couplings, each a plane becomes `plane * exp(tanh(raw)) + shift`, without `raw` only `plane + shift`; or the way back.

    Args:
        x: planes `[B, C, N]`.
        chain: layers give a shift for each channel that is changed, or all shifts and then a `raw` for each.
        inverse: undo the couplings, from the last to the first.

    Returns:
        New planes, and the logarithm of the factor by which each pixel's volume is scaled on the way there, not back, `[B, N]`.

    Source: NICE, additive coupling layers; RealNVP, affine ones.

    >>> double = [(torch.tensor([[2.0]]), torch.zeros(1, 1))]
    >>> apply_couplings(torch.tensor([[[1.0], [0.0]]]), [([1], double)])[0].flatten().tolist()
    [1.0, 2.0]
    """
    planes, log_det = list(x.unbind(1)), torch.zeros_like(x[:, 0])
    for changed, layers in reversed(chain) if inverse else chain:
        kept = torch.stack(
            [plane for channel, plane in enumerate(planes) if channel not in changed], 1
        )
        shift, *raw = perceptron(kept, layers).split(len(changed), 1)
        log_scale = torch.tanh(raw[0]) if raw else None
        for i, channel in enumerate(changed):
            by, times = shift[:, i], None if log_scale is None else log_scale[:, i].exp()
            if inverse:
                planes[channel] = (
                    planes[channel] - by if times is None else (planes[channel] - by) / times
                )
            else:
                planes[channel] = (
                    planes[channel] + by if times is None else planes[channel] * times + by
                )
        log_det = log_det if log_scale is None else log_det + log_scale.sum(1)
    return torch.stack(planes, 1), log_det


def apply_in_pieces(x: Tensor, chain: Chain) -> tuple[Tensor, Tensor]:
    """What `apply_couplings` gives, and its gradients, while no more than one piece of the hidden layers is in memory.

    >>> chain = [([0], [(torch.rand(8, 1), torch.rand(8, 1)), (torch.rand(1, 8), torch.rand(1, 1))])]
    >>> x = torch.rand(4, 2, 5)
    >>> torch.allclose(apply_in_pieces(x, chain)[0], apply_couplings(x, chain)[0])
    True
    """
    y, log_det = _There.apply(x, [changed for changed, _ in chain], *_parts(chain))
    return y, log_det


def invert_in_pieces(y: Tensor, chain: Chain) -> tuple[Tensor, Tensor]:
    """What `apply_couplings` gives on the way back, also in pieces; but if a gradient is wanted, which is rare, all layers are kept."""
    with full_precision(y.device.type):
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (y, *_parts(chain))):
            return apply_couplings(y, chain, inverse=True)
        x, log_det = y.new_empty(y.shape), y.new_empty(y[:, 0].shape)
        for image, pixel in _pieces(y, _parts(chain)):
            x[image, :, pixel], log_det[image, pixel] = apply_couplings(
                y[image, :, pixel], chain, inverse=True
            )
    return x, log_det


def _parts(chain: Chain) -> list[Tensor]:
    return [part for _, layers in chain for pair in layers for part in pair]


def _pieces(x: Tensor, parts: Sequence[Tensor]) -> Iterator[tuple[slice, slice]]:
    """The images and the pixels of each piece of `x`."""
    most = FLOATS.get(x.device.type, LARGE) // max(map(len, parts))
    wide = PIXELS if x.device.type in FLOATS else max(1, min(x.shape[2], most))
    many = max(1, most // wide)
    for pixel in range(0, x.shape[2], wide):
        for image in range(0, len(x), many):
            yield slice(image, image + many), slice(pixel, pixel + wide)


class _There(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, order: Sequence[Sequence[int]], *parts: Tensor
    ) -> tuple[Tensor, ...]:
        chain = _couplings(x.shape[1], order, parts)
        y, old = x.new_empty(x.shape), x.new_empty(len(x), sum(map(len, order)), x.shape[2])
        log_det = x.new_zeros(len(x), x.shape[2])
        with full_precision(x.device.type):
            for image, pixel in _pieces(x, parts):
                state = _with_ones(x[image, :, pixel])
                for coupling in chain:
                    coupling.change(state, old[image, :, pixel], log_det[image, None, pixel])
                y[image, :, pixel] = state[:, :-1]
        end = y.clone() if any(ctx.needs_input_grad) else y  # the caller may write to y in place
        ctx.save_for_backward(x, end, old, *parts)
        ctx.order, ctx.chain = order, chain
        if not any(coupling.scales for coupling in chain):
            ctx.mark_non_differentiable(log_det)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, grad: Tensor, log_det_grad: Tensor) -> tuple[Tensor | None, ...]:
        x, end, old, *parts = ctx.saved_tensors
        needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2:])
        if (
            torch.is_grad_enabled()
        ):  # the gradient of this gradient is wanted, and autograd's own has one
            found, *of_parts = _by_autograd(x, ctx.order, parts, needed, (grad, log_det_grad))
            return found, None, *of_parts
        x_grad = torch.empty_like(end) if needed[0] else None
        sums = {coupling: coupling.no_sums() for coupling in ctx.chain}
        with full_precision(x.device.type):
            for image, pixel in _pieces(x, parts):
                state, pulled = _with_ones(end[image, :, pixel]), _with_ones(grad[image, :, pixel])
                for i, coupling in reversed(list(enumerate(ctx.chain))):
                    own = sums[coupling] if any(needed[1:]) else None
                    onward = (
                        i > 0 or needed[0]
                    )  # images want no gradient, and the first coupling need not make it
                    coupling.pull(
                        state,
                        old[image, :, pixel],
                        pulled,
                        log_det_grad[image, None, pixel],
                        own,
                        onward,
                    )
                if x_grad is not None:
                    x_grad[image, :, pixel] = pulled[:, :-1]
        of_parts = [part for coupling in ctx.chain for part in coupling.gradients(sums[coupling])]
        return (
            x_grad,
            None,
            *(found if need else None for found, need in zip(of_parts, needed[1:], strict=True)),
        )


def _by_autograd(
    x: Tensor,
    order: Sequence[Sequence[int]],
    parts: Sequence[Tensor],
    needed: Sequence[bool],
    grads: Sequence[Tensor],
) -> list[Tensor | None]:
    x, *parts = own = [
        tensor.view_as(tensor) for tensor in (x, *parts)
    ]  # so that what one was computed from another is left out
    y, log_det = apply_couplings(
        x, [(changed, layers) for changed, layers in zip(order, _layers(order, parts), strict=True)]
    )
    wanted, many = (
        [tensor for tensor, need in zip(own, needed, strict=True) if need],
        2 if log_det.requires_grad else 1,
    )
    given = iter(torch.autograd.grad((y, log_det)[:many], wanted, grads[:many], create_graph=True))
    return [next(given) if need else None for need in needed]


def _layers(order: Sequence[Sequence[int]], parts: Sequence[Tensor]) -> list[Layers]:
    """The layers of each coupling, all of which have as many."""
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    each = len(pairs) // len(order)
    return [pairs[i : i + each] for i in range(0, len(pairs), each)]


def _with_ones(planes: Tensor) -> Tensor:
    state = planes.new_ones(len(planes), planes.shape[1] + 1, planes.shape[2])
    state[:, :-1] = planes
    return state


def _couplings(
    channels: int, order: Sequence[Sequence[int]], parts: Sequence[Tensor]
) -> list["_Coupling"]:
    slots = [0, *accumulate(map(len, order))]
    return [
        _Coupling(channels, *given)
        for given in zip(order, slots, _layers(order, parts), strict=False)
    ]


class _Coupling:
    """A coupling of pixels that end in a 1, so that a layer's weights and biases are one matrix.

    The first matrix sees all channels, and takes those that the coupling changes times 0; all but the last hand the 1 on.
    """

    def __init__(self, channels: int, changed: Sequence[int], slot: int, layers: Layers) -> None:
        (weights, biases), *others = layers
        self.layers, count, device = layers, len(changed), weights.device
        self.kept = to_device(
            torch.tensor([c for c in range(channels) if c not in changed], device="cpu"), device
        )
        near = changed[-1] - changed[0] == count - 1  # a slice is read and written without a copy
        self.changed: Any = (
            slice(changed[0], changed[-1] + 1)
            if near
            else to_device(torch.tensor(changed, device="cpu"), device)
        )
        self.old, self.count = slice(slot, slot + count), count
        wide = weights.new_zeros(len(weights), channels).index_copy_(1, self.kept, weights)
        matrices = [torch.cat(pair, 1) for pair in ((wide, biases), *others)]
        ones = [
            torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)[-1:]
            for matrix in matrices[:-1]
        ]
        self.matrices = [*map(torch.cat, zip(matrices[:-1], ones, strict=True)), matrices[-1]]
        self.scales = len(matrices[-1]) > count
        self.single = len(matrices[-1]) == 1 and len(matrices) > 1

    def change(self, state: Tensor, old: Tensor, log_det: Tensor) -> None:
        """Change a piece in place, keep what was there, and add to the log-det if there is one."""
        out, before = self._layers(state, self.matrices)[-1], state[:, self.changed]
        old[:, self.old] = before
        if self.scales:
            shift, log_scale = out[:, : self.count], out[:, self.count :].tanh_()
            log_det += log_scale.sum(1, keepdim=True)
            state[:, self.changed] = torch.addcmul(shift, before, log_scale.exp())
        else:
            state[:, self.changed] = before + out

    def pull(
        self,
        state: Tensor,
        old: Tensor,
        grad: Tensor,
        log_det_grad: Tensor,
        sums: list[Tensor] | None,
        onward: bool,
    ) -> None:
        """Take the gradient of a piece back to what it was before the coupling, and the piece too, both in place.

        Args:
            sums: of each matrix, the products of what goes into it with the gradient of what comes out, `[in, out]`, are added.
            onward: whether anybody wants the gradient; without it only the sums are made.
        """
        state[:, self.changed] = old[:, self.old]
        layers = self._layers(state, self.matrices[:-1] if self.single else self.matrices)
        matrices, top, out = self.matrices, layers.pop(), grad[:, self.changed]
        if self.single:  # times one number for each hidden unit, which may as well be a factor of the matrix before
            out, matrices = (
                relu_gradient(out.expand_as(top), top, 0),
                [*matrices[:-2], matrices[-1].T * matrices[-2]],
            )
        elif self.scales:
            log_scale = top[:, self.count :].tanh_()
            before = out * log_scale.exp()
            raw = torch.addcmul(log_det_grad, before, state[:, self.changed])
            out = torch.cat([out, torch.addcmul(raw, raw * log_scale, log_scale, value=-1)], 1)
            grad[:, self.changed] = before
        for i, matrix in reversed(list(enumerate(matrices))):
            if sums is not None:
                sums[i] += torch.bmm(layers[i], out.mT).sum(0)
            if i:
                out = relu_gradient(torch.bmm(_each(matrix.T, out), out), layers[i], 0)
            elif onward:
                grad.baddbmm_(_each(matrix.T, out), out)

    def no_sums(self) -> list[Tensor]:
        """For `pull` to add to."""
        return [
            torch.zeros_like(matrix.T)
            for matrix in (self.matrices[:-1] if self.single else self.matrices)
        ]

    def gradients(self, sums: Sequence[Tensor]) -> list[Tensor]:
        """Of weights and biases, a layer after the other, from the sums of all pieces."""
        if (
            self.single
        ):  # the last layer's inputs are products of the matrix before with inputs that were summed
            *below, last = sums
            sums = [*below, last * self.matrices[-1], (last * self.matrices[-2].T).sum(0)[:, None]]
        first, *others = (
            total.T[: len(weights)] for total, (weights, _) in zip(sums, self.layers, strict=True)
        )
        pairs = [
            (first.index_select(1, self.kept), first[:, -1:]),
            *((of[:, :-1], of[:, -1:]) for of in others),
        ]
        return [part for pair in pairs for part in pair]

    def _layers(self, state: Tensor, matrices: Sequence[Tensor]) -> list[Tensor]:
        """A piece, and what each matrix makes of it; what goes into the next has been through the ReLU."""
        found = [state]
        for i, matrix in enumerate(matrices):
            found.append(torch.bmm(_each(matrix, state), found[-1].relu_() if i else state))
        return found


def _each(matrix: Tensor, images: Tensor) -> Tensor:
    return matrix.expand(len(images), -1, -1)
