"""Fixtures of the tests of data."""

import os
import pickle
import shutil

import pytest
from picture_files import numbered
from shard_files import NAMES, SMALL

from infomin.data import sources
from infomin.data.shards import write


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """Remember hashes of files in a folder of this test's own; returns it."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache


@pytest.fixture
def numbered_files(tmp_path):
    """Forty plain PNG files in two classes; returns their paths by number."""
    paths = [tmp_path / "ab"[n % 2] / f"{n:02d}.png" for n in range(40)]
    for n, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        numbered(n).save(path)
    return paths


@pytest.fixture
def own_data_root(monkeypatch, tmp_path):
    """Read data from this test's folder, without a cache, the network or unpickling."""
    sources._worlds.cache_clear()
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path))
    monkeypatch.setattr("socket.socket", None)
    monkeypatch.setattr(pickle, "Unpickler", None)
    monkeypatch.setattr(pickle, "loads", None)


@pytest.fixture
def no_fsync(monkeypatch):
    """Do not wait for the disk: no test can see a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set of clips that no test may change."""
    folder = tmp_path_factory.mktemp("clips")
    assert write(folder, **SMALL) == NAMES
    return folder


@pytest.fixture
def copy(made, tmp_path):
    """A data set of clips of the test's own."""
    return shutil.copytree(made, tmp_path / "copy")
