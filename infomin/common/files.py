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
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

try:
    import fcntl
except ImportError:  # Windows: only `lock` needs it, and raises an error there
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]
Row: TypeAlias = dict[str, str | float | int | bool | None]  # of a table


class Locked(RuntimeError):
    """Somebody else holds the lock of the folder."""


@contextmanager
def atomic_write(path: PathLike) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces `path` when the block ends; if it fails, nothing changes.

    Args:
        path: the file to write; its folder is created if missing.

    Raises:
        OSError: the disk is full, read-only or missing; the message says what to do, and no
            temporary file is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
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


def to_plain(x: Any, whole: bool = False) -> Any:
    """Convert a value to plain JSON types.

    Numbers and arrays of numpy and torch become Python's, tuples become lists, NaN and Inf become
    None; with `whole`, 1.0 becomes 1.
    """
    if isinstance(x, Mapping):
        return {str(name): to_plain(value, whole) for name, value in x.items()}
    if isinstance(x, list | tuple):
        return [to_plain(value, whole) for value in x]
    if hasattr(x, "tolist"):
        return to_plain(x.tolist(), whole)
    if isinstance(x, float) and not math.isfinite(x):
        return None
    return int(x) if whole and isinstance(x, float) and x.is_integer() else x


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


def read_json(path: PathLike) -> dict[str, Any]:
    """Read one JSON object; raise a ValueError that says what to do if it is damaged."""
    try:
        stored = json.loads(Path(path).read_bytes())
        if not isinstance(stored, dict):
            raise ValueError(f"a {type(stored).__name__}")
    except (ValueError, RecursionError) as error:  # a JSONDecodeError, a UnicodeDecodeError, deep
        raise ValueError(
            f"{path}: wanted a whole JSON object, got {error}; "
            "delete it and run the same command again to repeat this run"
        ) from error
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
        to_plain(content, whole=True), allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def append_jsonl(path: PathLike, row: Mapping[str, Any]) -> None:
    """Append one JSON object to a log with a single write.

    Nothing is lost if the process is killed, and the last few lines at most in a power cut.
    """
    line = _jsonl_line(row)
    try:
        with open(path, "ab", buffering=0) as file:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise _write_error(error, Path(path)) from error


def read_log(path: PathLike, upto_step: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of a log up to a step.

    An incomplete last line is skipped; a missing file is an empty log.

    Raises:
        ValueError: another line is not a JSON object.
    """
    if not Path(path).exists():
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
    if Path(path).exists():
        write_jsonl(path, read_log(path, step))


def read_lines(path: PathLike) -> list[tuple[int, dict[str, Any] | None]]:
    """Return (number from 1, row) of every line of a .jsonl file that is not blank.

    The row is None if the line is not a JSON object.
    """
    lines = enumerate(Path(path).read_bytes().split(b"\n"), start=1)
    return [(number, read_object(line)) for number, line in lines if line.strip()]


def read_object(text: bytes | Path) -> dict[str, Any] | None:
    """Parse a JSON object from bytes or a file; None if it is unreadable or something else."""
    try:
        row = json.loads(text.read_bytes() if isinstance(text, Path) else text)
    except (OSError, ValueError):
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
    folder, owner = Path(folder), os.getpid()
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
    for temporary in folder.glob(".*.[0-9]*.tmp"):
        # a running process may be writing a table or a figure here without the lock
        if not _is_running(temporary.suffixes[-2][1:]):
            temporary.unlink(missing_ok=True)


def _is_running(process_id: str) -> bool:
    """Whether a process with this ID is running on this machine; a zombie does not count."""
    try:
        os.kill(int(process_id), 0)
    except (OSError, OverflowError, ValueError) as error:
        return isinstance(error, PermissionError)  # it belongs to another user
    with suppress(OSError):  # not Linux, or it has just ended
        return b") Z" not in Path(f"/proc/{process_id}/stat").read_bytes()
    return True
