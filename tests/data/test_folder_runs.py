"""Runs on image folders: they train, can be interrupted, and notice changed files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import noise, number_of, numbered, truncate
from PIL import Image

import infomin
from infomin import Recipe, data, run
from infomin.common.files import read_log
from infomin.data import image_files
from infomin.data.digests import data_digest
from infomin.runs import recipe as recipes
from infomin.runs import single
from infomin.training import loop

torch.set_num_threads(1)
TINY = {
    "view": "color:lab",
    "size": 32,
    "steps": 4,
    "batch": 8,
    "candidates": 8,
    "probe_images": 10,
    "width": 0.25,
    "precision": "fp32",
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch):
    monkeypatch.setattr(image_files, "_reported", set())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Sixty files of two classes and many kinds, one truncated, one renamed text."""
    root, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for n in range(60):
        folder = root / ("cats", "dogs")[n % 2]
        folder.mkdir(exist_ok=True)
        image = noise(*rng.integers(20, 120, 2).tolist(), seed=n)
        mode = ("RGB", "L", "RGBA", "CMYK", "P", "I;16")[n % 7 % 6]
        if mode == "I;16":
            grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
            Image.fromarray(grey).save(folder / f"{n}.png")
        else:
            ending = "jpg" if mode in ("RGB", "CMYK") else "png"
            image.convert(mode).save(folder / f"{n}.{ending}")
    truncate(next(root.glob("*/14.*")))
    next(root.glob("*/21.*")).write_text("a text")
    (root / "cats" / "notes.txt").write_text("ignored")
    return root


def recipe_for(folder, **fields):
    return Recipe(data=f"folder:{folder}", **TINY | fields)


def warns_of_unreadable_files():
    return pytest.warns(UserWarning, match="cannot be read")


def without_seconds(row):
    return {name: value for name, value in row.items() if name != "seconds"}


def test_a_sweep_reads_a_folder_once(mixed, monkeypatch):
    digested = []
    monkeypatch.setattr(recipes, "data_digest", lambda name: digested.append(name) or "0" * 64)
    sweep = [recipe_for(mixed, seed=seed) for seed in range(3)]
    keys = recipes.recipe_keys(sweep)
    assert digested == [f"folder:{mixed}"]
    digests = recipes.FileDigests("0" * 64, ())
    assert keys == [recipes.recipe_key(recipe, digests) for recipe in sweep]
    assert len(set(keys)) == 3


def test_a_recipe_notices_files_that_change(mixed, tmp_path):
    shutil.copytree(mixed, tmp_path / "own")
    recipe = recipe_for(tmp_path / "own")
    before = recipe.key
    assert recipe.key == before
    next(tmp_path.glob("own/*/3.*")).unlink()
    after = recipe.key
    assert after != before
    with warns_of_unreadable_files():
        row = run(recipe)
    assert row["files"] == data_digest(recipe.data)[:12] and row["key"] == after


def test_a_folder_trains_and_is_probed(mixed):
    recipe = recipe_for(mixed)
    with warns_of_unreadable_files():
        row = run(recipe)
    assert row["files"] == data_digest(f"folder:{mixed}")[:12]
    assert row["status"] == "done" and row["data"] == f"folder:{mixed}"
    assert 0 <= row["acc_class"] <= 1 and np.isfinite(row["i_nce"])
    assert 0 < row["entropy_class"] <= np.log(2) + 1e-6
    again = run(recipe)  # without a warning this time
    assert without_seconds(row) == without_seconds(again)


def test_the_probe_reads_other_files_for_those_it_cannot(tmp_path, monkeypatch):
    """Otherwise a replaced image would be there twice; the row counts what was passed over."""
    for n in range(150):
        path = tmp_path / "ab"[n % 2] / f"{n:03d}.png"
        path.parent.mkdir(exist_ok=True)
        numbered(n % 64).save(path)
    files = [split.images for split in data.load(f"folder:{tmp_path}", 32)]
    bad = {"train": [0, 3, 4, 11, 100], "test": [9, 13, 29]}
    for part, rows in zip(files, bad.values(), strict=True):
        for row in rows:
            truncate(Path(part.paths[row]))
    probed, evaluate = [], single.evaluate

    def recording(method, view, *parts, **options):
        probed.extend(parts)
        return evaluate(method, view, *parts, **options)

    monkeypatch.setattr(single, "evaluate", recording)
    with warns_of_unreadable_files():
        row = run(recipe_for(tmp_path))
    assert (row["unreadable_train"], row["unreadable_test"]) == (4, 1)  # before the tenth other
    for (images, labels), part, rows in zip(probed, files, bad.values(), strict=True):
        expected = [n for n in range(len(part)) if n not in rows][:10]
        numbers = [int(Path(part.paths[n]).stem) for n in expected]
        assert [number_of(image) for image in images] == [n % 64 for n in numbers]
        assert labels["class"].tolist() == [n % 2 for n in numbers]


def test_a_run_whose_files_change_meanwhile_has_no_row(tmp_path, tmp_path_factory, monkeypatch):
    for n in range(60):
        numbered(n).save(tmp_path / f"{n:02d}.png")
    evaluate = single.evaluate

    def changing(*parts, **options):
        numbered(63).save(tmp_path / "00.png")
        return evaluate(*parts, **options)

    monkeypatch.setattr(single, "evaluate", changing)
    recipe = recipe_for(tmp_path)
    out = tmp_path_factory.mktemp("out")
    with pytest.raises(ValueError, match="changed during the run, so it has no row"):
        run(recipe, out)
    monkeypatch.setattr(single, "evaluate", evaluate)
    assert not list(out.glob("*/row.json")) and run(recipe, out)["status"] == "done"


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("calls", [1, 3])
def test_an_interrupted_run_on_a_folder_resumes_and_ends_bit_equal(
    mixed, tmp_path, monkeypatch, calls
):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    recipe = recipe_for(mixed, steps=7)
    with warns_of_unreadable_files():
        whole = run(recipe, tmp_path / "whole")
    batches_by_step, calls_left = single.batches_by_step, [calls]

    def interrupting(*args, **options):
        batch_at = batches_by_step(*args, **options)

        def until_interrupted(step):
            calls_left[0] -= 1
            if calls_left[0] < 0:
                raise Interrupted
            return batch_at(step)

        return until_interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(single, "batches_by_step", interrupting)
        run(recipe, tmp_path / "cut")
    assert without_seconds(whole) == without_seconds(run(recipe, tmp_path / "cut"))
    logs = [read_log(tmp_path / name / recipe.key / "log.jsonl") for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_impossible_recipes_are_errors_before_anything_is_read(mixed, monkeypatch):
    monkeypatch.setattr(image_files, "read_square", None)
    message = r"view 'shared:digit': .*got data 'folder:.*, whose images have no known factors"
    with pytest.raises(ValueError, match=message):
        run(recipe_for(mixed, view="shared:digit"))
    message = r"probe_images: got 13, wanted at most the 12 .*of 'folder:"
    with pytest.raises(ValueError, match=message):
        run(recipe_for(mixed, probe_images=13))


def test_a_single_class_has_no_entropy_and_no_accuracy(tmp_path):
    for n in range(60):
        numbered(n).save(tmp_path / f"{n}.png")
    row = run(recipe_for(tmp_path))
    assert row["status"] == "done" and row["entropy_class"] == 0
    assert not {"acc_class", "knn_class"} & set(row)


def test_the_command_line_takes_a_folder(mixed, tmp_path):
    words = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "infomin", "run", "--data", f"folder:{mixed}", *words]
    root = os.path.dirname(os.path.dirname(infomin.__file__))
    done = subprocess.run(
        [*command, "--out", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "UserWarning: " in line]
    warned = [line.split("UserWarning: ")[1] for line in lines]
    assert warned and len(warned) == len(set(warned))
    assert '"acc_class"' in done.stdout


@pytest.mark.parametrize("name", ["folder", "folder:", "folders:x", "Folder:x"])
def test_a_recipe_needs_a_path_after_folder(name):
    message = f"recipe: data: got '{name}', wanted one of digits, photos, .*, folder:PATH$"
    with pytest.raises(ValueError, match=message):
        Recipe(data=name)
