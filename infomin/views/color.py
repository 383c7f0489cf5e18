"""Colour spaces: RGB to and from ten spaces, and ColorSplit, which splits channels into views.

Units are those of scikit-image: RGB, XYZ, Y and the HSV channels (hue too) in 0..1, YCbCr in
16..240, Lab and Luv with lightness in 0..100; white is D65, the observer 2 degrees. Floating-point
images keep their dtype; half precision is computed in float32 and rounded once. uint8 is scaled to
float32 in [0, 1], and only RGB may be uint8. Clipped are RGB on its way to HSV, and light below
black on its way to Luv, whose ratios mean nothing there. All other spaces invert outside the RGB
cube too.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..common.checks import check_choice, to_unit
from .base import ImageView, Views, register
from .dials import read_groups
from .gamma import LIGHTNESS, LUV_LIGHTNESS, SRGB, compress, expand

Planes = Sequence[Tensor]  # three tensors [..., H, W], one per channel
Matrix = Sequence[Sequence[float]]  # 3 rows of 3 weights


def _split_planes(x: Tensor, rgb: bool = True) -> Planes:
    """The channels of `[..., 3, H, W]` in float32 or float64; uint8 RGB is scaled to [0, 1]."""
    if x.dim() < 3 or x.shape[-3] != 3:
        raise ValueError(
            f"colours must have the shape [..., 3, H, W], got {list(x.shape)}; "
            "put the channels third from the end"
        )
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise TypeError(
            f"colours must be uint8 or floating point, got {x.dtype}; "
            "convert with x.to(torch.uint8) or x.float()"
        )
    if x.dtype == torch.uint8 and not rgb:
        raise TypeError(
            "colours of a space other than RGB must be floating point, got uint8; "
            "pass x.float() in the units of that space"
        )
    x = to_unit(x)
    return x.to(torch.promote_types(x.dtype, torch.float32)).unbind(-3)


def _stack_planes(planes: Planes, like: Tensor) -> Tensor:
    """Stack planes into `[..., 3, H, W]`, in the dtype of `like` if that is floating point."""
    x = torch.stack(tuple(planes), -3)
    return x.to(like.dtype) if like.is_floating_point() else x


def _mix(planes: Planes, matrix: Matrix, offsets: Sequence[float] = (0, 0, 0)) -> Planes:
    """Multiply each pixel's colour by a matrix and add an offset to each channel."""
    # Python numbers instead of a matmul: autocast and TF32 cannot round them, no constant has to
    # follow the images to their device, and zero weights cost nothing.
    rows = zip(matrix, offsets, strict=True)
    return [_weighted_sum(planes, weights, offset) for weights, offset in rows]


def _weighted_sum(planes: Planes, weights: Sequence[float], offset: float) -> Tensor:
    pairs = zip(weights, planes, strict=True)
    (first_weight, first_plane), *others = [(weight, plane) for weight, plane in pairs if weight]
    total = first_plane * first_weight
    for weight, plane in others:  # in place: `total` is new and autograd does not keep it
        total.add_(plane, alpha=weight)
    return total.add_(offset) if offset else total


def _invert(matrix: Matrix) -> Matrix:
    return np.linalg.inv(np.array(matrix)).tolist()


# Linear sRGB to XYZ.
XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE = (0.95047, 1.0, 1.08883)
_XYZ_OVER_WHITE = [
    [weight / white for weight in row] for row, white in zip(XYZ, WHITE, strict=True)
]
# Lab from the responses x, y and z to X, Y and Z:
# L = 100 y, a = 500 (x - y) / 1.16, b = 200 (y - z) / 1.16.
_LAB = ((0, 100, 0), (500 / 1.16, -500 / 1.16, 0), (0, 200 / 1.16, -200 / 1.16))
_RGB_FROM_XYZ = _invert(XYZ)
_RGB_FROM_XYZ_OVER_WHITE = _invert(_XYZ_OVER_WHITE)
_RESPONSES_FROM_LAB = _invert(_LAB)
# The chromaticity u', v' of white, for Luv.
_WHITE_TOTAL = WHITE[0] + 15 * WHITE[1] + 3 * WHITE[2]
_WHITE_U, _WHITE_V = 4 * WHITE[0] / _WHITE_TOTAL, 9 * WHITE[1] / _WHITE_TOTAL


def _to_linear(x: Tensor) -> Planes:
    """sRGB to linear light; uint8 is looked up in a table of 256 values."""
    if x.dtype != torch.uint8:
        return [expand(plane, SRGB) for plane in _split_planes(x)]
    table = expand(to_unit(torch.arange(256, dtype=torch.uint8, device=x.device)), SRGB)
    return _split_planes(table.index_select(0, x.flatten().int()).view(x.shape))


def _to_srgb(linear: Planes, like: Tensor) -> Tensor:
    """Planes of linear light to an sRGB image, in the dtype of `like`."""
    return _stack_planes([compress(plane, SRGB) for plane in linear], like)


def rgb_to_xyz(x: Tensor) -> Tensor:
    """sRGB `[..., 3, H, W]` in [0, 1] or uint8 to CIE XYZ in 0..1.

    >>> rgb_to_xyz(torch.ones(1, 3, 1, 1)).flatten()
    tensor([0.9505, 1.0000, 1.0888])
    """
    return _stack_planes(_mix(_to_linear(x), XYZ), x)


def xyz_to_rgb(x: Tensor) -> Tensor:
    """CIE XYZ `[..., 3, H, W]` in 0..1 to sRGB, not clipped."""
    return _to_srgb(_mix(_split_planes(x, rgb=False), _RGB_FROM_XYZ), x)


def rgb_to_lab(x: Tensor) -> Tensor:
    """sRGB `[..., 3, H, W]` in [0, 1] or uint8 to CIE L*a*b* (CIE 15).

    L is in 0..100, a and b in about -108..98.

    >>> red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    >>> rgb_to_lab(red).flatten()
    tensor([53.2406, 80.0923, 67.2028])
    """
    relative = _mix(_to_linear(x), _XYZ_OVER_WHITE)
    responses = [compress(plane, LIGHTNESS) for plane in relative]
    return _stack_planes(_mix(responses, _LAB), x)


def lab_to_rgb(x: Tensor) -> Tensor:
    """CIE L*a*b* `[..., 3, H, W]` to sRGB, not clipped."""
    responses = _mix(_split_planes(x, rgb=False), _RESPONSES_FROM_LAB)
    relative = [expand(plane, LIGHTNESS) for plane in responses]
    return _to_srgb(_mix(relative, _RGB_FROM_XYZ_OVER_WHITE), x)


def rgb_to_luv(x: Tensor) -> Tensor:
    """sRGB `[..., 3, H, W]` in [0, 1] or uint8 to CIE L*u*v* (CIE 15).

    L is in 0..100, u and v in about -134..175; light below black counts as black.
    """
    big_x, big_y, big_z = _mix(_to_linear(x.masked_fill(x < 0, 0)), XYZ)
    lightness = 100 * compress(big_y, LUV_LIGHTNESS)
    total = big_x + 15 * big_y + 3 * big_z
    # Black has no chromaticity: its u, v and their gradients are 0.
    black = total.abs() < torch.finfo(total.dtype).eps
    scale = 13 * lightness / total.masked_fill(black, torch.inf)
    u = scale * (4 * big_x - _WHITE_U * total)
    v = scale * (9 * big_y - _WHITE_V * total)
    return _stack_planes((lightness, u, v), x)


def luv_to_rgb(x: Tensor) -> Tensor:
    """CIE L*u*v* `[..., 3, H, W]` to sRGB, not clipped."""
    lightness, u, v = _split_planes(x, rgb=False)
    scale = (13 * lightness).masked_fill(lightness == 0, torch.inf)
    u = u / scale + _WHITE_U
    v = v / scale + _WHITE_V
    y = expand(lightness / 100, LUV_LIGHTNESS)
    xyz = (y * 9 * u / (4 * v), y, y * (12 - 3 * u - 20 * v) / (4 * v))
    return _to_srgb(_mix(xyz, _RGB_FROM_XYZ), x)


def rgb_to_hsv(x: Tensor) -> Tensor:
    """RGB `[..., 3, H, W]` in [0, 1] or uint8 to hue, saturation and value, all in 0..1.

    The hue of a grey is 0; values outside [0, 1] count as 0 or 1.

    >>> blue = torch.tensor([0., 0., 1.]).view(1, 3, 1, 1)
    >>> rgb_to_hsv(blue).flatten()
    tensor([0.6667, 1.0000, 1.0000])
    """
    # not clamp, whose gradient is 0 at 0 and 1 as well
    planes = _split_planes(x)
    red, green, blue = (y.masked_fill(y < 0, 0).masked_fill(y > 1, 1) for y in planes)
    value = red.maximum(green).maximum(blue)
    chroma = value - red.minimum(green).minimum(blue)
    # Division by infinity makes a grey's hue and its gradient 0.
    divisor = chroma.masked_fill(chroma == 0, torch.inf)
    hue = torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    hue = torch.where(value == red, (green - blue) / divisor, hue)
    saturation = chroma / value.masked_fill(value == 0, torch.inf)
    return _stack_planes((hue / 6 % 1, saturation, value), x)


def hsv_to_rgb(x: Tensor) -> Tensor:
    """Hue, saturation and value `[..., 3, H, W]`, all in 0..1, to RGB; the hue is periodic."""
    hue, saturation, value = _split_planes(x, rgb=False)
    planes = []
    for start in (5, 3, 1):
        sector = (6 * hue + start) % 6
        planes.append(value - value * saturation * sector.minimum(4 - sector).clamp(0, 1))
    return _stack_planes(planes, x)


def _affine(x: Tensor, matrix: Matrix, offsets: Sequence[float], rgb: bool = True) -> Tensor:
    return _stack_planes(_mix(_split_planes(x, rgb), matrix, offsets), x)


class Space(NamedTuple):
    """A colour space.

    Attributes:
        from_rgb: RGB `[..., 3, H, W]` to this space.
        to_rgb: the inverse.
        low: the least value of each channel over the RGB cube.
        high: the greatest.
        names: the names of the channels.
    """

    from_rgb: Callable[[Tensor], Tensor]
    to_rgb: Callable[[Tensor], Tensor]
    low: Sequence[float]
    high: Sequence[float]
    names: Sequence[str]


def _affine_space(names: str, matrix: Matrix, offsets: Sequence[float] = (0, 0, 0)) -> Space:
    weights, inverse = np.array(matrix), _invert(matrix)
    inverse_offsets = (-np.array(inverse) @ offsets).tolist()
    return Space(
        from_rgb=partial(_affine, matrix=matrix, offsets=offsets),
        to_rgb=partial(_affine, matrix=inverse, offsets=inverse_offsets, rgb=names == "R G B"),
        low=(weights.clip(max=0).sum(1) + offsets).tolist(),
        high=(weights.clip(min=0).sum(1) + offsets).tolist(),
        names=names.split(),
    )


_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as for the colour differences below
SPACES: dict[str, Space] = {
    "rgb": _affine_space("R G B", ((1, 0, 0), (0, 1, 0), (0, 0, 1))),
    "xyz": Space(rgb_to_xyz, xyz_to_rgb, (0, 0, 0), (0.950456, 1, 1.088754), ("X", "Y", "Z")),
    "yuv": _affine_space(
        "Y U V",
        (_LUMA, (-0.14714119, -0.28886916, 0.43601035), (0.61497538, -0.51496512, -0.10001026)),
    ),
    "yiq": _affine_space(
        "Y I Q",
        (_LUMA, (0.59590059, -0.27455667, -0.32134392), (0.21153661, -0.52273617, 0.31119955)),
    ),
    "ypbpr": _affine_space(
        "Y Pb Pr", (_LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
    ),
    "ycbcr": _affine_space(
        "Y Cb Cr",
        ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214)),
        (16, 128, 128),
    ),
    "ydbdr": _affine_space("Y Db Dr", (_LUMA, (-0.45, -0.883, 1.333), (-1.333, 1.116, 0.217))),
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

# Means and standard deviations with which CMC normalises (arXiv 1906.05849).
CMC: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "lab": ((50, 6.025, -6.6895), (50, 92.208, 101.1675)),
    "ydbdr": ((0.457, -0.082, -0.052), (0.5, 1.331, 1.333)),
}


def convert(x: Tensor, source: str, target: str) -> Tensor:
    """Convert colours `[..., 3, H, W]` from one space to another, through RGB.

    >>> convert(torch.tensor([235., 128., 128.]).view(1, 3, 1, 1), "ycbcr", "lab")[0, 0]
    tensor([[100.]])
    """
    to_rgb = SPACES[check_choice(source, SPACES, "convert(source)")].to_rgb
    from_rgb = SPACES[check_choice(target, SPACES, "convert(target)")].from_rgb
    if x.dtype in (torch.float16, torch.bfloat16):
        return from_rgb(to_rgb(x.float())).to(x.dtype)
    return from_rgb(to_rgb(x))


def _mean_std(space: str, norm: str) -> tuple[Sequence[float], Sequence[float]]:
    low, high = np.array(SPACES[space].low), np.array(SPACES[space].high)
    norms = {
        "none": ((0, 0, 0), (1, 1, 1)),
        "range": (((low + high) / 2).tolist(), ((high - low) / 2).tolist()),
        "cmc": CMC.get(space),
    }
    mean_std = norms[check_choice(norm, norms, "ColorSplit(norm)")]
    if mean_std is None:
        raise ValueError(
            f"ColorSplit(norm): got 'cmc' for {space}, wanted one of the spaces {', '.join(CMC)}; "
            "use norm='range'"
        )
    return mean_std


@register(
    "color",
    dial="the colour space, optionally with a split of its channels: color:lab, color:ydbdr/01-2",
)
class ColorSplit(ImageView):
    """Split the channels of a colour space into views: `luma, chroma = ColorSplit("lab")(images)`.

    Args:
        space: one of SPACES.
        split: the channels of each view: "0-12", "01-2", "0-1-2", "012", …, or groups of numbers.
        norm: "none" keeps the units of the space; "range" maps each channel's range over the RGB
            cube to [-1, 1]; "cmc" uses the means and deviations of CMC (lab and ydbdr only).

    Raises:
        ValueError: an unknown space or norm, or a split that does not use each channel once.

    >>> luma, chroma = ColorSplit("lab")(torch.rand(4, 3, 8, 8))
    >>> luma.shape, chroma.shape
    (torch.Size([4, 1, 8, 8]), torch.Size([4, 2, 8, 8]))
    """

    bounded = False

    def __init__(
        self,
        space: str = "lab",
        split: str | Iterable[Iterable[int]] = "0-12",
        norm: str = "range",
    ) -> None:
        super().__init__()
        self.space = check_choice(space, SPACES, "ColorSplit(space)")
        self.split, self.norm = split, norm
        self.groups = read_groups(split, 3, "ColorSplit(split)", all_once=True)
        self.mean, self.std = _mean_std(space, norm)
        self.channels = tuple(len(group) for group in self.groups)
        self.readout = tuple(range(len(self.groups)))

    @classmethod
    def from_dial(cls, dial: str) -> "ColorSplit":
        """`color:SPACE` or `color:SPACE/SPLIT`."""
        space, slash, split = dial.partition("/")
        return cls(space, split) if slash else cls(space)

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """One view `[B, channels, H, W]` per group; nothing is random."""
        planes = SPACES[self.space].from_rgb(images).unbind(1)
        scaled = [
            (plane - mean) / std
            for plane, mean, std in zip(planes, self.mean, self.std, strict=True)
        ]
        return tuple(
            torch.stack([scaled[channel] for channel in group], 1) for group in self.groups
        )

    def extra_repr(self) -> str:
        return f"{self.space!r}, split={self.split!r}, norm={self.norm!r}"
