"""What `infomin data fetch`, `patches` and `clips` do; each function returns the exit status."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from ..common.checks import check_choice
from . import shards
from .downloads import SETS, download
from .patch_files import cut_all
from .stl10_cifar10 import data_root

SHOWN = 8  # clips in a preview


def fetch(names: Sequence[str], root: str = "") -> int:
    """Download data sets and verify their checksums; complete copies are left alone.

    stl10 is 2.6 GB (3 GB on disk), cifar10 162 MB, emnist 560 MB, mnist 12 MB and fashion_mnist
    31 MB. The last three are digits for clips, as in `--data clips:mnist@photos`.

    Args:
        names: What to download: stl10, cifar10, mnist, fashion_mnist or emnist.
        root: Folder to download to; INFOMIN_DATA, or data in the working directory, by default.

    Returns:
        0 if everything is there, 2 if something is missing.
    """
    for name in names:
        check_choice(name, SETS, "data set")
    where = Path(os.path.expanduser(root)) if root else data_root()
    status = 0
    for name in dict.fromkeys(names):
        if problem := download(name, where):
            print(problem, file=sys.stderr, flush=True)
            status = 2
        else:
            print(f"{name}: complete in {where}", flush=True)
    return status


def patches(
    source: str,
    out: str,
    side: int = 256,
    per_image: int = 16,
    seed: int = 0,
    kind: Literal["png", "jpg"] = "png",
) -> int:
    """Cut square patches from photographs, to train on as data folder:OUT.

    Boxes are uniform and patches never enlarged: photographs that are too small are left out and
    counted. Every fifth photograph of a class is for the test, because patches of one photograph
    overlap. If interrupted, the same command resumes.

    Args:
        source: Folder of photographs, with or without subfolders.
        out: Folder for the patches.
        side: Side of a patch in pixels.
        per_image: Patches of a photograph.
        seed: Seed of the boxes.
        kind: File format of the patches: png, or jpg of quality 95.

    Returns:
        0.
    """
    folder = Path(os.path.expanduser(out))
    source_folder = Path(os.path.expanduser(source))
    count, left_out = cut_all(source_folder, folder, side, per_image, seed, kind)
    for line in left_out:
        print(line, file=sys.stderr)
    outcomes = [name for name in ("cut", "there", "too small", "unreadable") if count[name]]
    print(", ".join(f"{count[name]} {name}" for name in outcomes) + f"; {folder}")
    return 0


def clips(out: str, *, verify: bool = False, preview: str = "", **settings: Any) -> int:
    """Write clips of handwritten digits that move over photographs, which ClipShards reads.

    10,000 clips of 20 frames of 64 px are 2.5 GB on disk; memory is that of a few shards, for any
    number of clips. If interrupted, the same command resumes and ends with the same bytes; run
    again, it replaces missing and damaged shards.

    Args:
        out: Folder of the data set.
        verify: Write nothing; compare the checksums of the data set. Other settings are ignored.
        preview: Write only a picture of the first clips, a .gif that moves or a .png of all frames;
            of the data set if it exists, otherwise of the one that would be written.
        settings: As for `shards.write`.

    Returns:
        0 on success, 1 if verification finds a problem.
    """
    if verify:
        problems = shards.verify(out, bar=True)
        print("\n".join(problems) or f"{out}: complete")
        return 1 if problems else 0
    if preview:
        _preview(out, preview, settings)
        print(preview)
        return 0
    written = shards.write(out, bar=True, **settings)
    config = shards.ClipShards(out).config
    total = -(-config["clips"] // config["shard"])
    print(f"{len(written)} shards written, {total - len(written)} already there; {out}")
    return 0


def _preview(out: str, picture: str, settings: dict[str, Any]) -> None:
    if (Path(out) / shards.MANIFEST).exists():
        shards.preview(out, picture, SHOWN)
        return
    count = min(SHOWN, settings.get("clips", SHOWN))
    with TemporaryDirectory() as scratch:
        shards.write(scratch, **{**settings, "clips": count})
        shards.preview(scratch, picture, SHOWN)
