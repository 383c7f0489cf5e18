"""Folders whose names are parts of a data set, and files whose names are no images'."""

from contextlib import nullcontext

import pytest
import torch
from picture_files import numbered
from PIL import Image

from infomin.data.image_folder import find_images, load_folder, part_names
from infomin.data.image_io import EXTENSIONS

torch.set_num_threads(1)
SIZE = 24


def write(root, names):
    """Write a plain picture to each path, whatever its ending."""
    for n, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        numbered(n).save(root / name, "PNG")


def load(root):
    return load_folder(str(root), SIZE)


TRAIN = [
    "train_images",
    "train-set",
    "Train",
    "TRAIN_IMAGES",
    "trainset",
    "TrainImages",
    "training",
]
TRAIN += [
    "train2017",
    "images_train",
    "01_train",
    "train data",
    "training_set",
    "trainval",
    "DIV_train",
]


@pytest.mark.parametrize("name", TRAIN)
@pytest.mark.parametrize("word", ["test", "val"])
def test_parts_of_other_names_are_an_error(tmp_path, name, word):
    """As classes, a probe would learn which part an image is from."""
    other = name.lower().replace("training", "train").replace("trainval", "train")
    other = other.replace("train", word)
    if name == "DIV_train":
        other = f"DIV_{word}"
    write(tmp_path, [f"{part}/{'ab'[n % 2]}/{n}.png" for part in (name, other) for n in range(10)])
    with pytest.raises(ValueError, match=r"got a folder '.*' without 'train', wanted 'train' with"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"got a folder '.*' beside 'train', wanted 'train' with"):
        write(tmp_path, ["train/a/1.png"])
        load(tmp_path)


@pytest.mark.parametrize(
    "names",
    [["images/train", "images/test"], ["images/Train", "images/val2017"], ["all/train_set"]],
    ids=str,
)
@pytest.mark.parametrize("beside", [[], ["labels/train/1.txt"]], ids=["alone", "labels"])
def test_parts_inside_a_class_are_an_error(tmp_path, names, beside):
    write(tmp_path, [f"{name}/{'ab'[n % 2]}/{n}.png" for name in names for n in range(10)])
    for name in beside:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    folder = names[0].partition("/")[0]
    message = f"got '.*' inside '{folder}', wanted the classes .*; use folder:{tmp_path}/{folder}"
    with (
        pytest.warns(UserWarning, match="'labels': no images") if beside else nullcontext(),
        pytest.raises(ValueError, match=message),
    ):
        load(tmp_path)


CLASSES = [
    "train station",
    "bullet_train",
    "contest",
    "trainer",
    "valley",
    "testimony",
    "crash test",
]
CLASSES += ["validator", "images", "set", "1", "data", "été", "steam train"]


def test_classes_whose_names_contain_such_words_are_classes(tmp_path):
    assert part_names(CLASSES) == []
    write(tmp_path, [f"{name}/{n}.png" for name in CLASSES for n in range(5)])
    (_, labels), (_, test_labels) = load(tmp_path)
    assert labels.bincount().tolist() == [4] * len(CLASSES)
    assert test_labels.bincount().tolist() == [1] * len(CLASSES)


def test_every_extension_makes_a_class(tmp_path):
    for ending in EXTENSIONS:
        write(tmp_path, [f"{ending[1:]}/{n}{(ending, ending.upper())[n % 2]}" for n in range(5)])
    (train, labels), _ = load(tmp_path)
    assert len(train) == 4 * len(EXTENSIONS) and len(labels.unique()) == len(EXTENSIONS)
    assert len(find_images(tmp_path)) == 5 * len(EXTENSIONS)


@pytest.mark.parametrize("names", [["train", "test"], [""]], ids=["parts", "classes"])
def test_files_that_are_left_out_are_counted_and_vanished_classes_named(tmp_path, names):
    for name in names:
        write(tmp_path / name, [f"{'ab'[n % 2]}/{n}.png" for n in range(10)])
    others = ["a/1.heic", "a/2.HEIC", "a/deep/raw", "c/1.heic", "d/readme.txt", "b/labels.csv"]
    write(tmp_path / names[0], others)
    message = (
        "leaving out 3 .heic, 1 without extension, 1 .txt, 1 .csv; 'c', 'd': no images, so no class"
    )
    with pytest.warns(UserWarning) as caught:
        load(tmp_path)
    (told,) = [str(warning.message) for warning in caught]
    kinds = ("3 .heic", "1 without extension", "1 .txt", "1 .csv")
    assert all(kind in told for kind in kinds) and message.partition("; ")[2] in told


def test_texts_beside_images_are_no_news(tmp_path):
    write(tmp_path, [f"{'ab'[n % 2]}/{n}.png" for n in range(10)])
    for name in ("README.md", "a/labels.csv", "b/Thumbs.db", "b/deep/notes.TXT", "c/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    load(tmp_path)  # a warning is an error
    Image.new("RGB", (9, 9)).save(tmp_path / "a" / "more.tga")
    with pytest.warns(UserWarning, match="leaving out 1 .tga; convert images to PNG"):
        load(tmp_path)
