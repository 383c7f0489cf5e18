"""What a recipe passes to players and measurements, and what is measured, watched and kept."""

from pathlib import Path

import pytest
import torch
from helpers import Cut
from tiny_games import tiny

from infomin import learn
from infomin.common import files
from infomin.methods.game import MODES, Game
from infomin.runs import view_learning
from infomin.training import loop
from infomin.views import parse
from infomin.views.flow import PixelFlow


@pytest.fixture
def evaluators(monkeypatch):
    """The evaluators that generators are measured with; every measurement is 1 nat."""
    evaluators = []

    def fresh_i_nce(generator, evaluator):
        evaluators.append(evaluator)
        return 1.0

    monkeypatch.setattr(view_learning, "fresh_i_nce", fresh_i_nce)
    return evaluators


@pytest.fixture
def watched_colors(monkeypatch):
    """The colours at which the stretch of a flow is measured."""
    watched, color_stretch = [], view_learning.color_stretch

    def recording(flow, colors):
        watched.append(colors)
        return color_stretch(flow, colors)

    monkeypatch.setattr(view_learning, "color_stretch", recording)
    return watched


def test_the_recipe_reaches_players_and_measurements(tmp_path, monkeypatch, evaluators):
    games = []

    def build_game(*args, **options):
        games.append(Game(*args, **options))
        return games[-1]

    monkeypatch.setattr(view_learning, "Game", build_game)
    changes = {
        "tau": 0.07,
        "candidates": 48,
        "seed": 3,
        "precision": "bf16",
        "dim": 8,
        "head": "mlp",
        "weight": 2.5,
        "batch": 24,
    }
    learn(tiny(**changes, steps=1, fresh_steps=7), tmp_path)
    evaluator, game = evaluators[0], games[0]
    assert (evaluator.candidates, evaluator.seed, evaluator.precision) == (48, 3, "bf16")
    assert (evaluator.steps, evaluator.batch) == (7, 24)
    assert evaluator.lr == view_learning.FRESH_RATE
    assert repr(evaluator.crops) == repr(parse("crop:0.7"))
    assert (game.tau, game.weight) == (0.07, 2.5)
    assert (game.mode, game.task) == ("semi-supervised", "label")
    assert [classifier[-1].out_features for classifier in game.classifiers] == [10, 10]
    critics = evaluator.critics((1, 2))
    assert critics.tau == 0.07
    features = torch.rand(2, critics.encoders[0].features)
    for head in (*critics.heads, *game.heads):
        assert head(features).shape == (2, 8)


def test_the_first_weights_of_a_game_depend_on_its_seed():
    built = [view_learning._build_game(tiny(seed=seed), 10)[1] for seed in (0, 1)]
    first, other = (next(game.encoders.parameters()) for game in built)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("bar", "tensorboard"), [(False, False), (True, False), (False, True)])
def test_the_bar_and_events_appear_only_on_request(tmp_path, monkeypatch, bar, tensorboard):
    requests = []

    def run_training(steps, folder, **options):
        requests.append((options["bar"], options["tensorboard"]))

    monkeypatch.setattr(view_learning, "run_training", run_training)
    monkeypatch.setattr(view_learning, "_keep_best", lambda *_: {"file": None})
    learn(tiny(), tmp_path, bar=bar, tensorboard=tensorboard)
    assert requests == [(bar, tensorboard)]


def test_the_hardware_decides_on_precision_unless_it_is_given(tmp_path, monkeypatch, evaluators):
    for fast, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("infomin.runs.recipe.fast_bf16", lambda _, fast=fast: fast)
        row = learn(tiny(precision="auto", steps=1), tmp_path / str(fast))
        assert evaluators[-1].precision == row["precision_used"] == precision
        assert row["precision"] == "auto"
    assert evaluators[0].precision == "bf16"


@pytest.mark.parametrize(("word", "expected"), [("auto", None), ("cpu", "cpu"), ("cuda", "cuda")])
def test_the_recipe_or_the_hardware_decides_on_the_device(tmp_path, monkeypatch, word, expected):
    requests = []

    def setup_device(device):
        requests.append(device)
        return torch.device("cpu")

    monkeypatch.setattr(view_learning, "setup_device", setup_device)
    monkeypatch.setattr(view_learning, "run_training", lambda *_, **__: None)
    learn(tiny(device=word), tmp_path)
    assert requests == [expected]


def test_watched_colours_are_of_held_out_images_and_the_same_for_all_seeds(
    tmp_path, watched_colors, evaluators
):
    for seed in (0, 1):
        learn(tiny(mode="unsupervised", steps=1, seed=seed), tmp_path)
    held = evaluators[0].held.permute(0, 2, 3, 1).reshape(-1, 3)
    watched = (255 * watched_colors[0][0, :, 0]).round().int().T
    assert set(map(tuple, watched.tolist())) <= set(map(tuple, held.tolist()))
    assert all(torch.equal(colors, watched_colors[0]) for colors in watched_colors)


def test_the_kept_file_is_complete_or_absent(tmp_path, monkeypatch):
    """If the process ends while the file is written, no view can mistake a part for the file."""
    replace = files.os.replace

    def cut(part, path):
        if Path(path).name == view_learning.FILE:
            raise Cut
        return replace(part, path)

    monkeypatch.setattr(view_learning, "fresh_i_nce", lambda *_: 1.0)
    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(files.os, "replace", cut)
        learn(tiny(mode="unsupervised", steps=1), tmp_path)
    assert not list(tmp_path.rglob(view_learning.FILE))
    assert not list(tmp_path.rglob("row.json"))
    row = learn(tiny(mode="unsupervised", steps=1), tmp_path)
    assert Path(row["file"]).exists()


def test_the_stretch_is_measured_in_the_colour_cube_and_log_det_on_the_flow(
    tmp_path, watched_colors
):
    """The log-determinant is the flow's own, whatever volume its colour space has."""
    row = learn(tiny(space="ydbdr", volume_preserving=False), tmp_path)
    log = files.read_log(tmp_path / row["key"] / "log.jsonl")
    colors = watched_colors[0]
    assert colors.shape == (1, 3, 1, view_learning.COLORS)
    assert 0 <= colors.min() < 0.1 and 0.5 < colors.max() <= 1
    assert abs(log[0]["log_det"]) < 1e-6 and log[0]["lipschitz"] > 1.1  # YDbDr stretches
    flow = PixelFlow.load(tmp_path / row["key"] / "generator-000012.safetensors")
    assert log[-1]["log_det"] == pytest.approx(float(flow.log_det(colors).detach().mean()))
    assert abs(log[-1]["log_det"]) > 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_no_image_is_its_own_negative(tmp_path, monkeypatch, mode):
    indices, train_step = [], loop._train_step

    def recording(method, parallel, view, inputs, *others):
        indices.append(inputs[1])
        return train_step(method, parallel, view, inputs, *others)

    monkeypatch.setattr(loop, "_train_step", recording)
    learn(tiny(mode=mode, labels=1000, fresh_steps=1), tmp_path)
    # The game's batches have 32 images and 16 labelled ones, or 48 without labels.
    of_the_game = [index for index in indices if len(index) == 48]
    assert len(of_the_game) == 12
    assert all(len(index.unique()) == 48 for index in of_the_game)


def test_only_some_rows_are_measured_and_only_their_generators_are_saved(tmp_path):
    recipe = tiny(mode="unsupervised", fresh_every=20, steps=24, waits=1)
    row = learn(recipe, tmp_path)
    folder = tmp_path / row["key"]
    log = files.read_log(folder / "log.jsonl")
    measured = [(line["step"], "i_nce_fresh" in line) for line in log]
    assert measured == [(0, True), (10, False), (20, True), (24, True)]
    generators = {f"generator-{step:06d}.safetensors" for step in (0, 20, 24)}
    assert {path.name for path in folder.glob("generator-*")} == generators
    for line in log[1:]:  # at even steps the generator has just moved, and the critics waited
        assert "gradient_critics" not in line and line["gradient_generator"] > 0


def test_fresh_critics_learn_in_bf16_as_in_fp32(tmp_path):
    """The same critics on the same views; rounded weights would measure unrelated features."""
    bf16, fp32 = (
        learn(tiny(precision=precision, mode="unsupervised", fresh_steps=20), tmp_path)["i_nce_raw"]
        for precision in ("bf16", "fp32")
    )
    assert bf16 == pytest.approx(fp32, abs=0.05) and fp32 > 0.2
