"""Games that diverge, games from the command line and in sweeps, and runs on learned views."""

import hashlib
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import GAME
from tiny_games import comparable, fake_measurements, tiny

from infomin import Learning, Recipe, grid, learn, run, sweep
from infomin.__main__ import main
from infomin.common import files
from infomin.methods.game import Game
from infomin.runs import view_learning
from infomin.runs.recipe import FileDigests, recipe_key
from infomin.training import loop
from infomin.views import parse
from infomin.views.flow import PixelFlow

OPTIONS = [f"--{name}={value}" for name, value in GAME.items()]


def logged_steps(folder: Path) -> list[int]:
    return [line["step"] for line in files.read_log(folder / "log.jsonl")]


# Divergence


def spoil_generator(monkeypatch, step: int):
    """Set parameters of the generator to NaN after a step."""
    after_step = Game.after_step

    def spoiling(self, number):
        after_step(self, number)
        if int(self.turn) == step:
            with torch.no_grad():
                next(self.generator.parameters()).fill_(torch.nan)

    monkeypatch.setattr(Game, "after_step", spoiling)


@pytest.mark.parametrize(
    ("step", "reason", "kept"),
    [
        (5, "step 10: the loss is nan", 0),
        (15, "step 20: the loss is nan", 10),
        (20, "fresh critics, after step 20 of the game: step 2: the loss is nan", 10),
        (22, "fresh critics, after step 22 of the game: step 2: the loss is nan", 10),
    ],
)
def test_a_game_that_diverges_keeps_an_earlier_generator(tmp_path, monkeypatch, step, reason, kept):
    nats, fresh_i_nce = iter([1.0, 0.5, 0.8]), view_learning.fresh_i_nce

    def fake_nats(*args):
        fresh_i_nce(*args)  # which may diverge
        return next(nats)

    monkeypatch.setattr(view_learning, "fresh_i_nce", fake_nats)
    spoil_generator(monkeypatch, step)
    recipe = tiny(steps=22, mode="unsupervised")
    row = learn(recipe, tmp_path)
    assert row["status"] == row["verdict"] == "diverged"
    assert row["reason"].startswith(reason) and row["step_kept"] == kept
    assert row["said"] == f"The game diverged: {row['reason']}."
    assert logged_steps(tmp_path / row["key"]) == list(range(0, step, 10))
    assert all(p.isfinite().all() for p in PixelFlow.load(row["file"]).parameters())
    assert learn(recipe, tmp_path) == row == files.read_json(tmp_path / row["key"] / "row.json")


@pytest.mark.parametrize(
    ("change", "steps"), [({"lr_generator": 1e30}, [0]), ({"lr": 1e30}, [0]), ({}, [])], ids=str
)
def test_learning_rates_that_are_far_too_large(tmp_path, monkeypatch, change, steps):
    """Of a player, after the first measurement; or of fresh critics, so nothing is measured."""
    if steps:
        fake_measurements(monkeypatch, 1.0)
    else:
        monkeypatch.setattr(view_learning, "FRESH_RATE", 1e30)
    row = learn(tiny(mode="unsupervised", **change), tmp_path)
    assert row["status"] == row["verdict"] == "diverged" and "loss is nan" in row["reason"]
    assert logged_steps(tmp_path / row["key"]) == steps
    assert (row["step_kept"], row["file"] is None) == ((0, False) if steps else (None, True))
    assert files.read_json(tmp_path / row["key"] / "row.json") == row


@pytest.mark.parametrize(
    ("nats", "word"), [((1.0, 0.05), "collapsed"), ((-0.01, -0.5), "unmeasured")]
)
def test_a_collapsed_generator_is_not_kept(tmp_path, monkeypatch, nats, word):
    fake_measurements(monkeypatch, *nats)
    row = learn(tiny(mode="unsupervised"), tmp_path)
    assert (row["verdict"], row["step_kept"]) == (word, 0 if word == "collapsed" else None)


def test_a_generator_whose_cross_entropy_is_nan_is_not_kept(tmp_path, monkeypatch):
    """Even if its critics measured the least."""
    fake_measurements(monkeypatch, 1.0, 0.5, 0.8)
    entropies = iter([4.0, math.nan, 3.0])

    def classifier_scores(*_):
        return {"cross_entropy_held": next(entropies)}

    def skip_training(*_):
        return {"loss": torch.zeros(()), "i_nce": torch.ones(())}

    monkeypatch.setattr(view_learning, "classifier_scores", classifier_scores)
    monkeypatch.setattr(loop, "_train_step", skip_training)
    assert learn(tiny(), tmp_path)["step_kept"] == 12


# The command line


def test_the_command_line_writes_the_file_and_prints_how_to_use_it(tmp_path, capsys):
    out, save = tmp_path / "games", tmp_path / "colours" / "learned.safetensors"
    fields = {"fresh_steps": 20, "mode": "unsupervised"}
    words = [*OPTIONS, *(f"--{name}={value}" for name, value in fields.items()), f"--out={out}"]
    assert main(["learn-views", *words, f"--save={save}"]) == 0
    output = capsys.readouterr().out
    row = files.read_json(out / tiny(**fields).key / "row.json")
    assert save.read_bytes() == Path(row["file"]).read_bytes() and row["said"] in output
    usage = output.strip().splitlines()[-1]
    assert usage.endswith(f"--view crop:0.7+flow:{save}")
    assert "infomin run" in usage and "--data digits" in usage
    view = usage.split("--view ")[1]
    assert tuple(parse(view).channels) == (1, 2) and Recipe(view=view).view == view
    assert main(["learn-views", *words]) == 0  # again without a copy: the game's own file
    assert f"flow:{row['file']}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a+b", "a|b", "a,b"])
def test_a_file_that_no_view_could_name_is_an_error_before_the_game(tmp_path, capsys, name):
    out, save = tmp_path / "games", tmp_path / f"{name}.safetensors"
    assert main(["learn-views", *OPTIONS, f"--out={out}", f"--save={save}"]) == 2
    message = "the path must not contain +, | or a comma, which join views, got "
    assert f"{message}{str(save)!r}" in capsys.readouterr().err
    assert not out.exists()


def test_the_command_line_says_if_no_generator_was_kept(tmp_path, monkeypatch, capsys):
    fake_measurements(monkeypatch, 0.0)
    save = tmp_path / "learned.safetensors"
    words = [*OPTIONS, "--mode=unsupervised", f"--out={tmp_path}", f"--save={save}"]
    assert main(["learn-views", *words]) == 0
    assert "No generator was worth keeping." in capsys.readouterr().out and not save.exists()


@pytest.mark.parametrize(
    "word", ["--rate=3", "--probe_images=4096", "--share_encoder=true", "--method=game"]
)
def test_an_unknown_option_lists_the_known_ones(tmp_path, capsys, word):
    with pytest.raises(SystemExit) as caught:
        main(["learn-views", word, f"--out={tmp_path}"])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and len(error.splitlines()) == 1
    for name in ("view", "mode", "labels", "lr_generator", "fresh_every", "seed"):
        assert f"--{name}" in error
    for name in ("probe_images", "share_encoder", "method"):
        assert f"--{name}," not in error


def test_an_invalid_field_is_one_line_at_the_command_line(tmp_path, capsys):
    assert main(["learn-views", "--fresh_every=15", f"--out={tmp_path}"]) == 2
    message = "recipe: fresh_every: must be a multiple of 10, got 15"
    assert capsys.readouterr().err == f"infomin learn-views: {message}\n"


# Sweeps of games, and runs on learned views


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sweep_plays_games_in_workers(tmp_path, monkeypatch, jobs):
    # Workers use one thread each, as this process does.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    recipes = grid(tiny(mode="unsupervised"), seed=[0, 1])
    assert all(isinstance(recipe, Learning) for recipe in recipes)
    rows = sweep(recipes, tmp_path / "swept", jobs=jobs, bar=False, work=learn)
    assert [row["seed"] for row in rows] == [0, 1]
    assert all(row["status"] == "done" for row in rows)
    assert comparable(rows[0]) == comparable(learn(recipes[0], tmp_path))
    monkeypatch.setattr(view_learning, "load", lambda *_: pytest.fail("played again"))
    assert sweep(recipes, tmp_path / "swept", jobs=1, bar=False, work=learn) == rows


def test_a_row_has_the_digest_of_each_flow_of_its_view(tmp_path):
    digests = []
    for seed in (0, 1):
        file = tmp_path / f"{seed}.safetensors"
        PixelFlow(hidden=2, seed=seed).save(file)
        digests.append(hashlib.sha256(file.read_bytes()).hexdigest()[:12])
    view = "|".join(f"flow:{tmp_path}/{seed}.safetensors" for seed in (0, 1))
    row = run(Recipe(view=view, size=24, steps=0, probe_images=64, candidates=8, data="photos"))
    assert row["learned"] == "+".join(digests) and digests[0] != digests[1]


def key_without_files(recipe) -> str:
    return recipe_key(recipe, FileDigests("", ()))


def test_the_key_of_a_recipe_depends_on_the_content_of_a_flow(tmp_path):
    file = tmp_path / "learned.safetensors"
    recipe = Recipe(
        view=f"crop:0.5+flow:{save_flow(file, 0)}",
        size=24,
        steps=0,
        probe_images=64,
        candidates=8,
    )
    keys, digests = [], []
    for seed in (0, 1, 0):
        save_flow(file, seed)
        keys.append(recipe.key)
        digests.append(run(recipe)["learned"])
    assert len(set(digests)) == 2 and "learned" not in run(replace(recipe, view="color:lab"))
    assert keys[0] == keys[2] != keys[1] and key_without_files(recipe) not in keys
    for plain in (Recipe(), Recipe(view="crop:0.5+color:lab", seed=3), tiny()):
        assert plain.key == key_without_files(plain)
    elsewhere = save_flow(tmp_path / "elsewhere" / "learned.safetensors", 0)
    moved = replace(recipe, view=f"crop:0.5+flow:{elsewhere}")
    assert moved.key != keys[0]  # the same content, but another view word


def save_flow(file: Path, seed: int) -> Path:
    file.parent.mkdir(exist_ok=True)
    PixelFlow(hidden=2, seed=seed).save(file)
    return file
