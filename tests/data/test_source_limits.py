"""Limits of the sources of Moving-MNIST: memory, words and numbers."""

import math
from pathlib import Path

import pytest
import torch
from idx_files import write_set
from picture_files import write_glyphs

from infomin.data import sources
from infomin.data.sources import load_worlds

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("own_data_root")


# --- what fits into memory ---


def sampled_per_class(counts: list[int], most: int) -> list[int]:
    """A slow oracle: one of each class in turn, until there are enough."""
    taken = [0] * len(counts)
    while sum(taken) < min(most, sum(counts)):
        for c, n in enumerate(counts):
            if taken[c] < n and sum(taken) < most:
                taken[c] += 1
    return taken


@pytest.mark.parametrize("most", [3, 4, 7, 11, 20, 33, 34, 99])
def test_a_sample_is_even_over_the_classes(most: int) -> None:
    def generator(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    counts = [3, 20, 11]
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(34, generator=generator(0))]
    rows = sources._sample_evenly(labels, most, generator(1))
    taken = labels[rows].bincount(minlength=3).tolist()
    assert sorted(taken) == sorted(sampled_per_class(counts, most))  # the last round is random
    assert all(n == count or n >= max(taken) - 1 for n, count in zip(taken, counts, strict=True))
    assert (rows.diff() > 0).all()  # none twice, in the order of the files
    assert torch.equal(rows, sources._sample_evenly(labels, most, generator(1)))
    if most < 33:
        assert not torch.equal(rows, sources._sample_evenly(labels, most, generator(2)))


@pytest.mark.parametrize("bank", ["digits", "backgrounds"])
def test_a_part_takes_limited_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bank: str
) -> None:
    glyphs, paths_read, read_square = write_glyphs(tmp_path / "glyphs"), [], sources.read_square

    def recording(path, size):
        paths_read.append(path)
        return read_square(path, size)

    monkeypatch.setattr(sources, "read_square", recording)
    picture_bytes = 20**2 if bank == "digits" else 3 * 48**2
    monkeypatch.setattr(sources, "MOST_BYTES", 12 * picture_bytes)
    words = {"digits": "digits", "backgrounds": "photos", bank: f"folder:{tmp_path}/glyphs"}
    train, test = load_worlds(**words, size=24, digit=20)  # type: ignore[arg-type]
    name = "digit_class" if bank == "digits" else "background_class"
    assert getattr(train, name).bincount().tolist() == [2] * 6
    assert getattr(test, name).bincount().tolist() == [1] * 6
    assert len(paths_read) == 18 and set(paths_read) < glyphs.keys()  # others are not even opened


def test_more_classes_than_fit_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path)
    monkeypatch.setattr(sources, "MOST_BYTES", 9 * 28**2)
    message = "got 10 classes, wanted at most 9 for pictures of this size; use smaller pictures"
    with pytest.raises(ValueError, match=message):
        load_worlds(f"idx:{tmp_path}")
    monkeypatch.setattr(sources, "MOST_BYTES", 10 * 28**2)
    for world in load_worlds(f"idx:{tmp_path}"):
        assert world.digit_class.sort().values.tolist() == list(range(10))


# --- words and numbers ---


MISSPELT = ["", "minst", "Digits", "digits:", "mnist:x", "emnist", "emnist:", "emnist:Letters"]
MISSPELT += ["idx:", "folder:", "photos"]


@pytest.mark.parametrize("word", MISSPELT)
def test_unknown_digits_are_an_error_that_lists_the_known_ones(word: str) -> None:
    known = "digits, mnist, fashion, emnist:byclass, .*, folder:PATH"
    with pytest.raises(ValueError, match=f"digits: got '{word}', wanted one of {known}"):
        load_worlds(word)


@pytest.mark.parametrize("word", ["", "photo", "stl-10", "folder", "folder:", "idx:x", "digits"])
def test_unknown_backgrounds_are_an_error_before_digits_are_read(word: str) -> None:
    message = f"backgrounds: got '{word}', wanted one of photos, stl10, folder:PATH$"
    with pytest.raises(ValueError, match=message):
        load_worlds("mnist", word)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 7}, r"load_worlds\(size\): got 7, wanted 8 to 256 px"),
        ({"size": 257}, r"size\): got 257, wanted 8 to 256 px"),
        ({"size": 64.0}, r"size\): got 64.0, wanted int"),
        ({"digit": 65}, r"digit\): got 65, wanted 8 to 64 px"),
        ({"digit": 7}, r"digit\): got 7, wanted 8 to 64 px"),
        ({"digit": True}, r"digit\): got True, wanted int"),
        ({"dim": -0.1}, r"dim\): got -0.1, wanted"),
        ({"dim": 1.1}, r"dim\): got 1.1, wanted a brightness of 0 to 1"),
        ({"dim": math.nan}, r"dim\): got nan, wanted"),
        ({"digits": None}, "digits: got None, wanted str"),
        ({"backgrounds": Path()}, "backgrounds: got .*Path.*, wanted str"),
    ],
)
def test_bad_arguments_are_errors(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_worlds(**wrong)  # type: ignore[arg-type]
