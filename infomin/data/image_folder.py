"""Folders of image files: which files are images, which class and which part each belongs to."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..common.seeds import seeded_generator
from .image_files import ImageFiles
from .image_io import EXTENSIONS

# Files that usually lie beside images.
TEXTS = (
    *(".cfg", ".csv", ".db", ".htm", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".rst"),
    *(".tsv", ".txt", ".xml", ".yaml", ".yml"),
)
TEST_FOLDERS = ("test", "val")  # folders that can hold the test
# A word that names a part of a data set, and what can stand beside it; \0 replaces the word.
_PART = re.compile(
    "(?<![a-z])(train(ing|val)?|test(ing)?|val(id|idation)?|eval(uation)?)"
    "(?=set|data|im|pic|photo|[^a-z]|$)"
)
_NO_CLASS = re.compile(
    r"(\0|images?|imgs?|pictures?|pics?|photos?|photographs?|data|sets?|splits?|parts?|samples?"
    r"|files?|jpe?gs?|pngs?|[\W\d_])+"
)


def find_images(folder: str | os.PathLike[str], leave_out: Sequence[str] = ()) -> list[str]:
    """Paths of the image files in a folder and its subfolders, as `list_files` finds them."""
    return list_files(folder, leave_out)[0]


def list_files(
    folder: str | os.PathLike[str], leave_out: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Paths of the image files in a folder and its subfolders, by extension, and of other files.

    They are sorted, so the list is the same on every file system. Names that begin with a dot are
    skipped. A folder that is linked more than once is listed once, so loops of links end.

    Args:
        folder: where to look.
        leave_out: real paths of folders not to enter.
    """
    images, others, visited, pending = [], [], set(leave_out), [os.fspath(folder)]
    while pending:
        path = pending.pop()
        real = os.path.realpath(path)
        if real in visited:
            continue
        visited.add(real)
        folders, image_files, other_files = _entries(path)
        images += image_files
        others += other_files
        pending += reversed(folders)
    return sorted(images), sorted(others)


def count_kinds(paths: Iterable[str]) -> str:
    """How many files have each extension, the most frequent first.

    >>> count_kinds(["a.heic", "b/README", "c.HEIC"])
    '2 .heic, 1 without extension'
    """
    kinds = Counter(os.path.splitext(path)[1].lower() or "without extension" for path in paths)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _entries(folder: str) -> tuple[list[str], list[str], list[str]]:
    """Folders, image files and other files in a folder, each sorted."""
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    folders, images, others = [], [], []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        # DirEntry.is_dir raises on a link to itself.
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            folders.append(entry.path)
        elif entry.name.lower().endswith(EXTENSIONS):
            images.append(entry.path)
        elif os.path.isfile(entry.path):  # not for a link to nothing
            others.append(entry.path)
    return folders, images, others


def load_folder(
    folder: str, size: int
) -> tuple[tuple[ImageFiles, Tensor], tuple[ImageFiles, Tensor]]:
    """The training and test images of a folder, with their classes.

    A class is a subfolder of `train`, and of `test` or `val`; if there are both, the first with
    classes known from training is used. Without a `train` folder, classes are the subfolders of the
    folder itself, and every fifth file of each class, sorted by name, is for the test. Without
    subfolders, all files are one class. Images beside class folders, and files that do not end as
    images do, are left out with a warning, unless they are texts. The order of the files mixes the
    classes.

    Args:
        folder: path; `~` is the home folder.
        size: side of the images in pixels.

    Returns:
        (files, class numbers long `[N]`) for training, and the same for the test.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images, too few for a test, a test without `train`, parts that are spelled
            otherwise or lie in a class, or a test class that is not in training.
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
    else:
        _check_names(who, train, "without")
        _check_inside(who, root, train)
    tests = {
        name: _classes(root / name) for name in TEST_FOLDERS if has_train and (root / name).is_dir()
    }
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
    others = [name for name in names if name not in ("train", *TEST_FOLDERS)]
    _check_names(who, others, "beside")
    ignored = [repr(name) for name in others if find_images(root / name)]
    if ignored:
        message = f"{who}: ignoring the images in {', '.join(ignored[:5])}, beside 'train'"
        warnings.warn(message, stacklevel=3)


def _check_names(who: str, names: Iterable[str], relation: str) -> None:
    """Raise a ValueError if a folder is named like a part of the data set instead of a class."""
    if parts := part_names(names):
        raise ValueError(
            f"{who}: got a folder {parts[0]!r} {relation} 'train', wanted 'train' with 'test' or "
            "'val', spelled so, or none of them; rename it, or move the classes into 'train'"
        )


def _check_inside(who: str, root: Path, classes: Iterable[str]) -> None:
    """Raise a ValueError if a folder that would be a class holds parts of the data set."""
    for name in filter(None, classes):
        folders = [os.path.basename(path) for path in _entries(os.fspath(root / name))[0]]
        parts = part_names(folders)
        if len(parts) > 1 or (parts and len(folders) == 1):
            raise ValueError(
                f"{who}: got {' and '.join(map(repr, parts[:2]))} inside {name!r}, wanted the "
                f"classes inside the parts; use folder:{root / name}, or move the folders"
            )


def part_names(names: Iterable[str]) -> list[str]:
    """The names of folders that hardly name a class, but a part of a data set; sorted.

    >>> part_names(["Train", "test-images", "val2017", "train station", "a_train", "a_test"])
    ['Train', 'a_test', 'a_train', 'test-images', 'val2017']
    """
    stems = {}
    for name in names:
        words = re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()  # TrainImages
        stem, found = _PART.subn("\0", words)
        if found:
            stems[name] = stem
    count = Counter(stems.values())
    return sorted(
        name for name, stem in stems.items() if count[stem] > 1 or _NO_CLASS.fullmatch(stem)
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
    folders, loose_images, others = _entries(os.fspath(root))
    real = root.resolve()
    # A link to a parent folder would lead to all classes again.
    parents = [os.fspath(path) for path in (real, *real.parents)]
    classes, empty = {}, []
    for folder in folders:
        images, other_files = list_files(folder, parents)
        name = os.path.basename(folder)
        others += other_files
        if images:
            classes[name] = images
        elif other_files:
            empty.append(repr(name))
    if classes and loose_images:
        message = f"{root}: ignoring {len(loose_images)} images beside the class folders"
        warnings.warn(message, stacklevel=3)
    left_out = others if empty else [path for path in others if not path.lower().endswith(TEXTS)]
    if left_out:
        vanished = f"; {', '.join(empty[:5])}: no images, so no class" if empty else ""
        message = f"{root}: leaving out {count_kinds(left_out)}{vanished}; convert images to PNG"
        warnings.warn(message, stacklevel=3)
    return classes or {"": loose_images}


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
