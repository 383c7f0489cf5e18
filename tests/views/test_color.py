"""Colour conversions against scikit-image, their invariants, and ColorSplit."""

import copy
import re
from itertools import chain, permutations, product

import numpy as np
import pytest
import skimage.color
import torch
from torch import Tensor

from infomin.views.color import CMC, SPACES, ColorSplit, convert, lab_to_rgb, rgb_to_hsv, rgb_to_lab
from infomin.views.gamma import LIGHTNESS, LUV_LIGHTNESS, SRGB, Curve, compress, expand

torch.set_num_threads(1)
NAMES = list(SPACES)
CORNERS = torch.tensor(list(product((0.0, 1.0), repeat=3)), dtype=torch.float64)
GREYS = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None].expand(6, 3)
every_space = pytest.mark.parametrize("name", NAMES)


def batch(colors: Tensor) -> Tensor:
    """Rows of colours [N, 3] as images [N, 3, 1, 1]."""
    return colors.reshape(-1, 3, 1, 1)


def cube() -> Tensor:
    """Colours of the RGB cube `[1, 3, n, 1]`: a grid, fine steps along the edges, random, dark."""
    g = torch.Generator().manual_seed(0)
    grid = torch.cartesian_prod(*[torch.linspace(0, 1, 9, dtype=torch.float64)] * 3)
    fine = torch.linspace(0, 1, 801, dtype=torch.float64)
    corners = product((0, 1), repeat=2)
    lines = [torch.stack([fine, fine * 0 + a, fine * 0 + b], 1) for a, b in corners]
    edges = [line.roll(axis, 1) for line in lines for axis in range(3)]
    uniform = torch.rand(20000, 3, generator=g, dtype=torch.float64)
    dark = 0.2 * torch.rand(20000, 3, generator=g, dtype=torch.float64)
    return torch.cat([grid, *edges, uniform, dark, dark**3]).T[None, :, :, None].contiguous()


CUBE = cube()
SPAN = {
    name: torch.tensor(np.subtract(space.high, space.low), dtype=torch.float64)
    for name, space in SPACES.items()
}


def oracle(name: str, images: Tensor, back: bool = False) -> Tensor:
    """The same conversion by scikit-image, in float64."""
    if name == "rgb":
        return images
    function = getattr(skimage.color, f"{name}2rgb" if back else f"rgb2{name}")
    return torch.from_numpy(function(images.movedim(1, -1).numpy())).movedim(-1, 1)


def worst(name: str, ours: Tensor, theirs: Tensor) -> float:
    """The largest difference relative to the range of its channel."""
    return float(((ours - theirs).abs() / SPAN[name].view(3, 1, 1)).max())


@every_space
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_from_rgb_agrees_with_scikit_image(name: str, dtype: torch.dtype, tolerance: float) -> None:
    x = CUBE.to(dtype)
    if name == "hsv":  # near grey, the hue amplifies rounding of the input without bound
        chroma = (x.amax(1) - x.amin(1))[0, :, 0]
        x = x[:, :, chroma > 0.01]
    assert worst(name, SPACES[name].from_rgb(x).double(), oracle(name, x.double())) < tolerance


@every_space
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_to_rgb_agrees_with_scikit_image_inside_the_cube(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    x = oracle(name, CUBE)
    difference = SPACES[name].to_rgb(x.to(dtype)).double() - oracle(name, x, back=True)
    assert float(difference.abs().max()) < tolerance


@pytest.mark.parametrize("name", ["lab", "luv"])
def test_dark_colours_agree_where_the_linear_segment_meets_the_power(name: str) -> None:
    """scikit-image's rounded constants leave a gap there, which our continuous curve crosses."""
    g = torch.Generator().manual_seed(6)
    x = batch(0.15 * torch.rand(10**6, 3, generator=g, dtype=torch.float64))
    theirs = oracle(name, x)
    assert worst(name, SPACES[name].from_rgb(x), theirs) < 1e-6
    assert float((SPACES[name].to_rgb(theirs) - oracle(name, theirs, back=True)).abs().max()) < 1e-6
    torch.testing.assert_close(SPACES[name].to_rgb(SPACES[name].from_rgb(x)), x, rtol=0, atol=1e-6)


@every_space
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_round_trip(name: str, dtype: torch.dtype, tolerance: float) -> None:
    x = CUBE.to(dtype)
    torch.testing.assert_close(
        SPACES[name].to_rgb(SPACES[name].from_rgb(x)), x, rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hsv"])
def test_nothing_is_clipped_so_colours_outside_the_cube_come_back(name: str) -> None:
    x = CUBE * 1.6 - 0.3
    if name == "luv":  # chromaticity divides by X + 15 Y + 3 Z, which can be 0 below black
        x = CUBE + 0.3
    torch.testing.assert_close(SPACES[name].to_rgb(SPACES[name].from_rgb(x)), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("curve", "exact"),
    [
        (SRGB, 12.92321),
        (LIGHTNESS, (29 / 6) ** 2 / 3 * 1.16),
        (LUV_LIGHTNESS, (29 / 6) ** 2 / 3 * 1.16),
    ],
)
def test_curves_are_continuous_and_inverse_on_the_whole_line(curve: Curve, exact: float) -> None:
    assert curve.slope == pytest.approx(exact, rel=3e-4)
    gap = abs(curve.dark / curve.slope - curve.dim)  # left open by the rounded slope, in light
    assert gap < 7e-8
    y = torch.linspace(-2, 3, 50001, dtype=torch.float64)
    x = compress(y, curve)
    torch.testing.assert_close(expand(x, curve), y, rtol=0, atol=1e-13)
    # increasing, without a jump
    assert x.diff().min() > 0 and x.diff().max() <= 1.0003 * exact * 1e-4
    joint = curve.dim * torch.linspace(1 - 1e-4, 1 + 1e-4, 100001, dtype=torch.float64)
    x = compress(joint, curve)
    # the segments meet within the gap
    torch.testing.assert_close(expand(x, curve), joint, rtol=0, atol=1.0001 * gap)
    assert x.diff().min() >= 0 and x.diff().max() < 1e-5
    np.testing.assert_allclose(compress(y.new_tensor([0, 1]), curve), [0, 1], rtol=0, atol=1e-15)


@every_space
def test_uint8_is_scaled_once(name: str) -> None:
    x = torch.randint(
        0, 256, (3, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    x[0, :, :16, :16] = torch.arange(256, dtype=torch.uint8).view(16, 16)  # every grey
    ours = SPACES[name].from_rgb(x)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(
        ours, SPACES[name].from_rgb(x.float() / 255), rtol=0, atol=1e-6 * float(SPAN[name].max())
    )
    if name != "rgb":
        assert worst(name, ours.double(), oracle(name, x)) < 1e-4


@every_space
def test_low_and_high_are_the_extremes_over_the_cube(name: str) -> None:
    values = SPACES[name].from_rgb(CUBE)[0, :, :, 0]
    low = torch.tensor(SPACES[name].low, dtype=torch.float64)
    high = torch.tensor(SPACES[name].high, dtype=torch.float64)
    tolerance = 1e-6 * SPAN[name]
    if name == "hsv":
        tolerance[0] = 2e-3  # a hue is below 1
    assert ((values.amin(1) - low).abs() < tolerance).all()
    assert ((values.amax(1) - high).abs() < tolerance).all()
    assert len(SPACES[name].names) == 3 and "".join(SPACES[name].names).lower() == name


@every_space
def test_gradcheck_both_ways(name: str) -> None:
    g = torch.Generator().manual_seed(2)
    x = torch.rand(3, 3, 2, 2, generator=g, dtype=torch.float64)
    assert (x.sort(1).values.diff(dim=1) > 1e-3).all()  # HSV has kinks where two channels are equal
    x[0] *= 0.04  # the linear segments of the curves
    assert torch.autograd.gradcheck(SPACES[name].from_rgb, x.requires_grad_())
    colors = SPACES[name].from_rgb(x).detach().requires_grad_()
    assert torch.autograd.gradcheck(SPACES[name].to_rgb, colors)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("hsv", "luv")])
def test_gradcheck_at_black_and_grey(name: str) -> None:
    assert torch.autograd.gradcheck(SPACES[name].from_rgb, batch(GREYS).clone().requires_grad_())


@every_space
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_are_finite_at_the_corners_and_on_the_grey_axis(
    name: str, dtype: torch.dtype
) -> None:
    x = batch(torch.cat([CORNERS, GREYS])).to(dtype).requires_grad_()
    colors = SPACES[name].from_rgb(x).detach().requires_grad_()
    for function, start in ((SPACES[name].from_rgb, x), (SPACES[name].to_rgb, colors)):
        for channel in range(3):
            (gradient,) = torch.autograd.grad(function(start)[:, channel].sum(), start)
            assert gradient.isfinite().all(), (function, channel)
            assert gradient.abs().max() < 5e3


def test_grey_has_no_hue_and_black_no_chroma() -> None:
    x = batch(GREYS).clone().requires_grad_()
    hue, saturation, value = rgb_to_hsv(x).unbind(1)
    assert not hue.any() and not saturation.any() and torch.equal(value, x[:, 0])
    assert not torch.autograd.grad(hue.sum(), x)[0].any()


@pytest.mark.parametrize("turns", [-2, -1, 1, 3])
def test_the_hue_is_periodic(turns: int) -> None:
    hsv = rgb_to_hsv(CUBE)
    turned = hsv + hsv.new_tensor([turns, 0, 0]).view(3, 1, 1)
    torch.testing.assert_close(SPACES["hsv"].to_rgb(turned), CUBE, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_luv_is_zero_at_black_and_so_is_the_gradient_of_its_chroma(dtype: torch.dtype) -> None:
    for darkest in (0.0, 1e-17):
        x = torch.full((1, 3, 1, 1), darkest, dtype=dtype, requires_grad=True)
        light, u, v = SPACES["luv"].from_rgb(x).unbind(1)
        assert light.abs() < 1e-5 and not u.any() and not v.any()
        assert not torch.autograd.grad((u + v).sum(), x, retain_graph=True)[0].any()
        (gradient,) = torch.autograd.grad(light.sum(), x)
        assert gradient.sum().item() == pytest.approx(100 * LUV_LIGHTNESS.slope / 12.92, 1e-5)


@every_space
def test_a_batch_is_its_images_and_leading_axes_are_free(name: str) -> None:
    x = torch.rand(4, 3, 5, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for function in (SPACES[name].from_rgb, SPACES[name].to_rgb):
        x = SPACES[name].from_rgb(x) if function is SPACES[name].to_rgb else x
        whole = function(x)
        assert whole.shape == x.shape
        torch.testing.assert_close(torch.cat([function(one[None]) for one in x]), whole)
        torch.testing.assert_close(function(x[1]), whole[1])
        torch.testing.assert_close(function(x.view(2, 2, 3, 5, 7)).view_as(x), whole)
        torch.testing.assert_close(function(x.to(memory_format=torch.channels_last)), whole)


@every_space
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept_and_half_precision_rounds_once(name: str, dtype: torch.dtype) -> None:
    x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(4)).to(dtype)
    for function in (SPACES[name].from_rgb, SPACES[name].to_rgb):
        x = SPACES[name].from_rgb(x) if function is SPACES[name].to_rgb else x
        assert function(x).dtype == dtype
        torch.testing.assert_close(
            function(x), function(x.double()).to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-4
        )
    for view in ColorSplit(name)(torch.zeros(1, 3, 2, 2, dtype=dtype)):
        assert view.dtype == dtype


DEVICES = ["meta", *(["cuda"] if torch.cuda.is_available() else [])]


@every_space
@pytest.mark.parametrize("device", DEVICES)
def test_works_on_the_device_of_its_input(name: str, device: str) -> None:
    space, floats = SPACES[name], CUBE.float()
    for function, x in (
        (space.from_rgb, floats),
        (space.to_rgb, floats),
        (space.from_rgb, (255 * CUBE).byte()),
    ):
        result = function(x.to(device))
        assert result.device.type == device
        assert result.dtype == torch.float32 and result.shape == x.shape
    if device != "meta" and name != "hsv":
        converted = space.from_rgb(floats.to(device))
        assert worst(name, converted.cpu(), space.from_rgb(floats)) < 1e-5


def test_input_is_left_as_it_was() -> None:
    x = CUBE.clone()
    for space in SPACES.values():
        space.to_rgb(x), space.from_rgb(x)
    assert torch.equal(x, CUBE)


@pytest.mark.parametrize("space", [space for space in SPACES if space != "rgb"])
def test_only_rgb_may_be_uint8(space: str) -> None:
    grey = torch.full((1, 3, 2, 2), 128, dtype=torch.uint8)
    assert torch.equal(convert(grey, "rgb", space), convert(grey.float() / 255, "rgb", space))
    for refused in (SPACES[space].to_rgb, lambda x: convert(x, space, "rgb")):
        with pytest.raises(TypeError, match=r"got uint8; pass x.float\(\) in the units of"):
            refused(grey)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once_on_its_way_through_rgb(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    colors = (torch.rand(4, 3, 9, 9, generator=g) * 200 + 20).to(dtype)
    expected = convert(colors.float(), "ycbcr", "lab").to(dtype)
    assert torch.equal(convert(colors, "ycbcr", "lab"), expected)


def test_convert_goes_through_rgb() -> None:
    lab = rgb_to_lab(CUBE)
    torch.testing.assert_close(convert(lab, "lab", "hsv"), rgb_to_hsv(lab_to_rgb(lab)))
    torch.testing.assert_close(convert(lab, "lab", "lab"), lab, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match=r"convert\(source\): got 'cmyk', wanted one of rgb, xyz"):
        convert(lab, "cmyk", "lab")
    with pytest.raises(ValueError, match=r"convert\(target\): got 'cmyk'"):
        convert(lab, "lab", "cmyk")


# ColorSplit


def ordered_partitions() -> list[str]:
    """Each order of the channels, whole, cut in two in both places, and cut in three."""
    splits = set()
    for a, b, c in permutations("012"):
        splits |= {f"{a}{b}{c}", f"{a}-{b}{c}", f"{a}{b}-{c}", f"{a}-{b}-{c}"}
    return sorted(splits)


SPLITS = ordered_partitions()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("norm", ["none", "range", "cmc"])
def test_views_put_together_are_the_whole_conversion(split: str, norm: str) -> None:
    x = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(5))
    view = ColorSplit("ydbdr", split, norm)
    parts = view(x)
    groups = [[int(c) for c in group] for group in split.split("-")]
    assert view.channels == tuple(map(len, groups))
    assert view.channels == tuple(part.shape[1] for part in parts)
    assert view.readout == tuple(range(len(groups)))
    (whole,) = ColorSplit("ydbdr", "012", norm)(x)
    torch.testing.assert_close(torch.cat(parts, 1), whole[:, list(chain(*groups))], rtol=0, atol=0)


def test_splits_are_all_the_ordered_partitions() -> None:
    assert len(SPLITS) == 24  # 6 orders of the channels, each cut in 4 ways
    assert {"012", "0-12", "01-2", "02-1", "0-1-2"} < set(SPLITS)


@every_space
def test_norm_none_keeps_the_units_and_range_fills_minus_one_to_one(name: str) -> None:
    (plain,) = ColorSplit(name, "012", "none")(CUBE)
    assert torch.equal(plain, SPACES[name].from_rgb(CUBE))
    (scaled,) = ColorSplit(name, "012", "range")(CUBE)
    low, high = scaled.amin((0, 2, 3)), scaled.amax((0, 2, 3))
    tolerance = 5e-3 if name == "hsv" else 1e-5  # a hue is below 1
    torch.testing.assert_close(low, -torch.ones_like(low), rtol=0, atol=1e-5)
    torch.testing.assert_close(high, torch.ones_like(high), rtol=0, atol=tolerance)


def test_norm_cmc_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    assert list(CMC) == ["lab", "ydbdr"]
    luma, chroma = ColorSplit("lab", norm="cmc")(CUBE)
    values, ones = torch.cat([luma, chroma], 1)[0, :, :, 0], torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(values.amin(1), -ones, rtol=0, atol=1e-4)
    torch.testing.assert_close(values.amax(1), ones, rtol=0, atol=1e-4)
    blue = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).view(1, 3, 1, 1)
    (view,) = ColorSplit("ydbdr", "012", "cmc")(blue)
    expected = [(0.114 - 0.457) / 0.5, (1.333 + 0.082) / 1.331, (0.217 + 0.052) / 1.333]
    np.testing.assert_allclose(view.flatten().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": "cmyk"}, rf"ColorSplit\(space\): got 'cmyk', wanted one of {', '.join(NAMES)}"),
        ({"space": "LAB"}, "got 'LAB', wanted one of"),
        ({"split": "0-1"}, "got '0-1', wanted the channels 0, 1 and 2 once each"),
        ({"split": "0-11"}, "got '0-11'"),
        ({"split": "0-12-"}, "got '0-12-'"),
        ({"split": "0--12"}, "got '0--12'"),
        ({"split": "0-13"}, "got '0-13'"),
        ({"split": "0-012"}, "got '0-012'"),
        ({"split": ""}, "got ''"),
        ({"split": 12}, "got 12"),
        ({"norm": "zscore"}, r"ColorSplit\(norm\): got 'zscore', wanted one of none, range, cmc"),
        (
            {"space": "hsv", "norm": "cmc"},
            "got 'cmc' for hsv, wanted one of the spaces lab, ydbdr; use norm='range'",
        ),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ColorSplit(**arguments)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (
            torch.rand(8, 8),
            ValueError,
            r"ColorSplit\('yuv', .*\): images must have the shape \[B, 3, H, W\], got \[8, 8\]",
        ),
        (torch.rand(2, 1, 8, 8), ValueError, r"got \[2, 1, 8, 8\]"),
        (torch.rand(0, 3, 8, 8), ValueError, r"got \[0, 3, 8, 8\]"),
        (
            torch.zeros(2, 3, 8, 8, dtype=torch.int64),
            TypeError,
            "must be uint8 .* or floating point .*, got torch.int64",
        ),
        (np.zeros((2, 3, 8, 8)), TypeError, "must be a torch.Tensor .*, got ndarray"),
        (torch.full((2, 3, 8, 8), 200.0), ValueError, r"must lie in \[0, 1\], got \[200, 200\]"),
        (
            torch.full((2, 3, 8, 8), torch.nan),
            ValueError,
            "must be finite, got 384 pixels that are NaN or Inf",
        ),
    ],
)
def test_bad_images_are_named(images: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ColorSplit("yuv")(images)


@every_space
def test_bad_colours_are_named(name: str) -> None:
    for function in (SPACES[name].from_rgb, SPACES[name].to_rgb):
        for shape in ((2, 8, 8, 3), (3, 8), (3,), ()):
            got = re.escape(str(list(shape)))
            with pytest.raises(
                ValueError, match=rf"must have the shape \[\.\.\., 3, H, W\], got {got}"
            ):
                function(torch.rand(shape))
        with pytest.raises(TypeError, match=r"got torch\.int64"):
            function(torch.zeros(2, 3, 8, 8, dtype=torch.int64))


def test_half_precision_views_are_rounded_after_the_normalisation() -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(6)).bfloat16()
    for ours, exact in zip(ColorSplit("lab")(x), ColorSplit("lab")(x.double()), strict=True):
        torch.testing.assert_close(ours, exact.bfloat16(), rtol=0.008, atol=1e-5)


@every_space
def test_compiles_whole_and_ignores_autocast(name: str) -> None:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    view = ColorSplit(name)
    plain = view(x)
    torch.compiler.reset()  # it keeps at most eight variants of a class
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = view(x)
    compiled = torch.compile(view, backend="eager", fullgraph=True)(x)
    for views in (compiled, mixed):
        for one, two in zip(views, plain, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_module_has_no_state_and_takes_a_generator() -> None:
    view = ColorSplit("lab", "02-1", "cmc")
    assert repr(view) == "ColorSplit('lab', split='02-1', norm='cmc')"
    assert repr(ColorSplit()) == "ColorSplit('lab', split='0-12', norm='range')"
    assert not view.state_dict() and not list(view.parameters())
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(8), requires_grad=True)
    g = torch.Generator().manual_seed(9)
    before = g.get_state()
    for one, two in zip(view(x, g), copy.deepcopy(view)(x, generator=g), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(g.get_state(), before)
    (gradient,) = torch.autograd.grad(sum(part.square().sum() for part in view(x)), x)
    assert gradient.abs().min() > 0
