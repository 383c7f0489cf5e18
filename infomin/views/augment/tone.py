"""RandAugment's operations on pixel values, originally PIL's, batched with an amount per image.

They equal torchvision.transforms.v2.functional on images of 256 levels; images are floating point
in [0, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..draws import per_sample


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel of `[B, C, H, W]` to [0, 1]; constant channels stay unchanged."""
    low = images.amin((2, 3), keepdim=True)
    high = images.amax((2, 3), keepdim=True)
    constant = high == low
    span = (high - low).masked_fill(constant, 1)
    return ((images - low.masked_fill(constant, 0)) / span).clamp(0, 1)


def _levels(images: Tensor) -> Tensor:
    return (images * 255).round().clamp(0, 255)


def equalize(images: Tensor) -> Tensor:
    """Equalise the 256-level histogram of each channel of `[B, C, H, W]`; the gradient is 0."""
    levels = _levels(images.detach()).long().flatten(2)
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    total = counts.cumsum(2)
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255
    table = ((total - counts + step // 2) // step.clamp(min=1)).clamp(max=255)
    equalized = torch.where(step > 0, table.gather(2, levels), levels)
    equalized = equalized.view(images.shape).to(images.dtype) / 255
    return equalized + 0 * images  # a gradient of zero instead of none


def invert(images: Tensor) -> Tensor:
    """Invert images: 1 - images."""
    return 1 - images


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` `[B]`, 0 to 8, of the 256 levels of images; the gradient is 0."""
    step = per_sample(2.0 ** (8 - bits), images)
    return (_levels(images) / step).floor() * step / 255


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert values at or above the threshold `[B]`."""
    return torch.where(images >= per_sample(threshold, images), 1 - images, images)


def solarize_add(images: Tensor, amount: Tensor) -> Tensor:
    """Add the amount `[B]` to values below the middle level, 128 of 255."""
    brighter = (images + per_sample(amount, images)).clamp(max=1)
    return torch.where(images < 128 / 255, brighter, images)


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the difference between images and a smoothed copy; the border stays unchanged.

    Args:
        images: `[B, C, H, W]`.
        factor: `[B]`, 0 or more: 0 is the smoothed copy, 1 changes nothing.
    """
    if min(images.shape[2:]) < 3:
        return images
    middle = images[:, :, 1:-1, 1:-1]
    smooth = (9 * F.avg_pool2d(images, 3, stride=1) + 4 * middle) / 13
    blend = smooth + per_sample(factor, images) * (middle - smooth)
    inside = torch.ones_like(middle[:1, :1], dtype=torch.bool)
    inside = F.pad(inside, (1, 1, 1, 1), value=False)
    return torch.where(inside, F.pad(blend, (1, 1, 1, 1)), images).clamp(0, 1)
