"""STL-10 and CIFAR-10, read from disk. Nothing here downloads or unpickles anything."""

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

# The archive is read as it is: its authors publish a checksum for it, but none for the files in it.
CIFAR10 = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
)

# (images, labels) of the training part, and of the test part.
Parts: TypeAlias = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def data_root() -> Path:
    """The folder of downloaded data sets: INFOMIN_DATA, or `data` in the working directory."""
    return Path(os.path.expanduser(os.environ.get("INFOMIN_DATA") or "data"))


@lru_cache(maxsize=1)
def stl10(where: Path, size: int) -> Parts:
    """Read STL-10: 5,000 labelled, then 100,000 unlabelled training images; 8,000 test images.

    Args:
        where: the folder that holds `stl10_binary`; its files are checked.
        size: side in pixels that the images of 96 px are scaled to.

    Returns:
        (uint8 `[105000, 3, size, size]`, long `[105000]`, -1 if unlabelled) for training, and the
        same for the test.

    Raises:
        FileNotFoundError: files are missing or damaged.

    Source: Coates, Ng, Lee, 2011.
    """
    from torchvision.datasets import STL10

    try:
        STL10(where, split="test")  # verifies the checksums of all files
    except RuntimeError as error:
        raise _missing("stl10", where, f"the files of {STL10.base_folder}") from error
    # Memory-mapped: reading would hold the unlabelled images and their scaled copy at once.
    files = {
        path.stem: np.memmap(path, np.uint8, "r")
        for path in (where / STL10.base_folder).glob("*.bin")
    }
    # Images are stored column by column, classes from 1.
    train, unlabelled, test = (
        files[f"{part}_X"].reshape(-1, 3, 96, 96).swapaxes(2, 3)
        for part in ("train", "unlabeled", "test")
    )
    train_labels, test_labels = (
        torch.from_numpy(np.array(files[f"{part}_y"])).long() - 1 for part in ("train", "test")
    )
    labels = torch.cat([train_labels, torch.full((len(unlabelled),), -1)])
    images = resize_arrays([train, unlabelled], size)
    return (images, labels), (resize_arrays([test], size), test_labels)


@lru_cache(maxsize=1)
def cifar10(where: Path, size: int) -> Parts:
    """Read CIFAR-10 from its binary version: 50,000 training and 10,000 test images.

    Args:
        where: the folder that holds the archive; it is checked.
        size: side in pixels that the images of 32 px are scaled to.

    Returns:
        (uint8 `[50000, 3, size, size]`, long `[50000]`) for training, and the same for the test.

    Raises:
        FileNotFoundError: the archive is missing or damaged.

    Source: Krizhevsky, 2009.
    """
    from torchvision.datasets.utils import check_integrity

    url, md5 = CIFAR10
    archive = where / Path(url).name
    if not check_integrity(archive, md5):
        raise _missing("cifar10", where, archive.name)
    records = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".bin") else None
            if file:  # a record is a label, then the pixels
                record = np.frombuffer(file.read(), np.uint8).reshape(-1, 3073)
                records[Path(member.name).name] = record

    def part(*names: str) -> tuple[Tensor, Tensor]:
        labels = np.concatenate([records[name][:, 0] for name in names])
        images = [records[name][:, 1:].reshape(-1, 3, 32, 32) for name in names]
        return resize_arrays(images, size), torch.from_numpy(labels).long()

    return part(*(f"data_batch_{i}.bin" for i in range(1, 6))), part("test_batch.bin")


def _missing(name: str, where: Path, wanted: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"data {name!r}: got no complete copy in {where}, wanted {wanted}; run python "
        f"data_tools/fetch.py {name}, or set INFOMIN_DATA to the folder that holds it"
    )


def resize_arrays(arrays: Sequence[Bytes], size: int) -> Tensor:
    """Scale the images of several arrays into one tensor, a thousand at a time; see `resize`.

    Args:
        arrays: uint8 `[N, 3, H, W]` each.
        size: side in pixels.

    Returns:
        uint8 `[sum of N, 3, size, size]`.

    >>> arrays = [np.zeros((2, 3, 96, 96), np.uint8), np.ones((1, 3, 96, 96), np.uint8)]
    >>> resize_arrays(arrays, 32).shape
    torch.Size([3, 3, 32, 32])
    """
    images = torch.empty(sum(map(len, arrays)), 3, size, size, dtype=torch.uint8)
    filled = 0
    for array in arrays:
        for start in range(0, len(array), 1000):
            chunk = resize(torch.from_numpy(np.array(array[start : start + 1000])), size)
            images[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
    return images
