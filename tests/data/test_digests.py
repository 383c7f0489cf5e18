"""Digests of data on disk: other files are another run."""

import os
import shutil

import numpy as np
import pytest
from picture_files import noise
from PIL import Image

from infomin import Recipe
from infomin.data import digests
from infomin.data.digests import clip_sources, data_digest
from infomin.data.image_folder import find_images


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("clips:mnist@photos", ("mnist", "photos")),
        ("clips:folder:a@b@photos", ("folder:a@b", "photos")),
        ("clips:digits@folder:/x@photos", ("digits", "folder:/x@photos")),
        ("clips:folder:a@photosets@stl10", ("folder:a@photosets", "stl10")),
        ("clips:mnist@fotos", ("mnist", "fotos")),
        ("clips:mnist", ("mnist", "")),
        ("clips:@photos", ("", "photos")),
    ],
)
def test_a_path_may_contain_an_at_sign(name, pair):
    assert clip_sources(name) == pair


def test_other_files_are_another_run(numbered_files, tmp_path):
    def key():
        return Recipe(data=f"folder:{tmp_path}").key

    first = key()
    assert key() == first
    keys = [first]
    shutil.copy(numbered_files[0], tmp_path / "a" / "more.png")
    keys.append(key())
    noise(99, 99).save(tmp_path / "a" / "more.png")
    keys.append(key())
    numbered_files[0].unlink()
    keys.append(key())
    assert len(set(keys)) == 4
    shutil.copytree(tmp_path, tmp_path.parent / "moved", dirs_exist_ok=True)
    digest = data_digest(f"folder:{tmp_path}")
    assert digest == data_digest(f"folder:{tmp_path.parent}/moved")
    assert digest != data_digest("folder:nowhere")
    os.symlink("nowhere.png", tmp_path / "a" / "link.png")  # an error only when it is read
    assert key() not in keys


def test_of_many_files_few_are_opened(numbered_files, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(digests, "READ", 8)
    monkeypatch.setattr(digests, "_ends", lambda path: opened.append(path) or "")
    data_digest(f"folder:{tmp_path}")
    assert opened == find_images(tmp_path)[::5]


def test_pictures_of_one_size_differ_by_their_content(tmp_path):
    path, found = tmp_path / "plain.bmp", []
    for shade in (0, 1, 1):
        Image.fromarray(np.full((40, 40, 3), shade, np.uint8)).save(path)
        found.append((data_digest(f"folder:{tmp_path}"), path.stat().st_size))
    dark, light, light_again = found
    assert dark != light == light_again and dark[1] == light[1]


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "z.png")
    assert len(data_digest(f"folder:{tmp_path}")) == 64
