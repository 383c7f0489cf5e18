"""Data sets: what views are made from, and what probes ask for. Train and test share no digit and no pixel of a photograph."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.checks import check_choice
from ..common.seeds import seeded_generator
from .bundled import bundled_worlds
from .digests import clip_sources, data_digest
from .image_folder import ImageFiles, load_folder
from .moving_mnist import LATER, Clips, draw_clips, positions, render_clips
from .scenes import Scenes, World, draw_scenes, render_scenes
from .sources import check_sources
from .sources import load_worlds as banks
from .stl10_cifar10 import Parts, cifar10, data_root, stl10

TRAIN, TEST = 8192, 4096  # images of an embedded set
MOST_BYTES = 2**28  # bytes that a part of the photos may take


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    Args:
        labels: task -> `[N]`; long for classes, -1 where they are unknown.
        scenes: the factors behind the images, where they are known; images of clips are their frames at `moving_mnist.LATER`.
        pixels: uint8 `[N, 3, H, W]`, or files; rendered from the scenes when they are first asked for if not given.
        unlabelled: how many images, the last ones, have no known labels.
    """

    labels: dict[str, Tensor]
    scenes: Scenes | Clips | None = None
    pixels: Tensor | ImageFiles | None = None
    unlabelled: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))

    @property
    def labelled(self) -> int:
        """How many images have labels; they come first."""
        return len(self) - self.unlabelled

    @cached_property
    def images(self) -> Any:
        """uint8 `[N, 3, H, W]`, or files that are indexed like it."""
        if self.pixels is not None:
            return self.pixels
        assert self.scenes is not None
        if isinstance(self.scenes, Clips):
            return render_clips(self.scenes, [LATER], dtype=torch.uint8)[:, 0]
        step = min(
            1024, 2**22 // self.scenes.world.size**2
        )  # images are floats while they are rendered
        starts = range(0, len(self), step)
        return torch.cat(
            [
                (render_scenes(self.scenes[i : i + step]) * 255).round().to(torch.uint8)
                for i in starts
            ]
        )


def load(name: str, size: int = 32) -> tuple[Split, Split]:
    """The training and test parts of a data set.

    Args:
        name: what the images are.
            `digits`: handwritten digits over photographs; tasks digit, background, position. 24 to 96 px.
            `photos`: patches of those photographs; task background: which of the ten. 24 to 256 px; above 96 px of larger pieces
            of the photographs, and as many as fill 256 MB a part: 5,461 and 4,096 at 128 px, 1,365 and 1,365 at 256 px.
            `clips`: those digits, moving over those photographs; tasks digit, background, place (px). 32 to 256 px.
            They come with scikit-learn and scikit-image: nothing is downloaded.
            `clips:DIGITS@BACKGROUNDS`: clips of other pictures, see `sources.load_worlds`.
            `stl10`: 5,000 labelled and 100,000 unlabelled images to train on, 8,000 to test. 8 to 96 px.
            `cifar10`: 50,000 and 10,000 images. 8 to 64 px.
            `folder:PATH`: image files, see `folder.parts`; read as they are needed. 8 to 1024 px.
            The last three have the task class. STL-10 and CIFAR-10 are looked for in `stored.root()`, and never downloaded.
        size: side of the images in pixels; those of stl10, cifar10 and folders are scaled to it.

    Raises:
        ValueError: an unknown name, a size out of range, a folder without images.
        FileNotFoundError: no such folder, or the files of STL-10 or CIFAR-10 are missing or damaged; the message says what to do.
    """
    check_data_name(name)
    least, most = SIZES.get(name.partition(":")[0], (8, 1024))
    if not least <= size <= most:
        raise ValueError(f"data {name!r}: got size {size}, wanted {least} to {most} px; change it")
    if name.startswith("clips:"):
        return _clips(size, *clip_sources(name), data_digest(name), data_root().absolute())
    if name.startswith("folder:"):
        train, test = (
            Split({"class": labels}, pixels=files)
            for files, labels in load_folder(name.removeprefix("folder:"), size)
        )
        return train, test
    return DATA[name](size)


def check_data_name(name: str, what: str = "data") -> None:
    """Raise a ValueError unless `name` is that of a data set, `clips:DIGITS@BACKGROUNDS` or `folder:PATH`."""
    if name.startswith("clips:"):
        if not all(both := clip_sources(name)):
            raise ValueError(
                f"{what}: got {name!r}, wanted clips:DIGITS@BACKGROUNDS, for example clips:mnist@photos; write both"
            )
        check_sources(*both)
    if not name.startswith(("folder:", "clips:")) or name == "folder:":
        check_choice(name, [*DATA, "clips:DIGITS@BACKGROUNDS", "folder:PATH"], what)


def tasks(name: str) -> tuple[str, ...]:
    """What the labels of a data set are of, before it is loaded.

    >>> tasks("photos"), tasks("folder:pictures")
    (('background',), ('class',))
    """
    return TASKS.get(name.partition(":")[0], ("class",))


@lru_cache(maxsize=4)
def _digit_scenes(size: int) -> tuple[Split, Split]:
    def split(world: World, n: int, part: str) -> Split:
        scenes = draw_scenes(world, n, seeded_generator(0, "digits", part))
        return Split(
            {"digit": scenes.digit, "background": scenes.background, "position": scenes.position},
            scenes,
        )

    train, test = bundled_worlds(size)
    return split(train, TRAIN, "train"), split(test, TEST, "test")


@lru_cache(maxsize=2)
def _photo_patches(size: int) -> tuple[Split, Split]:
    most = MOST_BYTES // (3 * size**2)

    def split(world: World, n: int, part: str) -> Split:
        # the same scenes with no ink: one blank digit a class is enough
        bare = replace(
            world, digits=torch.zeros_like(world.digits[:10]), digit_class=torch.arange(10), dim=1.0
        )
        scenes = draw_scenes(bare, min(n, most), seeded_generator(0, "photos", part))
        return Split(
            {"background": scenes.background},
            pixels=Split({"background": scenes.background}, scenes).images,
        )

    train, test = bundled_worlds(size)
    return split(train, TRAIN, "train"), split(test, TEST, "test")


@lru_cache(
    maxsize=2
)  # `told` and `where` are parts of this cache's key alone: other files of the same names are read again
def _clips(
    size: int,
    digits: str = "digits",
    backgrounds: str = "photos",
    told: str = "",
    where: Path | None = None,
) -> tuple[Split, Split]:
    def split(world: World, n: int, seed: int) -> Split:
        clips = draw_clips(world, n, seed)
        corner = positions(clips, [LATER])[:, 0, 0]
        place = (
            corner + torch.tensor(world.digits.shape[1:]) / 2
        ).float()  # the digit's middle, (y, x) in pixels
        return Split(
            {"digit": clips.digit[:, 0], "background": clips.background, "place": place}, clips
        )

    train, test = banks(digits, backgrounds, size, digit=size * 28 // 64)
    return split(train, TRAIN, 0), split(test, TEST, 1)


def _stored(read: Callable[[Path, int], Parts]) -> Callable[[int], tuple[Split, Split]]:
    def sets(size: int) -> tuple[Split, Split]:
        train, test = (
            Split({"class": labels}, pixels=images, unlabelled=int((labels < 0).sum()))
            for images, labels in read(data_root(), size)
        )
        return train, test

    return sets


DATA: dict[str, Callable[[int], tuple[Split, Split]]] = {
    "digits": _digit_scenes,
    "photos": _photo_patches,
    "clips": _clips,
    "stl10": _stored(stl10),
    "cifar10": _stored(cifar10),
}
TASKS = {
    "digits": ("digit", "background", "position"),
    "photos": ("background",),
    "clips": ("digit", "background", "place"),
}
SIZES = {
    "digits": (24, 96),
    "photos": (24, 256),
    "clips": (32, 256),
    "stl10": (8, 96),
    "cifar10": (8, 64),
}  # least and most px
