"""Digests of data on disk, so that a run on changed files gets another ID."""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from tqdm import tqdm

from ..common.files import atomic_write
from .image_folder import find_images
from .image_io import MOST_PIXELS, pixel_limit

AT_A_TIME = 1000  # files that wait to be hashed
TICK = 0.02  # seconds; file systems store times in steps of up to 10 ms

# Path of a file -> its size, the times of its last changes, its inode, and its sha256.
Hashes: TypeAlias = dict[str, list[int | str]]


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

    It covers the name and every byte of every file. A path that does not exist is reported when the
    data are loaded.

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
        where = Path(os.path.expanduser(path))
        if kind == "folder":
            contents.append(file_hashes(where, find_images(where) if where.is_dir() else []))
            if (limit := pixel_limit()) != MOST_PIXELS:  # decides which files are unreadable
                contents.append([f"{limit} pixels"])
        elif kind == "idx":
            contents.append(file_hashes(*_idx_files(where)))
    return hashlib.sha256(repr(contents).encode()).hexdigest() if contents else ""


def file_hashes(folder: Path, paths: Sequence[str]) -> list[str]:
    """Names and sha256 of files in a folder; only the name where a file cannot be read.

    Hashes are remembered in the user's cache, so that the next call asks only for each file's size,
    times and inode. What the cache has lost is hashed again. Progress is shown after five seconds.
    """
    memory, names = _memory_of(folder), [path[len(str(folder)) :].lstrip(os.sep) for path in paths]
    known, states = _remembered(memory), [_state(path) for path in paths]
    hashes: Hashes = {}
    changed: list[tuple[str, str, list[int]]] = []
    for name, path, state in zip(names, paths, states, strict=True):
        if state and known.get(name, [])[:-1] == state:
            hashes[name] = known[name]
        elif state:
            changed.append((name, path, state))
    if changed:
        time.sleep(TICK)  # a file that changes from now on gets another time
        bar = tqdm(total=len(changed), desc=f"hash {folder}", unit="file", delay=5, leave=False)
        with bar, ThreadPoolExecutor() as pool:  # hashlib releases the GIL
            for start in range(0, len(changed), AT_A_TIME):
                some = changed[start : start + AT_A_TIME]
                digests = pool.map(_hash, [path for _, path, _ in some])
                for (name, _, state), digest in zip(some, digests, strict=True):
                    if digest:
                        hashes[name] = [*state, digest]
                    bar.update()
        _remember(memory, hashes)
    return [f"{name} {hashes[name][-1]}" if name in hashes else name for name in names]


def _idx_files(path: Path) -> tuple[Path, list[str]]:
    """A folder and the IDX files in it; of one file, its folder, those beside it and the file.

    The files beside it are included because one of them holds its labels.
    """
    folder = path if path.is_dir() else path.parent
    names = sorted(file.name for file in folder.glob("*") if file.is_file())
    names = [name for name in names if re.search("idx|labels", name.lower())]
    if path.is_file() and path.name not in names:
        names.append(path.name)
    return folder, [os.path.join(folder, name) for name in names]


def _state(path: str) -> list[int]:
    """What changes when a file changes; empty for what is no readable file."""
    try:
        found = os.stat(path)
    except OSError:  # reported when the images are read
        return []
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would block for ever
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # reported when the images are read
        return ""


def _memory_of(folder: Path) -> Path:
    """The file that remembers the hashes of a folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = hashlib.sha256(os.path.abspath(folder).encode(errors="surrogateescape")).hexdigest()
    return Path(cache, "infomin", "hashes", f"{name[:16]}.json")


def _remembered(memory: Path) -> Hashes:
    """The hashes in a file: its first line is the checksum of the rest, which is JSON."""
    with suppress(OSError, ValueError, RecursionError):
        checksum, _, content = memory.read_bytes().partition(b"\n")
        if checksum.decode() == hashlib.sha256(content).hexdigest():
            hashes: Hashes = json.loads(content)
            return hashes
    return {}


def _remember(memory: Path, hashes: Hashes) -> None:
    content = json.dumps(hashes, separators=(",", ":")).encode()
    checksum = hashlib.sha256(content).hexdigest()
    with suppress(OSError), atomic_write(memory) as file:  # no home, or read-only: slower next time
        file.write(f"{checksum}\n".encode() + content)
