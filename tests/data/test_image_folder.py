"""Image folders: what a file becomes, which files make up a part, what stands in for a damaged one, and that runs can be cut."""

import gc
import importlib
import os
import shutil
import subprocess
import sys
import warnings
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as tv

import infomin
from infomin import Recipe, data, run
from infomin.common.files import read_log
from infomin.data import image_folder, image_io
from infomin.data.batches import batches_by_step
from infomin.data.digests import data_digest
from infomin.data.image_folder import ImageFiles, find_images, load_folder
from infomin.data.image_io import image_size, read_square, read_upright
from infomin.runs.recipe import refresh_digests
from infomin.training import loop

torch.set_num_threads(1)
room, sizes = (
    importlib.import_module("infomin.runs.single"),
    importlib.import_module("infomin.data.digests"),
)
recipes_room, batching = (
    importlib.import_module("infomin.runs.recipe"),
    importlib.import_module("infomin.data.batches"),
)
SIZE = 24
TINY = {
    "view": "color:lab",
    "size": 32,
    "steps": 4,
    "batch": 8,
    "candidates": 8,
    "probe_images": 10,
    "width": 0.25,
    "precision": "fp32",
    "device": "cpu",
}


def noise(height, width, seed=0):
    """A smooth picture that differs everywhere."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def colour(n):
    """A plain picture that says its number."""
    return Image.new("RGB", (30, 40), (n % 16 * 16, n // 16 * 16, 128))


def number(image):
    """The number that a plain picture says."""
    red, green, _ = ((image.float().mean((1, 2)) / 16).round().long()).tolist()
    return red + 16 * green


def truncate(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def rows(files, index):
    return [number(image) for image in files.take(torch.as_tensor(index))[0]]


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch):
    monkeypatch.setattr(image_folder, "_named", set())


@pytest.fixture
def plain(tmp_path):
    """Forty plain PNG files in two classes, numbered; returns their paths by number."""
    paths = [tmp_path / "ab"[n % 2] / f"{n:02d}.png" for n in range(40)]
    for n, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        colour(n).save(path)
    return paths


# What a file becomes


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize(
    ("height", "width"), [(40, 40), (40, 80), (36, 24), (24, 24), (8, 8), (4, 20), (1, 3)]
)
def test_a_file_is_scaled_and_cropped_as_torchvision_would(tmp_path, ending, height, width):
    noise(height, width).save(tmp_path / f"x.{ending}")
    image = Image.open(tmp_path / f"x.{ending}").convert("RGB")
    assert np.array_equal(
        read_square(tmp_path / f"x.{ending}", SIZE),
        tv.pil_to_tensor(tv.center_crop(tv.resize(image, [SIZE]), [SIZE])),
    )


@pytest.mark.parametrize(("height", "width"), [(41, 64), (90, 67), (3, 1000), (300, 501), (25, 24)])
def test_the_square_is_central_to_a_fraction_of_a_pixel(tmp_path, height, width):
    """So what is decoded of a mirror image is the mirror image, where torchvision rounds to whole pixels."""
    image = noise(height, width)
    (
        image.save(tmp_path / "x.png"),
        ImageOps.mirror(image).save(tmp_path / "m.png"),
        ImageOps.flip(image).save(tmp_path / "f.png"),
    )
    x, mirrored, flipped = (
        read_square(tmp_path / f"{name}.png", SIZE).astype(int) for name in "xmf"
    )
    assert (
        np.abs(x - mirrored[:, :, ::-1]).max() <= 1
        and np.abs(x - flipped[:, ::-1]).max() <= 1
        and x.std() > 20
    )


@pytest.mark.parametrize("sides", [(800, 1000), (811, 1003), (605, 407), (193, 385)], ids=str)
def test_a_large_jpeg_is_scaled_by_its_decoder_first_and_looks_the_same(
    tmp_path, monkeypatch, sides
):
    image, loaded, rgb = noise(*sides), [], image_io._rgb
    image.save(tmp_path / "x.jpg", quality=95), image.save(tmp_path / "x.png")
    monkeypatch.setattr(
        image_io, "_rgb", lambda image: (loaded.append(min(image.size)), rgb(image))[1]
    )
    jpeg, png = (
        read_square(tmp_path / f"x.{ending}", SIZE).astype(int) for ending in ("jpg", "png")
    )
    assert np.abs(jpeg - png).mean() < 0.6 and np.abs(jpeg - png).max() < 10
    assert 2 * SIZE <= loaded[0] <= 4 * SIZE + 8 and loaded[1] == min(sides)


GREY = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64  # 0 to 65472


def saved(image, path, **how):
    image.save(path, **how)
    return read_square(path, 32).astype(int)


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    for ending in ("png", "tif"):
        got = saved(Image.fromarray(GREY), tmp_path / f"x.{ending}")
        assert np.abs(got - GREY / 257).max() <= 0.5 and got.max() == 255 and got.min() == 0


def test_whole_numbers_of_more_bits_and_floats_are_refused_for_white_is_unknown(tmp_path):
    for pixels, reason in (
        (np.full((9, 9), 70_000, np.int32), "more than 16 bits"),
        (np.ones((9, 9), np.float32), "floating"),
    ):
        Image.fromarray(pixels).save(tmp_path / "x.tif")
        with pytest.raises(ValueError, match=f"{reason}.*white is unknown"):
            read_square(tmp_path / "x.tif", 32)


def test_grey_black_and_white_and_palette_keep_their_values(tmp_path):
    ramp = np.arange(32 * 32).reshape(32, 32) // 4
    grey = Image.fromarray(ramp.astype(np.uint8))
    assert (saved(grey, tmp_path / "l.png") == ramp).all()
    assert (
        saved(grey.convert("1", dither=Image.Dither.NONE), tmp_path / "1.png") == (ramp > 127) * 255
    ).all()
    flat = noise(32, 32).quantize(16)
    for ending in ("png", "gif", "bmp"):
        got = saved(flat, tmp_path / f"p.{ending}")
        assert (got == np.asarray(flat.convert("RGB")).transpose(2, 0, 1)).all()


def test_cmyk_is_ink_on_white(tmp_path):
    inks = {
        (0, 0, 0, 0): (255, 255, 255),
        (255, 0, 0, 0): (0, 255, 255),
        (0, 255, 255, 0): (255, 0, 0),
        (0, 0, 0, 255): (0, 0, 0),
    }
    for ending in ("jpg", "tif"):
        for ink, light in inks.items():
            got = saved(Image.new("CMYK", (32, 32), ink), tmp_path / f"x.{ending}")
            assert np.abs(got - np.array(light)[:, None, None]).max() <= 2, (ending, ink)


def test_what_is_transparent_is_laid_over_white(tmp_path):
    for mode, red, share in (
        ("RGBA", (255, 0, 0, 0), 0),
        ("RGBA", (255, 0, 0, 51), 0.2),
        ("RGBA", (255, 0, 0, 255), 1),
    ):
        got = saved(Image.new(mode, (32, 32), red), tmp_path / "x.png")
        assert (
            np.abs(got - np.array([255, 255 * (1 - share), 255 * (1 - share)])[:, None, None]).max()
            <= 1
        )
    assert (saved(Image.new("LA", (32, 32), (0, 0)), tmp_path / "la.png") == 255).all()
    flat = noise(32, 32).quantize(4)
    got, where = saved(flat, tmp_path / "p.png", transparency=2), np.asarray(flat) == 2
    assert (got[:, where] == 255).all() and (
        got[:, ~where] == np.asarray(flat.convert("RGB")).transpose(2, 0, 1)[:, ~where]
    ).all()
    assert (
        saved(Image.new("RGB", (32, 32), (1, 2, 3)), tmp_path / "key.png", transparency=(1, 2, 3))
        == 255
    ).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_images_are_turned_as_their_exif_data_say(tmp_path, ending, orientation):
    exif, path = Image.Exif(), tmp_path / f"x.{ending}"
    exif[0x0112] = orientation
    noise(20, 31).save(path, exif=exif)
    wanted = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    assert np.array_equal(np.asarray(read_upright(path)), np.asarray(wanted))
    assert image_size(path) == wanted.size == ((31, 20) if orientation < 5 else (20, 31))
    wanted.save(tmp_path / "upright.png")
    assert (
        np.abs(
            read_square(path, SIZE).astype(int) - read_square(tmp_path / "upright.png", SIZE)
        ).max()
        <= 1
    )


def test_of_several_pictures_in_a_file_the_first_is_taken(tmp_path):
    first, second = noise(40, 40), noise(40, 40, seed=1)
    for ending, form in (("jpg", "MPO"), ("gif", "GIF"), ("tif", "TIFF"), ("webp", "WEBP")):
        first.copy().save(
            tmp_path / f"x.{ending}", form, save_all=True, append_images=[second.copy()]
        )
        assert (
            np.abs(
                np.asarray(read_upright(tmp_path / f"x.{ending}")).astype(int) - np.asarray(first)
            ).mean()
            < 20
        )


def test_damaged_exif_data_do_not_damage_the_picture(tmp_path):
    noise(20, 30).save(tmp_path / "x.jpg", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read_upright(tmp_path / "x.jpg").size == (30, 20)


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(OSError, match="no file"):
        read_square(tmp_path / "x.jpg", SIZE)


def test_a_long_thin_picture_takes_no_memory(tmp_path):
    Image.new("L", (60_000, 1), 9).save(
        tmp_path / "x.png"
    )  # scaled whole it would be 60,000 * 512 * 512 pixels
    assert (read_square(tmp_path / "x.png", 512) == 9).all()


# Which files


def test_files_are_found_by_extension_and_sorted_whatever_the_file_system_says(
    tmp_path, monkeypatch
):
    names = ["b/2.JPG", "b/10.jpeg", "a.png", "c.d/x.TIFF", "b/z/q.webp", "é.gif"]
    others = [
        "notes.txt",
        "b/labels.csv",
        ".hidden.png",
        ".git/x.png",
        "b/._2.jpg",
        "png",
        "x.eps",
        "x.pdf",
    ]
    for name in names + others:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    wanted = sorted(str(tmp_path / name) for name in names)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            self.entries = sorted(scandir(path), key=lambda e: e.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    assert find_images(tmp_path) == wanted
    monkeypatch.setattr(os, "scandir", Backwards)
    assert find_images(tmp_path) == wanted


@pytest.mark.parametrize("target", ["itself", "parent", "sibling and back", "root", "cut"])
def test_links_that_go_round_end(plain, target):
    root = plain[0].parents[1]
    link = root / "a" / "link"
    link.symlink_to(
        {
            "itself": link,
            "parent": root / "a",
            "sibling and back": root / "b",
            "root": "/",
            "cut": "nowhere",
        }[target]
    )
    if target == "sibling and back":
        (root / "b" / "back").symlink_to(root / "a")
    a, b = (image_folder._classes(root)[name] for name in "ab")
    assert sorted(os.path.basename(path) for path in a if "/a/link" not in path) == [
        f"{n:02d}.png" for n in range(0, 40, 2)
    ]
    assert len(b) == (40 if target == "sibling and back" else 20)
    assert len(a) == (40 if target == "sibling and back" else 20)


def test_a_link_up_to_the_folder_is_no_class(plain):
    root = plain[0].parents[1]
    (root / "again").symlink_to(root)
    (root / "above").symlink_to(root.parent)
    assert list(image_folder._classes(root)) == ["a", "b"]


def names(part):
    return sorted(os.path.basename(path) for path in part[0].paths)


def test_every_fifth_file_of_each_class_is_the_test(plain):
    (train_, test) = load_folder(str(plain[0].parents[1]), SIZE)
    wanted = sorted(
        f"{n:02d}.png" for first in (8, 9) for n in range(first, 40, 10)
    )  # the fifth even one, the fifth odd one
    assert names(test) == wanted and sorted(names(train_) + wanted) == [
        f"{n:02d}.png" for n in range(40)
    ]
    for files, labels in (train_, test):
        assert [os.path.basename(os.path.dirname(path)) for path in files.paths] == [
            "ab"[c] for c in labels.tolist()
        ]
        assert labels.bincount().tolist() == [len(files) // 2] * 2 and labels.dtype == torch.long


def test_the_first_files_are_of_all_classes_and_the_order_is_that_of_the_names(plain):
    root = plain[0].parents[1]
    files, labels = load_folder(str(root), SIZE)[0]
    assert labels[:16].bincount(minlength=2).min() >= 4
    shutil.copytree(root, root / "copy" / "deep")
    other, same = load_folder(str(root / "copy" / "deep"), SIZE)[0]
    assert torch.equal(labels, same)
    assert list(map(os.path.basename, files.paths)) == list(map(os.path.basename, other.paths))


@pytest.mark.parametrize("end", ["test", "val"])
def test_folders_of_the_parts_are_used_if_there_are_any(tmp_path, end):
    for name in ("train/x/1", "train/x/2", "train/y/z/3", f"{end}/x/4", f"{end}/y/5", "else/w/6"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        colour(1).save(tmp_path / f"{name}.png")
    with pytest.warns(UserWarning, match="images in 'else', beside 'train', are left out"):
        (train_, labels), (test, test_labels) = load_folder(str(tmp_path), SIZE)
    assert names((train_,)) == ["1.png", "2.png", "3.png"] and names((test,)) == ["4.png", "5.png"]
    for files, values in ((train_, labels), (test, test_labels)):
        assert [int("/y/" in path) for path in files.paths] == values.tolist()


@pytest.mark.parametrize("end", ["test", "val"])
def test_a_folder_for_the_test_is_not_trained_on_for_want_of_one_to_train_on(tmp_path, end):
    for name in ("a", f"{end}/a"):
        (tmp_path / name).mkdir(parents=True)
        for n in range(5):
            colour(n).save(tmp_path / name / f"{n}.png")
    with pytest.raises(
        ValueError,
        match=f"got a folder '{end}' and no 'train', wanted 'train' with 'test' or 'val', written so",
    ):
        load_folder(str(tmp_path), SIZE)


def test_files_beside_classes_are_left_out_with_a_word(tmp_path):
    (tmp_path / "a").mkdir()
    for n in range(5):
        colour(n).save(tmp_path / "a" / f"{n}.png")
        colour(n).save(tmp_path / f"{n}.png")
    with pytest.warns(UserWarning, match="5 images that lie beside its folders are left out"):
        (train_, _), (test, _) = load_folder(str(tmp_path), SIZE)
    assert len(train_) == 4 and len(test) == 1


def test_files_without_folders_are_of_one_class(tmp_path):
    for n in range(10):
        colour(n).save(tmp_path / f"{n}.png")
    (train_, labels), (test, test_labels) = load_folder(str(tmp_path), SIZE)
    assert (
        (len(train_), len(test)) == (8, 2)
        and labels.tolist() == [0] * 8
        and test_labels.tolist() == [0] * 2
    )


def test_folders_that_do_not_do_are_said(tmp_path, monkeypatch):
    said = {
        "none": (
            FileNotFoundError,
            "got no folder .*none, wanted one with image files; correct the path",
        ),
        "empty": (
            ValueError,
            "got no image files, wanted files that end in .bmp, .*; correct the path",
        ),
        "text": (ValueError, "got no image files"),
        "few": (
            ValueError,
            "got no image for the test, wanted 5 or more of a class, or some in .*test; add some",
        ),
        "other": (ValueError, r"got 1 classes in test that train has not \('y'\), wanted none"),
    }
    for name in ("empty/inner", "text", "few/x", "other/train/x", "other/test/y"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "text" / "notes.txt").touch()
    for name in ("few/x/1.png", "few/x/2.png", "other/train/x/1.png", "other/test/y/1.png"):
        colour(0).save(tmp_path / name)
    for name, (kind, message) in said.items():
        with pytest.raises(kind, match=message):
            data.load(f"folder:{tmp_path / name}", SIZE)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match="got no image for the test"):
        data.load("folder:~/few", SIZE)


@pytest.mark.parametrize("size", [7, 1025])
def test_sizes_have_bounds(plain, size):
    with pytest.raises(ValueError, match=f"got size {size}, wanted 8 to 1024 px"):
        data.load(f"folder:{plain[0].parents[1]}", size)


# Reading


def test_files_are_indexed_like_a_tensor(plain):
    files = ImageFiles([str(path) for path in plain], SIZE)
    whole = torch.stack([torch.from_numpy(read_square(path, SIZE).copy()) for path in plain])
    assert len(files) == 40 and whole.dtype == torch.uint8
    for index in (slice(3, 9), slice(35, 99), slice(None), torch.tensor([5, 5, 0, 39])):
        assert torch.equal(files[index], whole[index])
    images, shown = files.take(torch.tensor([7, 3]))
    assert (
        images.is_contiguous()
        and shown.tolist() == [7, 3]
        and [number(x) for x in images] == [7, 3]
    )


def test_damaged_files_are_named_once_and_the_next_takes_their_place(plain):
    truncate(plain[3])
    plain[4].write_text("a text\n" * 100)
    plain[39].write_bytes(b"")
    plain[20].unlink()
    files = ImageFiles([str(path) for path in plain], SIZE)
    with pytest.warns(UserWarning, match="cannot be read") as said:
        got = rows(files, range(40))
    stands_in = {3: 5, 4: 5, 20: 21, 39: 0}
    assert got == [stands_in.get(n, n) for n in range(40)]
    assert sorted(str(w.message).split(":")[0] for w in said) == sorted(
        str(plain[n]) for n in stands_in
    )
    assert all("; the next image takes its place" in str(w.message) for w in said)
    again = ImageFiles([str(path) for path in plain], SIZE)  # as in the next run of a sweep
    assert rows(files, [3, 39]) == rows(again, [3, 39]) == [5, 0]
    assert again.take(torch.tensor([4, 5]))[1].tolist() == [5, 5]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_a_truncated_file_of_any_kind_is_unreadable(tmp_path, ending, share):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    (
        Image.fromarray(pixels).save(tmp_path / f"x.{ending}"),
        truncate(tmp_path / f"x.{ending}", share),
    )
    colour(7).save(tmp_path / "y.png")
    with pytest.warns(UserWarning, match=f"x.{ending}: cannot be read"):
        assert rows(
            ImageFiles([str(tmp_path / f"x.{ending}"), str(tmp_path / "y.png")], SIZE), [0]
        ) == [7]


def test_no_readable_file_is_an_error_and_not_a_loop(tmp_path):
    (tmp_path / "x.png").touch(), (tmp_path / "y.png").touch()
    with pytest.raises(
        ValueError, match="got no image that can be read among 2 files; give others"
    ):
        ImageFiles([str(tmp_path / "x.png"), str(tmp_path / "y.png")], SIZE).take(
            torch.tensor([0, 1])
        )


def test_labels_and_images_are_those_of_the_file_that_stands_in(plain):
    """Numbers of plain files are even in class a, odd in b."""
    root = plain[0].parents[1]
    for n in range(0, 40, 3):
        truncate(plain[n])
    splits = data.load(f"folder:{root}", SIZE)
    with pytest.warns(UserWarning, match="cannot be read"):
        for split in splits:
            part = (split.images, split.labels)
            images, labels = data.first_rows(part, len(split))
            assert [number(x) % 2 for x in images] == labels["class"].tolist()
            at = batches_by_step(part, 4, steps=5, seed=0)
            for step in range(5):
                chosen, index, labels = at(step)
                assert torch.equal(index, data.batch_rows(len(split), 4, step, seed=0))
                assert [number(x) % 2 for x in chosen] == labels["class"].tolist()
                assert [number(x) % 3 for x in chosen].count(0) == 0


@pytest.mark.parametrize(
    "steps", [range(12), [0, 1, 7, 8, 3, 3, 0, 11], [11], range(30, 33)], ids=str
)
def test_a_batch_is_a_function_of_its_step_however_it_is_come_to(plain, steps):
    files = ImageFiles([str(path) for path in plain], SIZE)
    at = batches_by_step((files, {"class": torch.arange(40)}), 8, steps=12, seed=1)
    for step in steps:
        images, index, labels = at(step)
        assert torch.equal(index, data.batch_rows(40, 8, step, seed=1)) and torch.equal(
            labels["class"], index
        )
        assert [number(image) for image in images] == index.tolist()


def test_nothing_is_read_beyond_the_last_step_and_little_ahead(plain, monkeypatch):
    read, act = [], read_square
    monkeypatch.setattr(
        image_folder, "read_square", lambda path, size: (read.append(path), act(path, size))[1]
    )
    files = ImageFiles([str(path) for path in plain], SIZE)
    at = files.stream(lambda step: torch.arange(4) + 4 * step, 6)
    for step in range(6):
        at(step)
        assert len(read) <= 4 * min(6, step + 1 + image_folder.AHEAD)
    files._pool.shutdown()
    assert len(read) == len(set(read)) == 24


def test_the_ranks_part_the_batch_among_them(plain, monkeypatch):
    files, labels = ImageFiles([str(path) for path in plain], SIZE), {"class": torch.arange(40)}
    whole = [batches_by_step((files, labels), 8, steps=10, seed=3)(step)[1] for step in range(6)]
    monkeypatch.setattr(batching, "world_size", lambda: 2)
    seen = []
    for rank in range(2):
        monkeypatch.setattr(data, "rank", lambda rank=rank: rank)
        at = batches_by_step((files, labels), 8, steps=10, seed=3)
        batches = [at(step) for step in range(6)]
        assert all([number(x) for x in images] == index.tolist() for images, index, _ in batches)
        seen.append([index for _, index, _ in batches])
    for one, other, both in zip(*seen, whole, strict=True):
        assert len(one) == len(other) == 4 and sorted([*one.tolist(), *other.tolist()]) == sorted(
            both.tolist()
        )
    with pytest.raises(ValueError, match="batch: got 9 for 2 processes, wanted a multiple"):
        batches_by_step((files, labels), 9, steps=10, seed=3)


def test_no_image_is_kept(plain, monkeypatch):
    """A batch that was handed out is gone when the caller lets go of it; alive are those that are read ahead."""
    files, alive, begin = ImageFiles([str(path) for path in plain], SIZE), [], ImageFiles._begin

    def watched(self, index):
        reading = begin(self, index)
        alive.append(weakref.ref(reading[0]))
        return reading

    monkeypatch.setattr(ImageFiles, "_begin", watched)
    at = files.stream(lambda step: torch.arange(8) + 8 * (step % 5), 30)
    for step in range(30):
        at(step)
        assert sum(ref() is not None for ref in alive) <= 1 + image_folder.AHEAD
    gc.collect()
    assert len(alive) == 30 and not any(ref() is not None for ref in alive)


def test_the_threads_of_a_run_end_with_it(plain):
    files = ImageFiles([str(path) for path in plain], SIZE)
    files[:8]
    threads = list(files._pool._threads)
    assert threads
    del files
    gc.collect()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


# Runs


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Sixty files of two classes and many kinds, one truncated, one renamed text."""
    root, draws = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for n in range(60):
        path = root / ("cats", "dogs")[n % 2]
        path.mkdir(exist_ok=True)
        image = noise(*draws.integers(20, 120, 2).tolist(), seed=n)
        mode = ("RGB", "L", "RGBA", "CMYK", "P", "I;16")[n % 7 % 6]
        if mode == "I;16":
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(
                path / f"{n}.png"
            )
        else:
            image.convert(mode).save(path / f"{n}.{'jpg' if mode in ('RGB', 'CMYK') else 'png'}")
    truncate(next(root.glob("*/14.*")))
    next(root.glob("*/21.*")).write_text("a text")
    (root / "cats" / "notes.txt").write_text("ignored")
    return root


def ignoring():
    return pytest.warns(UserWarning, match="cannot be read")


def same(*rows):
    first, *others = (
        {name: value for name, value in row.items() if name != "seconds"} for row in rows
    )
    return all(other == first for other in others)


def test_other_files_are_another_run(plain, tmp_path):
    recipe = partial(Recipe, data=f"folder:{tmp_path}", **TINY)
    keys = [recipe().key, recipe().key]
    shutil.copy(plain[0], tmp_path / "a" / "more.png")
    keys += [recipe().key]
    noise(99, 99).save(tmp_path / "a" / "more.png")
    keys += [recipe().key]
    plain[0].unlink()
    keys += [recipe().key]
    shutil.copytree(tmp_path, tmp_path.parent / "moved", dirs_exist_ok=True)
    assert keys[0] == keys[1] and len(set(keys)) == 4
    assert (
        data_digest(f"folder:{tmp_path}")
        == data_digest(f"folder:{tmp_path.parent}/moved")
        != data_digest("folder:nowhere")
    )
    os.symlink("nowhere.png", tmp_path / "a" / "link.png")  # it is told of when it is read
    assert recipe().key not in keys


def test_of_many_files_few_are_asked_for_their_size(plain, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(sizes, "READ", 8)
    monkeypatch.setattr(sizes, "_ends", lambda path: asked.append(path) or "")
    data_digest(f"folder:{tmp_path}")
    assert asked == find_images(tmp_path)[::5]


def test_pictures_of_one_size_are_told_by_what_they_show(tmp_path):
    told = []
    for shade in (0, 1, 1):
        Image.fromarray(np.full((40, 40, 3), shade, np.uint8)).save(tmp_path / "plain.bmp")
        told.append((data_digest(f"folder:{tmp_path}"), (tmp_path / "plain.bmp").stat().st_size))
    assert told[0] != told[1] == told[2] and told[0][1] == told[1][1]


def test_a_sweep_looks_at_a_folder_once(mixed, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(recipes_room, "data_digest", lambda name: asked.append(name) or "0" * 64)
    recipes = refresh_digests(
        Recipe(data=f"folder:{mixed}", seed=seed, **TINY) for seed in range(3)
    )
    assert len({recipe.key for recipe in recipes}) == 3 and {
        recipe.files for recipe in recipes
    } == {"0" * 64}
    assert asked == [f"folder:{mixed}"]


def test_a_recipe_that_was_run_before_sees_files_that_have_changed_since(mixed, tmp_path):
    shutil.copytree(mixed, tmp_path / "own")
    recipe = Recipe(data=f"folder:{tmp_path}/own", **TINY)
    first, (before,) = recipe.files, refresh_digests([recipe])
    next(tmp_path.glob("own/*/3.*")).unlink()
    (after,) = refresh_digests([recipe])
    assert recipe.files == first == before.files != after.files
    with ignoring():
        row = run(recipe)
    assert row["files"] == after.files[:12] and row["key"] == after.key != recipe.key


@pytest.mark.parametrize(
    ("names", "said"),
    [(("Train", "Test"), "'Test' and no"), (("train", "validation"), "'validation' beside")],
)
def test_parts_that_are_called_otherwise_are_no_classes(tmp_path, names, said):
    """Otherwise the probe would ask which part an image is from."""
    for name in names:
        for n in range(10):
            (tmp_path / name / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
            colour(n).save(tmp_path / name / "ab"[n % 2] / f"{n}.png")
    with pytest.raises(
        ValueError,
        match=f"got a folder {said} 'train', wanted 'train' with 'test' or 'val', written so",
    ):
        load_folder(str(tmp_path), SIZE)


@pytest.mark.parametrize("flat", ["test/1.png", "test/notes.txt"])
def test_of_two_tests_the_one_with_classes_is_taken(tmp_path, flat):
    for name in ("train/a/1.png", "train/b/1.png", "val/a/2.png", "val/b/2.png", flat):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        colour(0).save(tmp_path / name.replace("txt", "png")) if name.endswith("png") else (
            tmp_path / name
        ).write_text("none")
    (train_, _), (test, labels) = load_folder(str(tmp_path), SIZE)
    assert (
        len(train_) == 2
        and all("/val/" in path for path in test.paths)
        and sorted(labels.tolist()) == [0, 1]
    )


def test_a_class_of_which_none_is_in_the_test_is_told(tmp_path):
    for n in range(12):
        (tmp_path / "ab"[n > 8]).mkdir(exist_ok=True)
        colour(n).save(tmp_path / "ab"[n > 8] / f"{n}.png")
    with pytest.warns(
        UserWarning, match="no image of 1 classes is in the test: they have fewer than 5"
    ):
        load_folder(str(tmp_path), SIZE)


def test_a_folder_trains_and_is_probed(mixed):
    with ignoring():
        row = run(Recipe(data=f"folder:{mixed}", **TINY))
    assert row["files"] == data_digest(f"folder:{mixed}")[:12]
    assert (
        row["status"] == "done" and row["data"] == f"folder:{mixed}" and 0 <= row["acc_class"] <= 1
    )
    assert 0 < row["entropy_class"] <= np.log(2) + 1e-6 and np.isfinite(row["i_nce"])
    assert same(row, run(Recipe(data=f"folder:{mixed}", **TINY)))  # and this time nothing is named


class Cut(BaseException):
    pass


@pytest.mark.parametrize("calls", [1, 3])
def test_a_run_on_a_folder_that_was_cut_goes_on_and_ends_bit_equal(
    mixed, tmp_path, monkeypatch, calls
):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    recipe = Recipe(data=f"folder:{mixed}", **TINY | {"steps": 7})
    with ignoring():
        whole = run(recipe, tmp_path / "whole")
    act, left = room.batches_by_step, [calls]

    def cutting(*args, **options):
        at = act(*args, **options)

        def until(step):
            left[0] -= 1
            if left[0] < 0:
                raise Cut
            return at(step)

        return until

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(room, "batches_by_step", cutting)
        run(recipe, tmp_path / "cut")
    assert same(whole, run(recipe, tmp_path / "cut"))
    logs = [read_log(tmp_path / name / recipe.key / "log.jsonl") for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_a_view_of_scenes_and_too_many_to_probe_are_said_before_anything_is_read(
    mixed, monkeypatch
):
    monkeypatch.setattr(image_folder, "read_square", None)
    where = f"folder:{mixed}"
    with pytest.raises(
        ValueError,
        match=r"view 'shared:digit': got data 'folder:.*, whose images have no known factors",
    ):
        run(Recipe(data=where, **TINY | {"view": "shared:digit"}))
    with pytest.raises(ValueError, match="probe_images: got 13, wanted at most the 12 of 'folder:"):
        run(Recipe(data=where, **TINY | {"probe_images": 13}))


def test_one_class_tells_nothing_and_has_no_accuracy(tmp_path):
    for n in range(60):
        colour(n).save(tmp_path / f"{n}.png")
    row = run(Recipe(data=f"folder:{tmp_path}", **TINY))
    assert (
        row["status"] == "done"
        and row["entropy_class"] == 0
        and not {"acc_class", "knn_class"} & set(row)
    )


def test_the_command_line_takes_a_folder(mixed, tmp_path):
    words = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "infomin",
            "run",
            "--data",
            f"folder:{mixed}",
            *words,
            "--out",
            tmp_path,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **os.environ,
            "PYTHONPATH": os.path.dirname(os.path.dirname(infomin.__file__)),
            "OMP_NUM_THREADS": "1",
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    named = [
        line.split("UserWarning: ")[1]
        for line in done.stderr.splitlines()
        if "UserWarning: " in line
    ]
    assert named and len(named) == len(set(named)) and '"acc_class"' in done.stdout


@pytest.mark.parametrize("name", ["folder", "folder:", "folders:x", "Folder:x"])
def test_a_recipe_wants_a_path_after_folder(name):
    with pytest.raises(
        ValueError,
        match=f"recipe: data: got '{name}', wanted one of digits, photos, .*, folder:PATH; pick one",
    ):
        Recipe(data=name)


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "z.png")
    assert len(data_digest(f"folder:{tmp_path}")) == 64


def test_a_home_that_is_not_known_is_a_folder_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="got no folder ~nosuch/x"):
        load_folder("folder:~nosuch/x".removeprefix("folder:"), 32)
