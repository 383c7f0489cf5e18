"""What a sweep notices: before it starts workers, and when files change under it."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sweeps import TINY, go

import infomin
from infomin.common import files
from infomin.runs import sweeps
from infomin.views import PixelFlow


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The word of a folder of 100 little images in two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(100):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    return f"folder:{folder}"


def small(**fields):
    """A recipe whose numbers of probed images and candidates are left out."""
    left_out = {name: getattr(infomin.Recipe, name) for name in ("probe_images", "candidates")}
    return replace(TINY, **{"view": "crop:0.5"} | left_out | fields)


def test_a_small_folder_is_probed_with_what_there_is(tmp_path, one_core, pictures):
    labelled = min(split.labelled for split in infomin.data.load(pictures, 24))
    (row,) = go([small(data=pictures)], tmp_path)
    assert row["status"] == "done" and 10 <= labelled < 100
    assert row["probe_images"] == row["candidates"] == labelled
    assert (
        row["ceiling"] == pytest.approx(np.log(labelled)) and row["key"] == small(data=pictures).key
    )
    assert go([small(data=pictures)], tmp_path) == [row]
    assert small().probe_sizes(50) == {"probe_images": 50, "candidates": 50}
    infomin.trained(tmp_path / row["key"])  # row and recipe differ in these two


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"probe_images": 2000, "candidates": 16}, "probe_images: got 2000, wanted at most the"),
        ({"candidates": 512}, "candidates: got 512, wanted at most the"),
        ({"batch": 500}, "batch: got 500, wanted 2 to"),
        ({"view": "shared:digit"}, "takes scenes, got data"),
        ({"view": "patch:8/32"}, "40 px or more"),
    ],
    ids=str,
)
def test_what_does_not_fit_the_data_is_told_before_any_run(
    tmp_path, monkeypatch, pictures, jobs, wrong, message
):
    if jobs == 2 and "batch" not in wrong:
        pytest.skip("one case shows that workers tell it, too")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(jobs)), raising=False)
    recipes = [small(data=pictures), *infomin.grid(small(data=pictures, **wrong), seed=[0, 1])]
    with pytest.raises(ValueError, match=rf"^sweep: no run was started; .*{message}"):
        go(recipes, tmp_path, jobs=jobs)
    assert os.listdir(tmp_path) == [".lock"]
    with pytest.raises(ValueError, match=rf"^(?!sweep).*{message}"):
        infomin.run(recipes[1], tmp_path)
    assert os.listdir(tmp_path) == [".lock"]


def test_a_file_that_is_replaced_during_a_sweep_is_told(tmp_path, one_core, monkeypatch):
    file, real = tmp_path / "learned.safetensors", sweeps.run
    PixelFlow(hidden=2).save(file)
    recipes = infomin.grid(
        replace(TINY, steps=0, view=f"flow:{file}", share_encoder=False), seed=[0, 1]
    )

    def run(recipe, out):
        if recipe.seed == 1:
            PixelFlow(hidden=3).save(file)
        return real(recipe, out)

    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "run", run)
        with pytest.raises(ValueError) as error:
            go(recipes, tmp_path / "runs")
    assert "1 of 2 runs failed, the others are done; first, flow:" in str(error.value)
    assert f"have changed since the sweep began, so its row is {recipes[1].key}" in str(error.value)
    rows = go(recipes, tmp_path / "runs")
    assert [row["key"] for row in rows] == [recipe.key for recipe in recipes]
    assert rows[0]["learned"] == rows[1]["learned"]


def test_a_file_that_is_deleted_during_a_sweep_is_told(tmp_path, one_core, monkeypatch):
    file, real = tmp_path / "learned.safetensors", sweeps.run
    PixelFlow(hidden=2).save(file)

    def run(recipe, out):
        file.unlink(missing_ok=True)
        return real(recipe, out)

    monkeypatch.setattr(sweeps, "run", run)
    with pytest.raises(ValueError, match=r"1 of 1 runs failed.*learned\.safetensors: got no file"):
        go([replace(TINY, steps=0, view=f"flow:{file}", share_encoder=False)], tmp_path / "runs")


def test_a_finished_sweep_writes_nothing(tmp_path, one_core, monkeypatch):
    recipe = replace(TINY, steps=0)
    rows = go([recipe], tmp_path)

    def read_only(*_):
        raise OSError(30, "Read-only file system")

    for name in ("lock", "atomic_write"):
        monkeypatch.setattr(files, name, read_only)
    assert go([recipe], tmp_path) == rows == [infomin.run(recipe, tmp_path)]


@pytest.mark.parametrize(("given", "threads"), [(None, 2), ("1", 1)])
def test_a_sweep_has_the_threads_of_omp_num_threads(tmp_path, monkeypatch, given, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)  # torch has one thread in tests
    before = torch.get_num_threads()
    try:
        (row,) = go([replace(TINY, steps=0)], tmp_path)
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)
    assert row["threads"] == threads


def test_a_tilde_is_the_home_directory_for_all_doors(tmp_path, one_core, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    recipe = replace(TINY, steps=0)
    row = infomin.run(recipe, "~/runs")
    assert go([recipe], "~/runs") == [row] == infomin.read_rows("~/runs").to_dict("records")
    infomin.trained(f"~/runs/{recipe.key}")
    assert go([replace(recipe, seed=1)], "~/more")
    assert sorted(os.listdir(tmp_path)) == ["more", "runs"]


@pytest.mark.parametrize("out", [None, 3])
@pytest.mark.parametrize(
    ("door", "recipe"), [(infomin.learn, infomin.Learning()), (sweeps.sweep, [TINY])]
)
def test_a_folder_that_is_no_path_is_told(door, recipe, out):
    with pytest.raises(TypeError, match=rf"(learn|sweep): out: got {out}, wanted a path"):
        door(recipe, out)
