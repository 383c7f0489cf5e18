"""The contract of a method, and method words such as `name:queue=4096/momentum=0.99`."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from torch import Tensor

from ..common.checks import check_choice
from ..common.registry import Registry
from ..networks.encoders import Encoders
from ..training.step import Learner

Option: TypeAlias = bool | int | float | str


class Task(NamedTuple):
    """What a method knows about a task's labels before the first step.

    Attributes:
        size: the number of classes, which are numbered from 0 (0 if no label is known); or the
            number of coordinates.
        mean: mean of each coordinate over the training set; empty for classes.
        deviation: standard deviation of each coordinate; empty for classes.
    """

    size: int
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a method is built from.

    Everything but `encoders` is plain data and is stored with the run, so `trained` rebuilds the
    method without loading the data set; a run that resumes with other facts is refused.

    Args:
        shapes: C, H, W of each view in training.
        tiles: the number of images stacked in the channels of each view.
        encoders: makes new encoders for the views, with the recipe's network and width.
        dim: size of the embedding.
        head: projection head between features and embedding, a key of `networks.HEADS`.
        tau: temperature.
        images: size of the training set.
        batch: batch size, summed over processes.
        steps: optimiser steps of the run.
        processes: the number of processes that share a batch.
        tasks: the labels of the data, by task.
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


class Method(Learner):
    """Encoders for the views of an image, and a loss that trains them.

    The keyword-only arguments of `__init__` are the method's options; the word `name:option=value`
    sets one. Each needs a default that is a bool, int, float or str; a str has no `/`.

    State that training changes (a queue, a bank, a momentum encoder) must be persistent buffers or
    frozen parameters of fixed shape, so that it is resumed; a plain attribute is not. Update it in
    `forward` if `self.training`, from gathered embeddings, or in `after_step`: `forward` is also
    called to evaluate.

    Args:
        context: what it is built from.

    Attributes:
        views: the minimum and maximum number of views; None means no maximum.
        needs_labels: whether it trains on labelled images only.
        encoders: the encoders that are probed and exported; never a momentum copy.
    """

    views: tuple[int, int | None] = (2, None)
    needs_labels: bool = False

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.encoders = context.encoders()

    def features(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Views `[B, C, H, W]` each -> outputs of the encoders, `[B, D]` each, for a probe."""
        features: tuple[Tensor, ...] = self.encoders(views)
        return features


METHODS = Registry("method")
register = METHODS.register


def method_class(name: str) -> type[Method]:
    """The method class registered under a name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        TypeError: the registered object is not a subclass of Method, or its `views` are no pair.
    """
    registered = METHODS[check_choice(name, METHODS, "method")]
    if not (isinstance(registered, type) and issubclass(registered, Method)):
        raise TypeError(
            f"method {name!r}: must be a class derived from infomin.methods.Method, "
            f"got {registered!r}"
        )
    limits: object = registered.views  # a user's class may declare anything
    pair = limits if isinstance(limits, tuple) and len(limits) == 2 else (None, None)
    if not _is_count(pair[0]) or not (pair[1] is None or _is_count(pair[1])):
        raise TypeError(
            f"method {name!r}: views must be a tuple (minimum, maximum or None), got {limits!r}; "
            "for example (2, None)"
        )
    return registered


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def method_options(name: str) -> dict[str, Option]:
    """The options of a method, each with its default.

    Raises:
        TypeError: an option without a default, or with one that is not a bool, int, float or str.
    """
    parameters = inspect.signature(method_class(name).__init__).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for option, default in options.items():
        if type(default) not in (bool, int, float, str):
            raise TypeError(
                f"method {name!r}: option {option} needs a bool, int, float or str as its default"
            )
    return options


def parse_method(word: str) -> tuple[str, dict[str, Option]]:
    """Read `name` or `name:option=value/option=value`.

    Returns:
        the name, and the options that differ from their defaults, sorted by name.

    Raises:
        ValueError: an unknown method or option (the message lists the known ones), or a value of
            the wrong type.

    >>> parse_method("infonce")
    ('infonce', {})
    """
    name, colon, assignments = word.partition(":")
    defaults = method_options(name)
    options: dict[str, Option] = {}
    given: set[str] = set()
    for assignment in assignments.split("/") if colon else ():
        option, equals, text = assignment.partition("=")
        if option not in defaults:
            known = f"one of {', '.join(defaults)}" if defaults else "none, it has no options"
            raise ValueError(f"method {word!r}: option: got {option!r}, wanted {known}")
        if option in given:
            raise ValueError(f"method {word!r}: option: got {option!r} twice; give it once")
        given.add(option)
        default, caller = defaults[option], f"method {word!r}: {option}"
        value = _read_option(text if equals else None, default, caller)
        if value != default:
            options[option] = value
    return name, dict(sorted(options.items()))


def method_word(word: str) -> str:
    """The canonical spelling of a method word: options sorted, defaults left out.

    >>> method_word("infonce")
    'infonce'
    """
    name, options = parse_method(word)
    if not options:
        return name
    assignments = "/".join(f"{option}={value}" for option, value in options.items())
    return f"{name}:{assignments}"


def build_method(word: str, context: Context) -> Method:
    """Build the method that a word names.

    Raises:
        ValueError: as `parse_method`, or the method cannot take this number of views.
    """
    name, options = parse_method(word)
    make: Callable[..., Method] = method_class(name)
    least, most = method_class(name).views
    count = len(context.shapes)
    if count < least or (most is not None and count > most):
        wanted = f"{least} or more" if most is None else f"{least} to {most}"
        wanted = f"{least}" if most == least else wanted
        noun = "view" if count == 1 else "views"
        raise ValueError(
            f"method {word!r}: got {count} {noun}, wanted {wanted}; split the image, "
            "for example with color:lab/0-12"
        )
    return make(context, **options)


def _read_option(text: str | None, default: Option, caller: str) -> Option:
    """Convert an option's text to the type of its default; None if the option has no `=`."""
    option_type = type(default)
    try:
        if text is None:
            raise ValueError
        if option_type is bool:
            return {"true": True, "false": False}[text.lower()]
        value = option_type(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        return value
    except (KeyError, ValueError):
        wanted = f"{option_type.__name__} such as {default}"
        if option_type is bool:
            wanted = "true or false"
        raise ValueError(f"{caller}: got {text or ''!r}, wanted {wanted}") from None
