"""ColorSplit deals out the channels of a space."""

import copy
import re
from itertools import chain, permutations

import numpy as np
import pytest
import torch
from color_cases import CUBE, NAMES, every_space

from infomin.views.color import CMC, SPACES, ColorSplit


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
        (
            {"split": "0-1"},
            "got '0-1', wanted groups of the channels 0 to 2, each channel once; write",
        ),
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
            r"ColorSplit: images must have the shape \[B, 3, H, W\], got \[8, 8\]",
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
