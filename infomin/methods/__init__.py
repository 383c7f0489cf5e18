"""Axis 2: the methods. A method trains encoders on the views of images.

`base` defines the contract and the method words, such as `name:queue=4096`. To add a method, add
one file to this package: a class derived from `Method` and decorated with `@register("name")`.
Every module here is imported, so no other file changes.
"""

from ..training.step import Batch, Group, Learner, Step
from .base import (
    METHODS,
    Context,
    Method,
    Task,
    build_method,
    method_class,
    method_options,
    method_word,
    parse_method,
    register,
)
from .game import Game
from .infonce import InfoNCE
from .supervised import Supervised

__all__ = [
    "METHODS",
    "Batch",
    "Context",
    "Game",
    "Group",
    "InfoNCE",
    "Learner",
    "Method",
    "Step",
    "Supervised",
    "Task",
    "build_method",
    "method_class",
    "method_options",
    "method_word",
    "parse_method",
    "register",
]

METHODS.load_members(__name__, __path__)
