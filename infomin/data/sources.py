"""Where the digits and the backgrounds of Colorful Moving-MNIST come from: what is embedded, IDX files, STL-10, image folders.

Each of the two is named by a word. Training and test share no picture of either; nothing is downloaded or unpickled here.
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
from .bundled import DIGIT
from .bundled import bundled_worlds as embedded
from .digests import data_digest
from .image_folder import load_folder
from .image_io import read_square, resize
from .scenes import World
from .stl10_cifar10 import data_root

MOST_BYTES = 2**28  # bytes that the digits, or the backgrounds, of a part may take
STL10_SIDE = 96
EMNIST = tuple(
    f"emnist:{split}" for split in ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")
)
DIGITS = ("digits", "mnist", "fashion", *EMNIST, "idx:PATH", "folder:PATH")
BACKGROUNDS = ("photos", "stl10", "folder:PATH")
STORED = {
    "mnist": ("MNIST", "mnist"),
    "fashion": ("FashionMNIST", "fashion_mnist"),
    "emnist": ("EMNIST", "emnist"),
}
FETCH = "run python data_tools/fetch.py {}, or set INFOMIN_DATA to the folder that holds it"
ANY, IDX_IMAGES = (
    "(.*-)?",
    ("train-images-idx3-ubyte", "(t10k|test)-images-idx3-ubyte"),
)  # in the names of IDX files
TYPES = {8: "uint8", 9: "int8", 11: "int16", 12: "int32", 13: "float32", 14: "float64"}  # of IDX


class Source(NamedTuple):
    """A part before it is read: labels `[N]`, names of classes, and rows -> (their pictures, those that could be read)."""

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
    """The worlds that training and test are drawn from; of digits and of backgrounds, neither is in both.

    Digits, or backgrounds, of a part take 256 MB at most. Of more pictures some are taken by a seeded order, evenly over the
    classes. Classes are counted from 0 in the order of their labels or folders. The two worlds asked for last are kept.

    Args:
        digits: what moves.
            `digits`: the handwritten digits that come with scikit-learn.
            `mnist`, `fashion`, `emnist:SPLIT`: IDX files below `stored.root()`, where torchvision puts them. SPLIT: byclass,
            bymerge, balanced, letters, digits or mnist; the images, which lie on their side in the files, are put upright.
            `idx:PATH`: a folder that holds the four files train-images-idx3-ubyte, train-labels-idx1-ubyte and t10k- or test- of
            both, also with dots for hyphens or gzipped; or one file of images, its labels beside it, of which every fifth
            of each class is the test.
            `folder:PATH`: image files as in `folder.parts`, the central square of each; the brighter, the more ink.
        backgrounds: what is behind.
            `photos`: tiles of the photographs that come with scikit-image.
            `stl10`: the labelled images of STL-10, 5,000 and 8,000, below `stored.root()`; canvases of at most 96 px.
            `folder:PATH`: image files as in `folder.parts`, of each the central square, scaled to twice the canvas.
        size: side of the canvas in pixels, 8 to 256.
        digit: side of a digit in pixels, 8 to `size`; other sizes are scaled to it, with antialias where they shrink.
        dim: brightness of the background, 0..1.

    Returns:
        the worlds of training and of the test, of the same classes.

    Raises:
        ValueError: an unknown word, a number out of range, a damaged IDX file, a class of which a part has no picture.
        FileNotFoundError: files or a folder are missing; the message says what to do.

    >>> train, test = load_worlds("digits", "photos", size=32, digit=20)
    >>> train.digits.shape, test.digits.shape
    (torch.Size([1200, 20, 20]), torch.Size([597, 20, 20]))
    """
    check_sources(digits, backgrounds)
    most = STL10_SIDE if backgrounds == "stl10" else 256
    for name, side, top in (("size", size, most), ("digit", digit, size)):
        check_type(side, int, f"worlds({name})")
        if not 8 <= side <= top:
            raise ValueError(
                f"worlds({name}): got {side}, wanted 8 to {top} px with backgrounds {backgrounds!r}; change it"
            )
    if check_positive(dim, "worlds(dim)", zero=True) > 1:
        raise ValueError(f"worlds(dim): got {dim}, wanted a brightness of 0 to 1; change it")
    told = data_digest(f"clips:{digits}@{backgrounds}")
    return _worlds(data_root().absolute(), told, digits, backgrounds, size, digit, float(dim))


@lru_cache(
    maxsize=2
)  # `told` is part of the key of this cache alone: files that have changed are read again
def _worlds(
    where: Path, told: str, digits: str, backgrounds: str, size: int, digit: int, dim: float
) -> tuple[World, World]:
    if digits == "digits":  # of the canvas on which they are of this size
        inks = [(world.digits, world.digit_class) for world in embedded(round(digit * 32 / DIGIT))]
    else:
        inks = list(_banks(f"digits {digits!r}", _digits(where, digits, digit), digit**2))
    if backgrounds == "photos":
        grounds = [(world.backgrounds, world.background_class) for world in embedded(size)]
    elif backgrounds == "stl10":
        grounds = list(_banks("backgrounds 'stl10'", _stl10(where), 3 * STL10_SIDE**2))
    else:
        sources = _folder(backgrounds, 2 * size, grey=False)
        grounds = list(_banks(f"backgrounds {backgrounds!r}", sources, 3 * (2 * size) ** 2))
    train, test = (
        World(*ink, *ground, size=size, dim=dim) for ink, ground in zip(inks, grounds, strict=True)
    )
    return train, test


def check_sources(digits: str, backgrounds: str) -> None:
    """Raise a ValueError unless `load_worlds` knows both words, anything but nothing standing for PATH."""
    for what, word, words in (
        ("digits", digits, DIGITS),
        ("backgrounds", backgrounds, BACKGROUNDS),
    ):
        check_type(word, str, what)
        if not any(
            word.startswith(name[:-4]) and word != name[:-4]
            for name in words
            if name.endswith(":PATH")
        ):
            check_choice(word, words, what)


def _banks(who: str, sources: Sequence[Source], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures, of `size` bytes each, and classes of a training and a test part, both numbered alike from 0."""
    classes = torch.cat([source.labels for source in sources]).unique()
    names, most = sources[1].names | sources[0].names, MOST_BYTES // size
    if len(classes) > most:
        raise ValueError(
            f"{who}: got {len(classes)} classes, wanted at most {most} of pictures so large; make them smaller"
        )
    for name, source in zip(("training", "test"), sources, strict=True):
        pictures, rows = source.read(
            _evenly(source.labels, most, seeded_generator(0, "sources", name))
        )
        labels = source.labels[rows]
        gone = classes[~torch.isin(classes, labels)].tolist()
        if gone or not len(classes):
            which = ", ".join(f"class {names.get(c, c)}" for c in gone[:5]) or "any class"
            raise ValueError(
                f"{who}: got no {name} picture that can be read of {which}, wanted one in each part; add some"
            )
        yield pictures, torch.searchsorted(classes, labels)


def _evenly(labels: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """At most so many rows, ascending, drawn so that no class has more than another as long as that one has any left."""
    if len(labels) <= most:
        return torch.arange(len(labels))
    mix = torch.randperm(len(labels), generator=generator)
    return mix[_place(labels[mix]).argsort(stable=True)[:most]].sort().values


def _place(labels: Tensor) -> Tensor:
    """How many rows before it are of a row's class, for labels long `[N]`, 0 or more."""
    count = labels.bincount()
    place = torch.empty_like(labels)
    place[labels.argsort(stable=True)] = torch.arange(len(labels)) - (
        count.cumsum(0) - count
    ).repeat_interleave(count)
    return place


def _digits(where: Path, word: str, side: int) -> list[Source]:
    head, _, rest = word.partition(":")
    if head == "folder":
        return _folder(word, side, grey=True)
    prefix, folder, todo = (
        ANY,
        Path(os.path.expanduser(rest)),
        "correct the path, or rename the files",
    )
    if head in STORED:
        name, download = STORED[head]
        prefix, folder = f"emnist-{rest}-" if rest else "", where / name / "raw"
        todo = FETCH.format(download)
    who, finish = f"digits {word!r}", partial(_scaled, side=side)
    if head == "idx" and folder.is_file():
        ink, labels = _labelled(folder, who, todo)
        test = _place(labels) % 5 == 4
        return [_source(ink[part], labels[part], finish) for part in (~test, test)]
    found = [_labelled(_find(folder, prefix + part, who, todo), who, todo) for part in IDX_IMAGES]
    # EMNIST's files hold each image column by column
    return [
        _source(ink.transpose(1, 2) if head == "emnist" else ink, labels, finish)
        for ink, labels in found
    ]


def _source(pictures: Tensor, labels: Tensor, finish: Callable[[Tensor], Tensor]) -> Source:
    """A part that is in memory, and what is done to its pictures when they are read."""
    return Source(
        labels,
        {},
        lambda rows: (finish(pictures[rows] if len(rows) < len(pictures) else pictures), rows),
    )


def _key(path: Path) -> str:
    """What the spellings of an IDX file's name have in common: `Train-Images.idx3-ubyte.gz` -> `train-images-idx3-ubyte`."""
    return re.sub(r"[._]", "-", path.name.lower().removesuffix(".gz"))


def _find(folder: Path, pattern: str, who: str, todo: str) -> Path:
    """The file of a folder whose key is of a pattern; of a plain and a gzipped one the plain one."""
    listing = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
    found = {
        _key(path): path for path in listing if path.is_file() and re.fullmatch(pattern, _key(path))
    }
    if not found:
        name = pattern.removeprefix(ANY).replace("\\", "")
        raise FileNotFoundError(
            f"{who}: got no such file in {folder}, wanted {name} or {name}.gz; {todo}"
        )
    if len(found) > 1:
        raise ValueError(
            f"{who}: got {', '.join(sorted(found))} in {folder}, wanted one set; name one file of images"
        )
    return next(iter(found.values()))


def _labelled(images: Path, who: str, todo: str) -> tuple[Tensor, Tensor]:
    """The pictures of an IDX file, uint8 `[N, h, w]`, and what the file of labels beside it says, long `[N]`."""
    name = "labels".join(_key(images).rsplit("images", 1)).replace("idx3", "idx1")
    file = _find(images.parent, re.escape(name), who, todo)
    pictures, labels = read_idx(images), read_idx(file)
    if pictures.dim() != 3 or 0 in pictures.shape[1:] or labels.shape != pictures.shape[:1]:
        raise ValueError(
            f"{who}: got the shape {list(pictures.shape)} in {images} and {list(labels.shape)} in {file}, "
            "wanted images [N, h, w] and labels [N]; take two files of one set, named images-idx3 and labels-idx1"
        )
    return pictures, labels.long()


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """Read an IDX file of bytes, the format of MNIST: its size, then its values; gzipped or not, which its content tells.

    Returns:
        uint8, of the shape that the file states.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no IDX file, values other than bytes, a file that is cut, too long or damaged.

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
    bits, again = path.read_bytes(), "copy it again"
    if bits[:2] == b"\x1f\x8b":
        try:
            bits = gzip.decompress(bits)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path}: got damaged gzip data ({error}), wanted a whole file; {again}"
            ) from error
    if bits[:2] != b"\0\0" or not any(bits[3:4]) or bits[2] not in TYPES:
        raise ValueError(
            f"{path}: got the first bytes {bits[:4].hex(' ')!r}, wanted 00 00 08 01 or alike; name an IDX file"
        )
    if bits[2] != 8:
        raise ValueError(
            f"{path}: got values of {TYPES[bits[2]]}, wanted uint8; convert them and write the file anew"
        )
    start = 4 + 4 * bits[3]
    shape = [int.from_bytes(bits[at : at + 4], "big") for at in range(4, start, 4)]
    if len(bits) != start + math.prod(shape):
        raise ValueError(
            f"{path}: got {len(bits)} bytes, wanted {start + math.prod(shape)} for {shape}; {again}"
        )
    return torch.from_numpy(np.array(np.frombuffer(bits, np.uint8)[start:])).view(shape)


def _scaled(ink: Tensor, side: int) -> Tensor:
    """Digits uint8 `[N, h, w]`, with blank margins where they are not square, scaled to `[N, side, side]`."""
    height, width = ink.shape[1:]
    square = max(height, width)
    top, left = (square - height) // 2, (square - width) // 2
    return resize(
        F.pad(ink, (left, square - width - left, top, square - height - top))[:, None], side
    )[:, 0]


def _stl10(where: Path) -> list[Source]:
    """The labelled images of STL-10; `stored.stl10` would hold the unlabelled ones too, 2.9 GB."""
    from torchvision.datasets import STL10

    try:
        found = [
            STL10(where, split=part) for part in ("train", "test")
        ]  # each holds all files against their checksums
    except RuntimeError as e:
        raise FileNotFoundError(
            f"backgrounds 'stl10': got no whole copy in {where}, wanted one; {FETCH.format('stl10')}"
        ) from e
    return [
        _source(
            torch.from_numpy(part.data), torch.from_numpy(part.labels).long(), Tensor.contiguous
        )
        for part in found
    ]


def _folder(word: str, side: int, grey: bool) -> list[Source]:
    sources = []
    for files, labels in load_folder(word.removeprefix("folder:"), side):
        names = {
            c: os.path.dirname(path) for c, path in zip(labels.tolist(), files.paths, strict=True)
        }
        sources.append(Source(labels, names, partial(_read, files.paths, side, grey)))
    return sources


def _read(paths: Sequence[str], side: int, grey: bool, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures of files, uint8 `[N, 3, side, side]` or grey `[N, side, side]`, and the rows of those that could be read."""
    pictures = np.empty((len(rows), side, side) if grey else (len(rows), 3, side, side), np.uint8)

    def fill(at: int, row: int) -> str | None:
        try:
            image = read_square(paths[row], side)
            pictures[at] = np.rint(np.tensordot((0.299, 0.587, 0.114), image, 1)) if grey else image
        except MemoryError:
            raise
        except Exception as reason:  # on bytes that are no image decoders raise whatever they like
            return " ".join(str(reason).split()) or type(reason).__name__
        return None

    with ThreadPoolExecutor(
        torch.get_num_threads()
    ) as pool:  # PIL lets go of the interpreter's lock
        reasons = list(pool.map(fill, range(len(rows)), rows.tolist()))
    for row, reason in zip(rows.tolist(), reasons, strict=True):
        if reason is not None:
            warnings.warn(f"{paths[row]}: cannot be read ({reason}); it is left out", stacklevel=2)
    good = torch.tensor([reason is None for reason in reasons], dtype=torch.bool)
    return torch.from_numpy(pictures)[good], rows[good]
