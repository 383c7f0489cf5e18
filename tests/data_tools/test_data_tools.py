"""The command-line tools for data: fetching asks for nothing that is there, patches are cut the same way however often."""

import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import urllib.error
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import utils

import infomin
from infomin import data
from infomin.common import files
from infomin.data import datasets, stl10_cifar10
from infomin.data.image_folder import find_images
from infomin.data.image_io import read_upright

torch.set_num_threads(1)
TOOLS = Path(__file__).parents[2] / "data_tools"


def tool(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fetch, patches = tool("fetch"), tool("patches")


def call(name, *words):
    """Run a tool as its user would: exit status, and what it said on both ways."""
    root = os.path.dirname(os.path.dirname(infomin.__file__))
    done = subprocess.run(
        [sys.executable, TOOLS / f"{name}.py", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": "error"},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", ["fetch", "patches"])
def test_a_tool_names_its_command_and_has_help(name):
    assert f"python data_tools/{name}.py" in (TOOLS / f"{name}.py").read_text()
    status, said, _ = call(name, "--help")
    assert status == 0 and "usage:" in said


@pytest.mark.parametrize("module", [stl10_cifar10, datasets])
def test_the_package_imports_no_tool(module):
    assert "data_tools." not in Path(module.__file__).read_text()


# Fetching


@pytest.fixture
def no_network(monkeypatch):
    """Everything that asks for a network is told that there is none; returns what was asked for."""
    asked = []

    def refuse(request, *_, **__):
        asked.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(utils.urllib.request, "urlopen", refuse)
    return asked


@pytest.mark.parametrize("name", fetch.SETS)
def test_without_a_network_the_reason_and_what_to_do_are_said(name, tmp_path, no_network, capsys):
    assert fetch.main([name, "--root", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("Downloading")
        or f"{name}: could not be fetched into {tmp_path / 'new'} (" in said
    )
    assert (
        "no network" in said
        and "; check the network and the disk, then run this again" in said
        and no_network
    )


def test_a_set_that_is_whole_is_left_alone_and_a_damaged_one_is_not(
    tmp_path, no_network, monkeypatch, capsys
):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size = 3073
        tar.addfile(member, io.BytesIO(bytes(3073)))
    whole = archive.read_bytes()
    monkeypatch.setattr(
        fetch, "CIFAR10", (stl10_cifar10.CIFAR10[0], hashlib.md5(whole).hexdigest())
    )
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path))
    for _ in range(2):
        assert fetch.main(["cifar10"]) == 0 and no_network == []
    assert f"cifar10: is in {tmp_path}, whole" in capsys.readouterr().out
    archive.write_bytes(whole[:-1])
    assert fetch.main(["cifar10"]) == 2 and no_network[0] == stl10_cifar10.CIFAR10[0]


@pytest.mark.parametrize("again", ["whole", "cut"])
def test_digits_that_were_unpacked_by_halves_are_unpacked_anew(
    again, tmp_path, monkeypatch, capsys
):
    raw, asked = tmp_path / "MNIST" / "raw", []
    file = raw / "t10k-images-idx3-ubyte"
    whole = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 8])

    def mnist(where, download):
        asked.append((where, download, file.exists()))
        raw.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_bytes(whole if again == "whole" else whole[:-1])

    mnist.__name__ = "MNIST"
    monkeypatch.setitem(fetch.SETS, "mnist", partial(fetch._idx, mnist))
    raw.mkdir(parents=True)
    file.write_bytes(whole[:-1])
    assert fetch.main(["mnist", "--root", str(tmp_path)]) == (0 if again == "whole" else 2)
    assert asked == [(tmp_path, True, False)]
    said = capsys.readouterr()
    assert "whole" in said.out if again == "whole" else f"({file} is damaged); check" in said.err


def test_what_can_be_fetched_is_fetched_though_another_cannot(tmp_path, monkeypatch, capsys):
    done = []

    def fail(where):
        raise RuntimeError("File not found\nor corrupted.")

    monkeypatch.setattr(fetch, "SETS", {"mnist": fail, "stl10": done.append})
    assert fetch.main(["mnist", "stl10", "stl10", "--root", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert (
        done == [tmp_path]
        and "mnist: could not be fetched" in said.err
        and "(File not found or corrupted.)" in said.err
    )
    assert said.out == f"stl10: is in {tmp_path}, whole\n"


def test_an_unknown_set_is_a_mistake_that_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit) as left:
        fetch.main(["imagenet"])
    said = capsys.readouterr().err
    assert left.value.code == 2 and all(
        name in said for name in ("stl10", "cifar10", "mnist", "fashion_mnist", "emnist")
    )


# Patches


@pytest.fixture
def photographs(tmp_path):
    """Pictures whose colours say where a pixel lies; one too small, one turned, one truncated."""
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
    bad = root / "cat" / "bad.png"
    bad.write_bytes((bits := (root / "cat" / "a.png").read_bytes())[: len(bits) // 2])
    (root / "notes.txt").write_text("not an image")
    return root


def state(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_patches_are_the_boxes_of_the_manifest(photographs, tmp_path, capsys):
    out = tmp_path / "out"
    patches.main(str(photographs), str(out), side=48, per_image=3, seed=1)
    said = capsys.readouterr()
    rows = [json.loads(line) for line in (out / "patches.jsonl").read_text().splitlines()]
    sources = {row["source"] for row in rows}
    assert (
        sources == {"cat/a.png", "cat/turned.png", "dog/b.png", "dog/s/c.png"} and len(rows) == 12
    )
    for row in rows:
        patch, (left, top, right, bottom) = read_upright(out / row["file"]), row["box"]
        assert patch.size == (48, 48) == (right - left, bottom - top) and row["file"].split("/", 1)[
            1
        ].startswith(f"{row['source']}-")
        assert np.array_equal(
            np.asarray(patch),
            np.asarray(read_upright(photographs / row["source"]).crop(row["box"])),
        )
    assert (
        "4 cut, 1 too small, 1 unreadable" in said.out
        and f"{photographs}/cat/bad.png: cannot be read" in said.err
    )
    assert len({tuple(row["box"]) for row in rows if row["source"] == "cat/a.png"}) == 3
    assert sorted(os.path.relpath(path, out) for path in find_images(out)) == sorted(
        row["file"] for row in rows
    )


def test_patches_are_a_set_to_train_on(photographs, tmp_path):
    patches.main(str(photographs), str(tmp_path / "out"), side=32, per_image=10)
    train, test = data.load(f"folder:{tmp_path / 'out'}", 32)
    assert len(train) + len(test) == 50 and set(train.labels["class"].tolist()) == {0, 1}
    rows = [
        json.loads(line) for line in (tmp_path / "out" / "patches.jsonl").read_text().splitlines()
    ]
    seen, unseen = (
        {row["source"] for row in rows if row["file"].startswith(part)}
        for part in ("train/", "test/")
    )
    assert seen and unseen and not seen & unseen  # the patches of a photograph overlap


def test_parts_that_the_source_has_stay_what_they_are(photographs, tmp_path):
    (
        (photographs / "cat").rename(photographs / "train"),
        (photographs / "dog").rename(photographs / "test"),
    )
    patches.main(str(photographs), str(tmp_path / "out"), side=32, per_image=1)
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} <= {
        "train",
        "test",
    }
    assert (tmp_path / "out" / "train" / "a.png-00.png").exists()


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6, 23])
def test_every_fifth_photograph_is_for_the_test(n):
    found = list(
        patches.parts(
            [f"cat/{i:02d}.jpg" for i in range(n)] + [f"dog/{i}.jpg" for i in range(5)]
        ).values()
    )
    assert found[n:] == 4 * ["train/"] + ["test/"]
    want = {1: [], 2: [1], 4: [3], 5: [4], 6: [4], 23: [4, 9, 14, 19]}[n]
    assert [i for i, part in enumerate(found[:n]) if part == "test/"] == want


def test_places_depend_on_the_seed_and_the_name_alone(photographs, tmp_path):
    boxes = patches.boxes(90, 70, 48, 200, "a")
    assert boxes == patches.boxes(90, 70, 48, 200, "a") and boxes != patches.boxes(
        90, 70, 48, 200, "b"
    )
    assert boxes != patches.boxes(90, 70, 48, 200, "a", seed=1)
    lefts, tops = ({box[i] for box in boxes} for i in (0, 1))
    assert (
        lefts <= set(range(43))
        and tops <= set(range(23))
        and {min(lefts), max(lefts), min(tops), max(tops)} == {0, 42, 22}
    )
    assert (
        patches.boxes(48, 48, 48, 2, "a") == [[0, 0, 48, 48]] * 2
        and patches.boxes(47, 99, 48, 2, "a") == []
    )
    (photographs / "dog" / "another.png").write_bytes((photographs / "cat" / "a.png").read_bytes())
    patches.main(str(photographs), str(tmp_path / "more"), side=48, per_image=2)
    (photographs / "dog" / "another.png").unlink()
    patches.main(str(photographs), str(tmp_path / "less"), side=48, per_image=2)
    more, less = (
        {name.split("/", 1)[1]: bits for name, bits in state(tmp_path / out).items() if "/" in name}
        for out in ("more", "less")
    )
    assert all(more[name] == bits for name, bits in less.items()) and len(more) == len(less) + 2


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_run_that_was_cut_goes_on_and_ends_the_same(photographs, tmp_path, monkeypatch, kind):
    def go(out):
        patches.main(str(photographs), str(out), side=40, per_image=4, kind=kind)

    go(tmp_path / "whole")
    whole, left, act = state(tmp_path / "whole"), [7], files.atomic_write

    def cutting(path):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return act(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(patches.files, "atomic_write", cutting)
        go(tmp_path / "cut")
    begun = state(tmp_path / "cut")
    assert 0 < len(begun) < len(whole) and begun.items() <= whole.items()
    go(tmp_path / "cut")
    assert state(tmp_path / "cut") == whole
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob(f"*.{kind}")}
    go(tmp_path / "cut")
    assert times == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob(f"*.{kind}")
    }


def test_patches_of_other_photographs_are_not_mixed(photographs, tmp_path):
    patches.main(str(photographs), str(tmp_path / "out"), side=40, per_image=1)
    (photographs / "cat" / "a.png").write_bytes((photographs / "dog" / "b.png").read_bytes())
    status, _, said = call("patches", photographs, tmp_path / "out", "--side", 40, "--per_image", 1)
    assert (
        status == 2
        and "holds patches of" in said
        and "choose another folder or delete that one" in said
    )


def test_patches_of_other_settings_are_not_mixed(photographs, tmp_path):
    patches.main(str(photographs), str(tmp_path / "out"), side=40, per_image=1)
    status, _, said = call("patches", photographs, tmp_path / "out", "--side", 48, "--per_image", 1)
    assert (
        status == 2
        and "holds patches of" in said
        and "choose another folder or delete that one" in said
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "out"], "source: got no folder nowhere, wanted one with photographs"),
        (["empty", "out"], "source: got no image files in empty"),
        (["photographs", "out", "--side", "0"], "side: got 0, wanted a finite number above 0"),
        (["photographs", "out", "--kind", "gif"], "kind"),
    ],
)
def test_mistakes_are_said(photographs, tmp_path, monkeypatch, words, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    status, _, said = call("patches", *words)
    assert status == 2 and message in said and "Traceback" not in said


def test_a_folder_inside_the_source_is_not_cut_again(photographs):
    for _ in range(2):
        patches.main(str(photographs), str(photographs / "patches"), side=40, per_image=1)
    assert not (photographs / "patches" / "patches").exists()


def test_a_class_is_the_first_folder_however_deep_its_photographs_lie():
    names = [f"cat/{'s/' * i}{i}.jpg" for i in range(5)]
    assert list(patches.parts(names).values()) == ["train/"] * 4 + ["test/"]


def test_the_boxes_of_a_set_are_those_of_its_seed(tmp_path):
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (90, 70)).save(tmp_path / "photographs" / "a.png")
    for seed in (0, 3):
        patches.main(
            str(tmp_path / "photographs"),
            str(tmp_path / f"out{seed}"),
            side=32,
            per_image=4,
            seed=seed,
        )
        rows = [
            json.loads(line)
            for line in (tmp_path / f"out{seed}" / "patches.jsonl").read_text().splitlines()
        ]
        own = [row["box"] for row in rows if row["source"] == "a.png"]
        assert own == patches.boxes(90, 70, 32, 4, "a.png", seed=seed)
