"""The data sets: shapes, labels, what training and test do not share, and sets on disk."""

import hashlib
import io
import pickle
import tarfile
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor
from torchvision import datasets as downloads
from torchvision.transforms.v2 import functional as tv

from infomin import Recipe, data, run
from infomin.common.seeds import seeded_generator
from infomin.data import bundled, datasets, stl10_cifar10
from infomin.data.datasets import DATA, TEST, TRAIN, Split, bundled_worlds, load
from infomin.data.image_io import resize
from infomin.data.scenes import World, draw_scenes, render_scenes

torch.set_num_threads(1)
BUNDLED = ("digits", "photos")
CLASSES = {"digit": 10, "background": 10, "position": 9}
every_size = pytest.mark.parametrize("size", (24, 32, 64, 96))


def pictures_in(bank: Tensor) -> set[bytes]:
    return {picture.tobytes() for picture in bank.flatten(1).numpy()}


# --- digits and photos ---


@every_size
def test_digits_are_scenes_of_the_requested_size(size: int) -> None:
    for split, n in zip(load("digits", size), (TRAIN, TEST), strict=True):
        assert len(split) == n
        assert split.scenes is not None and len(split.scenes) == n
        assert render_scenes(split.scenes[:3]).shape == (3, 3, size, size)
        assert split.scenes.world.digits.shape[1:] == (round(size * 20 / 32),) * 2


def test_images_are_the_rendered_scenes() -> None:
    for split in load("digits"):
        assert split.images.dtype == torch.uint8 and split.images.shape == (len(split), 3, 32, 32)
        assert split.images is split.images  # rendered once
        assert split.scenes is not None
        end = len(split)
        for rows in (slice(0, 5), slice(1020, 1030), slice(end - 5, None)):  # across chunks too
            rendered = 255 * render_scenes(split.scenes[rows])
            assert (split.images[rows] - rendered).abs().max() <= 0.5 + 1e-4


@pytest.mark.parametrize(
    ("name", "tasks"),
    [("digits", ("digit", "background", "position")), ("photos", ("background",))],
)
def test_labels_are_in_range_and_all_but_uniform(name: str, tasks: tuple[str, ...]) -> None:
    for split in load(name):
        assert tuple(split.labels) == tasks
        for task, labels in split.labels.items():
            assert labels.dtype == torch.long and labels.shape == (len(split),)
            assert labels.min() >= 0
            counts, expected = labels.bincount().numpy(), len(split) / CLASSES[task]
            assert len(counts) == CLASSES[task]
            statistic = ((counts - expected) ** 2 / expected).sum()
            assert statistic < chi2.ppf(1 - 1e-3, len(counts) - 1), task


def test_labels_of_digits_are_those_of_their_scenes() -> None:
    for split in load("digits"):
        assert split.scenes is not None
        scenes, world = split.scenes, split.scenes.world
        assert torch.equal(split.labels["digit"], world.digit_class[scenes.digit_image])
        backgrounds = world.background_class[scenes.background_image]
        assert torch.equal(split.labels["background"], backgrounds)
        assert torch.equal(split.labels["position"], scenes.position)


def test_photos_are_undimmed_crops_of_their_own_photograph() -> None:
    for split, world in zip(load("photos"), bundled_worlds(), strict=True):
        assert split.scenes is None
        assert split.images.dtype == torch.uint8 and split.images.shape == (len(split), 3, 32, 32)
        for n in (0, 1, len(split) - 1):
            tiles = world.backgrounds[world.background_class == split.labels["background"][n]]
            assert any(is_crop_of(tile, split.images[n]) for tile in tiles)


def is_crop_of(tile: Tensor, image: Tensor) -> bool:
    windows = tile.unfold(1, image.shape[1], 1).unfold(2, image.shape[2], 1)
    corner = (windows[:, :, :, 0, 0] == image[:, None, None, 0, 0]).all(0).nonzero().tolist()
    return any(torch.equal(windows[:, y, x], image) for y, x in corner)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_data_set_is_the_same_each_time(name: str) -> None:
    first = load(name, 24)
    datasets._digit_scenes.cache_clear()
    datasets._photo_patches.cache_clear()
    bundled._made_worlds.cache_clear()
    for one, other in zip(first, load(name, 24), strict=True):
        assert torch.equal(one.images[:100], other.images[:100])
        assert all(torch.equal(values, other.labels[task]) for task, values in one.labels.items())


@pytest.mark.parametrize("size", [24, 96])
def test_photos_are_scenes_whose_digits_have_no_ink(size: int) -> None:
    """The backgrounds are those of the whole world, although only ten digits are drawn from."""
    parts = zip(load("photos", size), bundled_worlds(size), ("train", "test"), strict=True)
    for split, world, part in parts:
        bare = replace(world, digits=torch.zeros_like(world.digits), dim=1.0)
        scenes = draw_scenes(bare, len(split), seeded_generator(0, "photos", part))
        assert torch.equal(split.labels["background"], scenes.background)
        rendered = (render_scenes(scenes[len(split) - 50 :]) * 255).round().to(torch.uint8)
        assert torch.equal(split.images[-50:], rendered)


def test_large_photos_are_fewer_and_show_more_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MOST_BYTES", 40 * 3 * 128**2)
    datasets._photo_patches.cache_clear()
    train, test = load("photos", 128)
    small = load("photos", 96)[0]
    datasets._photo_patches.cache_clear()
    assert len(train) == len(test) == 40
    assert len(small) == 40 * 128**2 // 96**2  # as many bytes
    for split in (train, test):
        assert split.images.shape == (40, 3, 128, 128) and split.images.dtype == torch.uint8
    large, usual = (bundled_worlds(size)[0].backgrounds.float() for size in (128, 96))
    assert len(large) < len(usual) / 3 and large.shape[2:] == (256, 256)
    # Neighbouring pixels differ more: enlarged less, although there are more of them.
    steps = [float((x[..., 1:] - x[..., :-1]).abs().mean()) for x in (large, usual)]
    assert steps[0] > steps[1]


def test_both_parts_of_large_photos_show_every_photograph() -> None:
    train, test = bundled_worlds(128)
    assert set(train.background_class.tolist()) == set(range(10))
    assert set(test.background_class.tolist()) == set(range(10))
    assert not pictures_in(train.backgrounds) & pictures_in(test.backgrounds)


# --- sets on disk ---


@pytest.fixture
def stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The files of a tiny STL-10: pixels column by column, labels from one."""
    rng, folder = np.random.default_rng(0), tmp_path / "stl10_binary"
    folder.mkdir()
    images = {
        part: rng.integers(0, 256, (n, 3, 96, 96), np.uint8)
        for part, n in (("train", 6), ("unlabeled", 5), ("test", 4))
    }
    for part, pixels in images.items():
        pixels.swapaxes(2, 3).tofile(folder / f"{part}_X.bin")
    for part, n in (("train", 6), ("test", 4)):
        (np.arange(n) % 3 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    monkeypatch.setattr(downloads.STL10, "_check_integrity", lambda self: folder.is_dir())
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path))
    return images


def test_stl10_has_labelled_images_first(stl10: dict[str, np.ndarray]) -> None:
    train, test = load("stl10", 96)
    assert np.array_equal(train.images, np.concatenate([stl10["train"], stl10["unlabeled"]]))
    assert np.array_equal(test.images, stl10["test"])
    assert train.labels["class"].tolist() == [0, 1, 2, 0, 1, 2] + [-1] * 5
    assert test.labels["class"].tolist() == [0, 1, 2, 0]
    assert (len(train), train.labelled, len(test), test.labelled) == (11, 6, 4, 4)


def test_torchvision_reads_the_same_stl10(stl10: dict[str, np.ndarray]) -> None:
    theirs = downloads.STL10(stl10_cifar10.data_root(), split="train+unlabeled")
    ours = load("stl10", 96)[0]
    assert np.array_equal(ours.images, theirs.data)
    assert ours.labels["class"].tolist() == theirs.labels.tolist()


@pytest.mark.parametrize("size", [8, 33, 64])
def test_other_sizes_are_scaled_with_antialias(stl10: dict[str, np.ndarray], size: int) -> None:
    for split, part in zip(load("stl10", size), ("train", "test"), strict=True):
        expected = tv.resize(torch.from_numpy(stl10[part]).float(), [size, size], antialias=True)
        images = split.images[: len(expected)]
        assert images.dtype == torch.uint8 and (images - expected).abs().max() <= 0.5 + 1e-3


def test_scaling_in_chunks_is_scaling_at_once() -> None:
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2100, 3, 8, 8), np.uint8))
    whole = tv.resize(x.float(), [6, 6], antialias=True).round().to(torch.uint8)
    assert torch.equal(resize(x, 6), whole)


def test_the_probe_is_limited_by_the_labelled_images(stl10: dict[str, np.ndarray]) -> None:
    tiny = {"size": 32, "batch": 4, "steps": 1, "probe_images": 10, "candidates": 2}
    recipe = Recipe(view="color:lab", data="stl10", device="cpu", **tiny)  # type: ignore[arg-type]
    message = "probe_images: .* got 4 in 'stl10'"
    with pytest.raises(ValueError, match=message):
        run(recipe)


def write_cifar10(folder: Path, n: int = 3) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write the archive of a tiny CIFAR-10, unsorted; returns labels and images by file."""
    rng, written = np.random.default_rng(1), {}
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name in ["test_batch", *(f"data_batch_{i}" for i in (3, 1, 5, 2, 4)), "readme"]:
            labels = rng.integers(0, 10, n, np.uint8)
            images = rng.integers(0, 256, (n, 3, 32, 32), np.uint8)
            content, ending = b"text", "html"
            if name != "readme":
                records = np.concatenate([labels[:, None], images.reshape(n, -1)], 1)
                content, ending = records.tobytes(), "bin"
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.{ending}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
            written[name] = (labels, images)
    return written


def test_cifar10_is_read_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_cifar10(tmp_path)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(stl10_cifar10, "CIFAR10", (stl10_cifar10.CIFAR10[0], md5))
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path))
    monkeypatch.setattr(pickle, "Unpickler", None)
    monkeypatch.setattr(pickle, "loads", None)
    batches = [written[f"data_batch_{i}"] for i in range(1, 6)]
    train, test = load("cifar10", 32)
    assert np.array_equal(train.images, np.concatenate([images for _, images in batches]))
    assert np.array_equal(train.labels["class"], np.concatenate([labels for labels, _ in batches]))
    test_labels, test_images = written["test_batch"]
    assert np.array_equal(test.images, test_images)
    assert np.array_equal(test.labels["class"], test_labels)
    assert train.labels["class"].dtype == torch.long and train.labelled == 15
    assert load("cifar10", 64)[0].images.shape == (15, 3, 64, 64)
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    message = r"data 'cifar10': got no complete copy in .*, wanted cifar-10-binary\.tar\.gz; run"
    with pytest.raises(FileNotFoundError, match=message):
        load("cifar10", 32)


@pytest.mark.parametrize("name", ["stl10", "cifar10"])
def test_missing_sets_are_reported_and_not_downloaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", None)
    monkeypatch.setattr("socket.socket", None)
    for folder in ("data", "elsewhere"):  # the second from the environment
        root = tmp_path / folder
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("INFOMIN_DATA", "" if folder == "data" else str(root))
        assert stl10_cifar10.data_root().resolve() == root
        message = (
            rf"data '{name}': got no complete copy in .*{folder}, wanted .*; "
            rf"run infomin data fetch {name}, or set"
        )
        with pytest.raises(FileNotFoundError, match=message):
            load(name, 32)


# --- what training and test do not share ---


@every_size
def test_banks_of_training_and_test_have_no_picture_in_common(size: int) -> None:
    train, test = bundled_worlds(size)
    for part in (train, test):
        assert part.size == size and part.backgrounds.shape[1:] == (3, 2 * size, 2 * size)
        assert part.digits.dtype == part.backgrounds.dtype == torch.uint8
        assert set(part.digit_class.tolist()) == set(range(10))
        assert set(part.background_class.tolist()) == set(range(10))
    assert len(train.digits) == 1200 and len(test.digits) == 597
    assert not pictures_in(train.digits) & pictures_in(test.digits)
    assert not pictures_in(train.backgrounds) & pictures_in(test.backgrounds)
    assert 0.25 < len(test.backgrounds) / (len(train.backgrounds) + len(test.backgrounds)) < 0.4


def test_tiles_are_disjoint_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs whose colours encode the pixel, of a size that needs no scaling."""
    photographs = []
    for number, (height, width) in enumerate([(64, 64), (64, 90), (71, 64)]):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        photographs.append(torch.stack([y, x, torch.full_like(y, number)]).to(torch.uint8))
    monkeypatch.setattr(bundled, "_photographs", lambda: photographs)
    tiles, photo, in_test = bundled._tiles(16)
    numbers = tiles[:, 2].flatten(1).long()
    assert torch.equal(numbers.amax(1), photo) and torch.equal(numbers.amin(1), photo)
    pixels = tiles.permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0)
    assert len(pixels) == len(tiles) * 16 * 16  # no pixel is in two tiles
    assert photo.bincount().tolist() == [16, 20, 16]  # as many as fit
    corners = tiles[:, :2, 0, 0].long() // 16
    assert torch.equal(in_test, corners.sum(1) % 3 == 2)
    train, test = (corners[(in_test == part) & (photo == 0)] for part in (False, True))
    for axis in (0, 1):  # both cover the whole photograph
        assert set(train[:, axis].tolist()) == set(test[:, axis].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("side", [16, 40])
def test_no_pixel_of_a_scaled_photograph_reaches_both_parts(
    monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    """One bright pixel at a time, on both sides of the seams between tiles, multiples of 25."""
    for y, x in product((24, 25, 49, 50), (10, 24, 25, 50)):
        photo = torch.zeros(3, 100, 130, dtype=torch.uint8)
        photo[:, y, x] = 255
        monkeypatch.setattr(bundled, "_photographs", lambda photo=photo: [photo])
        tiles, _, in_test = bundled._tiles(side)
        lit = (tiles.flatten(1) > 0).any(1)
        assert lit.any() and len(in_test[lit].unique()) == 1, (y, x)


def test_scenes_of_training_and_test_are_of_their_own_world() -> None:
    for split, world in zip(load("digits"), bundled_worlds(), strict=True):
        assert split.scenes is not None
        assert torch.equal(split.scenes.world.digits, world.digits)
        assert torch.equal(split.scenes.world.backgrounds, world.backgrounds)


def test_digits_look_like_their_class() -> None:
    train, test = bundled_worlds()
    digits = train.digits.double().flatten(1)
    means = torch.stack([digits[train.digit_class == c].mean(0) for c in range(10)])
    nearest = torch.cdist(test.digits.double().flatten(1), means).argmin(1)
    assert (nearest == test.digit_class).double().mean() > 0.85


def test_digits_and_photos_are_upright_and_visible() -> None:
    train, _ = bundled_worlds()
    assert isinstance(train, World)
    assert train.digits.amax((1, 2)).min() > 200  # every digit has full ink
    mean = train.digits.float().mean(0)
    assert mean[:, 0].mean() < 0.2 * mean.mean()  # and an empty left border
    backgrounds = train.backgrounds.float()
    assert backgrounds.mean((0, 2, 3)).min() > 20 and backgrounds.std() > 30


@pytest.mark.parametrize("name", ["digits", "clips"])
def test_train_and_test_are_separate_draws(name):
    """With one seed the first test clips would start and move as the first training clips do."""
    drawn = "start" if name == "clips" else "crop"
    train, test = (getattr(split.scenes, drawn)[:TEST].flatten(1) for split in load(name, 32))
    assert (train == test).all(1).double().mean() < 0.02


# --- names, tasks and errors ---


@pytest.mark.parametrize("name", ["digit", "", "Digits", "stl-10", "folder:", "folder"])
def test_an_unknown_set_is_an_error_that_lists_the_known_ones(name: str) -> None:
    known = f"{', '.join(DATA)}, clips:DIGITS@BACKGROUNDS, folder:PATH"
    with pytest.raises(ValueError, match=f"data: got {name!r}, wanted one of {known}"):
        load(name)


def test_clips_of_other_pictures_have_the_sizes_of_clips() -> None:
    message = "data 'clips:digits@photos': got size 16, wanted 32 to 256 px"
    with pytest.raises(ValueError, match=message):
        load("clips:digits@photos", 16)


@pytest.mark.parametrize(("name", "bounds"), datasets.SIZES.items())
def test_a_size_out_of_range_is_an_error_with_the_range(name: str, bounds: tuple[int, int]) -> None:
    assert set(datasets.SIZES) == set(DATA)
    least, most = bounds
    for size in (0, -32, least - 1, most + 1, 5000):
        message = f"data '{name}': got size {size}, wanted {least} to {most} px"
        with pytest.raises(ValueError, match=message):
            load(name, size)


def test_a_split_of_pixels_gives_them_back() -> None:
    pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    split = Split({"task": torch.tensor([0, 1])}, pixels=pixels)
    assert split.images is pixels and len(split) == 2


@pytest.mark.parametrize("name", ["digits", "photos", "clips"])
def test_tasks_are_known_before_anything_is_loaded(name):
    assert data.tasks(name) == tuple(data.load(name, 32)[0].labels)
    assert data.tasks("clips:mnist@stl10") == data.tasks("clips")
    assert data.tasks("stl10") == data.tasks("folder:x") == ("class",)


@pytest.mark.parametrize(
    ("name", "message"),
    [("clips:mnsit@photos", "digits: got 'mnsit'"), ("clips:digits@fotos", "'fotos'")],
)
def test_words_of_clips_are_checked_before_a_run(name, message):
    with pytest.raises(ValueError, match=message):
        Recipe(data=name)
