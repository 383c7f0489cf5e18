"""What scenes are made of without a download: scikit-learn's handwritten digits and scikit-image's photographs."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.seeds import seeded_generator
from .image_io import resize
from .scenes import World

DIGIT = 20  # side of a drawn digit in pixels, of a canvas of 32


@lru_cache(maxsize=2)
def bundled_worlds(size: int = 32) -> tuple[World, World]:
    """The worlds that embedded scenes are drawn from, for training and testing: 1,797 digits, ten photographs cut into tiles.

    A tile is twice the canvas wide; every third tile, along diagonals, belongs to the test, so both see all of each photograph.
    Above 96 px a tile is a half instead of a quarter of the photograph's short side: there would be nothing left to see.
    """
    digits, classes = _digits(round(size * DIGIT / 32))
    tiles, photo, is_test = _tiles(2 * size, 4 if size <= 96 else 2)
    late = torch.arange(len(digits)) >= 1200
    parts = [
        (digits[part], classes[part], tiles[is_test == test], photo[is_test == test])
        for test, part in ((False, ~late), (True, late))
    ]
    return World(*parts[0], size=size), World(*parts[1], size=size)


def _digits(side: int) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    mix = torch.randperm(
        len(raw.target), generator=seeded_generator(0, "digits")
    )  # the set is ordered by writer
    ink = F.interpolate(
        torch.tensor(raw.images)[:, None] / 16,
        size=(side, side),
        mode="bicubic",
        align_corners=False,
    )[:, 0]
    return (ink.clamp(0, 1) * 255).round().to(torch.uint8)[mix], torch.tensor(raw.target)[mix]


def _photographs() -> list[Tensor]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    names = (
        "astronaut",
        "chelsea",
        "coffee",
        "rocket",
        "hubble_deep_field",
        "immunohistochemistry",
        "retina",
    )
    found = [getattr(data, name)() for name in names] + [
        data.stereo_motorcycle()[0],
        *load_sample_images().images,
    ]
    return [torch.tensor(photo)[..., :3].permute(2, 0, 1) for photo in found]


def _tiles(side: int, across: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Photographs, so many tiles to their short side, as (tiles uint8 [M, 3, side, side], photograph [M], is_test [M])."""
    tiles, photo, is_test = [], [], []
    for i, image in enumerate(_photographs()):
        cell = min(image.shape[1:]) // across
        cells = image.unfold(1, cell, cell).unfold(2, cell, cell).permute(1, 2, 0, 3, 4)
        rows, columns = cells.shape[:2]
        tiles.append(resize(cells.flatten(0, 1), side))  # cut first, so that scaling mixes no two
        photo += [i] * (rows * columns)
        is_test += [(r + c) % 3 == 2 for r in range(rows) for c in range(columns)]
    return torch.cat(tiles), torch.tensor(photo), torch.tensor(is_test)
