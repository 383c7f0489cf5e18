"""Image folders: which files make up a part, how they are read, and what replaces a damaged one."""

import gc
import os
import shutil
import weakref

import numpy as np
import pytest
import torch
from picture_files import number_of, numbered, truncate
from PIL import Image

from infomin import data
from infomin.data import batches, image_files, image_folder
from infomin.data.batches import batches_by_step
from infomin.data.image_files import ImageFiles
from infomin.data.image_folder import find_images, load_folder
from infomin.data.image_io import read_square

torch.set_num_threads(1)
SIZE = 24


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch):
    monkeypatch.setattr(image_files, "_reported", set())


def files_at(paths):
    return ImageFiles([str(path) for path in paths], SIZE)


def numbers_at(files, rows):
    return [number_of(image) for image in files.take(torch.as_tensor(rows))[0]]


def write_numbered(root, names):
    """Write a plain picture to each path, numbered in order."""
    for n, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        numbered(n).save(root / name)


def file_names(files):
    return sorted(os.path.basename(path) for path in files.paths)


# Which files


def test_files_are_found_by_extension_and_sorted_on_every_file_system(tmp_path, monkeypatch):
    images = ["b/2.JPG", "b/10.jpeg", "a.png", "c.d/x.TIFF", "b/z/q.webp", "é.gif"]
    others = ["notes.txt", "b/labels.csv", ".hidden.png", ".git/x.png", "b/._2.jpg"]
    others += ["png", "x.eps", "x.pdf"]
    for name in images + others:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    expected = sorted(str(tmp_path / name) for name in images)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            self.entries = sorted(scandir(path), key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    assert find_images(tmp_path) == expected
    monkeypatch.setattr(os, "scandir", Backwards)
    assert find_images(tmp_path) == expected


@pytest.mark.parametrize("target", ["itself", "parent", "sibling and back", "root", "cut"])
def test_loops_of_links_end(numbered_files, target):
    root = numbered_files[0].parents[1]
    link = root / "a" / "link"
    targets = {
        "itself": link,
        "parent": root / "a",
        "sibling and back": root / "b",
        "root": "/",
        "cut": "nowhere",
    }
    link.symlink_to(targets[target])
    if target == "sibling and back":
        (root / "b" / "back").symlink_to(root / "a")
    a, b = (image_folder._classes(root)[name] for name in "ab")
    not_linked = sorted(os.path.basename(path) for path in a if "/a/link" not in path)
    assert not_linked == [f"{n:02d}.png" for n in range(0, 40, 2)]
    assert len(a) == len(b) == (40 if target == "sibling and back" else 20)


def test_a_link_to_a_parent_folder_is_no_class(numbered_files):
    root = numbered_files[0].parents[1]
    (root / "again").symlink_to(root)
    (root / "above").symlink_to(root.parent)
    assert list(image_folder._classes(root)) == ["a", "b"]


def test_every_fifth_file_of_each_class_is_for_the_test(numbered_files):
    train, test = load_folder(str(numbered_files[0].parents[1]), SIZE)
    # The fifth even number, the fifth odd one, and so on.
    expected = sorted(f"{n:02d}.png" for first in (8, 9) for n in range(first, 40, 10))
    assert file_names(test[0]) == expected
    assert sorted(file_names(train[0]) + expected) == [f"{n:02d}.png" for n in range(40)]
    for files, labels in (train, test):
        folders = [os.path.basename(os.path.dirname(path)) for path in files.paths]
        assert folders == ["ab"[label] for label in labels.tolist()]
        assert labels.bincount().tolist() == [len(files) // 2] * 2 and labels.dtype == torch.long


def test_the_first_files_are_of_all_classes_and_the_order_depends_on_the_names(numbered_files):
    root = numbered_files[0].parents[1]
    files, labels = load_folder(str(root), SIZE)[0]
    assert labels[:16].bincount(minlength=2).min() >= 4
    shutil.copytree(root, root / "copy" / "deep")
    copied_files, copied_labels = load_folder(str(root / "copy" / "deep"), SIZE)[0]
    assert torch.equal(labels, copied_labels)
    assert [*map(os.path.basename, files.paths)] == [*map(os.path.basename, copied_files.paths)]


@pytest.mark.parametrize("end", ["test", "val"])
def test_folders_of_the_parts_are_used_if_they_exist(tmp_path, end):
    names = ["train/x/1", "train/x/2", "train/y/z/3", f"{end}/x/4", f"{end}/y/5", "else/w/6"]
    write_numbered(tmp_path, [f"{name}.png" for name in names])
    with pytest.warns(UserWarning, match="ignoring the images in 'else', beside 'train'"):
        train, test = load_folder(str(tmp_path), SIZE)
    assert file_names(train[0]) == ["1.png", "2.png", "3.png"]
    assert file_names(test[0]) == ["4.png", "5.png"]
    for files, labels in (train, test):
        assert [int("/y/" in path) for path in files.paths] == labels.tolist()


@pytest.mark.parametrize("end", ["test", "val"])
def test_a_folder_for_the_test_without_one_for_training_is_an_error(tmp_path, end):
    write_numbered(
        tmp_path, [f"{folder}/{n}.png" for folder in ("a", f"{end}/a") for n in range(5)]
    )
    message = f"got a folder '{end}' without 'train', wanted 'train' with 'test' or 'val', spelled"
    with pytest.raises(ValueError, match=message):
        load_folder(str(tmp_path), SIZE)


def test_files_beside_classes_are_ignored_with_a_warning(tmp_path):
    write_numbered(tmp_path, [f"{folder}{n}.png" for folder in ("a/", "") for n in range(5)])
    with pytest.warns(UserWarning, match="ignoring 5 images beside the class folders"):
        (train, _), (test, _) = load_folder(str(tmp_path), SIZE)
    assert len(train) == 4 and len(test) == 1


def test_files_without_folders_are_one_class(tmp_path):
    write_numbered(tmp_path, [f"{n}.png" for n in range(10)])
    (train, labels), (test, test_labels) = load_folder(str(tmp_path), SIZE)
    assert (len(train), len(test)) == (8, 2)
    assert labels.tolist() == [0] * 8 and test_labels.tolist() == [0] * 2


def test_unusable_folders_are_errors(tmp_path, monkeypatch):
    errors = {
        "none": (
            FileNotFoundError,
            "got no folder .*none, wanted one with image files; correct the path",
        ),
        "empty": (ValueError, "got no image files, wanted files that end in .apng, .*; correct"),
        "text": (ValueError, "got no image files"),
        "few": (
            ValueError,
            "got no test images, need at least 5 images in a class .* or images in .*test",
        ),
        "other": (ValueError, r"got 1 classes in 'test' that 'train' lacks \('y'\), wanted none"),
    }
    for name in ("empty/inner", "text"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "text" / "notes.txt").touch()
    write_numbered(
        tmp_path, ["few/x/1.png", "few/x/2.png", "other/train/x/1.png", "other/test/y/1.png"]
    )
    for name, (error, message) in errors.items():
        with pytest.raises(error, match=message):
            data.load(f"folder:{tmp_path / name}", SIZE)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match="got no test images"):
        data.load("folder:~/few", SIZE)


@pytest.mark.parametrize(
    ("names", "found"),
    [(("Train", "Test"), "'Test' without"), (("train", "validation"), "'validation' beside")],
)
def test_parts_with_other_names_are_not_classes(tmp_path, names, found):
    """As classes, the probe would predict which part an image is from."""
    write_numbered(tmp_path, [f"{name}/{'ab'[n % 2]}/{n}.png" for name in names for n in range(10)])
    message = f"got a folder {found} 'train', wanted 'train' with 'test' or 'val', spelled so"
    with pytest.raises(ValueError, match=message):
        load_folder(str(tmp_path), SIZE)


@pytest.mark.parametrize("flat", ["test/1.png", "test/notes.txt"])
def test_of_two_tests_the_one_with_classes_is_used(tmp_path, flat):
    write_numbered(
        tmp_path, ["train/a/1.png", "train/b/1.png", "val/a/2.png", "val/b/2.png", "test/1.png"]
    )
    if flat.endswith("txt"):
        (tmp_path / "test" / "1.png").unlink()
        (tmp_path / flat).write_text("none")
    (train, _), (test, labels) = load_folder(str(tmp_path), SIZE)
    assert len(train) == 2
    assert all("/val/" in path for path in test.paths) and sorted(labels.tolist()) == [0, 1]


def test_a_class_that_is_missing_from_the_test_is_a_warning(tmp_path):
    write_numbered(tmp_path, [f"{'ab'[n > 8]}/{n}.png" for n in range(12)])
    message = "1 classes have fewer than 5 images and are missing from the test"
    with pytest.warns(UserWarning, match=message):
        load_folder(str(tmp_path), SIZE)


@pytest.mark.parametrize("size", [7, 1025])
def test_sizes_have_bounds(numbered_files, size):
    with pytest.raises(ValueError, match=f"got size {size}, wanted 8 to 1024 px"):
        data.load(f"folder:{numbered_files[0].parents[1]}", size)


def test_an_unknown_home_is_a_missing_folder():
    with pytest.raises(FileNotFoundError, match="got no folder ~nosuch/x"):
        load_folder("~nosuch/x", 32)


# Reading


def test_files_are_indexed_like_a_tensor(numbered_files):
    files = files_at(numbered_files)
    squares = [torch.from_numpy(read_square(path, SIZE).copy()) for path in numbered_files]
    whole = torch.stack(squares)
    assert len(files) == 40 and whole.dtype == torch.uint8
    for index in (slice(3, 9), slice(35, 99), slice(None), torch.tensor([5, 5, 0, 39])):
        assert torch.equal(files[index], whole[index])
    images, shown = files.take(torch.tensor([7, 3]))
    assert images.is_contiguous() and shown.tolist() == [7, 3]
    assert [number_of(image) for image in images] == [7, 3]


def test_damaged_files_are_reported_once_and_the_next_replaces_them(numbered_files):
    truncate(numbered_files[3])
    numbered_files[4].write_text("a text\n" * 100)
    numbered_files[39].write_bytes(b"")
    numbered_files[20].unlink()
    files = files_at(numbered_files)
    with pytest.warns(UserWarning, match="cannot be read") as caught:
        numbers = numbers_at(files, range(40))
    replaced_by = {3: 5, 4: 5, 20: 21, 39: 0}
    assert numbers == [replaced_by.get(n, n) for n in range(40)]
    messages = [str(warning.message) for warning in caught]
    reported = sorted(message.split(":")[0] for message in messages)
    assert reported == sorted(str(numbered_files[n]) for n in replaced_by)
    assert all("; training shows the next readable image" in message for message in messages)
    again = files_at(numbered_files)  # as in the next run of a sweep
    assert numbers_at(files, [3, 39]) == numbers_at(again, [3, 39]) == [5, 0]
    assert again.take(torch.tensor([4, 5]))[1].tolist() == [5, 5]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_a_truncated_file_of_any_kind_is_unreadable(tmp_path, ending, share):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    bad, good = tmp_path / f"x.{ending}", tmp_path / "y.png"
    Image.fromarray(pixels).save(bad)
    truncate(bad, share)
    numbered(7).save(good)
    with pytest.warns(UserWarning, match=f"x.{ending}: cannot be read"):
        assert numbers_at(files_at([bad, good]), [0]) == [7]


def test_no_readable_file_is_an_error_and_not_a_loop(tmp_path):
    paths = [tmp_path / "x.png", tmp_path / "y.png"]
    for path in paths:
        path.touch()
    with pytest.raises(ValueError, match="none of the 2 files can be read, need at least one"):
        files_at(paths).take(torch.tensor([0, 1]))


def test_labels_and_images_are_those_of_the_replacement(numbered_files):
    """Numbers are even in class a, odd in b."""
    root = numbered_files[0].parents[1]
    for n in range(0, 40, 3):
        truncate(numbered_files[n])
    splits = data.load(f"folder:{root}", SIZE)
    with pytest.warns(UserWarning, match="cannot be read"):
        for split in splits:
            part = (split.images, split.labels)
            images, labels = data.first_rows(part, len(split))
            assert [number_of(image) % 2 for image in images] == labels["class"].tolist()
            batch_at = batches_by_step(part, 4, steps=5, seed=0)
            for step in range(5):
                images, index, labels = batch_at(step)
                asked = data.batch_rows(len(split), 4, step, seed=0)
                assert torch.equal(index, split.images.take(asked)[1])  # of what is shown
                numbers = [number_of(image) for image in images]
                assert [n % 2 for n in numbers] == labels["class"].tolist()
                assert all(n % 3 for n in numbers)


@pytest.mark.parametrize(
    "steps", [range(12), [0, 1, 7, 8, 3, 3, 0, 11], [11], range(30, 33)], ids=str
)
def test_a_batch_is_a_function_of_its_step_in_any_order(numbered_files, steps):
    part = (files_at(numbered_files), {"class": torch.arange(40)})
    batch_at = batches_by_step(part, 8, steps=12, seed=1)
    for step in steps:
        images, index, labels = batch_at(step)
        assert torch.equal(index, data.batch_rows(40, 8, step, seed=1))
        assert torch.equal(labels["class"], index)
        assert [number_of(image) for image in images] == index.tolist()


def test_little_is_prefetched_and_nothing_beyond_the_last_step(numbered_files, monkeypatch):
    paths_read = []

    def recording(path, size):
        paths_read.append(path)
        return read_square(path, size)

    monkeypatch.setattr(image_files, "read_square", recording)
    files = files_at(numbered_files)
    read_step = files.stream(lambda step: torch.arange(4) + 4 * step, 6)
    for step in range(6):
        read_step(step)
        assert len(paths_read) <= 4 * min(6, step + 1 + image_files.PREFETCHED)
    files._pool.shutdown()
    assert len(paths_read) == len(set(paths_read)) == 24


def test_the_ranks_part_the_batch_among_them(numbered_files, monkeypatch):
    part = (files_at(numbered_files), {"class": torch.arange(40)})
    batch_at = batches_by_step(part, 8, steps=10, seed=3)
    whole = [batch_at(step)[1] for step in range(6)]
    monkeypatch.setattr(batches, "world_size", lambda: 2)
    index_of_ranks = []
    for rank in range(2):
        monkeypatch.setattr(batches, "rank", lambda rank=rank: rank)
        batch_at = batches_by_step(part, 8, steps=10, seed=3)
        rank_index = []
        for step in range(6):
            images, index, _ = batch_at(step)
            assert [number_of(image) for image in images] == index.tolist()
            rank_index.append(index)
        index_of_ranks.append(rank_index)
    for one, other, both in zip(*index_of_ranks, whole, strict=True):
        assert len(one) == len(other) == 4
        assert sorted([*one.tolist(), *other.tolist()]) == sorted(both.tolist())
    with pytest.raises(ValueError, match="batch: got 9 for 2 processes, wanted a multiple of 2"):
        batches_by_step(part, 9, steps=10, seed=3)


def test_no_image_is_kept(numbered_files, monkeypatch):
    """A batch is freed when its caller drops it; only prefetched images are alive."""
    files, batch_refs, start = files_at(numbered_files), [], ImageFiles._start

    def watched(self, rows):
        reading = start(self, rows)
        batch_refs.append(weakref.ref(reading[0]))
        return reading

    monkeypatch.setattr(ImageFiles, "_start", watched)
    read_step = files.stream(lambda step: torch.arange(8) + 8 * (step % 5), 30)
    for step in range(30):
        read_step(step)
        assert sum(ref() is not None for ref in batch_refs) <= 1 + image_files.PREFETCHED
    gc.collect()
    assert len(batch_refs) == 30 and not any(ref() is not None for ref in batch_refs)


def test_the_threads_of_a_run_end_with_it(numbered_files):
    files = files_at(numbered_files)
    files[:8]
    threads = list(files._pool._threads)
    assert threads
    del files
    gc.collect()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
