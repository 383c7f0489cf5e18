"""Rows on disk: what a reader sees after a crash, a full disk, a second process, a torn line."""

import errno
import json
import math
import os
import signal
import struct
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from infomin.common import files
from infomin.report.rows import read_rows, to_frame
from infomin.report.summary import summary


def python(code, *arguments):
    """Run code in another process with `table` alone: importing the whole package would take seconds."""
    code = f"import sys; sys.path.append({os.path.dirname(files.__file__)!r}); import files\n{code}"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


# JSON


@pytest.mark.parametrize("seed", range(5))
def test_finite_floats_come_back_bit_by_bit(tmp_path, seed):
    bits = np.random.default_rng(seed).integers(
        0, 2**64, size=1000, dtype=np.uint64
    )  # floats of every size, subnormals too
    values = [x for x in bits.view(np.float64).tolist() if math.isfinite(x)] + [
        0.0,
        -0.0,
        5e-324,
        sys.float_info.max,
        0.1,
    ]
    files.write_json(tmp_path / "row.json", {"values": values})
    files.write_jsonl(tmp_path / "rows.jsonl", [{"x": x} for x in values])
    want = struct.pack(f"{len(values)}d", *values)
    assert struct.pack(f"{len(values)}d", *files.read_json(tmp_path / "row.json")["values"]) == want
    assert struct.pack(f"{len(values)}d", *read_rows(tmp_path / "rows.jsonl").x) == want


def test_what_is_not_finite_is_null_in_valid_json(tmp_path):
    row = {
        "nan": math.nan,
        "inf": -math.inf,
        "list": [1.0, math.inf],
        "numpy": np.float32("nan"),
        "torch": torch.ones(1) / 0,
    }
    files.write_json(tmp_path / "row.json", row)
    files.append_jsonl(tmp_path / "log.jsonl", row)
    want = {"nan": None, "inf": None, "list": [1.0, None], "numpy": None, "torch": [None]}
    for name in ("row.json", "log.jsonl"):
        assert json.loads((tmp_path / name).read_text(), parse_constant=pytest.fail) == want


def test_numbers_of_numpy_and_torch_become_plain(tmp_path):
    row = {
        "i": np.int64(3),
        "f": np.float32(0.5),
        "b": np.bool_(True),
        "t": torch.arange(2),
        "l": (1, "a"),
    }
    files.write_json(tmp_path / "x.json", row)
    assert files.read_json(tmp_path / "x.json") == {
        "i": 3,
        "f": 0.5,
        "b": True,
        "t": [0, 1],
        "l": [1, "a"],
    }
    with pytest.raises(TypeError, match="not JSON serializable"):
        files.write_json(tmp_path / "x.json", {"what": object()})
    assert files.read_json(tmp_path / "x.json")["i"] == 3


@pytest.mark.parametrize("length", [0, 1, 10, 20])
def test_a_truncated_file_says_what_to_do(tmp_path, length):
    path = tmp_path / "row.json"
    files.write_json(path, {"accuracy": 0.5})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        ValueError,
        match=r"row\.json: wanted a whole JSON file.*delete it and run the same command again",
    ):
        files.read_json(path)


# whole files or none


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_the_older_file_and_no_other(tmp_path, monkeypatch, broken):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "row.json"
    files.write_json(path, {"seed": 0})
    before = path.read_bytes()
    monkeypatch.setattr(files.os, broken, full)
    with pytest.raises(
        OSError, match=rf"cannot write row\.json in {tmp_path}: No space left on device; .* run"
    ) as error:
        files.write_json(path, {"seed": 1})
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["row.json"]


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write_json(sys.argv[1], {"text": "x" * 5000})
except OSError as error:
    print(error)
"""


def test_a_file_that_outgrows_its_disk_for_real(tmp_path):
    files.write_json(tmp_path / "row.json", {"seed": 0})
    said, errors = python(LIMITED, tmp_path / "row.json").communicate(timeout=30)
    assert "cannot write row.json" in said and "File too large" in said, errors
    assert files.read_json(tmp_path / "row.json") == {"seed": 0} and os.listdir(tmp_path) == [
        "row.json"
    ]


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").touch()
    for write in (files.write_json, files.append_jsonl):
        with pytest.raises(
            OSError,
            match=r"cannot write row\.json in .*file: (Not a directory|File exists); .*choose a folder",
        ):
            write(tmp_path / "file" / "row.json", {})


def test_an_interrupted_block_writes_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.atomic_write(tmp_path / "new" / "x.bin") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path / "new") == []


def test_the_bytes_are_on_disk_before_the_name_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            files.os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))
        )
    files.write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}])
    assert calls == ["fsync", "replace", "fsync"]


KILLED = """
with files.lock(sys.argv[1]), files.atomic_write(sys.argv[1] + "/checkpoint.pt") as file:
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    sys.stdin.read()
"""


def test_kill_9_leaves_the_older_file_and_the_next_lock_sweeps_up_after_the_writer_alone(tmp_path):
    others = [".notes.tmp", "notes.1.tmp"]
    for name in ("checkpoint.pt", *others):
        (tmp_path / name).write_bytes(b"older")
    writer = python(KILLED, tmp_path)
    assert writer.stdout.readline() == "half\n"
    with (
        pytest.raises(
            files.Locked, match=f"{tmp_path} is in use by process {writer.pid} on .*; wait"
        ),
        files.lock(tmp_path),
    ):
        pass
    assert (
        len(list(tmp_path.glob(".checkpoint.pt.*.tmp"))) == 1
    )  # who was refused has swept nothing
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=30)
    with files.lock(tmp_path):
        assert sorted(os.listdir(tmp_path)) == sorted([".lock", "checkpoint.pt", *others])
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"older"


# keys


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"view": "color:lab", "seed": 0, "tau": 0.1},
        {"tau": math.nan},
        {"axes": (1, 2), "name": "é"},
        {"lr": np.float32(0.5), "steps": np.int64(3)},
    ],
)
def test_a_key_is_twelve_digits_that_the_file_and_the_order_do_not_change(tmp_path, recipe):
    key = files.key(recipe)
    files.write_json(tmp_path / "recipe.json", recipe)
    assert len(key) == 12 and set(key) <= set("0123456789abcdef")
    assert (
        key
        == files.key(dict(reversed(recipe.items())))
        == files.key(files.read_json(tmp_path / "recipe.json"))
    )


def test_equal_recipes_have_equal_keys_and_others_do_not():
    same = [{"tau": 1}, {"tau": 1.0}, {"tau": np.float64(1)}]
    other = [
        {"tau": 1.5},
        {"tau": "1"},
        {"tau": True},
        {"tau": None},
        {"tau": [1]},
        {"Tau": 1},
        {"tau": 1, "seed": 0},
        {},
    ]
    assert len({files.key(recipe) for recipe in same}) == 1
    assert len({files.key(recipe) for recipe in same + other}) == 1 + len(other)


# logs


@pytest.mark.parametrize("torn", range(1, len('{"step":3,"loss":0.125}') + 1))
def test_a_log_torn_anywhere_in_its_last_line_goes_on(tmp_path, torn):
    path = tmp_path / "log.jsonl"
    rows = [{"step": step, "loss": 1 / 2**step} for step in range(4)]
    for row in rows:
        files.append_jsonl(path, row)
    path.write_bytes(path.read_bytes()[:-torn])
    whole = rows if torn == 1 else rows[:3]  # only the line break is missing
    assert files.read_log(path) == whole
    files.truncate_log(path, 3)
    files.append_jsonl(path, {"step": 4})
    assert files.read_log(path) == [*whole, {"step": 4}]


@pytest.mark.parametrize("step", [-1, 0, 10, 25, 99])
def test_truncate_keeps_the_lines_up_to_the_checkpoint(tmp_path, step):
    path = tmp_path / "log.jsonl"
    for at in range(0, 40, 10):
        files.append_jsonl(path, {"step": at, "loss": 0.1 * at})
    want = [{"step": at, "loss": 0.1 * at} for at in range(0, 40, 10) if at <= step]
    assert files.read_log(path, upto_step=step) == want
    files.truncate_log(path, step)
    assert files.read_log(path) == want


def test_a_bad_line_inside_a_log_is_named_and_a_missing_log_is_empty(tmp_path):
    path = tmp_path / "log.jsonl"
    assert files.read_log(path) == []
    files.truncate_log(path, 0)
    assert not path.exists()
    path.write_text('{"step": 0}\n\n{"step\n{"step": 2}\n')
    with pytest.raises(
        ValueError,
        match=r"log\.jsonl: wanted one JSON object a line, got something else in line 3; delete",
    ):
        files.read_log(path)


# locks


def test_a_folder_is_locked_for_one_at_a_time_even_in_one_process(tmp_path):
    with files.lock(tmp_path / "run"):
        with (
            pytest.raises(
                files.Locked,
                match=rf"in use by process {os.getpid()} on .* \(this very process\); wait",
            ),
            files.lock(tmp_path / "run"),
        ):
            pytest.fail("two at a time")
        with (
            pytest.raises(files.Locked),
            files.lock(tmp_path / "run"),
        ):  # who was refused has not let go of it for the first
            pytest.fail("two at a time")
        with files.lock(tmp_path / "other"):
            pass
    with files.lock(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / ".lock").exists()


def test_without_flock_views_are_made_and_saved_and_a_lock_says_what_to_do(tmp_path):
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
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert (
        "cannot lock runs: this system has no flock; on Windows work under WSL" in done.stdout
        and not done.stderr
    )


def test_a_lock_sweeps_up_nothing_but_what_writers_leave(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / ".cache.tmp").mkdir()
    for name in (
        ".notes.tmp",
        "mine.tmp",
        f".row.json.{gone.pid}.tmp",
        ".row.json.99999999999999999999.tmp",
    ):
        (tmp_path / name).write_text("")
    with files.lock(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            ".cache.tmp",
            ".lock",
            ".notes.tmp",
            "mine.tmp",
        ]


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="only Linux tells")
def test_a_writer_that_has_ended_and_is_not_reaped_yet_is_gone(tmp_path):
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # leaves it listed
    (tmp_path / f".row.json.{ended.pid}.tmp").write_text("")
    with files.lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    ended.wait()


def test_a_table_is_written_while_another_takes_the_lock(tmp_path):
    with files.atomic_write(tmp_path / "table.csv") as file, files.lock(tmp_path):
        file.write(b"whole")
    assert (tmp_path / "table.csv").read_bytes() == b"whole"


def test_a_folder_that_is_a_file_is_no_want_of_space(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(
        OSError,
        match=r"cannot write row.json in .*; what was there is as it was; there is a file where",
    ):
        files.write_json(tmp_path / "out" / "row.json", {})


def test_columns_stand_where_they_stand_in_rows():
    rows = [
        {"key": 1, "status": "done", "x": 1},
        {"key": 2, "tau": 0.1, "status": "done"},
        {"host": "a", "key": 3, "y": 2},
    ]
    assert list(to_frame(rows)) == ["host", "key", "y", "tau", "status", "x"]


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
    print(subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL).pid, flush=True)
    sys.stdin.read()
"""


def test_children_neither_release_a_lock_nor_keep_it(tmp_path):
    parent = python(CHILDREN, tmp_path)
    assert parent.stdout.readline() == "held\n"  # a forked child has left the block
    assert parent.stdout.readline() == "left\n"  # and another one has not
    with files.lock(tmp_path):
        pass
    print(file=parent.stdin, flush=True)
    started = int(parent.stdout.readline())
    parent.kill()
    parent.wait(timeout=30)
    with files.lock(tmp_path):  # though a program that the dead process started lives on
        os.kill(started, signal.SIGKILL)
    parent.communicate(timeout=30)


# the table


def make(folder, rows):
    for row in rows:
        files.write_json(folder / files.key(row) / "row.json", row)


def test_a_folder_and_its_jsonl_hold_the_same_table(tmp_path):
    rows = [
        {"view": view, "seed": seed, "accuracy": 0.1 * seed}
        for view in ("color:rgb", "color:lab")
        for seed in range(3)
    ]
    make(tmp_path / "runs", rows[:4])
    make(tmp_path / "runs" / "deeper", rows[4:])
    frame = read_rows(tmp_path / "runs")
    files.write_jsonl(tmp_path / "rows.jsonl", frame.to_dict("records"))
    pd.testing.assert_frame_equal(frame, read_rows(tmp_path / "runs"))
    pd.testing.assert_frame_equal(frame, read_rows(tmp_path / "rows.jsonl"))
    assert sorted(frame.to_dict("records"), key=str) == sorted(rows, key=str)


@pytest.mark.parametrize("text", ["", '{"seed": 1', "[1]", "\x00\x00", "\xff"])
def test_rows_that_cannot_be_read_are_named_once_and_left_out(tmp_path, text):
    make(tmp_path, [{"seed": 0}])
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "row.json").write_text(text, encoding="latin-1")
    with pytest.warns(
        UserWarning, match=r"left out 2 rows.*/a/row\.json; .*/b/row\.json; delete them"
    ) as caught:
        frame = read_rows(tmp_path)
    assert len(caught) == 1 and list(frame.seed) == [0]


def test_a_bad_line_of_a_jsonl_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"seed": 0}\n{"se\n{"seed": 2}\n')
    with pytest.warns(UserWarning, match=r"left out 1 rows.*rows\.jsonl, line 2"):
        assert list(read_rows(tmp_path / "rows.jsonl").seed) == [0, 2]


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="wanted a folder of runs"):
        read_rows(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="got none that can be read; run a sweep"):
        read_rows(tmp_path)


def test_rows_of_several_places_are_read_one_after_the_other_and_a_run_once(tmp_path):
    runs = [{"key": key, "seed": seed} for seed, key in enumerate("abc")]
    files.write_json(tmp_path / "x" / "a" / "row.json", runs[0])
    files.write_jsonl(
        tmp_path / "y.jsonl", [runs[1], runs[0] | {"seed": 9}, {"seed": 7}, {"seed": 7}]
    )  # two rows of one's own
    frame = read_rows(tmp_path / "x", tmp_path / "y.jsonl", tmp_path / "x")
    assert list(frame["seed"]) == [0, 1, 7, 7] and list(frame.index) == [0, 1, 2, 3]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"/empty: wanted row\.json files"):
        read_rows(tmp_path / "x", tmp_path / "empty")


def test_bad_rows_of_several_places_are_told_in_one_warning(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"seed": 0}\n{"se\n')
    with pytest.warns(
        UserWarning, match=r"left out 2 rows.*a\.jsonl, line 2; .*b\.jsonl, line 2; delete"
    ) as caught:
        assert len(read_rows(tmp_path / "a.jsonl", tmp_path / "b.jsonl")) == 2
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize("name", ["table.csv", "row.json", "rows"])
def test_another_kind_of_file_is_told(tmp_path, name):
    (tmp_path / name).write_text("view,seed\ncolor:lab,0\n")
    with pytest.raises(
        ValueError,
        match=rf"{name}: got another file, wanted a folder .* \.jsonl file .*; name the folder that",
    ):
        read_rows(tmp_path / name)


def test_summary_is_the_mean_and_the_sample_deviation_of_each_group():
    rng = np.random.default_rng(0)
    views = ["color:ydbdr", "color:lab", "color:rgb"]
    data = {view: rng.normal(size=n) for view, n in zip(views, (2, 5, 1), strict=True)}
    rows = [{"view": view, "task": "digit", "accuracy": x} for view in views for x in data[view]]
    rows = [rows[0], *rng.permutation(rows[1:])]
    out = summary(pd.DataFrame(rows), "view", "accuracy").set_index("view")
    assert list(out) == ["accuracy_mean", "accuracy_std", "n", "diverged"]
    assert list(out.index) == list(dict.fromkeys(row["view"] for row in rows))
    for view, x in data.items():
        mean = sum(x) / len(x)
        std = math.sqrt(sum((x - mean) ** 2) / (len(x) - 1)) if len(x) > 1 else math.nan
        assert out.loc[view].tolist() == pytest.approx([mean, std, len(x), 0], nan_ok=True)


def test_diverged_rows_are_counted_and_nothing_else():
    rows = [
        {"view": "a", "dial": None, "x": 1.0, "status": "done"},
        {"view": "b", "dial": 2, "x": None, "status": "diverged"},
        {"view": "a", "dial": None, "x": None, "status": "diverged"},
        {"view": "a", "dial": None, "x": 3.0, "status": "done"},
    ]
    out = summary(pd.DataFrame(rows), ["view", "dial"], ["x"])
    assert out.view.tolist() == ["a", "b"] and out.dial.isna().tolist() == [True, False]
    assert out.n.tolist() == [2, 0] and out.diverged.tolist() == [1, 1]
    assert out.x_mean.tolist() == pytest.approx([2.0, math.nan], nan_ok=True)
    assert out.x_std.tolist() == pytest.approx([math.sqrt(2), math.nan], nan_ok=True)


def test_a_number_missing_from_a_finished_row_is_not_hidden():
    frame = pd.DataFrame([{"view": "a", "x": 1.0, "y": 1.0}, {"view": "a", "x": 2.0}])
    out = summary(frame, "view", ["x", "y"]).iloc[0]
    assert out.x_mean == 1.5 and math.isnan(out.y_mean) and math.isnan(out.y_std)
    with pytest.raises(ValueError, match="got unknown columns z, wanted some of view, x, y"):
        summary(frame, "view", ["x", "z"])


@pytest.mark.parametrize("lacking", [None, math.nan])
def test_of_a_number_that_a_row_lacks_neither_mean_nor_deviation_is_known(lacking):
    frame = pd.DataFrame({"view": ["a"] * 3 + ["b"] * 3, "x": [1.0, 2.0, lacking, 1.0, 2.0, 6.0]})
    a, b = summary(frame, "view", "x").to_dict("records")
    assert math.isnan(a["x_mean"]) and math.isnan(a["x_std"]) and a["n"] == b["n"] == 3
    assert (b["x_mean"], b["x_std"]) == pytest.approx((3.0, math.sqrt(7.0)))
