"""What tells data on disk from what they were, so that a run of other data is another run."""

import hashlib
import os
import re
from pathlib import Path

from .image_folder import find_images

READ, END = 1000, 4096  # files of a folder that are looked into, and how many bytes of each end


def clip_sources(name: str) -> tuple[str, str]:
    """The digits and the backgrounds of `clips:DIGITS@BACKGROUNDS`; a path may have an @ of its own.

    >>> clip_sources("clips:folder:me@home@photos")
    ('folder:me@home', 'photos')
    """
    rest = name.removeprefix("clips:")
    found = re.fullmatch("(.*?)@(photos|stl10|folder:.*)", rest, re.DOTALL)
    digits, _, backgrounds = rest.partition("@")
    return (found[1], found[2]) if found else (digits, backgrounds)


def data_digest(data: str) -> str:
    """What the files of a data set are told by, for those that a user names by a path; empty for all others.

    Of image files it is their names, and of a thousand, spread evenly, their sizes and both ends: of a million files on a
    network, more would take longer than the run. Of IDX files it is all that they hold. That a path leads nowhere is said when it
    is read.

    Args:
        data: as for `data.load`.

    Returns:
        64 hex digits, or nothing.

    >>> data_digest("clips:mnist@stl10")
    ''
    """
    named = clip_sources(data) if data.startswith("clips:") else (data,)
    found = [
        (kind, Path(os.path.expanduser(path)))
        for kind, _, path in (word.partition(":") for word in named)
    ]
    told = [
        _images(path) if kind == "folder" else _idx(path)
        for kind, path in found
        if kind in ("folder", "idx")
    ]
    return hashlib.sha256(repr(told).encode()).hexdigest() if told else ""


def _images(folder: Path) -> list[str]:
    files = find_images(folder) if folder.is_dir() else []
    some = files[:: max(1, -(-len(files) // READ))]
    return [*(file[len(str(folder)) :] for file in files), *map(_ends, some)]


def _ends(path: str) -> str:
    """A file's size and ends; nothing of one that cannot be opened, which is told of when it is read."""
    try:
        if not os.path.isfile(path):  # to open a pipe would wait for ever
            return ""
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(END)
            file.seek(max(0, size - END))
            return f"{size} {hashlib.sha256(first + file.read(END)).hexdigest()}"
    except OSError:
        return ""


def _idx(path: Path) -> list[str]:
    """Of the IDX files in a folder; of one file and those beside it, among which are its labels."""
    beside = (path if path.is_dir() else path.parent).glob("*")
    files = sorted(
        file
        for file in beside
        if file.is_file() and ("idx" in file.name.lower() or "labels" in file.name.lower())
    )
    if path.is_file() and path not in files:
        files.append(path)
    return [f"{file.name} {_content(file)}" for file in files]


def _content(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
