"""Patch views: the exact positions of the patches."""

import pytest
import torch
from scipy.stats import chisquare

from infomin.views import PatchPair, parse
from infomin.views.patch import cut_patches

torch.set_num_threads(1)
HEIGHT, WIDTH = 23, 31


def coordinates(height: int, width: int) -> torch.Tensor:
    """An image whose two channels are the row and column of each pixel."""
    rows, columns = torch.arange(height), torch.arange(width)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")).double()


PLACE = coordinates(HEIGHT, WIDTH)


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize(("distance", "size"), [(0, 8), (3, 8), (8, 8), (13, 10), (22, 1), (0, 23)])
def test_the_patches_have_their_distance_and_lie_inside_the_image(distance, size):
    batch = PLACE.expand(200, 2, HEIGHT, WIDTH)
    view = PatchPair(distance, size)
    v1, v2 = view.augment(batch, view.draw(200, HEIGHT, WIDTH, seed(0)))
    assert v1.shape == v2.shape == (200, 2, size, size)
    assert torch.equal(v2 - v1, torch.full_like(v1, distance))
    offsets = coordinates(size, size).expand_as(v1)
    assert torch.equal(v1 - v1[:, :, :1, :1], offsets)  # whole and upright
    assert v1.min() >= 0 and (v2.amax((0, 2, 3)) <= torch.tensor([HEIGHT - 1, WIDTH - 1])).all()


def test_all_positions_are_reached_and_equally_likely():
    view = PatchPair(distance=9, size=10)
    row, column = view.draw(20_000, HEIGHT, WIDTH, seed(1))
    rows, columns = HEIGHT - 18, WIDTH - 18
    counts = torch.bincount(row * columns + column, minlength=rows * columns)
    assert len(counts) == rows * columns and chisquare(counts).pvalue > 1e-3


def test_a_single_possible_position_is_used():
    view = PatchPair(distance=5, size=18)
    v1, v2 = view.augment(PLACE[None, :, :, :23], view.draw(1, 23, 23, seed(0)))
    assert torch.equal(v1[0], PLACE[:, :18, :18]) and torch.equal(v2[0], PLACE[:, 5:, 5:23])


def test_each_image_of_a_batch_gets_its_own_draws():
    view, batch = PatchPair(4, 7), torch.rand(12, 3, HEIGHT, WIDTH)
    draws = view.draw(12, HEIGHT, WIDTH, seed(2))
    views = view.augment(batch, draws)
    assert all(map(torch.equal, view(batch, seed(2)), views))
    for i in range(12):
        single = view.augment(batch[i : i + 1], tuple(draw[i : i + 1] for draw in draws))
        assert all(map(torch.equal, single, [v[i : i + 1] for v in views]))


def test_patches_are_slices_and_have_their_gradient():
    images = torch.rand(5, 2, 9, 8, dtype=torch.float64, requires_grad=True)
    top, left = torch.tensor([0, 1, 5, 2, 3]), torch.tensor([4, 0, 2, 4, 1])
    for layout in (
        images,
        images.detach(),
        images.detach().contiguous(memory_format=torch.channels_last),
        images.detach().mT.mT,
    ):
        patches = cut_patches(layout, top, left, 4)
        for i in range(5):
            rows, columns = slice(top[i], top[i] + 4), slice(left[i], left[i] + 4)
            assert torch.equal(patches[i], images[i, :, rows, columns])
    assert torch.autograd.gradcheck(lambda x: cut_patches(x, top, left, 4), images)


def test_in_eval_mode_both_views_are_the_whole_image_whatever_the_distance():
    images = torch.rand(2, 3, HEIGHT, WIDTH)
    trained = PatchPair(300, 7).train()(torch.rand(1, 3, 400, 400))
    evaluated = PatchPair(4, 7).eval()(images)
    assert trained[0].shape[-1] == 7
    assert torch.equal(evaluated[0], images) and torch.equal(evaluated[1], images)


def test_too_small_images_are_an_error_that_names_the_sizes():
    message = (
        r"PatchPair: images must be 24 px or more on each side, "
        r"got 23x31; use larger images"
    )
    with pytest.raises(ValueError, match=message):
        PatchPair(16, 8)(torch.rand(1, 3, HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("distance", "size"), [(-1, 8), (1.5, 8), (4, 0), ("4", 8), (4, 8.5), (True, 8)]
)
def test_bad_numbers_are_errors(distance, size):
    with pytest.raises(
        ValueError, match=r"PatchPair\((distance|size)\): got .*, wanted a (whole )?number"
    ):
        PatchPair(distance, size)


@pytest.mark.parametrize("dial", ["x", "8/", "/8", "-8", "1.5", "8/8/8"])
def test_a_bad_dial_shows_a_good_one(dial):
    message = rf"view 'patch:{dial}': got '{dial}'; the dial of patch is .*: patch:64, patch:16/32"
    with pytest.raises(ValueError, match=message):
        parse(f"patch:{dial}")
