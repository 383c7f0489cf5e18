"""Turn, shear and move images: one bilinear warp of the batch, with a matrix for each sample."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...common.seeds import to_device

FILL = 0.5  # what comes in from outside the image: mid-grey


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Move pixels: the value at (x, y) comes from matrix @ (x, y, 1) by bilinear interpolation, and is grey from outside.

    Args:
        images: `[B, C, H, W]` in [0, 1].
        matrix: `[B, 2, 3]`; coordinates in px from the centre of the image, x to the right and y down.

    >>> warp(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]]))
    tensor([[[[0.0000, 0.5000]]]])
    """
    height, width = images.shape[2:]
    matrix = to_device(matrix, images)
    x = torch.arange(width, dtype=images.dtype, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, dtype=images.dtype, device=images.device) - (height - 1) / 2)[:, None]
    # Sums, not a matrix product, which a user's TF32 setting would round.
    places = [
        row[:, 0, None, None] * x + row[:, 1, None, None] * y + row[:, 2, None, None]
        for row in matrix.unbind(1)
    ]
    grid = torch.stack([places[0] * (2 / width), places[1] * (2 / height)], 3)
    return (
        F.grid_sample(
            images - FILL, grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )
        + FILL
    )


def rotation(degrees: Tensor) -> Tensor:
    """Matrices `[n, 2, 3]` that turn images counter-clockwise about their centre by degrees `[n]`.

    >>> rotation(torch.tensor([0.0]))
    tensor([[[1., -0., 0.],
             [0., 1., 0.]]])
    """
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)


def shear(x: Tensor, y: Tensor, height: int, width: int) -> Tensor:
    """Matrices that move rows left by x `[n]` times their distance from the top, columns up by y times theirs from the left."""
    one = torch.ones_like(x)
    return torch.stack([one, x, x * height / 2, y, one, y * width / 2], 1).view(-1, 2, 3)


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Matrices that move images right by x `[n]` px and down by y px."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return torch.stack([one, zero, -x, zero, one, -y], 1).view(-1, 2, 3)
