"""Read one image file of any kind (grey, palette, CMYK, 16-bit, transparent, rotated) as upright
8-bit RGB, and scale images.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

# PIL's format -> endings of its files. These decoders recognise a file by its first bytes and start
# no external program.
FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    "JPEG2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
    "PNG": (".apng", ".png"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "QOI": (".qoi",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
EXTENSIONS = tuple(sorted(ending for endings in FORMATS.values() for ending in endings))
MOST_PIXELS = 2**27  # of an image file: up to a gigabyte while it is read
_BAND = 2**22  # pixels that are converted at a time
SIXTEEN_BITS = 2**16 - 1

Bytes: TypeAlias = NDArray[np.uint8]


class Unreadable(ValueError):
    """A file that is not an image, damaged or too large; the message is one line that says why."""


def read_square(path: str | os.PathLike[str], size: int) -> Bytes:
    """Read an image file, scale its short side to `size` pixels and crop the centre square.

    Scaling is bilinear and antialiased. Modes and orientation are handled as in `read_upright`. The
    JPEG decoder shrinks a much larger image by 1/2, 1/4 or 1/8 first, never below twice the size.
    Memory is at most 8 bytes a pixel of the file.

    Args:
        path: a file in one of `FORMATS`.
        size: side of the square in pixels.

    Returns:
        uint8 `[3, size, size]`.

    Raises:
        Unreadable: the file is damaged, not an image, or has more than `pixel_limit()` pixels.

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


def resize(images: Tensor, size: int, out: Tensor | None = None) -> Tensor:
    """Scale images to a square, bilinearly and antialiased; images of that size stay as they are.

    Args:
        images: uint8 `[N, C, H, W]`.
        size: side in pixels.
        out: uint8 `[N, C, size, size]` to write to; None makes a new tensor.

    Returns:
        uint8 `[N, C, size, size]`, contiguous, in memory of its own.

    >>> resize(torch.full((2, 3, 96, 64), 7, dtype=torch.uint8), 32).unique()
    tensor([7], dtype=torch.uint8)
    """
    scaled = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8) if out is None else out
    # In chunks: images are floats, four times as large, while they are scaled.
    for chunk, target in zip(images.split(1000), scaled.split(1000), strict=True):
        if chunk.shape == target.shape:
            target[:] = chunk
        else:
            target[:] = F.interpolate(
                chunk.float(), (size, size), mode="bilinear", antialias=True, align_corners=False
            ).round()
    return scaled


def read_upright(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as 8-bit RGB, oriented as its EXIF data say, transparency over white.

    Args:
        path: a file in one of `FORMATS`.

    Raises:
        Unreadable: as for `read_square`.
    """
    with _opened(path) as image:
        image.load()
        return _turned(_rgb(image), image)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height in pixels of what `read_upright` returns; reads only the file's header.

    Raises:
        Unreadable: as for `read_square`, but damage beyond the header is not noticed.
    """
    with _opened(path) as image:
        width, height = image.size
        # A TIFF reports the size of the upright image.
        swapped = image.format != "TIFF" and _turn(image) in _SWAPPING
        return (height, width) if swapped else (width, height)


def pixel_limit() -> int:
    """The most pixels of an image file: INFOMIN_MAX_PIXELS, or `MOST_PIXELS`.

    Raises:
        ValueError: the environment variable is not a whole number above 0.
    """
    words = os.environ.get("INFOMIN_MAX_PIXELS") or str(MOST_PIXELS)
    if not words.isdecimal() or int(words) < 1:
        raise ValueError(
            f"INFOMIN_MAX_PIXELS: got {words!r}, wanted a whole number above 0; unset it for "
            f"{MOST_PIXELS:,} pixels"
        )
    return int(words)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An image whose pixels are not decoded yet; what goes wrong in the block is `Unreadable`."""
    try:
        if not os.path.isfile(path):  # opening a pipe would block for ever
            raise OSError("not a regular file" if os.path.exists(path) else "no such file")
        with open(path, "rb") as file:
            image = _identified(file, os.fspath(path))
            if (pixels := image.width * image.height) > pixel_limit():
                raise ValueError(
                    f"{pixels:,} pixels, more than {pixel_limit():,}; scale it down, or set "
                    "INFOMIN_MAX_PIXELS"
                )
            yield image
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on bytes that are not an image
        raise Unreadable(" ".join(str(error).split()) or type(error).__name__) from error


def _identified(file: BinaryIO, name: str) -> Image.Image:
    """The image in a file, by its first bytes.

    `PIL.Image.open` has a limit on pixels too, but one for the whole process, and warns below it.
    """
    Image.init()
    start = file.read(16)
    for known in filter(Image.OPEN.__contains__, FORMATS):
        make, accepts = Image.OPEN[known]
        with suppress(SyntaxError, IndexError, TypeError, struct.error):
            if accepts and accepts(start) is True:  # a text if this PIL lacks the decoder
                file.seek(0)
                return make(file, name)
    raise ValueError("not an image, or of an unknown format")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = [_TURNS[orientation] for orientation in (5, 6, 7, 8)]  # width and height


def _turned(picture: Image.Image, source: Image.Image) -> Image.Image:
    """A picture made from `source`, turned as the EXIF data of `source` say.

    `source` must be loaded: a TIFF turns itself when it is, and drops its orientation.
    """
    turn = _turn(source)
    return picture if turn is None else picture.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn an image; None if its EXIF data are damaged, or name no orientation of 2 to 8."""
    try:
        return _TURNS.get(image.getexif()[ExifTags.Base.Orientation])
    except Exception:  # of many kinds; the pixels are readable nevertheless
        return None


def _rgb(image: Image.Image) -> Image.Image:
    """A loaded image as RGB; converted at once, a transparent one would take four copies."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    picture = Image.new("RGB", image.size)
    step = max(1, _BAND // image.width)
    for row in range(0, image.height, step):
        band = image.crop((0, row, image.width, min(image.height, row + step)))
        picture.paste(_converted(band, image), (0, row))
    return picture


def _converted(band: Image.Image, source: Image.Image) -> Image.Image:
    """A band of an image as RGB."""
    if band.mode.startswith("I"):
        return _from_integers(band, source)
    if band.mode == "F":
        raise ValueError("its pixels are floating-point numbers, so white is unknown")
    if band.has_transparency_data:
        foreground = band.convert("RGBA")
        background = Image.new("RGBA", foreground.size, "white")
        return Image.alpha_composite(background, foreground).convert("RGB")
    return band.convert("RGB")


def _from_integers(band: Image.Image, source: Image.Image) -> Image.Image:
    """A band of a 16-bit image, scaled to 8 bits; PIL's own conversion clips at 255 instead."""
    grey = np.asarray(band).astype(np.int64)
    white, inverted = SIXTEEN_BITS, False
    if isinstance(source, TiffImageFile):
        bits = source.tag_v2.get(ExifTags.Base.BitsPerSample, (16,))[0]
        white = 2 ** min(bits, 16) - 1
        inverted = source.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0
    if grey.min() < 0 or grey.max() > white:
        raise ValueError("its integers have more than 16 bits, so white is unknown")
    if inverted:  # white is zero; PIL inverts 8 bits and fewer itself
        grey = white - grey
    scaled = (grey * 255 + white // 2) // white
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
