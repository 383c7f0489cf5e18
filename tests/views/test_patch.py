"""Patch views: where the patches are, exactly."""

import pytest
import torch
from scipy.stats import chisquare

from infomin.views import PatchPair, parse
from infomin.views.patch import cut_patches

torch.set_num_threads(1)
HEIGHT, WIDTH = 23, 31
# every pixel says where it is
PLACE = torch.stack(
    torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
).double()


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize(("distance", "size"), [(0, 8), (3, 8), (8, 8), (13, 10), (22, 1), (0, 23)])
def test_the_second_patch_is_so_far_from_the_first_and_both_are_inside(distance, size):
    batch = PLACE.expand(200, 2, HEIGHT, WIDTH)
    v1, v2 = PatchPair(distance, size)(batch, seed(0))
    assert v1.shape == v2.shape == (200, 2, size, size)
    assert torch.equal(v2 - v1, torch.full_like(v1, distance))
    steps = torch.stack(
        torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    ).double()
    assert torch.equal(v1 - v1[:, :, :1, :1], steps.expand_as(v1))  # whole and upright
    assert v1.min() >= 0 and (v2.amax((0, 2, 3)) <= torch.tensor([HEIGHT - 1, WIDTH - 1])).all()


def test_the_farthest_places_are_reached_and_all_are_equally_likely():
    view = PatchPair(distance=9, size=10)
    row, column = view.draw(20_000, HEIGHT, WIDTH, seed(1))
    rows, columns = HEIGHT - 18, WIDTH - 18
    counts = torch.bincount(row * columns + column, minlength=rows * columns)
    assert len(counts) == rows * columns and chisquare(counts).pvalue > 1e-3


def test_where_there_is_one_place_it_is_taken():
    v1, v2 = PatchPair(distance=5, size=18)(PLACE[None, :, :, :23], seed(0))
    assert torch.equal(v1[0], PLACE[:, :18, :18]) and torch.equal(v2[0], PLACE[:, 5:, 5:23])


def test_a_batch_is_its_images_with_their_draws():
    view, batch = PatchPair(4, 7), torch.rand(12, 3, HEIGHT, WIDTH)
    draws = view.draw(12, HEIGHT, WIDTH, seed(2))
    whole = view.at(batch, draws)
    assert all(map(torch.equal, view(batch, seed(2)), whole))
    singles = [view.at(batch[i : i + 1], tuple(d[i : i + 1] for d in draws)) for i in range(12)]
    assert all(
        torch.equal(w, torch.cat(parts))
        for w, parts in zip(whole, zip(*singles, strict=True), strict=True)
    )


def test_windows_are_slices_and_have_their_gradient():
    images = torch.rand(5, 2, 9, 8, dtype=torch.float64, requires_grad=True)
    top, left = torch.tensor([0, 1, 5, 2, 3]), torch.tensor([4, 0, 2, 4, 1])
    for wanted in (
        images,
        images.detach(),
        images.detach().contiguous(memory_format=torch.channels_last),
        images.detach().mT.mT,
    ):
        found = cut_patches(wanted, top, left, 4)
        for i in range(5):
            assert torch.equal(found[i], images[i, :, top[i] : top[i] + 4, left[i] : left[i] + 4])
    assert torch.autograd.gradcheck(lambda x: cut_patches(x, top, left, 4), images)


def test_in_eval_mode_both_views_are_the_whole_image_whatever_the_distance():
    images = torch.rand(2, 3, HEIGHT, WIDTH)
    v1, v2 = PatchPair(300, 7).train()(torch.rand(1, 3, 400, 400)), PatchPair(4, 7).eval()(images)
    assert v1[0].shape[-1] == 7 and torch.equal(v2[0], images) and torch.equal(v2[1], images)


def test_too_small_images_are_told_with_the_numbers():
    message = r"PatchPair\(distance=16, size=8\): images must be 24 px or more on each side, got 23x31; use a smaller distance"
    with pytest.raises(ValueError, match=message):
        PatchPair(16, 8)(torch.rand(1, 3, HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("distance", "size"), [(-1, 8), (1.5, 8), (4, 0), ("4", 8), (4, 8.5), (True, 8)]
)
def test_bad_numbers_are_told(distance, size):
    with pytest.raises(
        ValueError, match=r"PatchPair\((distance|size)\): got .*, wanted a (whole )?number"
    ):
        PatchPair(distance, size)


@pytest.mark.parametrize("dial", ["x", "8/", "/8", "-8", "1.5", "8/8/8"])
def test_a_bad_dial_shows_a_good_one(dial):
    with pytest.raises(
        ValueError, match=rf"view 'patch:{dial}': got no whole numbers.*patch:64/32"
    ):
        parse(f"patch:{dial}")
