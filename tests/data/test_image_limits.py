"""Files at the limits of the reader: bands, large pictures, rare formats and rare TIFFs."""

import math
import struct
import warnings

import numpy as np
import pytest
import torch
from picture_files import noise
from PIL import Image

from infomin.data import image_io
from infomin.data.image_files import ImageFiles
from infomin.data.image_io import (
    EXTENSIONS,
    FORMATS,
    Unreadable,
    image_size,
    read_square,
    read_upright,
)

torch.set_num_threads(1)


def read_at_once(path, size):
    """A slow oracle: the whole picture becomes RGB, then the square is scaled."""
    with Image.open(path) as image:
        image.load()
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    if "A" in image.mode:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box)
    return np.asarray(square).transpose(2, 0, 1)


@pytest.mark.parametrize("band", [1, 200, 2**22])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_bands_make_no_difference(tmp_path, monkeypatch, band, mode):
    monkeypatch.setattr(image_io, "_BAND", band)
    path = tmp_path / "x.png"
    for sides in [(40, 40), (97, 31), (31, 97), (300, 211), (7, 90), (1, 50), (50, 1), (3, 3)]:
        image = noise(*sides)
        if mode == "RGBA":
            image.putalpha(noise(*sides, seed=1).convert("L"))
        image.convert(mode).save(path)
        for size in (8, 24, 61):
            assert np.array_equal(read_square(path, size), read_at_once(path, size)), sides
        assert read_upright(path).size == (sides[1], sides[0])


@pytest.mark.parametrize("reader", [read_square, read_upright, image_size])
def test_a_picture_above_the_limit_is_unreadable_and_says_why(tmp_path, monkeypatch, reader):
    path, size = tmp_path / "x.png", [24] if reader is read_square else []
    noise(30, 40).save(path)
    reader(path, *size)
    monkeypatch.setenv("INFOMIN_MAX_PIXELS", "1199")
    with pytest.raises(
        Unreadable, match="1,200 pixels, more than 1,199; scale it down, or set INF"
    ):
        reader(path, *size)
    monkeypatch.setenv("INFOMIN_MAX_PIXELS", "1200")
    reader(path, *size)


def test_the_limit_is_ours_alone(tmp_path, monkeypatch):
    """PIL's is lower, one for the process, and warns: as an error, the picture would be lost."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    noise(30, 40).save(tmp_path / "x.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_square(tmp_path / "x.jpg", 8).shape == (3, 8, 8)
        assert read_upright(tmp_path / "x.jpg").size == (40, 30)
    monkeypatch.setenv("INFOMIN_MAX_PIXELS", "1199")
    noise(9, 9).save(tmp_path / "y.jpg")
    files = ImageFiles([str(tmp_path / "x.jpg"), str(tmp_path / "y.jpg")], 8)
    with pytest.warns(UserWarning, match=r"x.jpg: cannot be read \(1,200 pixels, more than 1,199"):
        assert files.take(torch.tensor([0, 1]))[1].tolist() == [1, 1]


@pytest.mark.parametrize("ending", EXTENSIONS)
def test_every_extension_is_read(tmp_path, ending):
    (form,) = [name for name, endings in FORMATS.items() if ending in endings]
    path, picture = tmp_path / f"x{ending}", noise(40, 30)
    if form not in Image.SAVE:
        pytest.skip(f"this PIL does not write {form}")
    picture.save(path, form)
    assert image_size(path) == (30, 40)
    assert np.array_equal(read_square(path, 30), read_at_once(path, 30))
    assert np.abs(np.asarray(read_upright(path)).astype(int) - np.asarray(picture)).mean() < 20


def grey_tiff(path, values, bits, photometric):
    """Write one row of grey values as an uncompressed TIFF, from its definition."""
    packed = "".join(f"{value:0{bits}b}" for value in values)
    packed += "0" * (-len(packed) % 8)
    content = bytes(int(packed[i : i + 8], 2) for i in range(0, len(packed), 8))
    if bits == 16:
        content = struct.pack(f"<{len(values)}H", *values)
    tags = {256: len(values), 257: 1, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: 1}
    tags[279] = len(content)
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    path.write_bytes(head + entries + bytes(4) + content)


@pytest.mark.parametrize(("bits", "photometric"), [(b, p) for b in (1, 4, 8, 16) for p in (0, 1)])
def test_white_and_black_are_where_a_tiff_says(tmp_path, bits, photometric):
    """Photometric interpretation 0 means that 0 is white."""
    white = 2**bits - 1
    values = [round(share * white) for share in (0, 22 / 255, 0.4, 0.8, 1, 0, 1, 0.5)]
    grey_tiff(tmp_path / "x.tif", values, bits, photometric)
    expected = [255 * (value if photometric else white - value) / white for value in values]
    found = np.asarray(read_upright(tmp_path / "x.tif"))[0, :, 0]
    assert np.abs(found - expected).max() <= 0.5 + 1e-9


def test_white_of_twelve_bits_is_their_largest_value(tmp_path):
    values = [0, 1, 16, 1000, 2048, 4094, 4095, 300]
    grey_tiff(tmp_path / "x.tif", values, 12, 1)
    found = np.asarray(read_upright(tmp_path / "x.tif"))[0, :, 0]
    assert np.abs(found - 255 * np.array(values) / 4095).max() <= 0.5


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_an_unknown_orientation_turns_nothing(tmp_path, ending, orientation):
    exif, path = Image.Exif(), tmp_path / f"x.{ending}"
    exif[0x0112] = orientation
    noise(20, 31).save(path, exif=exif)
    with Image.open(path) as image:
        plain = image.convert("RGB")
    assert image_size(path) == read_upright(path).size == (31, 20)
    assert np.array_equal(np.asarray(read_upright(path)), np.asarray(plain))


def test_a_tall_picture_takes_no_memory(tmp_path):
    Image.new("L", (1, 60_000), 9).save(tmp_path / "x.png")
    assert (read_square(tmp_path / "x.png", 512) == 9).all()
    assert math.prod(image_size(tmp_path / "x.png")) == 60_000
