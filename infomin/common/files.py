"""Files that survive a crash: atomic writes, JSON, append-only logs and folder locks.

Whole files are written under a temporary name, flushed and renamed: a reader sees the old file or
the new one, never a part. Only logs are appended to, and their reader ignores the one line that a
crash can cut short. JSON has no NaN or Inf; they become null (the `status` of a diverged run says
why). Finite floats keep every bit.
"""

import errno
import hashlib
import json
import math
import os
import secrets
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

try:
    import fcntl
except ImportError:  # Windows: only `lock` needs it, and raises an error there
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]
Row: TypeAlias = dict[str, str | float | int | bool | None]  # of a table

JSON_LIMIT = 2**24  # bytes of a JSON file; those of a run have a few thousand
LINES_LIMIT = 2**28  # bytes of a .jsonl file
AGAIN = "delete it and run the same command again to repeat this run"


class Locked(RuntimeError):
    """Somebody else holds the lock of the folder."""


def as_path(path: PathLike, what: str = "path") -> Path:
    """Return a path with `~` and `~NAME` expanded, as shells do not in `--out=~/runs`.

    Args:
        path: of a file or folder.
        what: what the path is for, for the message: `learn: out`.

    Raises:
        TypeError: not a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{what}: got {path!r}, wanted a path; pass a str or a pathlib.Path")
    return Path(os.path.expanduser(path))


@contextmanager
def atomic_write(path: PathLike) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces `path` when the block ends; if it fails, nothing changes.

    Threads, processes and machines may write the same file at the same time: the last one wins.
    Temporary files that killed writers left in the folder are deleted.

    Args:
        path: the file to write; its folder is created if missing.

    Raises:
        OSError: the disk is full, read-only or missing; the message says what to do, and no
            temporary file is left behind.
    """
    path, temporary = as_path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _delete_leftovers(path.parent)
        temporary, handle = _create_temporary(path)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows cannot rename an open file
            os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
        if isinstance(error, OSError):
            raise _write_error(error, path) from error
        raise
    with suppress(OSError):  # the file is complete; some network file systems cannot sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _create_temporary(path: Path) -> tuple[Path, int]:
    """Create and lock a file beside `path`: the kernel unlocks it when its writer dies."""
    while True:
        temporary = path.with_name(f".{path.name}.infomin-{secrets.token_hex(8)}.tmp")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks: no leftover is ever deleted
                fcntl.flock(handle, fcntl.LOCK_EX)
        if temporary.exists():  # not taken for a leftover before it was locked
            return temporary, handle
        os.close(handle)


def _delete_leftovers(folder: Path) -> None:
    """Delete the temporary files in a folder that no living writer has locked."""
    if fcntl is None:
        return
    for temporary in folder.glob(".*.infomin-*.tmp"):
        with suppress(OSError):  # locked, deleted by now, or another user's
            handle = os.open(temporary, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                temporary.unlink()
            finally:
                os.close(handle)


def _write_error(error: OSError, path: Path) -> OSError:
    hint = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space or "
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        hint = "there is a file where a folder is needed; "
    message = (
        f"cannot write {path.name} in {path.parent}: {error.strerror or error}; "
        f"existing files are unchanged; {hint}choose a folder that can be written, "
        "then run the same command again"
    )
    return OSError(error.errno or errno.EIO, message)


def to_plain(x: Any, *, whole_as_int: bool = False) -> Any:
    """Convert a value to plain JSON types.

    Numbers and arrays of numpy and torch become Python's, tuples become lists, NaN and Inf become
    None; with `whole_as_int`, 1.0 becomes 1.
    """
    convert = partial(to_plain, whole_as_int=whole_as_int)
    if isinstance(x, Mapping):
        return {str(name): convert(value) for name, value in x.items()}
    if isinstance(x, list | tuple):
        return [convert(value) for value in x]
    if hasattr(x, "tolist"):
        return convert(x.tolist())
    if isinstance(x, float) and not math.isfinite(x):
        return None
    return int(x) if whole_as_int and isinstance(x, float) and x.is_integer() else x


def _jsonl_line(x: Any) -> bytes:
    return json.dumps(to_plain(x), allow_nan=False, separators=(",", ":")).encode() + b"\n"


def write_json(path: PathLike, obj: Any) -> None:
    """Write one JSON file atomically; `to_plain` says what becomes of its values.

    Raises:
        OSError: the file cannot be written; an older one is unchanged.
        TypeError: `obj` holds something that JSON cannot represent.
    """
    text = json.dumps(to_plain(obj), allow_nan=False, indent=2)
    with atomic_write(path) as file:
        file.write(text.encode() + b"\n")


def read_bytes(path: PathLike, limit: int | None = None) -> bytes:
    """Read a whole file, but not one that never ends or fills the memory.

    Args:
        path: a regular file, or a link to one.
        limit: the most bytes that it may have.

    Raises:
        OSError: no such file, or it cannot be read.
        ValueError: a folder, device or pipe, or a larger file.
    """
    path = as_path(path)
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise ValueError(f"{path}: got {kind}, wanted a regular file; name or put one there")
    with open(path, "rb") as file:
        content = file.read() if limit is None else file.read(limit + 1)
    if limit is not None and len(content) > limit:
        raise ValueError(f"{path}: got more than {limit} bytes, wanted fewer; name another file")
    return content


def read_json(path: PathLike, remedy: str = AGAIN) -> dict[str, Any]:
    """Read one JSON object.

    Args:
        path: the file.
        remedy: what to do if it is missing or damaged, for the message.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged or too large, something other than an object, or no regular file.
    """
    try:
        stored = json.loads(read_bytes(path, JSON_LIMIT))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: wanted a JSON object, got no file; {remedy}") from error
    except (ValueError, RecursionError) as error:  # a JSONDecodeError, a UnicodeDecodeError, deep
        raise ValueError(
            f"{path}: wanted a whole JSON object, got one that cannot be read ({error}); {remedy}"
        ) from error
    if not isinstance(stored, dict):
        raise ValueError(
            f"{path}: wanted a whole JSON object, got {type(stored).__name__}; {remedy}"
        )
    return stored


def write_jsonl(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows to one .jsonl file atomically, one JSON object per line, in the given order.

    `report.rows.read_rows` reads the file.
    """
    with atomic_write(path) as file:
        file.writelines(map(_jsonl_line, rows))


def hash_json(content: Mapping[str, Any]) -> str:
    """12 hex digits: the start of the sha256 of canonical JSON (sorted keys, no spaces).

    The order of fields, lists or tuples, and 1 or 1.0 make no difference.

    >>> hash_json({"view": "color:lab", "tau": 1}) == hash_json({"tau": 1.0, "view": "color:lab"})
    True
    """
    text = json.dumps(
        to_plain(content, whole_as_int=True), allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def append_jsonl(path: PathLike, row: Mapping[str, Any]) -> None:
    """Append one JSON object to a log with a single write.

    Nothing is lost if the process is killed, and the last few lines at most in a power cut.
    """
    path, line = as_path(path), _jsonl_line(row)
    try:
        with open(path, "ab", buffering=0) as file:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise _write_error(error, path) from error


def read_log(path: PathLike, upto_step: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of a log up to a step.

    An incomplete last line is skipped; a missing file is an empty log.

    Raises:
        ValueError: another line is not a JSON object.
    """
    if not as_path(path).exists():
        return []
    lines = read_lines(path)
    for number, row in lines[:-1]:
        if row is None:
            raise ValueError(
                f"{path}: wanted one JSON object per line, got something else in line {number}; "
                "delete the line, or delete the folder of this run to repeat it"
            )
    rows = [row for _, row in lines if row is not None]
    return [row for row in rows if upto_step is None or row.get("step", 0) <= upto_step]


def truncate_log(path: PathLike, step: int) -> None:
    """Atomically drop the lines after `step`, which a run resumed from its checkpoint rewrites.

    An incomplete last line is dropped too, since the next line would be appended to it. A missing
    log stays missing.
    """
    if as_path(path).exists():
        write_jsonl(path, read_log(path, step))


def read_lines(path: PathLike) -> list[tuple[int, dict[str, Any] | None]]:
    """Return (number from 1, row) of every line of a .jsonl file that is not blank.

    The row is None if the line is not a JSON object. Errors are those of `read_bytes`.
    """
    lines = enumerate(read_bytes(path, LINES_LIMIT).split(b"\n"), start=1)
    return [(number, read_object(line)) for number, line in lines if line.strip()]


def read_object(text: bytes | Path) -> dict[str, Any] | None:
    """Parse a JSON object from bytes or a regular file; None if it is unreadable or another."""
    try:
        row = json.loads(read_bytes(text, JSON_LIMIT) if isinstance(text, Path) else text)
    except (OSError, ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


@contextmanager
def lock(folder: PathLike) -> Iterator[None]:
    """Hold an exclusive lock on a folder; the kernel releases it when the process ends or dies.

    The file `.lock` stays behind on purpose: if it were deleted, a process that had opened the old
    file and one that created a new file could each lock its own. Taking the lock also deletes the
    temporary files that killed writers left in the folder.

    Raises:
        Locked: another process, or this one, holds the lock.
        OSError: the folder cannot be written, or the system has no flock.
    """
    if fcntl is None:
        raise OSError(
            errno.ENOLCK,
            f"cannot lock {folder}: this system has no flock; on Windows work under WSL",
        )
    folder, owner = as_path(folder), os.getpid()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # os.open: child programs do not inherit the handle, so they cannot keep the lock
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _write_error(error, folder / ".lock") from error
    try:
        _acquire(handle, folder)
        yield
    finally:
        if os.getpid() == owner:  # a forked child may leave the block too, but must not unlock
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _acquire(handle: int, folder: Path) -> None:
    """Lock an open `.lock` file, write this process's name into it, and delete leftover files."""
    this_process = f"process {os.getpid()} on {socket.gethostname()}"
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, this_process.encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(handle, 300, 0).decode(errors="replace") or "another process"
        if holder == this_process:
            holder += " (this process)"
        raise Locked(f"{folder} is in use by {holder}; wait, or choose another folder") from error
    except OSError as error:
        raise _write_error(error, folder / ".lock") from error
    _delete_leftovers(folder)
