"""One image file of any kind as 8-bit RGB pixels, upright: grey, palette, CMYK, 16 bits, transparent or turned; and scaling."""

import os
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

FORMATS = (
    "BMP",
    "GIF",
    "JPEG",
    "PNG",
    "PPM",
    "TIFF",
    "WEBP",
)  # of others, PIL hands some to programs outside
SIXTEEN = 2**16 - 1

Bytes: TypeAlias = NDArray[np.uint8]


def read_square(path: str | os.PathLike[str], size: int) -> Bytes:
    """Read an image file, scale its short side to `size` pixels with antialias, and cut out the central square.

    Modes and orientation are those of `read_upright`. Of a JPEG that is much larger, the decoder scales by 1/2, 1/4 or 1/8 beforehand,
    never below twice the size.

    Returns:
        uint8 `[3, size, size]`.

    Raises:
        Exception: of many kinds, where the file is damaged or no image.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (90, 40), 7).save(f"{folder}/grey.png")
    ...     read_square(f"{folder}/grey.png", 32).shape
    (3, 32, 32)
    """
    with _opened(path) as image:
        reduced = image.draft(None, (2 * size, 2 * size))
        image.load()
        width, height = (
            reduced[1][2:] if reduced else image.size
        )  # exact: in whole pixels they are rounded up
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        # the square alone: scaled whole, a picture of 1 x 100,000 px would take gigabytes
        square = _rgb(image).resize(
            (size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
        )
        return np.asarray(_turned(square, image)).transpose(2, 0, 1)


def resize(images: Tensor, size: int) -> Tensor:
    """Images scaled to a square, bilinearly and with antialias where they shrink; as they are if they have that size.

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
    for some, into in zip(
        images.split(1000), scaled.split(1000), strict=True
    ):  # they are floats while they are scaled
        into[:] = F.interpolate(
            some.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False
        ).round()
    return scaled


def read_upright(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as 8-bit RGB, turned as its EXIF data say; what is transparent is laid over white.

    Args:
        path: a file of one of `FORMATS`.

    Raises:
        Exception: as for `read_square`.
    """
    with _opened(path) as image:
        image.load()
        return _turned(_rgb(image), image)


def _opened(path: str | os.PathLike[str]) -> Image.Image:
    if not os.path.isfile(path):  # to open a pipe would wait for ever
        raise OSError("it is no file")
    return Image.open(path, formats=FORMATS)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height in pixels of an image as `read_upright` gives it; only the file's head is read."""
    with _opened(path) as image:
        width, height = image.size
        turned = (
            image.format != "TIFF" and (_orientation(image) or 1) >= 5
        )  # a TIFF's own size is that of the upright image
        return (height, width) if turned else (width, height)


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
    """A picture made from `source` turned as that one's EXIF data say; loaded before, for a TIFF has turned itself by then."""
    turn = _TURNS.get(_orientation(source))
    return picture if turn is None else picture.transpose(turn)


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except (
        Exception
    ):  # damaged EXIF data, of which PIL raises many kinds, do not damage the picture
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)  # PIL's own conversion clips at 255
        if grey.min() < 0 or grey.max() > SIXTEEN:
            raise ValueError("its whole numbers have more than 16 bits, so white is unknown")
        return Image.fromarray(((grey * 255 + SIXTEEN // 2) // SIXTEEN).astype(np.uint8)).convert(
            "RGB"
        )
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, so white is unknown")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image.convert("RGB")
