"""Operations on the values of pixels that RandAugment takes from PIL, for a batch at once and with an amount for each sample.

They equal torchvision.transforms.v2.functional on images with 256 levels; images are floating point in [0, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..draws import per_sample


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel of `[B, C, H, W]` to [0, 1]; a constant one stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = high == low
    return ((images - low.masked_fill(flat, 0)) / (high - low).masked_fill(flat, 1)).clamp(0, 1)


def _levels(images: Tensor) -> Tensor:
    return (images * 255).round().clamp(0, 255)


def equalize(images: Tensor) -> Tensor:
    """Spread the 256 levels of each channel of `[B, C, H, W]` in [0, 1] so that each occurs about as often; the gradient is 0."""
    levels = _levels(images.detach()).long().flatten(2)
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    total = counts.cumsum(2)
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255
    table = ((total - counts + step // 2) // step.clamp(min=1)).clamp(max=255)
    spread = (
        torch.where(step > 0, table.gather(2, levels), levels).view(images.shape).to(images.dtype)
        / 255
    )
    return spread + 0 * images  # whose gradient is zero, and not missing


def invert(images: Tensor) -> Tensor:
    """One minus the image."""
    return 1 - images


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` `[B]`, 0 to 8, of each of the 256 levels of images in [0, 1]; the gradient is 0."""
    step = per_sample(2.0 ** (8 - bits), images)
    return (_levels(images) / step).floor() * step / 255


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is at the threshold `[B]` or above it."""
    return torch.where(images >= per_sample(threshold, images), 1 - images, images)


def solarize_add(images: Tensor, amount: Tensor) -> Tensor:
    """Add the amount `[B]` to what is below the middle level, 128 of 255."""
    return torch.where(
        images < 128 / 255, (images + per_sample(amount, images)).clamp(max=1), images
    )


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Move images `[B, C, H, W]` away from a smooth copy by a factor `[B]`: 0 is smooth, 1 changes nothing; the rim is kept."""
    if min(images.shape[2:]) < 3:
        return images
    middle = images[:, :, 1:-1, 1:-1]
    smooth = (9 * F.avg_pool2d(images, 3, stride=1) + 4 * middle) / 13
    blend = smooth + per_sample(factor, images) * (middle - smooth)
    rim = F.pad(torch.ones_like(middle[:1, :1], dtype=torch.bool), (1, 1, 1, 1), value=False)
    return torch.where(rim, F.pad(blend, (1, 1, 1, 1)), images).clamp(0, 1)
