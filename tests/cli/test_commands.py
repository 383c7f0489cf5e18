"""What the commands print, draw and write."""

import json
import sys
import time
from io import BytesIO, TextIOWrapper

import pytest
from PIL import Image
from tiny_cli import AS_TINY, TINY

import infomin
from infomin import experiment as experiments
from infomin.__main__ import main
from infomin.common import files
from infomin.data import commands
from infomin.report.rows import read_rows
from infomin.runs import folder
from infomin.runs import single as runs
from infomin.runs.presets import U_CURVE, U_CURVE_VIEWS
from infomin.training import loop


def test_a_sweep_over_several_data_says_what_each_of_them_has(call, tmp_path):
    status, text, errors = call(
        "sweep",
        *AS_TINY,
        "--data",
        "digits,photos",
        "--view",
        "color:rgb,color:lab",
        "--out",
        tmp_path,
    )
    assert status == 0, errors
    assert "acc_background" in text and text.count("data=") >= 4  # the task that both have
    status, text, errors = call("plot", tmp_path, "--task", "digit")
    assert status == 0 and "data=digits" in text and "data=photos" not in text, errors


def test_runs_that_diverged_are_told(call, tmp_path):
    status, text, errors = call("sweep", *AS_TINY, "--lr", "1e30", "--out", tmp_path)
    assert (
        status == 2 and "1 of 1 runs diverged; first, color:lab: step 4: the loss is nan" in errors
    )
    status, text, errors = call("sweep", *AS_TINY, "--lr", "1e30,0.003", "--out", tmp_path)
    assert status == 0 and text.rstrip().splitlines()[-1].startswith(
        "1 of 2 runs diverged; first, color:lab: step 4: the loss is"
    )


def test_rows_that_were_measured_otherwise_are_told(call, rows, tmp_path):
    folder, made = rows
    files.write_jsonl(tmp_path / "rows.jsonl", [made[0] | {"protocol": "by eye"}, *made[1:]])
    said = "The rows were measured by 2 protocols"
    assert (
        said in call("plot", tmp_path / "rows.jsonl")[1]
        and said not in call("plot", folder, "--out", tmp_path)[1]
    )


def test_rows_of_a_folder_that_has_changed_are_told(call, rows, tmp_path):
    _, made = rows
    said = "The data files were not the same for all rows"
    for other in ("one", "two"):
        files.write_jsonl(
            tmp_path / f"{other}.jsonl",
            [made[0] | {"files": "one"}, *(row | {"files": other} for row in made[1:])],
        )
    assert (
        said in call("plot", tmp_path / "two.jsonl")[1]
        and said not in call("plot", tmp_path / "one.jsonl")[1]
    )


def test_run_prints_its_row(call, tmp_path):
    status, text, bar = call("run", *AS_TINY, "--out", tmp_path)
    row = json.loads(text)
    folder = tmp_path / infomin.Recipe(**TINY).key
    assert status == 0 and row == files.read_json(folder / "row.json") and "4/4" in bar
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "checkpoint.pt",
        "context.json",
        "log.jsonl",
        "recipe.json",
        "row.json",
    ]


@pytest.mark.parametrize(("data", "task"), [("digits", "digit"), ("photos", "background")])
def test_sweep_prints_a_table_and_a_sentence(call, tmp_path, data, task):
    words = [*AS_TINY, "--data", data, "--view", "color:rgb,color:lab", "--out", tmp_path]
    status, text, errors = call("sweep", *words)
    assert status == 0, errors
    assert "2 done" in errors and f"acc_{task}" in text and "color:rgb" in text
    assert (tmp_path / "table.csv").exists() and (tmp_path / "u_curve.png").exists()
    assert call("sweep", *words)[1] == text


def test_letters_that_the_terminal_does_not_know_become_question_marks(monkeypatch, rows, tmp_path):
    folder, made = rows
    said = str(infomin.plots.verdict(made, "digit"))
    plain = TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", plain)
    assert main(["plot", str(folder), "--task", "digit", "--out", str(tmp_path)]) == 0
    plain.seek(0)
    assert "±" in said and said.replace("±", "?") in plain.read()


def test_plot_takes_a_folder_and_a_file_of_its_rows(call, rows, tmp_path):
    folder, made = rows
    files.write_jsonl(tmp_path / "rows.jsonl", made)
    for source, out in ((folder, tmp_path / "a"), (tmp_path / "rows.jsonl", tmp_path / "b")):
        status, text, _ = call("plot", source, "--task", "position", "--out", out)
        assert (
            status == 0
            and "acc_position" in text
            and str(infomin.plots.verdict(made, "position")) in text
        )
        assert str(out / "u_curve.png") in text and str(out / "table.csv") in text
    assert (tmp_path / "a" / "table.csv").read_bytes() == (
        tmp_path / "b" / "table.csv"
    ).read_bytes()
    assert (
        call("plot", tmp_path / "rows.jsonl")[0] == 0
        and (tmp_path / "rows" / "u_curve.png").stat().st_size > 1000
    )


@pytest.mark.parametrize(
    ("out", "figure", "table"),
    [
        ("u.pdf", "u.pdf", "u.csv"),
        ("new/U.SVG", "new/U.SVG", "new/U.csv"),
        ("v1.2", "v1.2/u_curve.png", "v1.2/table.csv"),
        ("old.png", "old.png/u_curve.png", "old.png/table.csv"),
        ("~/u.png", "u.png", "u.csv"),
        ("~", "u_curve.png", "table.csv"),
    ],
)
def test_plot_writes_a_figure_or_a_folder(call, rows, tmp_path, monkeypatch, out, figure, table):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.png").mkdir()
    files.write_jsonl(tmp_path / "rows.jsonl", rows[1])
    assert call("plot", "~/rows.jsonl", f"--out={out}")[0] == 0
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert made == {"rows.jsonl", figure, table}
    content, kind = (tmp_path / figure).read_bytes(), figure[-3:].lower()
    assert content.startswith({"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}[kind])


def test_plot_reads_several_places_together(call, rows, tmp_path):
    _, made = rows
    for name, row in zip("ab", made, strict=True):
        files.write_json(tmp_path / name / row["key"] / "row.json", row)
    files.write_jsonl(tmp_path / "rows.jsonl", made)
    places = [tmp_path / "a", tmp_path / "b", tmp_path / "rows.jsonl"]
    status, text, errors = call("plot", *places, "--task", "digit")
    assert status == 0 and str(infomin.plots.verdict(made, "digit")) in text, errors
    assert call("plot", *places[1:], "--task", "digit", "--out", tmp_path / "c")[0] == 0
    assert (tmp_path / "a" / "table.csv").read_bytes() == (
        tmp_path / "c" / "table.csv"
    ).read_bytes()
    assert not (tmp_path / "b" / "table.csv").exists() and not (tmp_path / "rows").exists()


def test_plot_of_the_table_that_it_wrote_is_told_in_one_line(call, rows, tmp_path):
    assert call("plot", rows[0], "--out", tmp_path)[0] == 0
    status, said, errors = call("plot", tmp_path / "table.csv")
    assert (status, said) == (2, "") and len(errors.splitlines()) == 1
    assert (
        "table.csv: got another kind of file, wanted a folder of runs or a .jsonl file of rows; "
        "name the folder that contains it" in errors
    )


def test_data_is_fetched_and_a_failure_is_the_exit_status(call, tmp_path, monkeypatch):
    asked = []

    def download(name, where):
        asked.append((name, where))
        return "no network" if name == "emnist" else None

    monkeypatch.setattr(commands, "download", download)
    for names, status in ((["mnist", "cifar10"], 0), (["emnist", "mnist"], 2)):
        asked.clear()
        got, _, errors = call("data", "fetch", *names, f"--root={tmp_path}")
        assert asked == [(name, tmp_path) for name in names]
        assert (got, errors) == (status, "no network\n" if status else "")


def test_clips_are_written_and_damage_is_the_exit_status(call, tmp_path):
    words = ["data", "clips", tmp_path / "clips", "--clips", 2, "--size", 32, "--frames", 3]
    assert call(*words)[0] == 0 and call(*words, "--verify", "true")[0] == 0
    (shard,) = (tmp_path / "clips").glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])
    status, said, _ = call(*words, "--verify", "true")
    assert status == 1 and shard.name in said


def test_photographs_are_cut(call, tmp_path):
    for i in range(5):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "in" / f"{i}.png")
    words = ["data", "patches", tmp_path / "in", tmp_path / "out", "--side", 32, "--per_image", 2]
    assert call(*words)[1].startswith("5 cut;")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 10


def test_demo_draws_and_says_and_does_not_train_twice(call, tmp_path, monkeypatch):
    status, text, errors = call("demo", "--preset", "tiny", "--out", tmp_path, "--jobs", "1")
    assert status == 0, errors
    made = read_rows(tmp_path)
    assert (
        sorted(made["view"]) == sorted([*U_CURVE_VIEWS, *U_CURVE_VIEWS])
        and sorted(made["steps"]) == [0] * 8 + [4] * 8
    )
    recipes = experiments.recipes(U_CURVE, "tiny")
    rows = [
        files.read_json(tmp_path / r.key / "row.json")
        for r in [*recipes, *experiments.untrained(recipes)]
    ]
    verdict = str(infomin.plots.verdict(rows, "digit"))
    assert text.rstrip().endswith(verdict) and all(view in text for view in U_CURVE_VIEWS)
    assert (tmp_path / "u_curve.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + len(U_CURVE_VIEWS)
    monkeypatch.setattr(loop, "_train_step", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(runs, "load", lambda *_: pytest.fail("carried out again"))
    assert call("demo", "--preset", "tiny", "--out", tmp_path, "--jobs", "1")[:2] == (0, text)


def test_tensorboard_logs_what_the_log_says(call, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert (
        call("run", *AS_TINY, "--steps", "20", "--out", tmp_path, "--tensorboard", "true")[0] == 0
    )
    (events,) = tmp_path.glob("*/events.out.tfevents.*")
    found = accumulator.EventAccumulator(str(events)).Reload()
    log = files.read_log(next(tmp_path.glob("*/log.jsonl")))
    assert [row["step"] for row in log] == [10, 20]
    for name in set(log[0]) - {"step"}:
        scalars = found.Scalars(name)
        assert [s.step for s in scalars] == [10, 20]
        assert [s.value for s in scalars] == pytest.approx([row[name] for row in log], rel=1e-6)


def test_events_of_a_run_that_goes_on_take_the_place_of_later_ones(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for steps in ((10, 20, 30), (20, 30, 40)):
        told = ((step, {"loss": float(step)}) for step in steps)
        folder.run_training(told, tmp_path, total=40, name="run", tensorboard=True)
        time.sleep(1)  # a file of events is named by the second
    found = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [scalar.step for scalar in found.Scalars("loss")] == [10, 20, 30, 40]


def test_the_probe_tells_how_far_it_is(call, tmp_path):
    """It takes five seconds where training took ten."""
    status, _, errors = call("run", *AS_TINY, "--out", tmp_path)
    assert (
        status == 0 and "probe: 100%" in errors and "6/6" in errors
    )  # two parts, I_NCE, three tasks


def test_an_override_of_nought_takes_the_place_of_the_preset_s(tmp_path, monkeypatch):
    monkeypatch.setattr(
        experiments, "sweep", lambda recipes, *_, **__: [recipe.steps for recipe in recipes]
    )
    monkeypatch.setattr(experiments, "print_report", lambda *_: None)
    presets = {"quick": {"views": ["color:lab"], "seeds": 1, "task": "digit", "steps": 7}}
    for steps, wanted in ((0, 0), ("", 7), (None, 7), (3, 3)):
        assert experiments.experiment(presets, "quick", tmp_path, steps=steps)[0] == wanted
