"""Reading the dial of a view's word: `0.2-0.9` of `crop:0.2-0.9`."""

import re

NUMBER = r"(\d+\.?\d*|\.\d+)"


def match_dial(dial: str, pattern: str) -> re.Match[str]:
    """Match a whole dial; `parse` adds what the family's dial looks like to the message.

    Raises:
        ValueError: the dial does not match.
    """
    match = re.fullmatch(pattern, dial)
    if not match:
        raise ValueError(f"got {dial!r}")
    return match


def read_number(dial: str) -> float:
    """A dial that is one number of 0 or more.

    >>> read_number("0.5")
    0.5
    """
    return float(match_dial(dial, NUMBER)[0])
