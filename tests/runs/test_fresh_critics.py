"""Who may see which images, and that measuring a generator measures it, on held-out images, and leaves the game as it was."""

import copy
import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infomin import data
from infomin.common.seeds import seeded_generator as seeded
from infomin.methods import InfoNCE
from infomin.methods.base import Step
from infomin.methods.game import MODES, Game
from infomin.runs.fresh_critics import (
    Evaluator,
    Rows,
    classifier_scores,
    divide_rows,
    fresh_i_nce,
    mixed_batches,
)
from infomin.training import optim
from infomin.views import parse
from infomin.views.flow import FlowSplit, PixelFlow

torch.set_num_threads(1)


# Who may see which images


def split(known: int, unknown: int = 0, task: str = "class") -> data.Split:
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
        (100, 300, 1000, 5),
        (60, 0, 60, 12),
        (10, 90, 10, 2),
        (11, 20, 11, 11),
    ],
)
def test_parts_are_disjoint_and_cover_all(known, unknown, labels, candidates):
    torch.manual_seed(known)  # nothing is drawn from the global state
    part = split(known, unknown)
    rows = divide_rows(part, "class", labels, candidates)
    assert torch.equal(torch.cat([rows.pool, rows.held]).sort().values, torch.arange(len(part)))
    chosen = min(labels, known)
    assert (len(rows.labelled), len(rows.judged)) == (chosen * 4 // 5, chosen - chosen * 4 // 5)
    assert torch.equal(rows.held[: len(rows.judged)], rows.judged) and len(rows.held) == max(
        candidates, len(rows.judged)
    )
    assert torch.equal(rows.pool[: len(rows.labelled)], rows.labelled)
    assert all((part.labels["class"][own] >= 0).all() for own in (rows.labelled, rows.judged))
    again = divide_rows(part, "class", labels, candidates)
    assert all(
        torch.equal(getattr(rows, name), getattr(again, name)) for name in Rows.__dataclass_fields__
    )


def test_rows_are_mixed_and_depend_on_what_is_known_alone_not_on_what_it_is():
    part, drawn = split(300, 100), []
    for labels in (
        part.labels["class"],
        (part.labels["class"] + 3) % 7 * (part.labels["class"] >= 0)
        - (part.labels["class"] < 0).long(),
    ):
        rows = divide_rows(replace(part, labels={"class": labels}), "class", 100, 80)
        drawn.append(torch.cat([rows.held, rows.pool]))
        for own in (rows.labelled, rows.judged, rows.held[len(rows.judged) :], rows.pool):
            assert own.min() < 60 and own.max() > 340 and (own.diff() < 0).any()
    assert torch.equal(*drawn)
    rows = divide_rows(part, "other", 100, 80)  # a task whose labels are all known
    assert (part.labels["class"][rows.labelled] == -1).any()


@pytest.mark.parametrize(
    ("part", "labels", "candidates"),
    [
        (split(9, 200), 100, 10),
        (split(200), 9, 10),
        (split(0, 200), 100, 10),
        (split(200), 100, 72),
        (split(200), 200, 60),
    ],
)
def test_too_few_images_are_told(part, labels, candidates):
    known = int((part.labels["class"] >= 0).sum())
    said = rf"learn: got {len(part)} images, {known} of them with labels, for {labels} labels and {candidates} candidates, wanted 10"
    with pytest.raises(ValueError, match=f"{said}.*use smaller numbers or more images"):
        divide_rows(part, "class", labels, candidates)
    assert divide_rows(split(200), "class", 100, 70)


def in_batches(
    part: data.Split, rows: Rows, batch: int = 16, plays: bool = True, steps: int = 8, seed: int = 0
) -> list[Tensor]:
    """The rows that are in each batch of a game; the last 8 have their labels if classifiers play."""
    labels = {"label": part.labels["class"]}
    at = mixed_batches((part.images, labels), rows, batch, 8, plays=plays, steps=steps, seed=seed)
    return [at(step)[1] for step in range(steps)]


def test_batches_of_a_game_are_those_of_its_seed():
    part = split(300, 100)
    rows = divide_rows(part, "class", 100, 80)
    one, same, other = (in_batches(part, rows, seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    for own in (slice(16), slice(16, None)):
        assert set(one[own].tolist()) != set(other[own].tolist())


@pytest.mark.parametrize(("batch", "apart"), [(28, True), (29, False)])
def test_images_whose_label_is_hidden_are_not_the_labelled_ones_unless_too_few_are_left(
    batch, apart
):
    part = split(100)
    rows = divide_rows(
        part, "class", 60, 24
    )  # 48 to learn from, 12 judged, 12 more held out, and 28 others
    hidden = torch.cat([index[:batch] for index in in_batches(part, rows, batch)])
    assert torch.isin(hidden, rows.labelled).any() != apart


def test_a_game_without_classifiers_draws_from_all_that_is_not_held_out():
    part = split(300, 100)
    rows = divide_rows(part, "class", 100, 80)
    seen = torch.cat(in_batches(part, rows, plays=False, steps=40))
    assert torch.equal(seen.unique(), rows.pool.sort().values)


# Fresh critics


@pytest.fixture(scope="module")
def stand() -> Evaluator:
    train, _ = data.load("digits", 24)
    labels = {"label": train.labels["digit"]}
    rows = divide_rows(train, "digit", 200, 128)
    return Evaluator((train.images, labels), rows.pool, parse("crop:0.7"), train.images[rows.held], labels["label"][rows.judged],
                 lambda channels: InfoNCE(channels, "tiny", 0.25, False, 16, "linear", 0.2),
                 steps=20, batch=32, lr=5e-3, candidates=64, precision="fp32", seed=0)  # fmt: skip


class Blind(nn.Module):
    """Views that are the channels, the first of which shows nothing."""

    channels, readout = (1, 2), (0, 1)

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return torch.full_like(images[:, :1], 0.5), images[:, 1:]


def game(mode: str = "semi-supervised", seed: int = 0) -> Game:
    """A game that has gone a step: its parameters have gradients, its averages have moved."""
    flow, draws = PixelFlow(hidden=4, seed=seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=draws))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = Game(FlowSplit(flow), 10, mode=mode, task="label", width=0.25, dim=16)
    crops = [torch.rand(8, 3, 24, 24, generator=draws) for _ in range(2)]
    found(crops, None, {"label": torch.arange(8)}).loss.backward()
    found.after_step()
    return found


def test_views_that_share_nothing_have_no_nats(stand):
    plain, blind = fresh_i_nce(FlowSplit(PixelFlow()), stand), fresh_i_nce(Blind(), stand)
    assert abs(blind) < 0.05 and 0.3 < plain < math.log(64), (plain, blind)


def test_the_same_generator_has_the_same_number_whatever_was_drawn_before(stand):
    generator = game().generator
    found = fresh_i_nce(generator, stand)
    torch.manual_seed(7)
    assert (
        fresh_i_nce(generator, stand)
        == fresh_i_nce(copy.deepcopy(generator).eval(), stand)
        == found
    )
    assert fresh_i_nce(generator, replace(stand, seed=1)) != found
    assert fresh_i_nce(game(seed=1).generator, stand) != found


def test_fresh_critics_warm_up_and_come_to_rest(stand, monkeypatch):
    """At a constant rate the number would be that of the last few batches."""
    factors, act = [], optim.rate_factor
    monkeypatch.setattr(
        "infomin.runs.fresh_critics.rate", lambda *given: factors.append(act(*given)) or factors[-1]
    )
    fresh_i_nce(game().generator, replace(stand, steps=60, critics=Witness))
    assert len(factors) == 60 and max(factors) == 1 and factors[-1] < 0.05
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_game_as_it_was(stand, training):
    found = game().train(training)
    before = {name: value.clone() for name, value in found.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in found.parameters()]
    drawn = torch.get_rng_state()
    stood = (stand.held.clone(), stand.labels.clone())
    fresh_i_nce(found.generator, replace(stand, steps=2))
    classifier_scores(found, stand)
    assert all(torch.equal(before[name], value) for name, value in found.state_dict().items())
    assert all(
        (p.grad is None) if g is None else torch.equal(g, p.grad)
        for g, p in zip(gradients, found.parameters(), strict=True)
    )
    assert all(module.training == training for module in found.modules()) and all(
        p.requires_grad for p in found.parameters()
    )
    assert torch.equal(drawn, torch.get_rng_state())
    assert torch.equal(stood[0], stand.held) and torch.equal(stood[1], stand.labels)


class Witness(nn.Module):
    """Critics that learn nothing and remember what they drew, what they were shown and whether it was to be rounded."""

    def __init__(self, channels) -> None:
        super().__init__()
        self.weight, self.channels, self.drawn = (
            nn.Parameter(torch.zeros(1)),
            channels,
            torch.rand(4),
        )
        self.learned_from: list[Tensor] = []
        self.shown: list[tuple[Tensor, ...]] = []
        self.read: list[tuple[Tensor, ...]] = []
        self.rounds: set[tuple[bool, bool]] = set()

    def forward(self, views, index=None, labels=None) -> Step:
        if self.training:
            self.learned_from.append(index)
        (self.shown if self.training else self.read).append(tuple(v.clone() for v in views))
        self.rounds.add((self.training, torch.is_autocast_enabled("cpu")))
        nats = torch.tensor(float(10 ** len(self.read)))
        return Step(self.weight.sum(), {"loss": self.weight.detach().sum(), "i_nce": nats})

    def after_step(self) -> None:
        pass


def test_critics_learn_from_the_pool_and_are_asked_about_held_images(stand):
    witnesses: list[Witness] = []
    generator = game().generator
    many = replace(
        stand,
        steps=5,
        candidates=40,
        critics=lambda channels: witnesses.append(Witness(channels)) or witnesses[-1],
    )
    assert fresh_i_nce(generator, many) == pytest.approx(
        (10 + 100 + 1000) / 3
    )  # three blocks of 40 are in 128, and count equally
    (seen,) = witnesses
    assert seen.channels == (1, 2) and [len(index) for index in seen.learned_from] == [32] * 5
    assert torch.isin(torch.cat(seen.learned_from), stand.pool).all()
    for block, (first, rest) in enumerate(seen.read):
        a, b = stand.crops(stand.held[40 * block : 40 * block + 40], seeded(0, "held", 40 * block))
        with torch.no_grad():
            assert torch.equal(first, generator(a)[0]) and torch.equal(rest, generator(b)[1])
    assert not any(v.requires_grad for views in seen.read for v in views)


def witnessed(generator: nn.Module, stand: Evaluator) -> Witness:
    witnesses: list[Witness] = []
    fresh_i_nce(
        generator,
        replace(
            stand, critics=lambda channels: witnesses.append(Witness(channels)) or witnesses[-1]
        ),
    )
    return witnesses[0]


def test_all_that_a_referee_draws_is_of_its_seed(stand):
    """First weights, batches, and how images are cut for critics that learn, for critics that are read and for classifiers."""
    found, many = game(), replace(stand, steps=2)
    alone = replace(
        many, pool=stand.pool[:1].repeat(64)
    )  # of one image, batches differ in how it is cut
    a, b, c, d = (
        witnessed(found.generator, replace(own, seed=seed))
        for own in (many, alone)
        for seed in (0, 1)
    )
    assert not torch.equal(a.drawn, b.drawn)
    assert not torch.equal(torch.cat(a.learned_from), torch.cat(b.learned_from))
    assert not torch.equal(c.shown[0][0], d.shown[0][0])
    crops = stand.crops(stand.held[:64], seeded(1, "held", 0))
    assert torch.equal(b.read[0][0], found.generator(crops[0])[0])
    assert classifier_scores(found, stand) != classifier_scores(found, replace(stand, seed=1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_referee_computes_in_the_precision_that_it_was_given(stand, precision):
    found, own, rounds = game(), replace(stand, steps=1, precision=precision), []
    found.register_forward_pre_hook(lambda *_: rounds.append(torch.is_autocast_enabled("cpu")))
    classifier_scores(found, own)
    half = precision == "bf16"
    assert rounds == [half] and witnessed(found.generator, own).rounds == {
        (True, half),
        (False, half),
    }


def test_another_pool_and_other_held_images_are_other_numbers(stand):
    generator = FlowSplit(PixelFlow())
    found = fresh_i_nce(generator, stand)
    assert fresh_i_nce(generator, replace(stand, pool=stand.pool.flip(0))) != found
    assert fresh_i_nce(generator, replace(stand, held=stand.held.flip(0))) != found
    images, labels = stand.part
    grey = images.clone()
    grey[torch.ones(len(images)).scatter(0, stand.pool, 0) > 0] = 0  # all that is not in the pool
    assert fresh_i_nce(generator, replace(stand, part=(grey, labels))) == found
    assert fresh_i_nce(generator, replace(stand, labels=stand.labels.flip(0))) == found


# Classifiers on held-out images


@pytest.mark.parametrize("mode", MODES)
def test_judged_is_what_a_hand_computes(stand, mode):
    found = game(mode)
    got = classifier_scores(found, stand)
    if mode == "unsupervised":
        assert got == {}
        return
    assert set(got) == {"cross_entropy_held", "right_held"} and len(stand.labels) == 40
    a, b = stand.crops(stand.held[:40], seeded(0, "judged", 0))
    by_hand = copy.deepcopy(found).eval()
    with torch.no_grad():
        scores = (
            by_hand.classifiers[0](by_hand.generator(a)[0]),
            by_hand.classifiers[1](by_hand.generator(b)[1]),
        )
        entropy = sum(float(F.cross_entropy(s, stand.labels)) for s in scores)
    right = sum(int((s.argmax(1) == stand.labels).sum()) for s in scores) / 80
    assert got["cross_entropy_held"] == pytest.approx(entropy, rel=1e-5) and got[
        "right_held"
    ] == pytest.approx(right)


def test_many_images_are_judged_in_parts_of_which_the_last_may_be_small(stand, monkeypatch):
    found = game().eval()
    drawn: list[int] = []

    def crops(images, generator):  # not at random, so that parts and the whole see the same
        drawn.append(len(images))
        return images.float() / 255, images.flip(3).float() / 255

    plain = replace(stand, crops=crops)
    whole = classifier_scores(found, plain)
    monkeypatch.setattr("infomin.runs.fresh_critics.AT_A_TIME", 16)
    parts = classifier_scores(found, plain)
    assert drawn == [40, 16, 16, 8] and parts == pytest.approx(whole, rel=1e-5)


class Modal(nn.Module):
    """Views that remember in which mode they were made, as dropout and batch norm would be in one."""

    channels, readout = (1, 2), (0, 1)
    modes: ClassVar[set[bool]] = set()

    def forward(self, images, generator=None):
        self.modes.add(self.training)
        return images[:, :1], images[:, 1:]


def test_the_generator_that_is_measured_is_in_eval_mode_and_the_one_that_plays_as_it_was():
    train, _ = data.load("digits", 24)
    rows = divide_rows(train, "digit", 200, 128)
    stand = Evaluator((train.images, {"label": train.labels["digit"]}), rows.pool, parse("crop:0.7"), train.images[rows.held],
                  train.labels["digit"][rows.judged], lambda channels: InfoNCE(channels, "tiny", 0.25, False, 16, "linear", 0.2),
                  steps=2, batch=32, lr=5e-3, candidates=64, precision="fp32", seed=0)  # fmt: skip
    generator = Modal().train()
    fresh_i_nce(generator, stand)
    assert Modal.modes == {False} and generator.training


def small(critics, held: int, **fields) -> Evaluator:
    train, _ = data.load("digits", 24)
    return Evaluator((train.images, {"label": train.labels["digit"]}), torch.arange(500), parse("crop:0.7"), train.images[:held],
                 train.labels["digit"][:0], critics, **({"steps": 3, "batch": 16, "lr": 0.1, "candidates": 20} | fields),
                 precision="fp32", seed=0)  # fmt: skip


class Idle(nn.Module):
    """Critics that nothing pulls, and that count how often they are read."""

    def __init__(self, channels) -> None:
        super().__init__()
        self.weight, self.read = nn.Parameter(torch.ones(2, 2)), 0

    def forward(self, views, index=None, labels=None) -> Step:
        self.read += not self.training
        return Step(
            0 * self.weight.sum(),
            {"loss": torch.zeros(()), "i_nce": torch.tensor(float(10**self.read))},
        )

    def after_step(self) -> None:
        pass


@pytest.mark.parametrize(("held", "blocks"), [(20, 1), (39, 1), (40, 2), (60, 3)])
def test_all_blocks_that_are_full_are_read_and_critics_do_not_decay(held, blocks):
    found: list[Idle] = []
    stand = small(lambda channels: found.append(Idle(channels)) or found[-1], held)
    assert fresh_i_nce(Modal(), stand) == pytest.approx(
        sum(10**i for i in range(1, blocks + 1)) / blocks
    )
    assert torch.equal(found[0].weight, torch.ones(2, 2))


@pytest.mark.parametrize("plays", [True, False])
def test_labels_are_hidden_but_those_that_are_known_and_a_batch_is_as_large_without_them(plays):
    train, _ = data.load("digits", 24)
    rows, labels = divide_rows(train, "digit", 100, 50), train.labels["digit"]
    at = mixed_batches((train.images, {"label": labels}), rows, 16, 8, plays=plays, steps=4, seed=0)
    for step in range(4):
        images, index, told = at(step)
        assert len(images) == len(index) == len(told["label"]) == 24 and torch.equal(
            images, train.images[index]
        )
        shown = (
            torch.where(torch.arange(24) >= 16, labels[index], -1)
            if plays
            else torch.full((24,), -1)
        )
        assert torch.equal(told["label"], shown) and (
            not plays or torch.isin(index[16:], rows.labelled).all()
        )
