"""Axis 2: the methods. Each is a module: `forward(views, index, labels) -> Step`, `features(views) -> tuple`, `after_step()`."""

from .game import Game
from .infonce import InfoNCE
from .supervised import Supervised

METHODS = {"infonce": InfoNCE, "supervised": Supervised}

__all__ = ["METHODS", "Game", "InfoNCE", "Supervised"]
