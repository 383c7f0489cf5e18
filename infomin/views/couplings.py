"""Couplings one after another, on planes `[B, C, N]`: B images of C channels and N pixels.

A coupling changes some channels by what a perceptron computes from the others. A hidden layer of
width 32 over 64 images of 64 px is 32 MB, ten times the images. So one piece of the images goes
through all couplings while its hidden layers are in the cache, and comes back through them for the
gradient. That takes a fraction of the time of writing whole layers to memory and reading them back.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..common.precision import no_autocast
from ..common.seeds import to_device

# Weights [out, in] and biases [out, 1] of each layer.
Layers: TypeAlias = Sequence[tuple[Tensor, Tensor]]
# For each coupling, the channels that it changes, ascending, and its layers.
Chain: TypeAlias = Sequence[tuple[Sequence[int], Layers]]
# Floats in a hidden layer of one piece, by device: 2 MB, half of it for each of two cores.
PIECE_FLOATS = {"cpu": 2**19}
# On other devices memory is fast enough for larger pieces, and every call costs time.
PIECE_FLOATS_ELSEWHERE = 2**25
# Pixels of an image in one piece: a core finds the layer that it computed in its own cache.
PIECE_PIXELS = 2**10
# A single pass, even if the gradient is the same for all units.
relu_gradient = torch.ops.aten.threshold_backward


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
    """Apply all couplings, or undo them from the last to the first.

    An additive coupling turns a plane into `plane + shift`, an affine one into
    `plane * exp(tanh(raw)) + shift`.

    Args:
        x: planes `[B, C, N]`.
        chain: the layers give one shift for each changed channel; for an affine coupling, all
            shifts and then one `raw` for each.
        inverse: undo the couplings.

    Returns:
        New planes, and the log of the factor by which the forward direction scales the volume at
        each pixel, `[B, N]`.

    Source: NICE, additive coupling layers; RealNVP, affine ones.

    >>> double = [(torch.tensor([[2.0]]), torch.zeros(1, 1))]
    >>> apply_couplings(torch.tensor([[[1.0], [0.0]]]), [([1], double)])[0].flatten().tolist()
    [1.0, 2.0]
    """
    planes, log_det = list(x.unbind(1)), torch.zeros_like(x[:, 0])
    for changed, layers in reversed(chain) if inverse else chain:
        kept = [plane for channel, plane in enumerate(planes) if channel not in changed]
        shifts, *raw = perceptron(torch.stack(kept, 1), layers).split(len(changed), 1)
        log_scales = torch.tanh(raw[0]) if raw else None
        for i, channel in enumerate(changed):
            plane, shift = planes[channel], shifts[:, i]
            if log_scales is None:
                planes[channel] = plane - shift if inverse else plane + shift
            else:
                scale = log_scales[:, i].exp()
                planes[channel] = (plane - shift) / scale if inverse else plane * scale + shift
        if log_scales is not None:
            log_det = log_det + log_scales.sum(1)
    return torch.stack(planes, 1), log_det


def apply_in_pieces(x: Tensor, chain: Chain) -> tuple[Tensor, Tensor]:
    """`apply_couplings` and its gradients with the hidden layers of only one piece in memory.

    >>> hidden, last = (torch.rand(8, 1), torch.rand(8, 1)), (torch.rand(1, 8), torch.rand(1, 1))
    >>> x, chain = torch.rand(4, 2, 5), [([0], [hidden, last])]
    >>> torch.allclose(apply_in_pieces(x, chain)[0], apply_couplings(x, chain)[0])
    True
    """
    order = [changed for changed, _ in chain]
    y, log_det = _ApplyInPieces.apply(x, order, *_parameters(chain))
    return y, log_det


def invert_in_pieces(y: Tensor, chain: Chain) -> tuple[Tensor, Tensor]:
    """`apply_couplings` with `inverse=True`, in pieces.

    If a gradient is needed, which is rare, the layers of all pieces are kept.
    """
    parameters = _parameters(chain)
    with no_autocast(y.device.type):
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (y, *parameters)):
            return apply_couplings(y, chain, inverse=True)
        x, log_det = y.new_empty(y.shape), y.new_empty(y[:, 0].shape)
        for image, pixel in _pieces(y, parameters):
            piece = y[image, :, pixel]
            x[image, :, pixel], log_det[image, pixel] = apply_couplings(piece, chain, inverse=True)
    return x, log_det


def _parameters(chain: Chain) -> list[Tensor]:
    """The weights and biases of all couplings, layer by layer."""
    layers = [layer for _, layers in chain for layer in layers]
    return [parameter for layer in layers for parameter in layer]


def _pieces(x: Tensor, parameters: Sequence[Tensor]) -> Iterator[tuple[slice, slice]]:
    """The images and the pixels of each piece of `x`."""
    device, widest = x.device.type, max(map(len, parameters))
    piece_size = PIECE_FLOATS.get(device, PIECE_FLOATS_ELSEWHERE) // widest
    pixels = PIECE_PIXELS if device in PIECE_FLOATS else max(1, min(x.shape[2], piece_size))
    images = max(1, piece_size // pixels)
    for pixel in range(0, x.shape[2], pixels):
        for image in range(0, len(x), images):
            yield slice(image, image + images), slice(pixel, pixel + pixels)


class _ApplyInPieces(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, order: Sequence[Sequence[int]], *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        couplings = _build_couplings(x.shape[1], order, parameters)
        y, log_det = x.new_empty(x.shape), x.new_zeros(len(x), x.shape[2])
        overwritten = x.new_empty(len(x), sum(map(len, order)), x.shape[2])
        with no_autocast(x.device.type):
            for image, pixel in _pieces(x, parameters):
                state = _append_ones(x[image, :, pixel])
                for coupling in couplings:
                    coupling.apply_(
                        state, overwritten[image, :, pixel], log_det[image, None, pixel]
                    )
                y[image, :, pixel] = state[:, :-1]
        end = y.clone() if any(ctx.needs_input_grad) else y  # the caller may write to y in place
        ctx.save_for_backward(x, end, overwritten, *parameters)
        ctx.order, ctx.couplings = order, couplings
        if not any(coupling.is_affine for coupling in couplings):
            ctx.mark_non_differentiable(log_det)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, grad: Tensor, log_det_grad: Tensor) -> tuple[Tensor | None, ...]:
        x, end, overwritten, *parameters = ctx.saved_tensors
        needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2:])
        if torch.is_grad_enabled():  # for the gradient of this gradient, which autograd can compute
            output_grads = (grad, log_det_grad)
            first, *others = _autograd_gradients(x, ctx.order, parameters, needed, output_grads)
            return first, None, *others
        x_grad = torch.empty_like(end) if needed[0] else None
        sums = {coupling: coupling.zero_sums() for coupling in ctx.couplings}
        needs_parameters = any(needed[1:])
        with no_autocast(x.device.type):
            for image, pixel in _pieces(x, parameters):
                state = _append_ones(end[image, :, pixel])
                state_grad = _append_ones(grad[image, :, pixel])
                for i, coupling in reversed(list(enumerate(ctx.couplings))):
                    coupling.pull_back_(
                        state,
                        overwritten[image, :, pixel],
                        state_grad,
                        log_det_grad[image, None, pixel],
                        sums[coupling] if needs_parameters else None,
                        needs_input=i > 0 or needed[0],
                    )
                if x_grad is not None:
                    x_grad[image, :, pixel] = state_grad[:, :-1]
        parameter_grads: list[Tensor] = []
        for coupling in ctx.couplings:
            parameter_grads += coupling.gradients(sums[coupling])
        pairs = zip(parameter_grads, needed[1:], strict=True)
        return x_grad, None, *(gradient if need else None for gradient, need in pairs)


def _autograd_gradients(
    x: Tensor,
    order: Sequence[Sequence[int]],
    parameters: Sequence[Tensor],
    needed: Sequence[bool],
    grads: Sequence[Tensor],
) -> list[Tensor | None]:
    """The gradients of `x` and of each parameter, differentiable; None where not needed."""
    # Aliases: if one input was computed from another, its gradient must not reach that one too.
    inputs = [tensor.view_as(tensor) for tensor in (x, *parameters)]
    x, *parameters = inputs
    chain = list(zip(order, _layers_by_coupling(order, parameters), strict=True))
    y, log_det = apply_couplings(x, chain)
    outputs = (y, log_det) if log_det.requires_grad else (y,)
    wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
    gradients = torch.autograd.grad(outputs, wanted, grads[: len(outputs)], create_graph=True)
    remaining = iter(gradients)
    return [next(remaining) if need else None for need in needed]


def _layers_by_coupling(
    order: Sequence[Sequence[int]], parameters: Sequence[Tensor]
) -> list[Layers]:
    """The layers of each coupling; all couplings have the same number of them."""
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    depth = len(layers) // len(order)
    return [layers[start : start + depth] for start in range(0, len(layers), depth)]


def _append_ones(planes: Tensor) -> Tensor:
    state = planes.new_ones(len(planes), planes.shape[1] + 1, planes.shape[2])
    state[:, :-1] = planes
    return state


def _build_couplings(
    channels: int, order: Sequence[Sequence[int]], parameters: Sequence[Tensor]
) -> list["_Coupling"]:
    slots = [0, *accumulate(map(len, order))][:-1]
    arguments = zip(order, slots, _layers_by_coupling(order, parameters), strict=True)
    return [_Coupling(channels, *coupling) for coupling in arguments]


class _Coupling:
    """A coupling of pixels that end in a 1, so that weights and biases form one matrix per layer.

    The first matrix multiplies the channels that the coupling changes by 0. All matrices but the
    last pass the 1 on.

    Args:
        channels: of the images.
        changed: the channels that the coupling changes, ascending.
        slot: where the values that it overwrites start among those of all couplings.
        layers: of the perceptron.
    """

    def __init__(self, channels: int, changed: Sequence[int], slot: int, layers: Layers) -> None:
        (weights, biases), *others = layers
        self.layers, self.count = layers, len(changed)
        self.slots = slice(slot, slot + self.count)
        kept = [channel for channel in range(channels) if channel not in changed]
        self.kept = to_device(torch.tensor(kept, device="cpu"), weights.device)
        self.changed: Any = slice(changed[0], changed[-1] + 1)  # read and written without a copy
        if changed[-1] - changed[0] != self.count - 1:
            self.changed = to_device(torch.tensor(changed, device="cpu"), weights.device)
        first = weights.new_zeros(len(weights), channels).index_copy_(1, self.kept, weights)
        self.matrices = [torch.cat(layer, 1) for layer in ((first, biases), *others)]
        for i, matrix in enumerate(self.matrices[:-1]):
            eye = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
            self.matrices[i] = torch.cat([matrix, eye[-1:]])
        outputs = len(self.matrices[-1])
        self.is_affine = outputs > self.count
        # The last matrix is then a single row: a factor for each unit of the layer before.
        self.single_row = outputs == 1 and len(self.matrices) > 1

    def apply_(self, state: Tensor, overwritten: Tensor, log_det: Tensor) -> None:
        """Change a piece in place, save the overwritten values and add to the log-det."""
        output, before = self._activations(state, self.matrices)[-1], state[:, self.changed]
        overwritten[:, self.slots] = before
        if self.is_affine:
            shift, log_scale = output[:, : self.count], output[:, self.count :].tanh_()
            log_det += log_scale.sum(1, keepdim=True)
            state[:, self.changed] = torch.addcmul(shift, before, log_scale.exp())
        else:
            state[:, self.changed] = before + output

    def pull_back_(
        self,
        state: Tensor,
        overwritten: Tensor,
        grad: Tensor,
        log_det_grad: Tensor,
        sums: list[Tensor] | None,
        needs_input: bool,
    ) -> None:
        """Turn a piece and its gradient, in place, into what they were before the coupling.

        Args:
            state: the piece after the coupling.
            overwritten: the values that all couplings overwrote.
            grad: the gradient of `state`.
            log_det_grad: the gradient of the log-det.
            sums: for each matrix `[in, out]`, to which the products of its input and the gradient
                of its output are added; None if no parameter needs a gradient.
            needs_input: whether the gradient of the input is needed, not only `sums`.
        """
        state[:, self.changed] = overwritten[:, self.slots]
        inputs = self._activations(state, self._matrices_of_sums())
        matrices, output, out_grad = self.matrices, inputs.pop(), grad[:, self.changed]
        if self.single_row:
            out_grad = relu_gradient(out_grad.expand_as(output), output, 0)
            matrices = [*matrices[:-2], matrices[-1].T * matrices[-2]]
        elif self.is_affine:
            log_scale = output[:, self.count :].tanh_()
            before_grad = out_grad * log_scale.exp()
            log_scale_grad = torch.addcmul(log_det_grad, before_grad, state[:, self.changed])
            raw_grad = torch.addcmul(
                log_scale_grad, log_scale_grad * log_scale, log_scale, value=-1
            )
            out_grad = torch.cat([out_grad, raw_grad], 1)
            grad[:, self.changed] = before_grad
        for i, matrix in reversed(list(enumerate(matrices))):
            if sums is not None:
                sums[i] += torch.bmm(inputs[i], out_grad.mT).sum(0)
            if i:
                in_grad = torch.bmm(_expand(matrix.T, out_grad), out_grad)
                out_grad = relu_gradient(in_grad, inputs[i], 0)
            elif needs_input:
                grad.baddbmm_(_expand(matrix.T, out_grad), out_grad)

    def zero_sums(self) -> list[Tensor]:
        """Zeros for `pull_back_` to add to."""
        return [torch.zeros_like(matrix.T) for matrix in self._matrices_of_sums()]

    def gradients(self, sums: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of weights and biases, layer by layer, from the sums over all pieces."""
        if self.single_row:
            # One sum serves the last two layers: its products leave out the factors of the row.
            *lower, last = sums
            row_sum = (last * self.matrices[-2].T).sum(0)[:, None]
            sums = [*lower, last * self.matrices[-1], row_sum]
        gradients: list[Tensor] = []
        for i, (total, (weights, _)) in enumerate(zip(sums, self.layers, strict=True)):
            matrix_grad = total.T[: len(weights)]
            weights_grad = matrix_grad[:, :-1] if i else matrix_grad.index_select(1, self.kept)
            gradients += [weights_grad, matrix_grad[:, -1:]]
        return gradients

    def _matrices_of_sums(self) -> list[Tensor]:
        """The matrices that `pull_back_` sums over; a single row has no sum of its own."""
        return self.matrices[:-1] if self.single_row else self.matrices

    def _activations(self, state: Tensor, matrices: Sequence[Tensor]) -> list[Tensor]:
        """A piece and the output of each matrix; ReLU was applied to all outputs but the last."""
        activations = [state]
        for i, matrix in enumerate(matrices):
            layer_input = activations[-1].relu_() if i else state
            activations.append(torch.bmm(_expand(matrix, state), layer_input))
        return activations


def _expand(matrix: Tensor, images: Tensor) -> Tensor:
    """The matrix once per image, without a copy."""
    return matrix.expand(len(images), -1, -1)
