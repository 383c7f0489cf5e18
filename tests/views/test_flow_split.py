"""The order of a flow's channels, the views that they make, and what is told of bad ones."""

import math
import re
from pathlib import Path

import pytest
import torch
from flow_cases import colors, random_flow
from torch import Tensor

import infomin
from infomin.views.couplings import apply_couplings
from infomin.views.flow import FlowSplit, PixelFlow


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
        ({"channels": 1}, r"PixelFlow\(channels\): got 1, wanted a number from 2 to 1000"),
        (
            {"couplings": 2, "order": ((0,), (1,), (2,))},
            r"PixelFlow\(order\): got 3 groups for 2 couplings, wanted at most 2; leave some out",
        ),
        ({"order": (0, 1)}, r"PixelFlow\(order\): got \(0, 1\), wanted groups of the channels"),
        ({"order": ((0.5,),)}, r"PixelFlow\(order\): got \(\(0.5,\),\), wanted groups"),
        ({"couplings": 0}, r"PixelFlow\(couplings\): got 0, wanted a number from 1 to"),
        ({"hidden": 0}, r"PixelFlow\(hidden\): got 0"),
        ({"depth": -1}, r"PixelFlow\(depth\): got -1, wanted a number from 0 to"),
        ({"depth": 1.5}, r"PixelFlow\(depth\): got 1.5, wanted a whole number"),
        ({"couplings": 10**8}, r"PixelFlow\(couplings\): got 100000000"),
        ({"seed": -1}, r"PixelFlow\(seed\): got -1"),
        ({"space": "cmyk"}, r"PixelFlow\(space\): got 'cmyk', wanted one of rgb, xyz"),
        (
            {"space": "lab", "channels": 4},
            r"got 'lab' for 4 channels, wanted 3 channels; use space='rgb'",
        ),
        ({"order": ((0, 1, 2),)}, r"some but not all of the channels 0 to 2; write"),
        *(
            ({"order": order}, r"PixelFlow\(order\): got .*, wanted groups of the channels 0 to 2")
            for order in ((), ((),), ((0, 0),), ((3,),), ((-1,),), "", "0-", "3")
        ),
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
        match=r"FlowSplit: floating-point images must lie in \[0, 1\], got \[0, 255\]",
    ):
        FlowSplit(flow)(torch.tensor([0.0, 255, 0]).view(1, 3, 1, 1))


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
        r"FlowSplit\(split\): got .*, wanted groups of the channels 0 to 2, each channel once; "
        "write for example '0-12'"
    )
    with pytest.raises(ValueError, match=message):
        FlowSplit(PixelFlow(), split)


def test_the_default_split_needs_three_channels() -> None:
    with pytest.raises(
        ValueError, match=r"got '0-12', wanted groups of the channels 0 to 3, .*'0-123'"
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
