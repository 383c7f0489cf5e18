"""Scenes with known factors: a handwritten digit, at a place, over a background. Factors in, pixels out.

A scene is a handful of integers; `render_scenes` turns a batch of them into images. Because every factor is discrete and drawn
uniformly, the information that two scenes share when they have some factors in common is known in closed form: see `shared_nats`.
The setting follows Colorful Moving-MNIST (InfoMin), whose digits move: see `moving_mnist`.
"""

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import check_choice
from ..common.seeds import to_device
from .windows import cut_windows

FACTORS = ("digit", "digit_image", "position", "background", "background_image", "background_crop")
ALL = "digit_image-position-background_crop"  # the finest level of each factor: together they fix every pixel


@dataclass(frozen=True, eq=False)
class World:
    """What scenes are made of: two banks of pictures and a canvas.

    Args:
        digits: uint8 `[N, h, w]`, a digit's ink, 0 none to 255 full.
        digit_class: long `[N]`, numbered from 0 without gaps.
        backgrounds: uint8 `[M, 3, H, W]`, H and W at least `size`.
        background_class: long `[M]`, likewise.
        size: side of the square canvas in pixels.
        cells: digits stand at one of `cells**2` places on a regular grid.
        dim: brightness of the background, 0..1; below one, white ink stands out on any photograph.
    """

    digits: Tensor
    digit_class: Tensor
    backgrounds: Tensor
    background_class: Tensor
    size: int = 32
    cells: int = 3
    dim: float = 0.5

    def __repr__(self) -> str:
        digits, grounds = (
            list(self.digits.shape),
            list(self.backgrounds.shape),
        )  # the pictures would fill pages
        return f"World(digits={digits}, backgrounds={grounds}, size={self.size}, cells={self.cells}, dim={self.dim})"

    @cached_property
    def sheets(self) -> Tensor:
        """The digits amid so much empty paper that a canvas can be cut with the digit at any place: uint8 `[N, 1, H, W]`."""
        (height, width), size = self.digits.shape[1:], self.size
        return F.pad(self.digits, (size - width, size - width, size - height, size - height))[
            :, None
        ]

    @cached_property
    def members(self) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """For `digit` and `background`: rows of the bank in the order of class, each class's start and count."""
        found = {}
        for name, bank in (("digit", self.digit_class), ("background", self.background_class)):
            count = bank.bincount()
            found[name] = (bank.argsort(stable=True), count.cumsum(0) - count, count)
        return found

    @cached_property
    def counts(self) -> dict[str, list[int]]:
        """For `digit` and `background`: how many pictures each class has."""
        return {name: count.tolist() for name, (_, _, count) in self.members.items()}

    def check(self) -> None:
        """Raise a ValueError unless there are pictures of every class, and the canvas holds a digit and fits in a background."""
        banks = (
            (self.digits, self.digit_class, "[N, h, w]"),
            (self.backgrounds, self.background_class, "[N, 3, H, W]"),
        )
        for bank, classes, shape in banks:  # of floats in [0, 1] nothing would be seen
            good = bank.dtype == torch.uint8 and len(bank) == len(classes)
            if (
                not good
                or bank.dim() != 1 + shape.count(",")
                or bank.shape[1] != (3 if "3" in shape else bank.shape[1])
            ):
                raise ValueError(
                    f"draw(world): got pictures {list(bank.shape)} of {bank.dtype} and {len(classes)} classes, wanted uint8 "
                    f"{shape} and N classes; convert them"
                )
        if not 0 <= self.dim <= 1:
            raise ValueError(
                f"draw(world): got a brightness of {self.dim}, wanted 0 to 1; change World(dim)"
            )
        for name, count in self.counts.items():
            if not count or 0 in count:
                raise ValueError(
                    f"draw(world): got {count} {name}s of the classes 0, 1, …, wanted at least one of each; "
                    "add pictures, or number the classes without gaps"
                )
        (height, width), least = self.digits.shape[1:], min(self.backgrounds.shape[2:])
        if not max(height, width) <= self.size <= least:
            raise ValueError(
                f"draw(world): got a canvas of {self.size} px, wanted {max(height, width)} (the digits) to {least} px "
                "(the backgrounds); change World(size)"
            )

    def to(self, device: torch.device | str) -> "World":
        """The same world on a device."""
        parts: dict[str, Any] = {
            f.name: v.to(device)
            for f in fields(self)
            if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **parts)


@dataclass(frozen=True, eq=False)
class Factors:
    """What batches of scenes and of clips have in common: tensors with a row for each, and a world."""

    world: World
    digit: Tensor

    def __len__(self) -> int:
        return len(self.digit)

    def __getitem__(self, index: Tensor | slice) -> Self:
        return type(self)(
            self.world, **{name: value[index] for name, value in self.tensors().items()}
        )

    def tensors(self) -> dict[str, Tensor]:
        """The factors by name."""
        return {name: value for name, value in vars(self).items() if name != "world"}

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        return type(self)(
            self.world.to(device),
            **{name: value.to(device) for name, value in self.tensors().items()},
        )


@dataclass(frozen=True, eq=False)
class Scenes(Factors):
    """A batch of scenes: the factors of each, and the world they are drawn from.

    Classes (`digit`, `background`) and `position` are what tasks ask for; `digit_image` and `background_image` are rows of the
    world's banks; `crop` `[B, 2]` is the top-left pixel (y, x) of the canvas in the background. All long; all but `crop` `[B]`.
    """

    digit_image: Tensor
    position: Tensor
    background: Tensor
    background_image: Tensor
    crop: Tensor


def draw_scenes(world: World, n: int, generator: torch.Generator | None = None) -> Scenes:
    """Draw `n` scenes: classes and positions uniform, then an image uniform within its class, then a crop uniform.

    Raises:
        ValueError: a world that has no picture for some class, or whose canvas is too small or too large.

    >>> ink, ground = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    >>> world = World(ink, torch.tensor([0, 1, 1]), ground, torch.tensor([0, 1]))
    >>> scenes = draw_scenes(world, 5, torch.Generator().manual_seed(0))
    >>> render_scenes(scenes).shape
    torch.Size([5, 3, 32, 32])
    """
    world.check()
    device = world.digits.device
    digit = _choose(_values(world, "digit"), (n,), device, generator)
    background = _choose(_values(world, "background"), (n,), device, generator)
    room = to_device(
        torch.tensor(world.backgrounds.shape[2:], device="cpu") - world.size + 1, device
    )
    factors = {
        "digit": digit,
        "digit_image": pick_member(world, "digit", digit, _uniform((n,), device, generator)),
        "position": _choose(_values(world, "position"), (n,), device, generator),
        "background": background,
        "background_image": pick_member(
            world, "background", background, _uniform((n,), device, generator)
        ),
        "crop": _choose(room, (n, 2), device, generator),
    }
    return Scenes(world, **factors)


def draw_partner(scenes: Scenes, share: str, generator: torch.Generator | None = None) -> Scenes:
    """Scenes that have the named factors in common with `scenes`, all others being drawn anew.

    Args:
        scenes: `[B]` scenes.
        share: factors joined by `-`, for example `digit-position`; see `parse_factors` for the names.
    """
    keep = parse_factors(share)
    new = draw_scenes(scenes.world, len(scenes), generator)
    parts = new.tensors()
    for name, modulus in keep.items():
        parts.update({part: getattr(scenes, part) for part in _PARTS[name]})
        if modulus:  # the residue is kept, the class is drawn anew among those that have it
            parts.update(_same_residue(scenes, name, modulus, generator))
    # A class that is shared at class level needs an image of that class: the one drawn above belongs to another.
    for name in ("digit", "background"):
        if name in keep:
            uniform = _uniform((len(scenes),), parts[name].device, generator)
            parts[f"{name}_image"] = pick_member(scenes.world, name, parts[name], uniform)
    return Scenes(scenes.world, **parts)


_PARTS = {
    "digit": ("digit",),
    "digit_image": ("digit", "digit_image"),
    "position": ("position",),
    "background": ("background",),
    "background_image": ("background", "background_image"),
    "background_crop": ("background", "background_image", "crop"),
}


def parse_factors(share: str) -> dict[str, int]:
    """Read a list of shared factors: `digit-position` -> {"digit": 0, "position": 0}; `digit%5` -> {"digit": 5}.

    Names: `digit` and `background` (the class), `digit_image` and `background_image` (the very picture), `background_crop`
    (its very pixels), `position`; `NAME%m` shares the class or position modulo m only; `nothing` and `all` are the two ends.

    >>> parse_factors("digit%5-position")
    {'digit': 5, 'position': 0}
    """
    keep: dict[str, int] = {}
    for part in {"nothing": [], "all": ALL.split("-")}.get(share, share.split("-")):
        name, percent, modulus = part.partition("%")
        check_choice(
            name,
            FACTORS,
            f"shared factor in {share!r} (join them by '-', or write 'nothing' or 'all')",
        )
        if percent and (
            name not in ("digit", "position", "background")
            or not modulus.isdecimal()
            or int(modulus) < 2
        ):
            raise ValueError(
                f"shared factor {part!r}: got modulus {modulus!r}, wanted digit, position or background % a whole number from 2"
            )
        if any(_PARTS[name][0] == _PARTS[other][0] for other in keep):
            raise ValueError(
                f"shared factors {share!r}: {name!r} names a factor twice; keep the finer one"
            )
        keep[name] = int(modulus or 0)
    return keep


def shared_nats(scenes: Scenes, share: str) -> float:
    """The mutual information of a scene and its `draw_partner`, in nats: the entropy of what they share.

    Exact for the factors. It bounds the information between the images from above, and equals it as far as the factors can be
    read from the pixels (handwriting is now and then ambiguous, and so are two crops of plain sky).

    >>> ink, ground = torch.zeros(10, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    >>> world = World(ink, torch.arange(10), ground, torch.tensor([0, 1]))
    >>> round(shared_nats(draw_scenes(world, 1), "digit"), 4), round(shared_nats(draw_scenes(world, 1), "digit%2"), 4), shared_nats(draw_scenes(world, 1), "nothing")
    (2.3026, 0.6931, 0.0)
    """
    return math.fsum(nats_per_factor(scenes.world, share).values())


def nats_per_factor(world: World, share: str) -> dict[str, float]:
    """What a scene and its `draw_partner` share about each of the named factors, in nats; factors are independent.

    >>> ink, ground = torch.zeros(10, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    >>> world = World(ink, torch.arange(10), ground, torch.tensor([0, 1]))
    >>> {name: round(found, 4) for name, found in nats_per_factor(world, "digit-background_crop").items()}  # log 10, log (2 * 9 * 9)
    {'digit': 2.3026, 'background_crop': 5.0876}
    """
    room, found = math.prod(side - world.size + 1 for side in world.backgrounds.shape[2:]), {}
    for name, modulus in parse_factors(share).items():
        factor = _PARTS[name][0]
        values = _values(world, factor)
        counts = torch.arange(values, device="cpu").remainder(modulus or values).bincount().double()
        found[name] = float(-(counts / values * (counts / values).log()).sum())
        if name.endswith(("_image", "_crop")) and factor in world.counts:
            found[name] += float(
                torch.tensor(world.counts[factor], dtype=torch.float64, device="cpu").log().mean()
            )
        if name.endswith("_crop"):
            found[name] += math.log(room)
    return found


def render_scenes(scenes: Scenes) -> Tensor:
    """Draw scenes: `[B]` scenes -> float32 `[B, 3, size, size]` in [0, 1]; white ink over a dimmed crop of the background."""
    world, size = scenes.world, scenes.world.size
    room = to_device(
        torch.tensor([size - side for side in world.digits.shape[1:]], device="cpu"),
        world.digits.device,
    )
    ink = cut_windows(world.sheets, scenes.digit_image, room - corners(scenes), size, size)
    ground = cut_windows(world.backgrounds, scenes.background_image, scenes.crop, size, size)
    alpha = ink.float().div_(
        255
    )  # bytes become floats first: arithmetic of mixed dtypes is slow on a CPU
    return ground.float().mul_(world.dim / 255).mul_(1 - alpha).add_(alpha)


def corners(scenes: Scenes) -> Tensor:
    """The digit's top-left pixel (y, x), long `[B, 2]`: the grid's cells, spread over all places where the digit is whole."""
    world = scenes.world
    cell = (scenes.position // world.cells, scenes.position % world.cells)
    room = (world.size - side for side in world.digits.shape[1:])
    return torch.stack(
        [c * r // max(1, world.cells - 1) for c, r in zip(cell, room, strict=True)], 1
    )


def _values(world: World, factor: str) -> int:
    """How many values `digit`, `background` or `position` can have."""
    return world.cells**2 if factor == "position" else len(world.counts[factor])


def _choose(
    counts: Tensor | int,
    size: tuple[int, ...],
    device: torch.device,
    generator: torch.Generator | None,
) -> Tensor:
    """Whole numbers uniform in 0..count-1."""
    return (_uniform(size, device, generator) * counts).long()


def _uniform(
    size: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Numbers in [0, 1), drawn on the CPU; float64, so that no value of a small count is favoured."""
    return to_device(
        torch.rand(size, dtype=torch.float64, device="cpu", generator=generator), device
    )


def pick_member(world: World, name: str, classes: Tensor, uniform: Tensor) -> Tensor:
    """Rows of a bank, `digit` or `background`: those that numbers in [0, 1) pick among the rows of each class; long."""
    rows, start, count = world.members[name]
    return rows[start[classes] + (uniform * count[classes]).long()]


def _same_residue(
    scenes: Scenes, name: str, modulus: int, generator: torch.Generator | None
) -> dict[str, Tensor]:
    world = scenes.world
    residue = getattr(scenes, name) % modulus
    choices = (
        _values(world, name) - residue + modulus - 1
    ) // modulus  # how many of 0..values-1 have this residue
    return {name: residue + modulus * _choose(choices, residue.shape, residue.device, generator)}
