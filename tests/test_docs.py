"""What is written about the code is true of it: README, docstrings, experiments, sizes."""

import ast
import inspect
import json
import re
import runpy
import shlex
import subprocess
import sys
from math import ceil
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
import torch
from PIL import Image

import infomin
from infomin.__main__ import build, main
from infomin.methods import METHODS
from infomin.runs.presets import TINY, U_CURVE
from infomin.views import VIEWS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PACKAGE = sorted((ROOT / "infomin").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
PRESET = re.compile(r"preset: |command\(")  # scripts that take a budget
# documented where they are declared
HOOKS = ("forward", "backward", "extra_repr", "error")


def named(paths):
    return pytest.mark.parametrize(
        "path", paths, ids=[path.relative_to(ROOT).as_posix() for path in paths]
    )


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program):
    """Words after a program's name in the shell blocks of the README, comments left out."""
    lines = [
        shlex.split(line, comments=True)
        for block in blocks("(?:sh|bash|console)")
        for line in block.splitlines()
    ]
    return [words[1:] for words in lines if words[:1] == [program]]


# the README


def test_every_command_is_in_the_readme_and_every_one_there_exists(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    known = re.search(r"usage: infomin \{([\w,-]+)\}", capsys.readouterr().out).group(1).split(",")
    shown = [words[0] for words in commands("infomin")]
    assert len(known) >= 5 and set(shown) == set(known)


def test_the_commands_of_the_readme_are_understood(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in commands("infomin"):
        if ">" not in words:
            build(words[0]).parse_args(words)
            continue
        with pytest.raises(SystemExit) as left:  # it prints a file that a later line reads
            main(words[: words.index(">")])
        assert not left.value.code
        Path(words[-1]).write_text(capsys.readouterr().out)


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.strip().splitlines()[0])
def test_the_python_of_the_readme_runs(code, tmp_path, monkeypatch, capsys):
    if code.startswith("# not run:"):
        pytest.skip(code.splitlines()[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "os.sched_getaffinity", lambda _: {0}, raising=False
    )  # one job on one core: one thread
    # what is registered there is forgotten
    with patch.dict(VIEWS._entries), patch.dict(METHODS._entries):
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def test_there_is_python_in_the_readme_that_is_run():
    assert [code for code in blocks("python") if not code.startswith("# not run:")]


def test_files_and_targets_of_the_readme_exist():
    links = [
        link
        for link in re.findall(r"\]\(([^)\s]+)\)", README)
        if "://" not in link and not link.startswith("#")
    ]
    scripts = re.findall(r"python (experiments/\w+\.py)", README)
    rooms = re.findall(r"\b(infomin/\w+(?:\.py|/))", README)
    assert links and scripts and rooms
    assert [
        path for path in dict.fromkeys(links + scripts + rooms) if not (ROOT / path).exists()
    ] == []
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {words[0] for words in commands("make")} <= set(targets)
    assert {path.name for path in EXPERIMENTS} == {Path(script).name for script in scripts}


def test_no_placeholder_is_left_in_the_readme():
    assert (
        re.findall(
            r"\b[A-Z]{3,}_[A-Z]{3,}\b|TODO|FIXME|XXX",
            re.sub(r"```.*?```", "", README, flags=re.DOTALL),
        )
        == []
    )


# docstrings


def public(tree):
    """Public functions and classes of a module, and public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (
                    n
                    for n in node.body
                    if isinstance(n, FUNCTIONS)
                    and not n.name.startswith("_")
                    and n.name not in HOOKS
                )


@named(PACKAGE + EXPERIMENTS)
def test_every_module_and_every_public_thing_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    missing = [node.name for node in public(tree) if not ast.get_docstring(node)]
    assert ast.get_docstring(tree) and missing == []


def test_the_public_names_are_there_and_documented():
    assert sorted(infomin.__all__) == infomin.__all__ and len(set(infomin.__all__)) == len(
        infomin.__all__
    )
    assert set(infomin.__all__) <= set(dir(infomin))
    for name in infomin.__all__:
        thing = getattr(infomin, name)
        assert isinstance(thing, str) or len(inspect.getdoc(thing).split()) >= 4, name
    assert infomin.__version__ in (ROOT / "CHANGELOG.md").read_text()


# experiments


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    """Run a script in this process as its user would: exit status, and its output or complaint."""

    def carry_out(path, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
        monkeypatch.syspath_prepend(path.parent)  # as python does with a script's folder
        capsys.readouterr()
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as left:
            said = capsys.readouterr()
            return left.code or 0, said.err if left.code else said.out
        return 0, capsys.readouterr().out

    return carry_out


@named(EXPERIMENTS)
def test_a_script_names_its_command_and_has_help(path, script):
    assert f"python {path.parent.name}/{path.name}" in ast.get_docstring(
        ast.parse(path.read_text())
    )
    status, said = script(path, "--help")
    about = ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]
    assert status == 0 and "usage:" in said and about in " ".join(said.split())


@named([path for path in EXPERIMENTS if re.search(r"# \d+ minutes", path.read_text())])
def test_the_readme_has_the_minutes_of_the_script(path):
    (minutes,) = set(re.findall(r"# (\d+) minutes", ast.get_docstring(ast.parse(path.read_text()))))
    (row,) = re.findall(
        rf"^\| `python experiments/{path.name}[^\n]*", (ROOT / "README.md").read_text(), re.M
    )
    assert f", {minutes} min" in row


@named([path for path in EXPERIMENTS if PRESET.search(path.read_text())])
def test_an_experiment_runs_in_tiny(path, script, tmp_path, monkeypatch):
    smaller = {
        "steps": 4,
        "batch": 16,
        "size": 24,
        "width": 0.25,
        "candidates": 16,
        "probe_images": 64,
        "seeds": 1,
    }
    monkeypatch.setitem(
        U_CURVE, "tiny", U_CURVE["tiny"] | smaller
    )  # the preset itself is tried by the demo's own test
    for name in ("batch", "candidates", "probe_images"):
        monkeypatch.setitem(TINY, name, smaller[name])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    save = (
        ["--save", tmp_path / "saved"] if re.search(r"save: |command\(", path.read_text()) else []
    )
    status, said = script(path, "--preset", "tiny", "--out", tmp_path / "runs", "--jobs", 1, *save)
    made = list((tmp_path / "runs").rglob("row.json"))
    assert status == 0 and said and len(made) >= 2 and list((tmp_path / "runs").glob("*.png"))
    if save:
        rows = [
            json.loads(line)
            for line in (tmp_path / "saved" / f"{path.stem}.jsonl").read_text().splitlines()
        ]
        assert sorted(row["key"] for row in rows) == sorted(row.parent.name for row in made)
        assert {row["status"] for row in rows} == {"done"}
        if "command(" in path.read_text():  # each view beside its network untrained
            bare, trained = (
                [row["view"] for row in rows if bool(row["steps"]) == given]
                for given in (False, True)
            )
            assert len(bare) == len(set(bare)) and bare == trained
        assert (tmp_path / "saved" / f"{path.stem}.png").stat().st_size > 1000


def test_backgrounds_of_one_class_leave_the_table_without_their_error(
    script, tmp_path, monkeypatch
):
    (tmp_path / "photos").mkdir()
    for i in range(6):
        noise = torch.randint(
            256, (128, 160, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(i)
        )
        Image.fromarray(noise.numpy()).save(tmp_path / "photos" / f"{i}.jpg")
    for name, value in (("batch", 16), ("candidates", 16), ("probe_images", 64)):
        monkeypatch.setitem(TINY, name, value)
    words = [
        "--preset",
        "tiny",
        "--backgrounds",
        f"folder:{tmp_path / 'photos'}",
        "--out",
        tmp_path / "runs",
        "--jobs",
        1,
    ]
    status, said = script(ROOT / "experiments" / "moving_mnist.py", *words)
    assert (
        status == 0
        and "error_digit" in said
        and "px_place" in said
        and "error_background" not in said
    )
    at = pd.read_csv(tmp_path / "runs" / "table.csv").set_index("shared")
    rows = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("row.json")]
    (row,) = [row for row in rows if row["method"] == "supervised"]
    assert at["error_digit_mean"]["supervised"] == pytest.approx(1 - row["acc_digit"])


@named([path for path in EXPERIMENTS if "PRESETS: " in path.read_text()])
def test_every_preset_is_a_sweep_that_could_begin(path):
    """The larger ones are not run here, but their recipes, views and data sets are understood."""
    presets = runpy.run_path(str(path))["PRESETS"]
    assert set(presets) == {"tiny", "quick", "paper"}
    for preset in presets.values():
        fields = {
            name: value for name, value in preset.items() if name not in ("views", "seeds", "task")
        }
        recipes = infomin.grid(infomin.Recipe(**fields), view=preset["views"])
        assert (
            len({recipe.key for recipe in recipes}) == len(preset["views"])
            and preset["seeds"] >= 1
            and preset["task"]
        )
        for recipe in recipes:
            channels = infomin.views.parse(recipe.view).channels
            assert not recipe.share_encoder or len(set(channels)) == 1


@named([path for path in EXPERIMENTS if PRESET.search(path.read_text())])
def test_a_mistake_with_an_experiment_is_told_in_one_line(path, script, tmp_path):
    status, said = script(path, "--preset", "big", "--out", tmp_path)
    presets = "tiny, quick" if path.stem in ("u_curve", "known_nats") else "tiny, quick, paper"
    assert (status, said) == (
        2,
        f"{path.name}: preset: got 'big', wanted one of {presets}\n",
    )


@named([path for path in EXPERIMENTS if "repeats: " in path.read_text()])
def test_a_clock_that_is_not_read_is_a_mistake(path, script):
    status, said = script(path, "--repeats", 0)
    assert status == 2 and "repeats" in said and "Traceback" not in said


@pytest.mark.parametrize("only", ["torchvision", "lightly"])
def test_the_views_work_in_other_peoples_code(only, script):
    """Both examples train to their end, and the loss is finite."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        status, said = script(ROOT / "experiments" / "reuse.py", "--only", only)
    assert status == 0 and re.fullmatch(rf"{only} +loss \d+\.\d+\n", said)


# sizes


# Read from top to bottom; to cut them would hide their order.
STRAIGHT = {"single.py:run", "view_learning.py:learn"}


def lengths(path):
    """Name and lines of the body, without docstring, of every function of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, FUNCTIONS):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            yield (
                f"{path.name}:{node.name}",
                body[-1].end_lineno - body[0].lineno + 1 if body else 0,
            )


def test_files_lines_and_functions_are_short():
    everything = [*PACKAGE, *EXPERIMENTS, *(ROOT / "tests").rglob("*.py")]
    lines = {path.name: path.read_text().splitlines() for path in everything}
    assert {name: len(text) for name, text in lines.items() if len(text) > 400} == {}
    assert [name for name, text in lines.items() if max(map(len, text), default=0) > 100] == []
    found = [pair for path in PACKAGE + EXPERIMENTS for pair in lengths(path)]
    long = {name: size for name, size in found if size > 60}
    assert len(found) > 100 and set(long) <= STRAIGHT and max(long.values()) <= 90
    assert sorted(size for _, size in found)[ceil(0.9 * len(found)) - 1] <= 25


# the repository


def tracked():
    """Texts of the tracked files by path."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    texts = {}
    for name in listed.split("\0"):
        try:
            texts[name] = (ROOT / name).read_text() if name else ""
        except (
            UnicodeDecodeError,
            FileNotFoundError,
            IsADirectoryError,
        ):  # a picture; a file that is about to go
            continue
    return texts


def test_no_path_of_a_machine_is_in_any_file():
    machine = re.compile(r"(?<![\w./~}\]-])/(?:work|root|home|tmp|Users)\b(?!-)")
    found = [
        f"{name}: {line.strip()[:100]}"
        for name, text in tracked().items()
        for line in text.splitlines()
        if machine.search(line)
    ]
    assert [line for line in found if "machine = re.compile" not in line] == []
