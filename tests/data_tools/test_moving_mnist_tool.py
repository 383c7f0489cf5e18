"""The command that writes clips: killed and started again it ends the same, and what it says and exits with is what happened."""

import importlib.util
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import infomin
from infomin.common import files
from infomin.data import shards

torch.set_num_threads(1)
TOOL = Path(__file__).parents[2] / "data_tools" / "moving_mnist.py"
SMALL = {"clips": 24, "shard": 5, "frames": 4, "size": 16, "digit": 8}
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(infomin.__file__).parents[1]),
    "PYTHONWARNINGS": "error",
}


def words(**settings):
    return [str(word) for name, value in settings.items() for word in (f"--{name}", value)]


@pytest.fixture
def call(monkeypatch, capfd):
    """Run the tool with words as its user would, but in this process: exit status, and what it said on both ways."""

    def carry_out(*given):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, given)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(TOOL), run_name="__main__")
        return left.value.code or 0, *capfd.readouterr()

    return carry_out


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("moving_mnist_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def state(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_a_run_that_is_killed_goes_on_and_ends_the_same(tmp_path):
    many, cut, whole = SMALL | {"clips": 400, "shard": 10}, tmp_path / "cut", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, TOOL, cut, *words(**many)], stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    while process.poll() is None and not (cut / "00003.safetensors").exists():
        time.sleep(0.001)
    process.kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL and b"Traceback" not in err
    begun = shards.verify(cut)
    assert 0 < len(begun) <= 37 and all("is not written yet" in line for line in begun)
    times = {path: path.stat().st_mtime_ns for path in cut.glob("*.safetensors")}
    made = shards.write(cut, **many)
    assert len(made) == len(begun) and shards.verify(cut) == []
    assert all(
        path.stat().st_mtime_ns == then for path, then in times.items() if path.name not in made
    )
    shards.write(whole, **many)
    assert state(cut) == state(whole)


def test_writing_verifying_and_mending(tool, tmp_path, capfd, monkeypatch):
    out = tmp_path / "clips"
    assert tool.main(str(out), **SMALL) == 0
    said = capfd.readouterr()
    assert (
        said.out == f"5 shards made, 0 there; {out}\n"
        and "24/24" in said.err
        and "clip/s" in said.err
    )
    assert tool.main(str(out), verify=True) == 0 and capfd.readouterr().out == f"{out}: whole\n"
    whole = state(out)
    (
        (out / "00001.safetensors").write_bytes(whole["00001.safetensors"][:-1] + b"?"),
        (out / "00004.safetensors").unlink(),
    )
    assert tool.main(str(out), verify=True) == 1
    one, two = capfd.readouterr().out.splitlines()
    assert one.startswith(f"{out / '00001.safetensors'} has another checksum") and one.endswith(
        "is missing or damaged"
    )
    assert two.startswith(
        f"{out / '00004.safetensors'} is missing; run the command that wrote it again"
    )
    assert tool.main(str(out), **SMALL) == 0
    said = capfd.readouterr()
    assert (
        said.out == f"2 shards made, 3 there; {out}\n"
        and "15/24" in said.err
        and "24/24" in said.err
    )
    assert state(out) == whole and tool.main(str(out), verify=True) == 0


def test_exit_statuses(tmp_path, call, monkeypatch):
    status, out, _ = call(tmp_path, *words(**SMALL))
    assert (status, out) == (0, f"5 shards made, 0 there; {tmp_path}\n")
    assert call(tmp_path, "--verify", "true")[:2] == (0, f"{tmp_path}: whole\n")
    (tmp_path / "00002.safetensors").unlink()
    status, out, err = call(tmp_path, "--verify", "true")
    assert (
        (status, len(out.splitlines())) == (1, 1)
        and "00002.safetensors is missing" in out
        and "Traceback" not in err
    )
    status, out, err = call(tmp_path, *words(**SMALL), "--seed", 1)
    assert (status, out) == (2, "") and re.fullmatch(
        r"moving_mnist.py: write\(.*\): .* got seed 1 for 0; choose .*\n", err
    )
    with files.lock(tmp_path):
        status, out, err = call(tmp_path, *words(**SMALL))
    assert (status, out) == (2, "") and re.fullmatch(
        r"moving_mnist.py: .* is in use by process .*\n", err
    )

    def interrupted(
        *_: object, **__: object
    ) -> None:  # raised here: a shell may have had SIGINT ignored
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "render_clips", interrupted)
    status, out, err = call(tmp_path, *words(**SMALL))
    assert (status, out) == (130, "") and err.endswith(
        "stopped; run the same command again to go on where it was cut\n"
    )
    monkeypatch.undo()
    assert "00002" in shards.verify(tmp_path)[0] and not list(tmp_path.glob(".*.tmp"))


def test_what_the_command_line_says_reaches_the_data_set(tool, tmp_path):
    other = {"speed": 0.2, "digits_per_clip": 2, "dim": 0.25, "seed": 4, "part": "test"}
    tool.main(str(tmp_path / "one"), **SMALL, **other)
    shards.write(tmp_path / "other", **SMALL, **other)
    assert state(tmp_path / "one") == state(tmp_path / "other")
    assert shards.ClipShards(tmp_path / "one").config == {
        **SMALL,
        **other,
        "digits": "digits",
        "backgrounds": "photos",
    }


@pytest.mark.parametrize("name", ["clips.gif", "sheet.png"])
def test_a_preview_is_the_same_before_and_after_writing(tool, tmp_path, name, capsys):
    tool.main(str(tmp_path / "out"), **SMALL, preview=str(tmp_path / "before" / name))
    assert (
        not (tmp_path / "out").exists()
        and capsys.readouterr().out == f"{tmp_path / 'before' / name}\n"
    )
    shards.write(tmp_path / "out", **SMALL)
    whole = state(tmp_path / "out")
    tool.main(
        str(tmp_path / "out"), preview=str(tmp_path / "after" / name)
    )  # what is there, whatever else is said
    assert (tmp_path / "before" / name).read_bytes() == (
        tmp_path / "after" / name
    ).read_bytes() and state(tmp_path / "out") == whole
    with Image.open(tmp_path / "after" / name) as picture:
        assert (
            picture.size == ((74, 38) if name == "clips.gif" else (74, 146))
            and np.array(picture).std() > 0
        )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"clips": 0}, r"write\(clips\): got 0, wanted a finite number above 0; change it"),
        ({"part": "valid"}, r"write\(part\): got 'valid', wanted one of train, test"),
        ({"digits": "idx:nowhere"}, "digits 'idx:nowhere': got no such file in nowhere"),
        ({"backgrounds": "folder:nowhere"}, "nowhere"),
        ({"preview": "clips.mp4"}, r"preview\(path\): got '.mp4', wanted one of .gif, .png"),
        (
            {"verify": True},
            "got no manifest.json, wanted a data set of clips; correct the path, or write one there",
        ),
    ],
    ids=str,
)
def test_mistakes_are_of_the_kinds_that_are_told_in_a_line(
    tool, tmp_path, monkeypatch, wrong, told
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=told) as raised:
        tool.main("out", **SMALL | wrong)
    assert "\n" not in str(raised.value) and list(tmp_path.iterdir()) == []


def test_the_package_imports_no_tool():
    assert "data_tools" not in Path(shards.__file__).read_text()
