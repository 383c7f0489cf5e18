"""Sources of Moving-MNIST: IDX files and every damage to them, orientation, folders, and that the parts share no picture."""

import gzip
import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2 import functional as tv

from infomin import Recipe, data
from infomin.data import sources, stl10_cifar10
from infomin.data.bundled import bundled_worlds
from infomin.data.scenes import World, draw_scenes, render_scenes
from infomin.data.sources import EMNIST, load_worlds, read_idx

torch.set_num_threads(1)

Pixels = NDArray[np.uint8]
FOUR = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx(values: Pixels, kind: int = 8) -> bytes:
    """The bytes of an IDX file, written by its definition."""
    return (
        bytes([0, 0, kind, values.ndim])
        + b"".join(n.to_bytes(4, "big") for n in values.shape)
        + values.tobytes()
    )


def pictures(n: int, seed: int, side: tuple[int, ...] = (28, 28)) -> Pixels:
    """Noise: no two alike, and none equal to its transpose."""
    return np.random.default_rng(seed).integers(0, 256, (n, *side), np.uint8)


def write(
    folder: Path, names: tuple[str, ...] = FOUR, seed: int = 0, first: int = 0, classes: int = 10
) -> dict[str, Pixels]:
    """A tiny set of 40 and 20 pictures, its labels in no order; files whose names end in .gz are gzipped."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Pixels] = {}
    for part, n in (("train", 4 * classes), ("test", 2 * classes)):
        found[part] = pictures(n, seed + n)
        mixed = np.random.default_rng(seed + n + 1).permutation(np.arange(n) % classes)
        found[f"{part}_labels"] = (first + mixed).astype(np.uint8)
    for name, values in zip(names, found.values(), strict=True):
        (folder / name).write_bytes(
            gzip.compress(idx(values)) if name.endswith(".gz") else idx(values)
        )
    return found


def is_world_of(world: World, ink: Pixels, labels: Pixels) -> bool:
    """Whether the digits of a world are these pictures, unscaled, in their order."""
    return (
        torch.equal(world.digits, torch.from_numpy(ink))
        and world.digit_class.tolist() == labels.tolist()
    )


def shared(one: Tensor, other: Tensor) -> set[bytes]:
    """Pictures that are in both banks."""
    return {row.tobytes() for row in one.flatten(1).numpy()} & {
        row.tobytes() for row in other.flatten(1).numpy()
    }


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test reads its own files, and no network and no unpickling is needed for any."""
    sources._worlds.cache_clear()
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path))
    (
        monkeypatch.setattr("socket.socket", None),
        monkeypatch.setattr(pickle, "Unpickler", None),
        monkeypatch.setattr(pickle, "loads", None),
    )


# --- IDX files ---


@pytest.mark.parametrize(
    "shape", [(5,), (0,), (1,), (3, 4), (2, 3, 4), (0, 28, 28), (2, 1, 3, 2)], ids=str
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_is_read_as_it_was_written(
    tmp_path: Path, shape: tuple[int, ...], zipped: bool
) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    (tmp_path / "x").write_bytes(
        gzip.compress(idx(values)) if zipped else idx(values)
    )  # its name says nothing of gzip
    got = read_idx(tmp_path / "x")
    assert got.dtype == torch.uint8 and got.shape == shape and np.array_equal(got, values)
    got.zero_()  # it is no view of what cannot be written to


def test_torchvision_reads_the_same(tmp_path: Path) -> None:
    write(tmp_path / "MNIST" / "raw")
    for train, world in zip((True, False), load_worlds("mnist"), strict=True):
        theirs = datasets.MNIST(tmp_path, train=train)
        assert torch.equal(world.digits, theirs.data) and torch.equal(
            world.digit_class, theirs.targets
        )


WHOLE = idx(pictures(3, 0, (4, 5)))
ZIPPED = gzip.compress(WHOLE)
DAMAGE = {
    "empty": (b"", "got the first bytes '', wanted 00 00 08 01 or alike; name an IDX file"),
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
    "an unknown type": (idx(pictures(1, 0), 7), "got the first bytes '00 00 07 03'"),
    "a zip": (b"PK\x03\x04" + WHOLE, "got the first bytes '50 4b 03 04'"),
    "a pickle": (pickle.dumps(WHOLE), "got the first bytes '80 "),
    "cut gzip": (ZIPPED[:-9], r"got damaged gzip data \(.*\), wanted a whole file; copy it again"),
    "the head of a gzip": (ZIPPED[:6], "got damaged gzip data"),
    "gzip of another checksum": (ZIPPED[:-8] + b"\1\2\3\4" + ZIPPED[-4:], "got damaged gzip data"),
    "gzip of other bits": (ZIPPED[:20] + b"\xff" * 9 + ZIPPED[29:], "got damaged gzip data"),
    "gzip and a text": (ZIPPED + b"text", "got damaged gzip data"),
    "gzip of a cut file": (gzip.compress(WHOLE[:-1]), "got 75 bytes, wanted 76"),
    **{
        name: (
            idx(np.zeros(3, kind).astype(kind), code),
            f"got values of {kind}, wanted uint8; convert them",
        )
        for name, kind, code in (
            (kind, kind, code) for code, kind in sources.TYPES.items() if kind != "uint8"
        )
    },
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_said(tmp_path: Path, name: str) -> None:
    bits, message = DAMAGE[name]
    (tmp_path / "x").write_bytes(bits)
    with pytest.raises(ValueError, match=f"^{tmp_path}/x: {message}"):
        read_idx(tmp_path / "x")


@pytest.mark.parametrize("bits", [WHOLE, ZIPPED], ids=["plain", "gzip"])
def test_of_any_changed_byte_comes_a_value_error_or_an_honest_array(
    tmp_path: Path, bits: bytes
) -> None:
    draws = np.random.default_rng(0)
    for at in [*range(min(len(bits), 24)), *draws.integers(0, len(bits), 40).tolist()]:
        (tmp_path / "x").write_bytes(bits[:at] + bytes([draws.integers(256)]) + bits[at + 1 :])
        try:
            assert read_idx(tmp_path / "x").numel() == 60
        except ValueError as error:
            assert str(tmp_path) in str(error)


def test_no_file_a_folder_and_a_pipe_are_said(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, Path("/dev/null")):
        with pytest.raises(
            FileNotFoundError,
            match=f"read_idx: got no file {path}, wanted an IDX file; correct the path",
        ):
            read_idx(path)


# --- which IDX files ---

SPELLINGS = {
    "plain": FOUR,
    "gzipped": tuple(f"{name}.gz" for name in FOUR),
    "dots": tuple(name.replace("-idx", ".idx") for name in FOUR),
    "test": tuple(name.replace("t10k", "test") for name in FOUR),
    "prefixed": tuple(f"emnist-letters-{name.replace('t10k', 'test')}" for name in FOUR),
    "mixed": (FOUR[0] + ".gz", FOUR[1].replace("-", "_"), FOUR[2].upper(), FOUR[3] + ".gz"),
}


@pytest.mark.parametrize("names", SPELLINGS.values(), ids=SPELLINGS)
def test_a_folder_of_idx_files_is_read_however_they_are_spelt(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    made = write(tmp_path / "set", names)
    (
        (tmp_path / "set" / "README.md").touch(),
        (tmp_path / "set" / "train-images-idx3-ubyte.old").mkdir(),
    )
    train, test = load_worlds(f"idx:{tmp_path}/set")
    assert is_world_of(train, made["train"], made["train_labels"]) and is_world_of(
        test, made["test"], made["test_labels"]
    )
    assert not shared(train.digits, test.digits)


@pytest.mark.parametrize(
    ("word", "folder", "names"),
    [
        ("mnist", "MNIST", FOUR),
        ("fashion", "FashionMNIST", SPELLINGS["gzipped"]),
        *(
            (
                word,
                "EMNIST",
                tuple(f"{word.replace(':', '-')}-{n.replace('t10k', 'test')}" for n in FOUR),
            )
            for word in EMNIST
        ),
    ],
)
def test_words_name_what_lies_where_torchvision_puts_it(
    tmp_path: Path, word: str, folder: str, names: tuple[str, ...]
) -> None:
    for n, other in enumerate(EMNIST):  # all splits of EMNIST lie in one folder
        prefix = other.replace(":", "-")
        write(
            tmp_path / "EMNIST" / "raw",
            tuple(f"{prefix}-{name.replace('t10k', 'test')}" for name in FOUR),
            seed=100 + n,
        )
    made = write(tmp_path / folder / "raw", names)
    turned = {
        name: x.swapaxes(1, 2) if folder == "EMNIST" and x.ndim == 3 else x
        for name, x in made.items()
    }
    for part, world in zip(("train", "test"), load_worlds(word), strict=True):
        assert (
            is_world_of(world, turned[part], made[f"{part}_labels"])
            and world.digits.is_contiguous()
        )


def test_letters_of_emnist_stand_upright_and_are_counted_from_0(tmp_path: Path) -> None:
    """Their files hold a picture column by column: an L is written as its long stroke's bytes first."""
    letter = np.zeros((28, 28), np.uint8)
    letter[4:24, 6:9], letter[21:24, 6:20] = 255, 255
    names = tuple(f"emnist-letters-{name.replace('t10k', 'test')}" for name in FOUR)
    write(tmp_path / "EMNIST" / "raw", names, first=1, classes=26)
    columns = np.broadcast_to(letter, (104, 28, 28)).transpose(0, 2, 1)
    (tmp_path / "EMNIST" / "raw" / names[0]).write_bytes(idx(np.ascontiguousarray(columns)))
    train, test = load_worlds("emnist:letters")
    assert (train.digits == torch.from_numpy(letter)).all()
    assert (
        train.digit_class.unique().tolist() == test.digit_class.unique().tolist() == list(range(26))
    )


def test_labels_with_gaps_are_numbered_alike_in_both_parts(tmp_path: Path) -> None:
    made = write(tmp_path)
    for name, part in ((FOUR[1], "train"), (FOUR[3], "test")):
        (tmp_path / name).write_bytes(idx(made[f"{part}_labels"] * 23 + 9))
    for world, part in zip(load_worlds(f"idx:{tmp_path}"), ("train", "test"), strict=True):
        assert is_world_of(world, made[part], made[f"{part}_labels"])


@pytest.mark.parametrize(
    "names",
    [
        ("x-images-idx3-ubyte", "x-labels-idx1-ubyte.gz"),
        ("images.idx3_ubyte.gz", "labels.idx1_ubyte"),
    ],
)
@pytest.mark.parametrize("labels", ["in turn", "by class", "uneven"])
def test_of_one_file_every_fifth_of_each_class_is_the_test(
    tmp_path: Path, names: tuple[str, str], labels: str
) -> None:
    x = pictures(60, 0)
    y = {
        "in turn": np.arange(60) % 10,
        "by class": np.arange(60) // 6,
        "uneven": np.minimum(np.arange(60) % 12, 5),
    }[labels].astype(np.uint8)
    for name, values in zip(names, (x, y), strict=True):
        (tmp_path / name).write_bytes(
            gzip.compress(idx(values)) if name.endswith(".gz") else idx(values)
        )
    seen: dict[int, int] = {}
    late = []
    for label in y.tolist():  # a slow oracle
        seen[label] = seen.get(label, 0) + 1
        late.append(seen[label] % 5 == 0)
    mask = np.array(late)
    train, test = load_worlds(f"idx:{tmp_path / names[0]}")
    assert is_world_of(train, x[~mask], y[~mask]) and is_world_of(test, x[mask], y[mask])


def test_the_plain_file_is_taken_before_the_gzipped_one(tmp_path: Path) -> None:
    """torchvision leaves both; the gzipped ones here are of another set."""
    write(tmp_path, SPELLINGS["gzipped"], seed=7)
    made = write(tmp_path)
    assert is_world_of(load_worlds(f"idx:{tmp_path}")[0], made["train"], made["train_labels"])


def put(name: str, values: Pixels | None) -> tuple[str, bytes | None]:
    return name, None if values is None else idx(values)


CLASSES = np.arange(40, dtype=np.uint8) % 10
WRONG = {
    "no labels": (put(FOUR[1], None), FileNotFoundError, "got no such file in .*, wanted train-labels-idx1-ubyte or .*gz;"),
    "no test": (put(FOUR[2], None), FileNotFoundError, r"wanted \(t10k\|test\)-images-idx3-ubyte or .*\.gz; correct the path"),
    "a label short": (put(FOUR[1], CLASSES[:-1]), ValueError, r"got the shape \[40, 28, 28\] in .* and \[39\] in .*; take two"),
    "a label more": (put(FOUR[1], np.append(CLASSES, CLASSES[:1])), ValueError, r"and \[41\] in"),
    "labels with two axes": (put(FOUR[1], CLASSES[:, None]), ValueError, r"and \[40, 1\] in .*, wanted images \[N, h, w\]"),
    "images with two axes": (put(FOUR[0], pictures(40, 0, (784,))), ValueError, r"got the shape \[40, 784\] in"),
    "images without pixels": (put(FOUR[0], pictures(40, 0, (0, 28))), ValueError, r"got the shape \[40, 0, 28\] in"),
    "a damaged file": ((FOUR[0], WHOLE[:-3]), ValueError, "train-images-idx3-ubyte: got 73 bytes, wanted 76"),
    "a class that the test lacks": (put(FOUR[3], CLASSES[:20] % 8), ValueError, "got no test picture .* of class 8, class 9,"),
    "a class that training lacks": (put(FOUR[1], CLASSES % 9), ValueError, "no training picture .* of class 9, wanted one"),
    "two sets": (put("a-" + FOUR[0], pictures(40, 0)), ValueError, "got a-train-images-.*, train-.*, wanted one set"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_folder_of_idx_files_is_said(tmp_path: Path, name: str) -> None:
    write(tmp_path / "set")
    (file, bits), kind, message = WRONG[name]
    (tmp_path / "set" / file).unlink() if bits is None else (tmp_path / "set" / file).write_bytes(
        bits
    )
    with pytest.raises(kind, match=message):
        load_worlds(f"idx:{tmp_path}/set")


def test_one_file_that_cannot_do_is_said(tmp_path: Path) -> None:
    for name, values in (
        ("x-images-idx3-ubyte", pictures(0, 0)),
        ("x-labels-idx1-ubyte", CLASSES[:0]),
        ("other", pictures(3, 0)),
    ):
        (tmp_path / name).write_bytes(idx(values))
    with pytest.raises(ValueError, match="got no training picture that can be read of any class"):
        load_worlds(f"idx:{tmp_path}/x-images-idx3-ubyte")
    with pytest.raises(
        ValueError, match=r"wanted images .* and labels .*named images-idx3 and labels-idx1"
    ):
        load_worlds(f"idx:{tmp_path}/other")
    (tmp_path / "x-labels-idx1-ubyte").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"wanted x-labels-idx1-ubyte or x-labels-idx1-ubyte\.gz; correct the path",
    ):
        load_worlds(f"idx:{tmp_path}/x-images-idx3-ubyte")


@pytest.mark.parametrize(
    ("digits", "backgrounds", "told"),
    [
        ("mnist", "photos", "digits 'mnist': got no such file in .*/MNIST/raw, wanted train-.*fetch.py mnist, or set"),
        ("fashion", "photos", "FashionMNIST/raw, wanted .*fetch.py fashion_mnist, or set"),
        ("emnist:letters", "photos", "EMNIST/raw, wanted emnist-letters-train-images-idx3-ubyte or .*fetch.py emnist, or set"),
        ("digits", "stl10", "backgrounds 'stl10': got no whole copy in .*, wanted one; .*fetch.py stl10, or set INFOMIN_DATA"),
        ("idx:none", "photos", "digits 'idx:none': got no such file in none, wanted train-images-idx3-ubyte or .*; correct"),
        ("folder:none", "photos", "got no folder none"),
        ("digits", "folder:none", "got no folder none"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_downloaded_but_said(
    digits: str, backgrounds: str, told: str
) -> None:
    with pytest.raises(FileNotFoundError, match=told):
        load_worlds(digits, backgrounds)


def test_what_fetches_a_set_knows_the_names_that_messages_give() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "data_tools"))
    try:
        from fetch import SETS
    finally:
        sys.path.pop(0)
    assert {download for _, download in sources.STORED.values()} | {"stl10"} <= set(SETS)


# --- scaling ---


@pytest.mark.parametrize("digit", [8, 20, 27, 28, 40])
def test_digits_are_scaled_with_antialias(tmp_path: Path, digit: int) -> None:
    made = write(tmp_path)
    got = load_worlds(f"idx:{tmp_path}", digit=digit)[0].digits
    wanted = tv.resize(
        torch.from_numpy(made["train"])[:, None].float(), [digit, digit], antialias=True
    )[:, 0]
    assert (
        got.dtype == torch.uint8
        and got.shape == (40, digit, digit)
        and (got - wanted).abs().max() <= 0.5 + 1e-3
    )


@pytest.mark.parametrize("side", [(20, 28), (28, 21), (28, 1)], ids=str)
def test_digits_that_are_not_square_keep_their_shape_amid_empty_paper(
    tmp_path: Path, side: tuple[int, int]
) -> None:
    write(tmp_path)
    (tmp_path / FOUR[0]).write_bytes(idx(np.full((40, *side), 255, np.uint8)))
    got, long = load_worlds(f"idx:{tmp_path}")[0].digits[0], max(side)
    rows, columns = (got > 0).any(1).nonzero().flatten(), (got > 0).any(0).nonzero().flatten()
    assert (
        (len(rows), len(columns)) == side
        and got.max() == 255
        and got.sum() == 255 * math.prod(side)
    )
    for found in (rows, columns):
        assert abs(int(found[0]) - (long - 1 - int(found[-1]))) <= 1  # central


def test_scaling_in_pieces_is_scaling_at_once() -> None:
    x = torch.from_numpy(pictures(2100, 0, (9, 12)))
    assert torch.equal(
        sources._scaled(x, 8), torch.cat([sources._scaled(some, 8) for some in x.split(700)])
    )


# --- what is embedded ---


@pytest.mark.parametrize("size", [24, 32])
def test_embedded_words_give_the_worlds_of_the_embedded_scenes(size: int) -> None:
    for one, other in zip(
        load_worlds(size=size, digit=round(size * 20 / 32)), bundled_worlds(size), strict=True
    ):
        assert one.to("cpu") is not other
        for name, value in vars(other).items():
            if name in World.__dataclass_fields__:
                assert (
                    torch.equal(getattr(one, name), value)
                    if isinstance(value, Tensor)
                    else getattr(one, name) == value
                )


@pytest.mark.parametrize("digit", range(8, 49, 8))
def test_embedded_digits_have_the_size_asked_for(digit: int) -> None:
    for world in load_worlds(size=48, digit=digit, dim=1):
        assert world.digits.shape[1:] == (digit, digit) and world.backgrounds.shape[2:] == (96, 96)
        assert (world.size, world.dim) == (48, 1)


def test_worlds_are_kept_and_those_of_another_place_are_not_taken_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        write(tmp_path / name / "MNIST" / "raw", seed=len(name) + ord(name[0]))
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path / "one"))
    first = load_worlds("mnist")
    assert load_worlds("mnist") is first
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path / "two"))
    assert not torch.equal(load_worlds("mnist")[0].digits, first[0].digits)


def test_files_that_change_are_read_anew_and_are_another_run(tmp_path: Path) -> None:
    """Also those of the same size: Fashion-MNIST's files have that of MNIST's."""
    write(tmp_path, seed=1)
    words = [f"idx:{tmp_path}", f"idx:{tmp_path}/train-images-idx3-ubyte"]
    before, first = (
        [Recipe(data=f"clips:{word}@photos").key for word in words],
        load_worlds(words[0]),
    )
    assert (
        before == [Recipe(data=f"clips:{word}@photos").key for word in words]
        and load_worlds(words[0]) is first
    )
    write(tmp_path, seed=2)
    after = [Recipe(data=f"clips:{word}@photos").key for word in words]
    assert len({*before, *after}) == 4 and not torch.equal(
        load_worlds(words[0])[0].digits, first[0].digits
    )


# --- backgrounds ---


@pytest.fixture
def stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Pixels]:
    """A tiny STL-10 in the format of its makers, columns before rows, classes from 1; its checksums are taken as right."""
    folder, found = tmp_path / "stl10_binary", {}
    folder.mkdir()
    for part, n in (("train", 20), ("unlabeled", 5), ("test", 10)):
        found[part] = pictures(n, n, (3, 96, 96))
        found[part].swapaxes(2, 3).tofile(folder / f"{part}_X.bin")
        (np.arange(n) % 10 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    return found


def test_backgrounds_of_stl10_are_its_labelled_images(stl10: dict[str, Pixels]) -> None:
    for world, part in zip(load_worlds(backgrounds="stl10"), ("train", "test"), strict=True):
        assert np.array_equal(world.backgrounds, stl10[part]) and world.backgrounds.is_contiguous()
        assert world.background_class.tolist() == [n % 10 for n in range(len(stl10[part]))]
    assert load_worlds(backgrounds="stl10", size=96)[0].size == 96
    with pytest.raises(
        ValueError,
        match=r"worlds\(size\): got 97, wanted 8 to 96 px with backgrounds 'stl10'; change it",
    ):
        load_worlds(backgrounds="stl10", size=97)


def scene(width: int, height: int, seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 10 JPEGs: some large, upright or across, grey, one cut, one text; and a file that is none by its name."""
    root = tmp_path_factory.mktemp("photographs")
    for n in range(30):
        path = root / ("sea", "forest", "street")[n % 3] / f"{n:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        image = scene(*((1600, 1200), (700, 900), (60, 44), (150, 130))[n % 4], seed=n)
        image.convert("L" if n == 7 else "RGB").save(path)
    cut = root / "forest" / "10.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    (root / "sea" / "12.jpg").write_text("a text " * 100)  # the fifth of its class: one of the test
    (root / "street" / "notes.txt").write_text("no image")
    return root


def test_a_folder_of_photographs_makes_backgrounds(photographs: Path) -> None:
    with pytest.warns(UserWarning, match=r"cannot be read \(.*\); it is left out") as said:
        train, test = load_worlds(backgrounds=f"folder:{photographs}", size=24, digit=20)
    assert sorted(str(w.message).split(":")[0] for w in said) == [
        f"{photographs}/forest/10.jpg",
        f"{photographs}/sea/12.jpg",
    ]
    assert train.background_class.bincount().tolist() == [
        7,
        8,
        8,
    ] and test.background_class.bincount().tolist() == [2, 1, 2]
    every = torch.cat([train.backgrounds, test.backgrounds])
    assert every.shape == (28, 3, 48, 48) and every.dtype == torch.uint8
    assert len({row.tobytes() for row in every.numpy()}) == 28  # so no picture is in both
    names = sorted({path.parent.name for path in photographs.rglob("*.jpg")})
    for world, last in ((train, False), (test, True)):
        for picture, label in zip(world.backgrounds, world.background_class.tolist(), strict=True):
            listed = sorted((photographs / names[label]).glob("*.jpg"))
            near = min(range(10), key=lambda i: distance(picture, listed[i]))
            assert distance(picture, listed[near]) < 12 and (near % 5 == 4) == last


def distance(picture: Tensor, path: Path) -> float:
    """How far a picture is from the central square of a file, scaled otherwise: the mean of all differences of bytes."""
    try:
        image = Image.open(path).convert("RGB")
    except OSError:
        return math.inf
    side = min(image.size)
    square = tv.resize(
        tv.center_crop(tv.pil_to_tensor(image), [side, side]), [48, 48], antialias=True
    )
    return float((square.float() - picture).abs().mean())


def test_unreadable_files_are_named_once(photographs: Path) -> None:
    with pytest.warns(UserWarning, match="left out"):
        first = load_worlds(backgrounds=f"folder:{photographs}", size=16, digit=16)
    assert (
        load_worlds(backgrounds=f"folder:{photographs}", size=16, digit=16) is first
    )  # warnings would be errors


def test_large_jpegs_are_scaled_by_their_decoder(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, act = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, *a, **k: (sizes.append(min(self.size)), act(self, *a, **k))[1],
    )
    with pytest.warns(UserWarning, match="left out"):
        load_worlds(backgrounds=f"folder:{photographs}", size=24, digit=20)
    assert len(sizes) == 28 and max(sizes) < 4 * 48 and min(sizes) == 44


def test_a_class_of_which_a_part_can_read_nothing_is_said(tmp_path: Path) -> None:
    for n in range(10):
        path = tmp_path / "ab"[n % 2] / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        scene(30, 30, n).save(path)
    (tmp_path / "b" / "9.png").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="9.png: cannot be read"),
        pytest.raises(
            ValueError,
            match=rf"got no test picture that can be read of class {tmp_path}/b, wanted one in each part; add",
        ),
    ):
        load_worlds(backgrounds=f"folder:{tmp_path}")


# --- digits from a folder, and everything together ---


def glyphs(root: Path, n: int = 30) -> dict[str, int]:
    """Plain pictures of six classes, each of its own brightness; returns brightness by name."""
    made = {}
    for i in range(n):
        path = root / "fedcba"[i % 6] / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        made[str(path)] = 255 - 8 * i
        Image.new("L", (10 + i, 14), 255 - 8 * i).save(path)
    return made


def test_a_folder_makes_digits_whose_ink_is_brightness(tmp_path: Path) -> None:
    made = glyphs(tmp_path / "glyphs")
    train, test = load_worlds(f"folder:{tmp_path}/glyphs", digit=12)
    assert (
        train.digits.shape == (24, 12, 12)
        and test.digits.shape == (6, 12, 12)
        and train.digits.dtype == torch.uint8
    )
    assert not shared(train.digits, test.digits)
    found = sorted(int(digit[0, 0]) for digit in torch.cat([train.digits, test.digits]))
    assert found == sorted(made.values())
    for world in (train, test):
        for digit, label in zip(world.digits, world.digit_class.tolist(), strict=True):
            i = (255 - int(digit[0, 0])) // 8
            assert (
                (digit == 255 - 8 * i).all()
                and "abcdef"[label] == "fedcba"[i % 6]
                and (i >= 24) == (world is test)
            )


def test_ink_of_colours_is_their_luma(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (12, 200, 77)]
    for n, colour in enumerate(colours):
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{n}.png")
    every = torch.cat(
        [world.digits[:, 0, 0] for world in load_worlds(f"folder:{tmp_path}", digit=8)]
    )
    assert sorted(every.tolist()) == sorted(
        round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in colours
    )


def test_real_kinds_of_files_in_place_of_both_run_by_two_arguments(
    tmp_path: Path, photographs: Path
) -> None:
    made = write(tmp_path / "fashion", SPELLINGS["gzipped"])
    with pytest.warns(UserWarning, match="left out"):
        both = load_worlds(f"idx:{tmp_path}/fashion", f"folder:{photographs}", dim=0.8)
    for world, part in zip(both, ("train", "test"), strict=True):
        assert (world.size, world.dim) == (64, 0.8) and is_world_of(
            world, made[part], made[f"{part}_labels"]
        )
        scenes = draw_scenes(world, 200, torch.Generator().manual_seed(0))
        images = render_scenes(scenes)
        assert images.shape == (200, 3, 64, 64) and images.min() >= 0 and images.max() <= 1
        assert scenes.digit.unique().tolist() == list(
            range(10)
        ) and scenes.background.unique().tolist() == [0, 1, 2]
        assert torch.equal(world.digit_class[scenes.digit_image], scenes.digit)
        assert torch.equal(world.background_class[scenes.background_image], scenes.background)


@pytest.mark.parametrize(
    "words",
    [("digits", "photos"), ("idx", "folder"), ("folder", "stl10"), ("file", "photos")],
    ids=str,
)
def test_the_parts_share_no_picture(
    tmp_path: Path, photographs: Path, stl10: dict[str, Pixels], words: tuple[str, str]
) -> None:
    write(tmp_path / "set"), glyphs(tmp_path / "glyphs")
    x, y = pictures(60, 9), np.arange(60, dtype=np.uint8) % 10
    (
        (tmp_path / "images-idx3-ubyte").write_bytes(idx(x)),
        (tmp_path / "labels-idx1-ubyte").write_bytes(idx(y)),
    )
    digits = {
        "idx": f"idx:{tmp_path}/set",
        "folder": f"folder:{tmp_path}/glyphs",
        "file": f"idx:{tmp_path}/images-idx3-ubyte",
    }
    backgrounds = {"folder": f"folder:{photographs}"}
    with pytest.warns(UserWarning) if words[1] == "folder" else pytest.MonkeyPatch.context():
        train, test = load_worlds(
            digits.get(words[0], words[0]), backgrounds.get(words[1], words[1]), size=24, digit=20
        )
    assert len(train.digits) and len(test.digits) and not shared(train.digits, test.digits)
    assert (
        len(train.backgrounds)
        and len(test.backgrounds)
        and not shared(train.backgrounds, test.backgrounds)
    )
    assert train.digit_class.unique().tolist() == test.digit_class.unique().tolist()
    assert train.background_class.unique().tolist() == test.background_class.unique().tolist()


# --- what fits ---


def evenly(counts: list[int], most: int) -> list[int]:
    """A slow oracle: one of each class in turn, until there are enough."""
    taken = [0] * len(counts)
    while sum(taken) < min(most, sum(counts)):
        for c, n in enumerate(counts):
            if taken[c] < n and sum(taken) < most:
                taken[c] += 1
    return taken


@pytest.mark.parametrize("most", [3, 4, 7, 11, 20, 33, 34, 99])
def test_what_does_not_fit_is_left_out_evenly(most: int) -> None:
    counts = [3, 20, 11]
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))[
        torch.randperm(34, generator=torch.Generator().manual_seed(0))
    ]
    rows = sources._evenly(labels, most, torch.Generator().manual_seed(1))
    taken = labels[rows].bincount(minlength=3).tolist()
    assert sorted(taken) == sorted(evenly(counts, most))  # which classes get what is over is drawn
    assert all(n == count or n >= max(taken) - 1 for n, count in zip(taken, counts, strict=True))
    assert (rows.diff() > 0).all()  # none twice, in the order of the files
    assert torch.equal(rows, sources._evenly(labels, most, torch.Generator().manual_seed(1)))
    assert most >= 33 or not torch.equal(
        rows, sources._evenly(labels, most, torch.Generator().manual_seed(2))
    )


def test_a_part_takes_so_many_bytes_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, read = glyphs(tmp_path / "glyphs"), []
    act = sources.read_square
    monkeypatch.setattr(
        sources, "read_square", lambda path, size: (read.append(path), act(path, size))[1]
    )
    monkeypatch.setattr(sources, "MOST_BYTES", 12 * 3 * 48**2)
    for digits, backgrounds in (
        ("digits", f"folder:{tmp_path}/glyphs"),
        (f"folder:{tmp_path}/glyphs", "photos"),
    ):
        sources._worlds.cache_clear(), read.clear()
        if digits != "digits":
            monkeypatch.setattr(sources, "MOST_BYTES", 12 * 20**2)
        train, test = load_worlds(digits, backgrounds, size=24, digit=20)
        classes = [
            world.digit_class if digits != "digits" else world.background_class
            for world in (train, test)
        ]
        assert (
            classes[0].bincount().tolist() == [2] * 6 and classes[1].bincount().tolist() == [1] * 6
        )
        assert len(read) == 18 and set(read) < made.keys()  # the others are not even opened


def test_more_classes_than_pictures_fit_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    monkeypatch.setattr(sources, "MOST_BYTES", 9 * 28**2)
    with pytest.raises(
        ValueError, match="got 10 classes, wanted at most 9 of pictures so large; make them smaller"
    ):
        load_worlds(f"idx:{tmp_path}")
    monkeypatch.setattr(sources, "MOST_BYTES", 10 * 28**2)
    train, test = load_worlds(f"idx:{tmp_path}")
    assert (
        train.digit_class.sort().values.tolist()
        == test.digit_class.sort().values.tolist()
        == list(range(10))
    )


# --- words and numbers ---


MISSPELT = [
    "",
    "minst",
    "Digits",
    "digits:",
    "mnist:x",
    "emnist",
    "emnist:",
    "emnist:Letters",
    "idx:",
    "folder:",
    "photos",
]


@pytest.mark.parametrize("word", MISSPELT)
def test_unknown_digits_are_told_the_known_ones(word: str) -> None:
    with pytest.raises(
        ValueError,
        match=f"digits: got '{word}', wanted one of digits, mnist, fashion, emnist:byclass, .*, folder:PATH",
    ):
        load_worlds(word)


@pytest.mark.parametrize("word", ["", "photo", "stl-10", "folder", "folder:", "idx:x", "digits"])
def test_unknown_backgrounds_are_told_before_digits_are_read(word: str) -> None:
    with pytest.raises(
        ValueError,
        match=f"backgrounds: got '{word}', wanted one of photos, stl10, folder:PATH; pick",
    ):
        load_worlds("mnist", word)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"size": 7}, r"size\): got 7, wanted 8 to 256 px"),
        ({"size": 257}, r"size\): got 257, wanted 8 to 256 px"),
        ({"size": 64.0}, r"size\): got 64.0, wanted int"),
        ({"digit": 65}, r"digit\): got 65, wanted 8 to 64 px"),
        ({"digit": 7}, r"digit\): got 7, wanted 8 to 64 px"),
        ({"digit": True}, r"digit\): got True, wanted int"),
        ({"dim": -0.1}, r"dim\): got -0.1, wanted"),
        ({"dim": 1.1}, r"dim\): got 1.1, wanted a brightness of 0 to 1; change it"),
        ({"dim": math.nan}, r"dim\): got nan, wanted"),
        ({"digits": None}, "digits: got None, wanted str"),
        ({"backgrounds": Path()}, "backgrounds: got .*Path.*, wanted str"),
    ],
)
def test_numbers_out_of_range_are_told(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_worlds(**wrong)  # type: ignore[arg-type]


def test_the_stored_root_is_where_a_set_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFOMIN_DATA", ""), monkeypatch.chdir(tmp_path)
    made = write(stl10_cifar10.data_root() / "FashionMNIST" / "raw")
    assert is_world_of(load_worlds("fashion")[1], made["test"], made["test_labels"])
