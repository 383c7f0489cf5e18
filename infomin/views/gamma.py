"""Light and how it is seen: the power curves with a straight foot of sRGB's gamma and of CIE lightness, both ways."""

from typing import NamedTuple

from torch import Tensor


class Curve(NamedTuple):
    """A power curve with a straight foot, between linear light y and a response x.

    y = ((x + offset) / (1 + offset)) ** power where x is above `dark`, and x = slope * y below: both sRGB's gamma and CIE
    lightness are of this kind. Each maps the whole real line onto itself, so nothing needs clipping. Published slopes are
    rounded and miss the power by 4e-8 or less where they meet; there each part ends where it reaches the other's light or
    response, so that no colour jumps.
    """

    offset: float
    power: float
    dark: float
    slope: float

    @property
    def dim(self) -> float:
        """The light at the response `dark`."""
        return ((self.dark + self.offset) / (1 + self.offset)) ** self.power


SRGB = Curve(0.055, 2.4, 0.04045, 12.92)  # IEC 61966-2-1
LIGHTNESS = Curve(
    0.16, 3, 0.08000025, 7.787 * 1.16
)  # CIE 15 in 0..1, with the constant usual in Lab, `dark` amid its gap
LUV_LIGHTNESS = Curve(0.16, 3, 0.08, 9.033)  # and the one usual in Luv


def _power(x: Tensor, p: float) -> Tensor:
    return (
        x.log2().mul_(p).exp2_()
    )  # a third of the time of x ** p on a CPU; x is never near 0 here


def expand(x: Tensor, curve: Curve) -> Tensor:
    """Response to linear light: foot plus power, each held constant where the other rules, so every gradient is finite."""
    power = _power(x.clamp(min=curve.dark).add_(curve.offset).div_(1 + curve.offset), curve.power)
    return x.clamp(max=curve.dim * curve.slope).mul_(1 / curve.slope).sub_(curve.dim).add_(power)


def compress(y: Tensor, curve: Curve) -> Tensor:
    """Linear light to response; undoes `expand`."""
    power = _power(y.clamp(min=curve.dim), 1 / curve.power)
    foot = y.clamp(max=curve.dark / curve.slope).mul_(curve.slope).sub_(curve.dark + curve.offset)
    return foot.add_(power, alpha=1 + curve.offset)
