"""The contract of a method, and the words that name one: `moco:queue=4096/momentum=0.99`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from ..common.checks import check_choice
from ..common.registry import Registry
from ..networks.encoders import Encoders
from ..training.step import Batch, Group, Learner, Step

__all__ = [
    "METHODS",
    "Batch",
    "Context",
    "Group",
    "Learner",
    "Method",
    "Step",
    "Task",
    "build_method",
    "method_class",
    "method_options",
    "method_word",
    "parse_method",
    "register",
]

Option: TypeAlias = bool | int | float | str


class Task(NamedTuple):
    """What a method knows of a task's labels before the first step.

    Attributes:
        size: number of classes, 0 if no label is known; or number of coordinates.
        mean: of each coordinate over the training set; empty for classes.
        deviation: standard deviation of each coordinate; empty for classes.
    """

    size: int
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a method is built from.

    All but `encoders` is plain data that is stored with the run, so `trained` builds the method
    again without loading the data set.

    Args:
        shapes: C, H, W of each view in training.
        tiles: how many images are stacked in the channels of each view.
        encoders: makes new encoders for the views, with the recipe's network and width.
        dim: size of the embedding.
        head: projection head between features and embedding, a key of `networks.HEADS`.
        tau: temperature.
        images: size of the training set.
        batch: images in a batch, over all processes.
        steps: optimiser steps of the run.
        processes: how many share a batch.
        tasks: what labels there are, by task.
    """

    shapes: tuple[tuple[int, int, int], ...]
    tiles: tuple[int, ...]
    encoders: Callable[[], Encoders]
    dim: int
    head: str
    tau: float
    images: int
    batch: int
    steps: int
    processes: int
    tasks: Mapping[str, Task]

    def to_json(self) -> dict[str, object]:
        """All but `encoders`, for `from_json`."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        del plain["encoders"]
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], encoders: Callable[[], Encoders]) -> "Context":
        """The context that `to_json` described, after a way through a JSON file."""
        shapes = tuple(tuple(shape) for shape in plain["shapes"])
        tasks = {
            name: Task(size, tuple(mean), tuple(deviation))
            for name, (size, mean, deviation) in plain["tasks"].items()
        }
        changed = {"shapes": shapes, "tiles": tuple(plain["tiles"]), "tasks": tasks}
        return cls(**{**plain, **changed, "encoders": encoders})


class Method(Learner):
    """Encoders for the views of an image, and a loss that trains them.

    The keyword-only arguments of `__init__` are the method's options: `name:option=value` sets one.
    Each has a default that is a bool, int, float or str.

    Args:
        context: what it is built from.

    Attributes:
        views: the least and the greatest number of views; None is no limit.
        needs_labels: whether it trains on labelled images only.
        encoders: what is probed and exported; never a slow copy.
    """

    views: tuple[int, int | None] = (2, None)
    needs_labels: bool = False

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.encoders = context.encoders()

    def features(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Views `[B, C, H, W]` each -> what a probe reads of each, `[B, D]`: the encoder's output."""
        features: tuple[Tensor, ...] = self.encoders(views)
        return features


METHODS = Registry("method")
register = METHODS.register


def method_class(name: str) -> type[Method]:
    """The class that is registered under a name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        TypeError: what is registered is not a Method.
    """
    made = METHODS[check_choice(name, METHODS, "method")]
    if not (isinstance(made, type) and issubclass(made, Method)):
        raise TypeError(
            f"method {name!r}: must be a class derived from infomin.methods.Method, got {made!r}"
        )
    return made


def method_options(name: str) -> dict[str, Option]:
    """The options of a method with their defaults.

    Raises:
        TypeError: an option without a default, or with one that is no bool, int, float or str.
    """
    parameters = inspect.signature(method_class(name).__init__).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for option, default in options.items():
        if not isinstance(default, bool | int | float | str):
            raise TypeError(
                f"method {name!r}: option {option} needs a default that is a bool, int, float or str; "
                "give it one"
            )
    return options


def parse_method(word: str) -> tuple[str, dict[str, Option]]:
    """Read `name` or `name:option=value/option=value`.

    Returns:
        the name, and the options whose values are not the defaults, sorted.

    Raises:
        ValueError: an unknown method or option, or a value of another type; the message lists the
            known ones.

    >>> parse_method("infonce")
    ('infonce', {})
    """
    name, colon, rest = word.partition(":")
    defaults = method_options(name)
    options: dict[str, Option] = {}
    for part in rest.split("/") if colon else ():
        option, _, text = part.partition("=")
        if option not in defaults:
            known = f"one of {', '.join(defaults)}" if defaults else "none, it has no options"
            raise ValueError(f"method {word!r}: option: got {option!r}, wanted {known}")
        value = _read_option(text, defaults[option], f"method {word!r}: {option}")
        if value != defaults[option]:
            options[option] = value
    return name, dict(sorted(options.items()))


def method_word(word: str) -> str:
    """The one spelling of a method: options sorted, defaults left out.

    >>> method_word("infonce")
    'infonce'
    """
    name, options = parse_method(word)
    return name + ":" * bool(options) + "/".join(f"{k}={v}" for k, v in options.items())


def build_method(word: str, context: Context) -> Method:
    """The method that a word names, for given views.

    Raises:
        ValueError: as `parse_method`, or the method takes another number of views.
    """
    name, options = parse_method(word)
    make: Callable[..., Method] = method_class(name)
    least, most = method_class(name).views
    count = len(context.shapes)
    if count < least or (most is not None and count > most):
        wanted = (
            f"{least}" if most == least else f"{least} to {most}" if most else f"{least} or more"
        )
        raise ValueError(
            f"method {word!r}: got {count} view{'s' * (count != 1)}, wanted {wanted}; split the image, for "
            "example by color:lab/0-12"
        )
    return make(context, **options)


def _read_option(text: str, default: Option, option: str) -> Option:
    """A value of the type of the default."""
    kind = type(default)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError):
        wanted = "true or false" if kind is bool else f"{kind.__name__} such as {default}"
        raise ValueError(f"{option}: got {text!r}, wanted {wanted}") from None
