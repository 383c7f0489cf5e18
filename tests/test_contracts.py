"""What holds for the whole code: imports only go down, types, lint, format; checks can fail."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "infomin"


def call(*words, where=ROOT):
    """Run a program that lies beside this Python: exit status and all that it said."""
    program = Path(sys.executable).parent / words[0]
    done = subprocess.run(
        [program, *words[1:]], cwd=where, text=True, capture_output=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_imports_only_go_down():
    status, said = call("lint-imports", "--no-cache", "--no-logo")
    assert status == 0, said


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        (
            "common/checks.py",
            "from ..measure.bounds import infonce",
            "infomin.common is not allowed to import infomin.measure",
        ),
        (
            "views/color.py",
            "from ..methods import METHODS",
            "infomin.views is not allowed to import infomin.methods",
        ),
        (
            "networks/heads.py",
            "from ..views import parse",
            "infomin.networks is not allowed to import infomin.views",
        ),
        (
            "training/loop.py",
            "from ..measure.probe import linear",
            "infomin.training is not allowed to import infomin.measure",
        ),
        (
            "measure/probe.py",
            "from ..views import parse",
            "infomin.measure.probe is not allowed to import infomin.views",
        ),
        (
            "report/plots.py",
            "from ..data import load",
            "infomin.report.plots is not allowed to import infomin.data",
        ),
        (
            "runs/single.py",
            "from ..report import plots",
            "infomin.runs is not allowed to import infomin.report",
        ),
        (
            "methods/base.py",
            "def f():\n    from ..runs.recipe import Recipe",
            "infomin.methods is not allowed to import infomin.runs",
        ),
        (
            "experiment.py",
            "from . import __main__",
            "infomin.experiment is not allowed to import infomin.__main__",
        ),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_found(tmp_path, file, line, broken):
    shutil.copytree(PACKAGE, tmp_path / "infomin", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "infomin" / file).open("a") as source:
        source.write(f"\n{line}\n")
    status, said = call("lint-imports", "--no-cache", "--no-logo", where=tmp_path)
    assert status == 1 and broken in said


def test_a_room_that_is_in_no_layer_is_found(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "infomin", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "infomin" / "attic.py").write_text('"""Nobody knows."""\n')
    status, said = call("lint-imports", "--no-cache", "--no-logo", where=tmp_path)
    assert status == 1 and "infomin.attic" in said


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix()
)
def test_the_package_imports_itself_relatively_and_names_by_name(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(name.name.split(".")[0] == "infomin" for name in node.names), (
                f"line {node.lineno}"
            )
        if isinstance(node, ast.ImportFrom):
            assert node.level or node.module.split(".")[0] != "infomin", f"line {node.lineno}"
            assert node.module or node.level == 1, (
                f"line {node.lineno}: from ..room import name, not from .. import room"
            )


def test_types_are_clean():
    status, said = call("mypy")
    assert status == 0, said


@pytest.mark.parametrize("words", [("check",), ("format", "--check")], ids=" ".join)
def test_lint_and_format_are_clean(words):
    status, said = call("ruff", *words, ".")
    assert status == 0, said
