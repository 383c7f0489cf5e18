"""Sweeps: which runs they make, in what order, and what is told of those that fail."""

import math
import os
import time
from dataclasses import asdict, fields, replace
from itertools import chain

import pytest
import torch
from tiny_sweeps import TINY, go, log, numbers

import infomin
from infomin.common import files
from infomin.runs import single as runs
from infomin.runs import sweeps


def _fails_without_a_word(recipe, out):
    raise MemoryError


def test_an_error_without_a_text_is_told_by_its_name(tmp_path, one_core):
    with pytest.raises(
        ValueError, match=r"1 of 1 runs failed, none is done; first, .*: MemoryError"
    ):
        infomin.sweep([TINY], tmp_path, jobs=1, bar=False, work=_fails_without_a_word)


def test_a_second_sweep_works_in_the_folder_that_it_is_called_in(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert len(go(infomin.grid(TINY, seed=[0, 1]), "runs", jobs=2)) == 2
        assert len(list((tmp_path / name).glob("runs/*/row.json"))) == 2


def test_what_failed_is_told_from_the_others(tmp_path, one_core):
    recipes = infomin.grid(
        replace(TINY, share_encoder=False), share_encoder=[False, True], view=["color:lab"]
    )
    said = "1 of 2 runs failed, the others are done; first, color:lab with seed 0, share_encoder"
    with pytest.raises(ValueError, match=said):
        go(recipes, tmp_path)
    with pytest.raises(
        TypeError, match=r"sweep: got one Recipe, wanted a list of them; write \[recipe\]"
    ):
        go(TINY, tmp_path)


AXES = [
    {},
    {"seed": [3]},
    {"view": ["color:lab", "color:rgb"], "seed": [2, 0, 1]},
    {"tau": [1, 2], "lr": [3], "dim": [5, 4]},
]


@pytest.mark.parametrize("axes", [*AXES, {"seed": range(3), "tau": []}])
def test_a_grid_is_the_product_of_its_axes_the_last_one_fastest(axes):
    want = [{}]
    for name, values in axes.items():
        want = list(chain.from_iterable([{**one, name: value} for value in values] for one in want))
    found = infomin.grid(TINY, **axes)
    assert len(found) == math.prod(map(len, axes.values()))
    assert [asdict(recipe) for recipe in found] == [asdict(TINY) | one for one in want]


def test_recipes_of_a_grid_have_keys_of_their_own_and_equal_ones_the_same():
    found = infomin.grid(TINY, view=["color:lab", "color:rgb"], seed=[0, 1], tau=[0.1, 0.2])
    assert len({recipe.key for recipe in found}) == 8
    assert replace(found[0], tau=1).key == replace(found[0], tau=1.0).key


def test_every_field_makes_a_difference_to_the_key():
    other = {
        "method": None,
        "view": "color:lab",
        "data": "photos",
        "encoder": "resnet18",
        "head": "mlp",
        "optimizer": "sgd",
    }
    other |= {
        "schedule": "step",
        "precision": "bf16",
        "device": "auto",
        "share_encoder": False,
        "warmup": 0.5,
    }
    for field in fields(TINY):
        if (value := other.get(field.name, getattr(TINY, field.name))) is not None:
            changed = replace(TINY, **{field.name: value if field.name in other else value * 2 + 1})
            assert changed.key != TINY.key, field.name


@pytest.mark.parametrize(
    ("axes", "parts"),
    [
        ({"veiw": ["color:lab"]}, ["veiw", "view, data, size"]),
        ({"seed": 3}, ["seed", "3", "list"]),
        ({"view": "color:lab"}, ["view", "'color:lab'", "list"]),
    ],
)
def test_a_grid_over_what_is_no_axis_says_so(axes, parts):
    with pytest.raises((ValueError, TypeError)) as error:
        infomin.grid(TINY, **axes)
    assert all(part in str(error.value) for part in parts), error.value


def test_rows_are_those_of_run_alone_in_the_order_given(tmp_path, one_core, alone):
    recipes = infomin.grid(TINY, seed=[1, 0])
    rows = go(recipes, tmp_path)
    for row, recipe in zip(rows, recipes, strict=True):
        assert (numbers(row), log(tmp_path, recipe)) == alone(recipe)
        assert row["seed"] == recipe.seed and row["key"] == recipe.key and row["status"] == "done"
    assert log(tmp_path, recipes[0]) != log(tmp_path, recipes[1])


def test_two_jobs_are_one_job_bit_for_bit(tmp_path, monkeypatch, alone):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    recipes = infomin.grid(TINY, seed=[0, 1])
    for row, recipe in zip(go(recipes, tmp_path, jobs=2), recipes, strict=True):
        assert (numbers(row), log(tmp_path, recipe)) == alone(recipe)


def test_what_is_there_is_left_alone_and_the_rest_is_added(tmp_path, one_core, trained):
    first, second, third = infomin.grid(TINY, seed=[0, 1, 2])
    before = go([first, second], tmp_path)
    files = {
        path: path.stat().st_mtime_ns
        for path in tmp_path.rglob("*")
        if path.is_file() and path.parent != tmp_path
    }
    rows = go([third, second, first, third], tmp_path)
    assert trained == [[0, 20], [1, 20], [2, 20]]
    assert rows[2:0:-1] == before and rows[0] == rows[3]
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_a_recipe_that_is_asked_for_twice_is_carried_out_once(tmp_path, one_core):
    asked = []

    def work(recipe, out):
        asked.append(recipe)
        return {"key": recipe.key}

    assert (
        infomin.sweep([TINY, TINY], tmp_path, jobs=1, bar=False, work=work)
        == [{"key": TINY.key}] * 2
    )
    assert len(asked) == 1 + 2  # and for its row once each


def test_a_sweep_leaves_the_callers_threads_and_random_numbers_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)), raising=False)
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    want = torch.rand(2)
    torch.manual_seed(0)
    try:
        go([replace(TINY, steps=1)], tmp_path)
        assert torch.equal(torch.rand(2), want)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(threads)


def test_rows_of_a_folder_that_was_moved_name_files_where_they_are(tmp_path, one_core, monkeypatch):
    """A learned generator is a file, and the second stage of an experiment reads it."""
    monkeypatch.setattr(
        "infomin.runs.view_learning.fresh_i_nce", lambda *_: 1.0
    )  # one step of critics reads nothing
    small = {
        "size": 24,
        "batch": 16,
        "width": 0.25,
        "dim": 16,
        "candidates": 16,
        "labels": 100,
        "labelled": 8,
        "device": "cpu",
    }
    game = infomin.Learning(steps=1, fresh_steps=1, **small)
    (row,) = infomin.sweep([game], tmp_path / "one", jobs=1, bar=False, work=infomin.learn)
    (tmp_path / "one").rename(tmp_path / "two")
    (moved,) = infomin.sweep([game], tmp_path / "two", jobs=1, bar=False, work=infomin.learn)
    assert row["file"] != moved["file"] == str(tmp_path / "two" / game.key / "learned.safetensors")
    assert infomin.views.PixelFlow.load(moved["file"])


def test_the_bar_can_be_turned_off(tmp_path, one_core, capsys):
    recipe = replace(TINY, steps=1)
    go([recipe], tmp_path)
    assert capsys.readouterr() == ("", "")
    infomin.sweep([recipe], tmp_path, jobs=1)
    said, bar = capsys.readouterr()
    assert said == "" and "1 run: 100%" in bar and "101/101" in bar and "1 done" in bar


def test_what_was_done_before_is_no_part_of_the_time_that_the_bar_reckons_with(
    tmp_path, one_core, capsys, monkeypatch
):
    bars = []
    act = sweeps.tqdm
    monkeypatch.setattr(sweeps, "tqdm", lambda **options: bars.append(options) or act(**options))
    recipes = [replace(TINY, steps=2, seed=seed) for seed in range(2)]
    go(recipes[:1], tmp_path)
    go(recipes, tmp_path)
    assert [(bar["initial"], bar["total"]) for bar in bars] == [(0, 102), (102, 204)]


def _steps_without_row(recipe, out):
    if (out / recipe.key).exists():
        return {}
    (out / recipe.key).mkdir()
    files.append_jsonl(out / recipe.key / "log.jsonl", {"step": 1})
    time.sleep(1.5)  # the bar looks every second
    files.write_json(out / recipe.key / "row.json", {})
    return {}


def test_the_bar_says_that_a_run_without_steps_left_is_not_done_yet(tmp_path, one_core, capsys):
    infomin.sweep([replace(TINY, steps=1)], tmp_path, jobs=1, work=_steps_without_row)
    bar = capsys.readouterr().err
    assert "1/101" in bar and "0 done, 1 finishing" in bar and "101/101" in bar and "1 done" in bar


def test_nothing_to_do_is_no_row(tmp_path):
    assert go([], tmp_path) == []


def test_a_diverged_run_has_a_row_that_says_so_and_the_others_go_on(
    tmp_path, one_core, alone, trained
):
    recipes = [TINY, replace(TINY, lr=1e30), replace(TINY, seed=1)]
    rows = go(recipes, tmp_path)
    assert [row["status"] for row in rows] == ["done", "diverged", "done"]
    assert "lower the learning rate" in rows[1]["reason"] and "i_nce" not in rows[1]
    assert [numbers(rows[0]), numbers(rows[2])] == [alone(recipes[0])[0], alone(recipes[2])[0]]
    taken = len(trained)
    assert go(recipes, tmp_path) == rows and len(trained) == taken  # it is not tried again
    at = infomin.plots.points(
        rows, "digit"
    )  # another learning rate is another point, and one that has no number is left out
    assert at["n"].tolist() == [2] and at["view"].tolist() == ["shared:digit, lr=0.003"]


def test_a_run_that_fails_is_named_once_the_others_are_done(tmp_path, one_core, alone, trained):
    bad = replace(
        TINY, encoder="alexnet", seed=7
    )  # 24 px are too few for it, which only the images show
    good = infomin.grid(TINY, seed=[0, 1])
    with pytest.raises(
        ValueError,
        match=r"^1 of 3 runs failed.* shared:digit .*seed 7, encoder=alexnet: alexnet: images",
    ):
        go([bad, *good], tmp_path)
    taken = len(trained)
    assert [numbers(row) for row in go(good, tmp_path)] == [alone(recipe)[0] for recipe in good]
    assert len(trained) == taken


def test_runs_that_were_done_before_are_others_that_are_done(tmp_path, one_core):
    def work(recipe, out):
        raise ValueError("no")

    files.write_json(tmp_path / TINY.key / "row.json", {})
    with pytest.raises(
        ValueError, match=r"^1 of 2 runs failed, the others are done; first, .* seed 1: no$"
    ):
        infomin.sweep([TINY, replace(TINY, seed=1)], tmp_path, jobs=1, bar=False, work=work)


def test_a_failure_that_nobody_foresaw_does_not_lose_the_others_either(
    tmp_path, one_core, monkeypatch
):
    recipes, real = infomin.grid(TINY, seed=[0, 1, 2]), runs.run

    def run(recipe, *args, **settings):
        if recipe.seed == 1:
            raise RuntimeError("out of memory")
        return real(recipe, *args, **settings)

    monkeypatch.setattr(sweeps, "run", run)
    with pytest.raises(
        (ValueError, RuntimeError), match=r"1 of 3 runs failed.*seed 1: .*out of memory"
    ):
        go(recipes, tmp_path)
    assert [(tmp_path / recipe.key / "row.json").exists() for recipe in recipes] == [
        True,
        False,
        True,
    ]
