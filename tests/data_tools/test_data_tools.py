"""The tools for data: downloads leave complete sets alone, and patches are reproducible."""

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
    """Run a tool's command line; returns exit status, output and errors."""
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
    status, out, _ = call(name, "--help")
    assert status == 0 and "usage:" in out


@pytest.mark.parametrize("module", [stl10_cifar10, datasets])
def test_the_package_imports_no_tool(module):
    assert "data_tools." not in Path(module.__file__).read_text()


# Downloads


@pytest.fixture
def no_network(monkeypatch):
    """Refuse every request; returns the list of them."""
    requests = []

    def refuse(request, *_, **__):
        requests.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(utils.urllib.request, "urlopen", refuse)
    return requests


@pytest.mark.parametrize("name", fetch.SETS)
def test_without_a_network_it_says_why_and_what_to_do(name, tmp_path, no_network, capsys):
    assert fetch.main([name, "--root", str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert f"{name}: cannot be downloaded to {tmp_path / 'new'} (" in err or err.startswith(
        "Downlo"
    )
    assert "no network" in err and "; check the network and the disk, then run this again" in err
    assert no_network


def test_a_complete_set_is_left_alone_and_a_damaged_one_is_not(
    tmp_path, no_network, monkeypatch, capsys
):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size = 3073
        tar.addfile(member, io.BytesIO(bytes(3073)))
    whole, url = archive.read_bytes(), stl10_cifar10.CIFAR10[0]
    monkeypatch.setattr(fetch, "CIFAR10", (url, hashlib.md5(whole).hexdigest()))
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path))
    for _ in range(2):
        assert fetch.main(["cifar10"]) == 0 and no_network == []
    assert f"cifar10: complete in {tmp_path}" in capsys.readouterr().out
    archive.write_bytes(whole[:-1])
    assert fetch.main(["cifar10"]) == 2 and no_network[0] == url


@pytest.mark.parametrize("again", ["whole", "cut"])
def test_half_unpacked_digits_are_unpacked_again(again, tmp_path, monkeypatch, capsys):
    raw, calls = tmp_path / "MNIST" / "raw", []
    file = raw / "t10k-images-idx3-ubyte"
    whole = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 8])

    def mnist(root, download):
        calls.append((root, download, file.exists()))
        raw.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_bytes(whole if again == "whole" else whole[:-1])

    mnist.__name__ = "MNIST"
    monkeypatch.setitem(fetch.SETS, "mnist", partial(fetch._idx, mnist))
    raw.mkdir(parents=True)
    file.write_bytes(whole[:-1])
    status = fetch.main(["mnist", "--root", str(tmp_path)])
    assert calls == [(tmp_path, True, False)]
    out, err = capsys.readouterr()
    if again == "whole":
        assert status == 0 and "complete" in out
    else:
        assert status == 2 and f"({file} is damaged); check" in err


def test_one_failed_download_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    roots = []

    def fail(root):
        raise RuntimeError("File not found\nor corrupted.")

    monkeypatch.setattr(fetch, "SETS", {"mnist": fail, "stl10": roots.append})
    assert fetch.main(["mnist", "stl10", "stl10", "--root", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert roots == [tmp_path]
    assert "mnist: cannot be downloaded" in err and "(File not found or corrupted.)" in err
    assert out == f"stl10: complete in {tmp_path}\n"


def test_an_unknown_set_is_a_mistake_that_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit) as exited:
        fetch.main(["imagenet"])
    err = capsys.readouterr().err
    assert exited.value.code == 2
    assert all(name in err for name in ("stl10", "cifar10", "mnist", "fashion_mnist", "emnist"))


# Patches


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
    patches.main(str(source), str(out), **settings)


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
    parts = list(patches.parts(names).values())
    assert parts[n:] == 4 * ["train/"] + ["test/"]
    assert [i for i, part in enumerate(parts[:n]) if part == "test/"] == expected


def test_boxes_depend_only_on_the_seed_and_the_name(photographs, tmp_path):
    boxes = patches.boxes(90, 70, 48, 200, "a")
    assert boxes == patches.boxes(90, 70, 48, 200, "a")
    assert boxes != patches.boxes(90, 70, 48, 200, "b")
    assert boxes != patches.boxes(90, 70, 48, 200, "a", seed=1)
    lefts, tops = ({box[i] for box in boxes} for i in (0, 1))
    assert lefts <= set(range(43)) and {min(lefts), max(lefts)} == {0, 42}
    assert tops <= set(range(23)) and {min(tops), max(tops)} == {0, 22}
    assert patches.boxes(48, 48, 48, 2, "a") == [[0, 0, 48, 48]] * 2
    assert patches.boxes(47, 99, 48, 2, "a") == []
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
        patch.setattr(patches.files, "atomic_write", interrupting)
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
    status, _, err = call("patches", photographs, tmp_path / "out", "--side", 40, "--per_image", 1)
    assert status == 2 and "holds patches of" in err
    assert "choose another folder or delete that one" in err


def test_patches_of_other_settings_are_not_mixed(photographs, tmp_path):
    cut(photographs, tmp_path / "out", side=40, per_image=1)
    status, _, err = call("patches", photographs, tmp_path / "out", "--side", 48, "--per_image", 1)
    assert status == 2 and "holds patches of" in err
    assert "choose another folder or delete that one" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "out"], "source: got no folder nowhere, wanted one with photographs"),
        (["empty", "out"], "source: got no image files in empty"),
        (["photographs", "out", "--side", "0"], "side: got 0, wanted a finite number above 0"),
        (["photographs", "out", "--kind", "gif"], "kind"),
    ],
)
def test_mistakes_are_errors_of_one_line(photographs, tmp_path, monkeypatch, words, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    status, _, err = call("patches", *words)
    assert status == 2 and message in err and "Traceback" not in err


def test_a_folder_inside_the_source_is_not_cut_again(photographs):
    for _ in range(2):
        cut(photographs, photographs / "patches", side=40, per_image=1)
    assert not (photographs / "patches" / "patches").exists()


def test_a_class_is_the_first_folder_of_photographs_at_any_depth():
    names = [f"cat/{'s/' * i}{i}.jpg" for i in range(5)]
    assert list(patches.parts(names).values()) == ["train/"] * 4 + ["test/"]


def test_the_boxes_of_a_set_are_those_of_its_seed(tmp_path):
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (90, 70)).save(tmp_path / "photographs" / "a.png")
    for seed in (0, 3):
        out = tmp_path / f"out{seed}"
        cut(tmp_path / "photographs", out, side=32, per_image=4, seed=seed)
        boxes = [row["box"] for row in manifest(out) if row["source"] == "a.png"]
        assert boxes == patches.boxes(90, 70, 32, 4, "a.png", seed=seed)
