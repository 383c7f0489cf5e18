"""The command line as a user meets it: help, options, files, exit statuses, and one line instead of a traceback."""

import ast
import inspect
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, fields
from importlib.metadata import entry_points
from io import BytesIO, TextIOWrapper
from itertools import pairwise
from pathlib import Path

import pytest

import infomin
from infomin import experiment as demos
from infomin import experiment as experiments
from infomin.__main__ import main
from infomin.common import files
from infomin.report.rows import read_rows
from infomin.runs import folder
from infomin.training import loop
from infomin.views import FAMILIES

runs = sys.modules["infomin.runs.single"]
COMMANDS = ("demo", "run", "sweep", "plot", "views")
TINY = {
    "view": "color:lab",
    "steps": 4,
    "batch": 16,
    "size": 24,
    "width": 0.25,
    "dim": 16,
    "candidates": 16,
    "probe_images": 64,
}
TINY |= {"precision": "fp32", "device": "cpu"}
SPEED = Path(__file__).parents[1] / "experiments" / "figures" / "speed.jsonl"
AS_TINY = [f"--{name}={value}" for name, value in TINY.items()]


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """One job with one thread, in this very process."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)


@pytest.fixture
def call(capsys):
    """Carry out a command line: exit status, what was printed, what was complained about."""

    def carry_out(*words):
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as left:
            status = left.code or 0
        return status, *capsys.readouterr()

    return carry_out


@pytest.fixture
def asked(monkeypatch):
    """The recipes that commands would carry out, without doing so."""
    recipes = []
    commands = sys.modules["infomin.__main__"]
    monkeypatch.setattr(commands, "run", lambda recipe, *_, **__: recipes.append(recipe) or {})
    monkeypatch.setattr(commands, "sweep", lambda those, *_, **__: recipes.extend(those) or [])
    monkeypatch.setattr(commands, "print_report", lambda *_, **__: None)
    return recipes


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A folder of two runs, and the rows."""
    folder = tmp_path_factory.mktemp("rows")
    return folder, [infomin.run(infomin.Recipe(**TINY, seed=seed), folder) for seed in (0, 1)]


# help


def sentences():
    """Field of Recipe -> the string that stands under it in the source."""
    body = ast.parse(inspect.getsource(infomin.Recipe)).body[0].body
    return {
        a.target.id: b.value.value
        for a, b in pairwise(body)
        if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)
    }


def squeeze(text):
    return "".join(text.split())


def options(text):
    """--name -> its part of a help text."""
    parts = text.split("options:\n", 1)[1].split("\n  --")[1:]
    return {part.split()[0]: part for part in parts}


def test_every_field_has_a_sentence_in_the_help(call):
    said = sentences()
    assert list(said) == [field.name for field in fields(infomin.Recipe)]
    for command in ("run", "sweep"):
        status, text, _ = call(command, "--help")
        assert status == 0
        for name, sentence in said.items():
            assert squeeze(sentence) in squeeze(options(text)[name]), (command, name)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_sentence_and_no_machine_speaks_in_it(call, command):
    status, text, errors = call(command, "--help")
    assert status == 0 and not errors and text.startswith(f"usage: infomin [options] {command}")
    for name, part in options(text).items():
        words = part.split("(type:")[0].split()
        assert len(words) >= 4 and any(word.endswith(".") for word in words), (name, part)
    assert "0x" not in text and "<locals>" not in text and "<function" not in text


def test_the_help_of_all_names_every_command(call):
    for words in (["--help"], ["-h"]):
        status, text, _ = call(*words)
        assert status == 0 and all(f"\n    {command} " in text for command in COMMANDS)


def test_the_version_is_that_of_the_package(call):
    assert call("--version") == (0, f"{infomin.__version__}\n", "")


def test_views_lists_every_family_with_a_dial_that_works(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    infomin.views.PixelFlow().save("learned.safetensors")
    status, text, _ = call("views")
    lines = {line.split()[0]: line for line in text.splitlines()[3:]}
    assert status == 0 and set(lines) == set(FAMILIES)
    for family, line in lines.items():
        examples = [word.strip(",.") for word in line.split() if word.startswith(f"{family}:")]
        assert examples
        for example in examples:
            infomin.views.parse(example)


def test_the_script_is_this_command():
    (script,) = entry_points(group="console_scripts", name="infomin")
    assert script.load() is main


# options


def test_words_become_the_recipe(call, asked):
    assert call("run", *AS_TINY, "--share_encoder", "true", "--seed", "3")[0] == 0
    assert asked == [infomin.Recipe(**TINY, share_encoder=True, seed=3)]


def test_every_field_can_be_set_by_a_word(call, asked):
    other = {
        "view": "color:hsv/0-1-2",
        "data": "photos",
        "size": 64,
        "encoder": "resnet18",
        "width": 0.5,
        "dim": 8,
        "head": "mlp",
    }
    other |= {
        "tau": 0.5,
        "steps": 7,
        "batch": 9,
        "optimizer": "lars",
        "lr": 0.5,
        "weight_decay": 0.0,
        "schedule": "step",
    }
    other |= {
        "warmup": 0.5,
        "precision": "bf16",
        "device": "cpu",
        "candidates": 99,
        "probe_images": 100,
        "seed": 5,
    }
    other |= {"method": "infonce", "share_encoder": True}
    default = asdict(infomin.Recipe())
    assert set(other) == set(default) and [
        name for name in default if other[name] == default[name]
    ] == ["method"]
    assert call("run", *(f"--{name}={value}" for name, value in other.items()))[0] == 0
    assert call("sweep", *(f"--{name}={value}" for name, value in other.items()))[0] == 0
    assert [asdict(recipe) for recipe in asked] == [other, other]


def test_values_joined_by_commas_are_a_grid(call, asked):
    words = [
        "--view",
        "color:lab,color:rgb",
        "--seed",
        "0, 1,2",
        "--tau",
        "0.1,0.2",
        "--share_encoder",
        "false",
    ]
    assert call("sweep", *words)[0] == 0
    axes = {"view": ["color:lab", "color:rgb"], "tau": [0.1, 0.2], "seed": [0, 1, 2]}
    assert asked == infomin.grid(infomin.Recipe(), **axes)


def test_lists_of_a_file_are_a_grid_and_words_come_after_it(call, asked, tmp_path):
    (tmp_path / "sweep.yaml").write_text(
        "view: [color:lab, color:rgb]\nseed: [0, 1]\nshare_encoder: [true, false]\nlr: 1e-3\n"
    )
    assert call("sweep", "--config", tmp_path / "sweep.yaml", "--seed", "4")[0] == 0
    base = infomin.Recipe(lr=1e-3, seed=4)
    assert asked == infomin.grid(base, view=["color:lab", "color:rgb"], share_encoder=[True, False])


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(
    "words",
    [[], ["--view", "shared:digit%5", "--lr", "1e-4", "--share_encoder", "true", "--tau", "1"]],
)
def test_print_config_is_a_config(call, asked, tmp_path, command, words):
    words = [*words, "--seed", "0,1"] if command == "sweep" else words
    status, text, _ = call(command, *words, "--print_config")
    (tmp_path / "all.yaml").write_text(text)
    assert status == 0 and not asked
    assert call(command, "--config", tmp_path / "all.yaml")[0] == call(command, *words)[0] == 0
    half = len(asked) // 2
    assert half == (2 if command == "sweep" else 1) and asked[:half] == asked[half:]


# what they do


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
    said = "The rows were measured in 2 ways"
    assert (
        said in call("plot", tmp_path / "rows.jsonl")[1]
        and said not in call("plot", folder, "--out", tmp_path)[1]
    )


def test_rows_of_a_folder_that_has_changed_are_told(call, rows, tmp_path):
    _, made = rows
    said = "The files of the data were not the same for all rows"
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
    said, plain = infomin.plots.verdict(made, "digit"), TextIOWrapper(BytesIO(), encoding="ascii")
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
            and infomin.plots.verdict(made, "position") in text
        )
        assert str(out / "u_curve.png") in text and str(out / "table.csv") in text
    assert (tmp_path / "a" / "table.csv").read_bytes() == (
        tmp_path / "b" / "table.csv"
    ).read_bytes()
    assert (
        call("plot", tmp_path / "rows.jsonl")[0] == 0
        and (tmp_path / "rows" / "u_curve.png").stat().st_size > 1000
    )


def test_plot_reads_several_places_together(call, rows, tmp_path):
    _, made = rows
    for name, row in zip("ab", made, strict=True):
        files.write_json(tmp_path / name / row["key"] / "row.json", row)
    files.write_jsonl(tmp_path / "rows.jsonl", made)
    places = [tmp_path / "a", tmp_path / "b", tmp_path / "rows.jsonl"]
    status, text, errors = call("plot", *places, "--task", "digit")
    assert status == 0 and infomin.plots.verdict(made, "digit") in text, errors
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
        "table.csv: got another file, wanted a folder of runs or a .jsonl file of rows; name the folder that it lies in"
        in errors
    )


def test_demo_draws_and_says_and_does_not_train_twice(call, tmp_path, monkeypatch):
    status, text, errors = call("demo", "--preset", "tiny", "--out", tmp_path, "--jobs", "1")
    assert status == 0, errors
    made = read_rows(tmp_path)
    assert (
        sorted(made["view"]) == sorted([*demos.VIEWS, *demos.VIEWS])
        and sorted(made["steps"]) == [0] * 8 + [4] * 8
    )
    recipes = demos.recipes("tiny")
    rows = [
        files.read_json(tmp_path / r.key / "row.json")
        for r in [*recipes, *demos.untrained(recipes)]
    ]
    verdict = infomin.plots.verdict(rows, demos.TASK)
    assert text.rstrip().endswith(verdict) and all(view in text for view in demos.VIEWS)
    assert (tmp_path / "u_curve.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + len(demos.VIEWS)
    monkeypatch.setattr(loop, "_step", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(runs, "_carry_out", lambda *_: pytest.fail("carried out again"))
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
        folder.log_training(told, tmp_path, total=40, name="run", tensorboard=True)
        time.sleep(1)  # a file of events is named by the second
    found = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [scalar.step for scalar in found.Scalars("loss")] == [10, 20, 30, 40]


def test_without_tensorboard_the_option_says_how_to_get_it(call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # the import fails
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    status, _, errors = call("run", *AS_TINY, "--out", tmp_path, "--tensorboard", "true")
    assert (
        status == 2 and "pip install 'infomin[tensorboard]'" in errors and "Traceback" not in errors
    )
    assert call("run", *AS_TINY, "--out", tmp_path)[0] == 0


# mistakes: exit status 2, one line that says what came and what was wanted, and nothing on the standard output

MISTAKES = {
    "nothing at all": ([], ["demo", "run", "sweep", "plot", "views"]),
    "unknown command": (["sweeep"], ["'sweeep'", "choose from", "'sweep'"]),
    "unknown option": (
        ["run", "--veiw", "color:lab"],
        ["--veiw", "wanted one of --view, --method", "infomin run --help"],
    ),
    "unknown option of sweep": (
        ["sweep", "--sed", "1"],
        ["--sed", "--seed", "infomin sweep --help"],
    ),
    "unknown option of plot": (
        ["plot", "ROWS", "--tsak", "digit"],
        ["--tsak", "infomin plot --help"],
    ),
    "stray word": (["run", "color:lab"], ["color:lab", "infomin run --help"]),
    "no value": (["run", "--seed"], ["--seed", "expected one argument"]),
    "no folder": (["plot"], ["required: rows;", "infomin plot --help"]),
    "whole number": (["run", "--steps", "few"], ["steps", "int", "few", "infomin run --help"]),
    "whole number with a point": (["run", "--steps", "3.5"], ["steps", "int", "3.5"]),
    "number": (["run", "--tau", "hot"], ["tau", "float", "hot"]),
    "truth": (["run", "--share_encoder", "maybe"], ["share_encoder", "bool", "maybe"]),
    "whole numbers": (["sweep", "--seed", "0,one"], ["--seed", "int", "0,one"]),
    "whole numbers with a point": (["sweep", "--seed", "0,1.5"], ["--seed", "int", "0,1.5"]),
    "empty value": (["sweep", "--seed", "0,,1"], ["--seed", "int", "0,,1"]),
    "truths": (["sweep", "--share_encoder", "true,maybe"], ["share_encoder", "bool", "maybe"]),
    "view": (["run", "--view", "colour:lab"], ["got 'colour'", "wanted one of color, shared"]),
    "views": (
        ["sweep", "--view", "color:lab,colour:rgb"],
        ["got 'colour'", "wanted one of color, shared"],
    ),
    "space": (["run", "--view", "color:lap"], ["got 'lap'", "lab, luv"]),
    "data": (["sweep", "--data", "digits,imagenet"], ["data", "got 'imagenet'", "digits, photos"]),
    "encoder": (["run", "--encoder", "vgg"], ["encoder", "got 'vgg'", "tiny, alexnet"]),
    "out of range": (["sweep", "--lr", "0.1,-1"], ["lr", "got -1", "above 0"]),
    "preset": (["demo", "--preset", "huge"], ["tiny", "quick", "huge", "infomin demo --help"]),
    "jobs": (["sweep", "--jobs", "-3"], ["jobs", "-3", "wanted"]),
    "an image without views": (
        ["views", "--image", "cat.jpg"],
        ["no views to draw of it", "add --show"],
    ),
    "missing folder": (
        ["plot", "nowhere"],
        ["nowhere", "wanted a folder of runs or a .jsonl file", "check its name"],
    ),
    "no rows": (["plot", "EMPTY"], ["empty", "none that can be read", "run a sweep"]),
    "rows of something else": (
        ["plot", "SPEED"],
        ["rows: got rows without seed, status, view", "infomin run or sweep"],
    ),
    "no such task": (
        ["plot", "ROWS", "--task", "colour"],
        ["got 'colour'", "wanted one of digit, background, position"],
    ),
    "missing file": (["run", "--config", "none.yaml"], ["none.yaml", "does not exist"]),
    "unreadable file": (["run", "--config", "YAML steps: ["], ["config", "line "]),
    "unreadable file of a sweep": (["sweep", "--config", "YAML seed: [0, 1"], ["config", "line "]),
    "no text": (["run", "--config", "YAML \xff\x00"], ["config"]),
    "unknown key": (
        ["run", "--config", "YAML veiw: color:lab"],
        ["'veiw'", "wanted one of --view, --method"],
    ),
    "unknown key of a sweep": (
        ["sweep", "--config", "YAML veiw: [color:lab]"],
        ["'veiw'", "wanted one of --view, --method"],
    ),
    "wrong type in a file": (["run", "--config", "YAML steps: few"], ["steps", "int", "few"]),
    "wrong type in a list": (
        ["sweep", "--config", "YAML steps: [4, few]"],
        ["steps", "int", "few"],
    ),
    "a point in a list": (["sweep", "--config", "YAML steps: [4, 4.5]"], ["steps", "int", "4.5"]),
    "nothing in a list": (["sweep", "--config", "YAML seed: [0, null]"], ["seed", "int", "None"]),
    "no mapping": (["sweep", "--config", "YAML - 1"], ["config"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line(call, rows, tmp_path, monkeypatch, mistake):
    words, parts = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "_step", lambda *_: pytest.fail("it was carried out"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.yaml").write_text(
        words[-1].removeprefix("YAML ") + "\n" if words else "", encoding="latin-1"
    )
    places = {"EMPTY": "empty", "ROWS": str(rows[0]), "SPEED": str(SPEED)}
    words = ["file.yaml" if word.startswith("YAML ") else places.get(word, word) for word in words]
    before = sorted(tmp_path.rglob("*"))
    status, said, errors = call(*words)
    assert status == 2 and said == ""
    assert (
        errors.startswith("infomin") and len(errors.splitlines()) == 1 and "Traceback" not in errors
    )
    assert all(part in errors for part in parts), errors
    assert sorted(tmp_path.rglob("*")) == before, "it has written something"


def test_a_mistake_leaves_the_shell_with_status_two_and_no_traceback(tmp_path):
    words = [sys.executable, "-m", "infomin", "run", "--data", "imagenet", "--out", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == "" and not list(tmp_path.iterdir())
    known = "digits, photos, clips, stl10, cifar10, clips:DIGITS@BACKGROUNDS, folder:PATH"
    assert (
        done.stderr
        == f"infomin run: recipe: data: got 'imagenet', wanted one of {known}; pick one of those\n"
    )


def test_rows_that_cannot_be_read_are_named_and_the_others_drawn(call, rows, tmp_path):
    files.write_jsonl(tmp_path / "rows.jsonl", rows[1])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"view": \n')
    with pytest.warns(UserWarning, match=r"left out 1 rows .*rows\.jsonl, line 3"):
        assert call("plot", tmp_path / "rows.jsonl")[0] == 0


def test_an_interrupt_leaves_with_status_130(call, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_step", interrupted)
    for command in ("run", "sweep"):
        status, said, errors = call(command, *AS_TINY, "--out", tmp_path)
        assert status == 130 and said == ""
        assert errors.rstrip().endswith(
            f"infomin {command}: stopped; run the same command again to go on where it was cut"
        )


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


def test_a_task_that_the_data_do_not_have_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "sweep", lambda *_, **__: pytest.fail("it was carried out"))
    presets = {"quick": {"views": ["color:lab"], "seeds": 1, "task": "digit", "data": "photos"}}
    with pytest.raises(ValueError, match="task: got 'digit', wanted one of background"):
        experiments.experiment(presets, "quick", tmp_path)
    with pytest.raises(
        ValueError, match="task: got 'place', wanted one of digit, background, position"
    ):
        experiments.experiment(presets, "quick", tmp_path, data="digits", task="place")


CLOSED = """
import os, sys
from infomin import experiment, sweep
from infomin.experiment import TINY
reads, writes = os.pipe()
os.close(reads)
os.dup2(writes, 1)
presets = {"tiny": {**TINY, "views": ["color:rgb", "color:lab"], "seeds": 1, "task": "digit"}}
experiment.script(lambda: experiment.experiment(presets, "tiny", "runs", jobs=1, save="saved"), "")
"""


def test_what_is_saved_is_there_though_nobody_reads_the_table(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CLOSED], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 141 and "Broken pipe" not in done.stderr, done.stderr
    assert (tmp_path / "saved.jsonl").exists() and (tmp_path / "saved.png").exists()
