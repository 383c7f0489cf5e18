"""Which images critics, classifiers and measurements may see, and whose labels are known."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from infomin import data
from infomin.runs.fresh_critics import Rows, divide_rows, mixed_batches


def make_split(known: int, unknown: int = 0, task: str = "class") -> data.Split:
    """A split of black images whose labels are partly unknown, in mixed order."""
    labels = torch.cat([torch.arange(known) % 7, torch.full((unknown,), -1)])
    mixed = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    return data.Split(
        {"other": torch.zeros_like(mixed), task: mixed},
        pixels=torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8),
    )


@pytest.mark.parametrize(
    ("known", "unknown", "labels", "candidates"),
    [
        (200, 0, 50, 40),
        (100, 300, 50, 60),
        (100, 300, 100, 5),
        (60, 0, 60, 12),
        (10, 90, 10, 2),
        (11, 20, 11, 11),
    ],
)
def test_parts_are_disjoint_and_cover_all(known, unknown, labels, candidates):
    torch.manual_seed(known)  # nothing is drawn from the global state
    split = make_split(known, unknown)
    rows = divide_rows(split, "class", labels, candidates)
    assert torch.equal(torch.cat([rows.pool, rows.held]).sort().values, torch.arange(len(split)))
    chosen = min(labels, known)
    n_labelled = chosen * 4 // 5
    assert (len(rows.labelled), len(rows.judged)) == (n_labelled, chosen - n_labelled)
    assert torch.equal(rows.held[: len(rows.judged)], rows.judged)
    assert len(rows.held) == max(candidates, len(rows.judged))
    assert torch.equal(rows.pool[: len(rows.labelled)], rows.labelled)
    for part in (rows.labelled, rows.judged):
        assert (split.labels["class"][part] >= 0).all()
    again = divide_rows(split, "class", labels, candidates)
    for name in Rows.__dataclass_fields__:
        assert torch.equal(getattr(rows, name), getattr(again, name))


def test_rows_are_mixed_and_depend_only_on_which_labels_are_known_not_on_the_labels():
    split, drawn = make_split(300, 100), []
    labels = split.labels["class"]
    shifted = torch.where(labels >= 0, (labels + 3) % 7, -1)
    for given in (labels, shifted):
        rows = divide_rows(replace(split, labels={"class": given}), "class", 100, 80)
        drawn.append(torch.cat([rows.held, rows.pool]))
        for part in (rows.labelled, rows.judged, rows.held[len(rows.judged) :], rows.pool):
            assert part.min() < 60 and part.max() > 340 and (part.diff() < 0).any()
    assert not torch.equal(labels, shifted) and torch.equal(*drawn)
    rows = divide_rows(split, "other", 100, 80)  # a task whose labels are all known
    assert (split.labels["class"][rows.labelled] == -1).any()


@pytest.mark.parametrize(
    ("split", "labels", "candidates"),
    [
        (make_split(9, 200), 100, 10),
        (make_split(200), 9, 10),
        (make_split(0, 200), 100, 10),
        (make_split(200), 100, 72),
        (make_split(200), 200, 60),
    ],
)
def test_too_few_images_are_an_error(split, labels, candidates):
    known = int((split.labels["class"] >= 0).sum())
    message = (
        rf"learn: need at least 10 labelled images .*, got {len(split)} images, {known} of them "
        rf"labelled, for {labels} labels and {candidates} candidates; "
        "use smaller numbers or more images"
    )
    with pytest.raises(ValueError, match=message):
        divide_rows(split, "class", labels, candidates)
    assert divide_rows(make_split(200), "class", 100, 70)


def test_more_labels_than_there_are_are_an_error():
    message = "learn: labels: got 101, wanted at most the 100 labelled images; use fewer"
    with pytest.raises(ValueError, match=message):
        divide_rows(make_split(100, 300), "class", 101, 5)


def batch_indices(
    split: data.Split,
    rows: Rows,
    batch: int = 16,
    plays: bool = True,
    steps: int = 8,
    seed: int = 0,
) -> list[Tensor]:
    """The rows in each batch of a game; the last 8 of a batch are labelled if classifiers play."""
    part = (split.images, {"label": split.labels["class"]})
    batch_at = mixed_batches(part, rows, batch, 8, plays=plays, steps=steps, seed=seed)
    return [batch_at(step)[1] for step in range(steps)]


def test_batches_of_a_game_depend_on_its_seed():
    split = make_split(300, 100)
    rows = divide_rows(split, "class", 100, 80)
    first, same, other = (batch_indices(split, rows, seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, same)
    for part in (slice(16), slice(16, None)):
        assert set(first[part].tolist()) != set(other[part].tolist())


@pytest.mark.parametrize(("batch", "disjoint"), [(28, True), (29, False)])
def test_unlabelled_images_of_a_batch_exclude_labelled_ones_unless_too_few_are_left(
    batch, disjoint
):
    split = make_split(100)
    # 48 to learn from, 12 judged, 12 more held out, and 28 others
    rows = divide_rows(split, "class", 60, 24)
    hidden = torch.cat([index[:batch] for index in batch_indices(split, rows, batch)])
    assert torch.isin(hidden, rows.labelled).any() != disjoint


def test_a_game_without_classifiers_draws_from_all_images_that_are_not_held_out():
    split = make_split(300, 100)
    rows = divide_rows(split, "class", 100, 80)
    drawn = torch.cat(batch_indices(split, rows, plays=False, steps=40))
    assert torch.equal(drawn.unique(), rows.pool.sort().values)


@pytest.mark.parametrize("plays", [True, False])
def test_unbought_labels_are_hidden_and_a_batch_without_classifiers_is_as_large(plays):
    train, _ = data.load("digits", 24)
    rows, labels = divide_rows(train, "digit", 100, 50), train.labels["digit"]
    part = (train.images, {"label": labels})
    batch_at = mixed_batches(part, rows, 16, 8, plays=plays, steps=4, seed=0)
    for step in range(4):
        images, index, given = batch_at(step)
        assert len(images) == len(index) == len(given["label"]) == 24
        assert torch.equal(images, train.images[index])
        is_known = torch.arange(24) >= (16 if plays else 24)
        assert torch.equal(given["label"], torch.where(is_known, labels[index], -1))
        assert not plays or torch.isin(index[16:], rows.labelled).all()
