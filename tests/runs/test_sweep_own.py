"""Views, methods and networks of one's own reach the workers of a sweep."""

import subprocess
import sys
from dataclasses import asdict

import pytest
from tiny_sweeps import TINY

OWN = """
import sys, torch, infomin
from torch import nn

class Halves(infomin.views.View):
    def __init__(self, dial):
        super().__init__()
        self.channels, self.readout = (3, 3), READOUT
    def forward(self, images, generator=None):
        images = images.float() / 255
        return images[..., :18], images[..., -18:]

infomin.views.register("halves")(Halves)
if __name__ == "__main__":
    base = infomin.Recipe(**FIELDS)
    recipes = infomin.grid(base, view=["halves:1"], seed=[0, 1])
    rows = infomin.sweep(recipes, sys.argv[1], jobs=2, bar=False)
    print([row["status"] for row in rows])
"""


@pytest.mark.parametrize(
    ("readout", "said"),
    [
        ((0, 1), "['done', 'done']"),
        ((2,), "readout a tuple of the views that a probe reads"),
        ((), "got channels=(3, 3)"),
    ],
)
def test_a_view_of_one_s_own_is_swept_in_several_processes(tmp_path, readout, said):
    script = tmp_path / "own.py"
    script.write_text(OWN.replace("READOUT", str(readout)).replace("FIELDS", repr(asdict(TINY))))
    found = subprocess.run(
        [sys.executable, script, tmp_path / "runs"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert said in found.stdout + found.stderr
    assert bool(list(tmp_path.glob("runs/*/log.jsonl"))) == (
        readout == (0, 1)
    )  # otherwise it is said before the first step


MINE = """
import sys
import infomin
from infomin.views import ColorSplit
from infomin.runs import sweeps
from infomin.runs import single as runs

class Mine(ColorSplit):
    def __init__(self):
        super().__init__("rgb", "012")
        self.channels, self.readout = (3, 3), (0, 1)

    @classmethod
    def from_dial(cls, dial):
        return cls()

    def forward(self, images, generator=None):
        (view,) = super().forward(images)
        return view, view

infomin.views.register("color")(Mine)
if __name__ == "__main__":
    recipes = infomin.grid(infomin.Recipe(**FIELDS), view=["color:any"], seed=[0, 1])
    rows = infomin.sweep(recipes, sys.argv[1], jobs=2, bar=False)
    print([row["status"] for row in rows])
"""


def test_a_view_in_the_place_of_a_built_in_one_is_the_one_that_workers_take(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(MINE.replace("FIELDS", repr(asdict(TINY))))
    found = subprocess.run(
        [sys.executable, script, tmp_path / "runs"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert "['done', 'done']" in found.stdout, found.stderr


NETWORK = """
import sys
import infomin
from infomin.networks import ENCODERS, Encoder
from infomin.methods import METHODS, InfoNCE
from torch import nn

class Wide(InfoNCE):
    pass

METHODS.register("wide")(Wide)
body = lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
@ENCODERS.register("pool")
def pool(channels, width):
    return Encoder("pool", channels, 4 * channels, 2, body())
if __name__ == "__main__":
    recipes = infomin.grid(infomin.Recipe(**FIELDS), seed=[0, 1])
    rows = infomin.sweep(recipes, sys.argv[1], jobs=2, bar=False)
    print([row["status"] for row in rows])
"""


def test_a_method_and_a_network_of_one_s_own_are_swept_in_several_processes(tmp_path):
    script = tmp_path / "network.py"
    script.write_text(
        NETWORK.replace("FIELDS", repr(asdict(TINY) | {"method": "wide", "encoder": "pool"}))
    )
    found = subprocess.run(
        [sys.executable, script, tmp_path / "runs"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert "['done', 'done']" in found.stdout, found.stderr
