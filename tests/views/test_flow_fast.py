"""The fast path of a flow gives the numbers and gradients of nflows and zuko; and flows learn."""

import copy

import pytest
import torch
from flow_cases import F64, both_kinds, colors, every_flow, random_flow, seeded
from nflows.transforms.coupling import AdditiveCouplingTransform
from torch import Tensor, nn

from infomin.views import couplings
from infomin.views.flow import FlowSplit, PixelFlow


@every_flow
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-12), (torch.float32, 1e-6)])
def test_the_fast_path_gives_the_numbers_of_nflows(
    settings: dict, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # several pieces of an image, the last of them smaller
    monkeypatch.setattr(couplings, "PIECE_PIXELS", 7)
    monkeypatch.setitem(couplings.PIECE_FLOATS, "cpu", 7)
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
    monkeypatch.setattr(couplings, "PIECE_PIXELS", 2)
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
        monkeypatch.setattr(couplings, "PIECE_PIXELS", pixels)
        monkeypatch.setitem(couplings.PIECE_FLOATS, "cpu", floats)
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
