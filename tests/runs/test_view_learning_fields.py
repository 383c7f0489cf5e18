"""What the fields of a game's recipe do, which values are rejected, and whose labels are read."""

from dataclasses import replace

import pytest
import torch
from tiny_games import fake_measurements, tiny, written

from infomin import data, learn, run
from infomin.methods.game import MODES, Game
from infomin.networks.encoders import build_encoder
from infomin.runs import view_learning
from infomin.runs.fresh_critics import divide_rows
from infomin.training import loop, optim
from infomin.views import VIEWS, SharedFrames
from infomin.views.flow import PixelFlow

# Invalid fields

BELOW_RANGE = {
    "couplings": (0, -1),
    "hidden": (0,),
    "depth": (-1,),
    "lr_generator": (0.0, float("nan")),
    "momentum": (-0.1,),
    "lr_classifiers": (0.0, float("inf")),
    "fresh_every": (0,),
    "fresh_steps": (0,),
    "weight": (-1.0,),
    "waits": (-1,),
}
SCHEDULES = "wanted one of cosine, step, constant$"
INVALID = [
    (
        {"mode": "half"},
        r"mode: got 'half', wanted one of unsupervised, supervised, semi-supervised$",
    ),
    ({"space": "cmyk"}, r"space: got 'cmyk', wanted one of rgb, .*$"),
    ({"space": "hsv"}, r"space: got 'hsv', wanted one of rgb, .*ydbdr, lab$"),
    ({"space": "luv"}, r"space: got 'luv', wanted one of rgb, .*ydbdr, lab$"),
    ({"candidates": 1}, r"candidates: must be 2 or more, got 1"),
    ({"schedule_generator": "up"}, rf"schedule_generator: got 'up', {SCHEDULES}"),
    ({"schedule_classifiers": "up"}, rf"schedule_classifiers: got 'up', {SCHEDULES}"),
    ({"fresh_every": 15}, r"fresh_every: must be a multiple of 10, got 15$"),
    *(
        (
            {"view": view},
            r"view: must draw two views of three channels each from images, .*"
            rf"got '{view}'$",
        )
        for view in ("shared:digit", "color:lab", "crop:0.5/1")
    ),
    (
        {"labelled": 200},
        r"labelled: a semi-supervised game with 100 labels \(20 % are held out\) "
        r"needs 2 to 80, got 200$",
    ),
    ({"labelled": 81, "mode": "supervised"}, r"labelled: a supervised .* needs 2 to 80, got 81"),
    ({"labelled": 0}, r"labelled: .* needs 2 to 80, got 0$"),
    ({"labelled": 1}, r"labelled: .* needs 2 to 80, got 1$"),
    (
        {"labelled": -1, "mode": "unsupervised"},
        r"labelled: got -1, wanted a finite number of 0 or more",
    ),
    ({"labels": 0}, r"labels: got 0, wanted a finite number above 0"),
    (
        {"labels": 9, "labelled": 2},
        r"labels: must be 10 or more, of which 20 % are held out, got 9",
    ),
    *(
        ({name: value}, rf"{name}: got {value}, wanted a finite number")
        for name, values in BELOW_RANGE.items()
        for value in values
    ),
    *(
        ({name: "1"}, rf"{name}: got '1', wanted ")
        for name in ("labels", "weight", "waits", "volume_preserving")
    ),
]


@pytest.mark.parametrize(("wrong", "message"), INVALID, ids=str)
def test_an_invalid_field_is_an_error_at_once(wrong, message):
    with pytest.raises(ValueError, match=rf"^recipe: {message}"):
        tiny(**wrong)


def test_an_unknown_view_is_an_error_at_once():
    with pytest.raises(ValueError, match=r"family: got 'colour', wanted one of "):
        tiny(view="colour:lab")


@pytest.mark.parametrize(
    "field", [{"method": "infonce"}, {"share_encoder": True}, {"probe_images": 4096}], ids=str
)
def test_fields_that_only_runs_have_are_an_error(field):
    """The views of a flow differ, so they cannot share an encoder; and a game has no probe."""
    with pytest.raises(TypeError, match=next(iter(field))):
        tiny(**field)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"task": "colour"},
            r"recipe: task: got 'colour', wanted one of digit, background, position$",
        ),
        (
            {"candidates": 4090, "labels": 8000},
            r"learn: .* no more candidates than half of the other images, .* for 8000 labels and "
            r"4090 candidates",
        ),
        (
            {"waits": 1, "mode": "supervised"},
            r"Game\(waits\): got 1 for a supervised game, wanted .* 0 without critics",
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
def test_what_does_not_fit_the_data_is_an_error_before_the_game(
    tmp_path, monkeypatch, wrong, message
):
    monkeypatch.setattr(Game, "after_step", lambda *_: pytest.fail("played"))
    with pytest.raises(ValueError, match=message):
        learn(tiny(**wrong), tmp_path)


def test_candidates_may_exceed_the_probe_images_of_a_run():
    assert tiny(candidates=5000).candidates == 5000


@pytest.mark.parametrize("sign", "+|")
def test_a_folder_that_no_view_could_name_is_an_error_before_the_game(tmp_path, monkeypatch, sign):
    monkeypatch.setattr(Game, "after_step", lambda *_: pytest.fail("played"))
    message = rf"learn: the path must not contain \+, \| or a comma.*, got '.*a\{sign}b'"
    with pytest.raises(ValueError, match=message):
        learn(tiny(), tmp_path / f"a{sign}b")


def test_fresh_critics_have_the_same_rate_whatever_the_players_rates(tmp_path, monkeypatch):
    rates = []

    def fresh_i_nce(generator, evaluator):
        rates.append(evaluator.lr)
        return 1.0

    monkeypatch.setattr(view_learning, "fresh_i_nce", fresh_i_nce)
    changes = [{}, {"lr": 0.5, "optimizer": "sgd"}, {"lr": 2.0, "optimizer": "lars"}]
    for seed, fields in enumerate(changes):
        learn(tiny(mode="unsupervised", seed=seed, **fields), tmp_path)
    assert len(set(rates)) == 1 and len(rates) > 3


def test_a_game_is_not_a_run(tmp_path):
    with pytest.raises(TypeError, match=r"^run: .*\bgot Learning\b"):
        run(tiny(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_game_is_not_spread_over_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(view_learning, "world_size", lambda: 2)
    message = r"learn: a game needs 1 process, got 2; start it without torchrun"
    with pytest.raises(ValueError, match=message):
        learn(tiny(), tmp_path)


def test_views_of_clips_are_rejected_like_views_of_scenes(registered):
    registered(VIEWS, "now", lambda dial: SharedFrames(dial, past=1))
    message = r"recipe: view: must draw two views .* from images, .*got 'now:all'"
    with pytest.raises(ValueError, match=message):
        tiny(view="now:all")


# Valid fields


@pytest.mark.parametrize("mode", MODES)
def test_every_player_has_its_rate_and_its_schedule(tmp_path, monkeypatch, mode):
    steps, train_step = [], loop._train_step

    def recording(method, parallel, view, inputs, optimizer, *others):
        if isinstance(method, Game):
            rates = {
                id(p): (group["lr"], group["weight_decay"])
                for group in optimizer.param_groups
                for p in group["params"]
            }
            players = {}
            for player in method.groups():
                players[player.name] = {rates[id(p)] for p in player.parameters}
            steps.append(players)
            assert all(group["betas"][0] == 0.7 for group in optimizer.param_groups)
            assert len(rates) == len(list(method.parameters()))
        return train_step(method, parallel, view, inputs, optimizer, *others)

    monkeypatch.setattr(loop, "_train_step", recording)
    fake_measurements(monkeypatch, 1.0)
    recipe = tiny(
        mode=mode,
        schedule="constant",
        schedule_generator="step",
        schedule_classifiers="cosine",
        lr=3e-3,
        lr_generator=7e-3,
        lr_classifiers=5e-3,
        momentum=0.7,
        weight_decay=0.25,
        warmup=0.3,
    )
    learn(recipe, tmp_path)
    expected = {
        "critics": ("constant", 3e-3, {0.25, 0.0}),
        "generator": ("step", 7e-3, {0.0}),
        "classifiers": ("cosine", 5e-3, {0.25, 0.0}),
    }
    absent = {"supervised": {"critics"}, "unsupervised": {"classifiers"}}.get(mode, set())
    assert len(steps) == 12 and set(steps[0]) == set(expected) - absent
    for step, players in enumerate(steps):
        for name, used in players.items():
            schedule, top, decays = expected[name]
            rate = top * optim.rate_factor(schedule, step, 12, 4)  # 30 % of 12, rounded
            assert all(used_rate == pytest.approx(rate) for used_rate, _ in used)
            assert {decay for _, decay in used} == decays


@pytest.mark.parametrize("mode", MODES)
def test_a_game_gets_the_right_images_and_labels(tmp_path, monkeypatch, mode):
    passed = {}

    def fit(method, view, batches, **options):
        passed.update(options, method=method, batches=batches)
        return iter(())

    monkeypatch.setattr(view_learning, "fit", fit)
    fake_measurements(monkeypatch, 1.0)
    config = {"depth": 2, "space": "lab", "volume_preserving": False, "seed": 3}
    learn(tiny(mode=mode, weight=0.3, **config), tmp_path)
    train, _ = data.load("digits", 24)
    rows = divide_rows(train, "digit", 100, 64)
    n_known = 0 if mode == "unsupervised" else 16
    for step in (0, 7):
        images, index, labels = passed["batches"](step)
        assert torch.equal(images, train.images[index])
        assert len(index) == 48 and torch.isin(index, rows.pool).all()
        known = labels["label"] >= 0
        assert known.tolist() == [False] * (48 - n_known) + [True] * n_known
        assert torch.isin(index[known], rows.labelled).all()
        assert torch.equal(labels["label"][known], train.labels["digit"][index[known]])
    game = passed["method"]
    assert (game.mode, game.weight, passed["seed"]) == (mode, 0.3, 3)
    assert len(game.classifiers) == (0 if mode == "unsupervised" else 2)
    config |= {"couplings": 3, "hidden": 4}
    assert {name: game.generator.flow.config[name] for name in config} == config


def parameter_shapes(networks):
    return [[p.shape for p in network.parameters()] for network in networks]


@pytest.mark.parametrize(("encoder", "width"), [("tiny", 0.25), ("tiny", 1.0), ("resnet18", 0.25)])
def test_players_and_fresh_critics_have_the_networks_of_the_recipe(
    tmp_path, monkeypatch, encoder, width
):
    passed, evaluators, seeds = {}, [], []
    mixed_batches = view_learning.mixed_batches

    def fresh_i_nce(generator, evaluator):
        evaluators.append(evaluator)
        return 1.0

    def recording_batches(*args, **options):
        seeds.append(options["seed"])
        return mixed_batches(*args, **options)

    def fit(method, *_, **options):
        passed.update(options, method=method)
        return iter(())

    monkeypatch.setattr(view_learning, "fresh_i_nce", fresh_i_nce)
    monkeypatch.setattr(view_learning, "mixed_batches", recording_batches)
    monkeypatch.setattr(view_learning, "fit", fit)
    learn(tiny(encoder=encoder, width=width, precision="bf16", seed=3), tmp_path)
    expected = parameter_shapes(build_encoder(encoder, channels, width) for channels in (1, 2))
    assert parameter_shapes(passed["method"].encoders) == expected
    assert parameter_shapes(evaluators[0].critics((1, 2)).encoders) == expected
    assert (passed["precision"], passed["seed"], seeds) == ("bf16", 3, [3])


def load_with_other_digits(rows: torch.Tensor):
    """A stand-in for `load` with other digit labels at these rows of the training set."""

    def load(name, size):
        train, test = data.load(name, size)
        digit = train.labels["digit"].clone()
        digit[rows] = (digit[rows] + 1 + torch.arange(len(rows)) % 8) % 10
        return replace(train, labels=train.labels | {"digit": digit}), test

    return load


@pytest.mark.parametrize("mode", MODES)
def test_only_labels_within_the_budget_are_read(tmp_path, monkeypatch, mode):
    rows, n = divide_rows(data.load("digits", 24)[0], "digit", 100, 64), 8192
    is_other = torch.ones(n, dtype=torch.bool)
    is_other[torch.cat([rows.labelled, rows.judged])] = False
    changed_labels = {
        "none": rows.held[:0],
        "others": is_other.nonzero()[:, 0],
        "judged": rows.judged,
        "all": torch.arange(n),
    }
    files, weights = {}, {}
    for name, changed in changed_labels.items():
        with monkeypatch.context() as patch:
            patch.setattr(view_learning, "load", load_with_other_digits(changed))
            row = learn(tiny(mode=mode), tmp_path / name)
        folder = tmp_path / name / row["key"]
        state = PixelFlow.load(folder / "generator-000012.safetensors").state_dict()
        files[name] = written(folder)
        weights[name] = b"".join(p.numpy().tobytes() for p in state.values())
    assert files["others"] == files["none"]
    assert weights["judged"] == weights["none"]  # they only measure, nothing learns from them
    if mode == "unsupervised":
        assert files["all"] == files["judged"] == files["none"]
    else:
        assert weights["all"] != weights["none"] and files["judged"] != files["none"]
