"""Windows cut out of pictures by whole rows; indexing each pixel is ten times slower on a CPU."""

import torch
from torch import Tensor


def cut_windows(bank: Tensor, image: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
    """Cut windows of one size, each out of one picture of a bank.

    Args:
        bank: `[N, C, H, W]`, the pictures.
        image: long, the picture that each window is cut from; its shape broadcasts with that of
            `corner` without the last axis.
        corner: long `[..., 2]`, the window's first pixel (row, column); windows must lie inside
            their pictures.
        height, width: in pixels.

    Returns:
        `[..., C, height, width]` of the bank's dtype, a copy.

    >>> bank = torch.arange(16).view(1, 1, 4, 4)
    >>> cut_windows(bank, torch.tensor([0, 0]), torch.tensor([[1, 2], [0, 0]]), 2, 2).flatten(1)
    tensor([[ 6,  7, 10, 11],
            [ 0,  1,  4,  5]])
    """
    starts = row_starts(bank, image, corner, height)
    rows = bank.flatten().unfold(0, width, 1).index_select(0, starts)
    return rows.view(*corner.shape[:-1], bank.shape[1], height, width)


def row_starts(bank: Tensor, image: Tensor, corner: Tensor, height: int) -> Tensor:
    """Offsets in the flattened bank at which the rows of windows start.

    Args:
        bank, image, corner, height: as for `cut_windows`.

    Returns:
        long, one offset a row, in the order of `[..., C, height]`.

    >>> row_starts(torch.zeros(1, 1, 4, 4), torch.tensor([0]), torch.tensor([[1, 2]]), 2)
    tensor([ 6, 10])
    """
    _, channels, rows, columns = bank.shape
    channel = torch.arange(channels, device=bank.device)[:, None]
    row = torch.arange(height, device=bank.device)
    top, left = corner[..., None, None].unbind(-3)
    plane = image[..., None, None] * channels + channel
    return ((plane * rows + top + row) * columns + left).flatten()
