"""A game becomes a row and a file: the same wherever it is played, chosen by what it logged."""

import math
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tiny_games import comparable, tiny, written

from infomin import Learning, Recipe, data, learn
from infomin.common import files
from infomin.methods.game import MODES
from infomin.runs import view_learning
from infomin.training import loop
from infomin.views import parse
from infomin.views.flow import PixelFlow

FRESH_STEPS = 20  # enough for fresh critics to learn something


def tiny_game(**fields):
    return tiny(**{"fresh_steps": FRESH_STEPS} | fields)


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    """Mode -> row and folder."""
    out = tmp_path_factory.mktemp("games")
    played = {}
    for mode in MODES:
        recipe = tiny_game(mode=mode)
        played[mode] = (learn(recipe, out), out / recipe.key)
    return played


# The row, the log and the file


@pytest.mark.parametrize("mode", MODES)
def test_the_row_has_all_columns(games, mode):
    row, folder = games[mode]
    recipe = tiny_game(mode=mode)
    fields = asdict(recipe) | {"task": "digit", "method": "game"}
    assert {name: row[name] for name in fields} == fields
    assert row["key"] == recipe.key and row["status"] == "done"
    assert {"i_nce_fresh", "i_nce_raw", "log_det", "lipschitz", "lipschitz_inverse"} <= set(row)
    assert {"verdict", "said", "file", "step_kept", "precision_used"} <= set(row)
    assert {"commit", "torch", "host", "seconds"} <= set(row)
    scores = {"cross_entropy_held", "right_held"}
    assert scores <= set(row) if mode != "unsupervised" else not scores & set(row)
    assert row["i_nce_raw"] < math.log(64)
    assert row["lipschitz"] >= 1 and row["lipschitz_inverse"] >= 1
    assert files.read_json(folder / "row.json") == row
    assert row["file"] == str(folder / "learned.safetensors")
    assert Learning(**files.read_json(folder / "recipe.json")) == recipe


@pytest.mark.parametrize("mode", MODES)
def test_the_file_makes_views_and_stores_its_provenance(games, mode):
    row, folder = games[mode]
    flow, images = PixelFlow.load(row["file"]), data.load("digits", 24)[0].images[:4]
    config = {"couplings": 3, "hidden": 4, "volume_preserving": True}
    assert {name: flow.config[name] for name in config} == config
    provenance = flow.provenance
    assert provenance["recipe"] == asdict(tiny_game(mode=mode))
    assert provenance["key"] == row["key"] and provenance["commit"] == row["commit"]
    assert provenance["step"] == row["step_kept"]
    assert provenance["i_nce_fresh"] == row["i_nce_fresh"]
    assert provenance.get("right_held") == row.get("right_held")
    view = parse(f"crop:0.5+flow:{row['file']}")
    first, rest = view(images, torch.Generator().manual_seed(0))
    assert (first.shape, rest.shape) == ((4, 1, 24, 24), (4, 2, 24, 24))
    untrained = PixelFlow.load(folder / "generator-000000.safetensors")(images)
    assert torch.equal(untrained, images / 255)
    trained = PixelFlow.load(folder / "generator-000012.safetensors")(images)
    assert not torch.equal(trained, untrained)


def criterion(mode: str, weight: float, line) -> float:
    entropy = weight * line.get("cross_entropy_held", 0.0)
    return {
        "unsupervised": line["i_nce_fresh"],
        "supervised": entropy,
        "semi-supervised": line["i_nce_fresh"] + entropy,
    }[mode]


@pytest.mark.parametrize("mode", MODES)
def test_the_generator_of_least_value_is_kept(games, mode):
    row, folder = games[mode]
    log = files.read_log(folder / "log.jsonl")
    least = min(log, key=lambda line: criterion(mode, 1.0, line))
    for name in ("i_nce_fresh", "log_det", "lipschitz"):
        assert row[name] == least[name]
    assert row["step_kept"] == least["step"] and row["i_nce_raw"] == log[0]["i_nce_fresh"]
    generator = folder / f"generator-{least['step']:06d}.safetensors"
    assert Path(row["file"]).read_bytes() == generator.read_bytes()


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_the_criterion_depends_on_the_mode(tmp_path, monkeypatch, mode, weight, order):
    """With made-up measurements, each mode and weight has one best step: first, middle or last."""
    made_up = [(1.0, 4.0), (1.2, 3.0), (1.5, 2.9)]
    nats = iter([made_up[i][0] for i in order])
    entropies = iter([made_up[i][1] for i in order])
    monkeypatch.setattr(view_learning, "fresh_i_nce", lambda *_: next(nats))

    def classifier_scores(*_):
        return {} if mode == "unsupervised" else {"cross_entropy_held": next(entropies)}

    def skip_training(*_):
        return {"loss": torch.zeros(()), "i_nce": torch.ones(())}

    monkeypatch.setattr(view_learning, "classifier_scores", classifier_scores)
    monkeypatch.setattr(loop, "_train_step", skip_training)
    row = learn(tiny_game(mode=mode, weight=weight), tmp_path)
    least = {
        "unsupervised": 0,
        "supervised": 2 if weight else order[0],
        "semi-supervised": 1 if weight else 0,
    }[mode]
    assert row["step_kept"] == (0, 10, 12)[order.index(least)]
    assert row["i_nce_raw"] == made_up[order[0]][0]


@pytest.mark.parametrize("mode", MODES)
def test_the_log_has_the_metrics_of_every_player(games, mode):
    log = files.read_log(games[mode][1] / "log.jsonl")
    assert [line["step"] for line in log] == [0, 10, 12]
    absent = {"supervised": {"critics"}, "unsupervised": {"classifiers"}}.get(mode, set())
    players = {"critics", "generator", "classifiers"} - absent
    i_nce = {"i_nce", "i_nce_ema"} if "critics" in players else set()
    trained = {"loss", "rate"} | i_nce | {f"gradient_{name}" for name in players}
    for line in log:
        assert {"i_nce_fresh", "lipschitz", "lipschitz_inverse", "log_det"} <= set(line)
        assert abs(line["log_det"]) < 1e-6
        assert ("cross_entropy_held" in line) == ("right_held" in line) == (mode != "unsupervised")
        assert trained <= set(line) if line["step"] else not trained & set(line)
        by_player = {name for name in line if name.startswith(("i_nce", "gradient_"))}
        assert by_player <= trained | {"i_nce_fresh"}
    assert log[0]["lipschitz"] == log[0]["lipschitz_inverse"] == pytest.approx(1)
    assert log[-1]["lipschitz"] > 1
    assert all(log[1][f"gradient_{name}"] > 0 for name in players)


# The same again


def test_a_finished_row_is_read_not_played_again(games, monkeypatch):
    monkeypatch.setattr(view_learning, "load", lambda *_: pytest.fail("played again"))
    for row, folder in games.values():
        assert learn(tiny_game(mode=row["mode"]), folder.parent) == row
    with pytest.raises(pytest.fail.Exception, match="played again"):
        learn(tiny_game(seed=1), folder.parent)


def test_a_folder_that_was_moved_still_has_its_file(games, tmp_path):
    row, folder = games["unsupervised"]
    moved = tmp_path / "moved" / folder.name
    shutil.copytree(folder, moved)
    again = learn(tiny_game(mode="unsupervised"), tmp_path / "moved")
    assert again["file"] == str(moved / "learned.safetensors") and Path(again["file"]).exists()
    assert comparable(again) == comparable(row)


def test_a_finished_game_whose_generator_is_gone_is_told_and_the_advice_works(games, tmp_path):
    row, folder = games["unsupervised"]
    recipe, copy = tiny_game(mode="unsupervised"), tmp_path / folder.name
    shutil.copytree(folder, copy)
    (copy / "learned.safetensors").unlink()
    message = (
        r"learned\.safetensors: wanted the generator .*; put it back, or delete .*row\.json and"
    )
    with pytest.raises(FileNotFoundError, match=message):
        learn(recipe, tmp_path)
    (copy / "row.json").unlink()
    assert comparable(learn(recipe, tmp_path)) == comparable(row)
    assert (copy / "learned.safetensors").exists()


OTHER = {
    "mode": "supervised",
    "weight": 0.5,
    "task": "background",
    "labels": 200,
    "labelled": 8,
    "space": "lab",
    "depth": 0,
    "volume_preserving": False,
    "couplings": 4,
    "hidden": 5,
    "lr_generator": 0.1,
    "schedule_generator": "cosine",
    "lr_classifiers": 0.1,
    "schedule_classifiers": "cosine",
    "momentum": 0.9,
    "waits": 1,
    "fresh_every": 20,
    "fresh_steps": 21,
    "seed": 1,
    "tau": 0.1,
}


def test_every_field_changes_the_key():
    of_games_only = set(asdict(tiny_game())) - set(asdict(Recipe()))
    assert of_games_only <= set(OTHER)
    recipes = [tiny_game(), *(tiny_game(**{name: value}) for name, value in OTHER.items())]
    assert len({recipe.key for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_recipe_gives_the_same_bytes_whatever_was_drawn_before(games, tmp_path, mode):
    torch.manual_seed(1234)
    random_state = torch.get_rng_state()
    row = learn(tiny_game(mode=mode), tmp_path)
    assert torch.equal(random_state, torch.get_rng_state())
    before, folder = games[mode]
    assert comparable(row) == comparable(before)
    assert written(tmp_path / row["key"]) == written(folder)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"lr_generator": 0.01}, {"labelled": 17}, {"waits": 1}, {"space": "ydbdr"}],
    ids=str,
)
def test_games_that_differ_in_one_field_differ(games, tmp_path, change):
    row = learn(tiny(**change), tmp_path)
    last = "generator-000012.safetensors"
    flow = PixelFlow.load(games["semi-supervised"][1] / last)
    changed = dict(PixelFlow.load(tmp_path / row["key"] / last).named_parameters())
    assert any(not torch.equal(p, changed[name]) for name, p in flow.named_parameters())
