"""Damaged files, full disks and folders in use are told, and what to do about them."""

import errno
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from errors import RECIPE, told
from matplotlib.figure import Figure

import infomin
from infomin.__main__ import main
from infomin.common import files
from infomin.runs import single as runs
from infomin.training import loop


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """A sweep of one job on one core has one thread, as `run` has in these tests."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "another": lambda data: b"PK\x03\x04" + data[::-1],
    "a list": lambda data: b"[1]",
}


AGAIN = "delete it and run the same command again"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run: its folder of runs, its own folder in there, and its row."""
    out = tmp_path_factory.mktemp("done")
    return out, out / RECIPE.key, infomin.run(RECIPE, out)


@pytest.fixture
def copy(done, tmp_path):
    """The same run without its row, as if it had been cut while it was probed."""
    folder = tmp_path / RECIPE.key
    folder.mkdir()
    for name in ("recipe.json", "context.json", "log.jsonl", "checkpoint.pt"):
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
    (copy.parent / other.key / "recipe.json").unlink()
    parts = ["checkpoint.pt", "something else", "entries differ", "encoders", AGAIN]
    told(parts, infomin.run, other, copy.parent)


def test_the_folder_of_another_recipe_is_told_whether_it_is_finished_or_not(copy, done):
    """As if two recipes had the same key, or a default had changed."""
    other = replace(RECIPE, width=0.5)
    folder = copy.rename(copy.parent / other.key)
    parts = [str(folder), "the run of another recipe", "differs in width", "choose another folder"]
    told(parts, infomin.run, other, copy.parent)
    (folder / "row.json").write_bytes((done[1] / "row.json").read_bytes())
    told(parts, infomin.run, other, copy.parent)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_row_is_told_and_the_advice_works(copy, done, damage):
    path = copy / "row.json"
    path.write_bytes(DAMAGE[damage]((done[1] / "row.json").read_bytes()))
    for door in (infomin.run, lambda recipe, out: infomin.sweep([recipe], out, jobs=1, bar=False)):
        told([str(path), "wanted a whole JSON object", AGAIN], door, RECIPE, copy.parent)
    path.unlink()
    assert infomin.run(RECIPE, copy.parent)["i_nce"] == done[2]["i_nce"]


@pytest.mark.parametrize("damage", [*DAMAGE, "a field less", "no shapes"])
def test_a_damaged_context_is_told(copy, done, damage):
    path, data = copy / "context.json", (done[1] / "context.json").read_bytes()
    fields = json.loads(data)
    others = {
        "a field less": {name: fields[name] for name in fields if name != "dim"},
        "no shapes": fields | {"shapes": 3},
    }
    path.write_bytes(
        DAMAGE[damage](data) if damage in DAMAGE else json.dumps(others[damage]).encode()
    )
    (copy / "row.json").write_bytes((done[1] / "row.json").read_bytes())
    told([str(path), "wanted", "delete"], infomin.trained, copy)
    (copy / "row.json").unlink()
    told([str(path) if damage in DAMAGE else str(copy), "got"], infomin.run, RECIPE, copy.parent)
    path.write_bytes(data)
    assert infomin.run(RECIPE, copy.parent)["i_nce"] == done[2]["i_nce"]


FOREIGN = {
    "missing": lambda path: None,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": os.mkdir,
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ["row.json", "recipe.json", "context.json", "checkpoint.pt"])
def test_a_foreign_file_in_a_run_folder_is_named_and_the_advice_works(copy, done, name, kind):
    (copy / "row.json").write_bytes((done[1] / "row.json").read_bytes())
    (copy / name).unlink()
    FOREIGN[kind](copy / name)
    wanted = "run it to its end" if (name, kind) == ("row.json", "missing") else name
    assert wanted in told([str(copy), "wanted"], infomin.trained, copy)
    if name == "row.json" and kind != "missing":
        told([str(copy / name), "regular file"], infomin.run, RECIPE, copy.parent)
    shutil.rmtree(copy)  # "delete the folder and repeat the run"
    assert infomin.run(RECIPE, copy.parent)["i_nce"] == done[2]["i_nce"]


@pytest.mark.parametrize(
    "change",
    [{"i_nce": 9.0}, {"acc_digit": None}, {"status": "diverged"}, {"note": "x"}, {"view": "a"}],
    ids=str,
)
def test_an_edited_row_is_told(copy, done, change):
    files.write_json(copy / "row.json", done[2] | change)
    for door, of in ((infomin.trained, (copy,)), (infomin.run, (RECIPE, copy.parent))):
        told([str(copy / "row.json"), "edited", AGAIN], door, *of)
    files.write_json(copy / "row.json", done[2] | {"seconds": 1.0})
    assert infomin.run(RECIPE, copy.parent)["i_nce"] == done[2]["i_nce"]


@pytest.mark.parametrize(
    "change",
    [{"status": None}, {"status": "begun"}, {"status": 3}, {"i_nce": [1]}, {"i_nce": {"a": 1}}],
    ids=str,
)
def test_a_row_of_another_kind_is_told(copy, done, change):
    row = {name: value for name, value in done[2].items() if name != "row_digest"} | change
    files.write_json(copy / "row.json", row)
    for door, of in ((infomin.trained, (copy,)), (infomin.run, (RECIPE, copy.parent))):
        told([str(copy / "row.json"), "wanted a row with a status", AGAIN], door, *of)


@pytest.mark.parametrize("recipe", [{"size": "x"}, {"vie": 1}, {"view": 3}, {"seed": -1}], ids=str)
def test_a_recipe_of_another_kind_is_told(copy, done, recipe):
    (copy / "row.json").write_bytes((done[1] / "row.json").read_bytes())
    stored = files.read_json(copy / "recipe.json")
    files.write_json(copy / "recipe.json", stored | recipe)
    told([str(copy / "recipe.json"), next(iter(recipe))], infomin.trained, copy)
    told([str(copy), "differs in"], infomin.run, RECIPE, copy.parent)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_told(copy, done, value):
    (copy / "row.json").write_bytes((done[1] / "row.json").read_bytes())
    saved = torch.load(copy / "checkpoint.pt", weights_only=True)
    weights = next(w for w in saved["state"]["method"].values() if w.is_floating_point())
    weights.view(-1)[0] = value
    torch.save(saved, copy / "checkpoint.pt")
    told(["checkpoint.pt", "NaN or Inf in", "finite weights"], infomin.trained, copy)


def test_a_folder_that_is_removed_during_the_run_is_told_later(tmp_path, monkeypatch, done):
    evaluate, folder = runs.evaluate, tmp_path / RECIPE.key

    def removing(*arguments, **settings):
        shutil.rmtree(folder)
        return evaluate(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "evaluate", removing)
        row = infomin.run(RECIPE, tmp_path)
    assert row["i_nce"] == done[2]["i_nce"] and infomin.run(RECIPE, tmp_path) == row
    told([str(folder), "got no file", "delete the folder and repeat"], infomin.trained, folder)


def test_a_log_that_is_damaged_in_the_middle_is_told(copy):
    (copy / "checkpoint.pt").unlink()
    (copy / "log.jsonl").write_text('{"step": 1\n{"step": 10}\n')
    told(
        ["log.jsonl", "one JSON object per line", "line 1", "delete"],
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
        monkeypatch.setattr(loop, "_train_step", lambda *_: pytest.fail("trained again"))
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
    monkeypatch.setattr(runs, "load", lambda *_: pytest.fail("carried out again"))
    assert infomin.run(RECIPE, done[0])["i_nce"] == done[2]["i_nce"]


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (
            lambda row: [row],
            ["task", "got 'colour'", "wanted one of digit, background, position"],
        ),
        (
            lambda row: [{"status": "diverged", "view": row["view"]}],
            ["rows", "columns", "i_nce"],
        ),
        (lambda row: [], ["rows: got none", "wanted rows of runs", "run a sweep"]),
    ],
)
def test_rows_that_do_not_speak_of_the_task(tmp_path, done, rows, parts):
    told(parts, infomin.plots.u_curve, rows(done[2]), tmp_path / "u.png", task="colour")
    assert not os.listdir(tmp_path)


def test_a_picture_of_a_kind_that_nobody_draws_names_those_that_are(tmp_path, done):
    told(["u.jpgg", "png"], infomin.plots.u_curve, [done[2]], tmp_path / "u.jpgg")
