"""Batches of a data set as functions of the step: which rows, in which order."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

from ..common.distributed import rank, world_size
from ..common.seeds import seeded_generator, to_device
from .image_files import ImageFiles
from .scenes import Factors

# What a view takes, `[N]`, and task -> labels `[N]`, on one device.
Part: TypeAlias = tuple[Tensor | ImageFiles | Factors, Mapping[str, Tensor]]
# The same for some rows, in memory.
Selected: TypeAlias = tuple[Tensor | Factors, dict[str, Tensor]]


def batches_by_step(
    part: Part,
    batch: int,
    *,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
    rows: Tensor | None = None,
) -> Callable[[int], tuple[Tensor | Factors, Tensor, dict[str, Tensor]]]:
    """The batches that `fit` trains on: a function step -> (view inputs, index, labels).

    Each process gets its own share of a batch. The index has the rows that are shown: where a file
    is unreadable, the row of the file that replaces it, as image and labels are.

    Args:
        part: view inputs and labels.
        batch: images in a batch, over all processes; a multiple of their number.
        steps: number of training steps; files are prefetched up to the last one.
        seed: of the order.
        device: where inputs and labels are.
        rows: long `[M]` on the CPU, the rows to draw from; None means all.

    Raises:
        ValueError: a batch out of range, or one that the processes cannot share equally.

    >>> part = (torch.arange(6), {"class": torch.arange(6) % 2})
    >>> batch_at = batches_by_step(part, 2, steps=9, seed=0)
    >>> inputs, index, labels = batch_at(5)
    >>> torch.equal(inputs, index), torch.equal(labels["class"], index % 2)
    (True, True)
    """
    inputs, labels = part
    if batch % world_size():
        raise ValueError(
            f"batch: got {batch} for {world_size()} processes, wanted a multiple of {world_size()}"
        )
    n = len(inputs if rows is None else rows)
    _check_batch(batch, n)

    def index_at(step: int) -> Tensor:
        chosen = batch_rows(n, batch, step, seed=seed, rank=rank(), world=world_size())
        return chosen if rows is None else rows[chosen]

    stream = inputs.stream(index_at, steps) if isinstance(inputs, ImageFiles) else None

    def batch_at(step: int) -> tuple[Tensor | Factors, Tensor, dict[str, Tensor]]:
        batch_inputs: Tensor | Factors
        if stream:
            batch_inputs, index = stream(step)
        else:
            batch_inputs, index = _take(inputs, to_device(index_at(step), device))
        return batch_inputs, index, {task: values[index] for task, values in labels.items()}

    return batch_at


def _take(inputs: Tensor | ImageFiles | Factors, rows: Tensor) -> tuple[Tensor | Factors, Tensor]:
    """Inputs of rows, and the rows that they are of."""
    if isinstance(inputs, ImageFiles):
        return inputs.take(rows)
    if isinstance(inputs, Tensor):
        # index_select copies whole images; indexing would look up each byte.
        return inputs.index_select(0, rows), rows
    return inputs[rows], rows


def first_rows(part: Part, n: int) -> Selected:
    """The first `n` rows of a part that can be read, for the probe; all if there are fewer.

    Images in files are read and kept in memory, `3 * size**2` bytes each.
    """
    return select_rows(part, readable_rows(part, n))


def readable_rows(part: Part, n: int, rows: Tensor | None = None) -> Tensor:
    """The first `n` rows that can be read, or all of them if there are fewer.

    Image files are read to find out.

    Args:
        part: view inputs and labels.
        n: how many.
        rows: long `[M]` on the CPU, the rows to choose from, in this order; None means all.

    Returns:
        long, `n` or fewer, on the CPU.

    >>> readable_rows((torch.zeros(5, 3, 8, 8), {}), 3)
    tensor([0, 1, 2])
    """
    inputs, _ = part
    if rows is None:
        rows = torch.arange(len(inputs), device="cpu")
    return inputs.first_readable(rows, n) if isinstance(inputs, ImageFiles) else rows[:n]


def count_unreadable(part: Part, n: int) -> int:
    """How many rows `first_rows` passes over for `n` others, because they cannot be read."""
    rows = readable_rows(part, n)
    tried = int(rows[-1]) + 1 if len(rows) == n else len(part[0])
    return tried - len(rows)


def select_rows(part: Part, rows: Tensor) -> Selected:
    """Images and labels of rows, long `[M]`; images in files are read into memory."""
    inputs, labels = part
    first_label = next(iter(labels.values()))
    images, shown = _take(inputs, to_device(rows, first_label.device))
    return images, {task: values[shown] for task, values in labels.items()}


def batch_rows(
    n: int, batch: int, step: int, *, seed: int, rank: int = 0, world: int = 1
) -> Tensor:
    """The rows of a batch, a pure function of its arguments; each epoch has a new permutation.

    Args:
        n: rows of the data set.
        batch: rows of a batch over all processes, 2 to `n`.
        step: training step, from 0.
        seed: of the order.
        rank, world: number of this process, and of processes.

    Returns:
        long `[batch // world]`; the parts of all ranks are disjoint and together make up the batch
        of a single process.

    Raises:
        ValueError: a batch out of range.
    """
    _check_batch(batch, n)
    epoch, i = divmod(step, n // batch)
    rows = _permutation(n, seed, epoch)[i * batch : (i + 1) * batch]
    return rows[rank::world].clone()  # the cached permutation must not change


def _check_batch(batch: int, n: int) -> None:
    why = "(InfoNCE contrasts each image with the others in its batch)"
    if n < 2:
        raise ValueError(f"batch: got {n} images to draw from, need at least 2 {why}; add images")
    if not 2 <= batch <= n:
        raise ValueError(f"batch: got {batch}, wanted 2 to {n} {why}")


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=seeded_generator(seed, "order", epoch))
