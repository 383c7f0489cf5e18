"""What a user is told, through the doors a user has: every message says what came, what was wanted, and what to do."""

import errno
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import infomin
from infomin.__main__ import main
from infomin.common import files
from infomin.training import loop

TINY = {
    "steps": 10,
    "batch": 16,
    "size": 24,
    "width": 0.25,
    "dim": 16,
    "candidates": 16,
    "probe_images": 64,
}
TINY |= {"precision": "fp32", "device": "cpu"}
RECIPE = infomin.Recipe(**TINY, view="color:lab")
runs = sys.modules["infomin.runs.single"]


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """A sweep of one job on one core has one thread, as `run` has in these tests."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)


def told(parts, door, *arguments, **settings):
    """The message of the ValueError, TypeError or OSError that a door raises; all parts are in it, in this order."""
    with pytest.raises((ValueError, TypeError, OSError, files.Locked)) as error:
        door(*arguments, **settings)
    message, at = str(error.value), 0
    for part in parts:
        assert part in message[at:], f"{part!r} is missing from, or out of order in: {message}"
        at = message.index(part, at) + len(part)
    return message


# A recipe that cannot be carried out is refused before anything is drawn or trained.

WHOLE = ("size", "dim", "steps", "batch", "candidates", "probe_images", "seed")
NUMBERS = ("width", "tau", "lr", "weight_decay", "warmup")
FIELDS = [
    ({"view": "colour:lab"}, ["'colour:lab'", "got 'colour'", "one of color, shared", "pick"]),
    ({"view": "color"}, ["'color'", "got no dial", "wanted color:DIAL", "color:lab"]),
    ({"view": "color:"}, ["'color:'", "got no dial", "wanted color:DIAL"]),
    ({"view": ""}, ["view ''", "wanted one of color, shared", "pick"]),
    ({"view": "color:lap"}, ["got 'lap'", "one of rgb, xyz", "lab, luv", "pick"]),
    ({"view": "color:LAB"}, ["got 'LAB'", "lab", "pick"]),
    ({"view": "color:lab/0-1"}, ["got '0-1'", "0, 1 and 2 once each", "write for example '0-12'"]),
    ({"view": "shared:digits"}, ["'digits'", "got 'digits'", "digit, ", "background", "pick"]),
    ({"view": "shared:digit%1"}, ["'digit%1'", "got modulus '1'", "from 2"]),
    ({"view": "shared:digit-digit_image"}, ["names a factor twice", "keep the finer one"]),
    (
        {"view": "shared:digit+color:lab/0-1-2"},
        ["got 2 views and then 3", "wanted equally many", "change"],
    ),
    ({"view": "shared:digit+colour:lab"}, ["got 'colour'", "one of color, shared", "pick"]),
    ({"data": "imagenet"}, ["data", "got 'imagenet'", "one of digits, photos", "pick"]),
    ({"encoder": "vgg"}, ["encoder", "got 'vgg'", "one of tiny, alexnet", "pick"]),
    ({"method": "simclr9"}, ["method", "got 'simclr9'", "one of ", "infonce", "pick"]),
    ({"head": "big"}, ["head", "got 'big'", "one of none, linear, mlp", "pick"]),
    ({"optimizer": "adan"}, ["optimizer", "got 'adan'", "one of sgd, adamw, lars", "pick"]),
    ({"schedule": "linear"}, ["schedule", "got 'linear'", "one of cosine, step, constant", "pick"]),
    ({"precision": "fp16"}, ["precision", "got 'fp16'", "one of auto, fp32, bf16", "pick"]),
    ({"device": "gpu"}, ["device", "got 'gpu'", "one of auto, cpu, cuda", "pick"]),
    ({"size": 23}, ["size", "23", "24 to 96"]),
    ({"size": 97}, ["size", "97", "24 to 96"]),
    ({"batch": 1}, ["batch", "got 1", "wanted 2"]),
    ({"batch": 8193}, ["batch", "got 8193", "8192"]),
    ({"candidates": 65}, ["candidates", "got 65", "64", "change"]),
    ({"candidates": 1}, ["candidates", "got 1", "wanted"]),  # log 1 = 0: nothing could be measured
    ({"probe_images": 4097}, ["probe_images", "4097", "4096"]),
    ({"probe_images": 4, "candidates": 4}, ["probe_images", "4"]),
    ({"warmup": 1.5}, ["warmup", "1.5", "1"]),
    (
        {"view": "shared:digit", "data": "photos"},
        ["'shared:digit'", "got data 'photos'", "no known factors", "use data='digits'"],
    ),
    (
        {"view": "color:lab", "share_encoder": True},
        ["got views of (1, 2) channels", "wanted equal ones", "give each view its own"],
    ),
    ({"view": "color:lab/012"}, ["got a view of 1 part", "wanted two or more", "split it"]),
    *(
        ({name: value}, [name, f"{value!r}", "wanted"])
        for name in WHOLE
        for value in (-1, 2.5, "3", None)
    ),
    *(
        ({name: value}, [name, f"{value!r}", "wanted"])
        for name in NUMBERS
        for value in (-1, "3", None, np.nan, np.inf)
    ),
    *(
        ({name: 0}, [name, "0", "wanted"])
        for name in ("size", "dim", "batch", "width", "tau", "lr", "probe_images")
    ),
    *(
        ({"share_encoder": value}, ["share_encoder", f"got {value!r}", "wanted"])
        for value in ("yes", 2)
    ),
    (
        {"view": "color:lab+color:lab"},
        ["got views of 1, 2 channels for ColorSplit", "wanted 3", "put it before"],
    ),
    *(
        (
            {"view": f"{first}+{second}"},
            ["got views with values outside [0, 1]", "wanted colours", "put it before the part"],
        )
        for first in (
            "frequency:1",
            "color:rgb/012",
            "crop:0.5+frequency:1",
            "frequency:1+crop:0.5",
        )
        for second in ("color:lab", "grey:0.2", "crop:0.5+jitter:1")
    ),
    (
        {"view": "color:lab+shared:digit"},
        ["got a second part that takes scenes", "wanted", "images", "put it first"],
    ),
    *(({"view": value}, ["view", f"{value!r}", "wanted"]) for value in (None, 3)),
]


@pytest.mark.parametrize(
    ("wrong", "parts"),
    FIELDS,
    ids=[",".join(f"{k}={v}" for k, v in wrong.items()) for wrong, _ in FIELDS],
)
def test_a_wrong_field_is_told_before_anything_is_trained(monkeypatch, wrong, parts):
    monkeypatch.setattr(loop, "_step", lambda *_: pytest.fail("trained first"))
    told(parts, lambda: infomin.run(infomin.Recipe(**{**TINY, "view": "color:lab", **wrong})))


def test_an_unknown_field_is_named():
    told(["veiw"], lambda: infomin.Recipe(veiw="color:lab"))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            {"encoder": "alexnet"},
            ["alexnet", "63 px or more", "got 24x24", "use larger images or another encoder"],
        ),
        (
            {"view": "patch:8/32"},
            [
                "PatchPair(distance=8, size=32)",
                "40 px or more",
                "got 24x24",
                "use a smaller distance",
            ],
        ),
    ],
)
def test_what_only_the_images_show_is_told_at_the_first_step(change, parts):
    told(parts, infomin.run, replace(RECIPE, **change))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys, tmp_path):
    told(["cuda", "cpu"], infomin.run, replace(RECIPE, device="cuda"))
    assert main(["run", "--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "cuda" in capsys.readouterr().err


# views, in anyone's code

LAB = infomin.views.parse("color:lab")
HALF = torch.rand(2, 3, 8, 8)
NAN = HALF.clone()
NAN[1, 2, 3, 4] = torch.nan
IMAGES = [
    (HALF[0, 0], ["ColorSplit(lab)", "[B, 3, H, W]", "got [8, 8]", "images[None]"]),
    (
        HALF.movedim(1, 3),
        ["ColorSplit(lab)", "[B, 3, H, W]", "got [2, 8, 8, 3]", "put the channels second"],
    ),
    (HALF[:0], ["at least one", "got [0, 3, 8, 8]"]),
    (HALF.long(), ["uint8", "floating point", "got torch.int64", "images.to(torch.uint8)"]),
    (HALF.bool(), ["uint8", "got torch.bool"]),
    (HALF.numpy(), ["torch.Tensor", "got ndarray", "convert"]),
    (None, ["torch.Tensor", "got NoneType"]),
    (HALF * 255, ["in [0, 1]", "got [", "divide by 255 or pass uint8"]),
    (HALF - 0.5, ["in [0, 1]", "got [-0", "divide by 255"]),
    (NAN, ["finite", "got 1 ", "NaN", "repair or drop"]),
]


@pytest.mark.parametrize(("images", "parts"), IMAGES)
def test_wrong_images_are_told_by_the_view_that_was_written(images, parts):
    told(parts, LAB, images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_a_batch_of_one_is_a_batch(dtype):
    image = (HALF[:1] * (255 if dtype == torch.uint8 else 1)).to(dtype)
    for one, many in zip(LAB(image), LAB(image.repeat(2, 1, 1, 1)), strict=True):
        assert one.shape[0] == 1 and torch.equal(one, many[:1])
    assert infomin.infonce(torch.randn(1, 1)).item() == 0  # log 1


def test_scores_that_are_no_matrix():
    for scores in (torch.randn(4), torch.randn(4, 3), torch.randn(2, 4, 4)):
        told(
            ["infonce", "[B, K]", "K >= B", f"got {list(scores.shape)}", "partner"],
            infomin.infonce,
            scores,
        )


# files

DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "another": lambda data: b"PK\x03\x04" + data[::-1],
}
AGAIN = "delete it and run the same command again"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run: its folder of runs, its own folder in there, and its row."""
    out = tmp_path_factory.mktemp("done")
    return out, out / RECIPE.key, infomin.run(RECIPE, out)


@pytest.fixture
def copy(done, tmp_path):
    """The same without a row and behind its last checkpoint, as if it had been cut while it was probed."""
    folder = tmp_path / RECIPE.key
    folder.mkdir()
    for name in ("recipe.json", "log.jsonl", "checkpoint.pt"):
        (folder / name).write_bytes((done[1] / name).read_bytes())
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_told_and_the_advice_works(copy, done, damage, capsys):
    path = copy / "checkpoint.pt"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    told([str(path), "wanted a whole checkpoint", AGAIN], infomin.run, RECIPE, copy.parent)
    with pytest.raises(
        ValueError, match=rf"1 of 1 runs failed.*checkpoint\.pt: wanted a whole checkpoint.*{AGAIN}"
    ):
        infomin.sweep([RECIPE], copy.parent, jobs=1, bar=False)
    assert not (copy / "row.json").exists()
    path.unlink()
    assert infomin.run(RECIPE, copy.parent)["i_nce"] == done[2]["i_nce"]


def test_the_checkpoint_of_another_recipe_is_told(copy):
    other = replace(RECIPE, width=0.5)
    copy.rename(copy.parent / other.key)
    parts = ["checkpoint.pt", "something else", "are not as wanted", "encoders", AGAIN]
    told(parts, infomin.run, other, copy.parent)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_row_is_told_and_the_advice_works(copy, done, damage):
    path = copy / "row.json"
    path.write_bytes(DAMAGE[damage]((done[1] / "row.json").read_bytes()))
    for door in (infomin.run, lambda recipe, out: infomin.sweep([recipe], out, jobs=1, bar=False)):
        told([str(path), "wanted a whole JSON file", AGAIN], door, RECIPE, copy.parent)
    path.unlink()
    assert infomin.run(RECIPE, copy.parent)["i_nce"] == done[2]["i_nce"]


def test_a_log_that_is_damaged_in_the_middle_is_told(copy):
    (copy / "checkpoint.pt").unlink()
    (copy / "log.jsonl").write_text('{"step": 1\n{"step": 10}\n')
    told(
        ["log.jsonl", "one JSON object a line", "line 1", "delete"],
        infomin.run,
        RECIPE,
        copy.parent,
    )


def fail(code):
    def broken(*_, **__):
        raise OSError(code, os.strerror(code))

    return broken


@pytest.mark.parametrize(
    ("broken", "code", "parts"),
    [
        (
            "fsync",
            errno.ENOSPC,
            [
                "cannot write ",
                "No space left on device",
                "free some space",
                "run the same command again",
            ],
        ),
        (
            "mkdir",
            errno.EROFS,
            ["cannot write .lock", "Read-only file system", "choose a folder that can be written"],
        ),
        (
            "open",
            errno.EROFS,
            ["cannot write .lock", "Read-only file system", "choose a folder that can be written"],
        ),
    ],
)
def test_a_disk_that_cannot_be_written_is_told_and_the_run_goes_on_later(
    tmp_path, monkeypatch, broken, code, parts, done
):
    out = tmp_path / "new"
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail(code))
        message = told(parts, infomin.run, RECIPE, out)
        assert str(out) in message
        told(parts, infomin.sweep, [RECIPE], out, jobs=1, bar=False)
    assert not list(tmp_path.rglob("row.json")) and not list(tmp_path.rglob("*.tmp"))
    assert infomin.run(RECIPE, out)["i_nce"] == done[2]["i_nce"]


@pytest.mark.parametrize("full_from", ["checkpoint.pt", "row.json"])
def test_a_disk_that_fills_up_on_the_way_costs_the_rest_only(
    tmp_path, monkeypatch, full_from, done
):
    replace_file = os.replace

    def full(source, target):
        if os.path.basename(target) == full_from:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        told(
            [f"cannot write {full_from}", "No space left", "run the same command again"],
            infomin.run,
            RECIPE,
            tmp_path,
        )
    if full_from == "row.json":
        monkeypatch.setattr(loop, "_step", lambda *_: pytest.fail("trained again"))
    assert infomin.run(RECIPE, tmp_path)["i_nce"] == done[2]["i_nce"]


def test_a_figure_that_cannot_be_written_is_told_and_the_older_one_stays(
    tmp_path, monkeypatch, done
):
    picture = tmp_path / "u_curve.png"
    infomin.plots.u_curve([done[2]], picture)
    before = picture.read_bytes()
    save = Figure.savefig

    def full(
        figure, target, **settings
    ):  # what a disk does that fills up while the picture is written
        save(figure, target, **settings)
        fail(errno.ENOSPC)()

    monkeypatch.setattr(Figure, "savefig", full)
    told(
        ["cannot write u_curve.png", "No space left on device"],
        infomin.plots.u_curve,
        [done[2]] * 2,
        picture,
    )
    assert picture.read_bytes() == before and os.listdir(tmp_path) == ["u_curve.png"]


def test_a_folder_in_use_is_told_with_its_holder(copy, capsys):
    for folder, door in (
        (copy, infomin.run),
        (copy.parent, lambda recipe, out: infomin.sweep([recipe], out, jobs=1, bar=False)),
    ):
        with files.lock(folder):
            told(
                [str(folder), f"in use by process {os.getpid()}", "wait, or choose another folder"],
                door,
                RECIPE,
                copy.parent,
            )
    with files.lock(copy.parent):
        assert main(["sweep", "--view", "color:lab", "--out", str(copy.parent)]) == 2
    said, errors = capsys.readouterr()
    assert said == "" and errors.startswith(f"infomin sweep: {copy.parent} is in use by process")


def test_a_run_whose_row_is_there_needs_nothing_else(done, monkeypatch):
    monkeypatch.setattr(runs, "_carry_out", lambda *_: pytest.fail("carried out again"))
    assert infomin.run(RECIPE, done[0])["i_nce"] == done[2]["i_nce"]


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (
            lambda row: [row],
            ["task", "got 'colour'", "wanted one of digit, background, position", "pick"],
        ),
        (
            lambda row: [{"status": "diverged", "view": row["view"]}],
            ["task", "no row has an accuracy"],
        ),
        (lambda row: [], ["rows: got none", "wanted those of runs", "run a sweep"]),
    ],
)
def test_rows_that_do_not_speak_of_the_task(tmp_path, done, rows, parts):
    told(parts, infomin.plots.u_curve, rows(done[2]), tmp_path / "u.png", task="colour")
    assert not os.listdir(tmp_path)


def test_a_picture_of_a_kind_that_nobody_draws_names_those_that_are(tmp_path, done):
    told(["u.jpgg", "png"], infomin.plots.u_curve, [done[2]], tmp_path / "u.jpgg")
