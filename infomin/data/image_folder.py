"""Folders of image files, read as they are needed: any number, any size and kind, and memory that stays flat.

Files are decoded by threads, a few batches ahead. PIL lets go of the interpreter's lock while it decodes and scales, so threads
read as many images a second as processes do; those of a DataLoader would need shared memory, and start in each worker of a sweep.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from ..common.seeds import seeded_generator, to_device
from .image_io import Bytes, read_square

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
AHEAD = 2  # batches that are read in advance
ENDS = ("test", "val")
PART_NAMES = {
    "train",
    "training",
    "testing",
    "valid",
    "validation",
    *ENDS,
}  # however written, names that a class hardly has
_named: set[str] = set()  # unreadable files that this process has spoken of

Reading: TypeAlias = tuple[Tensor, list[Future[int]]]


class ImageFiles:
    """Image files in place of a tensor `[N, 3, size, size]`: a slice or an index reads what it names.

    A file that cannot be read is named in a warning, once a process, and the next one that can stands in for it: `take` says
    which. So an image is a function of its row, and a run that goes on sees what it would have seen.

    Args:
        paths: the files.
        size: side of the images in pixels.
        device: where the images are wanted.
    """

    def __init__(self, paths: Sequence[str], size: int, device: torch.device | str = "cpu") -> None:
        self.paths, self.size, self.device = paths, size, torch.device(device)
        self._unreadable: dict[int, str] = {}
        self._pool = ThreadPoolExecutor(
            torch.get_num_threads()
        )  # of a sweep's workers each has its share of the cores

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self.take(torch.arange(len(self))[index])[0]

    def to(self, device: torch.device | str) -> "ImageFiles":
        """The same files, their images wanted on a device."""
        return ImageFiles(self.paths, self.size, device)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images of rows, and the rows that they show.

        Args:
            rows: long `[B]`.

        Returns:
            uint8 `[B, 3, size, size]` and long `[B]`, on the device; the second differs from `rows` where a file is unreadable.

        Raises:
            ValueError: not one file can be read.
        """
        return self._end(self._begin(rows))

    def stream(
        self, rows: Callable[[int], Tensor], steps: int
    ) -> Callable[[int], tuple[Tensor, Tensor]]:
        """What `take` gives for the rows of a step, the steps after it being read in the background.

        Args:
            rows: step -> long `[B]`.
            steps: how many there will be; beyond, nothing is read in advance.
        """
        begun: dict[int, Reading] = {}

        def at(step: int) -> tuple[Tensor, Tensor]:
            near = range(step, max(step + 1, min(step + 1 + AHEAD, steps)))
            for other in begun.keys() - set(near):  # the caller went elsewhere
                for job in begun.pop(other)[1]:
                    job.cancel()
            for other in near:
                if other not in begun:
                    begun[other] = self._begin(rows(other))
            return self._end(begun.pop(step))

        return at

    def _begin(self, rows: Tensor) -> Reading:
        onto_gpu = self.device.type == "cuda"  # which fetches pinned memory by itself
        images = torch.empty(
            len(rows), 3, self.size, self.size, dtype=torch.uint8, device="cpu", pin_memory=onto_gpu
        )
        pairs = zip(images.numpy(), rows.tolist(), strict=True)
        return images, [self._pool.submit(self._fill, image, row) for image, row in pairs]

    def _end(self, reading: Reading) -> tuple[Tensor, Tensor]:
        images, jobs = reading
        shown = torch.tensor([job.result() for job in jobs], dtype=torch.long)
        for row, reason in list(
            self._unreadable.items()
        ):  # here, for a warning of another thread may be lost
            if self.paths[row] not in _named:
                _named.add(self.paths[row])
                warnings.warn(
                    f"{self.paths[row]}: cannot be read ({reason}); the next image takes its place",
                    stacklevel=2,
                )
        return to_device(images, self.device), to_device(shown, self.device)

    def _fill(self, image: Bytes, row: int) -> int:
        """Read a row, or the next one that can be read, into `image`; the row that it was."""
        for at in chain(range(row, len(self)), range(row)):
            if at in self._unreadable:
                continue
            try:
                image[:] = read_square(self.paths[at], self.size)
                return at
            except MemoryError:
                raise
            except (
                Exception
            ) as reason:  # on bytes that are no image decoders raise whatever they like
                self._unreadable[at] = " ".join(str(reason).split()) or type(reason).__name__
        raise ValueError(
            f"{self.paths[row]}: got no image that can be read among {len(self)} files; give others"
        )


def find_images(folder: str | os.PathLike[str], leave_out: Sequence[str] = ()) -> list[str]:
    """Image files in a folder and all below it, by their extension; sorted, so that every file system gives the same list.

    Names that begin with a dot are left out. A folder that links lead to more than once is listed once, so loops end.

    Args:
        folder: where to look.
        leave_out: real paths of folders not to enter.
    """
    found, seen, todo = [], set(leave_out), [os.fspath(folder)]
    while todo:
        here = todo.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        folders, files = _entries(here)
        found += files
        todo += reversed(folders)
    return sorted(found)


def _entries(folder: str) -> tuple[list[str], list[str]]:
    """Folders and image files in a folder, each sorted."""
    with os.scandir(folder) as listing:
        entries = sorted((e for e in listing if not e.name.startswith(".")), key=lambda e: e.name)
    # DirEntry.is_dir raises on a link that leads to itself
    inner = [e.path for e in entries if (os.path.isdir(e.path) if e.is_symlink() else e.is_dir())]
    folders = set(inner)
    return inner, [
        e.path for e in entries if e.name.lower().endswith(EXTENSIONS) and e.path not in folders
    ]


def load_folder(
    folder: str, size: int
) -> tuple[tuple[ImageFiles, Tensor], tuple[ImageFiles, Tensor]]:
    """Training and test part of a folder, each as its files, in an order that mixes the classes, and their classes.

    A class is a folder in `train` and `test` (or `val`) of the folder; of both, the first is taken whose classes training knows.
    Without a folder for the test, every fifth file of each class, sorted by name, is the test. Without folders for classes all
    files are of one class. Images that lie beside those folders are left out, with a warning.

    Args:
        folder: path; `~` is the home folder.
        size: side of the images in pixels.

    Returns:
        twice (files, long `[N]`).

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no images, too few for a test, a test without `train`, or the test has a class that training has not.
    """
    who, root = f"data 'folder:{folder}'", Path(os.path.expanduser(folder))
    if not root.is_dir():
        raise FileNotFoundError(
            f"{who}: got no folder {root}, wanted one with image files; correct the path"
        )
    whole = not (root / "train").is_dir()
    train = _classes(root if whole else root / "train")
    others = (
        train
        if whole
        else [
            Path(path).name
            for path in _entries(os.fspath(root))[0]
            if Path(path).name not in ("train", *ENDS)
        ]
    )
    if lone := sorted(
        name for name in others if name.lower() in PART_NAMES and (not whole or len(train) > 1)
    ):
        raise ValueError(
            f"{who}: got a folder {lone[0]!r} {'and no' if whole else 'beside'} 'train', wanted 'train' with 'test' or 'val', "
            "written so, or none of them; rename it, or move the classes into 'train'"
        )
    ends = [root / name for name in ENDS if not whole and (root / name).is_dir()]
    ends.sort(
        key=lambda end: not _classes(end).keys() & train.keys()
    )  # one without labels, or empty, comes last
    if beside := [] if whole else [name for name in others if find_images(root / name)]:
        warnings.warn(
            f"{who}: images in {', '.join(map(repr, beside[:5]))}, beside 'train', are left out",
            stacklevel=2,
        )
    test = _classes(ends[0]) if ends else {name: files[4::5] for name, files in train.items()}
    if not ends:
        train = {
            name: [file for i, file in enumerate(files) if i % 5 != 4]
            for name, files in train.items()
        }
        if small := [
            name for name in test if not test[name] and train[name] and any(test.values())
        ]:
            warnings.warn(
                f"{who}: no image of {len(small)} classes is in the test: they have fewer than 5",
                stacklevel=2,
            )
    if not any(train.values()):
        raise ValueError(
            f"{who}: got no image files, wanted files that end in {', '.join(EXTENSIONS)}; correct the path"
        )
    if not any(test.values()):
        raise ValueError(
            f"{who}: got no image for the test, wanted 5 or more of a class, or some in {root / 'test'}; add some"
        )
    if new := sorted(test.keys() - train.keys()):
        raise ValueError(
            f"{who}: got {len(new)} classes in {ends[0].name} that train has not ({', '.join(map(repr, new[:5]))}), wanted none; "
            "name the folders of a class alike"
        )
    return _mixed(train, list(train), size, "train"), _mixed(test, list(train), size, "test")


def _classes(root: Path) -> dict[str, list[str]]:
    """The image files of each folder that holds any, or those of the root itself as one class."""
    folders, loose = _entries(os.fspath(root))
    real = root.resolve()
    above = [
        os.fspath(path) for path in (real, *real.parents)
    ]  # a link up would lead to all classes again
    found = {os.path.basename(folder): find_images(folder, above) for folder in folders}
    found = {name: files for name, files in found.items() if files}
    if found and loose:
        warnings.warn(
            f"{root}: {len(loose)} images that lie beside its folders are left out", stacklevel=3
        )
    return found or {"": loose}


def _mixed(
    found: dict[str, list[str]], names: list[str], size: int, part: str
) -> tuple[ImageFiles, Tensor]:
    """Files in an order without their class: the probe takes the first ones, and they must be of all classes."""
    files = [file for name in names for file in found.get(name, [])]
    labels = torch.tensor(
        [i for i, name in enumerate(names) for _ in found.get(name, [])], dtype=torch.long
    )
    mix = torch.randperm(len(files), generator=seeded_generator(0, "folder", part))
    return ImageFiles([files[i] for i in mix.tolist()], size), labels[mix]
