"""Axis 2: the methods. Each is a module: `forward(views, index, labels) -> Step`, `features(views) -> tuple`, `after_step()`.

A recipe makes `METHODS[name](channels, encoder, width, shared, dim, head, tau)`, as `InfoNCE` explains them. One that has the
class attribute `needs_labels` is told `tasks=` as well, as `Supervised` explains, and trained on labelled images alone. What a
method logs are tensors of one number without gradient; critic and bound are its own. A class put into METHODS is one like these.
"""

from .game import Game
from .infonce import InfoNCE
from .supervised import Supervised

METHODS = {"infonce": InfoNCE, "supervised": Supervised}

__all__ = ["METHODS", "Game", "InfoNCE", "Supervised"]
