"""A new augmentation and a new method are one file each: no other line of the package changes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import infomin

PACKAGE = Path(infomin.__file__).parent
POSTERS = '''"""Posterise: keep a few levels of each channel."""

from torch import Tensor

from ...common.checks import to_unit
from ..base import Augmentation, Views, register
from ..dials import match_dial
from ..draws import Selection, apply_where, bernoulli


@register("levels", dial="how many levels each channel keeps: levels:4")
class Levels(Augmentation[Selection]):
    """Images with few levels, half of the time."""

    def __init__(self, levels: int = 4) -> None:
        super().__init__()
        self.levels = levels

    @classmethod
    def from_dial(cls, dial: str) -> "Levels":
        """`levels:COUNT`."""
        return cls(int(match_dial(dial, r"\\d+")[0]))

    def draw(self, n, height, width, generator=None) -> Selection:
        """Which images to change."""
        return Selection(bernoulli((n,), 0.5, generator))

    def augment(self, images: Tensor, draws: Selection) -> Views:
        """The view for given draws."""

        def posterised(images, rows):
            return (images * self.levels).floor() / self.levels

        return (apply_where(to_unit(images), draws.which, posterised),)
'''
SHARPENED = '''"""InfoNCE at a temperature of its own."""

from .base import Context, register
from .infonce import InfoNCE


@register("sharpened")
class Sharpened(InfoNCE):
    """The contrast at a fraction of the recipe's temperature."""

    def __init__(self, context: Context, *, factor: float = 0.5) -> None:
        super().__init__(context)
        self.tau = context.tau * factor
'''


@pytest.fixture
def package(tmp_path):
    """Writes one file into a copy of the package, and runs the command `infomin` of that copy."""
    shutil.copytree(PACKAGE, tmp_path / "infomin", ignore=shutil.ignore_patterns("__pycache__"))

    def call(*words):
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "infomin", *map(str, words)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    def add(path, source):
        (tmp_path / "infomin" / path).write_text(source)
        return call

    return add


SMALL = ["--steps", "2", "--batch", "16", "--width", "0.25", "--candidates", "16"]
SMALL += ["--probe_images", "64", "--size", "24", "--device", "cpu"]


def test_an_augmentation_is_one_file(package, tmp_path):
    call = package("views/augment/levels.py", POSTERS)
    assert "levels       how many levels each channel keeps: levels:4" in call("views").stdout
    views = "levels:4,levels:4/1+color:lab"
    done = call("sweep", *SMALL, "--data", "photos", "--view", views, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/*/row.json"))) == 2
    wrong = call("run", "--view", "levels:few").stderr
    assert "view 'levels:few': got 'few'; the dial of levels is how many levels" in wrong


def test_a_method_is_one_file(package, tmp_path):
    call = package("methods/sharpened.py", SHARPENED)
    words = "sharpened,sharpened:factor=0.25,sharpened:factor=0.5"
    done = call("sweep", *SMALL, "--method", words, "--out", tmp_path / "runs", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/row.json")]
    assert sorted(row["method"] for row in rows) == ["sharpened", "sharpened:factor=0.25"]
    logs = {path.read_text() for path in tmp_path.glob("runs/*/log.jsonl")}
    assert len(logs) == 2  # they learned something else
    wrong = call("run", "--method", "sharpened:facter=1").stderr
    assert "option: got 'facter', wanted one of factor" in wrong
