"""Laws over all encoders, and torchvision's ResNet-18 as the oracle for ours."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from infomin.networks.encoders import ENCODERS, Encoder, Encoders, Grid, build_encoder

SIDE = {"tiny": 32, "alexnet": 64, "resnet18": 12, "resnet50": 8}
SMALL = {"tiny": 1.0, "alexnet": 0.1, "resnet18": 0.25, "resnet50": 0.25}
every = pytest.mark.parametrize("name", ENCODERS)


def small(name: str, channels: int = 3, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return build_encoder(name, channels, SMALL[name])


def batch(name: str, n: int = 4, channels: int = 3, side: int | None = None) -> Tensor:
    return torch.rand(
        n,
        channels,
        side or SIDE[name],
        side or SIDE[name],
        generator=torch.Generator().manual_seed(1),
    )


def settled(name: str) -> Encoder:
    """An encoder in eval mode whose BatchNorm statistics are not those it starts with."""
    encoder = small(name)
    for _ in range(3):
        encoder(batch(name, n=8))
    return encoder.eval()


@every
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_features_are_as_long_as_announced(name: str, channels: int) -> None:
    encoder = small(name, channels)
    assert encoder(batch(name, 2, channels)).shape == (2, encoder.features)
    wide = torch.rand(2, channels, SIDE[name], SIDE[name] + 7)  # and not only for squares
    assert encoder(wide).shape == (2, encoder.features)


def test_features_at_full_width() -> None:
    with torch.device("meta"):
        features = {name: build_encoder(name, 3).features for name in ENCODERS}
    assert features == {"tiny": 512, "alexnet": 4096, "resnet18": 512, "resnet50": 2048}


@every
def test_width_scales_the_features_and_squares_the_parameters(name: str) -> None:
    narrow, wide = build_encoder(name, 3, 0.25), build_encoder(name, 3, 0.5)
    assert narrow.features * 2 == pytest.approx(wide.features, rel=0.02)
    count = [sum(p.numel() for p in e.parameters() if p.dim() > 1) for e in (narrow, wide)]
    assert 3.2 < count[1] / count[0] < 4.1


def test_half_an_alexnet_is_the_half_network() -> None:
    shapes = [
        tuple(p.shape[:2]) for p in build_encoder("alexnet", 2, 0.5).parameters() if p.dim() > 1
    ]
    assert shapes == [
        (48, 2),
        (96, 48),
        (192, 96),
        (192, 192),
        (96, 192),
        (2048, 96 * 49),
        (2048, 2048),
    ]


@every
def test_every_parameter_gets_a_gradient(name: str) -> None:
    encoder, x = small(name), batch(name).requires_grad_()
    out = encoder(x)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())
    assert x.grad is not None and (x.grad.flatten(1).abs().amax(1) > 0).all()


@every
def test_a_batch_equals_its_images_one_by_one(name: str) -> None:
    encoder, x = settled(name), batch(name)
    with torch.no_grad():
        together, alone = encoder(x), torch.cat([encoder(image[None]) for image in x])
    assert together.std() > 1e-3
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@every
def test_the_memory_layout_changes_nothing(name: str) -> None:
    encoder, x = settled(name), batch(name)
    with torch.no_grad():
        expected = encoder(x)
        encoder.to(memory_format=torch.channels_last)
        got = encoder(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@every
@pytest.mark.parametrize("mixed", [False, True])
def test_bytes_are_brought_to_the_unit_interval(name: str, mixed: bool) -> None:
    encoder = settled(name)
    x = torch.randint(
        256, batch(name).shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(4)
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert torch.equal(encoder(x), encoder(x / 255)) and not torch.equal(
            encoder(x), encoder(x.float())
        )


@every
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_many_channels_are_laid_out_once_before_the_first_layer(
    name: str, dtype: torch.dtype
) -> None:
    """Not in a convolution, which does it for its gradient again: for the past of a clip that is half of a step's time."""
    encoder, seen = small(name, 7).to(memory_format=torch.channels_last), []
    encoder.body.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = (255 * batch(name, 2, 7)).to(dtype)
    found, same = encoder.eval()(x), encoder(x.contiguous(memory_format=torch.channels_last))
    assert all(
        given.is_contiguous(memory_format=torch.channels_last) for given in seen
    ) and torch.equal(found, same)
    assert x.is_contiguous() and torch.equal(
        seen[0], x.float() / 255 if dtype == torch.uint8 else x
    )


@every
def test_the_same_seed_gives_the_same_weights_and_another_does_not(name: str) -> None:
    first, again, other = (
        torch.cat([p.flatten() for p in small(name, seed=s).parameters()]) for s in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@every
def test_no_bias_before_a_batch_norm(name: str) -> None:
    assert all(
        m.bias is None for m in small(name).modules() if isinstance(m, nn.Conv2d | nn.Linear)
    )


@every
def test_the_least_size_is_taken_and_a_pixel_less_is_not(name: str) -> None:
    encoder = small(name).eval()
    assert encoder(batch(name, 2, side=encoder.smallest)).shape == (2, encoder.features)
    for cut in (
        batch(name, 2, side=encoder.smallest)[..., 1:],
        batch(name, 2, side=encoder.smallest)[..., 1:, :],
    ):
        with pytest.raises(
            ValueError, match=f"{name}: images must be {encoder.smallest} px or more on each side"
        ):
            encoder(cut)


@every
def test_wrong_channels_and_missing_batch_axis_name_the_encoder(name: str) -> None:
    encoder = small(name, channels=2)
    for x in (batch(name, channels=3), batch(name, channels=2)[0]):
        with pytest.raises(
            ValueError, match=rf"{name}: images must have the shape \[B, 2, H, W\], got"
        ):
            encoder(x)


@pytest.mark.parametrize(("name", "cells"), [("tiny", 2), ("alexnet", 7)])
def test_the_least_size_fills_every_cell_of_the_grid(name: str, cells: int) -> None:
    """One pixel less would leave fewer pixels than cells: the reason for the limit."""
    encoder = small(name).eval()
    body = encoder.body
    assert isinstance(body, nn.Sequential)
    until = next(i for i, m in enumerate(body) if isinstance(m, Grid))
    for side, wanted in ((encoder.smallest, cells), (encoder.smallest - 1, cells - 1)):
        assert body[:until](batch(name, 2, side=side)).shape[2:] == (wanted, wanted)


def test_tiny_knows_where_and_a_global_average_does_not() -> None:
    """A dot moved by a cell of the grid permutes the features of tiny's grid; averaged over cells nothing changes."""
    left, right = torch.zeros(2, 1, 3, 8, 8).unbind()
    left[..., :4], right[..., 4:] = 1, 1
    assert torch.equal(Grid(1)(left), Grid(1)(right))
    assert not torch.equal(Grid(2)(left), Grid(2)(right))
    assert torch.equal(Grid(2)(left).view(1, 2, 2, 3), Grid(2)(right).view(1, 2, 2, 3).flip(2))


def test_a_grid_of_the_same_size_is_the_average_it_skips() -> None:
    x = torch.rand(2, 5, 2, 2)
    torch.testing.assert_close(
        Grid(2)(x), Grid(2)(x.repeat_interleave(3, 2).repeat_interleave(3, 3))
    )


def test_resnet18_is_torchvisions_but_for_the_stem_and_the_classifier() -> None:
    torch.manual_seed(0)
    ours, theirs = build_encoder("resnet18", 3).eval(), torchvision.models.resnet18().eval()
    expected = (
        sum(p.numel() for p in theirs.parameters()) - (512 * 1000 + 1000) - 64 * 3 * (7 * 7 - 3 * 3)
    )
    assert sum(p.numel() for p in ours.parameters()) == expected
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool, theirs.fc = nn.Identity(), nn.Identity()
    for key, weight in theirs.state_dict().items():  # drawn from the same distribution
        if weight.dim() == 4 and key != "conv1.weight":
            assert ours.body.state_dict()[key].std().item() == pytest.approx(
                weight.std().item(), rel=0.05
            )
    theirs.load_state_dict(ours.body.state_dict())  # strict: the names are the same
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_resnet50_has_the_keys_and_shapes_of_torchvisions() -> None:
    with torch.device("meta"):
        ours, theirs = build_encoder("resnet50", 3), torchvision.models.resnet50()
    shapes = {
        k: v.shape for k, v in theirs.state_dict().items() if not k.startswith(("fc.", "conv1."))
    }
    assert shapes == {k: v.shape for k, v in ours.body.state_dict().items() if k != "conv1.weight"}


def test_unknown_names_and_bad_numbers_are_errors_that_say_what_is_wanted() -> None:
    with pytest.raises(
        ValueError, match="encoder: got 'vgg', wanted one of tiny, alexnet, resnet18, resnet50"
    ):
        build_encoder("vgg", 3)
    with pytest.raises(
        ValueError, match=r"encoder\(width\): got 0, wanted a finite number above 0"
    ):
        build_encoder("tiny", 3, 0)
    with pytest.raises(ValueError, match=r"tiny\(channels\): got 0"):
        build_encoder("tiny", 0)


def test_a_grid_is_a_loop_over_its_cells_channels_fastest():
    x = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    cells = [
        x[:, :, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].mean((2, 3))
        for i in range(2)
        for j in range(2)
    ]
    torch.testing.assert_close(Grid(2)(x), torch.cat(cells, 1))
    torch.testing.assert_close(
        Grid(2)(x[:, :, :2, :2]), x[:, :, :2, :2].permute(0, 2, 3, 1).flatten(1)
    )


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("sizes", [(32, 32, 32), (32, 24, 32)])
def test_features_come_in_the_order_of_views(shared, sizes):
    draws = torch.Generator().manual_seed(0)
    views = [torch.rand(4, 3, size, size, generator=draws) for size in sizes]
    encoders = Encoders([3, 3, 3], "tiny", 0.5, shared).eval()
    with torch.no_grad():
        for i, found in enumerate(encoders(views)):
            torch.testing.assert_close(
                found, encoders[0 if shared else i](views[i]), rtol=1e-4, atol=1e-6
            )


def test_views_of_other_channels_share_no_encoder():
    with pytest.raises(
        ValueError, match=r"got views of \(1, 2\) channels, wanted equal ones for a shared encoder"
    ):
        Encoders([1, 2], "tiny", shared=True)


@pytest.mark.parametrize("name", ENCODERS)
def test_each_layer_of_weights_is_normalised_and_has_eight_channels_or_more(name):
    layers = [
        m
        for m in build_encoder(name, 3, 0.01).modules()
        if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d)
    ]
    for layer, norm in zip(layers[::2], layers[1::2], strict=True):
        made = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        assert (
            not isinstance(norm, nn.Conv2d | nn.Linear)
            and norm.num_features == made >= 8
            and layer.bias is None
        )


@pytest.mark.parametrize("body", [nn.Conv2d(3, 8, 3), nn.Sequential(Grid(2), nn.Linear(12, 9))])
def test_a_body_that_returns_other_features_than_stated_is_told(body: nn.Module) -> None:
    with pytest.raises(
        ValueError,
        match=r"mine: the body must return \[B, 8\], got \[4, .*\] of 4 images; flatten it, or state",
    ):
        Encoder("mine", 3, 8, 4, body)(batch("tiny"))


def test_a_network_without_its_contract_is_told_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ENCODERS, "bare", lambda channels, width: nn.Sequential(Grid(2)))
    with pytest.raises(
        TypeError,
        match=r"encoder 'bare': got a Sequential, wanted an Encoder.*put .*Encoder\('bare', channels, fea",
    ):
        build_encoder("bare", 3)
