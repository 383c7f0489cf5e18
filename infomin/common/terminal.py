"""What a command line does around its work: encoding, mistakes in one line, the exit status."""

import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any

from .files import Locked


def exit_status(action: Callable[[], Any], name: str) -> int:
    """Carry out a command; a mistake is printed in one line.

    Args:
        action: returns its exit status, None for 0.
        name: of the command, which opens the line.

    Returns:
        what `action` returns; 2 for a mistake, 130 when interrupted, 141 when nobody reads the
        output.
    """
    try:
        return action() or 0
    except BrokenPipeError:  # the reader has gone, as `head` does
        silence_stdout()
        return 141
    except (ValueError, TypeError, OSError, Locked) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; run the same command again to resume", file=sys.stderr)
        return 130


def tolerate_encoding() -> None:
    """Replace characters that the output cannot encode, such as ±, by a question mark.

    A process without standard error gets one that is discarded.
    """
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 it stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a notebook's is another
            stream.reconfigure(errors="replace")


def silence_stdout() -> None:
    """Discard the rest of the output: flushing it at exit would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
