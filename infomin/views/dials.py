"""Parsing the dial of a view word, such as `0.2-0.9` in `crop:0.2-0.9`."""

import re

NUMBER = r"(\d+\.?\d*|\.\d+)"


def match_dial(dial: str, pattern: str) -> re.Match[str]:
    """Match a whole dial against a regular expression.

    Raises:
        ValueError: the dial does not match; `parse` adds a description of the expected dial.
    """
    match = re.fullmatch(pattern, dial)
    if not match:
        raise ValueError(f"got {dial!r}")
    return match


def read_number(dial: str) -> float:
    """Read a dial that is one number, 0 or more.

    >>> read_number("0.5")
    0.5
    """
    return float(match_dial(dial, NUMBER)[0])
