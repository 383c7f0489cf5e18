"""A game that diverges keeps what was good before; the ways in: command line, sweep; and recipes that use what was learned."""

import hashlib
import math
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from helpers import GAME

from infomin import Learning, Recipe, grid, learn, run, sweep
from infomin.__main__ import main
from infomin.common import files
from infomin.methods.game import Game
from infomin.training import loop
from infomin.views import parse
from infomin.views.flow import PixelFlow

torch.set_num_threads(1)
room = sys.modules["infomin.runs.view_learning"]  # the name infomin.learn is the function's
AS_WORDS = [f"--{name}={value}" for name, value in GAME.items()]


def tiny(**fields):
    return Learning(**GAME | fields)


def told(row):
    """A row, but for the time it took and where it was written."""
    return {name: value for name, value in row.items() if name not in ("seconds", "file")}


def measured(monkeypatch, *nats: float):
    """Let fresh critics find these, the last one from then on."""
    left = list(nats)
    monkeypatch.setattr(room, "fresh_i_nce", lambda *_: left.pop(0) if len(left) > 1 else left[0])


# Divergence


def spoil(monkeypatch, step: int):
    """Let the generator's numbers be NaN after a step."""
    after_step = Game.after_step

    def spoiling(self):
        after_step(self)
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
def test_a_game_that_diverges_keeps_what_was_good_before(tmp_path, monkeypatch, step, reason, kept):
    nats, fresh = iter([1.0, 0.5, 0.8]), room.fresh_i_nce
    monkeypatch.setattr(room, "fresh_i_nce", lambda *given: (fresh(*given), next(nats))[1])
    spoil(monkeypatch, step)
    recipe = tiny(steps=22, mode="unsupervised")
    row = learn(recipe, tmp_path)
    assert (
        row["status"] == row["verdict"] == "diverged"
        and row["reason"].startswith(reason)
        and row["step_kept"] == kept
    )
    assert row["said"] == f"The game diverged: {row['reason']}."
    assert [line["step"] for line in files.read_log(tmp_path / row["key"] / "log.jsonl")] == list(
        range(0, step, 10)
    )
    assert all(p.isfinite().all() for p in PixelFlow.load(row["file"]).parameters())
    assert learn(recipe, tmp_path) == row == files.read_json(tmp_path / row["key"] / "row.json")


@pytest.mark.parametrize(
    ("change", "steps"), [({"lr_generator": 1e30}, [0]), ({"lr": 1e30}, [0]), ({}, [])], ids=str
)
def test_rates_beyond_all_measure(tmp_path, monkeypatch, change, steps):
    """Of a player, after the start was measured; or of fresh critics, who then measure nothing."""
    if steps:
        measured(monkeypatch, 1.0)
    else:
        monkeypatch.setattr(room, "FRESH_RATE", 1e30)
    row = learn(tiny(mode="unsupervised", **change), tmp_path)
    assert (
        row["status"] == "diverged"
        and "loss is nan" in row["reason"]
        and row["verdict"] == "diverged"
    )
    assert [line["step"] for line in files.read_log(tmp_path / row["key"] / "log.jsonl")] == steps
    assert (row["step_kept"], row["file"] is None) == ((0, False) if steps else (None, True))
    assert files.read_json(tmp_path / row["key"] / "row.json") == row


@pytest.mark.parametrize(
    ("nats", "word"), [((1.0, 0.05), "collapsed"), ((-0.01, -0.5), "unmeasured")]
)
def test_a_generator_that_has_thrown_all_away_is_not_kept(tmp_path, monkeypatch, nats, word):
    measured(monkeypatch, *nats)
    row = learn(tiny(mode="unsupervised"), tmp_path)
    assert (row["verdict"], row["step_kept"]) == (word, 0 if word == "collapsed" else None)


def test_a_generator_whose_cross_entropy_is_no_number_is_not_kept(tmp_path, monkeypatch):
    """Though its critics found the least."""
    measured(monkeypatch, 1.0, 0.5, 0.8)
    entropies = iter([4.0, math.nan, 3.0])
    monkeypatch.setattr(
        room, "classifier_scores", lambda *_: {"cross_entropy_held": next(entropies)}
    )
    monkeypatch.setattr(
        loop, "_step", lambda method, *_: {"loss": torch.zeros(()), "i_nce": torch.ones(())}
    )
    assert learn(tiny(), tmp_path)["step_kept"] == 12


# The command line


def test_the_command_line_writes_the_file_and_says_how_to_use_it(tmp_path, capsys):
    out, save = tmp_path / "games", tmp_path / "colours" / "learned.safetensors"
    words = [*AS_WORDS, "--fresh_steps=20", "--mode=unsupervised", f"--out={out}", f"--save={save}"]
    assert main(["learn-views", *words]) == 0
    said = capsys.readouterr().out
    row = files.read_json(out / tiny(fresh_steps=20, mode="unsupervised").key / "row.json")
    assert save.read_bytes() == Path(row["file"]).read_bytes() and row["said"] in said
    last = said.strip().splitlines()[-1]
    assert (
        last.endswith(f"--view crop:0.7+flow:{save}")
        and "infomin run" in last
        and "--data digits" in last
    )
    view = last.split("--view ")[1]
    assert tuple(parse(view).channels) == (1, 2) and Recipe(view=view).view == view
    assert main(["learn-views", *words[:-1]]) == 0  # again, without a copy: the game's own file
    assert f"flow:{row['file']}" in capsys.readouterr().out


def test_a_file_that_no_view_could_name_is_not_begun(tmp_path, capsys):
    for name in ("a+b", "a|b", "a,b"):
        assert (
            main(
                [
                    "learn-views",
                    *AS_WORDS,
                    f"--out={tmp_path / 'games'}",
                    f"--save={tmp_path / name}.safetensors",
                ]
            )
            == 2
        )
        assert "wanted one without + | and comma, which join views" in capsys.readouterr().err
        assert not (tmp_path / "games").exists()


def test_the_command_line_says_if_nothing_was_worth_keeping(tmp_path, monkeypatch, capsys):
    measured(monkeypatch, 0.0)
    save = tmp_path / "learned.safetensors"
    assert (
        main(
            ["learn-views", *AS_WORDS, "--mode=unsupervised", f"--out={tmp_path}", f"--save={save}"]
        )
        == 0
    )
    assert "No generator was worth keeping." in capsys.readouterr().out and not save.exists()


@pytest.mark.parametrize(
    "word", ["--rate=3", "--probe_images=4096", "--share_encoder=true", "--method=game"]
)
def test_an_unknown_option_names_the_known_ones(tmp_path, capsys, word):
    with pytest.raises(SystemExit) as left:
        main(["learn-views", word, f"--out={tmp_path}"])
    said = capsys.readouterr().err
    assert left.value.code == 2 and len(said.splitlines()) == 1
    assert all(
        f"--{name}" in said
        for name in ("view", "mode", "labels", "lr_generator", "fresh_every", "seed")
    )
    assert not any(f"--{name}," in said for name in ("probe_images", "share_encoder", "method"))


def test_a_wrong_field_is_one_line_at_the_command_line(tmp_path, capsys):
    assert main(["learn-views", "--fresh_every=15", f"--out={tmp_path}"]) == 2
    assert (
        capsys.readouterr().err
        == "infomin learn-views: recipe: fresh_every: got 15, wanted a multiple of 10; change it\n"
    )


# Many games, and what is run on their views


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sweep_plays_games_in_workers(tmp_path, monkeypatch, jobs):
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda _: {0}, raising=False
    )  # one thread each, as here
    recipes = grid(tiny(mode="unsupervised"), seed=[0, 1])
    assert all(isinstance(recipe, Learning) for recipe in recipes)
    rows = sweep(recipes, tmp_path / "swept", jobs=jobs, bar=False, work=learn)
    assert [row["seed"] for row in rows] == [0, 1] and all(row["status"] == "done" for row in rows)
    assert told(rows[0]) == told(learn(recipes[0], tmp_path))
    monkeypatch.setattr(room, "_play", lambda *_: pytest.fail("played again"))
    assert sweep(recipes, tmp_path / "swept", jobs=1, bar=False, work=learn) == rows


def test_a_row_names_each_flow_of_its_view(tmp_path):
    for seed in (0, 1):
        PixelFlow(hidden=2, seed=seed).save(tmp_path / f"{seed}.safetensors")
    view = "|".join(f"flow:{tmp_path}/{seed}.safetensors" for seed in (0, 1))
    row = run(Recipe(view=view, size=24, steps=0, probe_images=64, candidates=8, data="photos"))
    digests = [
        hashlib.sha256((tmp_path / f"{seed}.safetensors").read_bytes()).hexdigest()[:12]
        for seed in (0, 1)
    ]
    assert row["learned"] == "+".join(digests) and digests[0] != digests[1]


def test_a_recipe_s_key_knows_the_content_of_a_flow(tmp_path):
    file = tmp_path / "learned.safetensors"
    recipe = {"view": f"crop:0.5+flow:{file}", "size": 24}

    def key(seed: int) -> str:
        PixelFlow(hidden=2, seed=seed).save(file)
        return Recipe(**recipe).key

    first, other, again = key(0), key(1), key(0)
    recipes = [Recipe(**recipe, steps=0, probe_images=64, candidates=8)]
    told = {run(recipes[0])["learned"] for seed in (0, 1, 0) if key(seed)}
    assert len(told) == 2 and "learned" not in run(replace(recipes[0], view="color:lab"))
    assert first == again != other and first != files.hash_json(asdict(Recipe(**recipe)))
    for plain in (Recipe(), Recipe(view="crop:0.5+color:lab", seed=3), tiny()):
        assert plain.key == files.hash_json(asdict(plain))
    (tmp_path / "elsewhere").mkdir()
    PixelFlow(hidden=2, seed=0).save(tmp_path / "elsewhere" / "learned.safetensors")
    assert (
        Recipe(view=f"crop:0.5+flow:{tmp_path}/elsewhere/learned.safetensors", size=24).key != first
    )  # another word
