"""Laws of all encoders, and torchvision's ResNet as the oracle for ours."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from infomin.networks.encoders import ENCODERS, Encoder, Encoders, Grid, build_encoder

SIDE = {"tiny": 32, "alexnet": 64, "resnet18": 12, "resnet50": 8}
SMALL = {"tiny": 1.0, "alexnet": 0.1, "resnet18": 0.25, "resnet50": 0.25}
each_encoder = pytest.mark.parametrize("name", ENCODERS)


def small(name: str, channels: int = 3, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return build_encoder(name, channels, SMALL[name])


def batch(name: str, n: int = 4, channels: int = 3, side: int | None = None) -> Tensor:
    side = side or SIDE[name]
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(1))


def trained_statistics(name: str) -> Encoder:
    """An encoder in eval mode with batch-norm statistics that differ from the initial ones."""
    encoder = small(name)
    for _ in range(3):
        encoder(batch(name, n=8))
    return encoder.eval()


@each_encoder
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_the_number_of_features_is_the_stated_one(name: str, channels: int) -> None:
    encoder = small(name, channels)
    assert encoder(batch(name, 2, channels)).shape == (2, encoder.features)
    oblong = torch.rand(2, channels, SIDE[name], SIDE[name] + 7)
    assert encoder(oblong).shape == (2, encoder.features)


def test_features_at_full_width() -> None:
    with torch.device("meta"):
        features = {name: build_encoder(name, 3).features for name in ENCODERS}
    assert features == {"tiny": 512, "alexnet": 4096, "resnet18": 512, "resnet50": 2048}


@each_encoder
def test_width_scales_the_features_and_squares_the_parameters(name: str) -> None:
    narrow, wide = build_encoder(name, 3, 0.25), build_encoder(name, 3, 0.5)
    assert narrow.features * 2 == pytest.approx(wide.features, rel=0.02)
    narrow_size, wide_size = [
        sum(p.numel() for p in encoder.parameters() if p.dim() > 1) for encoder in (narrow, wide)
    ]
    assert 3.2 < wide_size / narrow_size < 4.1


def test_alexnet_of_width_one_half_is_the_papers_half_network() -> None:
    parameters = build_encoder("alexnet", 2, 0.5).parameters()
    shapes = [tuple(p.shape[:2]) for p in parameters if p.dim() > 1]
    assert shapes == [
        (48, 2),
        (96, 48),
        (192, 96),
        (192, 192),
        (96, 192),
        (2048, 96 * 49),
        (2048, 2048),
    ]


@each_encoder
def test_every_parameter_gets_a_gradient(name: str) -> None:
    encoder, x = small(name), batch(name).requires_grad_()
    out = encoder(x)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())
    assert x.grad is not None and (x.grad.flatten(1).abs().amax(1) > 0).all()


@each_encoder
def test_a_batch_equals_its_images_one_by_one(name: str) -> None:
    encoder, x = trained_statistics(name), batch(name)
    with torch.no_grad():
        batched, singles = encoder(x), torch.cat([encoder(image[None]) for image in x])
    assert batched.std() > 1e-3
    torch.testing.assert_close(batched, singles, rtol=1e-4, atol=1e-5)


@each_encoder
def test_the_memory_layout_changes_nothing(name: str) -> None:
    encoder, x = trained_statistics(name), batch(name)
    with torch.no_grad():
        expected = encoder(x)
        encoder.to(memory_format=torch.channels_last)
        features = encoder(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@each_encoder
@pytest.mark.parametrize("mixed", [False, True])
def test_uint8_images_are_scaled_to_the_unit_interval(name: str, mixed: bool) -> None:
    encoder = trained_statistics(name)
    generator = torch.Generator().manual_seed(4)
    x = torch.randint(256, batch(name).shape, dtype=torch.uint8, generator=generator)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert torch.equal(encoder(x), encoder(x / 255))
        assert not torch.equal(encoder(x), encoder(x.float()))


@each_encoder
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_many_channels_become_channels_last_once_before_the_first_layer(
    name: str, dtype: torch.dtype
) -> None:
    """A convolution would repeat it for its gradient: half of a step's time for clips."""
    encoder = small(name, 7).to(memory_format=torch.channels_last).eval()
    inputs = []
    encoder.body.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    x = (255 * batch(name, 2, 7)).to(dtype)
    features, same = encoder(x), encoder(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(features, same) and x.is_contiguous()
    assert all(given.is_contiguous(memory_format=torch.channels_last) for given in inputs)
    assert torch.equal(inputs[0], x.float() / 255 if dtype == torch.uint8 else x)


@each_encoder
def test_the_same_seed_gives_the_same_weights_and_another_does_not(name: str) -> None:
    first, again, other = [
        torch.cat([p.flatten() for p in small(name, seed=seed).parameters()]) for seed in (0, 0, 1)
    ]
    assert torch.equal(first, again) and not torch.equal(first, other)


@each_encoder
def test_no_bias_before_a_batch_norm(name: str) -> None:
    layers = [m for m in small(name).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert layers and all(layer.bias is None for layer in layers)


@each_encoder
def test_the_smallest_size_is_accepted_and_a_pixel_less_is_not(name: str) -> None:
    encoder = small(name).eval()
    images = batch(name, 2, side=encoder.smallest)
    assert encoder(images).shape == (2, encoder.features)
    message = f"{name}: images must be {encoder.smallest} px or more on each side"
    for cut in (images[..., 1:], images[..., 1:, :]):
        with pytest.raises(ValueError, match=message):
            encoder(cut)


@each_encoder
def test_wrong_channels_and_missing_batch_axis_name_the_encoder(name: str) -> None:
    encoder = small(name, channels=2)
    for x in (batch(name, channels=3), batch(name, channels=2)[0]):
        message = rf"{name}: images must have the shape \[B, 2, H, W\], got"
        with pytest.raises(ValueError, match=message):
            encoder(x)


def grid_index(encoder: Encoder) -> int:
    return next(i for i, layer in enumerate(encoder.body) if isinstance(layer, Grid))


MAPS = {  # of images of SIDE x (SIDE + 7) px: C', h, w
    "tiny": (128, 2, 3),
    "alexnet": (19, 7, 8),
    "resnet18": (128, 2, 3),
    "resnet50": (512, 1, 2),
}


@each_encoder
def test_a_feature_map_is_the_input_of_the_grid(name: str) -> None:
    encoder = trained_statistics(name)
    images = (255 * batch(name, side=SIDE[name] + 7)[:, :, : SIDE[name]]).byte()
    with torch.no_grad():
        features, feature_map = encoder(images), encoder.map(images)
        rest = encoder.body[grid_index(encoder) :]
        assert feature_map.shape == (4, *MAPS[name]) and torch.equal(rest(feature_map), features)
    with pytest.raises(ValueError, match=f"{name}: images must have the shape"):
        encoder.map(images[:, :2])


@pytest.mark.parametrize("body", [nn.Conv2d(3, 8, 3), nn.Sequential(nn.Flatten())])
def test_a_feature_map_without_a_grid_is_an_error(body: nn.Module) -> None:
    message = f"mine: a feature map needs .* got {type(body).__name__}; override map"
    with pytest.raises(TypeError, match=message):
        Encoder("mine", 3, 8, 4, body).map(batch("tiny"))


@pytest.mark.parametrize(("name", "cells"), [("tiny", 2), ("alexnet", 7)])
def test_the_smallest_size_fills_every_cell_of_the_grid(name: str, cells: int) -> None:
    """One pixel less would leave fewer pixels than cells, hence the limit."""
    encoder = small(name).eval()
    body = encoder.body
    assert isinstance(body, nn.Sequential)
    convolutions = body[: grid_index(encoder)]
    for side, expected in ((encoder.smallest, cells), (encoder.smallest - 1, cells - 1)):
        assert convolutions(batch(name, 2, side=side)).shape[2:] == (expected, expected)


def test_a_grid_keeps_positions_and_a_global_average_does_not() -> None:
    """Moving a dot by one cell permutes the features of a grid."""
    left, right = torch.zeros(2, 1, 3, 8, 8).unbind()
    left[..., :4], right[..., 4:] = 1, 1
    assert torch.equal(Grid(1)(left), Grid(1)(right))
    assert not torch.equal(Grid(2)(left), Grid(2)(right))
    assert torch.equal(Grid(2)(left).view(1, 2, 2, 3), Grid(2)(right).view(1, 2, 2, 3).flip(2))


def test_a_grid_of_one_pixel_cells_equals_the_average_it_skips() -> None:
    x = torch.rand(2, 5, 2, 2)
    enlarged = x.repeat_interleave(3, 2).repeat_interleave(3, 3)
    torch.testing.assert_close(Grid(2)(x), Grid(2)(enlarged))


def test_resnet18_is_torchvisions_but_for_the_stem_and_the_classifier() -> None:
    torch.manual_seed(0)
    ours, theirs = build_encoder("resnet18", 3).eval(), torchvision.models.resnet18().eval()
    classifier, stem_difference = 512 * 1000 + 1000, 64 * 3 * (7 * 7 - 3 * 3)
    expected = sum(p.numel() for p in theirs.parameters()) - classifier - stem_difference
    assert sum(p.numel() for p in ours.parameters()) == expected
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool, theirs.fc = nn.Identity(), nn.Identity()
    for key, weight in theirs.state_dict().items():  # drawn from the same distribution
        if weight.dim() == 4 and key != "conv1.weight":
            deviation = ours.body.state_dict()[key].std().item()
            assert deviation == pytest.approx(weight.std().item(), rel=0.05)
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


def test_unknown_names_and_numbers_out_of_range_are_errors() -> None:
    message = "encoder: got 'vgg', wanted one of alexnet, resnet18, resnet50, tiny"
    with pytest.raises(ValueError, match=message):
        build_encoder("vgg", 3)
    message = r"encoder\(width\): got 0, wanted a finite number above 0"
    with pytest.raises(ValueError, match=message):
        build_encoder("tiny", 3, 0)
    with pytest.raises(ValueError, match=r"tiny\(channels\): got 0"):
        build_encoder("tiny", 0)


def test_a_grid_equals_a_loop_over_its_cells_channels_fastest():
    x = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    cells = [
        x[:, :, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].mean((2, 3))
        for i in range(2)
        for j in range(2)
    ]
    torch.testing.assert_close(Grid(2)(x), torch.cat(cells, 1))
    corner = x[:, :, :2, :2]
    torch.testing.assert_close(Grid(2)(corner), corner.permute(0, 2, 3, 1).flatten(1))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("sizes", [(32, 32, 32), (32, 24, 32)])
def test_features_have_the_order_of_the_views(shared, sizes):
    generator = torch.Generator().manual_seed(0)
    views = [torch.rand(4, 3, size, size, generator=generator) for size in sizes]
    encoders = Encoders([3, 3, 3], "tiny", 0.5, shared).eval()
    with torch.no_grad():
        for i, features in enumerate(encoders(views)):
            expected = encoders[0 if shared else i](views[i])
            torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("tiles", [(1, 9), (4, 4), (9, 1)])
def test_tiles_are_encoded_one_by_one_and_concatenated(shared, tiles):
    generator = torch.Generator().manual_seed(0)
    views = [torch.rand(4, 3 * n, 20, 20, generator=generator) for n in tiles]
    encoders = Encoders([3 * n for n in tiles], "tiny", 0.25, shared, tiles).eval()
    with torch.no_grad():
        for i, (features, view) in enumerate(zip(encoders(views), views, strict=True)):
            encoder = encoders[0 if shared else i]
            expected = torch.cat([encoder(tile) for tile in view.split(3, dim=1)], 1)
            torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n", [1, 3])
def test_another_number_of_views_is_an_error(shared, n):
    encoders = Encoders([3, 3], "tiny", 0.25, shared)
    with pytest.raises(ValueError, match=f"encoders: got {n} views, wanted 2"):
        encoders([torch.rand(2, 3, 32, 32)] * n)


def test_views_with_different_channels_cannot_share_an_encoder():
    message = r"needs views with the same number of channels, got \(1, 2\); give each view its own"
    with pytest.raises(ValueError, match=message):
        Encoders([1, 2], "tiny", shared=True)
    with pytest.raises(ValueError, match=r"same number of channels, got \(1, 3\); give each view"):
        Encoders([9, 27], "tiny", shared=True, tiles=[9, 9])


@pytest.mark.parametrize("name", ENCODERS)
def test_a_batch_norm_follows_each_layer_and_each_has_at_least_8_channels(name):
    kinds = nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d
    layers = [m for m in build_encoder(name, 3, 0.01).modules() if isinstance(m, kinds)]
    for layer, norm in zip(layers[::2], layers[1::2], strict=True):
        outputs = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        assert not isinstance(norm, nn.Conv2d | nn.Linear) and layer.bias is None
        assert norm.num_features == outputs >= 8


@pytest.mark.parametrize("body", [nn.Conv2d(3, 8, 3), nn.Sequential(Grid(2), nn.Linear(12, 9))])
def test_a_body_that_returns_other_features_than_stated_is_an_error(body: nn.Module) -> None:
    message = r"mine: the body must return \[B, 8\], got \[4, .*\] for 4 images; flatten its output"
    with pytest.raises(ValueError, match=message):
        Encoder("mine", 3, 8, 4, body)(batch("tiny"))


def test_a_registered_network_that_is_no_encoder_is_an_error(registered) -> None:
    registered(ENCODERS, "bare", lambda channels, width: nn.Sequential(Grid(2)))
    message = (
        r"encoder 'bare': must be .*Encoder, got Sequential; .* Encoder\('bare', channels, fea"
    )
    with pytest.raises(TypeError, match=message):
        build_encoder("bare", 3)
    registered(ENCODERS, "mine", lambda channels, width: Encoder("mine", channels, 4, 2, Grid(2)))
    assert build_encoder("mine", 1)(torch.ones(2, 1, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize("name", ["tiny", "alexnet", "resnet18"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_an_encoder_is_exported_for_any_batch(name, dtype):
    encoder = build_encoder(name, 4, 0.125).eval()
    any_batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(
        encoder, (torch.zeros(4, 4, 64, 64, dtype=dtype),), dynamic_shapes=any_batch
    )
    for n in (1, 3):
        images = torch.randint(2, (n, 4, 64, 64), generator=torch.Generator().manual_seed(n))
        images = images.to(dtype)
        torch.testing.assert_close(program.module()(images), encoder(images))
