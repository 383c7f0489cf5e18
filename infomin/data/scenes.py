"""Scenes with known factors: a handwritten digit at a position over a background.

A scene is a handful of integers; `render_scenes` turns a batch of them into images. Every factor is
discrete and uniform, so the information that two scenes share through common factors, or through
noisy copies of them, is known in closed form: see `shared_nats`. The setting follows Colorful
Moving-MNIST (InfoMin); for its moving digits see `moving_mnist`.
"""

import math
import re
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ..common.checks import check_choice
from ..common.seeds import to_device
from .windows import cut_windows
from .worlds import World

FACTORS = ("digit", "digit_image", "position", "background", "background_image", "background_crop")
# Those whose values can be shared modulo a number, or with an error.
CLASSES = ("digit", "position", "background")
# The finest level of each factor: together they fix every pixel.
ALL = "digit_image-position-background_crop"
# The tensors of `Scenes` that each factor fixes, the class (or position) first.
_TENSORS = {
    "digit": ("digit",),
    "digit_image": ("digit", "digit_image"),
    "position": ("position",),
    "background": ("background",),
    "background_image": ("background", "background_image"),
    "background_crop": ("background", "background_image", "crop"),
}


class Level(NamedTuple):
    """How a factor is shared: its class modulo a number, 0 if there is none, and the error."""

    modulus: int = 0
    error: float = 0.0


@dataclass(frozen=True, eq=False)
class Factors:
    """The base of scenes and clips: a world, and tensors with one row a scene or clip."""

    world: World
    digit: Tensor

    def __len__(self) -> int:
        return len(self.digit)

    def __getitem__(self, index: Tensor | slice) -> Self:
        selected = {name: value[index] for name, value in self.tensors().items()}
        return type(self)(self.world, **selected)

    def tensors(self) -> dict[str, Tensor]:
        """The factors by name."""
        return {name: value for name, value in vars(self).items() if name != "world"}

    def to(self, device: torch.device | str) -> Self:
        """The same scenes or clips on a device, with their world."""
        moved = {name: value.to(device) for name, value in self.tensors().items()}
        return type(self)(self.world.to(device), **moved)

    def clone(self) -> Self:
        """The same scenes or clips in memory of their own, with their world."""
        copied = {name: value.clone() for name, value in self.tensors().items()}
        return type(self)(self.world.clone(), **copied)


@dataclass(frozen=True, eq=False)
class Scenes(Factors):
    """The factors of a batch of scenes, and the world they are drawn from.

    All tensors are long. The classes (`digit`, `background`) and `position` `[B]` are labels of
    tasks; `digit_image` and `background_image` `[B]` are rows of the world's banks; `crop` `[B, 2]`
    is the top-left pixel (y, x) of the canvas in the background.
    """

    digit_image: Tensor
    position: Tensor
    background: Tensor
    background_image: Tensor
    crop: Tensor


def draw_scenes(world: World, n: int, generator: torch.Generator | None = None) -> Scenes:
    """Draw scenes: uniform classes and positions, then images within a class, then crops.

    Args:
        world: the pictures and the canvas.
        n: number of scenes.
        generator: on the CPU; None uses torch's global one.

    Raises:
        ValueError: a class without pictures, or a canvas too small or too large.

    >>> ink = torch.zeros(3, 8, 8, dtype=torch.uint8)
    >>> photos = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    >>> world = World(ink, torch.tensor([0, 1, 1]), photos, torch.tensor([0, 1]))
    >>> scenes = draw_scenes(world, 5, torch.Generator().manual_seed(0))
    >>> render_scenes(scenes).shape
    torch.Size([5, 3, 32, 32])
    """
    world.check()
    device = world.digits.device
    crops = torch.tensor(world.backgrounds.shape[2:], device="cpu") - world.size + 1
    # The order of these draws determines the data sets: do not change it.
    digit = _uniform_integers(_value_count(world, "digit"), (n,), device, generator)
    background = _uniform_integers(_value_count(world, "background"), (n,), device, generator)
    digit_image = pick_member(world, "digit", digit, _uniform((n,), device, generator))
    position = _uniform_integers(_value_count(world, "position"), (n,), device, generator)
    background_image = pick_member(
        world, "background", background, _uniform((n,), device, generator)
    )
    crop = _uniform_integers(to_device(crops, device), (n, 2), device, generator)
    return Scenes(world, digit, digit_image, position, background, background_image, crop)


def draw_partner(scenes: Scenes, share: str, generator: torch.Generator | None = None) -> Scenes:
    """Draw scenes that share the named factors with `scenes`; all other factors are redrawn.

    Args:
        scenes: `[B]` scenes.
        share: factors joined by `-`, for example `digit-position`; for names see `parse_factors`.
        generator: on the CPU; None uses torch's global one.

    Raises:
        ValueError: an unknown factor, see `parse_factors`.

    Source: the symmetric channel of an error is that of Lee and Rhee (2024).
    """
    shared = parse_factors(share)
    tensors = draw_scenes(scenes.world, len(scenes), generator).tensors()
    kept = scenes.tensors()
    for name, level in shared.items():
        tensors.update({tensor: kept[tensor] for tensor in _TENSORS[name]})
        if level != Level():
            tensors[name] = _redraw_class(scenes, name, level, generator)
    # A factor shared at the level of its class needs an image of that class: the image drawn above
    # may belong to another one.
    for name in ("digit", "background"):
        if name in shared:
            uniform = _uniform((len(scenes),), tensors[name].device, generator)
            tensors[f"{name}_image"] = pick_member(scenes.world, name, tensors[name], uniform)
    return Scenes(scenes.world, **tensors)


def parse_factors(share: str) -> dict[str, Level]:
    """Parse a list of shared factors into factor -> level.

    Args:
        share: factors joined by `-`. `digit` and `background` share the class, `digit_image` and
            `background_image` the picture, `background_crop` its very pixels, `position` the
            position; `NAME%m` shares a class or position modulo m; `NAME~e` and `NAME%m~e` pass it
            through a symmetric channel: with probability e the partner has another one, each
            equally likely. `nothing` and `all` are the extremes.

    Raises:
        ValueError: an unknown factor, a modulus or an error where none is possible or out of range,
            a factor named twice.

    >>> parse_factors("digit%5~0.2-position")
    {'digit': Level(modulus=5, error=0.2), 'position': Level(modulus=0, error=0.0)}
    """
    levels: dict[str, Level] = {}
    for part in {"nothing": [], "all": ALL.split("-")}.get(share, share.split("-")):
        shown, tilde, error = part.partition("~")
        name, percent, modulus = shown.partition("%")
        hint = f"shared factor in {share!r} (join factors by '-', or write 'nothing' or 'all')"
        check_choice(name, FACTORS, hint)
        good_modulus = modulus.isdecimal() and int(modulus) >= 2
        if percent and not (name in CLASSES and good_modulus):
            raise ValueError(
                f"shared factor {part!r}: got modulus {modulus!r}, wanted digit, position or "
                "background % a whole number from 2"
            )
        good_error = re.fullmatch(r"\d+\.?\d*|\.\d+", error, re.ASCII) and float(error) <= 1
        if tilde and not (name in CLASSES and good_error):
            raise ValueError(
                f"shared factor {part!r}: got error {error!r}, wanted digit, position or "
                "background ~ a probability from 0 to 1; pictures and crops are shared without"
            )
        if any(_TENSORS[name][0] == _TENSORS[other][0] for other in levels):
            raise ValueError(
                f"shared factors {share!r}: {name!r} names a factor twice; keep the finer one"
            )
        levels[name] = Level(int(modulus or 0), float(error or 0))
    return levels


def shared_nats(scenes: Scenes, share: str) -> float:
    """Mutual information of a scene and its `draw_partner` in nats.

    It is the entropy of what they share, less what the errors of channels leave open. Exact for the
    factors of scenes that `draw_scenes` draws: classes and positions are uniform, so classes modulo
    a number may not be. It is an upper bound on the information between the images, tight as far as
    the factors can be read from the pixels (handwriting is sometimes ambiguous, and so are two
    crops of plain sky).

    Args:
        scenes: any scenes of the world.
        share: as for `draw_partner`.

    >>> ink = torch.zeros(10, 8, 8, dtype=torch.uint8)
    >>> photos = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    >>> world = World(ink, torch.arange(10), photos, torch.tensor([0, 1]))
    >>> scenes = draw_scenes(world, 1)
    >>> round(shared_nats(scenes, "digit"), 4), round(shared_nats(scenes, "digit%2"), 4)
    (2.3026, 0.6931)
    >>> round(shared_nats(scenes, "digit~0.3"), 4), round(shared_nats(scenes, "digit~0.9"), 4)
    (1.0326, 0.0)
    """
    return math.fsum(nats_per_factor(scenes.world, share).values())


def nats_per_factor(world: World, share: str) -> dict[str, float]:
    """The nats that a scene and its `draw_partner` share in each named factor.

    Factors are independent, so the total is the sum.

    >>> ink = torch.zeros(10, 8, 8, dtype=torch.uint8)
    >>> photos = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    >>> world = World(ink, torch.arange(10), photos, torch.tensor([0, 1]))
    >>> nats = nats_per_factor(world, "digit-background_crop")
    >>> round(nats["digit"], 4), round(nats["background_crop"], 4)  # log 10, log (2 * 9 * 9)
    (2.3026, 5.0876)
    """
    nats = {}
    crops = math.prod(side - world.size + 1 for side in world.backgrounds.shape[2:])
    for name, (modulus, error) in parse_factors(share).items():
        factor = _TENSORS[name][0]
        values = _value_count(world, factor)
        residues = torch.arange(values, device="cpu").remainder(modulus or values)
        nats[name] = channel_nats(residues.bincount().double() / values, error)
        if name.endswith(("_image", "_crop")) and factor in world.counts:
            images = torch.tensor(world.counts[factor], dtype=torch.float64, device="cpu")
            nats[name] += float(images.log().mean())
        if name.endswith("_crop"):
            nats[name] += math.log(crops)
    return nats


def channel_nats(p: Tensor, error: float) -> float:
    """I(u; v) in nats of a class u and of v, which is u but for an error, in closed form.

    H(v) - H(v | u). With probability `error`, v is another class, each equally likely whatever its
    frequency: v is uniform where u is, and has frequencies of its own where u is not.

    Args:
        p: P(u) of each class, above 0, float64 `[classes]`; a single class has no other.
        error: 0 to 1; at 1 - 1 / classes nothing is shared, above it what u is not.

    >>> half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    >>> [round(channel_nats(half, error), 4) for error in (0, 0.1, 0.5, 1)]
    [0.6931, 0.3681, 0.0, 0.6931]
    """
    q, open_nats = p, 0.0
    if error and len(p) > 1:
        given_u = p.new_full((len(p),), error / (len(p) - 1))
        q = (1 - error) * p + given_u * (1 - p)
        given_u[0] = 1 - error
        open_nats = float(torch.special.entr(given_u).sum())
    return max(0.0, float(-(q * q.log()).sum()) - open_nats)


def render_scenes(scenes: Scenes) -> Tensor:
    """Render scenes: white ink over a dimmed crop of the background.

    Args:
        scenes: `[B]` scenes.

    Returns:
        float32 `[B, 3, size, size]` in [0, 1].
    """
    world, size = scenes.world, scenes.world.size
    margins = torch.tensor([size - side for side in world.digits.shape[1:]], device="cpu")
    shift = to_device(margins, world.digits.device) - corners(scenes)
    ink = cut_windows(world.padded_digits, scenes.digit_image, shift, size, size)
    ground = cut_windows(world.backgrounds, scenes.background_image, scenes.crop, size, size)
    # Convert bytes to floats first: arithmetic on mixed dtypes is slow on a CPU.
    alpha = ink.float().div_(255)
    return ground.float().mul_(world.dim / 255).mul_(1 - alpha).add_(alpha)


def corners(scenes: Scenes) -> Tensor:
    """The top-left pixel (y, x) of each digit, long `[B, 2]`.

    The cells of the grid are spread over all corners at which the whole digit is on the canvas.
    """
    world = scenes.world
    height, width = world.digits.shape[1:]
    steps = max(1, world.cells - 1)
    y = scenes.position // world.cells * (world.size - height) // steps
    x = scenes.position % world.cells * (world.size - width) // steps
    return torch.stack([y, x], 1)


def _value_count(world: World, factor: str) -> int:
    """How many values `digit`, `background` or `position` can have."""
    return world.cells**2 if factor == "position" else len(world.counts[factor])


def _uniform_integers(
    counts: Tensor | int,
    shape: tuple[int, ...],
    device: torch.device,
    generator: torch.Generator | None,
) -> Tensor:
    """Long integers, uniform in 0..counts-1."""
    return (_uniform(shape, device, generator) * counts).long()


def _uniform(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Numbers uniform in [0, 1), drawn on the CPU.

    float64: with the coarser steps of float32, some values of a large count would never be drawn.
    """
    drawn = torch.rand(shape, dtype=torch.float64, device="cpu", generator=generator)
    return to_device(drawn, device)


def pick_member(world: World, name: str, classes: Tensor, uniform: Tensor) -> Tensor:
    """Pick rows of a bank, each within its class.

    Args:
        name: the bank, `digit` or `background`.
        classes: long, any shape.
        uniform: numbers in [0, 1) of that shape, which pick among the rows of a class.

    Returns:
        long, of that shape.
    """
    rows, start, count = world.members[name]
    return rows[start[classes] + (uniform * count[classes]).long()]


def _redraw_class(
    scenes: Scenes, name: str, level: Level, generator: torch.Generator | None
) -> Tensor:
    """Draw values of a factor that agree with those of `scenes` at a level, but for its errors."""
    values = _value_count(scenes.world, name)
    classes = min(level.modulus or values, values)
    residue = scenes.tensors()[name] % classes
    shape, device = residue.shape, residue.device
    if level.error:
        is_wrong = _uniform(shape, device, generator) < level.error
        step = 1 + _uniform_integers(classes - 1, shape, device, generator)
        residue = torch.where(is_wrong, (residue + step) % classes, residue)
    choices = (values - residue + classes - 1) // classes  # values with this residue
    return residue + classes * _uniform_integers(choices, shape, device, generator)
