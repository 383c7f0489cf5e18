"""Windows cut out of pictures by whole rows of pixels: to look up each pixel takes ten times as long on a CPU."""

import torch
from torch import Tensor


def cut_windows(bank: Tensor, image: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
    """Windows of one size, each cut out of some picture.

    Args:
        bank: `[N, C, H, W]`, the pictures.
        image: long, which picture each window is of; its shape broadcasts with that of `corner` but for the last axis.
        corner: long `[..., 2]`, row and column of its first pixel; windows lie inside their pictures.
        height, width: in pixels.

    Returns:
        `[..., C, height, width]`, with the bank's dtype, in memory of their own.

    >>> bank = torch.arange(16).view(1, 1, 4, 4)
    >>> cut_windows(bank, torch.tensor([0, 0]), torch.tensor([[1, 2], [0, 0]]), 2, 2).flatten(1)
    tensor([[ 6,  7, 10, 11],
            [ 0,  1,  4,  5]])
    """
    rows = (
        bank.flatten().unfold(0, width, 1).index_select(0, row_starts(bank, image, corner, height))
    )
    return rows.view(*corner.shape[:-1], bank.shape[1], height, width)


def row_starts(bank: Tensor, image: Tensor, corner: Tensor, height: int) -> Tensor:
    """Where the rows of windows begin in the flattened bank, long, one after the other for all of `[..., C, height]`.

    >>> row_starts(torch.zeros(1, 1, 4, 4), torch.tensor([0]), torch.tensor([[1, 2]]), 2)
    tensor([ 6, 10])
    """
    _, channels, rows, columns = bank.shape
    channel, row = (
        torch.arange(channels, device=bank.device)[:, None],
        torch.arange(height, device=bank.device),
    )
    image, top, left = (where[..., None, None] for where in (image, *corner.unbind(-1)))
    return (((image * channels + channel) * rows + top + row) * columns + left).flatten()
