"""Parsing the dial of a view word, such as `0.2-0.9` in `crop:0.2-0.9`."""

import re
from collections.abc import Iterable
from itertools import chain
from operator import index

NUMBER = r"(\d+\.?\d*|\.\d+)"


def match_dial(dial: str, pattern: str) -> re.Match[str]:
    """Match a whole dial against a regular expression.

    Raises:
        ValueError: the dial does not match; `parse` adds a description of the expected dial.
    """
    match = re.fullmatch(pattern, dial, re.ASCII)  # no digits of other scripts
    if not match:
        raise ValueError(f"got {dial!r}")
    return match


def read_number(dial: str) -> float:
    """Read a dial that is one number, 0 or more.

    >>> read_number("0.5")
    0.5
    """
    return float(match_dial(dial, NUMBER)[0])


def read_groups(
    groups: str | Iterable[Iterable[int]], channels: int, what: str, *, all_once: bool = False
) -> list[list[int]]:
    """Read groups of channels: `"0-12"`, or `[[0], (1, 2)]`.

    Args:
        groups: text has one digit per channel.
        channels: their number.
        what: the argument, for the message.
        all_once: whether each channel must be in one group, as in the split of a colour space.

    Raises:
        ValueError: no group, an empty one, an unknown channel, or one twice in a group.

    >>> read_groups("0-12", 3, "split")
    [[0], [1, 2]]
    """
    try:
        words = groups.split("-") if isinstance(groups, str) else groups
        numbers = [[int(c) if isinstance(c, str) else index(c) for c in word] for word in words]
    except (TypeError, ValueError):
        numbers = []
    known = set(range(channels))
    are_groups = all(g and len(set(g)) == len(g) and known.issuperset(g) for g in numbers)
    if not numbers or not are_groups or (all_once and sorted(chain(*numbers)) != sorted(known)):
        rest = "".join(map(str, range(1, channels)))
        raise ValueError(
            f"{what}: got {groups!r}, wanted groups of the channels 0 to {channels - 1}"
            f"{', each channel once' if all_once else ''}; "
            f"write for example '0-{rest}', or [[0], range(1, {channels})]"
        )
    return numbers
