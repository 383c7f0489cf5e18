"""The data sets: shapes, labels, what training and test do not share; sets on disk; and the order of batches."""

import hashlib
import io
import math
import pickle
import tarfile
from dataclasses import replace
from itertools import pairwise, product
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
from infomin.data import batches as batching
from infomin.data import bundled, datasets, stl10_cifar10
from infomin.data.batches import batch_rows, batches_by_step, first_rows
from infomin.data.datasets import DATA, TEST, TRAIN, Split, bundled_worlds, load
from infomin.data.digests import clip_sources
from infomin.data.scenes import World, draw_scenes, render_scenes

torch.set_num_threads(1)
EMBEDDED = ("digits", "photos")

SIZES = (24, 32, 64, 96)
CLASSES = {"digit": 10, "background": 10, "position": 9}
every_size = pytest.mark.parametrize("size", SIZES)


def rows(bank: Tensor) -> set[bytes]:
    return {row.tobytes() for row in bank.flatten(1).numpy()}


# --- digits and photos ---


@every_size
def test_digits_are_scenes_of_the_size_asked_for(size: int) -> None:
    for split, n in zip(load("digits", size), (TRAIN, TEST), strict=True):
        assert len(split) == n and split.scenes is not None and len(split.scenes) == n
        assert render_scenes(split.scenes[:3]).shape == (3, 3, size, size)
        assert split.scenes.world.digits.shape[1:] == (round(size * 20 / 32),) * 2


def test_images_are_the_rendered_scenes() -> None:
    train, test = load("digits")
    for split in (train, test):
        assert split.images.dtype == torch.uint8 and split.images.shape == (len(split), 3, 32, 32)
        assert split.images is split.images  # rendered once
        assert split.scenes is not None
        for some in (
            slice(0, 5),
            slice(1020, 1030),
            slice(len(split) - 5, None),
        ):  # across the borders of the chunks too
            assert (
                split.images[some] - 255 * render_scenes(split.scenes[some])
            ).abs().max() <= 0.5 + 1e-4


@pytest.mark.parametrize(
    ("name", "tasks"),
    [("digits", ("digit", "background", "position")), ("photos", ("background",))],
)
def test_labels_are_in_range_and_all_but_uniform(name: str, tasks: tuple[str, ...]) -> None:
    for split in load(name):
        assert tuple(split.labels) == tasks
        for task, labels in split.labels.items():
            assert (
                labels.dtype == torch.long and labels.shape == (len(split),) and labels.min() >= 0
            )
            counts, expected = labels.bincount().numpy(), len(split) / CLASSES[task]
            assert len(counts) == CLASSES[task]
            assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(
                1 - 1e-3, len(counts) - 1
            ), task


def test_labels_of_digits_are_those_of_their_scenes() -> None:
    for split in load("digits"):
        assert split.scenes is not None
        w = split.scenes.world
        assert torch.equal(split.labels["digit"], w.digit_class[split.scenes.digit_image])
        assert torch.equal(
            split.labels["background"], w.background_class[split.scenes.background_image]
        )
        assert torch.equal(split.labels["position"], split.scenes.position)


def test_photos_are_undimmed_crops_of_their_own_photograph() -> None:
    for split, w in zip(load("photos"), bundled_worlds(), strict=True):
        assert (
            split.scenes is None
            and split.images.dtype == torch.uint8
            and split.images.shape == (len(split), 3, 32, 32)
        )
        for n in (0, 1, len(split) - 1):
            tiles = w.backgrounds[w.background_class == split.labels["background"][n]]
            assert any(match(tile, split.images[n]) for tile in tiles)


def match(tile: Tensor, image: Tensor) -> bool:
    """Whether an image is a crop of a tile."""
    windows = tile.unfold(1, image.shape[1], 1).unfold(2, image.shape[2], 1)
    corner = (windows[:, :, :, 0, 0] == image[:, None, None, 0, 0]).all(0).nonzero().tolist()
    return any(torch.equal(windows[:, y, x], image) for y, x in corner)


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_data_set_is_the_same_each_time(name: str) -> None:
    first = load(name, 24)
    (
        datasets._digit_scenes.cache_clear(),
        datasets._photo_patches.cache_clear(),
        bundled_worlds.cache_clear(),
    )
    for one, other in zip(first, load(name, 24), strict=True):
        assert torch.equal(one.images[:100], other.images[:100])
        assert all(torch.equal(values, other.labels[task]) for task, values in one.labels.items())


@pytest.mark.parametrize("size", [24, 96])
def test_photos_are_scenes_whose_digits_have_no_ink(size: int) -> None:
    """However few of the digits are drawn from: the backgrounds are those of the whole world."""
    for split, w, part in zip(
        load("photos", size), bundled_worlds(size), ("train", "test"), strict=True
    ):
        bare = replace(w, digits=torch.zeros_like(w.digits), dim=1.0)
        scenes = draw_scenes(bare, len(split), seeded_generator(0, "photos", part))
        assert torch.equal(split.labels["background"], scenes.background)
        assert torch.equal(
            split.images[-50:],
            (render_scenes(scenes[len(split) - 50 :]) * 255).round().to(torch.uint8),
        )


def test_large_photos_are_fewer_and_show_more_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MOST_BYTES", 40 * 3 * 128**2)
    datasets._photo_patches.cache_clear()
    train, test = load("photos", 128)
    small = load("photos", 96)[0]
    datasets._photo_patches.cache_clear()
    assert (
        len(train) == len(test) == 40 and len(small) == 40 * 128**2 // 96**2
    )  # at most so many bytes
    for split in (train, test):
        assert split.images.shape == (40, 3, 128, 128) and split.images.dtype == torch.uint8
    large, usual = (bundled_worlds(size)[0].backgrounds.float() for size in (128, 96))
    assert len(large) < len(usual) / 3 and large.shape[2:] == (256, 256)
    steps = [float((x[..., 1:] - x[..., :-1]).abs().mean()) for x in (large, usual)]
    assert (
        steps[0] > steps[1]
    )  # between neighbouring pixels: less enlarged although there are more of them


def test_both_parts_of_large_photos_see_every_photograph() -> None:
    train, test = bundled_worlds(128)
    assert (
        set(train.background_class.tolist())
        == set(test.background_class.tolist())
        == set(range(10))
    )
    assert not rows(train.backgrounds) & rows(test.backgrounds)


# --- sets on disk ---


@pytest.fixture
def stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The files of a tiny STL-10: each column of pixels after the other, labels from one."""
    draws, folder = np.random.default_rng(0), tmp_path / "stl10_binary"
    folder.mkdir()
    images = {
        name: draws.integers(0, 256, (n, 3, 96, 96), np.uint8)
        for name, n in (("train", 6), ("unlabeled", 5), ("test", 4))
    }
    for name, x in images.items():
        x.swapaxes(2, 3).tofile(folder / f"{name}_X.bin")
    for name, n in (("train", 6), ("test", 4)):
        (np.arange(n) % 3 + 1).astype(np.uint8).tofile(folder / f"{name}_y.bin")
    monkeypatch.setattr(
        downloads.STL10, "_check_integrity", lambda self: (tmp_path / "stl10_binary").is_dir()
    )
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path))
    stl10_cifar10.stl10.cache_clear()
    return images


def test_stl10_has_labelled_images_first(stl10: dict[str, np.ndarray]) -> None:
    train, test = load("stl10", 96)
    wanted = np.concatenate([stl10["train"], stl10["unlabeled"]])
    assert np.array_equal(train.images, wanted) and np.array_equal(test.images, stl10["test"])
    assert train.labels["class"].tolist() == [0, 1, 2, 0, 1, 2] + [-1] * 5 and test.labels[
        "class"
    ].tolist() == [0, 1, 2, 0]
    assert (len(train), train.labelled, len(test), test.labelled) == (11, 6, 4, 4)


def test_stl10_is_the_same_as_torchvision_reads(stl10: dict[str, np.ndarray]) -> None:
    theirs = downloads.STL10(stl10_cifar10.data_root(), split="train+unlabeled")
    ours = load("stl10", 96)[0]
    assert (
        np.array_equal(ours.images, theirs.data)
        and ours.labels["class"].tolist() == theirs.labels.tolist()
    )


@pytest.mark.parametrize("size", [8, 33, 64])
def test_other_sizes_are_scaled_with_antialias(stl10: dict[str, np.ndarray], size: int) -> None:
    for split, name in zip(load("stl10", size), ("train", "test"), strict=True):
        wanted = tv.resize(torch.from_numpy(stl10[name]).float(), [size, size], antialias=True)
        got = split.images[: len(wanted)]
        assert got.dtype == torch.uint8 and (got - wanted).abs().max() <= 0.5 + 1e-3


def test_scaling_in_pieces_is_scaling_at_once() -> None:
    x = np.random.default_rng(0).integers(0, 256, (2100, 3, 8, 8), np.uint8)
    whole = tv.resize(torch.from_numpy(x).float(), [6, 6], antialias=True).round().to(torch.uint8)
    assert torch.equal(stl10_cifar10.resize_arrays([x[:1050], x[1050:1051], x[1051:]], 6), whole)


def test_the_probe_is_limited_by_the_labelled_images(stl10: dict[str, np.ndarray]) -> None:
    recipe = Recipe(
        view="color:lab",
        data="stl10",
        size=32,
        batch=4,
        steps=1,
        probe_images=10,
        candidates=2,
        device="cpu",
    )
    with pytest.raises(
        ValueError, match="probe_images: got 10, wanted at most the 4 of 'stl10'; use fewer"
    ):
        run(recipe)


def cifar10(path: Path, n: int = 3) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write the archive of a tiny CIFAR-10, its members in no useful order; returns labels and images by file."""
    draws, found = np.random.default_rng(1), {}
    with tarfile.open(path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name in ["test_batch", *(f"data_batch_{i}" for i in (3, 1, 5, 2, 4)), "readme"]:
            labels, images = (
                draws.integers(0, 10, n, np.uint8),
                draws.integers(0, 256, (n, 3, 32, 32), np.uint8),
            )
            bits = (
                np.concatenate([labels[:, None], images.reshape(n, -1)], 1).tobytes()
                if name != "readme"
                else b"text"
            )
            member = tarfile.TarInfo(
                f"cifar-10-batches-bin/{name}.{'html' if name == 'readme' else 'bin'}"
            )
            member.size = len(bits)
            tar.addfile(member, io.BytesIO(bits))
            found[name] = (labels, images)
    return found


def test_cifar10_is_read_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cifar10(tmp_path)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    monkeypatch.setattr(
        stl10_cifar10,
        "CIFAR10",
        (stl10_cifar10.CIFAR10[0], hashlib.md5(archive.read_bytes()).hexdigest()),
    )
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path))
    monkeypatch.setattr(pickle, "Unpickler", None), monkeypatch.setattr(pickle, "loads", None)
    stl10_cifar10.cifar10.cache_clear()
    names = [f"data_batch_{i}" for i in range(1, 6)]
    train, test = load("cifar10", 32)
    assert np.array_equal(train.images, np.concatenate([found[name][1] for name in names]))
    assert np.array_equal(train.labels["class"], np.concatenate([found[name][0] for name in names]))
    assert np.array_equal(test.images, found["test_batch"][1]) and np.array_equal(
        test.labels["class"], found["test_batch"][0]
    )
    assert train.labels["class"].dtype == torch.long and train.labelled == 15
    assert load("cifar10", 64)[0].images.shape == (15, 3, 64, 64)
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    stl10_cifar10.cifar10.cache_clear()
    with pytest.raises(
        FileNotFoundError,
        match=r"data 'cifar10': got no whole copy of it in .*, wanted cifar-10-binary\.tar\.gz; run",
    ):
        load("cifar10", 32)


@pytest.mark.parametrize("name", ["stl10", "cifar10"])
def test_what_is_not_there_is_not_downloaded_but_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", None), monkeypatch.setattr("socket.socket", None)
    getattr(stl10_cifar10, name).cache_clear()
    for where in (tmp_path / "data", tmp_path / "elsewhere"):  # the second by the environment
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("INFOMIN_DATA", "" if where.name == "data" else str(where))
        assert stl10_cifar10.data_root().resolve() == where
        said = rf"data '{name}': got no whole copy of it in .*{where.name}, wanted .*; run python data_tools/fetch.py {name}, or set"
        with pytest.raises(FileNotFoundError, match=said):
            load(name, 32)


# --- what training and test do not share ---


@every_size
def test_banks_of_training_and_test_have_no_picture_in_common(size: int) -> None:
    train, test = bundled_worlds(size)
    for part in (train, test):
        assert part.size == size and part.backgrounds.shape[1:] == (3, 2 * size, 2 * size)
        assert part.digits.dtype == part.backgrounds.dtype == torch.uint8
        assert (
            set(part.digit_class.tolist()) == set(part.background_class.tolist()) == set(range(10))
        )
    assert len(train.digits) == 1200 and len(test.digits) == 597
    assert not rows(train.digits) & rows(test.digits)
    assert not rows(train.backgrounds) & rows(test.backgrounds)
    assert 0.25 < len(test.backgrounds) / (len(train.backgrounds) + len(test.backgrounds)) < 0.4


def test_tiles_are_disjoint_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs whose colours say where a pixel lies, of a size that is not scaled."""
    sides = [(64, 64), (64, 90), (71, 64)]
    photos = [
        torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))
        for h, w in sides
    ]
    numbered = [
        torch.cat([where, torch.full_like(where[:1], i)]).to(torch.uint8)
        for i, where in enumerate(photos)
    ]
    monkeypatch.setattr(bundled, "_photographs", lambda: numbered)
    tiles, photo, is_test = bundled._tiles(16)
    assert torch.equal(tiles[:, 2].flatten(1).amax(1).long(), photo) and torch.equal(
        tiles[:, 2].flatten(1).amin(1).long(), photo
    )
    places = tiles.permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0)
    assert len(places) == len(tiles) * 16 * 16  # no pixel is in two tiles
    assert photo.bincount().tolist() == [16, 20, 16]  # as many as there is room for
    corners = tiles[:, :2, 0, 0].long() // 16
    assert torch.equal(is_test, corners.sum(1) % 3 == 2)
    train, test = (corners[(is_test == part) & (photo == 0)] for part in (False, True))
    for axis in (0, 1):  # both see all of a photograph
        assert set(train[:, axis].tolist()) == set(test[:, axis].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("side", [16, 40])
def test_no_pixel_of_a_photograph_that_is_scaled_reaches_training_and_test(
    monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    """One bright pixel at a time, on both sides of the seams between tiles, which lie at multiples of 25."""
    for y, x in product((24, 25, 49, 50), (10, 24, 25, 50)):
        photo = torch.zeros(3, 100, 130, dtype=torch.uint8)
        photo[:, y, x] = 255
        monkeypatch.setattr(bundled, "_photographs", lambda photo=photo: [photo])
        tiles, _, is_test = bundled._tiles(side)
        lit = (tiles.flatten(1) > 0).any(1)
        assert lit.any() and len(is_test[lit].unique()) == 1, (y, x)


def test_scenes_of_training_and_test_are_of_their_own_world() -> None:
    for split, w in zip(load("digits"), bundled_worlds(), strict=True):
        assert split.scenes is not None
        assert torch.equal(split.scenes.world.digits, w.digits) and torch.equal(
            split.scenes.world.backgrounds, w.backgrounds
        )


def test_digits_look_like_their_class() -> None:
    train, test = bundled_worlds()
    mean = torch.stack(
        [train.digits[train.digit_class == c].double().mean(0).flatten() for c in range(10)]
    )
    nearest = torch.cdist(test.digits.double().flatten(1), mean).argmin(1)
    assert (nearest == test.digit_class).double().mean() > 0.85


def test_digits_and_photos_are_upright_and_visible() -> None:
    train, _ = bundled_worlds()
    assert (
        isinstance(train, World) and train.digits.amax((1, 2)).min() > 200
    )  # every digit has full ink
    mean = train.digits.float().mean(0)
    assert mean[:, 0].mean() < 0.2 * mean.mean()  # and an empty left border
    assert (
        train.backgrounds.float().mean((0, 2, 3)).min() > 20
        and train.backgrounds.float().std() > 30
    )


# --- order ---


def epoch(n: int, batch: int, number: int, **options: int) -> Tensor:
    steps = n // batch
    return torch.cat(
        [
            batch_rows(n, batch, step, **options)
            for step in range(number * steps, (number + 1) * steps)
        ]
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "batch"), [(12, 2), (12, 12), (60, 5), (512, 128)])
@pytest.mark.parametrize("number", [0, 1, 7])
def test_an_epoch_visits_every_row_once(n: int, batch: int, number: int) -> None:
    visited = epoch(n, batch, number, seed=3)
    assert visited.dtype == torch.long and torch.equal(visited.sort().values, torch.arange(n))


@pytest.mark.parametrize(("n", "batch"), [(13, 5), (100, 64), (7, 2)])
def test_the_rest_of_a_set_that_is_no_multiple_waits_for_the_next_epoch(n: int, batch: int) -> None:
    epochs = [epoch(n, batch, number, seed=0) for number in range(20)]
    assert all(len(set(visited.tolist())) == n // batch * batch for visited in epochs)
    assert len(set(torch.cat(epochs).tolist())) == n  # another rest each time


def test_order_is_a_function_of_its_arguments() -> None:
    steps = [5, 0, 99, 5, 7, 0]
    one = [batch_rows(50, 10, step, seed=1) for step in steps]
    batching._permutation.cache_clear()
    torch.manual_seed(0)
    other = [batch_rows(50, 10, step, seed=1) for step in reversed(steps)]
    assert all(map(torch.equal, one, reversed(other)))


def test_a_batch_is_the_callers_own() -> None:
    first = batch_rows(50, 10, 0, seed=2)
    before = first.clone()
    first.zero_()
    assert torch.equal(batch_rows(50, 10, 0, seed=2), before)


def test_epochs_and_seeds_differ_and_look_random() -> None:
    epochs = [epoch(200, 10, number, seed=seed) for seed in range(3) for number in range(3)]
    for i, one in enumerate(epochs):
        for other in epochs[:i]:
            agree = int((one == other).sum())
            assert agree < 8  # one on average
    for one, other in pairwise(epochs):
        assert abs(float(np.corrcoef(one, other)[0, 1])) < 5 / math.sqrt(200)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("step", [0, 3, 9])
def test_the_parts_of_all_processes_make_up_the_batch_of_one(world: int, step: int) -> None:
    whole = batch_rows(50, 12, step, seed=4)
    parts = [batch_rows(50, 12, step, seed=4, rank=rank, world=world) for rank in range(world)]
    assert {len(part) for part in parts} == {12 // world}
    assert (
        sorted(torch.cat(parts).tolist()) == sorted(whole.tolist())
        and len(set(torch.cat(parts).tolist())) == 12
    )


def test_batches_are_rows_in_order() -> None:
    images, labels = (
        torch.arange(60).view(20, 3, 1, 1),
        {"class": torch.arange(20) % 7, "other": torch.arange(20)},
    )
    at = batches_by_step((images, labels), 4, steps=3, seed=5)
    for step in (0, 4, 1, 9):
        chosen, index, told = at(step)
        assert torch.equal(index, batch_rows(20, 4, step, seed=5)) and torch.equal(
            chosen, images[index]
        )
        assert torch.equal(told["class"], index % 7) and torch.equal(told["other"], index)
    chosen, told = first_rows((images, labels), 6)
    assert torch.equal(chosen, images[:6]) and told["other"].tolist() == list(range(6))


# --- errors ---


@pytest.mark.parametrize("name", ["digit", "", "Digits", "stl-10", "folder:", "folder"])
def test_an_unknown_set_lists_the_known_ones(name: str) -> None:
    known = f"{', '.join(DATA)}, clips:DIGITS@BACKGROUNDS, folder:PATH"
    with pytest.raises(ValueError, match=f"data: got {name!r}, wanted one of {known}; pick one"):
        load(name)


def test_clips_of_other_pictures_have_the_sizes_of_clips() -> None:
    with pytest.raises(
        ValueError, match="data 'clips:digits@photos': got size 16, wanted 32 to 256 px; change it"
    ):
        load("clips:digits@photos", 16)


@pytest.mark.parametrize(("name", "bounds"), datasets.SIZES.items())
def test_a_size_out_of_range_says_the_range(name: str, bounds: tuple[int, int]) -> None:
    assert set(datasets.SIZES) == set(DATA)
    for size in (0, -32, bounds[0] - 1, bounds[1] + 1, 5000):
        with pytest.raises(
            ValueError,
            match=f"data '{name}': got size {size}, wanted {bounds[0]} to {bounds[1]} px",
        ):
            load(name, size)


@pytest.mark.parametrize("batch", [-1, 0, 1, 11])
def test_a_batch_out_of_range_says_the_range(batch: int) -> None:
    with pytest.raises(ValueError, match=f"batch: got {batch}, wanted 2 to 10 "):
        batch_rows(10, batch, 0, seed=0)


def test_a_split_of_pixels_gives_them_back() -> None:
    pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    split = Split({"task": torch.tensor([0, 1])}, pixels=pixels)
    assert split.images is pixels and len(split) == 2


@pytest.mark.parametrize("name", ["digits", "photos", "clips"])
def test_tasks_are_known_before_anything_is_loaded(name):
    assert data.tasks(name) == tuple(data.load(name, 32)[0].labels)
    assert data.tasks("clips:mnist@stl10") == data.tasks("clips") and data.tasks(
        "stl10"
    ) == data.tasks("folder:x") == ("class",)


@pytest.mark.parametrize("name", ["digits", "clips"])
def test_train_and_test_are_draws_of_their_own(name):
    """Of one seed the first test clips would start and move as the first training clips do."""
    train, test = (split.scenes for split in load(name, 32))
    drawn = "start" if name == "clips" else "crop"
    one, other = (getattr(part, drawn)[:TEST].flatten(1) for part in (train, test))
    assert (one == other).all(1).double().mean() < 0.02


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("clips:mnist@photos", ("mnist", "photos")),
        ("clips:folder:a@b@photos", ("folder:a@b", "photos")),
        ("clips:digits@folder:/x@photos", ("digits", "folder:/x@photos")),
        ("clips:folder:a@photosets@stl10", ("folder:a@photosets", "stl10")),
        ("clips:mnist@fotos", ("mnist", "fotos")),
        ("clips:mnist", ("mnist", "")),
        ("clips:@photos", ("", "photos")),
    ],
)
def test_a_path_may_have_an_at(name, pair):
    assert clip_sources(name) == pair


@pytest.mark.parametrize(
    ("name", "said"),
    [("clips:mnsit@photos", "digits: got 'mnsit'"), ("clips:digits@fotos", "'fotos'")],
)
def test_words_of_clips_are_checked_before_a_run(name, said):
    with pytest.raises(ValueError, match=said):
        Recipe(data=name)
