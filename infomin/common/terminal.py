"""What a command line does around its work: its parser, encoding, mistakes, the exit status."""

import os
import re
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any

from jsonargparse import ArgumentParser

from .files import Locked


class Parser(ArgumentParser):
    """Prints a mistake in one line that says where to look, instead of all options."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Exit with status 2."""
        missing = re.search(r"required: ([\w-]+)\.", message)
        subcommand = re.match(r"Subcommand '([\w-]+)'", message) or missing
        parser: ArgumentParser = self
        name = self.prog.replace("[options] ", "")
        if subcommand:  # the parser above reports it
            parser, name = self._subparsers_by_name()[subcommand[1]], f"infomin {subcommand[1]}"
        known = ""
        if "nrecognized" in message or (subcommand and not missing):
            known = f"; wanted one of {', '.join(_option_names(parser))}"
        if missing:
            message = message.replace(f"{missing[1]}.", "")
        print(f"infomin: {' '.join(message.split())}{known}; see {name} --help", file=sys.stderr)
        self.exit(2)

    def _subparsers_by_name(self) -> dict[str, ArgumentParser]:
        for action in self._actions:
            if isinstance(action.choices, dict):
                return action.choices
        return {}


def _option_names(parser: ArgumentParser) -> list[str]:
    usual = ("help", "config", "print_config")
    actions = [a for a in parser._actions if a.option_strings and a.dest not in usual]
    return [action.option_strings[-1] for action in actions]


class Several:
    """Reads values joined by commas, such as `0,1,2`, or a list in a YAML file."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __call__(self, words: Any) -> list[Any]:
        """The values; in a YAML file they mean what they mean on the command line."""
        words = words if isinstance(words, list) else str(words).split(",")
        return [self.read(str(word).strip()) for word in words]

    def read(self, word: str) -> Any:
        """A single value."""
        if self.kind is not bool:
            return self.kind(word)
        if word.lower() not in ("true", "false"):
            raise ValueError(f"got {word!r}, wanted true or false")
        return word.lower() == "true"

    def __repr__(self) -> str:
        return f"{self.kind.__name__}, …"


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
