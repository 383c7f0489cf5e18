"""Files after a crash, a full disk or an interrupted write; JSON without loss; truncated logs."""

import errno
import json
import math
import os
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from infomin.common import checkpoint, files
from infomin.views import PixelFlow

# JSON


@pytest.mark.parametrize("seed", range(5))
def test_finite_floats_keep_every_bit(tmp_path, seed):
    # random bits give floats of every size, subnormals too
    bits = np.random.default_rng(seed).integers(0, 2**64, size=1000, dtype=np.uint64)
    values = [x for x in bits.view(np.float64).tolist() if math.isfinite(x)]
    values += [0.0, -0.0, 5e-324, sys.float_info.max, 0.1]
    files.write_json(tmp_path / "row.json", {"values": values})
    files.write_jsonl(tmp_path / "rows.jsonl", [{"x": x} for x in values])
    want = struct.pack(f"{len(values)}d", *values)
    assert struct.pack(f"{len(values)}d", *files.read_json(tmp_path / "row.json")["values"]) == want
    lines = [row["x"] for _, row in files.read_lines(tmp_path / "rows.jsonl")]
    assert struct.pack(f"{len(values)}d", *lines) == want


def test_nan_and_inf_become_null_in_valid_json(tmp_path):
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
    message = r"row\.json: wanted a whole JSON object.*delete it and run the same command again"
    with pytest.raises(ValueError, match=message):
        files.read_json(path)


# Atomic writes


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_the_older_file_and_no_other(tmp_path, monkeypatch, broken):
    def disk_full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "row.json"
    files.write_json(path, {"seed": 0})
    before = path.read_bytes()
    monkeypatch.setattr(files.os, broken, disk_full)
    message = rf"cannot write row\.json in {tmp_path}: No space left on device; .* run"
    with pytest.raises(OSError, match=message) as error:
        files.write_json(path, {"seed": 1})
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["row.json"]


LIMITED = """
import resource, signal, sys
sys.path.append({folder!r})  # `files` alone: importing the package takes seconds
import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write_json(sys.argv[1], dict(text="x" * 5000))
except OSError as error:
    print(error)
"""


def test_a_write_beyond_a_real_file_size_limit(tmp_path):
    path = tmp_path / "row.json"
    files.write_json(path, {"seed": 0})
    code = LIMITED.format(folder=os.path.dirname(files.__file__))
    command = [sys.executable, "-W", "error", "-c", code, str(path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "cannot write row.json" in process.stdout, process.stderr
    assert "File too large" in process.stdout, process.stderr
    assert files.read_json(path) == {"seed": 0} and os.listdir(tmp_path) == ["row.json"]


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    reason = "(Not a directory|File exists)"
    message = rf"cannot write row\.json in .*file: {reason}; .*choose a folder"
    for write in (files.write_json, files.append_jsonl):
        with pytest.raises(OSError, match=message):
            write(tmp_path / "file" / "row.json", {})


def test_an_interrupted_block_writes_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.atomic_write(tmp_path / "new" / "x.bin") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path / "new") == []


def test_bytes_are_flushed_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    calls = []

    def record(name):
        function = getattr(os, name)

        def recorded(*args):
            calls.append(name)
            return function(*args)

        monkeypatch.setattr(files.os, name, recorded)

    record("fsync")
    record("replace")
    files.write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}])
    assert calls == ["fsync", "replace", "fsync"]


def test_a_file_in_place_of_the_folder_is_named_as_the_cause(tmp_path):
    (tmp_path / "out").write_text("")
    message = r"cannot write row.json in .*; existing files are unchanged; there is a file where"
    with pytest.raises(OSError, match=message):
        files.write_json(tmp_path / "out" / "row.json", {})


def test_threads_that_write_one_file_leave_whole_versions(tmp_path):
    path = tmp_path / "row.json"
    versions = [{"version": version, "text": str(version) * 5000} for version in range(4)]

    def write_and_read(version):
        for _ in range(25):
            files.write_json(path, version)
            assert files.read_json(path) in versions

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write_and_read, versions))
    assert os.listdir(tmp_path) == ["row.json"]


# Foreign files

READERS = {
    "bytes": files.read_bytes,
    "object": files.read_json,
    "lines": files.read_lines,
    "log": files.read_log,
    "checkpoint": lambda path: checkpoint.load(path, {}),
    "flow": PixelFlow.load,
}


def make_foreign(path, kind):
    """Put something other than a file of infomin at a path."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_are_read(tmp_path, reader, kind):
    path = tmp_path / "x"
    make_foreign(path, kind)
    with ThreadPoolExecutor(1) as thread:
        read = thread.submit(READERS[reader], path)
        try:
            with pytest.raises((ValueError, FileNotFoundError), match=re.escape(str(path))):
                read.result(timeout=10)
        finally:
            if kind == "pipe":  # let a reader that waits for the pipe go
                os.close(os.open(path, os.O_RDWR))
    assert files.read_object(path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "cannot be read"),
        (b'{"a":' * 100_000, "cannot be read"),
        (b"[1]", "got list; delete it"),
        (b"3", "got int; delete it"),
        (b'{"x": "' + b"x" * files.JSON_LIMIT, f"got more than {files.JSON_LIMIT} bytes"),
    ],
    ids=["lists", "objects", "list", "number", "large"],
)
def test_json_that_is_deep_large_or_no_object_is_an_error(tmp_path, content, message):
    path = tmp_path / "row.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"row\.json: .*{message}"):
        files.read_json(path)
    assert files.read_object(path) is None


def test_a_path_that_begins_with_a_tilde_is_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    files.write_json("~/runs/row.json", {"a": 1})
    files.append_jsonl("~/runs/log.jsonl", {"step": 1})
    with files.lock("~/runs"):
        pass
    assert sorted(os.listdir(tmp_path / "runs")) == [".lock", "log.jsonl", "row.json"]
    assert files.read_json("~/runs/row.json") == {"a": 1}
    assert files.read_log("~/runs/log.jsonl") == [{"step": 1}]
    assert os.listdir(tmp_path) == ["runs"]
    for wrong in (None, 3, b"runs"):
        with pytest.raises(TypeError, match=r"path: got .*, wanted a path; pass a str"):
            files.as_path(wrong)


# Keys


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
    key = files.hash_json(recipe)
    files.write_json(tmp_path / "recipe.json", recipe)
    assert len(key) == 12 and set(key) <= set("0123456789abcdef")
    assert (
        key
        == files.hash_json(dict(reversed(recipe.items())))
        == files.hash_json(files.read_json(tmp_path / "recipe.json"))
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
    assert len({files.hash_json(recipe) for recipe in same}) == 1
    assert len({files.hash_json(recipe) for recipe in same + other}) == 1 + len(other)


# Logs


@pytest.mark.parametrize("cut", range(1, len('{"step":3,"loss":0.125}') + 1))
def test_a_log_cut_anywhere_in_its_last_line_can_be_continued(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    rows = [{"step": step, "loss": 1 / 2**step} for step in range(4)]
    for row in rows:
        files.append_jsonl(path, row)
    path.write_bytes(path.read_bytes()[:-cut])
    complete = rows if cut == 1 else rows[:3]  # with cut 1 only the line break is missing
    assert files.read_log(path) == complete
    files.truncate_log(path, 3)
    files.append_jsonl(path, {"step": 4})
    assert files.read_log(path) == [*complete, {"step": 4}]


@pytest.mark.parametrize("step", [-1, 0, 10, 25, 99])
def test_truncate_keeps_the_lines_up_to_the_checkpoint(tmp_path, step):
    path = tmp_path / "log.jsonl"
    rows = [{"step": logged, "loss": 0.1 * logged} for logged in range(0, 40, 10)]
    for row in rows:
        files.append_jsonl(path, row)
    want = [row for row in rows if row["step"] <= step]
    assert files.read_log(path, upto_step=step) == want
    files.truncate_log(path, step)
    assert files.read_log(path) == want


def test_a_bad_line_inside_a_log_is_named_and_a_missing_log_is_empty(tmp_path):
    path = tmp_path / "log.jsonl"
    assert files.read_log(path) == []
    files.truncate_log(path, 0)
    assert not path.exists()
    path.write_text('{"step": 0}\n\n{"step\n{"step": 2}\n')
    message = r"log\.jsonl: wanted one JSON object per line, got something else in line 3; delete"
    with pytest.raises(ValueError, match=message):
        files.read_log(path)
