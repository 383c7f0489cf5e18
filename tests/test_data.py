"""The embedded data sets: shapes, labels, what training and test do not share; and the order of batches."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from infomin import data
from infomin.data import DATA, TEST, TRAIN, Split, load, order, worlds
from infomin.moving_mnist import World, render

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
        assert render(split.scenes[:3]).shape == (3, 3, size, size)
        assert split.scenes.world.digits.shape[1:] == (round(size * 20 / 32),) * 2


def test_images_are_the_rendered_scenes() -> None:
    train, test = load("digits")
    for split in (train, test):
        assert split.images.dtype == torch.uint8 and split.images.shape == (len(split), 3, 32, 32)
        assert split.images is split.images  # rendered once
        assert split.scenes is not None
        for some in (slice(0, 5), slice(1020, 1030), slice(len(split) - 5, None)):  # across the borders of the chunks too
            assert (split.images[some] - 255 * render(split.scenes[some])).abs().max() <= 0.5 + 1e-4


@pytest.mark.parametrize(("name", "tasks"), [("digits", ("digit", "background", "position")), ("photos", ("background",))])
def test_labels_are_in_range_and_all_but_uniform(name: str, tasks: tuple[str, ...]) -> None:
    for split in load(name):
        assert tuple(split.labels) == tasks
        for task, labels in split.labels.items():
            assert labels.dtype == torch.long and labels.shape == (len(split),) and labels.min() >= 0
            counts, expected = labels.bincount().numpy(), len(split) / CLASSES[task]
            assert len(counts) == CLASSES[task]
            assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(1 - 1e-3, len(counts) - 1), task


def test_labels_of_digits_are_those_of_their_scenes() -> None:
    for split in load("digits"):
        assert split.scenes is not None
        w = split.scenes.world
        assert torch.equal(split.labels["digit"], w.digit_class[split.scenes.digit_image])
        assert torch.equal(split.labels["background"], w.background_class[split.scenes.background_image])
        assert torch.equal(split.labels["position"], split.scenes.position)


def test_photos_are_undimmed_crops_of_their_own_photograph() -> None:
    for split, w in zip(load("photos"), worlds(), strict=True):
        assert split.scenes is None and split.images.dtype == torch.uint8 and split.images.shape == (len(split), 3, 32, 32)
        for n in (0, 1, len(split) - 1):
            tiles = w.backgrounds[w.background_class == split.labels["background"][n]]
            assert any(match(tile, split.images[n]) for tile in tiles)


def match(tile: Tensor, image: Tensor) -> bool:
    """Whether an image is a crop of a tile."""
    windows = tile.unfold(1, image.shape[1], 1).unfold(2, image.shape[2], 1)
    corner = (windows[:, :, :, 0, 0] == image[:, None, None, 0, 0]).all(0).nonzero().tolist()
    return any(torch.equal(windows[:, y, x], image) for y, x in corner)


@pytest.mark.parametrize("name", DATA)
def test_a_data_set_is_the_same_each_time(name: str) -> None:
    first = load(name, 24)
    data._digit_scenes.cache_clear(), data._photo_patches.cache_clear(), worlds.cache_clear()
    for one, other in zip(first, load(name, 24), strict=True):
        assert torch.equal(one.images[:100], other.images[:100])
        assert all(torch.equal(values, other.labels[task]) for task, values in one.labels.items())


# --- what training and test do not share ---


@every_size
def test_banks_of_training_and_test_have_no_picture_in_common(size: int) -> None:
    train, test = worlds(size)
    for part in (train, test):
        assert part.size == size and part.backgrounds.shape[1:] == (3, 2 * size, 2 * size)
        assert part.digits.dtype == part.backgrounds.dtype == torch.uint8
        assert set(part.digit_class.tolist()) == set(part.background_class.tolist()) == set(range(10))
    assert len(train.digits) == 1200 and len(test.digits) == 597
    assert not rows(train.digits) & rows(test.digits)
    assert not rows(train.backgrounds) & rows(test.backgrounds)
    assert 0.25 < len(test.backgrounds) / (len(train.backgrounds) + len(test.backgrounds)) < 0.4


def test_tiles_are_disjoint_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs whose colours say where a pixel lies, of a size that is not scaled."""
    sides = [(64, 64), (64, 90), (71, 64)]
    photos = [torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")) for h, w in sides]
    numbered = [torch.cat([where, torch.full_like(where[:1], i)]).to(torch.uint8) for i, where in enumerate(photos)]
    monkeypatch.setattr(data, "_photographs", lambda: numbered)
    tiles, photo, is_test = data._tiles(16)
    assert torch.equal(tiles[:, 2].flatten(1).amax(1).long(), photo) and torch.equal(tiles[:, 2].flatten(1).amin(1).long(), photo)
    places = tiles.permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0)
    assert len(places) == len(tiles) * 16 * 16  # no pixel is in two tiles
    assert photo.bincount().tolist() == [16, 20, 16]  # as many as there is room for
    corners = tiles[:, :2, 0, 0].long() // 16
    assert torch.equal(is_test, corners.sum(1) % 3 == 2)
    train, test = (corners[(is_test == part) & (photo == 0)] for part in (False, True))
    for axis in (0, 1):  # both see all of a photograph
        assert set(train[:, axis].tolist()) == set(test[:, axis].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("side", [16, 40])
def test_no_pixel_of_a_photograph_that_is_scaled_reaches_training_and_test(monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    """One bright pixel at a time, on both sides of the seams between tiles, which lie at multiples of 25."""
    for y, x in product((24, 25, 49, 50), (10, 24, 25, 50)):
        photo = torch.zeros(3, 100, 130, dtype=torch.uint8)
        photo[:, y, x] = 255
        monkeypatch.setattr(data, "_photographs", lambda photo=photo: [photo])
        tiles, _, is_test = data._tiles(side)
        lit = (tiles.flatten(1) > 0).any(1)
        assert lit.any() and len(is_test[lit].unique()) == 1, (y, x)


def test_scenes_of_training_and_test_are_of_their_own_world() -> None:
    for split, w in zip(load("digits"), worlds(), strict=True):
        assert split.scenes is not None
        assert torch.equal(split.scenes.world.digits, w.digits) and torch.equal(split.scenes.world.backgrounds, w.backgrounds)


def test_digits_look_like_their_class() -> None:
    train, test = worlds()
    mean = torch.stack([train.digits[train.digit_class == c].double().mean(0).flatten() for c in range(10)])
    nearest = torch.cdist(test.digits.double().flatten(1), mean).argmin(1)
    assert (nearest == test.digit_class).double().mean() > 0.85


def test_digits_and_photos_are_upright_and_visible() -> None:
    train, _ = worlds()
    assert isinstance(train, World) and train.digits.amax((1, 2)).min() > 200  # every digit has full ink
    mean = train.digits.float().mean(0)
    assert mean[:, 0].mean() < 0.2 * mean.mean()  # and an empty left border
    assert train.backgrounds.float().mean((0, 2, 3)).min() > 20 and train.backgrounds.float().std() > 30


# --- order ---


def epoch(n: int, batch: int, number: int, **options: int) -> Tensor:
    steps = n // batch
    return torch.cat([order(n, batch, step, **options) for step in range(number * steps, (number + 1) * steps)])  # type: ignore[arg-type]


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
    one = [order(50, 10, step, seed=1) for step in steps]
    data._permutation.cache_clear()
    torch.manual_seed(0)
    other = [order(50, 10, step, seed=1) for step in reversed(steps)]
    assert all(map(torch.equal, one, reversed(other)))


def test_a_batch_is_the_callers_own() -> None:
    first = order(50, 10, 0, seed=2)
    before = first.clone()
    first.zero_()
    assert torch.equal(order(50, 10, 0, seed=2), before)


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
    whole = order(50, 12, step, seed=4)
    parts = [order(50, 12, step, seed=4, rank=rank, world=world) for rank in range(world)]
    assert {len(part) for part in parts} == {12 // world}
    assert sorted(torch.cat(parts).tolist()) == sorted(whole.tolist()) and len(set(torch.cat(parts).tolist())) == 12


# --- errors ---


@pytest.mark.parametrize("name", ["digit", "", "Digits", "stl-10"])
def test_an_unknown_set_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=f"data: got {name!r}, wanted one of {', '.join(DATA)}"):
        load(name)


@pytest.mark.parametrize("size", [0, -32, 23, 97, 1000])
@pytest.mark.parametrize("name", DATA)
def test_a_size_out_of_range_says_the_range(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"data '{name}': got size {size}, wanted 24 to 96 px"):
        load(name, size)


@pytest.mark.parametrize("batch", [-1, 0, 1, 11])
def test_a_batch_out_of_range_says_the_range(batch: int) -> None:
    with pytest.raises(ValueError, match=f"batch: got {batch}, wanted 2 to 10 "):
        order(10, batch, 0, seed=0)


def test_a_split_of_pixels_gives_them_back() -> None:
    pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    split = Split({"task": torch.tensor([0, 1])}, pixels=pixels)
    assert split.images is pixels and len(split) == 2
