"""What scenes and clips are drawn from: digits, backgrounds and a canvas."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class World:
    """What scenes are drawn from: a bank of digits, a bank of backgrounds, and a canvas.

    Args:
        digits: uint8 `[N, h, w]`, the ink of each digit, 0 (none) to 255 (full).
        digit_class: long `[N]`, numbered from 0 without gaps.
        backgrounds: uint8 `[M, 3, H, W]`, H and W at least `size`.
        background_class: long `[M]`, numbered from 0 without gaps.
        size: side of the square canvas in pixels.
        cells: a digit has one of `cells**2` positions on a regular grid.
        dim: brightness of the background, 0..1; below 1, white ink stands out on any photograph.
    """

    digits: Tensor
    digit_class: Tensor
    backgrounds: Tensor
    background_class: Tensor
    size: int = 32
    cells: int = 3
    dim: float = 0.5

    def __repr__(self) -> str:  # shapes only: the pictures would fill pages
        banks = f"digits={list(self.digits.shape)}, backgrounds={list(self.backgrounds.shape)}"
        return f"World({banks}, size={self.size}, cells={self.cells}, dim={self.dim})"

    @cached_property
    def padded_digits(self) -> Tensor:
        """The digits with margins, so that a canvas can be cut with the digit at any position.

        uint8 `[N, 1, 2 * size - h, 2 * size - w]`.
        """
        height, width = self.digits.shape[1:]
        vertical, horizontal = self.size - height, self.size - width
        return F.pad(self.digits, (horizontal, horizontal, vertical, vertical))[:, None]

    @cached_property
    def members(self) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """The rows of each bank by class.

        For `digit` and `background`: the rows sorted by class, and where each class starts among
        them and how many it has.
        """
        members = {}
        for name, classes in (("digit", self.digit_class), ("background", self.background_class)):
            count = classes.bincount()
            members[name] = (classes.argsort(stable=True), count.cumsum(0) - count, count)
        return members

    @cached_property
    def counts(self) -> dict[str, list[int]]:
        """For `digit` and `background`: how many pictures each class has."""
        return {name: count.tolist() for name, (_, _, count) in self.members.items()}

    def check(self) -> None:
        """Check that scenes can be drawn from this world.

        Raises:
            ValueError: a bank of another shape or dtype, a class without pictures, a brightness out
                of range, or a canvas that does not hold the digits or exceeds the backgrounds.
        """
        _check_bank("digits", self.digits, self.digit_class, "[N, h, w]")
        _check_bank("backgrounds", self.backgrounds, self.background_class, "[N, 3, H, W]")
        if not 0 <= self.dim <= 1:
            raise ValueError(f"World(dim): got a brightness of {self.dim}, wanted 0 to 1")
        for name, count in self.counts.items():
            if not count or 0 in count:
                raise ValueError(
                    f"World({name}_class): got {count} {name}s in classes 0, 1, …, wanted at least "
                    "one in each; add pictures, or number the classes without gaps"
                )
        least, most = max(self.digits.shape[1:]), min(self.backgrounds.shape[2:])
        if not least <= self.size <= most:
            raise ValueError(
                f"World(size): got a canvas of {self.size} px, wanted {least} (the digits) to "
                f"{most} px (the backgrounds)"
            )

    def banks(self) -> dict[str, Tensor]:
        """The pictures and their classes by name."""
        return {
            "digits": self.digits,
            "digit_class": self.digit_class,
            "backgrounds": self.backgrounds,
            "background_class": self.background_class,
        }

    def to(self, device: torch.device | str) -> "World":
        """The same world on a device."""
        moved: dict[str, Any] = {name: bank.to(device) for name, bank in self.banks().items()}
        return replace(self, **moved)

    def clone(self) -> "World":
        """The same world in memory of its own."""
        copied: dict[str, Any] = {name: bank.clone() for name, bank in self.banks().items()}
        return replace(self, **copied)


def _check_bank(name: str, bank: Tensor, classes: Tensor, shape: str) -> None:
    good = bank.dtype == torch.uint8 and len(bank) == len(classes)
    good = good and bank.dim() == 1 + shape.count(",")
    if not good or ("3" in shape and bank.shape[1] != 3):
        raise ValueError(
            f"World({name}): got {bank.dtype} {list(bank.shape)} and {len(classes)} classes, "
            f"wanted uint8 {shape} and N classes; convert them"
        )
