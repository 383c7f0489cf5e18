"""Clips on disk: every byte is a function of the configuration, whatever happens on the way; what is wrong is found and named."""

import errno
import json
import os
import pickle
import re
import shutil
import signal
import tracemalloc
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader, DistributedSampler

from infomin.common import files
from infomin.common.checkpoint import fingerprint
from infomin.data import shards, sources
from infomin.data.moving_mnist import Clips, draw_clips, positions, render_clips
from infomin.data.scenes import World
from infomin.data.shards import FIRST_CLIP, ClipShards, preview, verify, write
from infomin.data.sources import load_worlds

torch.set_num_threads(1)

SMALL = {"clips": 24, "shard": 5, "frames": 4, "size": 16, "digit": 8}
NAMES = [f"0000{i}.safetensors" for i in range(5)]
FORK = pytest.mark.filterwarnings(
    "ignore:.*fork.*:DeprecationWarning"
)  # Python warns of it where there are threads


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """What flushing is for, a power cut, no test can see."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set that no test may change."""
    folder = tmp_path_factory.mktemp("clips")
    assert write(folder, **SMALL) == NAMES
    return folder


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def state(folder):
    """Every file but the lock, which holds the last writer's name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def stamps(folder):
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.glob("*.safetensors")
    }


def stored(folder):
    """All tensors of all shards, one after the other."""
    parts = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# What is written


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"part": "test"},
        {"seed": 3, "digits_per_clip": 3, "speed": 0.25},
        {"clips": 7, "shard": 7, "frames": 1, "speed": 0},
        {"clips": 1, "shard": 50, "dim": 1, "part": "test"},
    ],
    ids=str,
)
def test_the_files_hold_the_clips_that_are_drawn(tmp_path, more):
    how = SMALL | more
    write(tmp_path, **how)
    world, times = (
        load_worlds(size=16, digit=8, dim=how.get("dim", 0.5))[how.get("part") == "test"],
        range(how["frames"]),
    )
    count, first = how.get("digits_per_clip", 1), FIRST_CLIP[how.get("part", "train")]
    clips = draw_clips(
        world,
        how["clips"],
        how.get("seed", 0),
        first=first,
        digits=count,
        speed=how.get("speed", 0.1),
    )
    wanted = {
        "frames": render_clips(clips, times, dtype=torch.uint8),
        "positions": positions(clips, times).float(),
        **clips.tensors(),
    }
    found = stored(tmp_path)
    assert found.keys() == wanted.keys() and found["frames"].shape == (
        how["clips"],
        how["frames"],
        3,
        16,
        16,
    )
    assert all(
        torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype
        for name in wanted
    )
    again = Clips(
        world, **{name: found[name] for name in clips.tensors()}
    )  # from the factors alone
    assert torch.equal(render_clips(again, times, dtype=torch.uint8), found["frames"])


@pytest.mark.parametrize("shard", [1, 7, 24, 1000])
def test_how_clips_are_cut_into_shards_changes_none(made, tmp_path, shard):
    assert len(write(tmp_path, **SMALL | {"shard": shard})) == -(-24 // shard)
    one, other = stored(made), stored(tmp_path)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_and_test_share_no_path_and_another_seed_none_either(made, tmp_path):
    write(tmp_path / "test", **SMALL, part="test"), write(tmp_path / "seed", **SMALL, seed=1)
    starts = torch.cat(
        [stored(folder)["start"] for folder in (made, tmp_path / "test", tmp_path / "seed")]
    )
    assert len(starts.flatten(1).unique(dim=0)) == 3 * 24


def test_the_same_arguments_write_the_same_bytes(made, tmp_path):
    write(tmp_path, **SMALL)
    assert state(tmp_path) == state(made) and len(state(made)) == 6


@pytest.mark.parametrize(
    ("part", "known"),
    [
        ("train", "ac210fd04032fa5930373726c3a679a8d2d9859ff81df44869ba4195ac2f6fd0"),
        ("test", "7b21bb972f4657f0bea53ceeea54abf9a5f1d6e2e74367d734556c91e04a105b"),
    ],
)
def test_other_clips_would_need_another_version(tmp_path, monkeypatch, part, known):
    """The clips of a world in which nothing is read or scaled, as the first version wrote them."""
    ink, ground = (
        torch.arange(3 * 64).view(3, 8, 8).byte(),
        torch.arange(2 * 3 * 400).view(2, 3, 20, 20).byte(),
    )
    world = World(ink, torch.tensor([0, 1, 1]), ground, torch.tensor([0, 1]), size=16)
    monkeypatch.setattr(shards, "load_worlds", lambda *_: (world, world))
    write(tmp_path, **SMALL, part=part)
    assert (shards.VERSION, fingerprint(stored(tmp_path))) == (1, known)


def test_the_manifest_says_what_was_written(made):
    facts = json.loads((made / "manifest.json").read_text())
    assert facts["config"] == {
        "speed": 0.1,
        "digits_per_clip": 1,
        "dim": 0.5,
        "seed": 0,
        "part": "train",
        "digits": "digits",
        "backgrounds": "photos",
        **SMALL,
    }
    assert [row["clips"] for row in facts["shards"].values()] == [5, 5, 5, 5, 4] and list(
        facts["shards"]
    ) == NAMES
    assert all(
        row["bytes"] == (made / name).stat().st_size for name, row in facts["shards"].items()
    )
    assert facts["classes"] == {
        "digit": 10,
        "background": len(load_worlds(size=16, digit=8)[0].background_class.unique()),
    }


def test_no_more_than_a_shard_is_in_memory(tmp_path, monkeypatch):
    rendered = []
    monkeypatch.setattr(
        shards,
        "render_clips",
        lambda clips, *a, **k: (rendered.append(len(clips)), render_clips(clips, *a, **k))[1],
    )
    peaks, shard = [], 50 * 16 * 3 * 16 * 16
    load_worlds(size=16, digit=8)  # which stay, so that only what is written is measured
    for clips in (50, 100, 1000):
        tracemalloc.start()  # it sees the bytes that are written; tensors it does not see
        write(tmp_path / str(clips), **SMALL | {"clips": clips, "shard": 50, "frames": 16})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert set(rendered) == {50} and len(rendered) == 1 + 2 + 20
    assert all(shard < peak < 1.5 * shard for peak in peaks)


# What is cut short


def cut(folder, call, after):
    """Write in a process of its own that kills itself at a call of os.replace, before or after the file is in its place."""
    child = os.fork()
    if child == 0:
        calls, replace = [], os.replace

        def dying(*paths):
            calls.append(paths)
            if after:
                replace(*paths)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return None if after else replace(*paths)

        os.replace = dying
        try:
            write(folder, **SMALL)
        finally:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@FORK
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "call", range(1, 12)
)  # the manifest, and then a shard and the manifest five times
def test_killed_at_any_instant_and_started_again_it_is_as_if_nothing_had_been(
    made, tmp_path, call, after
):
    folder = tmp_path / "cut"
    assert cut(folder, call, after) == -signal.SIGKILL
    begun = max(0, call - 2 + after) // 2  # shards of which the manifest knows
    if call > 1 or after:
        unfinished = [line.split(" ")[0].rsplit("/", 1)[1] for line in verify(folder)]
        assert unfinished == NAMES[begun:]
        assert all(
            "is not written yet; run the command that wrote it again" in line
            for line in verify(folder)
        )
    if begun < 5:
        with pytest.raises(
            (ValueError, FileNotFoundError),
            match=r"not written yet; run the command|got no manifest",
        ):
            ClipShards(folder)
    kept = {name: stamps(folder)[name] for name in NAMES[:begun]}
    assert write(folder, **SMALL) == NAMES[begun:]
    assert state(folder) == state(made)  # so no temporary file is left either
    assert stamps(folder).items() >= kept.items() and verify(folder) == []


@FORK
def test_the_last_kill_above_is_the_last_there_is(tmp_path):
    assert cut(tmp_path, 12, False) == 7


def test_a_full_disk_is_told_and_what_is_there_stays(made, tmp_path, monkeypatch):
    calls, sync = [], os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match=r"cannot write .* No space left .*free some space"),
    ):
        patch.setattr(os, "fsync", full)
        write(tmp_path, **SMALL)
    kept = stamps(tmp_path)
    assert 0 < len(kept) < 5 and not list(tmp_path.glob(".*.tmp"))
    assert write(tmp_path, **SMALL) and state(tmp_path) == state(made)
    assert stamps(tmp_path).items() >= dict(sorted(kept.items())[:-1]).items()


def test_two_writers_do_not_share_a_folder(copy):
    with files.lock(copy), pytest.raises(files.Locked, match="is in use by process"):
        write(copy, **SMALL)


# What is damaged


def damages():
    rng = np.random.default_rng(0)
    size = 5 * 4 * 3 * 16 * 16
    for at in (0, 7, 8, 100, -1, *rng.integers(0, size, 5).tolist()):
        yield pytest.param(partial(flip, at=at), "has another checksum", id=f"byte {at}")
    yield pytest.param(
        lambda path: path.write_bytes(path.read_bytes()[:-1]), r"has \d+ bytes, not \d+", id="cut"
    )
    yield pytest.param(
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        r"has \d+ bytes, not \d+",
        id="longer",
    )
    yield pytest.param(lambda path: path.write_bytes(b""), "has 0 bytes, not", id="empty")
    yield pytest.param(lambda path: path.unlink(), "is missing", id="missing")
    yield pytest.param(
        lambda path: shutil.copy(path.with_name(NAMES[0]), path),
        "has another checksum",
        id="of another shard",
    )


@pytest.mark.parametrize(("damage", "told"), [*damages()])
def test_a_damaged_shard_is_found_and_named_and_made_again_alone(made, copy, damage, told):
    before = stamps(copy)
    damage(copy / NAMES[2])
    (line,) = verify(copy)
    assert re.fullmatch(
        rf"{copy / NAMES[2]} {told}.*; run the command that wrote it again, .*", line
    )
    assert write(copy, **SMALL) == [NAMES[2]] and state(copy) == state(made) and verify(copy) == []
    after = stamps(copy)
    assert {name for name in NAMES if before[name] != after[name]} == {NAMES[2]}


def test_several_damaged_shards_are_all_named(made, copy):
    flip(copy / NAMES[0], 500), (copy / NAMES[3]).unlink(), flip(copy / NAMES[4], -1)
    (copy / "00005.safetensors").write_bytes(b"")
    said = verify(copy)
    assert [line.split(" ")[0] for line in said] == [
        str(copy / name) for name in (NAMES[0], NAMES[3], NAMES[4], "00005.safetensors")
    ]
    assert "is not of this data set; delete it or move it elsewhere" in said[3]
    (copy / "00005.safetensors").unlink()
    assert write(copy, **SMALL) == [NAMES[0], NAMES[3], NAMES[4]] and state(copy) == state(made)


def test_a_shard_that_cannot_be_made_the_same_again_is_not_put_in_its_place(copy, monkeypatch):
    (copy / NAMES[1]).unlink()
    before = state(copy)
    monkeypatch.setattr(
        shards, "render_clips", lambda *a, **k: render_clips(*a, **k).flip(-1).contiguous()
    )
    with pytest.raises(
        ValueError, match=f"{NAMES[1]}: made again it differs; take the infomin and machine"
    ):
        write(copy, **SMALL)
    assert state(copy) == before


@pytest.mark.parametrize("at", range(0, 1100, 97))
def test_a_manifest_in_which_a_byte_changed_is_not_believed(copy, at):
    data = bytearray((copy / "manifest.json").read_bytes())
    while chr(data[at]).isspace():
        at += 1
    data[at] ^= 1
    (copy / "manifest.json").write_bytes(data)
    for use in (verify, ClipShards, partial(write, **SMALL)):
        with pytest.raises(
            ValueError,
            match=r"manifest.json: got a damaged manifest, or .*; delete .* and write it anew",
        ):
            use(copy)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{}", '{"sha256": 0}', "null", "{", '{"config": {}, "shards": {}}']
)
def test_something_else_is_no_manifest(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    for use in (verify, ClipShards, partial(write, **SMALL)):
        with pytest.raises(ValueError, match=r"manifest.json: got a damaged manifest"):
            use(tmp_path)


def test_another_version_is_left_to_another_infomin(copy, monkeypatch):
    monkeypatch.setattr(shards, "VERSION", 2)
    for use in (verify, ClipShards, partial(write, **SMALL)):
        with pytest.raises(
            ValueError, match="got version 1, wanted 2; take the infomin that wrote it"
        ):
            use(copy)


def test_shards_without_a_manifest_are_not_written_over(copy):
    (copy / "manifest.json").unlink()
    before = state(copy)
    with pytest.raises(
        ValueError,
        match=r"got a folder with safetensors files and no manifest\.json, wanted a new one; choose",
    ):
        write(copy, **SMALL)
    for use in (verify, ClipShards):
        with pytest.raises(
            FileNotFoundError,
            match=r"got no manifest\.json, wanted a data set of clips; correct the path",
        ):
            use(copy)
    assert state(copy) == before


# What is asked for


OTHER = {
    "clips": 23,
    "shard": 6,
    "frames": 5,
    "size": 17,
    "digit": 9,
    "speed": 0.2,
    "digits_per_clip": 2,
    "dim": 0.6,
    "seed": 1,
}


@pytest.mark.parametrize("name", [*OTHER, "part"])
def test_a_folder_of_another_configuration_is_refused_and_the_difference_said(made, copy, name):
    new, old = (
        OTHER.get(name, "test"),
        (SMALL | {"speed": 0.1, "digits_per_clip": 1, "dim": 0.5, "seed": 0, "part": "train"})[
            name
        ],
    )
    with pytest.raises(
        ValueError,
        match=rf"the folder holds another data set, got {name} {new!r} for {old!r}; choose another",
    ):
        write(copy, **SMALL | {name: new})
    assert state(copy) == state(made)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"clips": 0}, r"write\(clips\): got 0"),
        ({"clips": 2.0}, r"write\(clips\): got 2.0, wanted int"),
        ({"shard": -1}, r"write\(shard\): got -1"),
        ({"frames": 0}, r"write\(frames\): got 0"),
        ({"digits_per_clip": 8192}, r"digits\): got 8192"),
        ({"digits_per_clip": True}, r"write\(digits_per_clip\): got True"),
        ({"seed": -1}, r"write\(seed\): got -1"),
        ({"seed": "0"}, r"write\(seed\): got '0', wanted int"),
        ({"speed": float("nan")}, r"write\(speed\): got nan"),
        ({"speed": -0.1}, r"write\(speed\): got -0.1"),
        ({"dim": 2}, "brightness of 0 to 1"),
        ({"size": 7}, "got 7, wanted 8 to 256 px"),
        ({"part": "valid"}, r"write\(part\): got 'valid', wanted one of train, test"),
        ({"digits": "letters"}, "digits: got 'letters'"),
        ({"backgrounds": "photo"}, "backgrounds: got 'photo'"),
    ],
    ids=str,
)
def test_mistakes_are_told_before_there_is_a_folder(tmp_path, wrong, told):
    with pytest.raises(ValueError, match=told):
        write(tmp_path / "new", **SMALL | wrong)
    assert not (tmp_path / "new").exists()


def test_a_whole_number_for_another_makes_no_difference(tmp_path):
    (
        write(tmp_path / "whole", **SMALL, speed=1, dim=1),
        write(tmp_path / "other", **SMALL, speed=1.0, dim=1.0),
    )
    assert (
        state(tmp_path / "whole") == state(tmp_path / "other")
        and write(tmp_path / "whole", **SMALL, speed=1.0, dim=1) == []
    )


# Other pictures


def idx(values):
    return (
        bytes([0, 0, 8, values.ndim])
        + b"".join(n.to_bytes(4, "big") for n in values.shape)
        + values.tobytes()
    )


@pytest.fixture
def pictures(tmp_path):
    """The words for a set in MNIST's format and for a folder of JPEG photographs, some of them large."""
    rng = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    for part, n in (("train", 40), ("t10k", 20)):
        (tmp_path / "set" / f"{part}-images-idx3-ubyte").write_bytes(
            idx(rng.integers(0, 256, (n, 28, 28), np.uint8))
        )
        (tmp_path / "set" / f"{part}-labels-idx1-ubyte").write_bytes(
            idx((np.arange(n) % 10).astype(np.uint8))
        )
    for i in range(12):
        path = tmp_path / "photographs" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((1600, 1200) if i < 4 else (120, 90)).save(path)
    sources._worlds.cache_clear()
    return {"digits": f"idx:{tmp_path}/set", "backgrounds": f"folder:{tmp_path}/photographs"}


@FORK
def test_idx_files_and_photographs_take_the_same_path_by_two_arguments(
    tmp_path, pictures, monkeypatch
):
    write(tmp_path / "whole", **SMALL, **pictures)
    (
        monkeypatch.setitem(SMALL, "digits", pictures["digits"]),
        monkeypatch.setitem(SMALL, "backgrounds", pictures["backgrounds"]),
    )
    assert cut(tmp_path / "cut", 6, False) == -signal.SIGKILL
    assert write(tmp_path / "cut", **SMALL) == NAMES[2:] and state(tmp_path / "cut") == state(
        tmp_path / "whole"
    )
    flip(tmp_path / "cut" / NAMES[1], 999), (tmp_path / "cut" / NAMES[3]).unlink()
    assert len(verify(tmp_path / "cut")) == 2 and write(tmp_path / "cut", **SMALL) == [
        NAMES[1],
        NAMES[3],
    ]
    assert state(tmp_path / "cut") == state(tmp_path / "whole")
    data = ClipShards(tmp_path / "cut")
    assert (
        data.classes == {"digit": 10, "background": 2}
        and sum(1 for _ in DataLoader(data, batch_size=8)) == 3
    )
    preview(tmp_path / "cut", tmp_path / "clips.gif")


def test_pictures_that_changed_behind_their_name_are_noticed(tmp_path, pictures):
    write(tmp_path / "out", **SMALL, **pictures)
    assert write(tmp_path / "out", **SMALL, **pictures) == []
    images = tmp_path / "set" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100] + bytes(100))
    sources._worlds.cache_clear()
    with pytest.raises(
        ValueError,
        match="holds another data set, got other pictures by the same names, or a processor",
    ):
        write(tmp_path / "out", **SMALL, **pictures)


# Reading


def same(one, other):
    return torch.equal(one[0], other[0]) and all(
        torch.equal(one[1][name], other[1][name]) for name in ("digit", "background", "positions")
    )


def test_an_item_is_a_clip_and_its_labels(made):
    data, wanted = ClipShards(made), stored(made)
    assert len(data) == 24 and data.config["frames"] == 4
    for i in [
        *torch.randperm(24, generator=torch.Generator().manual_seed(0)).tolist(),
        np.int64(3),
        torch.tensor(4),
    ]:
        frames, labels = data[i]
        assert frames.dtype == torch.uint8 and torch.equal(frames, wanted["frames"][i])
        assert list(labels) == ["digit", "background", "positions"]
        assert all(torch.equal(label, wanted[name][i]) for name, label in labels.items())
    assert same(data[-1], data[23]) and same(data[-24], data[0]) and len(list(data)) == 24
    for i in (24, -25):
        with pytest.raises(IndexError, match=f"got the index {i}, wanted -24 to 23"):
            data[i]
    with pytest.raises(TypeError):
        data[1.5]


def test_an_item_is_its_own(made):
    """What is written to it is not read again, and no more than it is sent to another process."""
    data = ClipShards(made)
    frames, labels = data[7]
    assert frames.untyped_storage().nbytes() == frames.numel()
    for value in (frames, *labels.values()):
        value.fill_(1)
    assert not same(data[7], (frames, labels)) and same(data[7], ClipShards(made)[7])


def test_nothing_is_unpickled_and_nothing_open_is_pickled(made, monkeypatch):
    data = ClipShards(made)
    assert data._open == {} and data[0] and data[12] and set(data._open) == {0, 2}
    bits = pickle.dumps(data)
    again = pickle.loads(bits)
    assert len(bits) < 2000 and again._open == {} and same(again[12], data[12])
    monkeypatch.setattr(pickle, "Unpickler", None), monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(torch, "load", None)
    assert verify(made) == [] and len(list(ClipShards(made))) == 24


@FORK
@pytest.mark.filterwarnings(
    "ignore:This DataLoader will create:UserWarning"
)  # on a machine of one core
@pytest.mark.parametrize(("workers", "way"), [(0, None), (2, "fork"), (1, "spawn")])
def test_workers_read_each_clip_once(made, workers, way):
    data, wanted = ClipShards(made), stored(made)
    assert data[0] and data._open  # so that workers that are forked take an open shard along
    loader = DataLoader(data, batch_size=7, num_workers=workers, multiprocessing_context=way)
    frames, labels = zip(*loader, strict=True)
    assert torch.equal(torch.cat(frames), wanted["frames"]) and [len(some) for some in frames] == [
        7,
        7,
        7,
        3,
    ]
    assert all(
        torch.equal(torch.cat([some[name] for some in labels]), wanted[name])
        for name in ClipShards.LABELS
    )


@pytest.mark.parametrize("epoch", [0, 1])
def test_ranks_share_the_clips_out(made, epoch):
    data, found, orders = ClipShards(made), [], []
    for rank in range(3):
        sampler = DistributedSampler(data, num_replicas=3, rank=rank, shuffle=True, seed=5)
        sampler.set_epoch(epoch)
        orders += list(sampler)
        found += [
            frames
            for batch, _ in DataLoader(ClipShards(made), batch_size=3, sampler=sampler)
            for frames in batch
        ]
        assert len(orders) == 8 * (rank + 1)
    assert sorted(orders) == list(range(24)) and torch.equal(
        torch.stack(found), stored(made)["frames"][orders]
    )


def test_a_shard_that_is_lost_or_torn_is_told_when_the_set_is_opened(copy):
    (copy / NAMES[1]).unlink(), (copy / NAMES[4]).write_bytes(b"")
    with pytest.raises(
        ValueError,
        match=rf"got 2 of 5 shards .*{NAMES[1]} is missing, .*{NAMES[4]} has 0 bytes, .*; run the command",
    ):
        ClipShards(copy)


def test_a_shard_whose_header_is_damaged_is_told_when_it_is_read(copy):
    data = ClipShards(copy)
    flip(copy / NAMES[1], 7)
    assert data[4] and data[10]
    with pytest.raises(
        ValueError,
        match=rf"{NAMES[1]}: got a file that cannot be read \(.*\), wanted a shard; run the command",
    ):
        data[5]


# Looking


@pytest.mark.parametrize("clips", [1, 3, 8, 99])
def test_a_sheet_shows_each_clip_in_a_row(made, tmp_path, clips):
    preview(made, tmp_path / "new" / "sheet.PNG", clips)
    pixels, n = (
        torch.from_numpy(np.array(Image.open(tmp_path / "new" / "sheet.PNG"))),
        min(clips, 24),
    )
    assert pixels.shape == (2 + 18 * n, 2 + 18 * 4, 3)
    cells = pixels[2:, 2:].unflatten(0, (n, 18)).unflatten(2, (4, 18)).permute(0, 2, 4, 1, 3)
    assert torch.equal(cells[..., :16, :16], stored(made)["frames"][:n])
    assert (cells[..., 16:, :] == 255).all() and (pixels[:2] == 255).all()


@pytest.mark.parametrize(("clips", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (8, 2, 4)])
def test_a_gif_moves(made, tmp_path, clips, rows, columns):
    preview(made, tmp_path / "clips.gif", clips)
    gap = 2 if clips > 1 else 0
    with Image.open(tmp_path / "clips.gif") as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (4, 100, 0)
        assert gif.size == (gap + (16 + gap) * columns, gap + (16 + gap) * rows)
        for t in range(4):
            gif.seek(t)
            shown = (
                np.array(gif.convert("RGB"))[gap : gap + 16, gap : gap + 16]
                .transpose(2, 0, 1)
                .astype(float)
            )
            wanted = stored(made)["frames"][0].numpy().astype(float)
            errors = [np.abs(shown - frame).mean() for frame in wanted]
            assert errors[t] < 5 and errors[t] == min(errors)  # a GIF has 256 colours


def test_what_cannot_be_shown_is_told(made, copy, tmp_path):
    with pytest.raises(ValueError, match=r"preview\(path\): got '.jpg', wanted one of .gif, .png"):
        preview(made, tmp_path / "clips.jpg")
    with pytest.raises(ValueError, match=r"preview\(clips\): got 0"):
        preview(made, tmp_path / "clips.gif", 0)
    (copy / NAMES[0]).unlink()
    with pytest.raises(ValueError, match="is missing; run the command that wrote it again"):
        preview(copy, tmp_path / "clips.gif")
    assert not list(tmp_path.glob("clips.*"))


FEW = SMALL | {"clips": 4, "shard": 2, "frames": 2}


@pytest.mark.parametrize("bank", ["digits", "digit_class", "backgrounds", "background_class"])
def test_a_change_of_any_bank_is_another_data_set(bank, tmp_path, monkeypatch):
    """Also of the labels alone: the shards that are still to come would have others than those that are there."""
    draws = torch.Generator().manual_seed(0)
    world = World(
        torch.randint(256, (6, 8, 8), dtype=torch.uint8, generator=draws),
        torch.arange(6) % 2,
        torch.randint(256, (4, 3, 20, 20), dtype=torch.uint8, generator=draws),
        torch.arange(4) % 2,
        size=16,
    )
    monkeypatch.setattr("infomin.data.shards.load_worlds", lambda *_: (world, world))
    assert len(write(tmp_path / "out", **FEW)) == 2 and write(tmp_path / "out", **FEW) == []
    other = replace(world, **{bank: getattr(world, bank).flip(0)})
    monkeypatch.setattr("infomin.data.shards.load_worlds", lambda *_: (other, other))
    with pytest.raises(
        ValueError, match="holds another data set, got other pictures by the same names"
    ):
        write(tmp_path / "out", **FEW)


def test_to_read_clips_takes_no_checksum_and_to_verify_does(tmp_path):
    write(tmp_path / "out", **FEW)
    path = tmp_path / "out" / "00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert len(ClipShards(tmp_path / "out")) == 4 and len(verify(tmp_path / "out")) == 1
