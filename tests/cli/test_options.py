"""The help and the options of the command line."""

import ast
import inspect
import subprocess
import sys
from dataclasses import asdict, fields
from importlib.metadata import entry_points
from itertools import pairwise

import pytest
from tiny_cli import AS_TINY, TINY

import infomin
from infomin.__main__ import COMMANDS, main
from infomin.views import VIEWS


def sentences():
    """Field of Recipe -> the string that stands under it in the source."""
    sources = [inspect.getsource(kind) for kind in (infomin.Recipe.__base__, infomin.Recipe)]
    bodies = [ast.parse(source).body[0].body for source in sources]
    return {
        a.target.id: b.value.value
        for body in bodies
        for a, b in pairwise(body)
        if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr) and a.value
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


@pytest.mark.parametrize("command", [*COMMANDS, "data fetch", "data patches", "data clips"])
def test_every_option_has_a_sentence_and_no_machine_speaks_in_it(call, command):
    status, text, errors = call(*command.split(), "--help")
    usage = f"usage: infomin [options] {command.replace(' ', ' [options] ')}"
    assert status == 0 and not errors and text.startswith(usage)
    for name, part in options(text).items():
        words = part.split("(type:")[0].split()
        assert len(words) >= 4 and any(word.endswith(".") for word in words), (name, part)
    assert "0x" not in text and "<locals>" not in text and "<function" not in text


def test_the_help_of_all_names_every_command(call):
    for words in (["--help"], ["-h"]):
        status, text, _ = call(*words)
        assert status == 0 and all(f"\n    {command} " in text for command in COMMANDS)


QUICK = [[], ["--help"], ["--version"], *([name, "--help"] for name in ("demo", "plot", "views"))]
HELP = f"""
import sys
from contextlib import suppress
from infomin.__main__ import main
for words in {QUICK}:
    with suppress(SystemExit):
        main(words)
print(sorted({{"torch", "pandas", "matplotlib", "sklearn"}} & set(sys.modules)))
"""


def test_help_without_recipes_imports_nothing_that_computes():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and "infomin [options] views" in done.stdout


@pytest.mark.parametrize("command", ["demo", "run", "sweep", "learn-views"])
def test_commands_that_train_share_their_options(call, command):
    said = options(call(command, "--help")[1])
    assert {"config", "out"} <= set(said) and ("jobs" in said) != ("tensorboard" in said)
    assert "jobs" not in said or "may change the last digits" in " ".join(said["jobs"].split())


def test_the_version_is_that_of_the_package(call):
    assert call("--version") == (0, f"{infomin.__version__}\n", "")


def test_views_lists_every_family_with_a_dial_that_works(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    infomin.views.PixelFlow().save("learned.safetensors")
    status, text, _ = call("views")
    lines = {line.split()[0]: line for line in text.splitlines()[3:]}
    assert status == 0 and set(lines) == set(VIEWS)
    for family, line in lines.items():
        words = [word.strip(",.") for word in line.split()]
        examples = [word for word in words if word.startswith(f"{family}:")]
        assert examples
        for example in examples:
            infomin.views.parse(example)


def test_the_script_is_this_command():
    (script,) = entry_points(group="console_scripts", name="infomin")
    assert script.load() is main


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
