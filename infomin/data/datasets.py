"""Data sets: what views are made from, and the labels that probes predict.

The bundled training and test sets share no digit and no pixel of a photograph.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..common.checks import check_choice
from ..common.seeds import seeded_generator
from .bundled import bundled_worlds
from .digests import clip_sources, data_digest
from .image_files import ImageFiles
from .image_folder import load_folder
from .moving_mnist import LATER, Clips, draw_clips, positions, render_clips
from .scenes import Scenes, draw_scenes, render_scenes
from .sources import check_sources, load_worlds
from .stl10_cifar10 import Parts, cifar10, data_root, stl10
from .worlds import World

TRAIN, TEST = 8192, 4096  # scenes in the training and test parts of a bundled set
MOST_BYTES = 2**28  # the most that a part of `photos` may take


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set: training or test.

    Args:
        labels: task -> `[N]`; long for classes, -1 if unknown.
        scenes: the factors behind the images, if they are known. The image of a clip is its frame
            at time `moving_mnist.LATER`.
        pixels: uint8 `[N, 3, H, W]`, image files, or a function that makes pixels on first use;
            None renders the scenes.
        unlabelled: how many images have no labels; they come last.
    """

    labels: dict[str, Tensor]
    scenes: Scenes | Clips | None = None
    pixels: Tensor | ImageFiles | Callable[[], Tensor] | None = None
    unlabelled: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))

    @property
    def labelled(self) -> int:
        """How many images have labels; they come first."""
        return len(self) - self.unlabelled

    @cached_property
    def images(self) -> Tensor | ImageFiles:
        """uint8 `[N, 3, H, W]`, or image files that are indexed like it."""
        if callable(self.pixels):
            return self.pixels()
        if self.pixels is not None:
            return self.pixels
        assert self.scenes is not None
        if isinstance(self.scenes, Clips):
            return render_clips(self.scenes, [LATER], dtype=torch.uint8)[:, 0]
        # In chunks: images are floats while they are rendered.
        step = min(1024, 2**22 // self.scenes.world.size**2)
        chunks = []
        for start in range(0, len(self), step):
            rendered = render_scenes(self.scenes[start : start + step])
            chunks.append((rendered * 255).round().to(torch.uint8))
        return torch.cat(chunks)

    def clone(self) -> "Split":
        """The same part in memory of its own; images are rendered once for all clones."""

        def pixels() -> Tensor:
            assert isinstance(self.images, Tensor)
            return self.images.clone()

        labels = {task: values.clone() for task, values in self.labels.items()}
        return replace(
            self, labels=labels, scenes=self.scenes and self.scenes.clone(), pixels=pixels
        )


def load(name: str, size: int = 32) -> tuple[Split, Split]:
    """Load the training and test parts of a data set, in memory of their own.

    Args:
        name: the data set. The first three come with scikit-learn and scikit-image; none is ever
            downloaded.
            `digits`: handwritten digits over photographs, 24 to 96 px; tasks digit, background,
            position.
            `photos`: patches of ten photographs, 24 to 256 px; task background, which of the ten.
            Above 96 px the patches are larger pieces of the photographs, and as many as fit into
            256 MB a part: 5,461 and 4,096 at 128 px, 1,365 and 1,365 at 256 px.
            `clips`: those digits moving over those photographs, 32 to 256 px; tasks digit,
            background, place (px).
            `clips:DIGITS@BACKGROUNDS`: clips of other pictures, see `sources.load_worlds`.
            `stl10`: 5,000 labelled and 100,000 unlabelled training images, 8,000 test images, 8 to
            96 px; task class. Read from `data_root()`, as is `cifar10`.
            `cifar10`: 50,000 and 10,000 images, 8 to 64 px; task class.
            `folder:PATH`: image files, see `image_folder.load_folder`, read when needed, 8 to
            1024 px; task class.
        size: side of the images in pixels; stl10, cifar10 and folders are scaled to it.

    Raises:
        ValueError: an unknown name, a size out of range, a folder without images.
        FileNotFoundError: no such folder, or files of STL-10 or CIFAR-10 are missing or damaged.
    """
    check_data_name(name)
    least, most = SIZES.get(name.partition(":")[0], (8, 1024))
    if not least <= size <= most:
        raise ValueError(f"data {name!r}: got size {size}, wanted {least} to {most} px")
    if name.startswith("clips:"):
        digits, backgrounds = clip_sources(name)
        return _copies(_clips)(size, digits, backgrounds, data_digest(name), data_root().absolute())
    if name.startswith("folder:"):
        train, test = load_folder(name.removeprefix("folder:"), size)
        return _file_split(*train), _file_split(*test)
    return DATA[name](size)


def check_data_name(name: str, what: str = "data") -> None:
    """Check that a data set of this name can be loaded; PATH in it may be anything.

    Args:
        name: as for `load`.
        what: what error messages call it.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name.startswith("clips:"):
        digits, backgrounds = clip_sources(name)
        if not digits or not backgrounds:
            raise ValueError(
                f"{what}: got {name!r}, wanted clips:DIGITS@BACKGROUNDS, for example "
                "clips:mnist@photos"
            )
        check_sources(digits, backgrounds)
    elif not name.startswith("folder:") or name == "folder:":
        check_choice(name, [*DATA, "clips:DIGITS@BACKGROUNDS", "folder:PATH"], what)


def tasks(name: str) -> tuple[str, ...]:
    """The tasks that a data set has labels for, known without loading it.

    >>> tasks("photos"), tasks("folder:pictures")
    (('background',), ('class',))
    """
    return TASKS.get(name.partition(":")[0], ("class",))


def _file_split(files: ImageFiles, labels: Tensor) -> Split:
    return Split({"class": labels}, pixels=files)


@lru_cache(maxsize=4)
def _digit_scenes(size: int) -> tuple[Split, Split]:
    def split(world: World, n: int, part: str) -> Split:
        scenes = draw_scenes(world, n, seeded_generator(0, "digits", part))
        labels = {
            "digit": scenes.digit,
            "background": scenes.background,
            "position": scenes.position,
        }
        return Split(labels, scenes)

    train, test = bundled_worlds(size)
    return split(train, TRAIN, "train"), split(test, TEST, "test")


@lru_cache(maxsize=2)
def _photo_patches(size: int) -> tuple[Split, Split]:
    most = MOST_BYTES // (3 * size**2)

    def split(world: World, n: int, part: str) -> Split:
        # Scenes without ink: one blank digit a class is enough.
        blank = torch.zeros_like(world.digits[:10])
        bare = replace(world, digits=blank, digit_class=torch.arange(10), dim=1.0)
        scenes = draw_scenes(bare, min(n, most), seeded_generator(0, "photos", part))
        labels = {"background": scenes.background}
        return Split(labels, pixels=Split(labels, scenes).images)

    train, test = bundled_worlds(size)
    return split(train, TRAIN, "train"), split(test, TEST, "test")


# `digest` and `root` only enter the key of the cache, so that changed files are read again.
@lru_cache(maxsize=2)
def _clips(
    size: int,
    digits: str = "digits",
    backgrounds: str = "photos",
    digest: str = "",
    root: Path | None = None,
) -> tuple[Split, Split]:
    def split(world: World, n: int, seed: int) -> Split:
        clips = draw_clips(world, n, seed)
        corner = positions(clips, [LATER])[:, 0, 0]
        centre = corner + torch.tensor(world.digits.shape[1:]) / 2  # (y, x) in pixels
        labels = {
            "digit": clips.digit[:, 0],
            "background": clips.background,
            "place": centre.float(),
        }
        return Split(labels, clips)

    train, test = load_worlds(digits, backgrounds, size, digit=size * 28 // 64)
    return split(train, TRAIN, 0), split(test, TEST, 1)


def _copies(
    make: Callable[..., tuple[Split, Split]],
) -> Callable[..., tuple[Split, Split]]:
    """A function that returns copies of what `make`, which is cached, returns."""

    def load_splits(*key: object) -> tuple[Split, Split]:
        train, test = make(*key)
        return train.clone(), test.clone()

    return load_splits


def _on_disk(read: Callable[[Path, int], Parts]) -> Callable[[int], tuple[Split, Split]]:
    """A function size -> splits from one that reads a folder of downloaded data."""

    def split(images: Tensor, labels: Tensor) -> Split:
        return Split({"class": labels}, pixels=images, unlabelled=int((labels < 0).sum()))

    def load_splits(size: int) -> tuple[Split, Split]:
        train, test = read(data_root(), size)
        return split(*train), split(*test)

    return load_splits


DATA: dict[str, Callable[[int], tuple[Split, Split]]] = {
    "digits": _copies(_digit_scenes),
    "photos": _copies(_photo_patches),
    "clips": _copies(_clips),
    "stl10": _on_disk(stl10),
    "cifar10": _on_disk(cifar10),
}
TASKS = {
    "digits": ("digit", "background", "position"),
    "photos": ("background",),
    "clips": ("digit", "background", "place"),
}
# The smallest and largest side in pixels.
SIZES = {
    "digits": (24, 96),
    "photos": (24, 256),
    "clips": (32, 256),
    "stl10": (8, 96),
    "cifar10": (8, 64),
}
