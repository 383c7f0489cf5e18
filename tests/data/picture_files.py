"""Pictures that the tests of image files write and recognise."""

import numpy as np
from PIL import Image


def noise(height, width, seed=0):
    """A smooth picture that differs everywhere."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def numbered(n):
    """A plain picture whose colour encodes a number."""
    return Image.new("RGB", (30, 40), (n % 16 * 16, n // 16 * 16, 128))


def number_of(image):
    """The number that the colour of a plain picture encodes."""
    red, green, _ = ((image.float().mean((1, 2)) / 16).round().long()).tolist()
    return red + 16 * green


def truncate(path, share=0.5):
    """Cut a file to a share of its bytes."""
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def write_glyphs(root, n=30):
    """Write plain pictures of six classes, each of its own brightness; returns it by path."""
    brightness = {}
    for i in range(n):
        path = root / "fedcba"[i % 6] / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        brightness[str(path)] = 255 - 8 * i
        Image.new("L", (10 + i, 14), 255 - 8 * i).save(path)
    return brightness
