"""Laws of all data sets: what `load` returns is the caller's, and the parts share nothing."""

import dataclasses
import hashlib
import io
import math
import tarfile

import numpy as np
import pytest
import torch
from idx_files import write_set
from picture_files import write_glyphs
from torchvision import datasets as downloads

from infomin.data import bundled, datasets, stl10_cifar10
from infomin.data.datasets import load
from infomin.data.image_files import ImageFiles
from infomin.data.sources import load_worlds

torch.set_num_threads(1)
BUNDLED = ("digits", "photos", "clips")


@pytest.fixture
def no_kept_sets():
    """Make data sets anew in this test, and again in the next."""
    kept = (datasets._digit_scenes, datasets._photo_patches, datasets._clips)
    for make in kept:
        make.cache_clear()
    yield
    for make in kept:
        make.cache_clear()


def write_stl10(root, monkeypatch):
    rng, folder = np.random.default_rng(0), root / "stl10_binary"
    folder.mkdir()
    for part, n in (("train", 6), ("unlabeled", 5), ("test", 4)):
        rng.integers(0, 256, (n, 3, 96, 96), np.uint8).tofile(folder / f"{part}_X.bin")
        (np.arange(n) % 3 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    monkeypatch.setattr(downloads.STL10, "_check_integrity", lambda self: True)


def write_cifar10(root, monkeypatch):
    rng, archive = np.random.default_rng(1), root / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
            records = rng.integers(0, 10, (3, 3073), np.uint8).tobytes()
            member = tarfile.TarInfo(f"{name}.bin")
            member.size = len(records)
            tar.addfile(member, io.BytesIO(records))
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(stl10_cifar10, "CIFAR10", (stl10_cifar10.CIFAR10[0], md5))


@pytest.fixture
def everything(own_data_root, no_kept_sets, tmp_path, monkeypatch):
    """The name of each kind of data set -> how to load it; those on disk are tiny."""
    write_stl10(tmp_path, monkeypatch)
    write_cifar10(tmp_path, monkeypatch)
    write_set(tmp_path / "MNIST" / "raw")
    write_glyphs(tmp_path / "glyphs", 60)
    monkeypatch.setattr(datasets, "TRAIN", 50)
    monkeypatch.setattr(datasets, "TEST", 40)
    folder = f"folder:{tmp_path}/glyphs"
    names = [*BUNDLED, "stl10", "cifar10", folder, "clips:mnist@stl10", f"clips:{folder}@{folder}"]
    makers = {name.partition(":")[0]: lambda name=name: load(name, 32) for name in names[:-2]}
    makers["clips of sets"] = lambda: load(names[-2], 32)
    makers["clips of folders"] = lambda: load(names[-1], 32)
    makers["bundled worlds"] = lambda: bundled.bundled_worlds(32)
    makers["worlds of sets"] = lambda: load_worlds("mnist", "stl10", 32, 14)
    return makers


def tensors_in(value):
    """All tensors that can be reached from what `load` returns."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, ImageFiles):
        return [value[:]]
    if isinstance(value, dict):
        value = list(value.values())
    elif dataclasses.is_dataclass(value):
        images = [value.images] if isinstance(value, datasets.Split) else []
        value = [*images, *vars(value).values()]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_in(part)]
    return []


KINDS = (*BUNDLED, "stl10", "cifar10", "folder")
KINDS += ("clips of sets", "clips of folders", "bundled worlds", "worlds of sets")


@pytest.mark.parametrize("kind", KINDS)
def test_what_load_returns_cannot_change_what_it_returns_later(kind, everything):
    make = everything[kind]
    wanted = [tensor.clone() for tensor in tensors_in(make())]
    for tensor in tensors_in(make()):
        tensor.numpy()[...] = 77
    found = tensors_in(make())
    assert len(wanted) == len(found) > 3
    assert all(map(torch.equal, wanted, found))


@pytest.mark.parametrize("name", BUNDLED)
def test_the_parts_of_a_bundled_set_are_drawn_independently(name, no_kept_sets, monkeypatch):
    """With one seed, numbers of one part would come again in the other, for other factors even."""
    seeds = []

    def recording(draw):
        def recorded(world, n, source):
            seeds.append(source if isinstance(source, int) else source.initial_seed())
            return draw(world, n, source)

        return recorded

    for draw in ("draw_scenes", "draw_clips"):
        monkeypatch.setattr(datasets, draw, recording(getattr(datasets, draw)))
    train, test = load(name, 32)
    assert len(set(seeds)) == len(seeds) == 2
    n = len(test)
    for task, labels in test.labels.items():
        same = (train.labels[task][:n] == labels).view(n, -1).all(1).double().mean()
        classes = math.inf if labels.is_floating_point() else int(labels.max()) + 1
        assert abs(same - 1 / classes) < 0.02, task
