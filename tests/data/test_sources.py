"""Sources of Moving-MNIST: scaling, folders, and that training and test share no picture."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from idx_files import (
    SPELLINGS,
    Pixels,
    is_world_of,
    noise,
    pictures_in,
    shared_pictures,
    write_idx,
    write_set,
)
from picture_files import write_glyphs
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2 import functional as tv

from infomin import Recipe
from infomin.data import sources, stl10_cifar10
from infomin.data.bundled import bundled_worlds
from infomin.data.scenes import World, draw_scenes, render_scenes
from infomin.data.sources import load_worlds

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("own_data_root")


def smooth_photograph(width: int, height: int, seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 10 JPEGs of many shapes, one grey, one cut, one a text; and a text file."""
    root = tmp_path_factory.mktemp("photographs")
    sizes = ((1600, 1200), (700, 900), (60, 44), (150, 130))
    for n in range(30):
        path = root / ("sea", "forest", "street")[n % 3] / f"{n:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        image = smooth_photograph(*sizes[n % 4], seed=n)
        image.convert("L" if n == 7 else "RGB").save(path)
    cut = root / "forest" / "10.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    (root / "sea" / "12.jpg").write_text("a text " * 100)  # the fifth of its class: for the test
    (root / "street" / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Pixels]:
    """A tiny STL-10 in its own format, columns before rows, classes from 1, unchecked."""
    folder, images = tmp_path / "stl10_binary", {}
    folder.mkdir()
    for part, n in (("train", 20), ("unlabeled", 5), ("test", 10)):
        images[part] = noise(n, n, (3, 96, 96))
        images[part].swapaxes(2, 3).tofile(folder / f"{part}_X.bin")
        (np.arange(n) % 10 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    return images


# --- scaling ---


@pytest.mark.parametrize("digit", [8, 20, 27, 28, 40])
def test_digits_are_scaled_with_antialias(tmp_path: Path, digit: int) -> None:
    written = torch.from_numpy(write_set(tmp_path)["train"])[:, None].float()
    digits = load_worlds(f"idx:{tmp_path}", digit=digit)[0].digits
    expected = tv.resize(written, [digit, digit], antialias=True)[:, 0]
    assert digits.dtype == torch.uint8 and digits.shape == (40, digit, digit)
    assert (digits - expected).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("shape", [(20, 28), (28, 21), (28, 1)], ids=str)
def test_digits_that_are_not_square_get_central_margins(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    write_set(tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte", np.full((40, *shape), 255, np.uint8))
    digit, side = load_worlds(f"idx:{tmp_path}")[0].digits[0], max(shape)
    rows = (digit > 0).any(1).nonzero().flatten()
    columns = (digit > 0).any(0).nonzero().flatten()
    assert (len(rows), len(columns)) == shape
    assert digit.max() == 255 and digit.sum() == 255 * math.prod(shape)
    for inked in (rows, columns):
        before, after = int(inked[0]), side - 1 - int(inked[-1])
        assert abs(before - after) <= 1


def test_scaling_in_chunks_is_scaling_at_once() -> None:
    x = torch.from_numpy(noise(2100, 0, (9, 12)))
    chunks = [sources._square_digits(chunk, 8) for chunk in x.split(700)]
    assert torch.equal(sources._square_digits(x, 8), torch.cat(chunks))


# --- bundled pictures and the cache ---


@pytest.mark.parametrize("size", [24, 32])
def test_bundled_words_give_the_worlds_of_the_bundled_scenes(size: int) -> None:
    worlds = load_worlds(size=size, digit=round(size * 20 / 32))
    for world, bundled in zip(worlds, bundled_worlds(size), strict=True):
        assert world is not bundled
        for name in World.__dataclass_fields__:
            value, expected = getattr(world, name), getattr(bundled, name)
            if isinstance(expected, Tensor):
                assert torch.equal(value, expected)
            else:
                assert value == expected


@pytest.mark.parametrize("digit", range(8, 49, 8))
def test_bundled_digits_have_the_requested_size(digit: int) -> None:
    for world in load_worlds(size=48, digit=digit, dim=1):
        assert world.digits.shape[1:] == (digit, digit) and world.backgrounds.shape[2:] == (96, 96)
        assert (world.size, world.dim) == (48, 1)


def test_worlds_are_cached_for_one_data_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(("one", "two")):
        write_set(tmp_path / name / "MNIST" / "raw", seed=seed)
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path / "one"))
    first = load_worlds("mnist")
    assert load_worlds("mnist")[0].digits.equal(first[0].digits)
    assert sources._worlds.cache_info().hits == 1
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path / "two"))
    assert not torch.equal(load_worlds("mnist")[0].digits, first[0].digits)


def test_changed_files_are_read_again_and_are_another_run(tmp_path: Path) -> None:
    """Also files of the same size: Fashion-MNIST's have that of MNIST's."""
    words = [f"idx:{tmp_path}", f"idx:{tmp_path}/train-images-idx3-ubyte"]

    def keys() -> list[str]:
        return [Recipe(data=f"clips:{word}@photos").key for word in words]

    write_set(tmp_path, seed=1)
    before, first = keys(), load_worlds(words[0])
    assert keys() == before and load_worlds(words[0])[0].digits.equal(first[0].digits)
    write_set(tmp_path, seed=2)
    assert len({*before, *keys()}) == 4
    assert not torch.equal(load_worlds(words[0])[0].digits, first[0].digits)


def test_sets_are_read_from_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFOMIN_DATA", "")
    monkeypatch.chdir(tmp_path)
    written = write_set(stl10_cifar10.data_root() / "FashionMNIST" / "raw")
    assert is_world_of(load_worlds("fashion")[1], written["test"], written["test_labels"])


# --- backgrounds ---


def test_backgrounds_of_stl10_are_its_labelled_images(stl10: dict[str, Pixels]) -> None:
    for world, part in zip(load_worlds(backgrounds="stl10"), ("train", "test"), strict=True):
        assert np.array_equal(world.backgrounds, stl10[part]) and world.backgrounds.is_contiguous()
        assert world.background_class.tolist() == [n % 10 for n in range(len(stl10[part]))]
    assert load_worlds(backgrounds="stl10", size=96)[0].size == 96
    message = r"load_worlds\(size\): got 97, wanted 8 to 96 px with backgrounds 'stl10'"
    with pytest.raises(ValueError, match=message):
        load_worlds(backgrounds="stl10", size=97)


def distance(picture: Tensor, path: Path) -> float:
    """Mean difference in bytes between a picture and the centre square of a file, scaled alike."""
    try:
        image = Image.open(path).convert("RGB")
    except OSError:
        return math.inf
    side = min(image.size)
    square = tv.center_crop(tv.pil_to_tensor(image), [side, side])
    scaled = tv.resize(square, [48, 48], antialias=True)
    return float((scaled.float() - picture).abs().mean())


def test_a_folder_of_photographs_gives_backgrounds(photographs: Path) -> None:
    with pytest.warns(UserWarning, match=r"cannot be read \(.*\); left out") as caught:
        train, test = load_worlds(backgrounds=f"folder:{photographs}", size=24, digit=20)
    unreadable = sorted(str(warning.message).split(":")[0] for warning in caught)
    assert unreadable == [f"{photographs}/forest/10.jpg", f"{photographs}/sea/12.jpg"]
    assert train.background_class.bincount().tolist() == [7, 8, 8]
    assert test.background_class.bincount().tolist() == [2, 1, 2]
    pictures = torch.cat([train.backgrounds, test.backgrounds])
    assert pictures.shape == (28, 3, 48, 48) and pictures.dtype == torch.uint8
    assert len(pictures_in(pictures)) == 28  # none is in both
    for world, in_test in ((train, False), (test, True)):
        for picture, label in zip(world.backgrounds, world.background_class.tolist(), strict=True):
            folder = photographs / ("forest", "sea", "street")[label]
            distances = [distance(picture, path) for path in sorted(folder.glob("*.jpg"))]
            nearest = int(np.argmin(distances))
            assert distances[nearest] < 12 and (nearest % 5 == 4) == in_test


def test_unreadable_files_are_reported_once(photographs: Path) -> None:
    with pytest.warns(UserWarning, match="left out"):
        load_worlds(backgrounds=f"folder:{photographs}", size=16, digit=16)
    load_worlds(backgrounds=f"folder:{photographs}", size=16, digit=16)  # a warning is an error


def test_large_jpegs_are_shrunk_by_their_decoder(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded_sides, resize = [], Image.Image.resize

    def recording(self, *args, **options):
        decoded_sides.append(min(self.size))
        return resize(self, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", recording)
    with pytest.warns(UserWarning, match="left out"):
        load_worlds(backgrounds=f"folder:{photographs}", size=24, digit=20)
    assert len(decoded_sides) == 28
    assert max(decoded_sides) < 4 * 48 and min(decoded_sides) == 44


def test_a_class_without_a_readable_picture_in_a_part_is_an_error(tmp_path: Path) -> None:
    for n in range(10):
        path = tmp_path / "ab"[n % 2] / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        smooth_photograph(30, 30, n).save(path)
    (tmp_path / "b" / "9.png").write_bytes(b"")
    message = rf"got no readable test picture of class {tmp_path}/b, wanted one of each class"
    with (
        pytest.warns(UserWarning, match="9.png: cannot be read"),
        pytest.raises(ValueError, match=message),
    ):
        load_worlds(backgrounds=f"folder:{tmp_path}")


# --- digits from a folder, and everything together ---


def test_a_folder_gives_digits_whose_ink_is_brightness(tmp_path: Path) -> None:
    brightness = write_glyphs(tmp_path / "glyphs")
    train, test = load_worlds(f"folder:{tmp_path}/glyphs", digit=12)
    assert train.digits.shape == (24, 12, 12) and test.digits.shape == (6, 12, 12)
    assert train.digits.dtype == torch.uint8
    assert not shared_pictures(train.digits, test.digits)
    inks = sorted(torch.cat([train.digits, test.digits])[:, 0, 0].tolist())
    assert inks == sorted(brightness.values())
    for world in (train, test):
        for digit, label in zip(world.digits, world.digit_class.tolist(), strict=True):
            i = (255 - int(digit[0, 0])) // 8
            assert (digit == 255 - 8 * i).all()
            assert "abcdef"[label] == "fedcba"[i % 6] and (i >= 24) == (world is test)


def test_ink_of_colours_is_their_luma(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (12, 200, 77)]
    for n, colour in enumerate(colours):
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{n}.png")
    train, test = load_worlds(f"folder:{tmp_path}", digit=8)
    inks = torch.cat([train.digits, test.digits])[:, 0, 0].tolist()
    assert sorted(inks) == sorted(round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in colours)


def test_two_arguments_replace_digits_and_backgrounds(tmp_path: Path, photographs: Path) -> None:
    written = write_set(tmp_path / "fashion", SPELLINGS["gzipped"])
    with pytest.warns(UserWarning, match="left out"):
        worlds = load_worlds(f"idx:{tmp_path}/fashion", f"folder:{photographs}", dim=0.8)
    for world, part in zip(worlds, ("train", "test"), strict=True):
        assert (world.size, world.dim) == (64, 0.8)
        assert is_world_of(world, written[part], written[f"{part}_labels"])
        scenes = draw_scenes(world, 200, torch.Generator().manual_seed(0))
        images = render_scenes(scenes)
        assert images.shape == (200, 3, 64, 64) and images.min() >= 0 and images.max() <= 1
        assert scenes.digit.unique().tolist() == list(range(10))
        assert scenes.background.unique().tolist() == [0, 1, 2]
        assert torch.equal(world.digit_class[scenes.digit_image], scenes.digit)
        assert torch.equal(world.background_class[scenes.background_image], scenes.background)


@pytest.mark.parametrize(
    "words",
    [("digits", "photos"), ("idx", "folder"), ("folder", "stl10"), ("file", "photos")],
    ids=str,
)
def test_the_parts_share_no_picture(
    tmp_path: Path, photographs: Path, stl10: dict[str, Pixels], words: tuple[str, str]
) -> None:
    write_set(tmp_path / "set")
    write_glyphs(tmp_path / "glyphs")
    write_idx(tmp_path / "images-idx3-ubyte", noise(60, 9))
    write_idx(tmp_path / "labels-idx1-ubyte", np.arange(60, dtype=np.uint8) % 10)
    paths = {
        "idx": f"idx:{tmp_path}/set",
        "folder": f"folder:{tmp_path}/glyphs",
        "file": f"idx:{tmp_path}/images-idx3-ubyte",
    }
    digits = paths.get(words[0], words[0])
    backgrounds = f"folder:{photographs}" if words[1] == "folder" else words[1]
    with pytest.warns(UserWarning) if words[1] == "folder" else pytest.MonkeyPatch.context():
        train, test = load_worlds(digits, backgrounds, size=24, digit=20)
    for name in ("digits", "backgrounds"):
        one, other = getattr(train, name), getattr(test, name)
        assert len(one) and len(other) and not shared_pictures(one, other)
    for name in ("digit_class", "background_class"):
        one, other = getattr(train, name), getattr(test, name)
        assert one.unique().tolist() == other.unique().tolist()
