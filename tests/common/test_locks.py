"""Folder locks: one holder at a time, released when its process ends, leftover files deleted."""

import os
import signal
import subprocess
import sys

import pytest

from infomin.common import files


def start_python(code, *arguments):
    """Run code in another process with `files` alone: importing the whole package takes seconds."""
    code = f"import sys; sys.path.append({os.path.dirname(files.__file__)!r}); import files\n{code}"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


KILLED = """
with files.lock(sys.argv[1]), files.atomic_write(sys.argv[1] + "/checkpoint.pt") as file:
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    sys.stdin.read()
"""


def test_after_kill_9_the_old_file_is_intact_and_the_next_lock_deletes_the_part(tmp_path):
    others = [".notes.tmp", "notes.1.tmp"]
    for name in ("checkpoint.pt", *others):
        (tmp_path / name).write_bytes(b"older")
    writer = start_python(KILLED, tmp_path)
    assert writer.stdout.readline() == "half\n"
    message = f"{tmp_path} is in use by process {writer.pid} on .*; wait"
    with pytest.raises(files.Locked, match=message), files.lock(tmp_path):
        pass
    # a refused lock deletes nothing
    assert len(list(tmp_path.glob(".checkpoint.pt.*.tmp"))) == 1
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=30)
    with files.lock(tmp_path):
        assert sorted(os.listdir(tmp_path)) == sorted([".lock", "checkpoint.pt", *others])
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"older"


def test_a_lock_has_one_holder_even_within_one_process(tmp_path):
    message = rf"in use by process {os.getpid()} on .* \(this process\); wait"
    with files.lock(tmp_path / "run"):
        for _ in range(2):  # the first refusal has not released the lock
            with pytest.raises(files.Locked, match=message), files.lock(tmp_path / "run"):
                pytest.fail("two holders")
        with files.lock(tmp_path / "other"):
            pass
    with files.lock(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / ".lock").exists()


def test_without_flock_views_work_and_lock_raises(tmp_path):
    program = """if True:
        import sys
        sys.modules["fcntl"] = None  # as on Windows: importing it fails
        import torch
        from infomin.common import files
        from infomin.views import parse
        from infomin.views.flow import PixelFlow
        first, rest = parse("color:lab")(torch.rand(2, 3, 8, 8))
        PixelFlow().save("flow.safetensors")
        PixelFlow.load("flow.safetensors")
        try:
            files.lock("runs").__enter__()
        except OSError as error:
            print(error)
        """
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    message = "cannot lock runs: this system has no flock; on Windows work under WSL"
    assert message in process.stdout and not process.stderr


@pytest.mark.parametrize("write_again", [False, True], ids=["lock", "write"])
def test_what_killed_writers_left_is_deleted_and_nothing_else(tmp_path, write_again):
    """By the next lock of the folder, or by the next write of any file in it."""
    kept = [".notes.tmp", "mine.infomin-1.tmp", f".cache.{os.getpid()}.tmp"]
    for name in kept:
        (tmp_path / name).write_text("")
    (tmp_path / ".folder.infomin-1.tmp").mkdir()
    writer = start_python(KILLED, tmp_path)
    assert writer.stdout.readline() == "half\n"
    files.write_json(tmp_path / "row.json", {})
    assert len(list(tmp_path.glob(".checkpoint.pt.*.tmp"))) == 1  # of a living writer
    writer.kill()
    writer.wait(timeout=30)
    if write_again:
        files.write_json(tmp_path / "row.json", {})
    else:
        with files.lock(tmp_path):
            pass
    left = [*kept, ".folder.infomin-1.tmp", ".lock", "row.json"]
    assert sorted(os.listdir(tmp_path)) == sorted(left)
    writer.communicate()


def test_a_lock_keeps_the_temporary_file_of_a_running_writer(tmp_path, monkeypatch):
    with files.atomic_write(tmp_path / "table.csv") as file:
        monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # as seen from another machine
        with files.lock(tmp_path):
            file.write(b"whole")
    assert (tmp_path / "table.csv").read_bytes() == b"whole"


def test_a_lock_is_released_when_the_block_raises(tmp_path):
    with pytest.raises(RuntimeError, match="inside"), files.lock(tmp_path):
        raise RuntimeError("inside")
    with files.lock(tmp_path):
        pass


CHILDREN = """
import os, signal, subprocess, sys
started = None
with files.lock(sys.argv[1]):
    leaver = os.fork()
    if leaver == 0:
        sys.exit()  # leaves the parent's block too
    os.waitpid(leaver, 0)
    try:
        with files.lock(sys.argv[1]):
            print("free", flush=True)
    except files.Locked:
        print("held", flush=True)
    stayer = os.fork()
    if stayer == 0:
        signal.pause()
print("left", flush=True)
sys.stdin.readline()
os.kill(stayer, signal.SIGKILL)
with files.lock(sys.argv[1]):
    program = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
    print(program.pid, flush=True)
    sys.stdin.read()
"""


def test_children_neither_release_a_lock_nor_keep_it(tmp_path):
    parent = start_python(CHILDREN, tmp_path)
    assert parent.stdout.readline() == "held\n"  # although a forked child has left the block
    assert parent.stdout.readline() == "left\n"
    with files.lock(tmp_path):  # although another forked child is still inside the block
        pass
    print(file=parent.stdin, flush=True)
    program_id = int(parent.stdout.readline())
    parent.kill()
    parent.wait(timeout=30)
    with files.lock(tmp_path):  # although a program started by the dead process is running
        os.kill(program_id, signal.SIGKILL)
    parent.communicate(timeout=30)
