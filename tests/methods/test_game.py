"""The view game: who plays for what, and that it ends where the interests say."""

import inspect

import pytest
import torch
from torch import Tensor

from infomin import data
from infomin.data.batches import batch_rows
from infomin.measure import probe
from infomin.measure.bounds import infonce_symmetric
from infomin.measure.critics import cosine_scores
from infomin.methods import InfoNCE
from infomin.methods.game import MODES, Game, reverse_gradient
from infomin.networks.encoders import build_encoder
from infomin.training import loop
from infomin.views import parse
from infomin.views.flow import FlowSplit, PixelFlow

torch.set_num_threads(1)
SMALL = {"width": 0.25, "dim": 16}


def flow(seed: int = 0, spread: float = 0.3, **config) -> FlowSplit:
    """A flow that is not the identity."""
    found = PixelFlow(hidden=8, seed=seed, **config)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in found.parameters():
            p.add_(spread * torch.randn(p.shape, generator=draws))
    return FlowSplit(found)


def game(mode: str, seed: int = 0, generator: FlowSplit | None = None, **settings) -> Game:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Game(
            generator or flow(),
            0 if mode == "unsupervised" else 10,
            mode=mode,
            **{**SMALL, **settings},
        )


@pytest.fixture(scope="module")
def batch() -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
    split, _ = data.load("digits", 24)
    digit = split.labels["digit"][:24].clone()
    digit[12:] = -1
    crops = parse("crop:0.5")(split.images[:24], torch.Generator().manual_seed(0))
    return crops, {"digit": digit}


def gradients(player: list[Tensor]) -> Tensor:
    return torch.cat(
        [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in player]
    )


@pytest.mark.parametrize("mode", MODES)
def test_players_have_all_parameters_and_none_twice(mode):
    found = game(mode)
    parts = [id(p) for player in found.players().values() for p in player]
    assert sorted(parts) == sorted(id(p) for p in found.parameters()) and len(set(parts)) == len(
        parts
    )
    absent = {"supervised": {"critics"}, "unsupervised": {"classifiers"}}.get(mode, set())
    assert set(found.players()) == {"critics", "generator", "classifiers"} - absent


@pytest.mark.parametrize("mode", MODES)
def test_everybody_who_plays_has_a_gradient(mode, batch):
    found = game(mode)
    found(batch[0], None, batch[1]).loss.backward()
    for name, player in found.players().items():
        assert all(p.grad is not None for p in player), name
        assert gradients(player).abs().max() > 0, name


@pytest.mark.parametrize("mode", MODES)
def test_a_probe_reads_what_encoders_that_have_learned_give_before_their_heads(mode, batch):
    found = game(mode).eval()
    learning = (
        [classifier[0] for classifier in found.classifiers]
        if mode == "supervised"
        else found.encoders
    )
    for h, encoder, v in zip(
        found.features(batch[0]), learning, found.split(batch[0]), strict=True
    ):
        assert torch.equal(h, encoder(v))


def shapes(networks) -> list[list[torch.Size]]:
    return [[p.shape for p in network.parameters()] for network in networks]


@pytest.mark.parametrize(("encoder", "width"), [("tiny", 0.25), ("tiny", 1.0), ("resnet18", 0.25)])
def test_networks_are_those_that_were_asked_for(encoder, width):
    found = Game(flow(), 7, encoder=encoder, width=width, dim=16)
    wanted = shapes(build_encoder(encoder, channels, width) for channels in (1, 2))
    assert (
        shapes(found.encoders)
        == shapes(classifier[0] for classifier in found.classifiers)
        == wanted
    )
    assert [classifier[1].out_features for classifier in found.classifiers] == [7, 7]


@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize("mode", ["unsupervised", "semi-supervised"])
def test_critics_raise_what_the_generator_lowers(mode, weight, batch):
    """Gradients of the game against those of I_NCE and of the cross entropy, each taken by itself."""
    found = game(
        mode, weight=weight
    ).eval()  # in train mode BatchNorm's averages would move between the passes
    (a, b), labels = batch
    found((a, b), None, labels).loss.backward()
    got = {name: gradients(player) for name, player in found.players().items()}

    def alone(what: str) -> dict[str, Tensor]:
        found.zero_grad(set_to_none=True)
        v1, v2 = found.generator(a)[0], found.generator(b)[1]
        if what == "i_nce":
            z = [
                head(encoder(v))
                for head, encoder, v in zip(found.heads, found.encoders, (v1, v2), strict=True)
            ]
            infonce_symmetric(cosine_scores(*z, found.tau)).backward()
        elif found.classifiers:
            for classifier, v in zip(found.classifiers, (v1, v2), strict=True):
                torch.nn.functional.cross_entropy(
                    classifier(v[:12]), labels["digit"][:12]
                ).backward()
        return {name: gradients(player) for name, player in found.players().items()}

    i_nce, entropy = alone("i_nce"), alone("entropy")
    assert got["critics"].abs().max() > 1e-4 and i_nce["generator"].abs().max() > 1e-4
    torch.testing.assert_close(got["critics"], -i_nce["critics"])
    torch.testing.assert_close(
        got["generator"], i_nce["generator"] + weight * entropy["generator"], rtol=1e-4, atol=1e-6
    )
    if mode == "semi-supervised":
        torch.testing.assert_close(got["classifiers"], weight * entropy["classifiers"])


def test_the_sign_turns_the_generator_and_nobody_else(batch):
    against, along = game("unsupervised").eval(), game("unsupervised", sign=1).eval()
    for found in (against, along):
        found(batch[0]).loss.backward()
    one, other = (
        {name: gradients(p) for name, p in found.players().items()} for found in (against, along)
    )
    torch.testing.assert_close(one["critics"], other["critics"])
    torch.testing.assert_close(one["generator"], -other["generator"])


@pytest.mark.parametrize("mode", ["unsupervised", "semi-supervised"])
def test_in_turn_one_side_moves_while_the_other_waits(mode, batch):
    found = game(mode, waits=2)
    moved = []
    for _ in range(6):
        found.zero_grad(set_to_none=True)
        found(batch[0], None, batch[1]).loss.backward()
        moved.append(
            {name for name, player in found.players().items() if gradients(player).abs().max() > 0}
        )
        found.after_step()
    players = set(found.players())
    assert moved == 2 * [{"critics"}, {"critics"}, players - {"critics"}]


@pytest.mark.parametrize("turn", range(3))
def test_the_loss_that_is_told_is_that_of_the_whole_game_whoever_has_the_move(turn, batch):
    found = game("semi-supervised", waits=2, weight=0.7).eval()
    found.turn += turn
    told = found(batch[0], None, batch[1]).stats
    torch.testing.assert_close(told["loss"], 0.7 * told["cross_entropy"] - told["i_nce"])


def test_only_images_with_labels_are_classified(batch):
    (a, b), labels = batch
    found = game("semi-supervised", weight=1.0).eval()
    whole = found((a, b), None, labels).stats
    half = found((a[:12], b[:12]), None, {"digit": labels["digit"][:12]}).stats
    torch.testing.assert_close(whole["cross_entropy"], half["cross_entropy"])
    none = found((a, b), None, {"digit": torch.full((24,), -1)}).stats
    assert none["cross_entropy"] == 0 and torch.equal(none["i_nce"], whole["i_nce"])


def rows_of(split: data.Split, batch: int, seed: int):
    def rows(step):
        index = batch_rows(len(split), batch, step, seed=seed)
        return split.images[index], index, {"digit": split.labels["digit"][index]}

    return rows


def play(
    seed: int,
    steps: int = 80,
    batch: int = 64,
    checkpoint=None,
    until: int | None = None,
    **settings,
) -> Game:
    """A game on views of digits, to its end or to a step."""
    split, _ = data.load("digits", 24)
    found = game(
        settings.pop("mode", "unsupervised"),
        seed,
        FlowSplit(PixelFlow(hidden=16, seed=seed)),
        **settings,
    )
    rates = {"critics": 2e-3, "generator": 5e-3, "classifiers": 2e-3}
    groups = [{"params": player, "lr": rates[name]} for name, player in found.players().items()]
    steps_of = loop.fit(found, parse("crop:0.7"), rows_of(split, batch, seed), steps=steps, seed=seed,
                         optimizer=torch.optim.Adam(groups, betas=(0.5, 0.999)), rate=lambda step: min(1.0, (step + 1) / 10),
                         checkpoint=checkpoint, log_every=5)  # fmt: skip
    for step, _ in steps_of:
        if step == until:
            break
    return found


def by_fresh_critics(generator: FlowSplit) -> float:
    """Held-out I_NCE of the generator's views by encoders and a critic that have not played against it."""
    split, unseen = data.load("digits", 24)
    frozen = generator.eval().requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        method = InfoNCE(frozen.channels, **SMALL, tau=0.2)
    for _ in loop.fit(method, frozen, rows_of(split, 64, 99), steps=100, optimizer=torch.optim.Adam(method.parameters(), 2e-3),
                       rate=lambda step: 1.0, seed=99):  # fmt: skip
        pass
    return probe.nats(
        *(probe.extract_features(method, frozen, part.images[:1024]) for part in (split, unseen)),
        candidates=256,
    )


def test_two_games_that_differ_in_the_sign_end_half_a_nat_apart():
    against, along = (by_fresh_critics(play(0, sign=sign).generator) for sign in (-1, 1))
    assert along - against > 0.5, (along, against)


@pytest.mark.parametrize("waits", [0, 1])
def test_a_game_that_was_cut_goes_on_with_the_same_bits(tmp_path, monkeypatch, waits):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    settings = {"steps": 15, "batch": 16, "mode": "semi-supervised", "waits": waits}
    through = play(3, **settings).state_dict()
    play(3, checkpoint=tmp_path / "c.pt", until=10, **settings)
    gone_on = play(3, checkpoint=tmp_path / "c.pt", **settings).state_dict()
    assert through.keys() == gone_on.keys() and all(
        torch.equal(through[name], gone_on[name]) for name in through
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mode": "half"},
            "Game.mode.: got 'half', wanted one of unsupervised, supervised, semi-supervised",
        ),
        (
            {"mode": "supervised", "classes": 1},
            "Game.classes.: got 1 for a supervised game, wanted 2 or more",
        ),
        ({"mode": "unsupervised", "weight": -1.0}, "Game.weight.: got -1.0"),
        (
            {"mode": "supervised", "classes": 10, "waits": 1},
            "Game.waits.: got 1 for a supervised game, wanted .* 0 without critics",
        ),
        ({"mode": "unsupervised", "waits": -1}, "Game.waits.: got -1"),
        ({"mode": "unsupervised", "sign": 0}, "Game.sign.: got 0, wanted -1"),
        (
            {"generator": FlowSplit(PixelFlow(), "0-1-2"), "mode": "unsupervised"},
            "Game: got a generator of 3 views, wanted 2",
        ),
    ],
)
def test_what_does_not_fit_is_said(settings, message):
    with pytest.raises(ValueError, match=message):
        Game(**{"generator": flow(), **settings})


def test_what_is_no_generator_or_has_no_labels_is_said(batch):
    with pytest.raises(
        TypeError,
        match=r"Game: got a PixelFlow, wanted a generator of views, for example FlowSplit",
    ):
        Game(PixelFlow(), 10)
    with pytest.raises(ValueError, match="Game: got labels of class, wanted those of task 'digit'"):
        game("supervised")(batch[0], None, {"class": batch[1]["digit"]})
    with pytest.raises(ValueError, match="Game: got labels of nothing"):
        game("semi-supervised")(batch[0])
    with pytest.raises(
        TypeError, match=r"Game: got labels as a tensor, wanted them by task; pass .'digit': labels"
    ):
        game("supervised")(batch[0], None, batch[1]["digit"])
    for views, got in (
        (batch[0][:1], "1 views"),
        ([*batch[0], batch[0][0]], "3 views"),
        (batch[0][0][:2], "a tensor"),
    ):
        with pytest.raises(
            ValueError, match=rf"Game: got {got}, wanted two crops of each image; pass"
        ):
            game("unsupervised")(views)


def test_a_batch_without_a_label_moves_nobody_and_is_no_error(batch):
    found = game("supervised")
    step = found(batch[0], None, {"digit": torch.full((24,), -1)})
    step.loss.backward()
    assert step.loss == 0 and gradients(found.players()["generator"]).abs().max() == 0


def test_critics_that_wait_are_as_they_were_once_the_step_is_done(batch):
    """Whoever asks for their parameters, or has frozen some for himself, finds them so after any number of steps."""
    found = game("unsupervised", waits=1)
    critics = found.players()["critics"]
    critics[0].requires_grad_(False)
    for _ in range(4):
        found(batch[0]).loss.backward()
        found.after_step()
        assert [p.requires_grad for p in critics] == [False] + [True] * (len(critics) - 1)
    found.turn += 1
    with torch.no_grad():
        found(batch[0])
    assert critics[1].requires_grad
    found(batch[0]), found(batch[0])  # twice the same move
    found.after_step()
    assert critics[1].requires_grad and not critics[0].requires_grad


def test_reversal_is_the_identity_whose_gradient_is_negative() -> None:
    x = torch.randn(
        3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True
    )
    y = reverse_gradient(x)
    assert torch.equal(y, x) and y is not x
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), x)[0], -2 * x.detach())
    twice = lambda v: reverse_gradient(reverse_gradient(v)).pow(3)  # noqa: E731 the identity, to the second order too
    assert torch.autograd.gradcheck(twice, x) and torch.autograd.gradgradcheck(twice, x)


def test_reversal_lets_one_loss_play_min_against_max() -> None:
    """Of (a - b)^2, a descends and b, behind the reversal, ascends."""
    a, b = torch.tensor(1.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    (a - reverse_gradient(b)).square().backward()
    assert a.grad == 2 and b.grad == 2  # a moves towards b, which moves away


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0])
def test_critics_have_the_temperature_that_they_were_given(tau):
    crops = [torch.rand(8, 3, 24, 24, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    game = Game(
        FlowSplit(PixelFlow(hidden=4)), mode="unsupervised", width=0.25, dim=16, tau=tau
    ).eval()
    with torch.no_grad():
        z1, z2 = (
            head(features) for head, features in zip(game.heads, game.features(crops), strict=True)
        )
        assert float(game(crops).stats["i_nce"]) == pytest.approx(
            float(infonce_symmetric(cosine_scores(z1, z2, tau))), rel=1e-5
        )


def test_what_a_game_is_unless_told_otherwise():
    given = {name: p.default for name, p in inspect.signature(Game).parameters.items()}
    assert {name: given[name] for name in ("weight", "tau", "waits", "sign")} == {
        "weight": 1,
        "tau": 0.2,
        "waits": 0,
        "sign": -1,
    }
