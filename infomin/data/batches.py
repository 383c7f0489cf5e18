"""Batches of a data set as functions of the step: which rows, in which order."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..common.distributed import rank, world_size
from ..common.seeds import seeded_generator, to_device
from .image_folder import ImageFiles

# What a view takes, `[N]`, and task -> labels `[N]`, on one device.
Part: TypeAlias = tuple[Any, Mapping[str, Tensor]]


def batches_by_step(
    part: Part,
    batch: int,
    *,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
    rows: Tensor | None = None,
) -> Callable[[int], tuple[Any, Tensor, dict[str, Tensor]]]:
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
        ValueError: the processes cannot share the batch equally.

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

    def index_at(step: int) -> Tensor:
        chosen = batch_rows(n, batch, step, seed=seed, rank=rank(), world=world_size())
        return chosen if rows is None else rows[chosen]

    stream = inputs.stream(index_at, steps) if isinstance(inputs, ImageFiles) else None

    def batch_at(step: int) -> tuple[Any, Tensor, dict[str, Tensor]]:
        index = to_device(index_at(step), device)
        if stream:
            batch_inputs, index = stream(step)
        elif isinstance(inputs, Tensor):
            # index_select copies whole images; indexing would look up each byte.
            batch_inputs = inputs.index_select(0, index)
        else:
            batch_inputs = inputs[index]
        return batch_inputs, index, {task: values[index] for task, values in labels.items()}

    return batch_at


def first_rows(part: Part, n: int) -> Part:
    """The first `n` rows of a part, for the probe.

    Images in files are read and kept in memory, `3 * size**2` bytes each.
    """
    inputs, labels = part
    if isinstance(inputs, ImageFiles):
        return select_rows(part, torch.arange(n))
    return inputs[:n], {task: values[:n] for task, values in labels.items()}


def select_rows(part: Part, rows: Tensor) -> Part:
    """Images and labels of rows, long `[M]` on the CPU; images in files are read into memory."""
    inputs, labels = part
    if isinstance(inputs, ImageFiles):
        images, rows = inputs.take(rows)
    else:
        images = inputs[rows]
    return images, {task: values[rows] for task, values in labels.items()}


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
    if not 2 <= batch <= n:
        raise ValueError(
            f"batch: got {batch}, wanted 2 to {n} "
            "(InfoNCE contrasts each image with the others in its batch)"
        )
    epoch, i = divmod(step, n // batch)
    rows = _permutation(n, seed, epoch)[i * batch : (i + 1) * batch]
    return rows[rank::world].clone()  # the cached permutation must not change


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=seeded_generator(seed, "order", epoch))
