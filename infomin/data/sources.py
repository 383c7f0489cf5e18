"""Digits and backgrounds for Colorful Moving-MNIST: bundled ones, IDX files, STL-10, image folders.

Each is named by a word. Training and test share no picture; nothing is downloaded or unpickled.
"""

import gzip
import math
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import check_choice, check_positive, check_type
from ..common.seeds import seeded_generator
from .bundled import DIGIT, bundled_worlds
from .digests import data_digest
from .image_folder import load_folder
from .image_io import Unreadable, read_square, resize
from .stl10_cifar10 import FETCH_HINT, data_root, stl10_files
from .worlds import World

MOST_BYTES = 2**28  # the most that the digits, or the backgrounds, of a part may take
STL10_SIDE = 96
EMNIST = tuple(
    f"emnist:{split}" for split in ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")
)
DIGITS = ("digits", "mnist", "fashion", *EMNIST, "idx:PATH", "folder:PATH")
BACKGROUNDS = ("photos", "stl10", "folder:PATH")
# Word -> torchvision's folder, and the name by which `infomin data fetch` downloads it.
DOWNLOADED = {
    "mnist": ("MNIST", "mnist"),
    "fashion": ("FashionMNIST", "fashion_mnist"),
    "emnist": ("EMNIST", "emnist"),
}
# Patterns for the names of IDX files: a prefix, and the images of training and test.
ANY_PREFIX, IDX_IMAGES = "(.*-)?", ("train-images-idx3-ubyte", "(t10k|test)-images-idx3-ubyte")
TYPES = {8: "uint8", 9: "int8", 11: "int16", 12: "int32", 13: "float32", 14: "float64"}  # of IDX


class Source(NamedTuple):
    """A part before its pictures are read.

    Attributes:
        labels: long `[N]`.
        names: label -> name of the class, where there is one.
        read: rows -> their pictures, and the rows that were readable.
    """

    labels: Tensor
    names: dict[int, str]
    read: Callable[[Tensor], tuple[Tensor, Tensor]]


def load_worlds(
    digits: str = "digits",
    backgrounds: str = "photos",
    size: int = 64,
    digit: int = 28,
    dim: float = 0.5,
) -> tuple[World, World]:
    """Load the worlds of training and test, which share no digit and no background.

    The digits, or the backgrounds, of a part take at most 256 MB: a larger set is subsampled with a
    fixed seed, evenly over its classes. Classes are numbered from 0 in the order of their labels or
    folders. The last two results are cached; each call returns copies.

    Args:
        digits: the pictures that move.
            `digits`: scikit-learn's handwritten digits.
            `mnist`, `fashion`, `emnist:SPLIT`: IDX files in `data_root()`, where torchvision puts
            them. SPLIT is byclass, bymerge, balanced, letters, digits or mnist; EMNIST's images,
            which are transposed on disk, are turned upright.
            `idx:PATH`: a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, and the same
            with t10k- or test-; dots for hyphens and gzip are fine. Or one file of images with its
            labels beside it; every fifth image of each class is then the test.
            `folder:PATH`: image files, see `image_folder.load_folder`; the centre square of each,
            brightness being ink.
        backgrounds: the pictures behind them.
            `photos`: tiles of scikit-image's photographs.
            `stl10`: the labelled images of STL-10 in `data_root()`, 5,000 and 8,000, for canvases
            up to 96 px.
            `folder:PATH`: image files, see `image_folder.load_folder`; the centre square of each,
            scaled to twice the canvas.
        size: side of the canvas in pixels, 8 to 256.
        digit: side of a digit in pixels, 8 to `size`; others are scaled to it, antialiased.
        dim: brightness of the background, 0..1.

    Returns:
        the worlds of training and test, with the same classes.

    Raises:
        ValueError: an unknown word, a number out of range, a damaged IDX file, or a class without
            a picture in one of the parts.
        FileNotFoundError: files or a folder are missing.

    >>> train, test = load_worlds("digits", "photos", size=32, digit=20)
    >>> train.digits.shape, test.digits.shape
    (torch.Size([1200, 20, 20]), torch.Size([597, 20, 20]))
    """
    check_sources(digits, backgrounds)
    largest = STL10_SIDE if backgrounds == "stl10" else 256
    for name, side, most in (("size", size, largest), ("digit", digit, size)):
        check_type(side, int, f"load_worlds({name})")
        if not 8 <= side <= most:
            raise ValueError(
                f"load_worlds({name}): got {side}, wanted 8 to {most} px with backgrounds "
                f"{backgrounds!r}"
            )
    if check_positive(dim, "load_worlds(dim)", zero=True) > 1:
        raise ValueError(f"load_worlds(dim): got {dim}, wanted a brightness of 0 to 1")
    digest = data_digest(f"clips:{digits}@{backgrounds}")
    where = data_root().absolute()
    train, test = _worlds(where, digest, digits, backgrounds, size, digit, float(dim))
    return train.clone(), test.clone()


# `digest` only enters the key of the cache, so that changed files are read again.
@lru_cache(maxsize=2)
def _worlds(
    root: Path, digest: str, digits: str, backgrounds: str, size: int, digit: int, dim: float
) -> tuple[World, World]:
    if digits == "digits":  # from the canvas on which they have this size
        canvas = round(digit * 32 / DIGIT)
        inks = [(world.digits, world.digit_class) for world in bundled_worlds(canvas)]
    else:
        inks = list(_banks(f"digits {digits!r}", _digits(root, digits, digit), digit**2))
    if backgrounds == "photos":
        grounds = [(world.backgrounds, world.background_class) for world in bundled_worlds(size)]
    elif backgrounds == "stl10":
        grounds = list(_banks("backgrounds 'stl10'", _stl10(root), 3 * STL10_SIDE**2))
    else:
        sources = _folder(backgrounds, 2 * size, grey=False)
        grounds = list(_banks(f"backgrounds {backgrounds!r}", sources, 3 * (2 * size) ** 2))
    train = World(*inks[0], *grounds[0], size=size, dim=dim)
    test = World(*inks[1], *grounds[1], size=size, dim=dim)
    return train, test


def check_sources(digits: str, backgrounds: str) -> None:
    """Check that `load_worlds` knows both words; PATH in them may be anything but empty.

    Raises:
        ValueError: an unknown word; the message lists the known ones.
    """
    _check_word("digits", digits, DIGITS)
    _check_word("backgrounds", backgrounds, BACKGROUNDS)


def _check_word(what: str, word: str, known: Sequence[str]) -> None:
    check_type(word, str, what)
    prefixes = [name.removesuffix("PATH") for name in known if name.endswith(":PATH")]
    has_path = any(word.startswith(prefix) and word != prefix for prefix in prefixes)
    if not has_path:
        check_choice(word, known, what)


def _banks(who: str, sources: Sequence[Source], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Read the pictures of training and test, with classes numbered alike from 0.

    Args:
        who: what error messages call the pictures.
        sources: training and test.
        size: bytes of a picture.

    Yields:
        pictures and their classes, long `[N]`, of each part.
    """
    classes = torch.cat([source.labels for source in sources]).unique()
    names = sources[1].names | sources[0].names
    most = MOST_BYTES // size
    if len(classes) > most:
        raise ValueError(
            f"{who}: got {len(classes)} classes, wanted at most {most} for pictures of this size; "
            "use smaller pictures"
        )
    for part, source in zip(("training", "test"), sources, strict=True):
        sample = _sample_evenly(source.labels, most, seeded_generator(0, "sources", part))
        pictures, rows = source.read(sample)
        labels = source.labels[rows]
        missing = classes[~torch.isin(classes, labels)].tolist()
        if missing or not len(classes):
            listed = ", ".join(f"class {names.get(label, label)}" for label in missing[:5])
            raise ValueError(
                f"{who}: got no readable {part} picture of {listed or 'any class'}, wanted one of "
                "each class in each part"
            )
        yield pictures, torch.searchsorted(classes, labels)


def _sample_evenly(labels: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Draw at most `most` rows, ascending, taking from all classes in turn until they run out."""
    if len(labels) <= most:
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=generator)
    rounds = _rank_in_class(labels[order])
    return order[rounds.argsort(stable=True)[:most]].sort().values


def _rank_in_class(labels: Tensor) -> Tensor:
    """For each row, how many earlier rows have the same label, for labels long `[N]` from 0."""
    count = labels.bincount()
    first = (count.cumsum(0) - count).repeat_interleave(count)
    rank = torch.empty_like(labels)
    rank[labels.argsort(stable=True)] = torch.arange(len(labels)) - first
    return rank


def _digits(root: Path, word: str, side: int) -> list[Source]:
    head, _, tail = word.partition(":")
    if head == "folder":
        return _folder(word, side, grey=True)
    if head in DOWNLOADED:
        name, download = DOWNLOADED[head]
        folder = root / name / "raw"
        prefix = f"emnist-{tail}-" if tail else ""
        cure = FETCH_HINT.format(download)
    else:
        folder = Path(os.path.expanduser(tail))
        prefix = ANY_PREFIX
        cure = "correct the path, or rename the files"
    who, scale = f"digits {word!r}", partial(_square_digits, side=side)
    if head == "idx" and folder.is_file():
        ink, labels = _labelled(folder, who, cure)
        test = _rank_in_class(labels) % 5 == 4
        return [_source(ink[part], labels[part], scale) for part in (~test, test)]
    sources = []
    for pattern in IDX_IMAGES:
        ink, labels = _labelled(_find(folder, prefix + pattern, who, cure), who, cure)
        if head == "emnist":  # its images are stored column by column
            ink = ink.transpose(1, 2)
        sources.append(_source(ink, labels, scale))
    return sources


def _source(pictures: Tensor, labels: Tensor, finish: Callable[[Tensor], Tensor]) -> Source:
    """A part that is in memory; `finish` is applied to the pictures that are read."""

    def read(rows: Tensor) -> tuple[Tensor, Tensor]:
        selected = pictures[rows] if len(rows) < len(pictures) else pictures
        return finish(selected), rows

    return Source(labels, {}, read)


def _key(path: Path) -> str:
    """Canonical name of an IDX file: Train-Images.idx3-ubyte.gz -> train-images-idx3-ubyte."""
    return re.sub(r"[._]", "-", path.name.lower().removesuffix(".gz"))


def _find(folder: Path, pattern: str, who: str, cure: str) -> Path:
    """The file in a folder whose `_key` matches a pattern; a plain file before a gzipped one."""
    listing = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
    files = {_key(path): path for path in listing if path.is_file()}
    matches = {key: path for key, path in files.items() if re.fullmatch(pattern, key)}
    if not matches:
        name = pattern.removeprefix(ANY_PREFIX).replace("\\", "")
        raise FileNotFoundError(f"{who}: got no {name} or {name}.gz in {folder}; {cure}")
    if len(matches) > 1:
        raise ValueError(
            f"{who}: got {', '.join(sorted(matches))} in {folder}, wanted one set; name one file "
            "of images"
        )
    return next(iter(matches.values()))


def _labelled(images: Path, who: str, cure: str) -> tuple[Tensor, Tensor]:
    """Pictures of an IDX file, uint8 `[N, h, w]`, and the labels beside it, long `[N]`."""
    name = "labels".join(_key(images).rsplit("images", 1)).replace("idx3", "idx1")
    file = _find(images.parent, re.escape(name), who, cure)
    pictures, labels = read_idx(images), read_idx(file)
    if pictures.dim() != 3 or 0 in pictures.shape[1:] or labels.shape != pictures.shape[:1]:
        raise ValueError(
            f"{who}: got the shape {list(pictures.shape)} in {images} and {list(labels.shape)} in "
            f"{file}, wanted images [N, h, w] and labels [N]; use two files of one set, named "
            "images-idx3 and labels-idx1"
        )
    return pictures, labels.long()


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """Read an IDX file of bytes, the format of MNIST; gzip is detected from the content.

    Returns:
        uint8 of the shape that the file states.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an IDX file, values other than bytes, or a file cut short, too long or
            damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "labels").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    ...     read_idx(f"{folder}/labels")
    tensor([7, 8, 9], dtype=torch.uint8)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"read_idx: got no file {path}, wanted an IDX file; correct the path"
        )
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path}: got damaged gzip data ({error}), wanted a complete file; copy it again"
            ) from error
    if data[:2] != b"\0\0" or not any(data[3:4]) or data[2] not in TYPES:
        raise ValueError(
            f"{path}: got the first bytes {data[:4].hex(' ')!r}, wanted those of an IDX file, such "
            "as 00 00 08 01"
        )
    if data[2] != 8:
        raise ValueError(f"{path}: got values of {TYPES[data[2]]}, wanted uint8; convert them")
    header = 4 + 4 * data[3]
    shape = [int.from_bytes(data[start : start + 4], "big") for start in range(4, header, 4)]
    length = header + math.prod(shape)
    if len(data) != length:
        raise ValueError(
            f"{path}: got {len(data)} bytes, wanted {length} for {shape}; copy it again"
        )
    return torch.from_numpy(np.array(np.frombuffer(data, np.uint8)[header:])).view(shape)


def _square_digits(ink: Tensor, side: int) -> Tensor:
    """Digits uint8 `[N, h, w]`, padded to squares and scaled to `[N, side, side]`."""
    height, width = ink.shape[1:]
    square = max(height, width)
    top, left = (square - height) // 2, (square - width) // 2
    padded = F.pad(ink, (left, square - width - left, top, square - height - top))
    return resize(padded[:, None], side)[:, 0]


def _stl10(root: Path) -> list[Source]:
    """The labelled images of STL-10."""
    parts = stl10_files(root, "backgrounds 'stl10'")
    return [_source(*parts[part], Tensor.contiguous) for part in ("train", "test")]


def _folder(word: str, side: int, grey: bool) -> list[Source]:
    sources = []
    for files, labels in load_folder(word.removeprefix("folder:"), side):
        folders = [os.path.dirname(path) for path in files.paths]
        names = dict(zip(labels.tolist(), folders, strict=True))
        sources.append(Source(labels, names, partial(_read, files.paths, side, grey)))
    return sources


def _read(paths: Sequence[str], side: int, grey: bool, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Read image files; unreadable ones are left out with a warning.

    Returns:
        pictures uint8 `[N, 3, side, side]`, or grey `[N, side, side]`; and the readable rows.
    """
    shape = (side, side) if grey else (3, side, side)
    pictures = np.empty((len(rows), *shape), np.uint8)

    def read_into(position: int, row: int) -> str | None:
        """Read a file into `pictures`; return why it cannot be read, if it cannot."""
        try:
            image = read_square(paths[row], side)
        except Unreadable as error:
            return str(error)
        if grey:
            image = np.rint(np.tensordot((0.299, 0.587, 0.114), image, 1))
        pictures[position] = image
        return None

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # PIL releases the GIL
        reasons = list(pool.map(read_into, range(len(rows)), rows.tolist()))
    for row, reason in zip(rows.tolist(), reasons, strict=True):
        if reason is not None:
            warnings.warn(f"{paths[row]}: cannot be read ({reason}); left out", stacklevel=2)
    readable = torch.tensor([reason is None for reason in reasons], dtype=torch.bool)
    return torch.from_numpy(pictures)[readable], rows[readable]
