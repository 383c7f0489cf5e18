"""Data sets: what views are made from, and what probes ask for. Train and test share no digit and no pixel of a photograph."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .check import known
from .moving_mnist import Scenes, World, draw, render
from .seeds import generator

TRAIN, TEST = 8192, 4096  # images of an embedded set
DIGIT = 20  # side of a drawn digit in pixels, of a canvas of 32


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Args:
        labels: task -> `[N]`; long for classes.
        scenes: the factors behind the images, where they are known.
        pixels: uint8 `[N, 3, H, W]`; rendered from the scenes when they are first asked for if not given.
    """

    labels: dict[str, Tensor]
    scenes: Scenes | None = None
    pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))

    @cached_property
    def images(self) -> Tensor:
        """uint8 `[N, 3, H, W]`."""
        if self.pixels is not None:
            return self.pixels
        assert self.scenes is not None
        starts = range(0, len(self), 1024)
        return torch.cat([(render(self.scenes[i : i + 1024]) * 255).round().to(torch.uint8) for i in starts])


def load(name: str, size: int = 32) -> tuple[Split, Split]:
    """The training and test parts of a data set.

    Args:
        name: `digits` (handwritten digits over photographs; tasks digit, background, position) or `photos` (patches of the
            photographs; task background: which of the ten). Both come with scikit-learn and scikit-image: nothing is downloaded.
        size: side of the images in pixels, 24 to 96.
    """
    known(name, DATA, "data")
    if not 24 <= size <= 96:
        raise ValueError(f"data {name!r}: got size {size}, wanted 24 to 96 px; change it")
    return DATA[name](size)


def order(n: int, batch: int, step: int, *, seed: int, rank: int = 0, world: int = 1) -> Tensor:
    """Rows of a set of `n` that make up a batch: a new permutation each epoch, a pure function of its arguments.

    Returns:
        long `[batch // world]`; over ranks the parts are disjoint and make up the batch of one process.
    """
    if not 2 <= batch <= n:
        raise ValueError(
            f"batch: got {batch}, wanted 2 to {n} (InfoNCE contrasts each image with the others of its batch); change it"
        )
    epoch, i = divmod(step, n // batch)
    return _permutation(n, seed, epoch)[i * batch : (i + 1) * batch][rank::world].clone()  # the permutation is kept


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed, "order", epoch))


@lru_cache(maxsize=2)
def worlds(size: int = 32) -> tuple[World, World]:
    """The worlds that embedded scenes are drawn from, for training and testing: 1,797 digits, ten photographs cut into tiles.

    A tile is twice the canvas wide; every third tile, along diagonals, belongs to the test, so both see all of each photograph.
    """
    digits, classes = _digits(round(size * DIGIT / 32))
    tiles, photo, is_test = _tiles(2 * size)
    late = torch.arange(len(digits)) >= 1200
    parts = [
        (digits[part], classes[part], tiles[is_test == test], photo[is_test == test])
        for test, part in ((False, ~late), (True, late))
    ]
    return World(*parts[0], size=size), World(*parts[1], size=size)


def _digits(side: int) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    mix = torch.randperm(len(raw.target), generator=generator(0, "digits"))  # the set is ordered by writer
    ink = F.interpolate(torch.tensor(raw.images)[:, None] / 16, size=(side, side), mode="bicubic", align_corners=False)[:, 0]
    return (ink.clamp(0, 1) * 255).round().to(torch.uint8)[mix], torch.tensor(raw.target)[mix]


def _photographs() -> list[Tensor]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "immunohistochemistry", "retina")
    found = [getattr(data, name)() for name in names] + [data.stereo_motorcycle()[0], *load_sample_images().images]
    return [torch.tensor(photo)[..., :3].permute(2, 0, 1) for photo in found]


def _tiles(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Photographs, four tiles to their short side, as (tiles uint8 [M, 3, side, side], photograph [M], is_test [M])."""
    tiles, photo, is_test = [], [], []
    for i, image in enumerate(_photographs()):
        cell = min(image.shape[1:]) // 4
        cells = (
            image.unfold(1, cell, cell).unfold(2, cell, cell).permute(1, 2, 0, 3, 4)
        )  # cut first, so that scaling mixes no two
        rows, columns = cells.shape[:2]
        small = F.interpolate(
            cells.flatten(0, 1).float(), size=(side, side), mode="bilinear", antialias=True, align_corners=False
        )
        tiles.append(small.round().to(torch.uint8))
        photo += [i] * (rows * columns)
        is_test += [(r + c) % 3 == 2 for r in range(rows) for c in range(columns)]
    return torch.cat(tiles), torch.tensor(photo), torch.tensor(is_test)


@lru_cache(maxsize=4)
def _digit_scenes(size: int) -> tuple[Split, Split]:
    def split(world: World, n: int, part: str) -> Split:
        scenes = draw(world, n, generator(0, "digits", part))
        return Split({"digit": scenes.digit, "background": scenes.background, "position": scenes.position}, scenes)

    train, test = worlds(size)
    return split(train, TRAIN, "train"), split(test, TEST, "test")


@lru_cache(maxsize=4)
def _photo_patches(size: int) -> tuple[Split, Split]:
    def split(world: World, n: int, part: str) -> Split:
        bare = replace(world, digits=torch.zeros_like(world.digits), dim=1.0)  # the same scenes with no ink
        scenes = draw(bare, n, generator(0, "photos", part))
        return Split({"background": scenes.background}, pixels=Split({"background": scenes.background}, scenes).images)

    train, test = worlds(size)
    return split(train, TRAIN, "train"), split(test, TEST, "test")


DATA: dict[str, Callable[[int], tuple[Split, Split]]] = {"digits": _digit_scenes, "photos": _photo_patches}
