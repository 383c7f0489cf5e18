"""IDX files: reading them, every kind of damage, and which files of a folder are used."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from idx_files import (
    FOUR,
    SPELLINGS,
    Pixels,
    idx,
    is_world_of,
    noise,
    shared_pictures,
    write_idx,
    write_set,
)
from torchvision import datasets

from infomin.data import sources
from infomin.data.downloads import SETS
from infomin.data.sources import EMNIST, load_worlds, read_idx

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("own_data_root")


def emnist_names(word: str) -> tuple[str, ...]:
    prefix = word.replace(":", "-")
    return tuple(f"{prefix}-{name.replace('t10k', 'test')}" for name in FOUR)


# --- reading ---


@pytest.mark.parametrize(
    "shape", [(5,), (0,), (1,), (3, 4), (2, 3, 4), (0, 28, 28), (2, 1, 3, 2)], ids=str
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_is_read_as_it_was_written(
    tmp_path: Path, shape: tuple[int, ...], zipped: bool
) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    content = gzip.compress(idx(values)) if zipped else idx(values)
    (tmp_path / "x").write_bytes(content)  # its name does not tell
    read = read_idx(tmp_path / "x")
    assert read.dtype == torch.uint8 and read.shape == shape and np.array_equal(read, values)
    read.zero_()  # it is not a view of read-only memory


def test_torchvision_reads_the_same(tmp_path: Path) -> None:
    write_set(tmp_path / "MNIST" / "raw")
    for train, world in zip((True, False), load_worlds("mnist"), strict=True):
        theirs = datasets.MNIST(tmp_path, train=train)
        assert torch.equal(world.digits, theirs.data)
        assert torch.equal(world.digit_class, theirs.targets)


WHOLE = idx(noise(3, 0, (4, 5)))
ZIPPED = gzip.compress(WHOLE)
DAMAGE = {
    "empty": (b"", "got the first bytes '', wanted those of an IDX file, such as 00 00 08 01"),
    "one byte": (b"\0", "got the first bytes '00'"),
    "only a magic number": (WHOLE[:4], r"got 4 bytes, wanted \d+ for \[.*\]; copy it again"),
    "a cut size": (WHOLE[:14], "got 14 bytes, wanted"),
    "no values": (WHOLE[:16], r"got 16 bytes, wanted 76 for \[3, 4, 5\]; copy it again"),
    "a byte too few": (WHOLE[:-1], r"got 75 bytes, wanted 76 for \[3, 4, 5\]"),
    "a byte too many": (WHOLE + b"\0", r"got 77 bytes, wanted 76 for \[3, 4, 5\]"),
    "a size beyond all memory": (
        WHOLE[:4] + b"\xff" * 12 + WHOLE[16:],
        rf"got 76 bytes, wanted {16 + (2**32 - 1) ** 3} for",
    ),
    "a text": (b"label,pixel0,pixel1\n5,0,0\n", "got the first bytes '6c 61 62 65'"),
    "little endian": (b"\x03\x08\0\0" + WHOLE[4:], "got the first bytes '03 08 00 00'"),
    "no axes": (b"\0\0\x08\0" + b"7", "got the first bytes '00 00 08 00'"),
    "an unknown type": (idx(noise(1, 0), 7), "got the first bytes '00 00 07 03'"),
    "a zip": (b"PK\x03\x04" + WHOLE, "got the first bytes '50 4b 03 04'"),
    "a pickle": (pickle.dumps(WHOLE), "got the first bytes '80 "),
    "cut gzip": (ZIPPED[:-9], r"got damaged gzip data \(.*\), wanted a complete file; copy it"),
    "the head of a gzip": (ZIPPED[:6], "got damaged gzip data"),
    "gzip of another checksum": (ZIPPED[:-8] + b"\1\2\3\4" + ZIPPED[-4:], "got damaged gzip data"),
    "gzip of other bits": (ZIPPED[:20] + b"\xff" * 9 + ZIPPED[29:], "got damaged gzip data"),
    "gzip and a text": (ZIPPED + b"text", "got damaged gzip data"),
    "gzip of a cut file": (gzip.compress(WHOLE[:-1]), "got 75 bytes, wanted 76"),
}
for code, dtype in sources.TYPES.items():
    if dtype != "uint8":
        message = f"got values of {dtype}, wanted uint8; convert them"
        DAMAGE[dtype] = (idx(np.zeros(3, dtype), code), message)


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_an_error(tmp_path: Path, name: str) -> None:
    content, message = DAMAGE[name]
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{tmp_path}/x: {message}"):
        read_idx(tmp_path / "x")


@pytest.mark.parametrize("content", [WHOLE, ZIPPED], ids=["plain", "gzip"])
def test_a_changed_byte_gives_a_value_error_or_an_array_of_the_right_size(
    tmp_path: Path, content: bytes
) -> None:
    path, rng = tmp_path / "x", np.random.default_rng(0)
    first = range(min(len(content), 24))
    for position in [*first, *rng.integers(0, len(content), 40).tolist()]:
        changed = bytearray(content)
        changed[position] = rng.integers(256)
        path.write_bytes(changed)
        try:
            assert read_idx(path).numel() == 60
        except ValueError as error:
            assert str(tmp_path) in str(error)


def test_a_missing_file_a_folder_and_a_pipe_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, Path("/dev/null")):
        message = f"read_idx: got no file {path}, wanted an IDX file; correct the path"
        with pytest.raises(FileNotFoundError, match=message):
            read_idx(path)


# --- which files ---


@pytest.mark.parametrize("names", SPELLINGS.values(), ids=SPELLINGS)
def test_a_folder_of_idx_files_is_read_in_any_spelling(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    folder = tmp_path / "set"
    written = write_set(folder, names)
    (folder / "README.md").touch()
    (folder / "train-images-idx3-ubyte.old").mkdir()
    train, test = load_worlds(f"idx:{folder}")
    assert is_world_of(train, written["train"], written["train_labels"])
    assert is_world_of(test, written["test"], written["test_labels"])
    assert not shared_pictures(train.digits, test.digits)


@pytest.mark.parametrize(
    ("word", "folder", "names"),
    [
        ("mnist", "MNIST", FOUR),
        ("fashion", "FashionMNIST", SPELLINGS["gzipped"]),
        *((word, "EMNIST", emnist_names(word)) for word in EMNIST),
    ],
)
def test_words_name_the_files_where_torchvision_puts_them(
    tmp_path: Path, word: str, folder: str, names: tuple[str, ...]
) -> None:
    for n, other in enumerate(EMNIST):  # all splits of EMNIST are in one folder
        write_set(tmp_path / "EMNIST" / "raw", emnist_names(other), seed=100 + n)
    written = write_set(tmp_path / folder / "raw", names)
    for part, world in zip(("train", "test"), load_worlds(word), strict=True):
        ink = written[part].swapaxes(1, 2) if folder == "EMNIST" else written[part]
        assert is_world_of(world, ink, written[f"{part}_labels"])
        assert world.digits.is_contiguous()


def test_letters_of_emnist_are_upright_and_numbered_from_0(tmp_path: Path) -> None:
    """Their files hold a picture column by column: the long stroke of an L comes first."""
    letter = np.zeros((28, 28), np.uint8)
    letter[4:24, 6:9] = 255
    letter[21:24, 6:20] = 255
    names, folder = emnist_names("emnist:letters"), tmp_path / "EMNIST" / "raw"
    write_set(folder, names, first=1, classes=26)
    columns = np.broadcast_to(letter, (104, 28, 28)).transpose(0, 2, 1)
    write_idx(folder / names[0], np.ascontiguousarray(columns))
    train, test = load_worlds("emnist:letters")
    assert (train.digits == torch.from_numpy(letter)).all()
    assert train.digit_class.unique().tolist() == list(range(26))
    assert test.digit_class.unique().tolist() == list(range(26))


def test_labels_with_gaps_are_numbered_alike_in_both_parts(tmp_path: Path) -> None:
    written = write_set(tmp_path)
    for name, part in ((FOUR[1], "train"), (FOUR[3], "test")):
        write_idx(tmp_path / name, written[f"{part}_labels"] * 23 + 9)
    for world, part in zip(load_worlds(f"idx:{tmp_path}"), ("train", "test"), strict=True):
        assert is_world_of(world, written[part], written[f"{part}_labels"])


@pytest.mark.parametrize(
    "names",
    [
        ("x-images-idx3-ubyte", "x-labels-idx1-ubyte.gz"),
        ("images.idx3_ubyte.gz", "labels.idx1_ubyte"),
    ],
)
@pytest.mark.parametrize("order", ["in turn", "by class", "uneven"])
def test_every_fifth_of_each_class_of_a_single_file_is_the_test(
    tmp_path: Path, names: tuple[str, str], order: str
) -> None:
    n = np.arange(60)
    labels = {"in turn": n % 10, "by class": n // 6, "uneven": np.minimum(n % 12, 5)}
    x, y = noise(60, 0), labels[order].astype(np.uint8)
    for name, values in zip(names, (x, y), strict=True):
        write_idx(tmp_path / name, values)
    count: dict[int, int] = {}
    in_test = []
    for label in y.tolist():  # a slow oracle
        count[label] = count.get(label, 0) + 1
        in_test.append(count[label] % 5 == 0)
    mask = np.array(in_test)
    train, test = load_worlds(f"idx:{tmp_path / names[0]}")
    assert is_world_of(train, x[~mask], y[~mask])
    assert is_world_of(test, x[mask], y[mask])


def test_the_plain_file_is_used_before_the_gzipped_one(tmp_path: Path) -> None:
    """torchvision leaves both; the gzipped ones here are of another set."""
    write_set(tmp_path, SPELLINGS["gzipped"], seed=7)
    written = write_set(tmp_path)
    train, _ = load_worlds(f"idx:{tmp_path}")
    assert is_world_of(train, written["train"], written["train_labels"])


# --- errors ---


LABELS = np.arange(40, dtype=np.uint8) % 10
# The file that is written (None: deleted), the error and its message.
BAD_FOLDERS: dict[str, tuple[str, Pixels | bytes | None, type[Exception], str]] = {
    "no labels": (
        FOUR[1],
        None,
        FileNotFoundError,
        r"got no train-labels-idx1-ubyte or train-labels-idx1-ubyte\.gz in .*;",
    ),
    "no test": (
        FOUR[2],
        None,
        FileNotFoundError,
        r"got no \(t10k\|test\)-images-idx3-ubyte or .*\.gz in .*; correct the path",
    ),
    "a label short": (
        FOUR[1],
        LABELS[:-1],
        ValueError,
        r"got the shape \[40, 28, 28\] in .* and \[39\] in .*; use two files",
    ),
    "a label more": (FOUR[1], np.append(LABELS, LABELS[:1]), ValueError, r"and \[41\] in"),
    "labels with two axes": (
        FOUR[1],
        LABELS[:, None],
        ValueError,
        r"and \[40, 1\] in .*, wanted images \[N, h, w\]",
    ),
    "images with two axes": (FOUR[0], noise(40, 0, (784,)), ValueError, r"shape \[40, 784\] in"),
    "images without pixels": (FOUR[0], noise(40, 0, (0, 28)), ValueError, r"\[40, 0, 28\] in"),
    "a damaged file": (
        FOUR[0],
        WHOLE[:-3],
        ValueError,
        "train-images-idx3-ubyte: got 73 bytes, wanted 76",
    ),
    "a class that the test lacks": (
        FOUR[3],
        LABELS[:20] % 8,
        ValueError,
        "got no readable test picture of class 8, class 9,",
    ),
    "a class that training lacks": (
        FOUR[1],
        LABELS % 9,
        ValueError,
        "no readable training picture of class 9, wanted one",
    ),
    "two sets": (
        "a-" + FOUR[0],
        noise(40, 0),
        ValueError,
        "got a-train-images-.*, train-.*, wanted one set",
    ),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_a_bad_folder_of_idx_files_is_an_error(tmp_path: Path, name: str) -> None:
    write_set(tmp_path)
    file, values, error, message = BAD_FOLDERS[name]
    if values is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(values if isinstance(values, bytes) else idx(values))
    with pytest.raises(error, match=message):
        load_worlds(f"idx:{tmp_path}")


def test_a_bad_single_file_is_an_error(tmp_path: Path) -> None:
    write_idx(tmp_path / "x-images-idx3-ubyte", noise(0, 0))
    write_idx(tmp_path / "x-labels-idx1-ubyte", LABELS[:0])
    write_idx(tmp_path / "other", noise(3, 0))
    with pytest.raises(ValueError, match="got no readable training picture of any class"):
        load_worlds(f"idx:{tmp_path}/x-images-idx3-ubyte")
    message = r"wanted images .* and labels .*named images-idx3 and labels-idx1"
    with pytest.raises(ValueError, match=message):
        load_worlds(f"idx:{tmp_path}/other")
    (tmp_path / "x-labels-idx1-ubyte").unlink()
    message = r"got no x-labels-idx1-ubyte or x-labels-idx1-ubyte\.gz in .*; correct the path"
    with pytest.raises(FileNotFoundError, match=message):
        load_worlds(f"idx:{tmp_path}/x-images-idx3-ubyte")


@pytest.mark.parametrize(
    ("digits", "backgrounds", "message"),
    [
        (
            "mnist",
            "photos",
            "digits 'mnist': got no train-.* in .*/MNIST/raw; .*data fetch mnist, or set",
        ),
        ("fashion", "photos", "in .*/FashionMNIST/raw; .*data fetch fashion_mnist, or set"),
        (
            "emnist:letters",
            "photos",
            "got no emnist-letters-train-images-idx3-ubyte or .*EMNIST/raw; .*fetch emnist, or",
        ),
        (
            "digits",
            "stl10",
            "backgrounds 'stl10': got no complete copy in .*data fetch stl10, or set INFOMIN_DATA",
        ),
        (
            "idx:none",
            "photos",
            "digits 'idx:none': got no train-images-idx3-ubyte or .* in none; correct",
        ),
        ("folder:none", "photos", "got no folder none"),
        ("digits", "folder:none", "got no folder none"),
    ],
)
def test_missing_files_are_reported_and_not_downloaded(
    digits: str, backgrounds: str, message: str
) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        load_worlds(digits, backgrounds)


def test_the_download_command_knows_the_names_in_the_messages() -> None:
    assert {name for _, name in sources.DOWNLOADED.values()} | {"stl10", "cifar10"} <= set(SETS)
