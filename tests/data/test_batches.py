"""The order of batches: a permutation an epoch, a function of the step, split over processes."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from infomin.data import batches
from infomin.data.batches import batch_rows, batches_by_step, first_rows

torch.set_num_threads(1)


def epoch_rows(n: int, batch: int, epoch: int, seed: int) -> Tensor:
    """The rows of all batches of an epoch."""
    first = epoch * (n // batch)
    steps = range(first, first + n // batch)
    return torch.cat([batch_rows(n, batch, step, seed=seed) for step in steps])


@pytest.mark.parametrize(("n", "batch"), [(12, 2), (12, 12), (60, 5), (512, 128)])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_visits_every_row_once(n: int, batch: int, epoch: int) -> None:
    visited = epoch_rows(n, batch, epoch, seed=3)
    assert visited.dtype == torch.long
    assert torch.equal(visited.sort().values, torch.arange(n))


@pytest.mark.parametrize(("n", "batch"), [(13, 5), (100, 64), (7, 2)])
def test_rows_that_fill_no_batch_wait_for_another_epoch(n: int, batch: int) -> None:
    epochs = [epoch_rows(n, batch, epoch, seed=0) for epoch in range(20)]
    assert all(len(set(visited.tolist())) == n // batch * batch for visited in epochs)
    assert len(set(torch.cat(epochs).tolist())) == n  # other rows are left over each time


def test_order_is_a_function_of_its_arguments() -> None:
    steps = [5, 0, 99, 5, 7, 0]
    forwards = [batch_rows(50, 10, step, seed=1) for step in steps]
    batches._permutation.cache_clear()
    torch.manual_seed(0)
    backwards = [batch_rows(50, 10, step, seed=1) for step in reversed(steps)]
    assert all(map(torch.equal, forwards, reversed(backwards)))


def test_the_caller_may_write_to_a_batch() -> None:
    first = batch_rows(50, 10, 0, seed=2)
    before = first.clone()
    first.zero_()
    assert torch.equal(batch_rows(50, 10, 0, seed=2), before)


def test_epochs_and_seeds_differ_and_look_random() -> None:
    epochs = [epoch_rows(200, 10, epoch, seed=seed) for seed in range(3) for epoch in range(3)]
    for i, one in enumerate(epochs):
        for other in epochs[:i]:
            assert int((one == other).sum()) < 8  # one on average
    for one, other in pairwise(epochs):
        assert abs(float(np.corrcoef(one, other)[0, 1])) < 5 / math.sqrt(200)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("step", [0, 3, 9])
def test_the_parts_of_all_processes_make_up_the_batch_of_one(world: int, step: int) -> None:
    whole = batch_rows(50, 12, step, seed=4)
    parts = [batch_rows(50, 12, step, seed=4, rank=rank, world=world) for rank in range(world)]
    assert {len(part) for part in parts} == {12 // world}
    joined = torch.cat(parts).tolist()
    assert sorted(joined) == sorted(whole.tolist())
    assert len(set(joined)) == 12


def test_batches_are_rows_in_order() -> None:
    images = torch.arange(60).view(20, 3, 1, 1)
    labels = {"class": torch.arange(20) % 7, "other": torch.arange(20)}
    batch_at = batches_by_step((images, labels), 4, steps=3, seed=5)
    for step in (0, 4, 1, 9):
        inputs, index, batch_labels = batch_at(step)
        assert torch.equal(index, batch_rows(20, 4, step, seed=5))
        assert torch.equal(inputs, images[index])
        assert torch.equal(batch_labels["class"], index % 7)
        assert torch.equal(batch_labels["other"], index)
    inputs, first_labels = first_rows((images, labels), 6)
    assert torch.equal(inputs, images[:6])
    assert first_labels["other"].tolist() == list(range(6))


@pytest.mark.parametrize("batch", [-1, 0, 1, 11])
def test_a_batch_out_of_range_is_an_error_with_the_range(batch: int) -> None:
    with pytest.raises(ValueError, match=f"batch: got {batch}, wanted 2 to 10 "):
        batch_rows(10, batch, 0, seed=0)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_images_for_any_batch_are_an_error_that_says_so(n: int) -> None:
    message = f"batch: got {n} images to draw from, need at least 2 "
    with pytest.raises(ValueError, match=message):
        batch_rows(n, 2, 0, seed=0)
    part = (torch.zeros(9, 3, 1, 1), {"class": torch.zeros(9)})
    with pytest.raises(ValueError, match=message):  # before the first step
        batches_by_step(part, 2, steps=3, seed=0, rows=torch.arange(n))
