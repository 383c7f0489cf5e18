"""What the fields of a game do, and which are refused; who sees which images, and whose labels are read."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import GAME

from infomin import Learning, data, learn, run
from infomin.methods.game import MODES, Game
from infomin.networks.encoders import build_encoder
from infomin.runs.fresh_critics import divide_rows
from infomin.training import loop, optim
from infomin.views import VIEWS, SharedFrames
from infomin.views.flow import PixelFlow

torch.set_num_threads(1)
room = sys.modules["infomin.runs.view_learning"]  # the name infomin.learn is the function's


def tiny(**fields):
    return Learning(**GAME | fields)


def written(folder: Path):
    """What a game leaves behind: the bytes of its log and of its generators."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix in (".jsonl", ".safetensors")
    }


def measured(monkeypatch, *nats: float):
    """Let fresh critics find these, the last one from then on."""
    left = list(nats)
    monkeypatch.setattr(room, "fresh_i_nce", lambda *_: left.pop(0) if len(left) > 1 else left[0])


# Fields that do not fit


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "half"}, r"recipe: mode: got 'half', wanted one of unsupervised, supervised, semi-supervised$"),
        ({"space": "cmyk"}, r"recipe: space: got 'cmyk', wanted one of rgb, .*$"),
        *(({"space": s}, rf"recipe: space: got '{s}', wanted one of rgb, .*ydbdr, lab$") for s in ("hsv", "luv")),
        ({"candidates": 1}, r"recipe: candidates: got 1, wanted 2 or more; use more"),
        ({"method": "infonce"}, r"recipe: method: got 'infonce', wanted one of game$"),
        ({"schedule_generator": "up"}, r"recipe: schedule_generator: got 'up', wanted one of cosine, step, constant$"),
        ({"schedule_classifiers": "up"}, r"recipe: schedule_classifiers: got 'up', wanted one of cosine, step, constant$"),
        ({"fresh_every": 15}, r"recipe: fresh_every: got 15, wanted a multiple of 10; change it"),
        ({"share_encoder": True}, r"recipe: share_encoder: got True, wanted False: the views of a flow differ"),
        *(
            ({"view": view}, rf"recipe: view: got '{view}', wanted what is drawn of images twice, three channels each")
            for view in ("shared:digit", "color:lab", "crop:0.5/1")
        ),
        ({"view": "colour:lab"}, r"its family: got 'colour', wanted one of "),
        ({"labelled": 200}, r"recipe: labelled: got 200 for a semi-supervised game with 100 labels, wanted 2 to 80, .*; change"),
        ({"labelled": 81, "mode": "supervised"}, r"recipe: labelled: got 81 for a supervised game .* wanted 2 to 80"),
        *(({"labelled": n}, rf"recipe: labelled: got {n} .* wanted 2 to 80") for n in (0, 1)),
        ({"labelled": -1, "mode": "unsupervised"}, r"recipe: labelled: got -1, wanted a finite number of 0 or more"),
        ({"labels": 0}, r"recipe: labels: got 0, wanted a finite number above 0"),
        *(
            ({name: value}, rf"recipe: {name}: got {value}, wanted a finite number")
            for name, values in {
                "couplings": (0, -1), "hidden": (0,), "depth": (-1,), "lr_generator": (0.0, float("nan")), "momentum": (-0.1,),
                "lr_classifiers": (0.0, float("inf")), "fresh_every": (0,), "fresh_steps": (0,), "weight": (-1.0,),
                "waits": (-1,),
            }.items()
            for value in values
        ),
        *(({name: "1"}, rf"recipe: {name}: got '1', wanted ") for name in ("labels", "weight", "waits", "volume_preserving")),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_field_is_told_at_once(wrong, message):
    with pytest.raises(ValueError, match=message):
        tiny(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"task": "colour"},
            r"recipe: task: got 'colour', wanted one of digit, background, position$",
        ),
        (
            {"labels": 9, "labelled": 4},
            r"learn: got 8192 images, 8192 of them with labels, for 9 labels .* wanted 10 .* or more",
        ),
        (
            {"candidates": 4090, "labels": 8000},
            r"learn: .* for 8000 labels and 4090 candidates, wanted .* no more candidates than",
        ),
        (
            {"waits": 1, "mode": "supervised"},
            r"Game\(waits\): got 1 for a supervised game, wanted .*take waits=0",
        ),
        ({"momentum": 1.0}, r"momentum\): got 1.0, wanted a number in \[0, 1\)"),
        ({"batch": 8193}, r"batch: got \d+, wanted 2 to 81\d\d"),
        ({"size": 20}, r"data 'digits': got size 20, wanted 24 to 96 px"),
        (
            {"data": "clips", "size": 32, "task": "place"},
            r"recipe: task: got 'place', wanted one of digit, background$",
        ),
    ],
    ids=str,
)
def test_what_only_the_data_show_is_told_before_the_game(tmp_path, monkeypatch, wrong, message):
    monkeypatch.setattr(Game, "after_step", lambda self: pytest.fail("played"))
    with pytest.raises(ValueError, match=message):
        learn(tiny(**wrong), tmp_path)


def test_candidates_are_not_bound_by_a_probe_that_a_game_has_not():
    assert tiny(candidates=5000, probe_images=4096).candidates == 5000


@pytest.mark.parametrize("sign", "+|")
def test_a_folder_that_no_view_could_name_is_told_before_the_game(tmp_path, monkeypatch, sign):
    monkeypatch.setattr(Game, "after_step", lambda self: pytest.fail("played"))
    with pytest.raises(
        ValueError, match=rf"learn: got the path '.*a\{sign}b', wanted one without \+ and |"
    ):
        learn(tiny(), tmp_path / f"a{sign}b")


def test_fresh_critics_are_the_same_whatever_the_players_rate(tmp_path, monkeypatch):
    rates = []
    monkeypatch.setattr(room, "fresh_i_nce", lambda generator, stand: rates.append(stand.lr) or 1.0)
    for seed, fields in enumerate(
        ({}, {"lr": 0.5, "optimizer": "sgd"}, {"lr": 2.0, "optimizer": "lars"})
    ):
        learn(tiny(mode="unsupervised", seed=seed, **fields), tmp_path)
    assert len(set(rates)) == 1 and len(rates) > 3


def test_a_game_is_no_run(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"run: got method 'game', wanted infonce or supervised; .* infomin.learn\(recipe\)",
    ):
        run(tiny(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_players_are_not_spread_over_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "world_size", lambda: 2)
    with pytest.raises(
        ValueError, match=r"learn: got 2 processes, wanted 1: .*; start it without torchrun"
    ):
        learn(tiny(), tmp_path)


# Fields that do


@pytest.mark.parametrize("mode", MODES)
def test_every_player_has_its_rate_and_its_schedule(tmp_path, monkeypatch, mode):
    seen, step = [], loop._step

    def watching(method, view, batch, optimizer, *others):
        if isinstance(method, Game):
            rates = {
                id(p): (group["lr"], group["weight_decay"])
                for group in optimizer.param_groups
                for p in group["params"]
            }
            seen.append(
                {name: {rates[id(p)] for p in player} for name, player in method.players().items()}
            )
            assert all(group["betas"][0] == 0.7 for group in optimizer.param_groups)
            assert len(rates) == len(list(method.parameters()))
        return step(method, view, batch, optimizer, *others)

    monkeypatch.setattr(loop, "_step", watching)
    measured(monkeypatch, 1.0)
    learn(tiny(mode=mode, schedule="constant", schedule_generator="step", schedule_classifiers="cosine", lr=3e-3, momentum=0.7,
               lr_generator=7e-3, lr_classifiers=5e-3, weight_decay=0.25, warmup=0.3), tmp_path)  # fmt: skip
    wanted = {"critics": ("constant", 3e-3, {0.25, 0.0}), "generator": ("step", 7e-3, {0.0}),
              "classifiers": ("cosine", 5e-3, {0.25, 0.0})}  # fmt: skip
    assert len(seen) == 12 and set(seen[0]) == set(wanted) - {
        "supervised": {"critics"},
        "unsupervised": {"classifiers"},
    }.get(mode, set())
    for at, players in enumerate(seen):
        for name, found in players.items():
            schedule, top, decays = wanted[name]
            now = top * optim.rate_factor(schedule, at, 12, 4)  # 3.6, rounded
            assert (
                all(rate == pytest.approx(now) for rate, _ in found)
                and {decay for _, decay in found} == decays
            )


@pytest.mark.parametrize("mode", MODES)
def test_who_sees_which_images_and_labels(tmp_path, monkeypatch, mode):
    handed = {}

    def fit(method, view, batches, **options):
        handed.update(options, method=method, batches=batches)
        return iter(())

    monkeypatch.setattr(room, "fit", fit)
    measured(monkeypatch, 1.0)
    learn(
        tiny(mode=mode, seed=3, space="lab", volume_preserving=False, depth=2, weight=0.3), tmp_path
    )
    train_part = data.load("digits", 24)[0]
    rows = divide_rows(train_part, "digit", 100, 64)
    for step in (0, 7):
        images, index, labels = handed["batches"](step)
        assert (
            torch.equal(images, train_part.images[index])
            and len(index) == 48
            and torch.isin(index, rows.pool).all()
        )
        known = labels["label"] >= 0
        assert known.tolist() == [False] * (48 if mode == "unsupervised" else 32) + [True] * (
            0 if mode == "unsupervised" else 16
        )
        assert torch.isin(index[known], rows.labelled).all()
        assert torch.equal(labels["label"][known], train_part.labels["digit"][index[known]])
    game = handed["method"]
    assert (game.mode, game.weight, len(game.classifiers), handed["seed"]) == (
        mode,
        0.3,
        0 if mode == "unsupervised" else 2,
        3,
    )
    config = game.generator.flow.config
    assert {name: config[name] for name in ("couplings", "hidden", "depth", "space", "volume_preserving", "seed")} == {
        "couplings": 3, "hidden": 4, "depth": 2, "space": "lab", "volume_preserving": False, "seed": 3}  # fmt: skip


def shapes(networks):
    return [[p.shape for p in network.parameters()] for network in networks]


@pytest.mark.parametrize(("encoder", "width"), [("tiny", 0.25), ("tiny", 1.0), ("resnet18", 0.25)])
def test_networks_precision_and_seed_are_the_recipe_s_for_players_and_referee(
    tmp_path, monkeypatch, encoder, width
):
    handed, stands, seeds, mixed = {}, [], [], room.mixed_batches
    monkeypatch.setattr(room, "fresh_i_nce", lambda generator, stand: stands.append(stand) or 1.0)
    monkeypatch.setattr(
        room,
        "mixed_batches",
        lambda *given, **how: seeds.append(how["seed"]) or mixed(*given, **how),
    )
    monkeypatch.setattr(
        room, "fit", lambda method, *_, **how: handed.update(how, method=method) or iter(())
    )
    learn(tiny(encoder=encoder, width=width, precision="bf16", seed=3), tmp_path)
    wanted = shapes(build_encoder(encoder, channels, width) for channels in (1, 2))
    assert shapes(handed["method"].encoders) == shapes(stands[0].critics((1, 2)).encoders) == wanted
    assert (handed["precision"], handed["seed"], seeds) == ("bf16", 3, [3])


def shuffled(which: torch.Tensor):
    """A stand-in for `load` whose digits are others at these rows of the training set."""

    def load(name, size):
        train_part, test = data.load(name, size)
        digit = train_part.labels["digit"].clone()
        digit[which] = (digit[which] + 1 + torch.arange(len(which)) % 8) % 10
        return replace(train_part, labels=train_part.labels | {"digit": digit}), test

    return load


@pytest.mark.parametrize("mode", MODES)
def test_only_labels_that_are_bought_are_read(tmp_path, monkeypatch, mode):
    rows, n = divide_rows(data.load("digits", 24)[0], "digit", 100, 64), 8192
    others = torch.ones(n, dtype=torch.bool)
    others[torch.cat([rows.labelled, rows.judged])] = False
    found = {}
    for name, which in {
        "none": rows.held[:0],
        "others": others.nonzero()[:, 0],
        "judged": rows.judged,
        "all": torch.arange(n),
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(room, "load", shuffled(which))
            row = learn(tiny(mode=mode), tmp_path / name)
        folder = tmp_path / name / row["key"]
        weights = PixelFlow.load(folder / "generator-000012.safetensors").state_dict()
        found[name] = (
            written(folder),
            row.get("cross_entropy_held"),
            b"".join(p.numpy().tobytes() for p in weights.values()),
        )
    assert found["others"][0] == found["none"][0]
    assert found["judged"][2] == found["none"][2]  # they are judged with, not learned from
    if mode == "unsupervised":
        assert found["all"][0] == found["judged"][0] == found["none"][0]
    else:
        assert found["all"][2] != found["none"][2] and found["judged"][0] != found["none"][0]


def test_views_of_clips_are_refused_as_those_of_scenes_are(monkeypatch):
    registered(VIEWS, "now", lambda dial: SharedFrames(dial, past=1))
    with pytest.raises(
        ValueError, match="recipe: view: got 'now:all', wanted what is drawn of images twice"
    ):
        tiny(view="now:all")
