"""Rotate, shear and translate images: one bilinear warp of the batch, with a matrix per image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...common.seeds import to_device

FILL = 0.5  # outside the image: mid-grey


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Warp images: the value at (x, y) is read at matrix @ (x, y, 1), mid-grey outside the image.

    Args:
        images: `[B, C, H, W]` in [0, 1].
        matrix: `[B, 2, 3]`; coordinates in px from the centre of the image, x to the right and y
            down.

    >>> warp(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]]))
    tensor([[[[0.0000, 0.5000]]]])
    """
    height, width = images.shape[2:]
    matrix = to_device(matrix, images)
    x = torch.arange(width, dtype=images.dtype, device=images.device) - (width - 1) / 2
    y = torch.arange(height, dtype=images.dtype, device=images.device) - (height - 1) / 2
    y = y[:, None]
    # sums instead of a matrix product, which would be rounded where a user allows TF32
    for_x, for_y = matrix[..., None, None].unbind(1)
    source_x = for_x[:, 0] * x + for_x[:, 1] * y + for_x[:, 2]
    source_y = for_y[:, 0] * x + for_y[:, 1] * y + for_y[:, 2]
    grid = torch.stack([source_x * (2 / width), source_y * (2 / height)], 3)
    centred = images - FILL  # so that zero padding is mid-grey
    warped = F.grid_sample(
        centred, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return warped + FILL


def rotation(degrees: Tensor) -> Tensor:
    """Matrices `[n, 2, 3]` of counter-clockwise rotations by degrees `[n]` about the image centre.

    >>> rotation(torch.tensor([0.0]))
    tensor([[[1., -0., 0.],
             [0., 1., 0.]]])
    """
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)


def shear(x: Tensor, y: Tensor, height: int, width: int) -> Tensor:
    """Matrices `[n, 2, 3]` that shear images about their top left corner.

    Args:
        x: `[n]`: rows move left by x times their distance from the top.
        y: `[n]`: columns move up by y times their distance from the left.
        height: of the images, px.
        width: of the images, px.
    """
    one = torch.ones_like(x)
    return torch.stack([one, x, x * height / 2, y, one, y * width / 2], 1).view(-1, 2, 3)


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Matrices `[n, 2, 3]` that move images right by x `[n]` px and down by y `[n]` px."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return torch.stack([one, zero, -x, zero, one, -y], 1).view(-1, 2, 3)
