"""Colour spaces against scikit-image, both ways, with their gradients."""

import numpy as np
import pytest
import torch
from color_cases import CORNERS, CUBE, GREYS, NAMES, SPAN, batch, every_space, oracle, worst

from infomin.views.color import SPACES, ColorSplit, convert, lab_to_rgb, rgb_to_hsv, rgb_to_lab
from infomin.views.gamma import LIGHTNESS, LUV_LIGHTNESS, SRGB, Curve, compress, expand


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
    gap = abs(
        curve.joint / curve.slope - curve.joint_light
    )  # left open by the rounded slope, in light
    assert gap < 7e-8
    y = torch.linspace(-2, 3, 50001, dtype=torch.float64)
    x = compress(y, curve)
    torch.testing.assert_close(expand(x, curve), y, rtol=0, atol=1e-13)
    # increasing, without a jump
    assert x.diff().min() > 0 and x.diff().max() <= 1.0003 * exact * 1e-4
    joint = curve.joint_light * torch.linspace(1 - 1e-4, 1 + 1e-4, 100001, dtype=torch.float64)
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
