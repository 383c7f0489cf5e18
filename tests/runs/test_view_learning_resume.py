"""A game that was cut ends with the same row, log and generators, wherever it was cut."""

import math

import pytest
from helpers import Cut, cut_after
from tiny_games import comparable, tiny, written

from infomin import learn
from infomin.common import files
from infomin.methods import InfoNCE
from infomin.methods.game import Game
from infomin.runs import view_learning
from infomin.training import loop

BRIEF = tiny(batch=16)


def add_a_nat(patch):
    """Fresh critics learn next to nothing in a brief game; without it no generator is kept."""
    fresh_i_nce = view_learning.fresh_i_nce
    patch.setattr(view_learning, "fresh_i_nce", lambda *args: 1 + fresh_i_nce(*args))


@pytest.fixture
def one_nat_more(monkeypatch):
    add_a_nat(monkeypatch)


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    """Row and folder of a brief game that was not cut."""
    out = tmp_path_factory.mktemp("uncut")
    with pytest.MonkeyPatch.context() as patch:
        add_a_nat(patch)
        return learn(BRIEF, out), out / BRIEF.key


# Where a game is cut: calls until the cut, what is called, and the steps that are then left
CUTS = {
    "while the raw views are measured": (1, InfoNCE, "after_step", 12),
    "before the first line": (0, files, "append_jsonl", 12),
    "at step 5": (4, Game, "after_step", 8),
    "at a step that is logged": (9, Game, "after_step", 3),
    "while fresh critics learn": (3, InfoNCE, "after_step", 3),
    "between a generator and its line": (1, files, "append_jsonl", 3),
    "between a line and its checkpoint": (9, loop.checkpoints, "save", 3),
    "before the last line": (2, files, "append_jsonl", 1),
    "between the last line and its checkpoint": (11, loop.checkpoints, "save", 1),
    "before the best is chosen": (0, view_learning, "_keep_best", 0),
    "before the row": (1, files, "write_json", 0),
}


@pytest.mark.parametrize("where", CUTS)
def test_a_cut_game_resumes_and_ends_bit_equal(one_nat_more, uncut, tmp_path, monkeypatch, where):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    calls, owner, name, steps_left = CUTS[where]
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, calls, owner, name)
        learn(BRIEF, tmp_path)
    folder = tmp_path / BRIEF.key
    assert not (folder / "row.json").exists()
    steps, after_step = [], Game.after_step

    def counting(self, step):
        steps.append(step)
        after_step(self, step)

    monkeypatch.setattr(Game, "after_step", counting)
    row = learn(BRIEF, tmp_path)
    assert comparable(row) == comparable(uncut[0]) and written(folder) == written(uncut[1])
    assert len(steps) == steps_left


def test_a_game_that_was_cut_before_its_first_checkpoint_is_played_again(
    one_nat_more, uncut, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "SAVE_EVERY", math.inf)
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 11, Game, "after_step")
        learn(BRIEF, tmp_path)
    folder = tmp_path / BRIEF.key
    assert not (folder / "checkpoint.pt").exists()
    assert len(files.read_log(folder / "log.jsonl")) == 2
    measured, fresh_i_nce = [], view_learning.fresh_i_nce

    def counting(*args):
        measured.append(args)
        return fresh_i_nce(*args)

    monkeypatch.setattr(view_learning, "fresh_i_nce", counting)
    row = learn(BRIEF, tmp_path)
    assert comparable(row) == comparable(uncut[0]) and written(folder) == written(uncut[1])
    assert len(measured) == 2  # the raw views are not measured again


def test_a_log_with_a_torn_line_is_repaired(one_nat_more, uncut, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 1, files, "append_jsonl")
        learn(BRIEF, tmp_path)
    log = tmp_path / BRIEF.key / "log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"step": 10, "lo')
    learn(BRIEF, tmp_path)
    assert log.read_bytes() == (uncut[1] / "log.jsonl").read_bytes()
