"""Pictures for scenes that need no download: scikit-learn's digits, scikit-image's photographs."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.seeds import seeded_generator
from .image_io import resize
from .worlds import World

DIGIT = 20  # side of a digit in pixels on a canvas of 32
_TRAIN_DIGITS = 1200  # of 1,797


def bundled_worlds(size: int = 32) -> tuple[World, World]:
    """The training and test worlds: 1,797 handwritten digits, and ten photographs cut into tiles.

    A tile is twice as wide as the canvas. Every third tile, along diagonals, belongs to the test,
    so both parts cover all of each photograph. A tile is a quarter of the photograph's short side;
    above 96 px it is a half, because an enlarged quarter would show too little detail.

    The last two results are cached; each call returns copies.

    Args:
        size: side of the canvas in pixels.
    """
    train, test = _made_worlds(size)
    return train.clone(), test.clone()


@lru_cache(maxsize=2)
def _made_worlds(size: int) -> tuple[World, World]:
    digits, classes = _digits(round(size * DIGIT / 32))
    tiles, photo, in_test = _tiles(2 * size, 4 if size <= 96 else 2)
    late = torch.arange(len(digits)) >= _TRAIN_DIGITS
    train = World(digits[~late], classes[~late], tiles[~in_test], photo[~in_test], size=size)
    test = World(digits[late], classes[late], tiles[in_test], photo[in_test], size=size)
    return train, test


def _digits(side: int) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    # Shuffled, because the set is ordered by writer.
    order = torch.randperm(len(raw.target), generator=seeded_generator(0, "digits"))
    ink = torch.tensor(raw.images)[:, None] / 16
    ink = F.interpolate(ink, size=(side, side), mode="bicubic", align_corners=False)[:, 0]
    ink_bytes = (ink.clamp(0, 1) * 255).round().to(torch.uint8)
    return ink_bytes[order], torch.tensor(raw.target)[order]


def _photographs() -> list[Tensor]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    photos = [
        data.astronaut(),
        data.chelsea(),
        data.coffee(),
        data.rocket(),
        data.hubble_deep_field(),
        data.immunohistochemistry(),
        data.retina(),
        data.stereo_motorcycle()[0],
        *load_sample_images().images,
    ]
    return [torch.tensor(photo)[..., :3].permute(2, 0, 1) for photo in photos]


def _tiles(side: int, across: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the photographs into tiles, `across` of them along the short side.

    Returns:
        tiles uint8 `[M, 3, side, side]`; the number of each one's photograph, long `[M]`; whether
        it belongs to the test, bool `[M]`.
    """
    tiles, photo, in_test = [], [], []
    for number, image in enumerate(_photographs()):
        cell = min(image.shape[1:]) // across
        cells = image.unfold(1, cell, cell).unfold(2, cell, cell).permute(1, 2, 0, 3, 4)
        rows, columns = cells.shape[:2]
        tiles.append(resize(cells.flatten(0, 1), side))  # cut first: scaling must not mix two tiles
        photo += [number] * (rows * columns)
        in_test += [(row + column) % 3 == 2 for row in range(rows) for column in range(columns)]
    return torch.cat(tiles), torch.tensor(photo), torch.tensor(in_test)
