"""Who may see which images, and that measuring a generator measures it, on held-out images, and leaves the game as it was."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infomin import data, optim
from infomin.fresh import Rows, Stand, divide, fresh, judged
from infomin.methods import InfoNCE
from infomin.methods.game import MODES, Game
from infomin.methods.step import Step
from infomin.seeds import generator as seeded
from infomin.views import parse
from infomin.views.flow import FlowSplit, PixelFlow

torch.set_num_threads(1)


# Who may see which images


def split(known: int, unknown: int = 0, task: str = "class") -> data.Split:
    labels = torch.cat([torch.arange(known) % 7, torch.full((unknown,), -1)])
    mixed = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    return data.Split(
        {"other": torch.zeros_like(mixed), task: mixed}, pixels=torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8)
    )


@pytest.mark.parametrize(
    ("known", "unknown", "labels", "candidates"),
    [(200, 0, 50, 40), (100, 300, 50, 60), (100, 300, 1000, 5), (60, 0, 60, 12), (10, 90, 10, 2), (11, 20, 11, 11)],
)
def test_parts_are_disjoint_and_cover_all(known, unknown, labels, candidates):
    torch.manual_seed(known)  # nothing is drawn from the global state
    part = split(known, unknown)
    rows = divide(part, "class", labels, candidates)
    assert torch.equal(torch.cat([rows.pool, rows.held]).sort().values, torch.arange(len(part)))
    chosen = min(labels, known)
    assert (len(rows.labelled), len(rows.judged)) == (chosen * 4 // 5, chosen - chosen * 4 // 5)
    assert torch.equal(rows.held[: len(rows.judged)], rows.judged) and len(rows.held) == max(candidates, len(rows.judged))
    assert torch.equal(rows.pool[: len(rows.labelled)], rows.labelled)
    assert all((part.labels["class"][own] >= 0).all() for own in (rows.labelled, rows.judged))
    again = divide(part, "class", labels, candidates)
    assert all(torch.equal(getattr(rows, name), getattr(again, name)) for name in Rows.__dataclass_fields__)


def test_rows_are_mixed_and_depend_on_what_is_known_alone_not_on_what_it_is():
    part, drawn = split(300, 100), []
    for labels in (
        part.labels["class"],
        (part.labels["class"] + 3) % 7 * (part.labels["class"] >= 0) - (part.labels["class"] < 0).long(),
    ):
        rows = divide(replace(part, labels={"class": labels}), "class", 100, 80)
        drawn.append(torch.cat([rows.held, rows.pool]))
        for own in (rows.labelled, rows.judged, rows.held[len(rows.judged) :], rows.pool):
            assert own.min() < 60 and own.max() > 340 and (own.diff() < 0).any()
    assert torch.equal(*drawn)
    rows = divide(part, "other", 100, 80)  # a task whose labels are all known
    assert (part.labels["class"][rows.labelled] == -1).any()


@pytest.mark.parametrize(
    ("part", "labels", "candidates"),
    [(split(9, 200), 100, 10), (split(200), 9, 10), (split(0, 200), 100, 10), (split(200), 100, 72), (split(200), 200, 60)],
)
def test_too_few_images_are_told(part, labels, candidates):
    known = int((part.labels["class"] >= 0).sum())
    said = (
        rf"learn: got {len(part)} images, {known} of them with labels, for {labels} labels and {candidates} candidates, wanted 10"
    )
    with pytest.raises(ValueError, match=f"{said}.*use smaller numbers or more images"):
        divide(part, "class", labels, candidates)
    assert divide(split(200), "class", 100, 70)


# Fresh critics


@pytest.fixture(scope="module")
def stand() -> Stand:
    train, _ = data.load("digits", 24)
    labels = {"label": train.labels["digit"]}
    rows = divide(train, "digit", 200, 128)
    return Stand((train.images, labels), rows.pool, parse("crop:0.7"), train.images[rows.held], labels["label"][rows.judged],
                 lambda channels: InfoNCE(channels, "tiny", 0.25, False, 16, "linear", 0.2),
                 steps=20, batch=32, lr=5e-3, candidates=64, precision="fp32", seed=0)  # fmt: skip


class Blind(nn.Module):
    """Views that are the channels, the first of which shows nothing."""

    channels, readout = (1, 2), (0, 1)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
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
    plain, blind = fresh(FlowSplit(PixelFlow()), stand), fresh(Blind(), stand)
    assert abs(blind) < 0.05 and 0.3 < plain < math.log(64), (plain, blind)


def test_the_same_generator_has_the_same_number_whatever_was_drawn_before(stand):
    generator = game().generator
    found = fresh(generator, stand)
    torch.manual_seed(7)
    assert fresh(generator, stand) == fresh(copy.deepcopy(generator).eval(), stand) == found
    assert fresh(generator, replace(stand, seed=1)) != found
    assert fresh(game(seed=1).generator, stand) != found


def test_fresh_critics_come_to_rest(stand, monkeypatch):
    """At a constant rate the number would be that of the last few batches."""
    factors, act = [], optim.rate
    monkeypatch.setattr("infomin.fresh.rate", lambda *given: factors.append(act(*given)) or factors[-1])
    fresh(game().generator, replace(stand, steps=20))
    assert len(factors) == 20 and max(factors) == 1 and factors[-1] < 0.05


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_game_as_it_was(stand, training):
    found = game().train(training)
    before = {name: value.clone() for name, value in found.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in found.parameters()]
    drawn = torch.get_rng_state()
    stood = (stand.held.clone(), stand.labels.clone())
    fresh(found.generator, replace(stand, steps=2))
    judged(found, stand)
    assert all(torch.equal(before[name], value) for name, value in found.state_dict().items())
    assert all(
        (p.grad is None) if g is None else torch.equal(g, p.grad) for g, p in zip(gradients, found.parameters(), strict=True)
    )
    assert all(module.training == training for module in found.modules()) and all(p.requires_grad for p in found.parameters())
    assert torch.equal(drawn, torch.get_rng_state())
    assert torch.equal(stood[0], stand.held) and torch.equal(stood[1], stand.labels)


class Witness(nn.Module):
    """Critics that learn nothing and remember what they were shown."""

    def __init__(self, channels) -> None:
        super().__init__()
        self.weight, self.channels = nn.Parameter(torch.zeros(1)), channels
        self.learned_from: list[Tensor] = []
        self.read: list[tuple[Tensor, ...]] = []

    def forward(self, views, index=None, labels=None) -> Step:
        if self.training:
            self.learned_from.append(index)
        else:
            self.read.append(tuple(v.clone() for v in views))
        nats = torch.tensor(float(10 ** len(self.read)))
        return Step(self.weight.sum(), {"loss": self.weight.detach().sum(), "i_nce": nats})

    def after_step(self) -> None:
        pass


def test_critics_learn_from_the_pool_and_are_asked_about_held_images(stand):
    witnesses: list[Witness] = []
    generator = game().generator
    many = replace(stand, steps=5, candidates=40, critics=lambda channels: witnesses.append(Witness(channels)) or witnesses[-1])
    assert fresh(generator, many) == pytest.approx((10 + 100 + 1000) / 3)  # three blocks of 40 are in 128, and count equally
    (seen,) = witnesses
    assert seen.channels == (1, 2) and [len(index) for index in seen.learned_from] == [32] * 5
    assert torch.isin(torch.cat(seen.learned_from), stand.pool).all()
    for block, (first, rest) in enumerate(seen.read):
        a, b = stand.crops(stand.held[40 * block : 40 * block + 40], seeded(0, "held", 40 * block))
        with torch.no_grad():
            assert torch.equal(first, generator(a)[0]) and torch.equal(rest, generator(b)[1])
    assert not any(v.requires_grad for views in seen.read for v in views)


def test_another_pool_and_other_held_images_are_other_numbers(stand):
    generator = FlowSplit(PixelFlow())
    found = fresh(generator, stand)
    assert fresh(generator, replace(stand, pool=stand.pool.flip(0))) != found
    assert fresh(generator, replace(stand, held=stand.held.flip(0))) != found
    images, labels = stand.part
    grey = images.clone()
    grey[torch.ones(len(images)).scatter(0, stand.pool, 0) > 0] = 0  # all that is not in the pool
    assert fresh(generator, replace(stand, part=(grey, labels))) == found
    assert fresh(generator, replace(stand, labels=stand.labels.flip(0))) == found


# Classifiers on held-out images


@pytest.mark.parametrize("mode", MODES)
def test_judged_is_what_a_hand_computes(stand, mode):
    found = game(mode)
    got = judged(found, stand)
    if mode == "unsupervised":
        assert got == {}
        return
    assert set(got) == {"cross_entropy_held", "right_held"} and len(stand.labels) == 40
    a, b = stand.crops(stand.held[:40], seeded(0, "judged", 0))
    by_hand = copy.deepcopy(found).eval()
    with torch.no_grad():
        scores = by_hand.classifiers[0](by_hand.generator(a)[0]), by_hand.classifiers[1](by_hand.generator(b)[1])
        entropy = sum(float(F.cross_entropy(s, stand.labels)) for s in scores)
    right = sum(int((s.argmax(1) == stand.labels).sum()) for s in scores) / 80
    assert got["cross_entropy_held"] == pytest.approx(entropy, rel=1e-5) and got["right_held"] == pytest.approx(right)


def test_many_images_are_judged_in_parts_of_which_the_last_may_be_small(stand, monkeypatch):
    found = game().eval()
    drawn: list[int] = []

    def crops(images, generator):  # not at random, so that parts and the whole see the same
        drawn.append(len(images))
        return images.float() / 255, images.flip(3).float() / 255

    plain = replace(stand, crops=crops)
    whole = judged(found, plain)
    monkeypatch.setattr("infomin.fresh.AT_A_TIME", 16)
    parts = judged(found, plain)
    assert drawn == [40, 16, 16, 8] and parts == pytest.approx(whole, rel=1e-5)
