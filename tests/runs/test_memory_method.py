"""A method with a queue, a bank of all images and a slow encoder is a method like any other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import Cut, cut_after, launch
from memory_method import Memory
from tiny_runs import environment, same, tiny

import infomin
from infomin import run, sweep, trained
from infomin.common import files
from infomin.common.checkpoint import fingerprint
from infomin.measure import probe
from infomin.methods import METHODS
from infomin.runs import single
from infomin.training import loop

STATE = ("queue", "pointer", "bank", "steps")


@pytest.fixture(autouse=True)
def memory(registered, one_penalty):
    registered(METHODS, "memory", Memory)


def recipe(word="memory", **fields):
    return tiny(method=word, dim=16, **fields)


def test_it_is_trained_and_remembers_what_it_should(tmp_path):
    row = run(recipe(), tmp_path)
    assert row["status"] == "done" and row["method"] == "memory"
    method, _ = trained(tmp_path / row["key"])
    assert method.pointer == 12 * 32 and method.queue.norm(dim=1).sub(1).abs().max() < 1e-5
    filled = method.bank.norm(dim=1) > 0
    assert filled.sum() == 12 * 32 and len(method.bank) == 8192  # each image once, in its own slot
    newest = infomin.data.batch_rows(8192, 32, 11, seed=0)  # the queue of 64 holds the last two
    assert torch.equal(method.bank[newest], method.queue[(11 * 32 + torch.arange(32)) % 64])
    slow, fast = method.slow[0].state_dict(), method.encoders.state_dict()
    assert any(not torch.equal(slow[name], fast[name]) for name in slow)
    assert not any(p.requires_grad for p in method.slow.parameters())


@pytest.mark.parametrize("step", [0, 1, 7, 11])
def test_it_is_killed_and_resumes_with_the_same_bits(tmp_path, monkeypatch, step):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    whole = run(recipe(), tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, step, Memory, "after_step")
        run(recipe(), tmp_path / "cut")
    assert same(whole, run(recipe(), tmp_path / "cut"))
    states = [trained(tmp_path / name / whole["key"])[0].state_dict() for name in ("whole", "cut")]
    assert fingerprint({"state": states[0]}) == fingerprint({"state": states[1]})


def test_an_option_at_its_default_is_the_same_run(tmp_path, monkeypatch):
    row = run(recipe(), tmp_path)
    monkeypatch.setattr(single, "fit", None)
    for word in ("memory:queue=64", "memory:queue=64/momentum=0.9", "memory:noise=true"):
        assert recipe(word) == recipe() and run(recipe(word), tmp_path) == row
    assert recipe("memory:queue=32").key != recipe().key != recipe("memory:noise=false").key
    long, short = "memory:momentum=0.5/queue=32", "memory:queue=32/momentum=.5"
    assert recipe(long).key == recipe(short).key and recipe(short).method == long


def test_a_word_that_is_wrong_is_told_before_anything_is_trained():
    for word, message in {
        "memory:length=3": "option: got 'length', wanted one of queue, momentum, noise",
        "memory:queue=many": "queue: got 'many', wanted int such as 64",
        "memory:noise=1": "noise: got '1', wanted true or false",
        "infonce:queue=3": "option: got 'queue', wanted none, it has no options",
        "memory:queue=3/queue=64": "got 'queue' twice; give it once",
        "memory:": "option: got ''",
    }.items():
        with pytest.raises(ValueError, match=message):
            recipe(word)
    with pytest.raises(ValueError, match="method 'memory': got 3 views, wanted 2"):
        run(recipe(view="crop:0.5/3", data="photos"))


def test_its_networks_are_read_without_loading_data(tmp_path, monkeypatch):
    row = run(recipe("memory:queue=32"), tmp_path)
    monkeypatch.setattr("infomin.data.datasets.load", None)
    monkeypatch.setattr(single, "load", None)
    method, _ = trained(tmp_path / row["key"])
    assert len(method.queue) == 32 and len(method.bank) == 8192 and not method.training
    images = torch.rand(4, 3, 32, 32)
    assert [h.shape[0] for h in method.features((images, images))] == [4, 4]


def test_its_queue_length_is_swept(tmp_path):
    words = ["memory:queue=32", "memory:queue=64", "memory"]
    recipes = infomin.grid(recipe(), method=words)
    rows = sweep(recipes, tmp_path, jobs=1, bar=False)
    assert [row["method"] for row in rows] == ["memory:queue=32", "memory", "memory"]
    assert rows[1] == rows[2]
    assert len({path.read_text() for path in tmp_path.glob("*/log.jsonl")}) == 2
    assert len(list(tmp_path.glob("*/row.json"))) == 2


NOTEBOOK = """
import torch, infomin
from infomin.methods import InfoNCE, register
from infomin.views import View

@infomin.views.register("halves", dial="the overlap in px: halves:2")
class Halves(View):
    channels, readout = (3, 3), (0, 1)
    def __init__(self, overlap):
        super().__init__()
        self.overlap = int(overlap)
    def forward(self, images, generator=None):
        images, middle = images / 255, images.shape[-1] // 2
        return images[..., : middle + self.overlap], images[..., middle - self.overlap :]

@register("sharp")
class Sharp(InfoNCE):
    def __init__(self, context, *, factor: float = 0.5):
        super().__init__(context)
        self.tau = self.tau * factor

base = infomin.Recipe(**FIELDS)
recipes = infomin.grid(base, view=["halves:2", "halves:4"], method=["sharp", "sharp:factor=0.25"])
rows = infomin.sweep(recipes, FOLDER, jobs=2, bar=False)
print([(row["view"], row["method"], row["status"]) for row in rows])
method, view = infomin.trained(f"{FOLDER}/{rows[1]['key']}")
print(type(method).__name__, round(method.tau / base.tau, 3), type(view).__name__)
"""


def test_a_method_and_a_view_of_ones_own_are_used_from_a_notebook(tmp_path):
    """As in a notebook, what is read from standard input is in no file to import."""
    fields = {"steps": 2, "batch": 16, "width": 0.25, "candidates": 16, "probe_images": 64}
    code = NOTEBOOK.replace(
        "FIELDS", repr(fields | {"data": "photos", "size": 36, "device": "cpu"})
    )
    done = subprocess.run(
        [sys.executable, "-"],
        input=code.replace("FOLDER", repr(str(tmp_path / "runs"))),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    rows, last = done.stdout.splitlines()
    for view in ("halves:2", "halves:4"):
        for method in ("sharp", "sharp:factor=0.25"):
            assert f"('{view}', '{method}', 'done')" in rows
    assert last == "Sharp 0.25 Halves"


def worker(path):
    """One of two processes: a run without a stop, and the same one cut and resumed."""
    folder, rank = path.parent, path.stem
    loop.SAVE_EVERY, probe.linear.__defaults__ = -1.0, ((0.1,),)
    METHODS.register("memory")(Memory)
    methods, fit = [], single.fit

    def keep(method, *args, **options):
        methods.append(method)
        return fit(method, *args, **options)

    single.fit = keep
    rows = [run(recipe(), folder / "through")]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 5, Memory, "after_step")
        run(recipe(), folder / "cut")
    rows.append(run(recipe(), folder / "cut"))
    files.write_json(folder / f"{rank}.json", rows)
    state = {name: methods[i].get_buffer(name) for i in (0, 2) for name in STATE}
    torch.save({"state": fingerprint(state), "pointer": methods[0].pointer}, path)
    infomin.common.distributed.leave_processes()


def test_it_is_the_same_on_two_processes(tmp_path):
    first, second = launch(__file__, tmp_path, 2)
    assert first["state"] == second["state"] and int(first["pointer"]) == 12 * 32
    whole, cut = json.loads((tmp_path / "0.json").read_text())
    assert same(whole, cut) and whole["processes"] == 2 and whole["status"] == "done"
    assert all(map(same, json.loads((tmp_path / "1.json").read_text()), (whole, cut)))


def test_a_run_is_resumed_with_as_many_processes_as_it_was_begun_with(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 5, Memory, "after_step")
        run(recipe(), tmp_path)
    path = tmp_path / recipe().key / "context.json"
    files.write_json(path, files.read_json(path) | {"processes": 2})
    with pytest.raises(ValueError, match=r"begun with processes=2, got 1; resume it with the same"):
        run(recipe(), tmp_path)


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
