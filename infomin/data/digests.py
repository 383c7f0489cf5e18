"""Digests of data on disk, so that a run on changed files gets another ID."""

import hashlib
import os
import re
from pathlib import Path

from .image_folder import find_images

READ, END = 1000, 4096  # how many files of a folder are opened; bytes hashed at each of their ends


def clip_sources(name: str) -> tuple[str, str]:
    """The digits and the backgrounds of `clips:DIGITS@BACKGROUNDS`; paths may contain an @.

    >>> clip_sources("clips:folder:me@home@photos")
    ('folder:me@home', 'photos')
    """
    words = name.removeprefix("clips:")
    match = re.fullmatch("(.*?)@(photos|stl10|folder:.*)", words, re.DOTALL)
    if match:
        return match[1], match[2]
    digits, _, backgrounds = words.partition("@")
    return digits, backgrounds


def data_digest(data: str) -> str:
    """Digest of the files of a data set that the user names by a path; empty for all others.

    For image files it covers all names, and the size and both ends of 1,000 files spread evenly:
    reading every file of a million on a network drive would take longer than the run. For IDX files
    it covers the whole content. A path that does not exist is reported when the data are loaded.

    Args:
        data: as for `datasets.load`.

    Returns:
        64 hex digits, or an empty string.

    >>> data_digest("clips:mnist@stl10")
    ''
    """
    words = clip_sources(data) if data.startswith("clips:") else (data,)
    contents = []
    for word in words:
        kind, _, path = word.partition(":")
        if kind == "folder":
            contents.append(_folder_content(Path(os.path.expanduser(path))))
        elif kind == "idx":
            contents.append(_idx_content(Path(os.path.expanduser(path))))
    return hashlib.sha256(repr(contents).encode()).hexdigest() if contents else ""


def _folder_content(folder: Path) -> list[str]:
    files = find_images(folder) if folder.is_dir() else []
    sample = files[:: max(1, -(-len(files) // READ))]
    names = [file[len(str(folder)) :] for file in files]
    return [*names, *map(_ends, sample)]


def _ends(path: str) -> str:
    """A file's size and the hash of its two ends; empty if it cannot be opened."""
    try:
        if not os.path.isfile(path):  # opening a pipe would block for ever
            return ""
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(END)
            file.seek(max(0, size - END))
            return f"{size} {hashlib.sha256(head + file.read(END)).hexdigest()}"
    except OSError:  # reported when the images are read
        return ""


def _idx_content(path: Path) -> list[str]:
    """Names and hashes of the IDX files in a folder, or of one file and those beside it.

    The files beside it are included because one of them holds its labels.
    """
    folder = path if path.is_dir() else path.parent
    files = sorted(file for file in folder.glob("*") if _looks_like_idx(file))
    if path.is_file() and path not in files:
        files.append(path)
    return [f"{file.name} {_file_hash(file)}" for file in files]


def _looks_like_idx(file: Path) -> bool:
    name = file.name.lower()
    return file.is_file() and ("idx" in name or "labels" in name)


def _file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
