"""Download data sets and hold them against their checksums; what is there already and whole is left alone.

    python data_tools/fetch.py stl10 cifar10                  # into INFOMIN_DATA, or data/ in the working directory
    python data_tools/fetch.py mnist --root elsewhere

stl10 is 2.6 GB to download and 3 GB on disk, cifar10 162 MB, emnist 560 MB, mnist 12 MB and fashion_mnist 31 MB. The last three
are raw IDX files, digits for clips: `--data clips:mnist@photos`. Exit status: 0 when all is there, 2 when something is missing.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser
from torchvision import datasets
from torchvision.datasets.utils import download_url

from infomin.data.sources import read_idx
from infomin.data.stl10_cifar10 import CIFAR10, data_root

SPLITS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")  # of EMNIST
FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "test") for kind in ("images-idx3", "labels-idx1")
)


def _cifar10(where: Path) -> None:
    url, md5 = CIFAR10  # torchvision's own loader fetches the version that has to be unpickled
    download_url(url, where, md5=md5)


def _idx(made: Callable[..., object], where: Path, **how: str) -> None:
    raw = where / made.__name__ / "raw"  # type: ignore[attr-defined]
    for file in _damaged(raw):
        file.unlink()  # torchvision looks whether files are there, not what they hold; this one it unpacks again
    wanted = (
        [raw / f"emnist-{split}-{file}" for split in SPLITS for file in FILES]
        if "split" in how
        else []
    )
    if how and not all(file.exists() for file in wanted):  # it looks for those of the split alone
        (raw / f"emnist-{how['split']}-{FILES[0]}").unlink(missing_ok=True)
    made(where, download=True, **how)
    if left := _damaged(raw):
        raise OSError(f"{left[0]} is damaged")
    if lacking := [file for file in wanted if not file.exists()]:
        raise OSError(f"{lacking[0]} is missing")


def _damaged(raw: Path) -> list[Path]:
    """The IDX files in a folder that are not whole."""
    found = []
    for file in sorted(raw.glob("*-ubyte")):
        try:
            read_idx(file)
        except ValueError:
            found.append(file)
    return found


SETS: dict[str, Callable[[Path], object]] = {
    "stl10": lambda where: datasets.STL10(where, split="test", download=True),
    "cifar10": _cifar10,
    "mnist": partial(_idx, datasets.MNIST),
    "fashion_mnist": partial(_idx, datasets.FashionMNIST),
    "emnist": partial(_idx, datasets.EMNIST, split="balanced"),
}


def fetch(name: str, where: Path) -> str | None:
    """Download a set unless it is there.

    Args:
        name: a key of `SETS`.
        where: folder for it, made if missing.

    Returns:
        what went wrong and what to do, in one line; None if the set is there and whole.
    """
    try:
        where.mkdir(parents=True, exist_ok=True)
        SETS[name](where)
    except (OSError, RuntimeError) as error:  # no network, no room, another checksum
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"{name}: could not be fetched into {where} ({reason}); check the network and the disk, then run this again"
    return None


def main(words: list[str] | None = None) -> int:
    """Fetch what the command line names; returns the exit status."""
    parser = ArgumentParser(prog="fetch.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "names", nargs="+", choices=list(SETS), help=f"What to fetch: {', '.join(SETS)}."
    )
    parser.add_argument(
        "--root",
        type=str,
        default="",
        help="Where to; by default INFOMIN_DATA, or data in the working directory.",
    )
    options = parser.parse_args(words)
    where, missing = Path(os.path.expanduser(options.root)) if options.root else data_root(), False
    for name in dict.fromkeys(options.names):
        wrong = fetch(name, where)
        missing |= wrong is not None
        print(
            wrong or f"{name}: is in {where}, whole",
            file=sys.stderr if wrong else sys.stdout,
            flush=True,
        )
    return 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
