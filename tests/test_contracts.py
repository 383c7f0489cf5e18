"""What holds for the whole code at once: imports only go down, types, lint, one format; and that these checks can fail."""

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "infomin"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYERS = next(c["layers"] for c in SETTINGS["tool"]["importlinter"]["contracts"] if c["type"] == "layers")


def call(*words, where=ROOT):
    """Run a program that lies beside this Python: exit status and all that it said."""
    program = Path(sys.executable).parent / words[0]
    done = subprocess.run([program, *words[1:]], cwd=where, text=True, capture_output=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_imports_only_go_down():
    status, said = call("lint-imports", "--no-cache", "--no-logo")
    assert status == 0, said


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("check.py", "from .bounds import infonce", "infomin.check is not allowed to import infomin.bounds"),
        ("views/color.py", "from ..data import load", "infomin.views is not allowed to import infomin.data"),
        ("critics.py", "from .methods.infonce import InfoNCE", "infomin.critics is not allowed to import infomin.methods"),
        ("train.py", "from .probe import linear", "infomin.train is not allowed to import infomin.probe"),
        ("probe.py", "from .views import parse", "infomin.probe is not allowed to import infomin.views"),
        ("methods/step.py", "def later():\n    from ..run import Recipe", "infomin.methods is not allowed to import infomin.run"),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_found(tmp_path, file, line, broken):
    shutil.copytree(PACKAGE, tmp_path / "infomin", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "infomin" / file).open("a") as source:
        source.write(f"\n{line}\n")
    status, said = call("lint-imports", "--no-cache", "--no-logo", where=tmp_path)
    assert status == 1 and broken in said


def test_every_module_is_in_a_layer_and_every_layer_is_there():
    modules = [path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    named = [name.strip() for layer in LAYERS for name in layer.split("|")]
    assert sorted(named) == sorted(f"infomin.{name}" for name in modules if name != "__init__")


def test_the_loop_is_forbidden_to_know_the_axes_by_name():
    forbidden = [c for c in SETTINGS["tool"]["importlinter"]["contracts"] if c["type"] == "forbidden"]
    for source in ("train", "probe", "plots"):
        out = {m for c in forbidden if f"infomin.{source}" in c["source_modules"] for m in c["forbidden_modules"]}
        assert {"infomin.views", "infomin.methods", "infomin.data"} <= out


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_package_imports_itself_relatively_and_names_by_name(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(name.name.split(".")[0] == "infomin" for name in node.names), f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom):
            assert node.level or node.module.split(".")[0] != "infomin", f"line {node.lineno}"
            assert node.module or node.level == 1, f"line {node.lineno}: from ..room import name, not from .. import room"


def test_types_are_clean():
    status, said = call("mypy")
    assert status == 0, said


@pytest.mark.parametrize("words", [("check",), ("format", "--check")], ids=" ".join)
def test_lint_and_format_are_clean(words):
    status, said = call("ruff", *words, ".")
    assert status == 0, said
