"""What augmentations share: random draws on the CPU, and work restricted to the selected images."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.seeds import to_device

Size = tuple[int, ...]
# (selected images of the batch, their row numbers) -> those images, changed
Change = Callable[[Tensor, Tensor], Tensor]
# Elements per thread and chunk: 2 MB of float32, which stay in the cache of a CPU core.
PIECE = 2**19


class Selection(NamedTuple):
    """The draws of an augmentation that is applied or not: whether it is, bool `[n]`."""

    which: Tensor


@torch.compiler.disable  # a compiled torch.rand draws other numbers
def uniform(
    size: Size, low: float, high: float, generator: torch.Generator | None = None
) -> Tensor:
    """Uniform float64 draws in [low, high), on the CPU: a seed gives the same bits on every device.

    >>> uniform((2, 3), 5, 5)
    tensor([[5., 5., 5.],
            [5., 5., 5.]], dtype=torch.float64)
    """
    unit = torch.rand(size, dtype=torch.float64, device="cpu", generator=generator)
    return unit * (high - low) + low


@torch.compiler.disable
def normal(size: Size, mean: float, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Gaussian float64 draws on the CPU."""
    return torch.randn(size, dtype=torch.float64, device="cpu", generator=generator) * std + mean


def bernoulli(size: Size, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Bool draws that are True with probability p: never at 0, always at 1."""
    return uniform(size, 0, 1, generator) < p


def randint_below(
    size: Size, end: Tensor | int, generator: torch.Generator | None = None
) -> Tensor:
    """Uniform integers 0 <= i < end, long; `end` broadcasts to the size."""
    return (uniform(size, 0, 1, generator) * end).long()


def permutations(n: int, length: int, generator: torch.Generator | None = None) -> Tensor:
    """Uniform permutations of 0 … length - 1, one for each of n samples: long `[n, length]`."""
    return uniform((n, length), 0, 1, generator).argsort(1)


def chunk_size(images: Tensor) -> int:
    """The number of images `[B, C, H, W]` to process at a time.

    On a CPU, a chunk fits in the caches of its cores. On other devices the chunk is the whole
    batch; so it is if the images require a gradient, because backward through each chunk would
    cost as much as through the batch.

    >>> chunk_size(torch.empty(256, 3, 64, 64, device="meta"))
    256
    """
    if images.device.type != "cpu" or images.requires_grad or torch.compiler.is_compiling():
        return images.shape[0]
    return max(1, PIECE * torch.get_num_threads() // images[0].numel())


@torch.compiler.disable  # it would recompile for every number of selected images
def apply_where(images: Tensor, which: Tensor, how: Change, *, inplace: bool = False) -> Tensor:
    """Change the images selected by `which`; the others cost nothing.

    Args:
        images: `[B, C, H, W]`.
        which: bool `[B]`, best on the CPU: from another device, reading it waits.
        how: from `(images[rows], rows)` to images of the same shape; `rows` is long, on the device
            of `which`.
        inplace: whether to overwrite the images.

    >>> images, which = torch.zeros(3, 1, 1, 1), torch.tensor([True, False, True])
    >>> apply_where(images, which, lambda selected, rows: selected + 1).flatten()
    tensor([1., 0., 1.])
    """
    rows = which.nonzero()[:, 0]
    if len(rows) == len(images):
        return how(images, rows)
    if not len(rows):
        return images
    result = images if inplace else images.clone()
    for chunk in rows.split(chunk_size(images)):
        index = to_device(chunk, images.device)
        result.index_copy_(0, index, how(images.index_select(0, index), chunk))
    return result


@torch.compiler.disable
def apply_in_sequence(
    images: Tensor, choices: Tensor, operations: Sequence[Change], *, inplace: bool = False
) -> Tensor:
    """Apply to each image its own sequence of operations; equal sequences are batched.

    Args:
        images: `[B, C, H, W]`.
        choices: long `[B, length]`, indices into `operations`; best on the CPU, as `which` is.
        operations: functions like `how` of `apply_where`.
        inplace: whether to overwrite the images.

    >>> add, double = lambda images, rows: images + 1, lambda images, rows: 2 * images
    >>> choices = torch.tensor([[0, 1], [1, 0], [0, 0]])
    >>> apply_in_sequence(torch.ones(3, 1, 1, 1), choices, [add, double]).flatten()
    tensor([4., 3., 3.])
    """
    sequences, inverse, counts = choices.unique(dim=0, return_inverse=True, return_counts=True)
    result = images if inplace else torch.empty_like(images)
    groups = inverse.argsort(stable=True).split(counts.tolist())
    for rows, sequence in zip(groups, sequences.tolist(), strict=True):
        index = to_device(rows, images.device)
        group = images.index_select(0, index)
        for choice in sequence:
            group = operations[choice](group, rows)
        result.index_copy_(0, index, group)
    return result


def check_sides(height: int, width: int, smallest: int, who: str) -> None:
    """Raise a ValueError if a side of the images is less than `smallest` px."""
    if min(height, width) < smallest:
        raise ValueError(
            f"{who}: images must be {smallest} px or more on each side, got {height}x{width}; "
            "use larger images"
        )


def per_sample(values: Tensor, images: Tensor, dims: int = 4) -> Tensor:
    """Reshape values `[B]` to `[B, 1, …]` with `dims` axes, of the images' dtype and device."""
    return to_device(values, images).view(-1, *[1] * (dims - 1))
