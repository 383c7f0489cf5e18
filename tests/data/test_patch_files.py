"""Patches of photographs: reproducible, resumable, and separate for training and test."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from infomin import data
from infomin.common import files
from infomin.data import patch_files
from infomin.data.commands import patches
from infomin.data.image_folder import find_images
from infomin.data.image_io import read_upright

torch.set_num_threads(1)


@pytest.fixture
def photographs(tmp_path):
    """Pictures whose colours encode the pixel; one too small, one turned, one truncated."""
    root = tmp_path / "photographs"
    for name, (width, height) in {
        "cat/a.png": (90, 70),
        "dog/b.png": (60, 64),
        "dog/s/c.png": (48, 48),
        "dog/d.png": (200, 40),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[:height, :width]
        Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8)).save(root / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / "cat" / "a.png").save(root / "cat" / "turned.png", exif=exif)
    content = (root / "cat" / "a.png").read_bytes()
    (root / "cat" / "bad.png").write_bytes(content[: len(content) // 2])
    (root / "notes.txt").write_text("not an image")
    return root


def cut(source, out, **settings):
    assert patches(str(source), str(out), **settings) == 0


def manifest(out):
    return [json.loads(line) for line in (out / "patches.jsonl").read_text().splitlines()]


def state(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_patches_are_the_boxes_of_the_manifest(photographs, tmp_path, capsys):
    out = tmp_path / "out"
    cut(photographs, out, side=48, per_image=3, seed=1)
    printed, err = capsys.readouterr()
    rows = manifest(out)
    sources = {row["source"] for row in rows}
    assert sources == {"cat/a.png", "cat/turned.png", "dog/b.png", "dog/s/c.png"}
    assert len(rows) == 12
    for row in rows:
        left, top, right, bottom = row["box"]
        patch = read_upright(out / row["file"])
        assert patch.size == (48, 48) == (right - left, bottom - top)
        assert row["file"].split("/", 1)[1].startswith(f"{row['source']}-")
        expected = read_upright(photographs / row["source"]).crop(row["box"])
        assert np.array_equal(np.asarray(patch), np.asarray(expected))
    assert "4 cut, 1 too small, 1 unreadable" in printed
    assert f"{photographs}/cat/bad.png: cannot be read" in err
    assert len({tuple(row["box"]) for row in rows if row["source"] == "cat/a.png"}) == 3
    written = sorted(os.path.relpath(path, out) for path in find_images(out))
    assert written == sorted(row["file"] for row in rows)


def test_patches_are_a_data_set(photographs, tmp_path):
    out = tmp_path / "out"
    cut(photographs, out, side=32, per_image=10)
    train, test = data.load(f"folder:{out}", 32)
    assert len(train) + len(test) == 50 and set(train.labels["class"].tolist()) == {0, 1}
    sources = {"train": set(), "test": set()}
    for row in manifest(out):
        sources[row["file"].partition("/")[0]].add(row["source"])
    assert sources["train"] and sources["test"]
    assert not sources["train"] & sources["test"]  # the patches of a photograph overlap


def test_a_source_with_parts_keeps_them(photographs, tmp_path):
    (photographs / "cat").rename(photographs / "train")
    (photographs / "dog").rename(photographs / "test")
    out = tmp_path / "out"
    cut(photographs, out, side=32, per_image=1)
    assert {path.name for path in out.iterdir() if path.is_dir()} <= {"train", "test"}
    assert (out / "train" / "a.png-00.png").exists()


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, []), (2, [1]), (4, [3]), (5, [4]), (6, [4]), (23, [4, 9, 14, 19])],
)
def test_every_fifth_photograph_is_for_the_test(n, expected):
    names = [f"cat/{i:02d}.jpg" for i in range(n)] + [f"dog/{i}.jpg" for i in range(5)]
    parts = list(patch_files.parts(names).values())
    assert parts[n:] == 4 * ["train/"] + ["test/"]
    assert [i for i, part in enumerate(parts[:n]) if part == "test/"] == expected


def test_boxes_depend_only_on_the_seed_and_the_name(photographs, tmp_path):
    boxes = patch_files.boxes(90, 70, 48, 200, "a")
    assert boxes == patch_files.boxes(90, 70, 48, 200, "a")
    assert boxes != patch_files.boxes(90, 70, 48, 200, "b")
    assert boxes != patch_files.boxes(90, 70, 48, 200, "a", seed=1)
    lefts, tops = ({box[i] for box in boxes} for i in (0, 1))
    assert lefts <= set(range(43)) and {min(lefts), max(lefts)} == {0, 42}
    assert tops <= set(range(23)) and {min(tops), max(tops)} == {0, 22}
    assert patch_files.boxes(48, 48, 48, 2, "a") == [[0, 0, 48, 48]] * 2
    assert patch_files.boxes(47, 99, 48, 2, "a") == []
    another = photographs / "dog" / "another.png"
    another.write_bytes((photographs / "cat" / "a.png").read_bytes())
    cut(photographs, tmp_path / "more", side=48, per_image=2)
    another.unlink()
    cut(photographs, tmp_path / "less", side=48, per_image=2)
    more, less = (
        {name.split("/", 1)[1]: bits for name, bits in state(tmp_path / out).items() if "/" in name}
        for out in ("more", "less")
    )
    assert all(more[name] == bits for name, bits in less.items()) and len(more) == len(less) + 2


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_an_interrupted_run_resumes_and_ends_the_same(photographs, tmp_path, monkeypatch, kind):
    def go(name):
        cut(photographs, tmp_path / name, side=40, per_image=4, kind=kind)

    def modified():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob(f"*.{kind}")}

    go("whole")
    whole = state(tmp_path / "whole")
    writes_left, atomic_write = [7], files.atomic_write

    def interrupting(path):
        writes_left[0] -= 1
        if writes_left[0] < 0:
            raise KeyboardInterrupt
        return atomic_write(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(patch_files.files, "atomic_write", interrupting)
        go("cut")
    begun = state(tmp_path / "cut")
    assert 0 < len(begun) < len(whole) and begun.items() <= whole.items()
    go("cut")
    assert state(tmp_path / "cut") == whole
    times = modified()
    go("cut")
    assert times == modified()


def test_patches_of_other_photographs_are_not_mixed(photographs, tmp_path):
    cut(photographs, tmp_path / "out", side=40, per_image=1)
    (photographs / "cat" / "a.png").write_bytes((photographs / "dog" / "b.png").read_bytes())
    message = "holds patches of .*; choose another folder or delete that one"
    with pytest.raises(ValueError, match=message):
        cut(photographs, tmp_path / "out", side=40, per_image=1)


def test_patches_of_other_settings_are_not_mixed(photographs, tmp_path):
    cut(photographs, tmp_path / "out", side=40, per_image=1)
    message = "holds patches of .*; choose another folder or delete that one"
    with pytest.raises(ValueError, match=message):
        cut(photographs, tmp_path / "out", side=48, per_image=1)


@pytest.mark.parametrize(
    ("source", "side", "message"),
    [
        ("nowhere", 32, "source: got no folder nowhere, wanted one with photographs"),
        ("empty", 32, "source: got no image files in empty"),
        ("photographs", 0, "side: got 0, wanted a finite number above 0"),
    ],
)
def test_mistakes_are_errors_of_one_line(photographs, tmp_path, monkeypatch, source, side, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=message) as raised:
        patches(source, "out", side)
    assert "\n" not in str(raised.value)


def test_a_folder_inside_the_source_is_not_cut_again(photographs):
    for _ in range(2):
        cut(photographs, photographs / "patches", side=40, per_image=1)
    assert not (photographs / "patches" / "patches").exists()


def test_a_class_is_the_first_folder_of_photographs_at_any_depth():
    names = [f"cat/{'s/' * i}{i}.jpg" for i in range(5)]
    assert list(patch_files.parts(names).values()) == ["train/"] * 4 + ["test/"]


def test_the_boxes_of_a_set_are_those_of_its_seed(tmp_path):
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (90, 70)).save(tmp_path / "photographs" / "a.png")
    for seed in (0, 3):
        out = tmp_path / f"out{seed}"
        cut(tmp_path / "photographs", out, side=32, per_image=4, seed=seed)
        boxes = [row["box"] for row in manifest(out) if row["source"] == "a.png"]
        assert boxes == patch_files.boxes(90, 70, 32, 4, "a.png", seed=seed)
