"""Rows on disk that survive a crash: whole files, logs, locks, and the table that gathers them.

Every whole file is written beside its final place, flushed and renamed: a reader sees the older file or the newer one, never a
part. Only the log is appended to, and its reader forgives the one line that a crash can tear. JSON has no NaN or Inf: null stands
in their place (the `status` of a diverged run says why), and finite floats come back bit by bit.
"""

import errno
import hashlib
import json
import math
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where `lock` says so; views and their files need none
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]


class Locked(RuntimeError):
    """Another holder has the folder."""


@contextmanager
def atomic_write(path: PathLike) -> Iterator[BinaryIO]:
    """Yield a binary file whose bytes stand at `path`, all of them, once the block ends; if it fails the older file is as it was.

    Args:
        path: the file to write; its folder is made if missing.

    Raises:
        OSError: the disk is full, read-only or not there; the message says what to do, and no temporary file is left.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise _unwritten(error, path) from error
        raise
    with suppress(
        OSError
    ):  # the file is in its place, and some network file systems cannot flush a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _unwritten(error: OSError, path: Path) -> OSError:
    space = "free some space or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        space = "there is a file where a folder is wanted; "
    do = f"{space}choose a folder that can be written, then run the same command again"
    said = f"cannot write {path.name} in {path.parent}: {error.strerror or error}; what was there is as it was; {do}"
    return OSError(error.errno or errno.EIO, said)


def to_plain(x: Any, whole: bool = False) -> Any:
    """Numbers of numpy and torch as Python's own, tuples as lists, NaN and Inf as None; with `whole` also 1.0 as 1."""
    if isinstance(x, Mapping):
        return {str(name): to_plain(value, whole) for name, value in x.items()}
    if isinstance(x, list | tuple):
        return [to_plain(value, whole) for value in x]
    if hasattr(x, "tolist"):
        return to_plain(x.tolist(), whole)
    if isinstance(x, float) and not math.isfinite(x):
        return None
    return int(x) if whole and isinstance(x, float) and x.is_integer() else x


def _line(x: Any) -> bytes:
    return json.dumps(to_plain(x), allow_nan=False, separators=(",", ":")).encode() + b"\n"


def write_json(path: PathLike, obj: Any) -> None:
    """Write one JSON file atomically; NaN and Inf become null, numpy and torch numbers become plain ones.

    Raises:
        OSError: it cannot be written; an older file is as it was.
        TypeError: `obj` holds something that JSON has no word for.
    """
    text = json.dumps(to_plain(obj), allow_nan=False, indent=2)
    with atomic_write(path) as file:
        file.write(text.encode() + b"\n")


def read_json(path: PathLike) -> Any:
    """Read one JSON file; a truncated one is a ValueError that says what to do."""
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError as error:  # a JSONDecodeError or a UnicodeDecodeError
        raise ValueError(
            f"{path}: wanted a whole JSON file, got {error}; delete it and run the same command again, this run will be repeated"
        ) from error


def write_jsonl(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows into one .jsonl file atomically, one JSON object a line, in the order given; `report.rows.read_rows` takes the file back."""
    with atomic_write(path) as file:
        file.writelines(map(_line, rows))


def key(recipe: Mapping[str, Any]) -> str:
    """Return the name of a recipe: 12 hex digits of the sha256 of its canonical JSON (sorted keys, no spaces).

    Equal recipes have equal keys: the order of the fields, lists or tuples, and 1 or 1.0 make no difference.

    >>> key({"view": "color:lab", "tau": 1}) == key({"tau": 1.0, "view": "color:lab"})
    True
    """
    text = json.dumps(
        to_plain(recipe, whole=True), allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def append_jsonl(path: PathLike, row: Mapping[str, Any]) -> None:
    """Append one JSON object to a log, in one write: a killed process loses nothing, a power cut the last few lines."""
    line = _line(row)
    try:
        with open(path, "ab", buffering=0) as file:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise _unwritten(error, Path(path)) from error


def read_log(path: PathLike, upto_step: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of a log up to a step; a torn last line is left out, no file is an empty log, another bad line an error."""
    if not Path(path).exists():
        return []
    lines = read_lines(path)
    if bad := [number for number, row in lines[:-1] if row is None]:
        raise ValueError(
            f"{path}: wanted one JSON object a line, got something else in line {bad[0]}; "
            "delete that line, or the folder of this run to repeat it"
        )
    rows = [row for _, row in lines if row is not None]
    return [row for row in rows if upto_step is None or row.get("step", 0) <= upto_step]


def truncate_log(path: PathLike, step: int) -> None:
    """Drop, atomically, the lines later than `step`: a run that goes on from its checkpoint will write them again.

    A torn last line goes too, or the next would be joined to it. A missing log stays missing.
    """
    if Path(path).exists():
        write_jsonl(path, read_log(path, step))


def read_lines(path: PathLike) -> list[tuple[int, dict[str, Any] | None]]:
    """The lines of a .jsonl file: each one's number, from 1, and its row, None where it is not a JSON object."""
    lines = enumerate(Path(path).read_bytes().split(b"\n"), start=1)
    return [(number, read_object(line)) for number, line in lines if line.strip()]


def read_object(text: bytes | Path) -> dict[str, Any] | None:
    try:
        row = json.loads(text.read_bytes() if isinstance(text, Path) else text)
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) else None


@contextmanager
def lock(folder: PathLike) -> Iterator[None]:
    """Hold a folder for this block alone; the kernel lets go of it when the process ends, kill -9 included.

    The file `.lock` stays behind on purpose: if it were deleted, a process that had opened the old file and one that made a
    new file could each lock its own and both believe to be alone. What a killed writer left half-written in the folder goes.

    Raises:
        Locked: it is held, by another process or by this one.
        OSError: it cannot be written, or this system has no flock.
    """
    if fcntl is None:
        raise OSError(
            errno.ENOLCK,
            f"cannot lock {folder}: this system has no flock; on Windows work under WSL",
        )
    folder, owner = Path(folder), os.getpid()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(
            folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666
        )  # programs started from here do not inherit it
    except OSError as error:
        raise _unwritten(error, folder / ".lock") from error
    try:
        _take(handle, folder)
        yield
    finally:
        if (
            os.getpid() == owner
        ):  # a forked child shares the lock: it may leave this block too, and must not unlock ours
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _take(handle: int, folder: Path) -> None:
    me = f"process {os.getpid()} on {socket.gethostname()}"
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, me.encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(handle, 300, 0).decode(errors="replace") or "another process"
        raise Locked(
            f"{folder} is in use by {holder}{' (this very process)' * (holder == me)}; wait, or choose another folder"
        ) from error
    except OSError as error:
        raise _unwritten(error, folder / ".lock") from error
    for part in folder.glob(".*.[0-9]*.tmp"):  # a table or a figure may be written without the lock
        if not _lives(part.suffixes[-2][1:]):
            part.unlink(missing_ok=True)


def _lives(process: str) -> bool:
    """Whether there is such a process on this machine; one that has ended stays listed until it is reaped."""
    try:
        os.kill(int(process), 0)
    except (OSError, OverflowError, ValueError) as error:
        return isinstance(error, PermissionError)  # another user's
    with suppress(OSError):  # no Linux, or gone by now
        return b") Z" not in Path(f"/proc/{process}/stat").read_bytes()
    return True
