"""Folders of image files of any number, size and kind, read when needed with constant memory.

Threads decode files a few batches ahead. PIL releases the GIL while it decodes and scales, so
threads read as many images a second as processes would; processes of a DataLoader would need shared
memory, and each worker of a sweep would start its own.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from ..common.seeds import seeded_generator, to_device
from .image_io import Bytes, read_square

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
AHEAD = 2  # batches to prefetch
ENDS = ("test", "val")  # folders that can hold the test
# Folder names, in lower case, that hardly name a class.
PART_NAMES = {"train", "training", "testing", "valid", "validation", *ENDS}
_reported: set[str] = set()  # unreadable files that this process has warned about

# Images still being read, and a job for each, which returns the row that it read.
Reading: TypeAlias = tuple[Tensor, list[Future[int]]]


class ImageFiles:
    """Image files used like a tensor `[N, 3, size, size]`: indexing reads the rows it selects.

    An unreadable file is replaced by the next readable one, with one warning per process; `take`
    says which row was read instead. An image is thus a function of its row, and a resumed run sees
    the same images.

    Args:
        paths: the files.
        size: side of the images in pixels.
        device: where images are put.
    """

    def __init__(self, paths: Sequence[str], size: int, device: torch.device | str = "cpu") -> None:
        self.paths = paths
        self.size = size
        self.device = torch.device(device)
        self._unreadable: dict[int, str] = {}  # row -> why
        # Each worker of a sweep has its own share of the cores.
        self._pool = ThreadPoolExecutor(torch.get_num_threads())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self.take(torch.arange(len(self))[index])[0]

    def to(self, device: torch.device | str) -> "ImageFiles":
        """The same files, with their images put on a device."""
        return ImageFiles(self.paths, self.size, device)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Read the images of rows.

        Args:
            rows: long `[B]`.

        Returns:
            images uint8 `[B, 3, size, size]`, and the rows that they show, long `[B]`, which differ
            from `rows` where a file is unreadable; both on the device.

        Raises:
            ValueError: no file at all is readable.
        """
        return self._finish(self._start(rows))

    def stream(
        self, rows: Callable[[int], Tensor], steps: int
    ) -> Callable[[int], tuple[Tensor, Tensor]]:
        """A function step -> what `take` returns for its rows; later steps are prefetched.

        Args:
            rows: step -> long `[B]`.
            steps: number of steps; nothing beyond the last is prefetched.
        """
        readings: dict[int, Reading] = {}

        def read_step(step: int) -> tuple[Tensor, Tensor]:
            window = range(step, max(step + 1, min(step + 1 + AHEAD, steps)))
            for stale in readings.keys() - set(window):  # the caller jumped to another step
                for job in readings.pop(stale)[1]:
                    job.cancel()
            for upcoming in window:
                if upcoming not in readings:
                    readings[upcoming] = self._start(rows(upcoming))
            return self._finish(readings.pop(step))

        return read_step

    def _start(self, rows: Tensor) -> Reading:
        images = torch.empty(
            (len(rows), 3, self.size, self.size),
            dtype=torch.uint8,
            device="cpu",
            pin_memory=self.device.type == "cuda",  # so that the copy to the GPU is asynchronous
        )
        pairs = zip(images.numpy(), rows.tolist(), strict=True)
        return images, [self._pool.submit(self._read_into, image, row) for image, row in pairs]

    def _finish(self, reading: Reading) -> tuple[Tensor, Tensor]:
        images, jobs = reading
        shown = torch.tensor([job.result() for job in jobs], dtype=torch.long)
        # Warn here: a warning in another thread can get lost.
        for row, reason in list(self._unreadable.items()):
            path = self.paths[row]
            if path not in _reported:
                _reported.add(path)
                message = f"{path}: cannot be read ({reason}); using the next readable image"
                warnings.warn(message, stacklevel=2)
        return to_device(images, self.device), to_device(shown, self.device)

    def _read_into(self, image: Bytes, row: int) -> int:
        """Read a row, or else the next readable one, into `image`; return the row that was read."""
        for candidate in chain(range(row, len(self)), range(row)):
            if candidate in self._unreadable:
                continue
            try:
                image[:] = read_square(self.paths[candidate], self.size)
                return candidate
            except MemoryError:
                raise
            except Exception as error:  # decoders raise anything on bytes that are not an image
                reason = " ".join(str(error).split()) or type(error).__name__
                self._unreadable[candidate] = reason
        raise ValueError(
            f"{self.paths[row]}: none of the {len(self)} files can be read, need at least one"
        )


def find_images(folder: str | os.PathLike[str], leave_out: Sequence[str] = ()) -> list[str]:
    """Paths of the image files in a folder and its subfolders, by extension.

    They are sorted, so the list is the same on every file system. Names that begin with a dot are
    skipped. A folder that is linked more than once is listed once, so loops of links end.

    Args:
        folder: where to look.
        leave_out: real paths of folders not to enter.
    """
    images, visited, pending = [], set(leave_out), [os.fspath(folder)]
    while pending:
        path = pending.pop()
        real = os.path.realpath(path)
        if real in visited:
            continue
        visited.add(real)
        folders, files = _entries(path)
        images += files
        pending += reversed(folders)
    return sorted(images)


def _entries(folder: str) -> tuple[list[str], list[str]]:
    """Folders and image files in a folder, each sorted."""
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    folders, files = [], []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        # DirEntry.is_dir raises on a link to itself.
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            folders.append(entry.path)
        elif entry.name.lower().endswith(EXTENSIONS):
            files.append(entry.path)
    return folders, files


def load_folder(
    folder: str, size: int
) -> tuple[tuple[ImageFiles, Tensor], tuple[ImageFiles, Tensor]]:
    """The training and test images of a folder, with their classes.

    A class is a subfolder of `train`, and of `test` or `val`; if there are both, the first with
    classes known from training is used. Without a `train` folder, classes are the subfolders of the
    folder itself, and every fifth file of each class, sorted by name, is for the test. Without
    subfolders, all files are one class. Images beside class folders are ignored, with a warning.
    The order of the files mixes the classes.

    Args:
        folder: path; `~` is the home folder.
        size: side of the images in pixels.

    Returns:
        (files, class numbers long `[N]`) for training, and the same for the test.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images, too few for a test, a test without `train`, or a test class that is
            not in training.
    """
    who, root = f"data 'folder:{folder}'", Path(os.path.expanduser(folder))
    if not root.is_dir():
        raise FileNotFoundError(
            f"{who}: got no folder {root}, wanted one with image files; correct the path"
        )
    has_train = (root / "train").is_dir()
    train = _classes(root / "train" if has_train else root)
    if has_train:
        _check_other_folders(who, root)
    elif len(train) > 1:
        _check_names(who, train, "without")
    tests = {name: _classes(root / name) for name in ENDS if has_train and (root / name).is_dir()}
    # A folder without classes known from training is the last choice.
    test_name = min(tests, key=lambda name: not tests[name].keys() & train.keys(), default="")
    if tests:
        test = tests[test_name]
    else:
        train, test = _hold_out_fifths(who, train)
    if not any(train.values()):
        raise ValueError(
            f"{who}: got no image files, wanted files that end in {', '.join(EXTENSIONS)}; correct "
            "the path"
        )
    if not any(test.values()):
        raise ValueError(
            f"{who}: got no test images, need at least 5 images in a class (every fifth is held "
            f"out) or images in {root / 'test'}"
        )
    if unknown := sorted(test.keys() - train.keys()):
        names = ", ".join(map(repr, unknown[:5]))
        raise ValueError(
            f"{who}: got {len(unknown)} classes in {test_name!r} that 'train' lacks ({names}), "
            "wanted none; use the same folder names in both"
        )
    classes = list(train)
    return _shuffled(train, classes, size, "train"), _shuffled(test, classes, size, "test")


def _check_other_folders(who: str, root: Path) -> None:
    """Check the folders beside `train`, `test` and `val`, which are not used."""
    names = [os.path.basename(path) for path in _entries(os.fspath(root))[0]]
    others = [name for name in names if name not in ("train", *ENDS)]
    _check_names(who, others, "beside")
    ignored = [repr(name) for name in others if find_images(root / name)]
    if ignored:
        message = f"{who}: ignoring the images in {', '.join(ignored[:5])}, beside 'train'"
        warnings.warn(message, stacklevel=3)


def _check_names(who: str, names: Iterable[str], relation: str) -> None:
    """Raise a ValueError if a folder is named like a part of the data set instead of a class."""
    parts = sorted(name for name in names if name.lower() in PART_NAMES)
    if parts:
        raise ValueError(
            f"{who}: got a folder {parts[0]!r} {relation} 'train', wanted 'train' with 'test' or "
            "'val', spelled so, or none of them; rename it, or move the classes into 'train'"
        )


def _hold_out_fifths(
    who: str, classes: Mapping[str, list[str]]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Split off every fifth file of each class for the test."""
    train, test = {}, {}
    for name, files in classes.items():
        train[name] = [file for i, file in enumerate(files) if i % 5 != 4]
        test[name] = files[4::5]
    untested = [name for name in classes if train[name] and not test[name]]
    if untested and any(test.values()):
        warnings.warn(
            f"{who}: {len(untested)} classes have fewer than 5 images and are missing from the "
            "test",
            stacklevel=3,
        )
    return train, test


def _classes(root: Path) -> dict[str, list[str]]:
    """Class -> its image files: the subfolders that hold any, or else one class for all files."""
    folders, loose_files = _entries(os.fspath(root))
    real = root.resolve()
    # A link to a parent folder would lead to all classes again.
    parents = [os.fspath(path) for path in (real, *real.parents)]
    classes = {}
    for folder in folders:
        if files := find_images(folder, parents):
            classes[os.path.basename(folder)] = files
    if classes and loose_files:
        message = f"{root}: ignoring {len(loose_files)} images beside the class folders"
        warnings.warn(message, stacklevel=3)
    return classes or {"": loose_files}


def _shuffled(
    images: Mapping[str, list[str]], classes: Sequence[str], size: int, part: str
) -> tuple[ImageFiles, Tensor]:
    """Files and class numbers in random order: the probe takes the first rows as its sample.

    Args:
        images: class -> files.
        classes: all classes, in the order of their numbers.
        size: side of the images in pixels.
        part: `train` or `test`, which seeds the order.
    """
    files, labels = [], []
    for number, name in enumerate(classes):
        class_files = images.get(name, [])
        files += class_files
        labels += [number] * len(class_files)
    order = torch.randperm(len(files), generator=seeded_generator(0, "folder", part))
    shuffled_files = [files[i] for i in order.tolist()]
    return ImageFiles(shuffled_files, size), torch.tensor(labels, dtype=torch.long)[order]
