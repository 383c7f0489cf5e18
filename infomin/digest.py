"""What tells data on disk from what they were, so that a run of other data is another run."""

import hashlib
import os
from pathlib import Path

from .folder import find

SIZED = 1000  # files of a folder whose sizes count


def digest(data: str) -> str:
    """What the files of a data set are told by, for those that a user names by a path; empty for all others.

    Of image files it is their names and the sizes of a thousand, spread evenly: of a million files on a network, more would take
    longer than the run. Of IDX files, which are of one size whatever they show, it is what they hold. That a path leads nowhere
    is said when it is read.

    Args:
        data: as for `data.load`.

    Returns:
        64 hex digits, or nothing.

    >>> digest("clips:mnist@stl10")
    ''
    """
    words = data.removeprefix("clips:").split("@", 1) if data.startswith("clips:") else [data]
    found = [(kind, Path(path).expanduser()) for kind, _, path in (word.partition(":") for word in words)]
    told = [_images(path) if kind == "folder" else _idx(path) for kind, path in found if kind in ("folder", "idx")]
    return hashlib.sha256(repr(told).encode()).hexdigest() if told else ""


def _images(folder: Path) -> list[str | int]:
    files = find(folder) if folder.is_dir() else []
    some = files[:: max(1, len(files) // SIZED)]
    return [*(os.path.relpath(file, folder) for file in files), *(os.path.getsize(file) for file in some if os.path.exists(file))]


def _idx(path: Path) -> list[str]:
    """Of the IDX files in a folder; of one file and those beside it, among which are its labels."""
    beside = (path if path.is_dir() else path.parent).glob("*")
    files = sorted(file for file in beside if file.is_file() and ("idx" in file.name.lower() or "labels" in file.name.lower()))
    if path.is_file() and path not in files:
        files.append(path)
    return [f"{file.name} {_content(file)}" for file in files]


def _content(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
