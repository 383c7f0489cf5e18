"""The command that writes clips: killed and started again it writes the same; exit statuses."""

import os
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
from infomin.data import shards
from infomin.data.commands import clips

torch.set_num_threads(1)
SMALL = {"clips": 24, "shard": 5, "frames": 4, "size": 16, "digit": 8}
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(infomin.__file__).parents[1]),
    "PYTHONWARNINGS": "error",
}


def state(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_a_killed_run_resumes_and_ends_the_same(tmp_path):
    larger, cut, whole = SMALL | {"clips": 400, "shard": 10}, tmp_path / "cut", tmp_path / "whole"
    program = f"from infomin.data.commands import clips; clips({str(cut)!r}, **{larger})"
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT)
    while process.poll() is None and not (cut / "00003.safetensors").exists():
        time.sleep(0.001)
    process.kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL and b"Traceback" not in err
    problems = shards.verify(cut)
    assert 0 < len(problems) <= 37 and all("is not written yet" in line for line in problems)
    times = {path: path.stat().st_mtime_ns for path in cut.glob("*.safetensors")}
    written = shards.write(cut, **larger)
    assert len(written) == len(problems) and shards.verify(cut) == []
    for path, modified in times.items():
        assert path.name in written or path.stat().st_mtime_ns == modified
    shards.write(whole, **larger)
    assert state(cut) == state(whole)


def test_writing_verifying_and_repairing(tmp_path, capfd):
    out = tmp_path / "clips"
    damaged, missing = out / "00001.safetensors", out / "00004.safetensors"
    assert clips(str(out), **SMALL) == 0
    printed, progress = capfd.readouterr()
    assert printed == f"5 shards written, 0 already there; {out}\n"
    assert "24/24" in progress and "clip/s" in progress
    assert clips(str(out), verify=True) == 0
    assert capfd.readouterr().out == f"{out}: complete\n"
    whole = state(out)
    damaged.write_bytes(whole[damaged.name][:-1] + b"?")
    missing.unlink()
    assert clips(str(out), verify=True) == 1
    first, second = capfd.readouterr().out.splitlines()
    assert first.startswith(f"{damaged} has another checksum")
    assert first.endswith("replaces missing and damaged shards")
    assert second.startswith(f"{missing} is missing; run the command that wrote it again")
    assert clips(str(out), **SMALL) == 0
    printed, progress = capfd.readouterr()
    assert printed == f"2 shards written, 3 already there; {out}\n"
    assert "15/24" in progress and "24/24" in progress
    assert state(out) == whole and clips(str(out), verify=True) == 0


def test_the_command_reaches_the_data_set(tmp_path):
    other = {"speed": 0.2, "digits_per_clip": 2, "dim": 0.25, "seed": 4, "part": "test"}
    clips(str(tmp_path / "one"), **SMALL, **other)
    shards.write(tmp_path / "other", **SMALL, **other)
    assert state(tmp_path / "one") == state(tmp_path / "other")
    sources = {"digits": "digits", "backgrounds": "photos"}
    assert shards.ClipShards(tmp_path / "one").config == {**SMALL, **other, **sources}


@pytest.mark.parametrize("name", ["clips.gif", "sheet.png"])
def test_a_preview_is_the_same_before_and_after_writing(tmp_path, name, capsys):
    out, before, after = tmp_path / "out", tmp_path / "before" / name, tmp_path / "after" / name
    clips(str(out), **SMALL, preview=str(before))
    assert not out.exists() and capsys.readouterr().out == f"{before}\n"
    shards.write(out, **SMALL)
    whole = state(out)
    clips(str(out), preview=str(after))  # of what is there, whatever the settings are
    assert before.read_bytes() == after.read_bytes() and state(out) == whole
    with Image.open(after) as picture:
        assert picture.size == ((74, 38) if name == "clips.gif" else (74, 146))
        assert np.array(picture).std() > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"clips": 0}, r"write\(clips\): got 0, wanted a finite number above 0$"),
        ({"part": "valid"}, r"write\(part\): got 'valid', wanted one of train, test"),
        ({"digits": "idx:nowhere"}, "digits 'idx:nowhere': got no train-images-.* in nowhere"),
        ({"backgrounds": "folder:nowhere"}, "nowhere"),
        ({"preview": "clips.mp4"}, r"preview\(path\): got '.mp4', wanted one of .gif, .png"),
        (
            {"verify": True},
            "got no manifest.json, wanted a data set of clips; correct the path, or write one",
        ),
    ],
    ids=str,
)
def test_mistakes_are_errors_of_one_line(tmp_path, monkeypatch, wrong, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=message) as raised:
        clips("out", **SMALL | wrong)
    assert "\n" not in str(raised.value) and list(tmp_path.iterdir()) == []
