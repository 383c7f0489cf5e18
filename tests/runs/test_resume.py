"""Runs that are cut, diverge or are carried out by two processes: the same row in the end."""

import json
import math
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as c10d
from helpers import Cut, context, cut_after
from tiny_runs import TINY, environment, same, tiny

from infomin import Recipe, run
from infomin.common import distributed, files
from infomin.measure import probe
from infomin.methods import InfoNCE, Task
from infomin.runs import single
from infomin.runs.folder import RunFolder, read_context
from infomin.training import loop

pytestmark = pytest.mark.usefixtures("one_penalty")


CUTS = {
    "before the first save": (0, InfoNCE, "after_step"),
    "at step 5": (4, InfoNCE, "after_step"),
    "at a step that is logged": (9, InfoNCE, "after_step"),
    "before its line": (0, files, "append_jsonl"),
    "between the last line and its save": (11, loop.checkpoints, "save"),
    "at the last step": (11, InfoNCE, "after_step"),
    "before the probe": (0, single, "evaluate"),
    "before the row": (2, files, "write_json"),
}


@pytest.mark.parametrize("where", CUTS)
def test_a_run_that_was_cut_goes_on_and_ends_bit_equal(row, tmp_path, monkeypatch, where):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    folder = tmp_path / tiny().key
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, *CUTS[where])
        run(tiny(), tmp_path)
    assert not (folder / "row.json").exists()
    begun = (folder / "checkpoint.pt").exists()
    assert begun == (where not in ("before the first save"))
    steps, after_step = [], InfoNCE.after_step
    monkeypatch.setattr(
        InfoNCE, "after_step", lambda self, step: (steps.append(1), after_step(self, step))[1]
    )
    assert same(row, run(tiny(), tmp_path))
    assert len(steps) == {
        "before the first save": 12,
        "at step 5": 8,
        "at a step that is logged": 3,
        "before its line": 3,
    }.get(where, 1 if "last" in where else 0)
    lines = files.read_log(folder / "log.jsonl")
    assert [line["step"] for line in lines] == [10, 12] and lines[-1]["loss"] > 0


def test_a_log_with_a_torn_line_is_mended(row, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    whole = tmp_path / "whole" / tiny().key / "log.jsonl"
    run(tiny(), tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 11, InfoNCE, "after_step")
        run(tiny(), tmp_path)
    torn = tmp_path / tiny().key / "log.jsonl"
    torn.write_bytes(torn.read_bytes() + b'{"step": 12, "lo')
    assert same(row, run(tiny(), tmp_path)) and torn.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "of another recipe", "not one at all"])
def test_a_damaged_checkpoint_is_said_and_what_to_do(tmp_path, monkeypatch, damage):
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 0, single, "evaluate")
        run(tiny(), tmp_path)
    path = tmp_path / tiny().key / "checkpoint.pt"
    if damage == "of another recipe":
        run(tiny(width=0.5, steps=1), tmp_path)
        path.write_bytes((tmp_path / tiny(width=0.5, steps=1).key / "checkpoint.pt").read_bytes())
    else:
        path.write_bytes(path.read_bytes()[:1000] if damage == "truncated" else b"a text")
    with pytest.raises(
        ValueError,
        match=r"checkpoint\.pt: .*; delete it and run the same command again to restart this run",
    ):
        run(tiny(), tmp_path)
    path.unlink()
    assert run(tiny(), tmp_path)["status"] == "done"


@pytest.mark.parametrize("change", [{"lr": 1e30}, {"tau": 1e-40}], ids=str)
def test_a_run_that_diverges_gives_a_row_that_says_so(tmp_path, change):
    recipe = tiny(**change)
    row = run(recipe, tmp_path)
    assert (
        row["status"] == "diverged"
        and row["reason"] == "step 10: the loss is nan; lower the learning rate or raise tau"
    )
    assert row["true_nats"] == pytest.approx(math.log(10)) and row["torch"] == torch.__version__
    assert (
        not {"i_nce", "ceiling", "acc_digit"} & set(row)
        and {name: row[name] for name in change} == change
    )
    assert files.read_json(tmp_path / recipe.key / "row.json") == row == run(recipe, tmp_path)
    assert (tmp_path / recipe.key / "checkpoint.pt").exists() and not (
        tmp_path / recipe.key / "log.jsonl"
    ).exists()


def test_a_run_whose_last_step_breaks_it_has_diverged(tmp_path):
    recipe = tiny(
        lr=1e30, steps=1, warmup=0, schedule="constant", optimizer="sgd"
    )  # no loss is read after that step
    row = run(recipe, tmp_path)
    assert row["status"] == "diverged" and row["reason"].startswith(
        "features: got NaN or Inf from the encoders"
    )
    assert not {"i_nce", "acc_digit"} & set(row)


def test_a_run_in_bf16_learns_as_one_in_fp32_does_and_goes_on_where_it_was_cut(
    tmp_path, monkeypatch
):
    """Within an outer autocast torch would round the weights once and never again."""
    fields = {"view": "crop:0.5/1+color:rgb", "steps": 60, "share_encoder": False}
    whole, plain = (
        run(tiny(precision=precision, **fields), tmp_path / precision)
        for precision in ("bf16", "fp32")
    )
    ends = [
        files.read_log(tmp_path / row["precision"] / row["key"] / "log.jsonl")[-1]["i_nce_ema"]
        for row in (whole, plain)
    ]
    first = files.read_log(tmp_path / "fp32" / plain["key"] / "log.jsonl")[0]["i_nce_ema"]
    assert ends[0] == pytest.approx(ends[1], abs=0.1) and ends[1] > first + 0.3
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    with pytest.raises(Cut), monkeypatch.context() as patch:
        cut_after(patch, 30, InfoNCE, "after_step")
        run(tiny(precision="bf16", **fields), tmp_path / "cut")
    assert same(whole, run(tiny(precision="bf16", **fields), tmp_path / "cut"))


def test_torchrun_with_two_processes_writes_one_row(tmp_path):
    drawn = {
        **TINY,
        "view": "crop:0.3+jitter:1",
        "share_encoder": True,
    }  # each process draws for images of its own
    words = [word for name, value in drawn.items() for word in (f"--{name}", str(value).lower())]
    launch = [
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "infomin",
        "run",
    ]
    done = subprocess.run(
        [sys.executable, "-m", *launch, *words, "--out", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr
    (path,) = tmp_path.rglob("row.json")
    row = files.read_json(path)
    assert (path.parent.name, row["status"], row["processes"]) == (Recipe(**drawn).key, "done", 2)
    assert [line["step"] for line in files.read_log(path.parent / "log.jsonl")] == [10, 12]
    assert done.stdout.count('"i_nce"') == 1, "every process printed the row"


@pytest.mark.parametrize(
    ("name", "now"), [("precision", "bf16"), ("device", "meta"), ("images", 5), ("tasks", None)]
)
def test_a_run_goes_on_only_as_it_was_begun(row, tmp_path, monkeypatch, name, now):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 4, InfoNCE, "after_step")
        run(tiny(), tmp_path)
    path = tmp_path / tiny().key / "context.json"
    begun = files.read_json(path)
    other = {key: value for key, value in begun.items() if key != name}
    files.write_json(path, other | ({} if now is None else {name: now}))
    message = f"wanted the {name} that" if now is None else f"begun with {name}={now}, got"
    with pytest.raises(ValueError, match=message):
        run(tiny(), tmp_path)
    files.write_json(path, begun)
    assert same(row, run(tiny(), tmp_path))


def worker(folder):
    """One of two processes: a whole run, the same one cut and resumed, and a finished row."""
    loop.SAVE_EVERY, probe.linear.__defaults__ = -1.0, ((0.1,),)
    rows = [run(tiny(), folder / "through")]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 6, InfoNCE, "after_step")
        run(tiny(), folder / "cut")
    for where, step in (("unsaved", 0), ("begun", 6)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
            cut_after(patch, step, InfoNCE, "after_step")
            run(tiny(), folder / where)
    rows.append(run(tiny(), folder / "cut"))
    single.fit = None
    rows.append(run(tiny(), folder / "cut"))
    files.write_json(folder / f"{distributed.rank()}.json", rows)
    distributed.leave_processes()


def test_two_processes_go_on_where_they_were_cut_and_one_does_not(row, tmp_path):
    """One process would have other numbers; where nothing was saved it begins anew."""
    store = c10d.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60)
    )
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": "2",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, tmp_path],
            text=True,
            stderr=subprocess.PIPE,
            env=environment() | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=90)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert said == ["", ""]
    rows, others = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert same(*rows) and len(rows) == 3
    assert all(map(same, rows, others)), "the processes return different rows"
    assert len(list(tmp_path.rglob("row.json"))) == 2
    for _ in range(2):
        with pytest.raises(ValueError, match=r"begun with processes=2, got 1; resume it with"):
            run(tiny(), tmp_path / "begun")
    assert same(row, run(tiny(), tmp_path / "unsaved")) and row["processes"] == 1
    (tmp_path / "begun" / tiny().key / "context.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"context\.json: .*; put it back, or delete the"):
        run(tiny(), tmp_path / "begun")


if __name__ == "__main__":
    worker(Path(sys.argv[1]))


def test_a_context_survives_its_file(tmp_path):
    tasks = {"digit": Task(10), "place": Task(2, (0.25, -3.5), (1.5, 2.0))}
    original = context((3, 27), shapes=((3, 32, 32), (27, 8, 8)), tiles=(1, 9), tasks=tasks)
    folder = RunFolder(tmp_path, tiny().key, tiny())
    with folder.held():
        folder.save_context(original)
    restored = read_context(folder.path / "context.json", original.encoders)
    assert restored == original  # a list is not equal to a tuple
    assert isinstance(restored.tasks["place"], Task)
