"""One way to give a view, a method or an encoder a name, whether it is built in or a user's own."""

import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pkgutil import walk_packages
from typing import NamedTuple, TypeVar

Make = TypeVar("Make", bound=Callable[..., object])


class Entry(NamedTuple):
    """A registered class or function, and one line on its dial for help texts."""

    make: Callable[..., object]
    dial: str


class Registry(Mapping[str, Callable[..., object]]):
    """Names of the members of one family.

    Args:
        kind: what the members are, as error messages call them: `view`, `method`, `encoder`.

    >>> colors = Registry("color")
    >>> @colors.register("red", dial="how red, 0 to 1")
    ... def red(dial): return float(dial)
    >>> colors["red"]("0.5"), colors.dial("red"), list(colors)
    (0.5, 'how red, 0 to 1', ['red'])
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        self._built_in: dict[str, Entry] = {}

    def register(self, name: str, *, dial: str = "") -> Callable[[Make], Make]:
        """Decorate a class or function to register it; an existing name is replaced.

        Args:
            name: letters, digits, `_` and `-`.
            dial: one line of help on what follows the name in a word such as `crop:0.2`.

        Raises:
            TypeError: no name, as in `@register` without parentheses.
            ValueError: a name with other characters, which a word could not hold.
        """
        if not isinstance(name, str):
            raise TypeError(
                f"register: {self.kind} names must be text, got {name!r}; "
                'write @register("name") above the class'
            )
        if not re.fullmatch(r"\w[\w-]*", name):
            raise ValueError(
                f"register: {self.kind} names consist of letters, digits, _ and -, got {name!r}"
            )

        def add(make: Make) -> Make:
            self._entries[name] = Entry(make, dial)
            return make

        return add

    def __getitem__(self, name: str) -> Callable[..., object]:
        return self._entries[name].make

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def dial(self, name: str) -> str:
        """The line of help on a member's dial; empty if it was registered without one."""
        return self._entries[name].dial

    def load_members(self, package: str, path: list[str]) -> None:
        """Import every module of a package, so that each registers its members.

        What is registered later is a user's own, see `own`.
        """
        for module in walk_packages(path, f"{package}."):
            import_module(module.name)
        self._built_in = dict(self._entries)

    def own(self) -> dict[str, Entry]:
        """What users registered: other processes do not know it, and are sent it."""
        entries = self._entries.items()
        return {name: entry for name, entry in entries if self._built_in.get(name) is not entry}

    def add_entries(self, entries: Mapping[str, Entry]) -> None:
        """Register what `own` of another process returned."""
        self._entries.update(entries)
