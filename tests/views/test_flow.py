"""Pixel-wise flows: bijections, their log-det, the fast path, and the views they make."""

import copy
import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from nflows.transforms.coupling import AdditiveCouplingTransform
from torch import Tensor, nn

import infomin
from infomin.views import couplings
from infomin.views.color import SPACES, ColorSplit
from infomin.views.couplings import apply_couplings
from infomin.views.flow import FlowSplit, PixelFlow

torch.set_num_threads(1)
F64 = torch.float64
# channels, couplings, depth
SHAPES = [
    (2, 1, 0),
    (2, 4, 1),
    (3, 6, 1),
    (3, 6, 2),
    (3, 4, 0),
    (4, 6, 2),
    (5, 4, 1),
    (6, 6, 1),
]
FLOWS = [
    {"channels": channels, "couplings": n, "depth": depth, "volume_preserving": vp}
    for (channels, n, depth), vp in product(SHAPES, (True, False))
]
every_flow = pytest.mark.parametrize(
    "settings", FLOWS, ids=lambda s: "-".join(map(str, s.values()))
)
both_kinds = pytest.mark.parametrize("vp", [True, False], ids=["additive", "affine"])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_flow(seed: int = 0, deviation: float = 0.5, **settings) -> PixelFlow:
    """A flow whose weights and biases are all random."""
    flow, g = PixelFlow(**settings), seeded(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(deviation * torch.randn(parameter.shape, generator=g))
    return flow


def colors(
    channels: int, dtype: torch.dtype = F64, low: float = 0, high: float = 1, seed: int = 1
) -> Tensor:
    x = torch.rand(2, channels, 6, 5, generator=seeded(seed), dtype=F64)
    return (low + (high - low) * x).to(dtype)


def by_hand(flow: PixelFlow, colour: Tensor) -> tuple[Tensor, Tensor]:
    """One colour `[C]` through the flow by the formulas, one channel at a time."""
    x, log_det = list(colour), colour.new_zeros(())
    for coupling, group in zip(flow.couplings, flow.config["order"], strict=True):
        h = torch.stack([x[c] for c in range(len(x)) if c not in group])
        net = coupling.transform_net
        for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
            h = w.to(h) @ h / math.sqrt(len(h)) + b.to(h)
            h = h.clamp(min=0) if i < len(net.weights) - 1 else h
        for i, c in enumerate(group):
            if flow.config["volume_preserving"]:
                x[c] = x[c] + h[i]
            else:
                growth = torch.tanh(h[len(group) + i])
                x[c] = x[c] * torch.exp(growth) + h[i]
                log_det = log_det + growth
    return torch.stack(x), log_det


# a bijection


@every_flow
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 2)])
def test_inverse_both_ways(
    settings: dict, dtype: torch.dtype, tolerance: float, low: float, high: float
) -> None:
    for seed in range(8):
        flow = random_flow(seed, **settings)
        x = colors(settings["channels"], dtype, low, high, seed)
        assert not torch.allclose(flow(x), x, atol=0.1)
        torch.testing.assert_close(flow.inverse(flow(x)), x, rtol=0, atol=tolerance)
        torch.testing.assert_close(flow(flow.inverse(x)), x, rtol=0, atol=tolerance)


def test_scales_are_bounded_and_a_wide_flow_still_inverts() -> None:
    """Log scales are in -1..1; each channel is changed by two of six couplings, at most by e^2."""
    for sign in (-1, 1):
        flow = random_flow(0, 0.01, couplings=6, volume_preserving=False)
        with torch.no_grad():
            for coupling in flow.couplings:
                coupling.transform_net.biases[-1][1] = sign * 1e3
        x = colors(3, torch.float32, -1, 2)
        torch.testing.assert_close(flow.log_det(x), torch.full((2, 6, 5), 6.0 * sign))
        torch.testing.assert_close(flow.inverse(flow(x)), x, rtol=0, atol=1e-5)
    flow = random_flow(1, 50, couplings=6, volume_preserving=False)
    assert 2 <= flow.log_det(colors(3)).abs().max() <= 6
    for width in (4, 256):
        flow = random_flow(2, couplings=6, hidden=width, depth=2, volume_preserving=False)
        x = colors(3, torch.float32, -1, 2)
        torch.testing.assert_close(flow.inverse(flow(x)), x, rtol=0, atol=1e-5)


@both_kinds
def test_the_inverse_has_the_gradient_of_an_inverse(vp: bool) -> None:
    flow = random_flow(25, couplings=6, volume_preserving=vp)

    def apply(colour: Tensor) -> Tensor:
        return flow(colour.view(1, 3, 1, 1)).flatten()

    def invert(latent: Tensor) -> Tensor:
        return flow.inverse(latent.view(1, 3, 1, 1)).flatten()

    colour = colors(3)[0, :, 0, 0]
    forward = torch.autograd.functional.jacobian(apply, colour)
    backward = torch.autograd.functional.jacobian(invert, apply(colour))
    torch.testing.assert_close(backward @ forward, torch.eye(3, dtype=F64), rtol=0, atol=1e-10)
    flow.inverse(colors(3)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in flow.parameters())


@pytest.mark.parametrize("space", SPACES)
@both_kinds
def test_a_flow_on_a_colour_space_is_that_flow_on_the_channels_of_colour_split(
    space: str, vp: bool
) -> None:
    flow, x = random_flow(3, space=space, volume_preserving=vp), colors(3)
    plain = random_flow(3, volume_preserving=vp)
    (channels,) = ColorSplit(space, "012", "range")(x) if space != "rgb" else (x,)
    torch.testing.assert_close(flow(x), plain(channels), rtol=0, atol=0)
    torch.testing.assert_close(flow.log_det(x), plain.log_det(channels), rtol=0, atol=0)
    torch.testing.assert_close(flow.inverse(flow(x)), x, rtol=0, atol=1e-10)
    single, tolerance = x.float(), 1e-4 if space in ("hsv", "lab", "luv") else 1e-5
    torch.testing.assert_close(flow.inverse(flow(single)), single, rtol=0, atol=tolerance)


@every_flow
def test_a_new_flow_is_the_identity(settings: dict) -> None:
    flow, x = PixelFlow(**settings), colors(settings["channels"])
    for fast in (True, False):
        flow.fast = fast
        assert torch.equal(flow(x), x) and torch.equal(flow.inverse(x), x)
        assert not flow.log_det(x).any()


@every_flow
def test_a_flow_follows_the_formulas(settings: dict) -> None:
    flow, x = random_flow(4, **settings), colors(settings["channels"], low=-1, high=2)
    latent, log_det = flow.forward_and_log_det(x)
    for b, i, j in ((0, 0, 0), (1, 2, 3), (1, 5, 4)):
        expected, growth = by_hand(flow, x[b, :, i, j])
        torch.testing.assert_close(latent[b, :, i, j], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(log_det[b, i, j], growth, rtol=0, atol=1e-12)


@every_flow
def test_log_det_is_that_of_the_jacobian(settings: dict) -> None:
    channels = settings["channels"]
    flow, x = random_flow(5, **settings), colors(channels, low=-1, high=2)
    log_det = flow.log_det(x)
    assert log_det.shape == (2, 6, 5)
    for b, i, j in ((0, 0, 0), (1, 3, 2)):
        jacobian = torch.autograd.functional.jacobian(
            lambda c: flow(c.view(1, -1, 1, 1)).flatten(), x[b, :, i, j]
        )
        torch.testing.assert_close(
            log_det[b, i, j], torch.linalg.slogdet(jacobian).logabsdet, rtol=0, atol=1e-6
        )
    if settings["volume_preserving"]:
        assert not log_det.any()
    else:
        assert log_det.std() > 0.01


@both_kinds
@pytest.mark.parametrize("fast", [True, False])
def test_the_inverse_has_the_log_det_of_the_forward_direction(vp: bool, fast: bool) -> None:
    flow = random_flow(33, couplings=6, volume_preserving=vp)
    flow.fast = fast
    for planes in (colors(3).flatten(2), colors(3).flatten(2).requires_grad_()):
        latent, log_det = flow._apply_couplings(planes, inverse=False)
        torch.testing.assert_close(flow._apply_couplings(latent, inverse=True)[1], log_det)


def test_log_det_with_a_space_is_with_respect_to_the_channels_of_the_space() -> None:
    flow, x = random_flow(6, space="ydbdr", volume_preserving=False), colors(3)
    jacobian = torch.autograd.functional.jacobian(
        lambda c: flow(c.view(1, -1, 1, 1)).flatten(), x[1, :, 2, 3]
    )
    split = ColorSplit("ydbdr", "012")
    (eye,) = split(torch.eye(3, dtype=F64).view(3, 3, 1, 1))
    (black,) = split(torch.zeros(1, 3, 1, 1, dtype=F64))
    space_log_det = torch.linalg.slogdet((eye - black)[:, :, 0, 0]).logabsdet
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(flow.log_det(x)[1, 2, 3] + space_log_det, expected)
    assert space_log_det.abs() > 0.1


# pixel by pixel


@both_kinds
def test_changing_a_pixel_changes_that_pixel_only(vp: bool) -> None:
    flow, x = random_flow(7, couplings=6, volume_preserving=vp, space="lab"), colors(3)
    for function in (flow, flow.inverse, flow.log_det):
        other = x.clone()
        other[1, :, 2, 3] += 0.01
        changed = (function(other) != function(x)).view(2, -1, 6, 5).any(1)
        assert changed.sum() <= 1 and (changed[1, 2, 3] or (vp and function == flow.log_det))


@both_kinds
@pytest.mark.parametrize("fast", [True, False])
def test_commutes_with_flips_crops_and_any_permutation_of_pixels(vp: bool, fast: bool) -> None:
    flow, x = random_flow(8, couplings=6, volume_preserving=vp), colors(3)
    flow.fast = fast
    order = torch.randperm(60, generator=seeded(0))

    def shuffled(images: Tensor) -> Tensor:
        return images.movedim(0, 1).reshape(-1, 60)[:, order].view(-1, 2, 6, 5).movedim(1, 0)

    moves = (
        lambda v: v.flip(-1),
        lambda v: v.flip(-2),
        lambda v: v[..., 1:4, 2:],
        lambda v: v.transpose(-1, -2),
        shuffled,
    )
    for function, move in product((flow, flow.inverse), moves):
        torch.testing.assert_close(function(move(x)), move(function(x)), rtol=0, atol=1e-13)


def test_layouts_single_images_and_dtypes() -> None:
    flow, x = random_flow(9, volume_preserving=False), colors(3, torch.float32)
    latent, log_det = flow.forward_and_log_det(x)
    torch.testing.assert_close(flow(x.to(memory_format=torch.channels_last)), latent)
    torch.testing.assert_close(flow(x[1]), latent[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(flow.log_det(x[1]), log_det[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(flow.inverse(latent[1]), x[1], rtol=0, atol=1e-5)
    eight = (255 * x).to(torch.uint8)
    torch.testing.assert_close(flow(eight), flow(eight.float() / 255), rtol=0, atol=0)
    for dtype in (torch.float16, torch.bfloat16):
        half = x.to(dtype)
        for function in (flow, flow.log_det, flow.inverse):
            assert torch.equal(function(half), function(half.float()).to(dtype))
    assert flow(x.double()).dtype == F64
    assert flow(x).dtype == flow(eight).dtype == flow.double()(x).dtype == torch.float32
    torch.testing.assert_close(flow(x), latent, rtol=0, atol=1e-6)


def test_autocast_rounds_nothing_forward_or_backward() -> None:
    def gradients(flow: PixelFlow, autocast: bool) -> list[Tensor]:
        x = colors(3, torch.float32).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            latent = flow(x)
            gradients = torch.autograd.grad(latent.square().sum(), [x, *flow.parameters()])
        return [latent, *gradients]

    flow = random_flow(10, volume_preserving=False)
    assert all(map(torch.equal, gradients(flow, True), gradients(flow, False)))


def test_a_flow_leaves_the_global_precision_as_it_was() -> None:
    flow, x = random_flow(26), colors(3)
    before = torch.backends.fp32_precision
    try:
        torch.backends.fp32_precision = "tf32"
        flow(x)
        torch.backends.fp32_precision = "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        flow(x)
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"
        torch.backends.fp32_precision = before


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # torch's own, of forward mode
@pytest.mark.parametrize("volume_preserving", [True, False])
def test_a_flow_has_the_derivatives_of_torch_func(volume_preserving: bool) -> None:
    flow = random_flow(3, volume_preserving=volume_preserving).double()
    x = torch.rand(1, 3, 1, 2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(flow, x)
    for differentiate in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(differentiate(flow)(x), jacobian)
    tangent = torch.rand_like(x)
    derivative = torch.func.jvp(flow, (x,), (tangent,))[1]
    expected = torch.einsum("abcdefgh,efgh->abcd", jacobian, tangent)
    torch.testing.assert_close(derivative, expected)


def test_an_order_from_numpy_can_be_saved(tmp_path: Path) -> None:
    flow = PixelFlow(couplings=2, order=np.array([[0], [1]]))
    flow.save(tmp_path / "flow.safetensors")
    assert PixelFlow.load(tmp_path / "flow.safetensors").config["order"] == [[0], [1]]


@both_kinds
def test_the_global_precision_of_products_changes_nothing(vp: bool) -> None:
    flow = random_flow(26, couplings=6, depth=2, volume_preserving=vp)
    x = torch.rand(4, 3, 64, 64, generator=seeded(0))
    before, results = torch.get_float32_matmul_precision(), []
    try:
        for precision in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(precision)
            latent = flow(x)
            gradients = torch.autograd.grad(latent.square().mean(), list(flow.parameters()))
            results.append([latent, flow.inverse(latent), *gradients])
            assert torch.get_float32_matmul_precision() == precision  # and is left as it was
    finally:
        torch.set_float32_matmul_precision(before)
    for highest, high, medium in zip(*results, strict=True):
        assert torch.equal(high, highest) and torch.equal(medium, highest)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_on_the_device_of_the_images(device: str) -> None:
    flow, x = random_flow(27, couplings=6, volume_preserving=False), colors(3, torch.float32)
    device_flow = copy.deepcopy(flow).to(device)
    latent = device_flow(x.to(device))
    assert latent.device.type == device
    torch.testing.assert_close(latent.cpu(), flow(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(device_flow.inverse(latent).cpu(), x, rtol=0, atol=1e-5)


# the fast path


@every_flow
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-12), (torch.float32, 1e-6)])
def test_the_fast_path_gives_the_numbers_of_nflows(
    settings: dict, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # several pieces of an image, the last of them smaller
    monkeypatch.setattr(couplings, "PIXELS", 7)
    monkeypatch.setitem(couplings.FLOATS, "cpu", 7)
    flow = random_flow(11, **settings).to(dtype)
    weight = torch.randn(2, settings["channels"], 6, 5, generator=seeded(2), dtype=F64).to(dtype)
    results = []
    for flow.fast in (True, False):
        x = colors(settings["channels"], dtype, -1, 2).requires_grad_()
        latent, log_det = flow.forward_and_log_det(x)
        loss = ((latent * weight).sum() + (log_det * weight[:, 0]).sum()) / 60
        gradients = torch.autograd.grad(loss, [x, *flow.parameters()])
        results.append([latent, log_det, flow.inverse(x), *gradients])
    for ours, theirs in zip(*results, strict=True):
        scale = max(1.0, float(theirs.detach().abs().max()))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * scale)


def test_nflows_holds_the_parameters_and_computes_unless_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow, calls = random_flow(12), []
    assert all(isinstance(coupling, AdditiveCouplingTransform) for coupling in flow.couplings)
    for coupling in flow.couplings:
        coupling.register_forward_hook(lambda *_: calls.append(1))
    flow(colors(3))
    assert not calls
    flow.fast = False
    flow(colors(3))
    assert len(calls) == 4
    networks = nn.ModuleList(coupling.transform_net for coupling in flow.couplings)
    assert set(map(id, flow.parameters())) == set(map(id, networks.parameters()))


def test_equals_zuko_with_the_same_weights() -> None:
    from zuko.transforms import (
        AdditiveTransform,
        ComposedTransform,
        CouplingTransform,
        DependentTransform,
    )

    flow, x = random_flow(13, couplings=6), colors(3, low=-1, high=2)

    def coupling(i: int) -> CouplingTransform:
        net, group = flow.couplings[i].transform_net, flow.config["order"][i]
        mask = torch.tensor([c not in group for c in range(3)])
        return CouplingTransform(
            lambda kept: DependentTransform(AdditiveTransform(net(kept)), 1), mask
        )

    theirs = ComposedTransform(*map(coupling, range(6)))
    rows = x.movedim(1, -1)
    torch.testing.assert_close(flow(x).movedim(1, -1), theirs(rows), rtol=0, atol=1e-12)
    torch.testing.assert_close(flow.inverse(x).movedim(1, -1), theirs.inv(rows), rtol=0, atol=1e-12)


@both_kinds
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_gradients_of_first_and_second_order(
    vp: bool, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couplings, "PIXELS", 2)
    flow = random_flow(14, couplings=2, hidden=3, depth=depth, volume_preserving=vp).double()
    x = colors(3)[:1, :, :1, :3].clone().requires_grad_()
    names = [f"flow.{name}" for name, _ in flow.named_parameters()]

    def function(images: Tensor, *values: Tensor) -> Tensor:
        outputs: Tensor = torch.func.functional_call(
            Both(flow), dict(zip(names, values, strict=True)), (images,)
        )
        return outputs

    inputs = (x, *(p.detach().clone().requires_grad_() for p in flow.parameters()))
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@both_kinds
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_gradient_with_a_graph_is_the_same(vp: bool, depth: int) -> None:
    flow = random_flow(31, couplings=3, depth=depth, volume_preserving=vp).double()
    x = colors(3).requires_grad_()
    latent, log_det = flow.forward_and_log_det(x)
    loss = latent.square().sum() + (log_det * colors(1)[:, 0]).sum()
    inputs = [x, *flow.parameters()]
    plain = torch.autograd.grad(loss, inputs, retain_graph=True)
    with_graph = torch.autograd.grad(loss, inputs, create_graph=True)
    for one, other in zip(plain, with_graph, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-10)


class Both(nn.Module):
    def __init__(self, flow: PixelFlow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, images: Tensor) -> Tensor:
        latent, log_det = self.flow.forward_and_log_det(images)
        return torch.cat([latent, log_det[:, None]], 1)


def test_the_gradient_of_a_gradient_counts_each_input_once() -> None:
    """Even if the weights were computed from the images, each input gets its own gradient."""
    x = torch.randn(1, 3, 5, generator=seeded(0), dtype=F64, requires_grad=True)
    results = []
    for function in (couplings.apply_in_pieces, couplings.apply_couplings):
        first, second = (
            [(x[0, :, :2] * 2, x[0, :, :1]), (x[0, :1, :3], x[0, :1, 4:])],
            [(x[0, :, 2:4], x[0, :, 1:2])],
        )
        chain = [([1], first), ([0], [*second, (x[0, 1:2, :3], x[0, 1:2, :1])])]
        (grad,) = torch.autograd.grad(function(x, chain)[0].square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(grad.square().sum(), x)[0])
    torch.testing.assert_close(*results)


@both_kinds
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    "order", [((0,), (1,)), ((0, 2), (1,), (2, 3)), ((0, 3),), ((1, 2, 3), (0,))]
)
def test_pieces_of_any_size_give_the_numbers_and_the_gradients_of_the_whole(
    order: tuple, depth: int, vp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = random_flow(28, channels=4, depth=depth, volume_preserving=vp, order=order)
    x = colors(4).requires_grad_()
    weight, results = torch.randn(2, 4, 6, 5, generator=seeded(3), dtype=F64), []
    for pixels, floats in ((2**10, 2**18), (30, 1), (7, 200), (1, 1)):
        monkeypatch.setattr(couplings, "PIXELS", pixels)
        monkeypatch.setitem(couplings.FLOATS, "cpu", floats)
        latent, log_det = flow.forward_and_log_det(x)
        loss = (latent * weight).sum() + (log_det * weight[:, 0]).sum()
        gradients = torch.autograd.grad(loss, [x, *flow.parameters()])
        results.append([latent, log_det, flow.inverse(latent), *gradients])
    for pieces in results[1:]:
        for ours, whole in zip(pieces, results[0], strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-12, atol=1e-12)


def test_a_retained_graph_gives_the_same_gradient_again() -> None:
    flow, x = random_flow(29, volume_preserving=False), colors(3)
    loss, parameters = flow(x).square().sum(), list(flow.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters, retain_graph=True)
    assert all(map(torch.equal, first, second))


def test_views_and_latents_can_be_modified_in_place() -> None:
    flow, x = random_flow(30, channels=4, volume_preserving=False), colors(4)
    parameters = list(flow.parameters())
    for split in ("0-123", "03-12"):
        gradients = []
        for double in (lambda view: view.mul_(2), lambda view: view * 2):
            views = FlowSplit(flow, split)(x)
            loss = sum(double(view).square().sum() * (i + 1) for i, view in enumerate(views))
            gradients.append(torch.autograd.grad(loss, parameters))
        assert all(map(torch.equal, *gradients))
    in_place = torch.autograd.grad(flow(x).mul_(2).square().sum(), parameters)
    copied = torch.autograd.grad((flow(x) * 2).square().sum(), parameters)
    assert all(map(torch.equal, in_place, copied))


def test_no_hidden_layer_is_saved_for_the_gradient() -> None:
    flow, x = random_flow(15, couplings=6, hidden=64), colors(3, torch.float32)
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        flow(x)
        assert max(saved) <= 6 * 60  # a plane for each coupling
        flow.fast = False
        flow(x)
        assert max(saved) == 60 * 64


# learning


@every_flow
@pytest.mark.parametrize("fast", [True, False])
def test_every_parameter_gets_a_gradient_and_so_does_the_image(settings: dict, fast: bool) -> None:
    flow, x = random_flow(16, **settings), colors(settings["channels"]).requires_grad_()
    flow.fast = fast
    latent, log_det = flow.forward_and_log_det(x)
    (latent.square().sum() + log_det.square().sum()).backward()
    for name, parameter in flow.named_parameters():
        grad = parameter.grad
        assert grad is not None and grad.isfinite().all() and grad.any(), name
    assert x.grad is not None and x.grad.any()


@both_kinds
def test_the_log_det_has_a_gradient_unless_volume_preserving(vp: bool) -> None:
    latent, log_det = random_flow(32, volume_preserving=vp).forward_and_log_det(colors(3))
    assert latent.requires_grad and log_det.requires_grad != vp


def test_hidden_layers_start_with_normal_weights_and_uniform_biases() -> None:
    net = PixelFlow(hidden=4096, depth=2, couplings=1).couplings[0].transform_net
    for weights, biases in zip(net.weights[:-1], net.biases[:-1], strict=True):
        assert weights.mean().abs() < 0.05 and weights.std().item() == pytest.approx(1, abs=0.05)
        assert biases.mean().abs() < 0.05
        assert -0.5 <= biases.min() < -0.45 and 0.45 < biases.max() <= 0.5


def test_the_first_step_moves_the_last_layers_and_the_second_all_layers() -> None:
    flow, x = PixelFlow(volume_preserving=False), colors(3, torch.float32)
    descent = torch.optim.SGD(flow.parameters(), 0.01)
    for last in (True, False):
        descent.zero_grad()
        flow(x).square().sum().backward()
        for name, parameter in flow.named_parameters():
            moves = parameter.grad is not None and bool(parameter.grad.any())
            assert moves == (not last or name.endswith(".1")), name
        descent.step()


def test_frozen_parameters_get_no_gradient_and_the_image_gets_the_same() -> None:
    flow, x = random_flow(17, volume_preserving=False), colors(3, torch.float32).requires_grad_()
    (free,) = torch.autograd.grad(flow(x).square().sum(), x)
    flow.requires_grad_(False)
    flow(x).square().sum().backward()
    assert x.grad is not None and torch.equal(x.grad, free)
    assert all(p.grad is None for p in flow.parameters())
    assert not flow(x.detach()).requires_grad


@every_flow
def test_parameter_gradients_do_not_depend_on_whether_images_need_one(settings: dict) -> None:
    flow, x = random_flow(19, **settings), colors(settings["channels"])

    def gradients(images: Tensor) -> tuple[Tensor, ...]:
        latent, log_det = flow.forward_and_log_det(images)
        loss = latent.square().sum() + log_det.square().sum()
        return torch.autograd.grad(loss, list(flow.parameters()))

    assert all(map(torch.equal, gradients(x), gradients(x.clone().requires_grad_())))


def test_a_flow_learns_to_undo_another() -> None:
    target, x = random_flow(18, 0.3, couplings=2, volume_preserving=False), colors(3, torch.float32)
    flow = PixelFlow(volume_preserving=False, hidden=16)
    adam = torch.optim.Adam(flow.parameters(), 0.02)
    losses = []
    for _ in range(150):
        adam.zero_grad()
        loss = (flow(target(x)) - x).square().mean()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 50


# seeds, copies, state, export


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = PixelFlow(seed=3), PixelFlow(seed=3), PixelFlow(seed=4)
    one(colors(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, one.parameters(), same.parameters()))
    assert not all(map(torch.equal, one.parameters(), other.parameters()))
    first, second = (coupling.transform_net.weights[0] for coupling in one.couplings[:2])
    assert not torch.equal(first, second)


def test_state_dict_and_deep_copy() -> None:
    flow, x = random_flow(19, volume_preserving=False), colors(3)
    other = PixelFlow(volume_preserving=False, seed=5)
    other.load_state_dict(flow.state_dict())
    twin = copy.deepcopy(flow)
    assert torch.equal(other(x), flow(x)) and torch.equal(twin(x), flow(x))
    with torch.no_grad():
        next(twin.parameters()).add_(1)
    assert not torch.equal(twin(x), flow(x)) and torch.equal(other(x), flow(x))


@both_kinds
@pytest.mark.parametrize("space", ["rgb", "ydbdr", "lab"])
def test_the_forward_pass_is_exported_for_any_batch(vp: bool, space: str) -> None:
    flow, x = random_flow(20, volume_preserving=vp, space=space).eval(), colors(3, torch.float32)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(flow, (x,), dynamic_shapes=({0: batch},))
    for images in (x, torch.rand(5, 3, 6, 5, generator=seeded(1))):
        torch.testing.assert_close(program.module()(images), flow(images), rtol=0, atol=1e-6)


# the order of channels


def test_the_default_order_changes_and_uses_every_channel() -> None:
    assert PixelFlow().config["order"] == [[0], [1], [2], [0]]
    assert PixelFlow(channels=4, couplings=3).config["order"] == [[0, 1], [2, 3], [0, 1]]
    assert PixelFlow(channels=5, couplings=3).config["order"] == [[0, 1], [2, 3], [0, 4]]
    for channels in range(2, 9):
        order = PixelFlow(channels=channels, couplings=2 + channels % 2).config["order"]
        every_channel = set(range(channels))
        assert set.union(*map(set, order)) == every_channel
        assert set.union(*(every_channel - set(group) for group in order)) == every_channel


def test_a_given_order_is_repeated_and_determines_what_changes() -> None:
    flow = random_flow(21, couplings=3, order=((2, 1), [0]))
    assert flow.config["order"] == [[1, 2], [0], [1, 2]]
    x = colors(3)
    latent = random_flow(21, couplings=2, order=[[1]])(x)
    assert torch.equal(latent[:, [0, 2]], x[:, [0, 2]])
    assert not torch.allclose(latent[:, 1], x[:, 1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 1}, r"PixelFlow\(channels\): got 1, wanted 2 or more"),
        (
            {"couplings": 2, "order": ((0,), (1,), (2,))},
            r"PixelFlow\(order\): got 3 groups for 2 couplings, wanted at most 2; leave some out",
        ),
        ({"order": (0, 1)}, r"PixelFlow\(order\): got \(0, 1\), wanted groups of channels"),
        ({"couplings": 0}, r"PixelFlow\(couplings\): got 0, wanted 1 or more"),
        ({"hidden": 0}, r"PixelFlow\(hidden\): got 0"),
        ({"depth": -1}, r"PixelFlow\(depth\): got -1, wanted 0 or more"),
        ({"depth": 1.5}, r"PixelFlow\(depth\): got 1.5, wanted int"),
        ({"seed": -1}, r"PixelFlow\(seed\): got -1"),
        ({"space": "cmyk"}, r"PixelFlow\(space\): got 'cmyk', wanted one of rgb, xyz"),
        (
            {"space": "lab", "channels": 4},
            r"got 'lab' for 4 channels, wanted 3 channels; use space='rgb'",
        ),
        ({"order": ()}, r"PixelFlow\(order\): got \[\], wanted at least one group"),
        ({"order": ((0, 1, 2),)}, r"some but not all of the channels 0 to 2; write"),
        ({"order": ((),)}, r"some but not all"),
        ({"order": ((0, 0),)}, r"some but not all"),
        ({"order": ((3,),)}, r"some but not all"),
    ],
)
def test_arguments_out_of_range(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelFlow(**settings)


def test_bad_images_are_errors() -> None:
    flow = PixelFlow()
    with pytest.raises(
        ValueError,
        match=r"PixelFlow: images must have the shape \[B, 3, H, W\], got \[2, 4, 5, 5\]",
    ):
        flow(torch.zeros(2, 4, 5, 5))
    with pytest.raises(TypeError, match=r"PixelFlow: images must be a torch.Tensor"):
        flow([1])
    with pytest.raises(ValueError, match="must be finite"):
        flow(torch.full((1, 3, 2, 2), math.nan))
    with pytest.raises(
        TypeError, match=r"PixelFlow.inverse: got a latent of torch.uint8, wanted floating point"
    ):
        flow.inverse(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(
        ValueError,
        match=r"PixelFlow.inverse: images must have the shape \[B, 3, H, W\], got \[2, 4, 5, 5\]",
    ):
        flow.inverse(torch.zeros(2, 4, 5, 5))
    with pytest.raises(ValueError, match=r"PixelFlow.inverse: images must be finite"):
        flow.inverse(torch.full((1, 3, 2, 2), math.nan))
    with pytest.raises(
        ValueError,
        match=r"FlowSplit\(\): floating-point images must lie in \[0, 1\], got \[0, 255\]",
    ):
        FlowSplit(flow)(torch.tensor([0.0, 255, 0]).view(1, 3, 1, 1))


# views


@pytest.mark.parametrize("split", ["0-12", "01-2", "2-01", "0-1-2", "210", [[1], (0, 2)]])
def test_views_are_groups_of_the_latent(split: str | list) -> None:
    flow, x = random_flow(22), colors(3)
    view = FlowSplit(flow, split)
    words = split.split("-") if isinstance(split, str) else split
    groups = [list(map(int, word)) for word in words]
    views, latent = view(x), flow(x)
    assert view.channels == tuple(map(len, groups)) and view.readout == tuple(range(len(groups)))
    assert view.in_channels == 3 and isinstance(views, tuple)
    for v, group in zip(views, groups, strict=True):
        assert torch.equal(v, latent[:, group])
    assert all(map(torch.equal, view(x[0]), (v[0] for v in views)))
    half = view(x.bfloat16())
    assert all(v.dtype == torch.bfloat16 for v in half)
    assert view.flow is flow and len(list(view.parameters())) == len(list(flow.parameters()))


def test_views_of_many_channels() -> None:
    flow = random_flow(23, channels=12, couplings=2)
    view = FlowSplit(flow, [[0], range(1, 12)])
    assert view.channels == (1, 11) and view.in_channels == 12
    x = colors(12)
    assert torch.equal(torch.cat(view(x), 1), flow(x))


def test_gradients_flow_through_views_to_the_flow_and_the_image() -> None:
    view, x = FlowSplit(random_flow(24, couplings=6)), colors(3).requires_grad_()
    sum(v.square().sum() for v in view(x)).backward()
    assert x.grad is not None and x.grad.any()
    assert all(p.grad is not None and p.grad.any() for p in view.parameters())


@pytest.mark.parametrize(
    "split", ["0-1", "0-11", "0-12-", "", "0-1a2", "a-12", "0-123", [[0], [1]], [[0, 1, 2], []]]
)
def test_bad_splits_are_errors(split: str | list) -> None:
    message = (
        r"FlowSplit\(split\): got .*, wanted the channels 0 to 2 once each.*"
        "write for example '0-12'"
    )
    with pytest.raises(ValueError, match=message):
        FlowSplit(PixelFlow(), split)


def test_the_default_split_needs_three_channels() -> None:
    with pytest.raises(
        ValueError, match=r"got '0-12', wanted the channels 0 to 3 once each.*'0-123'"
    ):
        FlowSplit(PixelFlow(channels=4))


def test_no_other_file_imports_nflows() -> None:
    package = Path(infomin.__file__).parent
    importing = [
        path.name
        for path in package.rglob("*.py")
        if re.search(r"^\s*(from|import) nflows", path.read_text(), re.MULTILINE)
    ]
    assert importing == ["flow.py"]


@pytest.mark.parametrize("order", [((0, 1), (2,)), ((0, 2), (1, 3)), ((1, 2, 3), (0,), (0, 3))])
def test_log_dets_of_couplings_of_several_channels_are_those_of_the_jacobian(order):
    channels = 1 + max(map(max, order))
    flow = PixelFlow(channels, len(order), hidden=5, volume_preserving=False, order=order).double()
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.5 * torch.randn(p.shape, dtype=torch.float64, generator=draws))
        layers = [c.transform_net.layers(torch.float64) for c in flow.couplings]
        chain = list(zip(flow.config["order"], layers, strict=True))
        colors = torch.rand(4, channels, 1, dtype=torch.float64, generator=draws)

        def apply(colour: Tensor) -> Tensor:
            return apply_couplings(colour[None, :, None], chain)[0][0, :, 0]

        jacobians = torch.stack([torch.func.jacrev(apply)(colour[:, 0]) for colour in colors])
        y, forward = apply_couplings(colors, chain)
        x, backward = apply_couplings(y, chain, inverse=True)
        fast = flow.log_det(colors[..., None])
    for log_det in (forward[:, 0], backward[:, 0], fast[:, 0, 0]):
        torch.testing.assert_close(log_det, jacobians.det().abs().log())
    torch.testing.assert_close(x, colors)
