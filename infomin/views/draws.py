"""What the augmentations share: draws that are made on the CPU, and work on those samples alone that a draw picks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.checks import drop_note, has_note, note_on
from ..common.seeds import to_device

Size = tuple[int, ...]
Change = Callable[
    [Tensor, Tensor], Tensor
]  # some rows of the batch, and which rows they are -> those rows changed
PIECE = (
    2**19
)  # numbers a thread, 2 MB as float32: what stays in the cache of a CPU's core, with memory that is used again


class Which(NamedTuple):
    """The draw of an augmentation that either happens or not: bool `[n]`."""

    which: Tensor


@torch.compiler.disable  # a compiled rand has numbers of its own; these are the same with and without
def uniform(
    size: Size, low: float, high: float, generator: torch.Generator | None = None
) -> Tensor:
    """Uniform float64 draws in [low, high) on the CPU, so that a seed means the same bits whatever device computes.

    >>> uniform((2, 3), 5, 5)
    tensor([[5., 5., 5.],
            [5., 5., 5.]], dtype=torch.float64)
    """
    return (
        torch.rand(size, dtype=torch.float64, device="cpu", generator=generator) * (high - low)
        + low
    )


@torch.compiler.disable
def normal(size: Size, mean: float, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Gaussian float64 draws on the CPU."""
    return torch.randn(size, dtype=torch.float64, device="cpu", generator=generator) * std + mean


def bernoulli(size: Size, p: float, generator: torch.Generator | None = None) -> Tensor:
    """True with probability p: never at 0, always at 1."""
    return uniform(size, 0, 1, generator) < p


def randint_below(
    size: Size, end: Tensor | int, generator: torch.Generator | None = None
) -> Tensor:
    """Whole numbers 0 <= i < end, equally likely; `end` broadcasts to the size."""
    return (uniform(size, 0, 1, generator) * end).long()


def permutations(n: int, length: int, generator: torch.Generator | None = None) -> Tensor:
    """A permutation of 0 … length - 1 for each of n samples, all equally likely: long `[n, length]`."""
    return uniform((n, length), 0, 1, generator).argsort(1)


def chunk_size(images: Tensor) -> int:
    """How many of the images `[B, C, H, W]` to work on at a time: on a CPU as many as its caches hold, elsewhere all.

    All too if they want a gradient, for which each piece would cost as much as the whole batch.

    >>> chunk_size(torch.empty(256, 3, 64, 64, device="meta"))
    256
    """
    if images.device.type != "cpu" or images.requires_grad or torch.compiler.is_compiling():
        return images.shape[0]
    return max(1, PIECE * torch.get_num_threads() // images[0].numel())


@contextmanager
def writable(images: Tensor, really: bool = True) -> Iterator[Tensor]:
    """As long as this lasts, `apply_where` and `apply_in_sequence` may write their result over the images, once.

    For images that nobody else will read: fresh memory costs a CPU more than what is done with it. Images that want a gradient
    are never lent, for they are read again, nor are those whose channels share memory.

    >>> whole, some = torch.zeros(2, 1, 1, 1), torch.tensor([True, False])
    >>> with writable(whole):
    ...     changed = apply_where(whole, some, lambda images, rows: images + 1)
    >>> changed is whole, whole.flatten()
    (True, tensor([1., 0.]))
    """
    if (
        not really
        or torch.compiler.is_compiling()
        or images.requires_grad
        or not images.is_contiguous()
    ):
        yield images
        return
    note_on(images, "lent")
    try:
        yield images
    finally:
        drop_note(images, "lent")


@torch.compiler.disable  # how many samples are picked changes from batch to batch, and each number would be compiled anew
def apply_where(images: Tensor, which: Tensor, how: Change) -> Tensor:
    """Change the samples that `which` picks and no others, at the cost of those.

    Args:
        images: `[B, C, H, W]`.
        which: bool `[B]`, on the CPU if nothing is to wait for the device.
        how: from `(images[rows], rows)` to images of the same shape; rows are long, on the device of `which`.

    >>> apply_where(torch.zeros(3, 1, 1, 1), torch.tensor([True, False, True]), lambda some, rows: some + 1).flatten()
    tensor([1., 0., 1.])
    """
    rows = which.nonzero()[:, 0]
    if len(rows) == len(images):
        return how(images, rows)
    if not len(rows):
        return images
    result = images if has_note(images, "lent") else images.clone()
    for some in rows.split(chunk_size(images)):
        there = to_device(some, images.device)
        result.index_copy_(0, there, how(images.index_select(0, there), some))
    return result


@torch.compiler.disable
def apply_in_sequence(images: Tensor, choices: Tensor, operations: Sequence[Change]) -> Tensor:
    """Take each sample through its own sequence of operations; samples of one sequence go together.

    Args:
        images: `[B, C, H, W]`.
        choices: long `[B, length]`, numbers of operations; on the CPU if nothing is to wait for the device.
        operations: each as `how` in `apply_where`.

    >>> add, double = lambda some, rows: some + 1, lambda some, rows: 2 * some
    >>> apply_in_sequence(torch.ones(3, 1, 1, 1), torch.tensor([[0, 1], [1, 0], [0, 0]]), [add, double]).flatten()
    tensor([4., 3., 3.])
    """
    sequences, sequence, counts = choices.unique(dim=0, return_inverse=True, return_counts=True)
    result = images if has_note(images, "lent") else torch.empty_like(images)
    groups = sequence.argsort(stable=True).split(counts.tolist())
    for rows, numbers in zip(groups, sequences.tolist(), strict=True):
        there = to_device(rows, images.device)
        some = images.index_select(0, there)
        for number in numbers:
            some = operations[number](some, rows)
        result.index_copy_(0, there, some)
    return result


def per_sample(values: Tensor, images: Tensor, dims: int = 4) -> Tensor:
    """One value for each sample, with the dtype and device of the images, as `[B, 1, …]` of `dims` axes."""
    return to_device(values, images).view(-1, *[1] * (dims - 1))


def check_range(value: float, low: float, high: float, what: str) -> float:
    """Return a number in [low, high]; otherwise say so in a ValueError."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
        wanted = f"of {low:g} or more" if high == float("inf") else f"from {low:g} to {high:g}"
        raise ValueError(f"{what}: got {value!r}, wanted a number {wanted}; change it")
    return (
        value if isinstance(value, int | float) else float(value)
    )  # numpy's, which would be printed with their type


def check_integer(value: float, low: float, high: float, what: str) -> int:
    """Return a whole number in [low, high]; otherwise say so in a ValueError."""
    if int(check_range(value, low, high, what)) != value:
        raise ValueError(f"{what}: got {value!r}, wanted a whole number; round it")
    return int(value)


def check_interval(
    value: Sequence[float], low: float, high: float, what: str
) -> tuple[float, float]:
    """Return a pair of numbers in [low, high], the lesser first; otherwise say so in a ValueError."""
    if not isinstance(value, Sequence) or len(value) != 2 or isinstance(value, str):
        raise ValueError(f"{what}: got {value!r}, wanted two numbers (least, greatest); change it")
    first, last = (check_range(end, low, high, what) for end in value)
    if first > last:
        raise ValueError(f"{what}: got {value!r}, wanted the lesser number first; swap them")
    return first, last
