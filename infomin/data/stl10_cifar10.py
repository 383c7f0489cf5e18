"""STL-10 and CIFAR-10, read from disk. Nothing here downloads or unpickles anything."""

import os
import tarfile
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from .image_io import resize

# The archive is read as it is: its authors publish a checksum for it, but none for the files in it.
CIFAR10 = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
)

FETCH_HINT = "run infomin data fetch {}, or set INFOMIN_DATA to the folder that holds it"

# (images, labels) of the training part, and of the test part.
Parts: TypeAlias = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def data_root() -> Path:
    """The folder of downloaded data sets: INFOMIN_DATA, or `data` in the working directory."""
    return Path(os.path.expanduser(os.environ.get("INFOMIN_DATA") or "data"))


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
    parts = stl10_files(where, "data 'stl10'")
    train, labels = parts["train"]
    unlabelled, unknown = parts["unlabelled"]
    images = torch.empty(len(train) + len(unlabelled), 3, size, size, dtype=torch.uint8)
    resize(train, size, images[: len(train)])
    resize(unlabelled, size, images[len(train) :])
    test, test_labels = parts["test"]
    return (images, torch.cat([labels, unknown])), (resize(test, size), test_labels)


def stl10_files(where: Path, who: str) -> dict[str, tuple[Tensor, Tensor]]:
    """The parts `train`, `unlabelled` and `test` of STL-10, mapped into memory.

    Args:
        where: the folder that holds `stl10_binary`; its files are checked.
        who: what error messages start with.

    Returns:
        part -> images uint8 `[N, 3, 96, 96]`, not contiguous; labels long `[N]`, -1 if unknown.

    Raises:
        FileNotFoundError: files are missing or damaged.
    """
    from torchvision.datasets import STL10

    try:
        STL10(where, split="test")  # verifies the checksums of all files
    except RuntimeError as error:
        raise _missing(who, "stl10", where, f"the files of {STL10.base_folder}") from error
    parts = {}
    for part, name in (("train", "train"), ("unlabelled", "unlabeled"), ("test", "test")):
        # Memory-mapped: reading would hold the unlabelled images and their scaled copy at once.
        pixels = np.memmap(where / STL10.base_folder / f"{name}_X.bin", np.uint8, "c")
        # Images are stored column by column, classes from 1.
        images = torch.from_numpy(pixels.reshape(-1, 3, 96, 96).swapaxes(2, 3))
        labels = torch.full((len(images),), -1)
        if part != "unlabelled":
            stored = np.fromfile(where / STL10.base_folder / f"{name}_y.bin", np.uint8)
            labels = torch.from_numpy(stored).long() - 1
        parts[part] = images, labels
    return parts


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
        raise _missing("data 'cifar10'", "cifar10", where, archive.name)
    records = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".bin") else None
            if file:  # a record is a label, then the pixels
                record = np.frombuffer(file.read(), np.uint8).reshape(-1, 3073)
                records[Path(member.name).name] = record

    def part(*names: str) -> tuple[Tensor, Tensor]:
        labels = np.concatenate([records[name][:, 0] for name in names])
        images = np.concatenate([records[name][:, 1:] for name in names]).reshape(-1, 3, 32, 32)
        return resize(torch.from_numpy(images), size), torch.from_numpy(labels).long()

    return part(*(f"data_batch_{i}.bin" for i in range(1, 6))), part("test_batch.bin")


def _missing(who: str, name: str, where: Path, wanted: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"{who}: got no complete copy in {where}, wanted {wanted}; {FETCH_HINT.format(name)}"
    )
