"""IDX files that the tests write, and the worlds that are read from them."""

import gzip
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from infomin.data.scenes import World

Pixels = NDArray[np.uint8]
FOUR = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
SPELLINGS = {
    "plain": FOUR,
    "gzipped": tuple(f"{name}.gz" for name in FOUR),
    "dots": tuple(name.replace("-idx", ".idx") for name in FOUR),
    "test": tuple(name.replace("t10k", "test") for name in FOUR),
    "prefixed": tuple(f"emnist-letters-{name.replace('t10k', 'test')}" for name in FOUR),
    "mixed": (FOUR[0] + ".gz", FOUR[1].replace("-", "_"), FOUR[2].upper(), FOUR[3] + ".gz"),
}


def idx(values: NDArray[np.generic], code: int = 8) -> bytes:
    """The bytes of an IDX file, written from its definition; code 8 is uint8."""
    shape = b"".join(n.to_bytes(4, "big") for n in values.shape)
    return bytes([0, 0, code, values.ndim]) + shape + values.tobytes()


def write_idx(path: Path, values: Pixels) -> None:
    """Write an IDX file, gzipped if its name ends in .gz."""
    content = idx(values)
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)


def noise(n: int, seed: int, shape: tuple[int, ...] = (28, 28)) -> Pixels:
    """Random pictures: no two alike, and none equal to its transpose."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def write_set(
    folder: Path, names: tuple[str, ...] = FOUR, seed: int = 0, first: int = 0, classes: int = 10
) -> dict[str, Pixels]:
    """Write a tiny set of 4 training and 2 test pictures a class, unsorted.

    Returns:
        the arrays `train`, `train_labels`, `test` and `test_labels`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Pixels] = {}
    for part, n in (("train", 4 * classes), ("test", 2 * classes)):
        arrays[part] = noise(n, seed + n)
        labels = np.random.default_rng(seed + n + 1).permutation(np.arange(n) % classes)
        arrays[f"{part}_labels"] = (first + labels).astype(np.uint8)
    for name, values in zip(names, arrays.values(), strict=True):
        write_idx(folder / name, values)
    return arrays


def is_world_of(world: World, ink: Pixels, labels: Pixels) -> bool:
    """Whether the digits of a world are these pictures, unscaled, in this order."""
    same_ink = torch.equal(world.digits, torch.from_numpy(ink))
    return same_ink and world.digit_class.tolist() == labels.tolist()


def shared_pictures(one: torch.Tensor, other: torch.Tensor) -> set[bytes]:
    """The pictures that are in both banks."""
    return pictures_in(one) & pictures_in(other)


def pictures_in(bank: torch.Tensor) -> set[bytes]:
    """The different pictures of a bank."""
    return {picture.tobytes() for picture in bank.flatten(1).numpy()}
