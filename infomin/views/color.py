"""Colour spaces as views: RGB to and from ten spaces, and ColorSplit, which deals the channels of one space out to views.

Units are scikit-image's: RGB, XYZ, Y and the HSV channels in 0..1 (hue too), YCbCr in 16..240, Lab and Luv with lightness in
0..100, D65 white and the 2 degree observer. Floating-point images keep their dtype (half precision is computed in float32 and
rounded once); uint8 is scaled to float32 in [0, 1], and refused where it is not RGB. Nothing is clipped, so every space but HSV
inverts outside the RGB cube too.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..common.checks import check_choice, to_unit
from .base import ImageView, Views, register
from .gamma import LIGHTNESS, LUV_LIGHTNESS, SRGB, compress, expand

Planes = Sequence[Tensor]  # three tensors [..., H, W], one per channel
Matrix = Sequence[Sequence[float]]  # 3 rows of 3 weights


def _planes(x: Tensor, rgb: bool = True) -> Planes:
    """The channels of `[..., 3, H, W]` in float32 or float64; uint8, which only RGB may be, scaled to [0, 1]."""
    if x.dim() < 3 or x.shape[-3] != 3:
        raise ValueError(
            f"colours must have the shape [..., 3, H, W], got {list(x.shape)}; put the channels third from the end"
        )
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise TypeError(
            f"colours must be uint8 or floating point, got {x.dtype}; convert with x.to(torch.uint8) or x.float()"
        )
    if x.dtype == torch.uint8 and not rgb:
        raise TypeError(
            "colours of another space than RGB must be floating point, got uint8; pass x.float() in its own units"
        )
    x = to_unit(x)
    return x.to(torch.promote_types(x.dtype, torch.float32)).unbind(-3)


def _image(planes: Planes, like: Tensor) -> Tensor:
    """Planes put together as `[..., 3, H, W]`; the dtype is `like`'s where that is floating point."""
    x = torch.stack(tuple(planes), -3)
    return x.to(like.dtype) if like.is_floating_point() else x


def _mix(planes: Planes, matrix: Matrix, offset: Sequence[float] = (0, 0, 0)) -> Planes:
    # Python numbers, not a matmul: autocast and TF32 cannot round it, no constant has to follow the images to their device,
    # and zeros cost nothing. The in-place sums are on fresh tensors that autograd does not keep.
    return [_sum(planes, row, start) for row, start in zip(matrix, offset, strict=True)]


def _sum(planes: Planes, weights: Sequence[float], start: float) -> Tensor:
    (first, plane), *rest = [
        (weight, plane) for weight, plane in zip(weights, planes, strict=True) if weight
    ]
    total = plane * first
    for weight, plane in rest:
        total.add_(plane, alpha=weight)
    return total.add_(start) if start else total


def _invert(matrix: Matrix) -> Matrix:
    return np.linalg.inv(np.array(matrix)).tolist()


XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)  # from linear sRGB
WHITE = (0.95047, 1.0, 1.08883)
# Lab from the responses x, y, z of X, Y, Z: L = 100 y, a = 500 (x - y) / 1.16, b = 200 (y - z) / 1.16.
_LAB = ((0, 100, 0), (500 / 1.16, -500 / 1.16, 0), (0, 200 / 1.16, -200 / 1.16))
_XYZ_OVER_WHITE = [
    [weight / white for weight in row] for row, white in zip(XYZ, WHITE, strict=True)
]
_RGB, _RGB_TIMES_WHITE, _FROM_LAB = _invert(XYZ), _invert(_XYZ_OVER_WHITE), _invert(_LAB)
_U, _V = (
    weight * part / (WHITE[0] + 15 * WHITE[1] + 3 * WHITE[2])
    for weight, part in ((4, WHITE[0]), (9, WHITE[1]))
)


def _linear(x: Tensor) -> Planes:
    """sRGB to linear light; 256 values of uint8 need a table of 256 entries."""
    if x.dtype != torch.uint8:
        return [expand(plane, SRGB) for plane in _planes(x)]
    table = expand(to_unit(torch.arange(256, dtype=torch.uint8, device=x.device)), SRGB)
    return _planes(table.index_select(0, x.flatten().int()).view(x.shape))


def rgb_to_xyz(x: Tensor) -> Tensor:
    """sRGB `[..., 3, H, W]` in [0, 1] or uint8 to CIE XYZ in 0..1.

    >>> rgb_to_xyz(torch.ones(1, 3, 1, 1)).flatten()
    tensor([0.9505, 1.0000, 1.0888])
    """
    return _image(_mix(_linear(x), XYZ), x)


def xyz_to_rgb(x: Tensor) -> Tensor:
    """CIE XYZ `[..., 3, H, W]` in 0..1 to sRGB, not clipped."""
    return _image([compress(plane, SRGB) for plane in _mix(_planes(x, rgb=False), _RGB)], x)


def rgb_to_lab(x: Tensor) -> Tensor:
    """sRGB `[..., 3, H, W]` in [0, 1] or uint8 to CIE L*a*b*: L in 0..100, a and b about -108..98 (CIE 15).

    >>> red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    >>> rgb_to_lab(red).flatten()
    tensor([53.2406, 80.0923, 67.2028])
    """
    return _image(
        _mix([compress(plane, LIGHTNESS) for plane in _mix(_linear(x), _XYZ_OVER_WHITE)], _LAB), x
    )


def lab_to_rgb(x: Tensor) -> Tensor:
    """CIE L*a*b* `[..., 3, H, W]` to sRGB, not clipped."""
    light = _mix(
        [expand(plane, LIGHTNESS) for plane in _mix(_planes(x, rgb=False), _FROM_LAB)],
        _RGB_TIMES_WHITE,
    )
    return _image([compress(plane, SRGB) for plane in light], x)


def rgb_to_luv(x: Tensor) -> Tensor:
    """sRGB `[..., 3, H, W]` in [0, 1] or uint8 to CIE L*u*v*: L in 0..100, u and v about -134..175 (CIE 15)."""
    big_x, big_y, big_z = _mix(_linear(x), XYZ)
    light = 100 * compress(big_y, LUV_LIGHTNESS)
    total = big_x + 15 * big_y + 3 * big_z
    black = (
        total.abs() < torch.finfo(total.dtype).eps
    )  # it has no chromaticity: u, v and their gradients are 0
    over = 13 * light / total.masked_fill(black, torch.inf)
    return _image((light, over * (4 * big_x - _U * total), over * (9 * big_y - _V * total)), x)


def luv_to_rgb(x: Tensor) -> Tensor:
    """CIE L*u*v* `[..., 3, H, W]` to sRGB, not clipped."""
    light, u, v = _planes(x, rgb=False)
    scale = (13 * light).masked_fill(light == 0, torch.inf)
    u, v, y = u / scale + _U, v / scale + _V, expand(light / 100, LUV_LIGHTNESS)
    xyz = (y * 9 * u / (4 * v), y, y * (12 - 3 * u - 20 * v) / (4 * v))
    return _image([compress(plane, SRGB) for plane in _mix(xyz, _RGB)], x)


def rgb_to_hsv(x: Tensor) -> Tensor:
    """RGB `[..., 3, H, W]` in [0, 1] or uint8 to hue, saturation and value, all in 0..1; a grey has hue 0.

    >>> blue = torch.tensor([0., 0., 1.]).view(1, 3, 1, 1)
    >>> rgb_to_hsv(blue).flatten()
    tensor([0.6667, 1.0000, 1.0000])
    """
    red, green, blue = _planes(x)
    value = red.maximum(green).maximum(blue)
    chroma = value - red.minimum(green).minimum(blue)
    span = chroma.masked_fill(
        chroma == 0, torch.inf
    )  # a quotient over infinity is 0, and so is its gradient
    hue = torch.where(value == green, (blue - red) / span + 2, (red - green) / span + 4)
    hue = torch.where(value == red, (green - blue) / span, hue)
    return _image((hue / 6 % 1, chroma / value.masked_fill(value == 0, torch.inf), value), x)


def hsv_to_rgb(x: Tensor) -> Tensor:
    """Hue, saturation and value `[..., 3, H, W]`, all in 0..1, to RGB; the hue is periodic."""
    hue, saturation, value = _planes(x, rgb=False)
    turns = [(6 * hue + start) % 6 for start in (5, 3, 1)]
    return _image(
        [value - value * saturation * turn.minimum(4 - turn).clamp(0, 1) for turn in turns], x
    )


def _affine(x: Tensor, matrix: Matrix, offset: Sequence[float], rgb: bool = True) -> Tensor:
    return _image(_mix(_planes(x, rgb), matrix, offset), x)


class Space(NamedTuple):
    """A colour space: both conversions, the least and greatest value of each channel over the RGB cube, the channels' names."""

    from_rgb: Callable[[Tensor], Tensor]
    to_rgb: Callable[[Tensor], Tensor]
    low: Sequence[float]
    high: Sequence[float]
    names: Sequence[str]


def _linear_space(names: str, matrix: Matrix, offset: Sequence[float] = (0, 0, 0)) -> Space:
    inverse, rows = _invert(matrix), np.array(matrix)
    return Space(
        partial(_affine, matrix=matrix, offset=offset),
        partial(
            _affine,
            matrix=inverse,
            offset=(-np.array(inverse) @ offset).tolist(),
            rgb=names == "R G B",
        ),
        (rows.clip(max=0).sum(1) + offset).tolist(),
        (rows.clip(min=0).sum(1) + offset).tolist(),
        names.split(),
    )


_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as are the colour differences below
SPACES: dict[str, Space] = {
    "rgb": _linear_space("R G B", ((1, 0, 0), (0, 1, 0), (0, 0, 1))),
    "xyz": Space(rgb_to_xyz, xyz_to_rgb, (0, 0, 0), (0.950456, 1, 1.088754), ("X", "Y", "Z")),
    "yuv": _linear_space(
        "Y U V",
        (_LUMA, (-0.14714119, -0.28886916, 0.43601035), (0.61497538, -0.51496512, -0.10001026)),
    ),
    "yiq": _linear_space(
        "Y I Q",
        (_LUMA, (0.59590059, -0.27455667, -0.32134392), (0.21153661, -0.52273617, 0.31119955)),
    ),
    "ypbpr": _linear_space(
        "Y Pb Pr", (_LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
    ),
    "ycbcr": _linear_space(
        "Y Cb Cr",
        ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214)),
        (16, 128, 128),
    ),
    "ydbdr": _linear_space("Y Db Dr", (_LUMA, (-0.45, -0.883, 1.333), (-1.333, 1.116, 0.217))),
    "hsv": Space(rgb_to_hsv, hsv_to_rgb, (0, 0, 0), (1, 1, 1), ("H", "S", "V")),
    "lab": Space(
        rgb_to_lab,
        lab_to_rgb,
        (0, -86.183030, -107.857300),
        (100, 98.233054, 94.478122),
        ("L", "a", "b"),
    ),
    "luv": Space(
        rgb_to_luv,
        luv_to_rgb,
        (0, -83.077908, -134.097919),
        (100, 175.014474, 107.399053),
        ("L", "u", "v"),
    ),
}

# Mean and standard deviation as CMC normalises (arXiv 1906.05849).
CMC: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "lab": ((50, 6.025, -6.6895), (50, 92.208, 101.1675)),
    "ydbdr": ((0.457, -0.082, -0.052), (0.5, 1.331, 1.333)),
}


def convert(x: Tensor, source: str, target: str) -> Tensor:
    """Colours `[..., 3, H, W]` of one space to another, by way of RGB.

    >>> convert(torch.tensor([235., 128., 128.]).view(1, 3, 1, 1), "ycbcr", "lab")[0, 0]
    tensor([[100.]])
    """
    to_rgb = SPACES[check_choice(source, SPACES, "convert(source)")].to_rgb
    from_rgb = SPACES[check_choice(target, SPACES, "convert(target)")].from_rgb
    half = x.dtype in (torch.float16, torch.bfloat16)
    return from_rgb(to_rgb(x.float())).to(x.dtype) if half else from_rgb(to_rgb(x))


def _groups(split: str) -> list[list[int]]:
    groups = split.split("-") if isinstance(split, str) else []
    if sorted("".join(groups)) != ["0", "1", "2"] or "" in groups:
        raise ValueError(f"ColorSplit(split): got {split!r}, wanted the channels 0, 1 and 2 once each, groups joined by '-'; "
                         "write for example '0-12' or '0-1-2'")  # fmt: skip
    return [[int(channel) for channel in group] for group in groups]


def _mean_std(space: str, norm: str) -> tuple[Sequence[float], Sequence[float]]:
    low, high = np.array(SPACES[space].low), np.array(SPACES[space].high)
    presets = {
        "none": ((0, 0, 0), (1, 1, 1)),
        "range": (((low + high) / 2).tolist(), ((high - low) / 2).tolist()),
        "cmc": CMC.get(space),
    }
    preset = presets[check_choice(norm, presets, "ColorSplit(norm)")]
    if preset is None:
        raise ValueError(
            f"ColorSplit(norm): got 'cmc' for {space}, wanted one of the spaces {', '.join(CMC)}; take norm='range'"
        )
    return preset


@register(
    "color",
    dial="the colour space, and after a slash how its channels are split: color:lab, color:ydbdr/01-2",
)
class ColorSplit(ImageView):
    """Views that are groups of channels of a colour space: `luma, chroma = ColorSplit("lab")(images)`.

    Args:
        space: one of SPACES.
        split: which channels make up each view: "0-12", "01-2", "0-1-2", "012", ….
        norm: "none" keeps the space's units; "range" maps each channel's range over the RGB cube to [-1, 1];
            "cmc" takes the means and deviations of CMC (lab and ydbdr only).

    Raises:
        ValueError: an unknown space or norm, or a split that does not use each channel once.

    >>> luma, chroma = ColorSplit("lab")(torch.rand(4, 3, 8, 8))
    >>> luma.shape, chroma.shape
    (torch.Size([4, 1, 8, 8]), torch.Size([4, 2, 8, 8]))
    """

    bounded = False

    def __init__(self, space: str = "lab", split: str = "0-12", norm: str = "range") -> None:
        super().__init__()
        self.space = check_choice(space, SPACES, "ColorSplit(space)")
        self.split, self.norm = split, norm
        self.groups = _groups(split)
        self.mean, self.std = _mean_std(space, norm)
        self.channels = tuple(len(group) for group in self.groups)
        self.readout = tuple(range(len(self.groups)))

    @classmethod
    def from_dial(cls, dial: str) -> "ColorSplit":
        """`color:SPACE` or `color:SPACE/SPLIT`."""
        space, slash, split = dial.partition("/")
        return cls(space, split) if slash else cls(space)

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """One view `[B, channels, H, W]` a group; nothing is drawn at random."""
        colors = SPACES[self.space].from_rgb(images).unbind(1)
        planes = [
            (plane - mean) / std
            for plane, mean, std in zip(colors, self.mean, self.std, strict=True)
        ]
        return tuple(torch.stack([planes[c] for c in group], 1) for group in self.groups)

    def extra_repr(self) -> str:
        return f"{self.space!r}, split={self.split!r}, norm={self.norm!r}"
