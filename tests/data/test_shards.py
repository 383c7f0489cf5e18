"""Writing clips: every byte is a function of the configuration, even after interruptions."""

import errno
import json
import os
import signal
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from idx_files import write_idx
from PIL import Image
from shard_files import NAMES, SMALL, flip, stamps, state, stored
from torch.utils.data import DataLoader

from infomin.common import files
from infomin.common.checkpoint import fingerprint
from infomin.data import shards, sources
from infomin.data.moving_mnist import Clips, draw_clips, positions, render_clips
from infomin.data.scenes import World
from infomin.data.shards import FIRST_CLIP, ClipShards, preview, verify, write
from infomin.data.sources import load_worlds

torch.set_num_threads(1)
# Python warns of a fork where there are threads.
FORK = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
pytestmark = pytest.mark.usefixtures("no_fsync")


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
    defaults = {"part": "train", "seed": 0, "digits_per_clip": 1, "speed": 0.1, "dim": 0.5}
    config = defaults | SMALL | more
    write(tmp_path, **SMALL | more)
    train, test = load_worlds(size=16, digit=8, dim=config["dim"])
    world, times = test if config["part"] == "test" else train, range(config["frames"])
    clips = draw_clips(
        world,
        config["clips"],
        config["seed"],
        first=FIRST_CLIP[config["part"]],
        digits=config["digits_per_clip"],
        speed=config["speed"],
    )
    expected = {
        "frames": render_clips(clips, times, dtype=torch.uint8),
        "positions": positions(clips, times).float(),
        **clips.tensors(),
    }
    found = stored(tmp_path)
    assert found.keys() == expected.keys()
    assert found["frames"].shape == (config["clips"], config["frames"], 3, 16, 16)
    for name, value in expected.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype
    from_factors = Clips(world, **{name: found[name] for name in clips.tensors()})
    assert torch.equal(render_clips(from_factors, times, dtype=torch.uint8), found["frames"])


@pytest.mark.parametrize("shard", [1, 7, 24, 1000])
def test_clips_do_not_depend_on_the_size_of_shards(made, tmp_path, shard):
    assert len(write(tmp_path, **SMALL | {"shard": shard})) == -(-24 // shard)
    one, other = stored(made), stored(tmp_path)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_test_and_another_seed_share_no_path(made, tmp_path):
    write(tmp_path / "test", **SMALL, part="test")
    write(tmp_path / "seed", **SMALL, seed=1)
    folders = (made, tmp_path / "test", tmp_path / "seed")
    starts = torch.cat([stored(folder)["start"] for folder in folders])
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
    """Clips of a world in which nothing is read or scaled, as the first version wrote them."""
    ink = torch.arange(3 * 64).view(3, 8, 8).byte()
    photos = torch.arange(2 * 3 * 400).view(2, 3, 20, 20).byte()
    world = World(ink, torch.tensor([0, 1, 1]), photos, torch.tensor([0, 1]), size=16)
    monkeypatch.setattr(shards, "load_worlds", lambda *_: (world, world))
    write(tmp_path, **SMALL, part=part)
    assert (shards.VERSION, fingerprint(stored(tmp_path))) == (1, known)


def test_the_manifest_says_what_was_written(made):
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["config"] == {
        "speed": 0.1,
        "digits_per_clip": 1,
        "dim": 0.5,
        "seed": 0,
        "part": "train",
        "digits": "digits",
        "backgrounds": "photos",
        **SMALL,
    }
    entries = manifest["shards"]
    assert list(entries) == NAMES
    assert [entry["clips"] for entry in entries.values()] == [5, 5, 5, 5, 4]
    for name, entry in entries.items():
        assert entry["bytes"] == (made / name).stat().st_size
    backgrounds = load_worlds(size=16, digit=8)[0].background_class.unique()
    assert manifest["classes"] == {"digit": 10, "background": len(backgrounds)}


def test_no_more_than_a_shard_is_in_memory(tmp_path, monkeypatch):
    rendered = []

    def recording(clips, *args, **options):
        rendered.append(len(clips))
        return render_clips(clips, *args, **options)

    monkeypatch.setattr(shards, "render_clips", recording)
    peaks, shard_bytes = [], 50 * 16 * 3 * 16 * 16
    load_worlds(size=16, digit=8)  # cached, so that only writing is measured
    for clips in (50, 100, 1000):
        tracemalloc.start()  # it sees the bytes that are written, but no tensors
        write(tmp_path / str(clips), **SMALL | {"clips": clips, "shard": 50, "frames": 16})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert set(rendered) == {50} and len(rendered) == 1 + 2 + 20
    assert all(shard_bytes < peak < 1.5 * shard_bytes for peak in peaks)


# Interruptions


def write_and_die(folder, call, after):
    """Write in a process that kills itself at a call of os.replace, before or after its work."""
    child = os.fork()
    if child == 0:
        calls, os_replace = [], os.replace

        def dying(*paths):
            calls.append(paths)
            if after:
                os_replace(*paths)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            if not after:
                os_replace(*paths)

        os.replace = dying
        try:
            write(folder, **SMALL)
        finally:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@FORK
@pytest.mark.parametrize("after", [False, True])
# The manifest, and then a shard and the manifest five times.
@pytest.mark.parametrize("call", range(1, 12))
def test_killed_at_any_time_and_started_again_it_writes_the_same(made, tmp_path, call, after):
    folder = tmp_path / "cut"
    assert write_and_die(folder, call, after) == -signal.SIGKILL
    done = max(0, call - 2 + after) // 2  # shards that the manifest lists
    if call > 1 or after:
        problems = verify(folder)
        assert [line.split(" ")[0].rsplit("/", 1)[1] for line in problems] == NAMES[done:]
        message = "is not written yet; run the command that wrote it again"
        assert all(message in line for line in problems)
    if done < 5:
        message = r"not written yet; run the command|got no manifest"
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            ClipShards(folder)
    kept = {name: stamps(folder)[name] for name in NAMES[:done]}
    assert write(folder, **SMALL) == NAMES[done:]
    assert state(folder) == state(made)  # so no temporary file is left either
    assert stamps(folder).items() >= kept.items() and verify(folder) == []


@FORK
def test_the_last_kill_above_is_the_last_there_is(tmp_path):
    assert write_and_die(tmp_path, 12, False) == 7


def test_a_full_disk_is_an_error_and_complete_shards_stay(made, tmp_path, monkeypatch):
    calls, sync = [], os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    message = r"cannot write .* No space left .*free some space"
    with monkeypatch.context() as patch, pytest.raises(OSError, match=message):
        patch.setattr(os, "fsync", full)
        write(tmp_path, **SMALL)
    kept = stamps(tmp_path)
    assert 0 < len(kept) < 5 and not list(tmp_path.glob(".*.tmp"))
    assert write(tmp_path, **SMALL) and state(tmp_path) == state(made)
    assert stamps(tmp_path).items() >= dict(sorted(kept.items())[:-1]).items()


def test_two_writers_do_not_share_a_folder(copy):
    with files.lock(copy), pytest.raises(files.Locked, match="is in use by process"):
        write(copy, **SMALL)


# Another configuration


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
    "part": "test",
}


@pytest.mark.parametrize("name", OTHER)
def test_a_folder_of_another_configuration_is_an_error_that_names_the_difference(made, copy, name):
    defaults = {"speed": 0.1, "digits_per_clip": 1, "dim": 0.5, "seed": 0, "part": "train"}
    new, old = OTHER[name], (SMALL | defaults)[name]
    message = rf"the folder holds another data set, got {name} {new!r} for {old!r}; choose another"
    with pytest.raises(ValueError, match=message):
        write(copy, **SMALL | {name: new})
    assert state(copy) == state(made)


@pytest.mark.parametrize(
    ("wrong", "message"),
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
def test_mistakes_are_errors_before_the_folder_is_created(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "new", **SMALL | wrong)
    assert not (tmp_path / "new").exists()


def test_integers_and_equal_floats_are_the_same_configuration(tmp_path):
    write(tmp_path / "whole", **SMALL, speed=1, dim=1)
    write(tmp_path / "other", **SMALL, speed=1.0, dim=1.0)
    assert state(tmp_path / "whole") == state(tmp_path / "other")
    assert write(tmp_path / "whole", **SMALL, speed=1.0, dim=1) == []


# Other pictures


@pytest.fixture
def pictures(tmp_path):
    """Words for a set in MNIST's format and a folder of JPEG photographs, some of them large."""
    rng = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    for part, n in (("train", 40), ("t10k", 20)):
        images = rng.integers(0, 256, (n, 28, 28), np.uint8)
        write_idx(tmp_path / "set" / f"{part}-images-idx3-ubyte", images)
        labels = (np.arange(n) % 10).astype(np.uint8)
        write_idx(tmp_path / "set" / f"{part}-labels-idx1-ubyte", labels)
    for i in range(12):
        path = tmp_path / "photographs" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((1600, 1200) if i < 4 else (120, 90)).save(path)
    sources._worlds.cache_clear()
    return {"digits": f"idx:{tmp_path}/set", "backgrounds": f"folder:{tmp_path}/photographs"}


@FORK
def test_two_arguments_replace_digits_and_backgrounds(tmp_path, pictures, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole, **SMALL, **pictures)
    for name, word in pictures.items():
        monkeypatch.setitem(SMALL, name, word)
    assert write_and_die(cut, 6, False) == -signal.SIGKILL
    assert write(cut, **SMALL) == NAMES[2:] and state(cut) == state(whole)
    flip(cut / NAMES[1], 999)
    (cut / NAMES[3]).unlink()
    assert len(verify(cut)) == 2
    assert write(cut, **SMALL) == [NAMES[1], NAMES[3]]
    assert state(cut) == state(whole)
    data = ClipShards(cut)
    assert data.classes == {"digit": 10, "background": 2}
    assert sum(1 for _ in DataLoader(data, batch_size=8)) == 3
    preview(cut, tmp_path / "clips.gif")


def test_pictures_that_changed_under_their_name_are_noticed(tmp_path, pictures):
    out = tmp_path / "out"
    write(out, **SMALL, **pictures)
    assert write(out, **SMALL, **pictures) == []
    images = tmp_path / "set" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100] + bytes(100))
    sources._worlds.cache_clear()
    message = "holds another data set, got other pictures under the same names, or a CPU"
    with pytest.raises(ValueError, match=message):
        write(out, **SMALL, **pictures)


@pytest.mark.parametrize("bank", ["digits", "digit_class", "backgrounds", "background_class"])
def test_a_change_of_any_bank_is_another_data_set(bank, tmp_path, monkeypatch):
    """Also of the labels alone: later shards would have other labels than earlier ones."""
    g = torch.Generator().manual_seed(0)
    world = World(
        torch.randint(256, (6, 8, 8), dtype=torch.uint8, generator=g),
        torch.arange(6) % 2,
        torch.randint(256, (4, 3, 20, 20), dtype=torch.uint8, generator=g),
        torch.arange(4) % 2,
        size=16,
    )
    two_shards = SMALL | {"clips": 4, "shard": 2, "frames": 2}
    monkeypatch.setattr(shards, "load_worlds", lambda *_: (world, world))
    assert len(write(tmp_path, **two_shards)) == 2 and write(tmp_path, **two_shards) == []
    other = replace(world, **{bank: getattr(world, bank).flip(0)})
    monkeypatch.setattr(shards, "load_worlds", lambda *_: (other, other))
    message = "holds another data set, got other pictures under the same names"
    with pytest.raises(ValueError, match=message):
        write(tmp_path, **two_shards)
