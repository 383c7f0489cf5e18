"""The view game: the direction in which each player moves, and where a game ends."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from helpers import context
from torch import Tensor

from infomin import data
from infomin.data.batches import batch_rows
from infomin.measure import probe
from infomin.measure.bounds import infonce_symmetric
from infomin.measure.critics import cosine_scores
from infomin.measure.estimator import nats
from infomin.methods import InfoNCE, Step
from infomin.methods import game as games
from infomin.methods.game import MODES, Game, reverse_gradient
from infomin.networks.encoders import build_encoder
from infomin.training import loop
from infomin.training.step import make_batch
from infomin.views import parse
from infomin.views.flow import FlowSplit, PixelFlow

torch.set_num_threads(1)
SMALL = {"width": 0.25, "dim": 16}
UNKNOWN = {"digit": torch.full((24,), -1)}


def random_flow(seed: int = 0, spread: float = 0.3) -> FlowSplit:
    """A flow that is not the identity."""
    flow = PixelFlow(hidden=8, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(spread * torch.randn(p.shape, generator=generator))
    return FlowSplit(flow)


def build(mode: str, seed: int = 0, generator: FlowSplit | None = None, **settings) -> Game:
    classes = 0 if mode == "unsupervised" else 10
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Game(generator or random_flow(), classes, mode=mode, **{**SMALL, **settings})


@pytest.fixture(scope="module")
def crops() -> tuple[Tensor, Tensor]:
    images = data.load("digits", 24)[0].images[:24]
    return parse("crop:0.5")(images, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def labels() -> dict[str, Tensor]:
    """Of the crops: the first half is known."""
    digits = data.load("digits", 24)[0].labels["digit"][:24].clone()
    digits[12:] = -1
    return {"digit": digits}


def step(game: Game, crops, labels=()) -> Step:
    return game(crops, make_batch(len(crops[0]), dict(labels)))


def players(game: Game) -> dict[str, list[Tensor]]:
    return {group.name: group.parameters for group in game.groups()}


def gradient(parameters: list[Tensor]) -> Tensor:
    """All gradients in one vector, zeros where there is none."""
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return torch.cat([grad.flatten() for grad in grads])


def gradients(game: Game) -> dict[str, Tensor]:
    return {name: gradient(parameters) for name, parameters in players(game).items()}


def embed(game: Game, v1: Tensor, v2: Tensor) -> list[Tensor]:
    critics = zip(game.heads, game.encoders, (v1, v2), strict=True)
    return [head(encoder(v)) for head, encoder, v in critics]


@pytest.mark.parametrize("mode", MODES)
def test_every_parameter_belongs_to_one_player(mode):
    game = build(mode)
    grouped = [id(p) for parameters in players(game).values() for p in parameters]
    assert sorted(grouped) == sorted(id(p) for p in game.parameters())
    assert len(set(grouped)) == len(grouped)
    absent = {"supervised": {"critics"}, "unsupervised": {"classifiers"}}.get(mode, set())
    assert set(players(game)) == {"critics", "generator", "classifiers"} - absent
    decays = {group.name: group.decay for group in game.groups()}
    assert all(decay == (name != "generator") for name, decay in decays.items())


@pytest.mark.parametrize("mode", MODES)
def test_every_player_gets_a_gradient(mode, crops, labels):
    game = build(mode)
    step(game, crops, labels).loss.backward()
    for name, parameters in players(game).items():
        assert all(p.grad is not None for p in parameters), name
        assert gradient(parameters).abs().max() > 0, name


@pytest.mark.parametrize("mode", MODES)
def test_features_are_the_outputs_of_the_trained_encoders_before_their_heads(mode, crops):
    game = build(mode).eval()
    encoders = game.encoders
    if mode == "supervised":
        encoders = [classifier[0] for classifier in game.classifiers]
    for h, encoder, v in zip(game.features(crops), encoders, game.split(crops), strict=True):
        assert torch.equal(h, encoder(v))


def shapes(networks) -> list[list[torch.Size]]:
    return [[p.shape for p in network.parameters()] for network in networks]


@pytest.mark.parametrize(("encoder", "width"), [("tiny", 0.25), ("tiny", 1.0), ("resnet18", 0.25)])
def test_networks_have_the_name_and_width_asked_for(encoder, width):
    game = Game(random_flow(), 7, encoder=encoder, width=width, dim=16)
    expected = shapes(build_encoder(encoder, channels, width) for channels in (1, 2))
    assert shapes(game.encoders) == expected
    assert shapes(classifier[0] for classifier in game.classifiers) == expected
    assert [classifier[1].out_features for classifier in game.classifiers] == [7, 7]


@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize("mode", ["unsupervised", "semi-supervised"])
def test_critics_raise_what_the_generator_lowers(mode, weight, crops, labels):
    """Gradients of the game against those of I_NCE and of the cross-entropy, taken separately."""
    game = build(mode, weight=weight).eval()  # so that batch-norm averages do not move
    step(game, crops, labels).loss.backward()
    of_game = gradients(game)

    game.zero_grad(set_to_none=True)
    z1, z2 = embed(game, *game.split(crops))
    infonce_symmetric(cosine_scores(z1, z2, game.tau)).backward()
    of_i_nce = gradients(game)

    game.zero_grad(set_to_none=True)
    if mode == "semi-supervised":
        for classifier, v in zip(game.classifiers, game.split(crops), strict=True):
            F.cross_entropy(classifier(v[:12]), labels["digit"][:12]).backward()
    of_entropy = gradients(game)

    assert of_game["critics"].abs().max() > 1e-4 and of_i_nce["generator"].abs().max() > 1e-4
    torch.testing.assert_close(of_game["critics"], -of_i_nce["critics"])
    expected = of_i_nce["generator"] + weight * of_entropy["generator"]
    torch.testing.assert_close(of_game["generator"], expected, rtol=1e-4, atol=1e-6)
    if mode == "semi-supervised":
        expected = weight * of_entropy["classifiers"]
        torch.testing.assert_close(of_game["classifiers"], expected)


def test_the_reversal_concerns_only_the_generator(crops, monkeypatch):
    against, along = build("unsupervised").eval(), build("unsupervised").eval()
    step(against, crops).loss.backward()
    monkeypatch.setattr(games, "reverse_gradient", lambda x: x)
    step(along, crops).loss.backward()
    torch.testing.assert_close(gradients(against)["critics"], gradients(along)["critics"])
    torch.testing.assert_close(gradients(against)["generator"], -gradients(along)["generator"])


@pytest.mark.parametrize("mode", ["unsupervised", "semi-supervised"])
def test_in_turns_one_side_moves_while_the_other_waits(mode, crops, labels):
    game = build(mode, waits=2)
    moved = []
    for i in range(6):
        game.zero_grad(set_to_none=True)
        step(game, crops, labels).loss.backward()
        moved.append({name for name, grad in gradients(game).items() if grad.abs().max() > 0})
        game.after_step(i)
    assert moved == 2 * [{"critics"}, {"critics"}, set(players(game)) - {"critics"}]


@pytest.mark.parametrize("turn", range(3))
def test_the_logged_loss_is_that_of_the_whole_game_in_every_turn(turn, crops, labels):
    game = build("semi-supervised", waits=2, weight=0.7).eval()
    game.turn += turn
    stats = step(game, crops, labels).stats
    torch.testing.assert_close(stats["loss"], 0.7 * stats["cross_entropy"] - stats["i_nce"])


def test_only_images_with_labels_are_classified(crops, labels):
    game = build("semi-supervised", weight=1.0).eval()
    whole = step(game, crops, labels).stats
    labelled = step(game, [v[:12] for v in crops], {"digit": labels["digit"][:12]}).stats
    torch.testing.assert_close(whole["cross_entropy"], labelled["cross_entropy"])
    unlabelled = step(game, crops, UNKNOWN).stats
    assert unlabelled["cross_entropy"] == 0
    assert torch.equal(unlabelled["i_nce"], whole["i_nce"])


def batches_of(split: data.Split, batch: int, seed: int):
    def batches(step):
        index = batch_rows(len(split), batch, step, seed=seed)
        return split.images[index], index, {"digit": split.labels["digit"][index]}

    return batches


def play(
    seed: int, *, mode="unsupervised", steps=80, batch=64, checkpoint=None, until=None, **settings
):
    """A game on views of digits, to its end or until a step."""
    split, _ = data.load("digits", 24)
    game = build(mode, seed, FlowSplit(PixelFlow(hidden=16, seed=seed)), **settings)
    rates = {"critics": 2e-3, "generator": 5e-3, "classifiers": 2e-3}
    groups = [{"params": group.parameters, "lr": rates[group.name]} for group in game.groups()]
    training = loop.fit(
        game,
        parse("crop:0.7"),
        batches_of(split, batch, seed),
        steps=steps,
        seed=seed,
        optimizer=torch.optim.Adam(groups, betas=(0.5, 0.999)),
        rate=lambda step: min(1.0, (step + 1) / 10),
        checkpoint=checkpoint,
        log_every=5,
    )
    for steps_taken, _ in training:
        if steps_taken == until:
            break
    return game


def held_out_i_nce(generator: FlowSplit) -> float:
    """Held-out I_NCE of the generator's views, by encoders and a critic of their own."""
    train, test = data.load("digits", 24)
    frozen = generator.eval().requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        method = InfoNCE(context(frozen.channels, **SMALL, tau=0.2))
    training = loop.fit(
        method,
        frozen,
        batches_of(train, 64, 99),
        steps=100,
        optimizer=torch.optim.Adam(method.parameters(), 2e-3),
        rate=lambda step: 1.0,
        seed=99,
    )
    for _ in training:
        pass
    features = [
        probe.extract_features(method, frozen, split.images[:1024]) for split in (train, test)
    ]
    return nats(*features, candidates=256).value


def test_two_games_that_differ_in_the_reversal_end_half_a_nat_apart(monkeypatch):
    against = held_out_i_nce(play(0).generator)
    monkeypatch.setattr(games, "reverse_gradient", lambda x: x)
    along = held_out_i_nce(play(0).generator)
    assert along - against > 0.5, (along, against)


@pytest.mark.parametrize("waits", [0, 1])
def test_an_interrupted_game_resumes_with_the_same_bits(tmp_path, monkeypatch, waits):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    settings = {"steps": 15, "batch": 16, "mode": "semi-supervised", "waits": waits}
    straight = play(3, **settings).state_dict()
    play(3, checkpoint=tmp_path / "c.pt", until=10, **settings)
    resumed = play(3, checkpoint=tmp_path / "c.pt", **settings).state_dict()
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mode": "half"},
            r"Game\(mode\): got 'half', wanted one of unsupervised, supervised, semi-supervised",
        ),
        (
            {"mode": "supervised", "classes": 1},
            r"Game\(classes\): got 1 for a supervised game, wanted 2 or more",
        ),
        ({"mode": "unsupervised", "weight": -1.0}, r"Game\(weight\): got -1.0"),
        (
            {"mode": "supervised", "classes": 10, "waits": 1},
            r"Game\(waits\): got 1 for a supervised game, wanted .* 0 without critics",
        ),
        ({"mode": "unsupervised", "waits": -1}, r"Game\(waits\): got -1"),
        (
            {"generator": FlowSplit(PixelFlow(), "0-1-2"), "mode": "unsupervised"},
            "Game: the generator must return 2 views, got 3",
        ),
    ],
)
def test_arguments_out_of_range_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        Game(**{"generator": random_flow(), **settings})


def test_a_wrong_generator_missing_labels_and_wrong_crops_are_errors(crops, labels):
    message = r"Game: the generator must be a View, got PixelFlow; .* FlowSplit\(PixelFlow"
    with pytest.raises(TypeError, match=message):
        Game(PixelFlow(), 10)
    with pytest.raises(ValueError, match="Game: needs labels of task 'digit', got class"):
        step(build("supervised"), crops, {"class": labels["digit"]})
    with pytest.raises(ValueError, match="Game: needs labels of task 'digit', got none"):
        step(build("semi-supervised"), crops)
    wrong = {"1 views": crops[:1], "3 views": [*crops, crops[0]], "a tensor": crops[0][:2]}
    for got, views in wrong.items():
        with pytest.raises(ValueError, match=rf"Game: got {got}, wanted two crops of each image"):
            step(build("unsupervised"), views)


def test_a_batch_without_a_label_moves_nobody_and_is_no_error(crops):
    game = build("supervised")
    result = step(game, crops, UNKNOWN)
    result.loss.backward()
    assert result.loss == 0 and gradients(game)["generator"].abs().max() == 0


def test_critics_are_unfrozen_after_every_step(crops):
    """Except for parameters that the user froze."""
    game = build("unsupervised", waits=1)
    critics = players(game)["critics"]
    critics[0].requires_grad_(False)
    for i in range(4):
        step(game, crops).loss.backward()
        game.after_step(i)
        assert [p.requires_grad for p in critics] == [False] + [True] * (len(critics) - 1)
    game.turn += 1
    with torch.no_grad():
        step(game, crops)
    assert critics[1].requires_grad
    step(game, crops), step(game, crops)  # the same turn twice
    game.after_step(5)
    assert critics[1].requires_grad and not critics[0].requires_grad


def test_gradient_reversal_is_the_identity_with_a_negative_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    y = reverse_gradient(x)
    assert torch.equal(y, x) and y is not x
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), x)[0], -2 * x.detach())

    def reverse_twice(v: Tensor) -> Tensor:
        return reverse_gradient(reverse_gradient(v)).pow(3)

    assert torch.autograd.gradcheck(reverse_twice, x)
    assert torch.autograd.gradgradcheck(reverse_twice, x)


def test_reversal_lets_one_loss_play_min_against_max() -> None:
    """Of (a - b)^2, a descends and b, behind the reversal, ascends."""
    a, b = torch.tensor(1.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    (a - reverse_gradient(b)).square().backward()
    assert a.grad == 2 and b.grad == 2  # a moves towards b, and b away from a


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0])
def test_critics_use_the_given_temperature(tau, crops):
    generator = FlowSplit(PixelFlow(hidden=4))
    game = Game(generator, mode="unsupervised", **SMALL, tau=tau).eval()
    with torch.no_grad():
        z1, z2 = embed(game, *game.split(crops))
        expected = infonce_symmetric(cosine_scores(z1, z2, tau))
        i_nce = step(game, crops).stats["i_nce"]
    assert float(i_nce) == pytest.approx(float(expected), rel=1e-5)


def test_defaults_of_a_game():
    parameters = inspect.signature(Game).parameters
    expected = {"weight": 1, "tau": 0.2, "waits": 0}
    assert {name: parameters[name].default for name in expected} == expected
