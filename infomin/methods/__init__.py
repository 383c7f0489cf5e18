"""Axis 2: the methods. Each is a module: `forward(views, index, labels) -> Step`, `features(views) -> tuple`, `after_step()`."""

from .game import Game
from .infonce import InfoNCE

METHODS = {"infonce": InfoNCE}

__all__ = ["METHODS", "Game", "InfoNCE"]
