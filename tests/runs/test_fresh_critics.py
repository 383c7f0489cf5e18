"""Measuring a generator: with fresh critics and with labels, on held-out images, without effects.

The measured game stays as it was.
"""

import copy
import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from helpers import context
from torch import Tensor, nn

from infomin import data
from infomin.common.seeds import seeded_generator
from infomin.methods import InfoNCE, Learner, Step
from infomin.methods.game import MODES, Game
from infomin.runs.fresh_critics import Evaluator, classifier_scores, divide_rows, fresh_i_nce
from infomin.training import optim
from infomin.training.step import make_batch
from infomin.views import FlowSplit, PixelFlow, View, parse


def small_critics(channels) -> InfoNCE:
    return InfoNCE(context(channels, width=0.25, dim=16, tau=0.2))


def make_evaluator(**fields) -> Evaluator:
    """An evaluator on digits, with 200 labels, 40 of them held out, and 128 held-out images."""
    train, _ = data.load("digits", 24)
    labels = train.labels["digit"]
    rows = divide_rows(train, "digit", 200, 128)
    evaluator = Evaluator(
        part=(train.images, {"label": labels}),
        pool=rows.pool,
        crops=parse("crop:0.7"),
        held=train.images[rows.held],
        labels=labels[rows.judged],
        critics=small_critics,
        steps=20,
        batch=32,
        lr=5e-3,
        candidates=64,
        precision="fp32",
        seed=0,
    )
    return replace(evaluator, **fields)


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return make_evaluator()


class Blind(View):
    """Views of the channels, the first of which shows nothing."""

    channels, readout = (1, 2), (0, 1)

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return torch.full_like(images[:, :1], 0.5), images[:, 1:]


def played_game(mode: str = "semi-supervised", seed: int = 0) -> Game:
    """A game that has taken a step: parameters have gradients, running averages have moved."""
    flow, draws = PixelFlow(hidden=4, seed=seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=draws))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        game = Game(FlowSplit(flow), 10, mode=mode, task="label", width=0.25, dim=16)
    crops = [torch.rand(8, 3, 24, 24, generator=draws) for _ in range(2)]
    game(crops, make_batch(8, {"label": torch.arange(8)})).loss.backward()
    game.after_step(0)
    return game


# Fresh critics


def test_views_that_share_nothing_have_no_nats(evaluator):
    plain = fresh_i_nce(FlowSplit(PixelFlow()), evaluator)
    blind = fresh_i_nce(Blind(), evaluator)
    assert abs(blind) < 0.05 and 0.3 < plain < math.log(64), (plain, blind)


def test_the_same_generator_has_the_same_nats_whatever_was_drawn_before(evaluator):
    generator = played_game().generator
    nats = fresh_i_nce(generator, evaluator)
    torch.manual_seed(7)
    assert fresh_i_nce(generator, evaluator) == nats
    assert fresh_i_nce(copy.deepcopy(generator).eval(), evaluator) == nats
    assert fresh_i_nce(generator, replace(evaluator, seed=1)) != nats
    assert fresh_i_nce(played_game(seed=1).generator, evaluator) != nats


def test_fresh_critics_warm_up_and_decay_to_zero(evaluator, monkeypatch):
    """At a constant rate the result would depend on the last few batches."""
    factors, rate_factor = [], optim.rate_factor

    def recording(*args):
        factors.append(rate_factor(*args))
        return factors[-1]

    monkeypatch.setattr("infomin.runs.fresh_critics.rate_factor", recording)
    fresh_i_nce(played_game().generator, replace(evaluator, steps=60, critics=Witness))
    assert len(factors) == 60 and max(factors) == 1 and factors[-1] < 0.05
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_game_as_it_was(evaluator, training):
    game = played_game().train(training)
    state = {name: value.clone() for name, value in game.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in game.parameters()]
    random_state = torch.get_rng_state()
    held, labels = evaluator.held.clone(), evaluator.labels.clone()
    fresh_i_nce(game.generator, replace(evaluator, steps=2))
    classifier_scores(game, evaluator)
    assert all(torch.equal(state[name], value) for name, value in game.state_dict().items())
    for before, p in zip(gradients, game.parameters(), strict=True):
        assert (p.grad is None) if before is None else torch.equal(before, p.grad)
    assert all(module.training == training for module in game.modules())
    assert all(p.requires_grad for p in game.parameters())
    assert torch.equal(random_state, torch.get_rng_state())
    assert torch.equal(held, evaluator.held) and torch.equal(labels, evaluator.labels)


class Witness(Learner):
    """Critics that learn nothing but record their first draw, their inputs and autocast."""

    def __init__(self, channels) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.channels, self.drawn = channels, torch.rand(4)
        self.learned_from: list[Tensor] = []
        self.shown: list[tuple[Tensor, ...]] = []
        self.read: list[tuple[Tensor, ...]] = []
        self.autocast: set[tuple[bool, bool]] = set()

    def forward(self, views, batch) -> Step:
        if self.training:
            self.learned_from.append(batch.index)
        (self.shown if self.training else self.read).append(tuple(v.clone() for v in views))
        self.autocast.add((self.training, torch.is_autocast_enabled("cpu")))
        nats = torch.tensor(float(10 ** len(self.read)))
        return Step(self.weight.sum(), {"loss": self.weight.detach().sum(), "i_nce": nats})


def witness(generator: View, evaluator: Evaluator) -> tuple[float, Witness]:
    """The nats that Witness critics report, and the one Witness that was built."""
    witnesses: list[Witness] = []

    def build(channels) -> Witness:
        witnesses.append(Witness(channels))
        return witnesses[-1]

    nats = fresh_i_nce(generator, replace(evaluator, critics=build))
    (built,) = witnesses
    return nats, built


def test_critics_learn_from_the_pool_and_are_read_on_held_out_images(evaluator):
    generator = played_game().generator
    nats, critics = witness(generator, replace(evaluator, steps=5, candidates=40))
    assert nats == pytest.approx((10 + 100 + 1000) / 3)  # 3 blocks of 40 in 128, weighted equally
    assert critics.channels == (1, 2)
    assert [len(index) for index in critics.learned_from] == [32] * 5
    assert torch.isin(torch.cat(critics.learned_from), evaluator.pool).all()
    for block, (first, rest) in enumerate(critics.read):
        images = evaluator.held[40 * block : 40 * block + 40]
        a, b = evaluator.crops(images, seeded_generator(0, "held", 40 * block))
        with torch.no_grad():
            assert torch.equal(first, generator(a)[0]) and torch.equal(rest, generator(b)[1])
    assert not any(v.requires_grad for views in critics.read for v in views)


def test_all_draws_of_a_measurement_depend_on_its_seed(evaluator):
    """First weights, batches, and the crops of training, of reading and of the classifiers."""
    game, short = played_game(), replace(evaluator, steps=2)
    # Batches of one repeated image differ only in its crops.
    one_image = replace(short, pool=evaluator.pool[:1].repeat(64))
    _, many_0 = witness(game.generator, short)
    _, many_1 = witness(game.generator, replace(short, seed=1))
    _, one_0 = witness(game.generator, one_image)
    _, one_1 = witness(game.generator, replace(one_image, seed=1))
    assert not torch.equal(many_0.drawn, many_1.drawn)
    assert not torch.equal(torch.cat(many_0.learned_from), torch.cat(many_1.learned_from))
    assert not torch.equal(one_0.shown[0][0], one_1.shown[0][0])
    crops = evaluator.crops(evaluator.held[:64], seeded_generator(1, "held", 0))
    assert torch.equal(many_1.read[0][0], game.generator(crops[0])[0])
    scores = classifier_scores(game, evaluator)
    assert scores != classifier_scores(game, replace(evaluator, seed=1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_measurements_use_the_given_precision(evaluator, precision):
    game, autocast = played_game(), []
    in_precision = replace(evaluator, steps=1, precision=precision)
    game.register_forward_pre_hook(lambda *_: autocast.append(torch.is_autocast_enabled("cpu")))
    classifier_scores(game, in_precision)
    half = precision == "bf16"
    assert autocast == [half]
    assert witness(game.generator, in_precision)[1].autocast == {(True, half), (False, half)}


def test_nats_depend_on_the_pool_and_on_held_out_images_alone(evaluator):
    generator = FlowSplit(PixelFlow())
    nats = fresh_i_nce(generator, evaluator)
    assert fresh_i_nce(generator, replace(evaluator, pool=evaluator.pool.flip(0))) != nats
    assert fresh_i_nce(generator, replace(evaluator, held=evaluator.held.flip(0))) != nats
    images, labels = evaluator.part
    pool_only = images.clone()
    pool_only[torch.ones(len(images)).scatter(0, evaluator.pool, 0) > 0] = 0
    assert fresh_i_nce(generator, replace(evaluator, part=(pool_only, labels))) == nats
    assert fresh_i_nce(generator, replace(evaluator, labels=evaluator.labels.flip(0))) == nats


class ModeRecorder(View):
    """Views that record the mode they were made in, which dropout or batch norm would act on."""

    channels, readout = (1, 2), (0, 1)
    modes: ClassVar[set[bool]] = set()

    def forward(self, images, generator=None):
        self.modes.add(self.training)
        return images[:, :1], images[:, 1:]


def test_the_generator_is_measured_in_eval_mode_and_keeps_its_own_mode():
    generator = ModeRecorder().train()
    fresh_i_nce(generator, make_evaluator(steps=2))
    assert ModeRecorder.modes == {False} and generator.training


class Idle(Learner):
    """Critics without a gradient, which count how often they are read."""

    def __init__(self, channels) -> None:
        super().__init__()
        self.weight, self.reads = nn.Parameter(torch.ones(2, 2)), 0

    def forward(self, views, batch) -> Step:
        self.reads += not self.training
        nats = torch.tensor(float(10**self.reads))
        return Step(0 * self.weight.sum(), {"loss": torch.zeros(()), "i_nce": nats})


@pytest.mark.parametrize(("held", "blocks"), [(20, 1), (39, 1), (40, 2), (60, 3)])
def test_all_full_blocks_are_read_and_critics_have_no_weight_decay(held, blocks):
    built: list[Idle] = []

    def build(channels) -> Idle:
        built.append(Idle(channels))
        return built[-1]

    train, _ = data.load("digits", 24)
    evaluator = make_evaluator(
        pool=torch.arange(500),
        held=train.images[:held],
        labels=train.labels["digit"][:0],
        critics=build,
        steps=3,
        batch=16,
        lr=0.1,
        candidates=20,
    )
    expected = sum(10**i for i in range(1, blocks + 1)) / blocks
    assert fresh_i_nce(ModeRecorder(), evaluator) == pytest.approx(expected)
    assert torch.equal(built[0].weight, torch.ones(2, 2))


# Classifiers on held-out images


@pytest.mark.parametrize("mode", MODES)
def test_classifier_scores_match_a_computation_by_hand(evaluator, mode):
    game = played_game(mode)
    scores = classifier_scores(game, evaluator)
    if mode == "unsupervised":
        assert scores == {}
        return
    labels = evaluator.labels
    assert set(scores) == {"cross_entropy_held", "right_held"} and len(labels) == 40
    a, b = evaluator.crops(evaluator.held[:40], seeded_generator(0, "judged", 0))
    by_hand = copy.deepcopy(game).eval()
    with torch.no_grad():
        logits = (
            by_hand.classifiers[0](by_hand.generator(a)[0]),
            by_hand.classifiers[1](by_hand.generator(b)[1]),
        )
        entropy = sum(float(F.cross_entropy(view, labels)) for view in logits)
    right = sum(int((view.argmax(1) == labels).sum()) for view in logits) / 80
    assert scores["cross_entropy_held"] == pytest.approx(entropy, rel=1e-5)
    assert scores["right_held"] == pytest.approx(right)


def test_classifiers_are_scored_in_chunks_of_which_the_last_may_be_smaller(evaluator, monkeypatch):
    game = played_game().eval()
    sizes: list[int] = []

    def crops(images, generator):  # not random, so that chunks and the whole show the same
        sizes.append(len(images))
        return images.float() / 255, images.flip(3).float() / 255

    fixed_crops = replace(evaluator, crops=crops)
    whole = classifier_scores(game, fixed_crops)
    monkeypatch.setattr("infomin.runs.fresh_critics.AT_A_TIME", 16)
    in_chunks = classifier_scores(game, fixed_crops)
    assert sizes == [40, 16, 16, 8] and in_chunks == pytest.approx(whole, rel=1e-5)
