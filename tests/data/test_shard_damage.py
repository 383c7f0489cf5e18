"""Damaged data sets of clips: every kind of damage is found, named and repaired."""

import re
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from shard_files import NAMES, SMALL, flip, stamps, state

from infomin.data import shards
from infomin.data.moving_mnist import render_clips
from infomin.data.shards import ClipShards, verify, write

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("no_fsync")
USES = (verify, ClipShards, partial(write, **SMALL))


def cut_last_byte(path):
    path.write_bytes(path.read_bytes()[:-1])


def append_byte(path):
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path):
    path.write_bytes(b"")


def replace_by_first(path):
    shutil.copy(path.with_name(NAMES[0]), path)


def damages():
    rng = np.random.default_rng(0)
    frame_bytes = 5 * 4 * 3 * 16 * 16
    for position in (0, 7, 8, 100, -1, *rng.integers(0, frame_bytes, 5).tolist()):
        damage = partial(flip, position=position)
        yield pytest.param(damage, "has another checksum", id=f"byte {position}")
    yield pytest.param(cut_last_byte, r"has \d+ bytes, not \d+", id="cut")
    yield pytest.param(append_byte, r"has \d+ bytes, not \d+", id="longer")
    yield pytest.param(empty, "has 0 bytes, not", id="empty")
    yield pytest.param(lambda path: path.unlink(), "is missing", id="missing")
    yield pytest.param(replace_by_first, "has another checksum", id="of another shard")


@pytest.mark.parametrize(("damage", "problem"), [*damages()])
def test_a_damaged_shard_is_found_named_and_written_again(made, copy, damage, problem):
    before = stamps(copy)
    damage(copy / NAMES[2])
    (line,) = verify(copy)
    expected = rf"{copy / NAMES[2]} {problem}.*; run the command that wrote it again, .*"
    assert re.fullmatch(expected, line)
    assert write(copy, **SMALL) == [NAMES[2]]
    assert state(copy) == state(made) and verify(copy) == []
    after = stamps(copy)
    assert {name for name in NAMES if before[name] != after[name]} == {NAMES[2]}


def test_several_damaged_shards_are_all_named(made, copy):
    flip(copy / NAMES[0], 500)
    (copy / NAMES[3]).unlink()
    flip(copy / NAMES[4], -1)
    stray = copy / "00005.safetensors"
    stray.write_bytes(b"")
    problems = verify(copy)
    paths = [copy / name for name in (NAMES[0], NAMES[3], NAMES[4])]
    assert [line.split(" ")[0] for line in problems] == [*map(str, paths), str(stray)]
    assert "does not belong to this data set; delete or move it" in problems[3]
    stray.unlink()
    assert write(copy, **SMALL) == [NAMES[0], NAMES[3], NAMES[4]] and state(copy) == state(made)


def test_a_shard_that_comes_out_differently_is_not_written(copy, monkeypatch):
    (copy / NAMES[1]).unlink()
    before = state(copy)

    def mirrored(*args, **options):
        return render_clips(*args, **options).flip(-1).contiguous()

    monkeypatch.setattr(shards, "render_clips", mirrored)
    message = f"{NAMES[1]}: the shard differs from the first time; use the infomin version and the"
    with pytest.raises(ValueError, match=message):
        write(copy, **SMALL)
    assert state(copy) == before


@pytest.mark.parametrize("position", range(0, 1100, 97))
def test_a_manifest_with_a_changed_byte_is_an_error(copy, position):
    path = copy / "manifest.json"
    data = path.read_bytes()
    while chr(data[position]).isspace():
        position += 1
    flip(path, position)
    message = r"manifest.json: got a damaged manifest or .*; delete .* and write again"
    for use in USES:
        with pytest.raises(ValueError, match=message):
            use(copy)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{}", '{"sha256": 0}', "null", "{", '{"config": {}, "shards": {}}']
)
def test_an_unrelated_file_is_no_manifest(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    for use in USES:
        with pytest.raises(ValueError, match=r"manifest.json: got a damaged manifest"):
            use(tmp_path)


def test_another_version_is_an_error(copy, monkeypatch):
    monkeypatch.setattr(shards, "VERSION", 2)
    message = "got version 1, wanted 2; use the infomin version that wrote it"
    for use in USES:
        with pytest.raises(ValueError, match=message):
            use(copy)


def test_shards_without_a_manifest_are_not_overwritten(copy):
    (copy / "manifest.json").unlink()
    before = state(copy)
    message = r"got a folder with safetensors files but no manifest\.json; choose"
    with pytest.raises(ValueError, match=message):
        write(copy, **SMALL)
    message = r"got no manifest\.json, wanted a data set of clips; correct the path"
    for use in (verify, ClipShards):
        with pytest.raises(FileNotFoundError, match=message):
            use(copy)
    assert state(copy) == before


def test_missing_and_cut_shards_are_an_error_when_the_set_is_opened(copy):
    (copy / NAMES[1]).unlink()
    (copy / NAMES[4]).write_bytes(b"")
    message = rf"got 2 unusable shards of 5: .*{NAMES[1]} is missing, .*{NAMES[4]} has 0 bytes, .*;"
    with pytest.raises(ValueError, match=message + " run the command"):
        ClipShards(copy)


def test_a_damaged_header_is_an_error_when_the_shard_is_read(copy):
    data = ClipShards(copy)
    flip(copy / NAMES[1], 7)
    assert data[4] and data[10]
    message = rf"{NAMES[1]}: got a file that cannot be read \(.*\), wanted a shard; run the command"
    with pytest.raises(ValueError, match=message):
        data[5]


def test_verify_compares_checksums_and_reading_does_not(tmp_path):
    write(tmp_path, **SMALL | {"clips": 4, "shard": 2, "frames": 2})
    flip(tmp_path / NAMES[1], -1)
    assert len(ClipShards(tmp_path)) == 4 and len(verify(tmp_path)) == 1
