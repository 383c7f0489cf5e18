"""Sweeps that are interrupted or killed lose nothing and change no bit."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import fields, replace

import pytest
from tiny_sweeps import TINY, go, log, numbers

import infomin
from infomin.__main__ import main
from infomin.common import files
from infomin.report.rows import read_rows
from infomin.training import loop

HOLDER = """
import sys
sys.path.append(sys.argv[2])
import files
from infomin.runs import sweeps
from infomin.runs import single as runs
with files.lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_another_process_sweeps_is_refused_and_nothing_is_lost(
    tmp_path, one_core, trained, capsys
):
    rows = go([TINY], tmp_path)
    words = [
        sys.executable,
        "-c",
        HOLDER,
        str(tmp_path),
        os.path.dirname(files.__file__),
    ]  # table alone starts in no time
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        said = (
            rf"{tmp_path} is in use by process {holder.pid} on .*; wait, or choose another folder"
        )
        with pytest.raises(files.Locked, match=said):
            go([TINY, replace(TINY, seed=1)], tmp_path)
        assert main(["sweep", "--out", str(tmp_path)]) == 2
        assert f"in use by process {holder.pid} on " in capsys.readouterr().err
        assert len(trained) == 1 and sorted(path.name for path in tmp_path.iterdir()) == sorted(
            [".lock", TINY.key]
        )
        assert len(read_rows(tmp_path)) == 1  # reading is free
        holder.kill()
    assert go([TINY], tmp_path) == rows and len(trained) == 1


AS_TINY = [
    f"--{field.name}={getattr(TINY, field.name)}" for field in fields(TINY)
]  # later words win


def test_an_interrupted_sweep_goes_on_from_its_checkpoint(
    tmp_path, one_core, alone, trained, monkeypatch, capsys
):
    append = files.append_jsonl

    def interrupted(path, row):
        append(path, row)
        if row["step"] == 60:
            raise KeyboardInterrupt

    recipes = [TINY, replace(TINY, steps=200), replace(TINY, seed=1)]
    words = ["sweep", *AS_TINY, "--steps", "20,200", "--out", str(tmp_path), "--jobs", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY", 0.0)
        patch.setattr(files, "append_jsonl", interrupted)
        assert main(words) == 130
    said, errors = capsys.readouterr()
    assert said == "" and errors.rstrip().endswith(
        "infomin sweep: interrupted; run the same command again to resume"
    )
    del trained[:]
    rows = go(recipes, tmp_path)
    assert trained == [[0, 141], [1, 20]]  # the last step was logged, and not yet saved
    assert [(numbers(row), log(tmp_path, r)) for row, r in zip(rows, recipes, strict=True)] == [
        alone(r) for r in recipes
    ]


KILLED = """
import os, sys
from infomin.training import loop
from infomin.__main__ import main
jobs = int(sys.argv[1])
os.sched_getaffinity = lambda _: set(range(jobs))  # one thread a job, however many cores there are
loop.SAVE_EVERY = 0.0  # of this process: with two jobs the runs are in others
main(["sweep", "--jobs", *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    ("jobs", "kill"), [(1, os.killpg), (2, os.kill)], ids=["everything", "the parent of two"]
)
def test_kill_9_of_a_sweep_changes_no_bit_of_what_comes_out(
    tmp_path, one_core, alone, trained, jobs, kill
):
    recipes = infomin.grid(TINY, steps=[20, 200])
    words = [
        sys.executable,
        "-c",
        KILLED,
        str(jobs),
        *AS_TINY,
        "--steps",
        "20,200",
        "--out",
        str(tmp_path),
    ]
    first, last = (tmp_path / recipe.key for recipe in recipes)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    sweep = subprocess.Popen(
        words, start_new_session=True, stderr=subprocess.DEVNULL, env=environment
    )
    try:
        wait_for(
            (last / "log.jsonl").exists
        )  # at once if there are two: workers outlive their parent by half a second
        if jobs == 1:
            wait_for((last / "checkpoint.pt").exists)
        kill(sweep.pid, signal.SIGKILL)
        killed = time.time()
        sweep.wait()
        wait_for(lambda: free(first) and free(last), seconds=20)
        row = last / "row.json"
        assert not row.exists() or (jobs == 2 and row.stat().st_mtime < killed + 1), (
            "it was not cut"
        )
    finally:
        with suppress(ProcessLookupError):
            os.killpg(sweep.pid, signal.SIGKILL)
        sweep.wait()
    rows = go(recipes, tmp_path)
    assert jobs == 2 or (
        len(trained) == 1 and trained[0][1] < 200
    )  # one row was there, the other run was behind a checkpoint
    assert [(numbers(row), log(tmp_path, r)) for row, r in zip(rows, recipes, strict=True)] == [
        alone(r) for r in recipes
    ]
    assert not list(tmp_path.rglob("*.tmp"))


def wait_for(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free(folder):
    try:
        with files.lock(folder):
            return True
    except files.Locked:
        return False


def test_a_worker_that_is_killed_is_told_of_and_what_is_done_is_kept(
    tmp_path, monkeypatch, alone, trained
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    recipes = infomin.grid(TINY, steps=[20, 100_000])
    first, last = (tmp_path / recipe.key for recipe in recipes)

    def kill():
        wait_for((first / "row.json").exists)
        wait_for((last / "log.jsonl").exists)
        os.kill(
            int((last / ".lock").read_text().split()[1]), signal.SIGKILL
        )  # as a kernel does that is out of memory

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(
        OSError, match=r"a process was killed.*run the same command again, with fewer than 2 jobs"
    ):
        go(recipes, tmp_path, jobs=2)
    killer.join()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert numbers(go(recipes[:1], tmp_path)[0]) == alone(TINY)[0] and not trained[1:]
