"""What an image file becomes: scaling, cropping, modes, transparency and orientation."""

import os
import warnings

import numpy as np
import pytest
import torch
from picture_files import noise
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as tv

from infomin.data import image_io
from infomin.data.image_io import Unreadable, image_size, read_square, read_upright

torch.set_num_threads(1)
SIZE = 24


def max_difference(one, other):
    return np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max()


def saved(image, path, **options):
    """The pixels of an image that is saved and read again."""
    image.save(path, **options)
    return read_square(path, 32).astype(int)


def channels_first(image):
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize(
    ("height", "width"), [(40, 40), (40, 80), (36, 24), (24, 24), (8, 8), (4, 20), (1, 3)]
)
def test_a_file_is_scaled_and_cropped_as_by_torchvision(tmp_path, ending, height, width):
    path = tmp_path / f"x.{ending}"
    noise(height, width).save(path)
    image = Image.open(path).convert("RGB")
    expected = tv.pil_to_tensor(tv.center_crop(tv.resize(image, [SIZE]), [SIZE]))
    assert np.array_equal(read_square(path, SIZE), expected)


@pytest.mark.parametrize(("height", "width"), [(41, 64), (90, 67), (3, 1000), (300, 501), (25, 24)])
def test_the_square_is_central_to_a_fraction_of_a_pixel(tmp_path, height, width):
    """A mirror image becomes the mirror image; torchvision rounds the crop to whole pixels."""
    image = noise(height, width)
    image.save(tmp_path / "x.png")
    ImageOps.mirror(image).save(tmp_path / "mirrored.png")
    ImageOps.flip(image).save(tmp_path / "flipped.png")
    x = read_square(tmp_path / "x.png", SIZE)
    assert max_difference(x, read_square(tmp_path / "mirrored.png", SIZE)[:, :, ::-1]) <= 1
    assert max_difference(x, read_square(tmp_path / "flipped.png", SIZE)[:, ::-1]) <= 1
    assert x.std() > 20


@pytest.mark.parametrize("sides", [(800, 1000), (811, 1003), (605, 407), (193, 385)], ids=str)
def test_a_large_jpeg_is_shrunk_by_its_decoder_and_looks_the_same(tmp_path, monkeypatch, sides):
    image, decoded_sides, rgb = noise(*sides), [], image_io._rgb
    image.save(tmp_path / "x.jpg", quality=95)
    image.save(tmp_path / "x.png")

    def recording(image):
        decoded_sides.append(min(image.size))
        return rgb(image)

    monkeypatch.setattr(image_io, "_rgb", recording)
    jpeg = read_square(tmp_path / "x.jpg", SIZE).astype(int)
    png = read_square(tmp_path / "x.png", SIZE).astype(int)
    assert np.abs(jpeg - png).mean() < 0.6 and np.abs(jpeg - png).max() < 10
    assert 2 * SIZE <= decoded_sides[0] <= 4 * SIZE + 8
    assert decoded_sides[1] == min(sides)


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    grey = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64  # 0 to 65472
    for ending in ("png", "tif"):
        pixels = saved(Image.fromarray(grey), tmp_path / f"x.{ending}")
        assert np.abs(pixels - grey / 257).max() <= 0.5
        assert pixels.max() == 255 and pixels.min() == 0


def test_larger_integers_and_floats_are_rejected_because_white_is_unknown(tmp_path):
    for pixels, reason in (
        (np.full((9, 9), 70_000, np.int32), "more than 16 bits"),
        (np.ones((9, 9), np.float32), "floating"),
    ):
        Image.fromarray(pixels).save(tmp_path / "x.tif")
        with pytest.raises(ValueError, match=f"{reason}.*white is unknown"):
            read_square(tmp_path / "x.tif", 32)


def test_grey_black_and_white_and_palette_keep_their_values(tmp_path):
    ramp = np.arange(32 * 32).reshape(32, 32) // 4
    grey = Image.fromarray(ramp.astype(np.uint8))
    assert (saved(grey, tmp_path / "l.png") == ramp).all()
    bilevel = grey.convert("1", dither=Image.Dither.NONE)
    assert (saved(bilevel, tmp_path / "1.png") == (ramp > 127) * 255).all()
    palette = noise(32, 32).quantize(16)
    for ending in ("png", "gif", "bmp"):
        assert (saved(palette, tmp_path / f"p.{ending}") == channels_first(palette)).all()


def test_cmyk_is_ink_on_white(tmp_path):
    inks = {
        (0, 0, 0, 0): (255, 255, 255),
        (255, 0, 0, 0): (0, 255, 255),
        (0, 255, 255, 0): (255, 0, 0),
        (0, 0, 0, 255): (0, 0, 0),
    }
    for ending in ("jpg", "tif"):
        for ink, rgb in inks.items():
            pixels = saved(Image.new("CMYK", (32, 32), ink), tmp_path / f"x.{ending}")
            assert np.abs(pixels - np.array(rgb)[:, None, None]).max() <= 2, (ending, ink)


def test_transparency_is_laid_over_white(tmp_path):
    for alpha, opacity in ((0, 0), (51, 0.2), (255, 1)):
        pixels = saved(Image.new("RGBA", (32, 32), (255, 0, 0, alpha)), tmp_path / "x.png")
        faded = 255 * (1 - opacity)
        assert np.abs(pixels - np.array([255, faded, faded])[:, None, None]).max() <= 1
    assert (saved(Image.new("LA", (32, 32), (0, 0)), tmp_path / "la.png") == 255).all()
    palette = noise(32, 32).quantize(4)
    pixels = saved(palette, tmp_path / "p.png", transparency=2)
    transparent = np.asarray(palette) == 2
    assert (pixels[:, transparent] == 255).all()
    assert (pixels[:, ~transparent] == channels_first(palette)[:, ~transparent]).all()
    keyed = Image.new("RGB", (32, 32), (1, 2, 3))
    assert (saved(keyed, tmp_path / "key.png", transparency=(1, 2, 3)) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_images_are_turned_as_their_exif_data_say(tmp_path, ending, orientation):
    exif, path = Image.Exif(), tmp_path / f"x.{ending}"
    exif[0x0112] = orientation
    noise(20, 31).save(path, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    assert np.array_equal(np.asarray(read_upright(path)), np.asarray(expected))
    assert image_size(path) == expected.size == ((31, 20) if orientation < 5 else (20, 31))
    expected.save(tmp_path / "upright.png")
    upright = read_square(tmp_path / "upright.png", SIZE)
    assert max_difference(read_square(path, SIZE), upright) <= 1


def test_the_first_of_several_pictures_in_a_file_is_read(tmp_path):
    first, second = noise(40, 40), noise(40, 40, seed=1)
    for ending, form in (("jpg", "MPO"), ("gif", "GIF"), ("tif", "TIFF"), ("webp", "WEBP")):
        path = tmp_path / f"x.{ending}"
        first.copy().save(path, form, save_all=True, append_images=[second.copy()])
        pixels = np.asarray(read_upright(path)).astype(int)
        assert np.abs(pixels - np.asarray(first)).mean() < 20


def test_damaged_exif_data_do_not_make_a_picture_unreadable(tmp_path):
    noise(20, 30).save(tmp_path / "x.jpg", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read_upright(tmp_path / "x.jpg").size == (30, 20)


def test_a_pipe_is_an_error_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(Unreadable, match="not a regular file"):
        read_square(tmp_path / "x.jpg", SIZE)


def test_a_long_thin_picture_takes_no_memory(tmp_path):
    # Scaled whole it would have 60,000 * 512 * 512 pixels.
    Image.new("L", (60_000, 1), 9).save(tmp_path / "x.png")
    assert (read_square(tmp_path / "x.png", 512) == 9).all()
