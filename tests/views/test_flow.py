"""Flows are bijections of single pixels, and their log-det is that of the Jacobian."""

import copy
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from flow_cases import F64, both_kinds, by_hand, colors, every_flow, random_flow, seeded
from torch import Tensor

from infomin.views.color import SPACES, ColorSplit
from infomin.views.flow import PixelFlow


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


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_on_the_device_of_the_images(device: str) -> None:
    flow, x = random_flow(27, couplings=6, volume_preserving=False), colors(3, torch.float32)
    device_flow = copy.deepcopy(flow).to(device)
    latent = device_flow(x.to(device))
    assert latent.device.type == device
    torch.testing.assert_close(latent.cpu(), flow(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(device_flow.inverse(latent).cpu(), x, rtol=0, atol=1e-5)
