"""Read one image file of any kind (grey, palette, CMYK, 16-bit, transparent, rotated) as upright
8-bit RGB, and scale images.
"""

import os
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

# For some other formats PIL starts external programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SIXTEEN = 2**16 - 1

Bytes: TypeAlias = NDArray[np.uint8]


def read_square(path: str | os.PathLike[str], size: int) -> Bytes:
    """Read an image file, scale its short side to `size` pixels and crop the centre square.

    Scaling is bilinear and antialiased. Modes and orientation are handled as in `read_upright`. The
    JPEG decoder shrinks a much larger image by 1/2, 1/4 or 1/8 first, never below twice the size.

    Args:
        path: a file in one of `FORMATS`.
        size: side of the square in pixels.

    Returns:
        uint8 `[3, size, size]`.

    Raises:
        Exception: of many kinds, if the file is damaged or not an image.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (90, 40), 7).save(f"{folder}/grey.png")
    ...     read_square(f"{folder}/grey.png", 32).shape
    (3, 32, 32)
    """
    with _opened(path) as image:
        draft = image.draft(None, (2 * size, 2 * size))
        image.load()
        # The draft's box is exact; image.size is rounded up to whole pixels.
        width, height = draft[1][2:] if draft else image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        # Scale only the square: a whole picture of 1 x 100,000 px would take gigabytes.
        box = (left, top, left + side, top + side)
        square = _rgb(image).resize((size, size), Image.Resampling.BILINEAR, box)
        return np.asarray(_turned(square, image)).transpose(2, 0, 1)


def resize(images: Tensor, size: int) -> Tensor:
    """Scale images to a square, bilinearly and antialiased; images of that size stay as they are.

    Args:
        images: uint8 `[N, C, H, W]`.
        size: side in pixels.

    Returns:
        uint8 `[N, C, size, size]`, contiguous.

    >>> resize(torch.full((2, 3, 96, 64), 7, dtype=torch.uint8), 32).unique()
    tensor([7], dtype=torch.uint8)
    """
    if images.shape[2:] == (size, size):
        return images.contiguous()
    scaled = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    # In chunks: images are floats, four times as large, while they are scaled.
    for chunk, target in zip(images.split(1000), scaled.split(1000), strict=True):
        target[:] = F.interpolate(
            chunk.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False
        ).round()
    return scaled


def read_upright(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as 8-bit RGB, oriented as its EXIF data say, transparency over white.

    Args:
        path: a file in one of `FORMATS`.

    Raises:
        Exception: as for `read_square`.
    """
    with _opened(path) as image:
        image.load()
        return _turned(_rgb(image), image)


def _opened(path: str | os.PathLike[str]) -> Image.Image:
    if not os.path.isfile(path):  # opening a pipe would block for ever
        raise OSError("not a regular file")
    return Image.open(path, formats=FORMATS)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height in pixels of what `read_upright` returns; reads only the file's header."""
    with _opened(path) as image:
        width, height = image.size
        # A TIFF reports the size of the upright image.
        swapped = image.format != "TIFF" and (_orientation(image) or 1) >= 5
        return (height, width) if swapped else (width, height)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turned(picture: Image.Image, source: Image.Image) -> Image.Image:
    """A picture made from `source`, turned as the EXIF data of `source` say.

    `source` must be loaded: a TIFF turns itself when it is, and drops its orientation.
    """
    turn = _TURNS.get(_orientation(source))
    return picture if turn is None else picture.transpose(turn)


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # of many kinds; damaged EXIF data do not make the pixels unreadable
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_integers(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, so white is unknown")
    if image.has_transparency_data:
        foreground = image.convert("RGBA")
        background = Image.new("RGBA", foreground.size, "white")
        return Image.alpha_composite(background, foreground).convert("RGB")
    return image.convert("RGB")


def _from_integers(image: Image.Image) -> Image.Image:
    """A 16-bit image scaled to 8 bits; PIL's own conversion clips at 255 instead."""
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > SIXTEEN:
        raise ValueError("its integers have more than 16 bits, so white is unknown")
    scaled = (grey * 255 + SIXTEEN // 2) // SIXTEEN
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
