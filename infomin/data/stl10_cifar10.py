"""Data sets that are downloaded once and then lie on disk: STL-10 and CIFAR-10. Nothing here downloads or unpickles anything."""

import os
import tarfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from .image_io import Bytes, resize

# The archive, from which it is read: its makers give a checksum of that and of none of the files in it.
CIFAR10 = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
)

Parts: TypeAlias = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def data_root() -> Path:
    """Where downloaded sets lie: the environment variable INFOMIN_DATA, or `data` in the working directory."""
    return Path(os.path.expanduser(os.environ.get("INFOMIN_DATA") or "data"))


@lru_cache(maxsize=1)
def stl10(where: Path, size: int) -> Parts:
    """STL-10 (Coates, Ng, Lee, 2011): 5,000 labelled and then 100,000 unlabelled images to train on, and 8,000 to test.

    Args:
        where: folder that holds `stl10_binary`; its files are checked.
        size: side in pixels that the images, of 96 px, are scaled to.

    Returns:
        (uint8 `[105000, 3, size, size]`, long `[105000]`, -1 where unlabelled), and the same of the test.

    Raises:
        FileNotFoundError: files are missing or damaged.
    """
    from torchvision.datasets import STL10

    try:
        STL10(where, split="test")  # which holds all files against their checksums
    except RuntimeError as error:
        raise _missing("stl10", where, f"the files of {STL10.base_folder}") from error
    # Mapped, not read: otherwise the unlabelled images and their scaled copy would be in memory at once.
    files = {
        path.stem: np.memmap(path, np.uint8, "r")
        for path in (where / STL10.base_folder).glob("*.bin")
    }
    train, rest, test = (
        files[f"{part}_X"].reshape(-1, 3, 96, 96).swapaxes(2, 3)
        for part in ("train", "unlabeled", "test")
    )
    labels, test_labels = (
        torch.from_numpy(np.array(files[f"{part}_y"])).long() - 1 for part in ("train", "test")
    )
    labels = torch.cat([labels, torch.full((len(rest),), -1)])
    return (resize_arrays([train, rest], size), labels), (resize_arrays([test], size), test_labels)


@lru_cache(maxsize=1)
def cifar10(where: Path, size: int) -> Parts:
    """CIFAR-10 (Krizhevsky, 2009) from its binary version: 50,000 images to train on and 10,000 to test.

    Args:
        where: folder that holds the archive; it is checked.
        size: side in pixels that the images, of 32 px, are scaled to.

    Returns:
        (uint8 `[50000, 3, size, size]`, long `[50000]`), and the same of the test.

    Raises:
        FileNotFoundError: the archive is missing or damaged.
    """
    from torchvision.datasets.utils import check_integrity

    url, md5 = CIFAR10
    archive = where / Path(url).name
    if not check_integrity(archive, md5):
        raise _missing("cifar10", where, archive.name)
    with tarfile.open(archive) as tar:
        files = {
            Path(member.name).name: tar.extractfile(member)
            for member in tar
            if member.name.endswith(".bin")
        }
        records = {
            name: np.frombuffer(file.read(), np.uint8).reshape(-1, 3073)
            for name, file in files.items()
            if file
        }

    def part(*names: str) -> tuple[Tensor, Tensor]:
        labels = np.concatenate([records[name][:, 0] for name in names])
        images = [records[name][:, 1:].reshape(-1, 3, 32, 32) for name in names]
        return resize_arrays(images, size), torch.from_numpy(labels).long()

    return part(*(f"data_batch_{i}.bin" for i in range(1, 6))), part("test_batch.bin")


def _missing(name: str, where: Path, what: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"data {name!r}: got no whole copy of it in {where}, wanted {what}; run python data_tools/fetch.py {name}, "
        "or set INFOMIN_DATA to the folder that holds it"
    )


def resize_arrays(arrays: Sequence[Bytes], size: int) -> Tensor:
    """Images of several arrays in one tensor, scaled with antialias where they are not of this size; a thousand at a time.

    Args:
        arrays: uint8 `[N, 3, H, W]` each.
        size: side in pixels.

    Returns:
        uint8 `[sum of N, 3, size, size]`.

    >>> resize_arrays([np.zeros((2, 3, 96, 96), np.uint8), np.ones((1, 3, 96, 96), np.uint8)], 32).shape
    torch.Size([3, 3, 32, 32])
    """
    images = torch.empty(sum(map(len, arrays)), 3, size, size, dtype=torch.uint8)
    rest = images
    for array in arrays:
        for start in range(0, len(array), 1000):
            some = resize(torch.from_numpy(np.array(array[start : start + 1000])), size)
            rest[: len(some)] = some
            rest = rest[len(some) :]
    return images
