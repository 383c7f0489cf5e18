"""Batches of a data set: which rows, in which order, as functions of the step."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..common.distributed import rank, world_size
from ..common.seeds import seeded_generator, to_device
from .image_folder import ImageFiles

Part: TypeAlias = tuple[
    Any, Mapping[str, Tensor]
]  # what a view takes, `[N]`, and task -> labels `[N]`, on one device


def batches_by_step(
    part: Part,
    batch: int,
    *,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
    rows: Tensor | None = None,
) -> Callable[[int], tuple[Any, Tensor, dict[str, Tensor]]]:
    """What `fit` asks for: a function from a step to (inputs of the view, index, labels), this process's part of the batch.

    A file that cannot be read keeps its index; image and labels are those of the file that stands in for it.

    Args:
        part: inputs and labels.
        batch: images in a batch, over all processes.
        steps: how many there will be; files are read ahead up to the last.
        seed: of the order.
        device: where inputs and labels are.
        rows: long, on the CPU: those to draw from; all unless given.

    >>> at = batches_by_step((torch.arange(6), {"class": torch.arange(6) % 2}), 2, steps=9, seed=0)
    >>> chosen, index, labels = at(5)
    >>> torch.equal(chosen, index), torch.equal(labels["class"], index % 2)
    (True, True)
    """
    inputs, labels = part
    if batch % world_size():
        raise ValueError(
            f"batch: got {batch} for {world_size()} processes, wanted a multiple; change one of them"
        )

    def index(step: int) -> Tensor:
        found = batch_rows(
            len(inputs if rows is None else rows),
            batch,
            step,
            seed=seed,
            rank=rank(),
            world=world_size(),
        )
        return found if rows is None else rows[found]

    stream = inputs.stream(index, steps) if isinstance(inputs, ImageFiles) else None

    def at(step: int) -> tuple[Any, Tensor, dict[str, Tensor]]:
        wanted = shown = to_device(index(step), device)
        if stream:
            chosen, shown = stream(step)
        else:  # index_select copies whole images, where indexing looks up each byte
            chosen = (
                inputs.index_select(0, wanted) if isinstance(inputs, Tensor) else inputs[wanted]
            )
        return chosen, wanted, {task: values[shown] for task, values in labels.items()}

    return at


def first_rows(part: Part, n: int) -> Part:
    """The first `n` of a part, for the probe; of files, images are read and held, `3 * size**2` bytes each."""
    return (
        select_rows(part, torch.arange(n))
        if isinstance(part[0], ImageFiles)
        else (part[0][:n], {t: y[:n] for t, y in part[1].items()})
    )


def select_rows(part: Part, rows: Tensor) -> Part:
    """The images and labels of some rows, long `[M]` on the CPU, read and held."""
    inputs, labels = part
    if isinstance(inputs, ImageFiles):
        images, rows = inputs.take(rows)
    else:
        images = inputs[rows]
    return images, {task: values[rows] for task, values in labels.items()}


def batch_rows(
    n: int, batch: int, step: int, *, seed: int, rank: int = 0, world: int = 1
) -> Tensor:
    """Rows of a set of `n` that make up a batch: a new permutation each epoch, a pure function of its arguments.

    Returns:
        long `[batch // world]`; over ranks the parts are disjoint and make up the batch of one process.
    """
    if not 2 <= batch <= n:
        raise ValueError(
            f"batch: got {batch}, wanted 2 to {n} (InfoNCE contrasts each image with the others of its batch); change it"
        )
    epoch, i = divmod(step, n // batch)
    return _permutation(n, seed, epoch)[i * batch : (i + 1) * batch][
        rank::world
    ].clone()  # the permutation is kept


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=seeded_generator(seed, "order", epoch))
