"""Download public data sets and verify their checksums; complete copies are left alone."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torchvision import datasets
from torchvision.datasets.utils import download_url

from .sources import read_idx
from .stl10_cifar10 import CIFAR10

SPLITS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")  # of EMNIST
FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "test") for kind in ("images-idx3", "labels-idx1")
)


def _cifar10(root: Path) -> None:
    url, md5 = CIFAR10  # torchvision's own loader downloads the pickled version
    download_url(url, root, md5=md5)


def _idx(dataset: Callable[..., object], root: Path, **options: str) -> None:
    """Download a data set of IDX files with torchvision's class for it."""
    raw = root / dataset.__name__ / "raw"
    # torchvision does not check existing files; it unpacks only those that are missing.
    for file in _damaged(raw):
        file.unlink()
    expected = []
    if "split" in options:
        # torchvision looks only for this split's files: without its first file it unpacks all.
        expected = [raw / f"emnist-{split}-{file}" for split in SPLITS for file in FILES]
        if not all(file.exists() for file in expected):
            (raw / f"emnist-{options['split']}-{FILES[0]}").unlink(missing_ok=True)
    dataset(root, download=True, **options)
    if damaged := _damaged(raw):
        raise OSError(f"{damaged[0]} is damaged")
    if missing := [file for file in expected if not file.exists()]:
        raise OSError(f"{missing[0]} is missing")


def _damaged(raw: Path) -> list[Path]:
    """The damaged IDX files in a folder."""
    damaged = []
    for file in sorted(raw.glob("*-ubyte")):
        try:
            read_idx(file)
        except ValueError:
            damaged.append(file)
    return damaged


SETS: dict[str, Callable[[Path], object]] = {
    "stl10": lambda root: datasets.STL10(root, split="test", download=True),
    "cifar10": _cifar10,
    "mnist": partial(_idx, datasets.MNIST),
    "fashion_mnist": partial(_idx, datasets.FashionMNIST),
    "emnist": partial(_idx, datasets.EMNIST, split="balanced"),
}


def download(name: str, where: Path) -> str | None:
    """Download a data set unless it is there.

    Args:
        name: a key of `SETS`.
        where: folder for it, created if missing.

    Returns:
        one line on what went wrong and what to do; None if the complete set is there.
    """
    try:
        where.mkdir(parents=True, exist_ok=True)
        SETS[name](where)
    except (OSError, RuntimeError) as error:  # no network, a full disk, another checksum
        reason = " ".join(str(error).split()) or type(error).__name__
        return (
            f"{name}: cannot be downloaded to {where} ({reason}); check the network and the disk, "
            "then run this again"
        )
    return None
