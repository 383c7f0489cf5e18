"""Helpers of the tests of view games: a game of seconds, and how two games are compared."""

from pathlib import Path

from helpers import GAME

from infomin import Learning
from infomin.runs import view_learning


def tiny(**fields):
    """A recipe that is played in seconds."""
    return Learning(**GAME | fields)


def comparable(row):
    """A row without its duration and without the path of its file."""
    return {name: value for name, value in row.items() if name not in ("seconds", "file")}


def written(folder: Path):
    """The bytes of a game's log and of its generators, by file name."""
    suffixes = (".jsonl", ".safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in suffixes}


def fake_measurements(monkeypatch, *nats: float):
    """Let fresh critics measure these values, and the last one from then on."""
    left = list(nats)

    def fresh_i_nce(*_):
        return left.pop(0) if len(left) > 1 else left[0]

    monkeypatch.setattr(view_learning, "fresh_i_nce", fresh_i_nce)
