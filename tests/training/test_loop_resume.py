"""Interrupted runs resume with the same bits; diverged ones stop with their state saved."""

import itertools
import math

import pytest
import torch
from learners import (
    STEPS,
    Scripted,
    Tracked,
    Twice,
    random_batches,
    start,
    start_script,
    take_until,
    warm_cosine,
)
from torch import nn

from infomin.common import checkpoint
from infomin.training import loop
from infomin.training.loop import Diverged, fit
from infomin.training.optim import OPTIMIZERS

_straight_runs = {}


@pytest.fixture
def save_every_step(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)


def straight_run(name="adamw", precision="fp32"):
    """Stats and fingerprint of the final state of a run without checkpoints or interruption."""
    if (name, precision) not in _straight_runs:
        parts, training = start(name, precision=precision)
        _straight_runs[name, precision] = dict(training), checkpoint.fingerprint(parts)
    return _straight_runs[name, precision]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("cuts", [(2,), (7,), (12,), (3, 5, 11), tuple(range(2, 13))], ids=str)
def test_an_interrupted_run_ends_with_the_same_bits(
    tmp_path, save_every_step, name, precision, cuts
):
    stats, path = {}, tmp_path / "checkpoint.pt"
    for cut in (*cuts, STEPS + 1):
        # Initial weights differ every time: those of the checkpoint have to win.
        options = {"precision": precision, "checkpoint": path, "weights": len(stats)}
        parts, training = start(name, **options)
        new_stats = take_until(training, cut - 1)
        assert min(new_stats) == max(stats, default=0) + 1
        stats |= new_stats
    expected, fingerprint = straight_run(name, precision)
    assert stats == expected and list(stats) == list(range(1, STEPS + 1))
    assert checkpoint.fingerprint(parts) == fingerprint


@pytest.mark.parametrize("crash_at", [1, 4, 9, 11])
def test_a_crash_inside_a_step_costs_only_that_step(tmp_path, save_every_step, crash_at):
    def crashing_batches(step):
        if step == crash_at:
            raise OSError("power")
        return random_batches(step)

    path = tmp_path / "checkpoint.pt"
    parts, _ = start()
    options = {"steps": STEPS, "rate": warm_cosine, "seed": 5, "checkpoint": path}
    with pytest.raises(OSError, match="power"):
        list(fit(batches=crashing_batches, **parts, **options))
    parts, training = start(checkpoint=path, weights=1)
    stats, fingerprint = straight_run()
    assert dict(training) == {step: stats[step] for step in range(crash_at + 1, STEPS + 1)}
    assert checkpoint.fingerprint(parts) == fingerprint


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    path = tmp_path / "checkpoint.pt"
    list(start(checkpoint=path)[1])
    before = path.read_bytes()
    parts, training = start(checkpoint=path, weights=1)
    assert list(training) == [] and path.read_bytes() == before
    assert checkpoint.fingerprint(parts) == straight_run()[1]


def test_a_resumed_run_draws_the_same_random_numbers(tmp_path, save_every_step):
    """Those of the method's generator, for the same step and the same rows."""

    def draws(parts):
        batches = parts["method"].batches
        return {batch.step: torch.rand(3, generator=batch.generator) for batch in batches}

    parts, training = start()
    list(training)
    straight = draws(parts)
    path = tmp_path / "checkpoint.pt"
    take_until(start(checkpoint=path)[1], 7)
    parts, training = start(checkpoint=path)
    list(training)
    resumed = draws(parts)
    assert list(resumed) == list(range(7, STEPS))
    assert all(torch.equal(resumed[step], straight[step]) for step in resumed)


def test_different_settings_end_in_different_states():
    """Without this the equalities above would mean little."""

    def final_state(**options):
        parts, training = start(**options)
        list(training)
        return checkpoint.fingerprint(parts)

    expected = straight_run()[1]
    assert final_state() == final_state(log_every=3) == expected  # logging changes nothing
    changes = (
        {"weights": 1},
        {"seed": 6},
        {"precision": "bf16"},
        {"rate": lambda step: 1.0},
        {"steps": 11},
        {"name": "lars"},
    )
    states = {expected, *(final_state(**change) for change in changes)}
    assert len(states) == 1 + len(changes)


@pytest.mark.parametrize(
    ("every", "expected"), [(0.0, list(range(1, 13))), (2.5, [3, 6, 9, 12]), (1e9, [12])]
)
def test_it_saves_when_due_and_saving_changes_no_number(tmp_path, monkeypatch, every, expected):
    monkeypatch.setattr(loop, "SAVE_EVERY", every)
    monkeypatch.setattr(loop, "SAVE_COST", 1.0)
    # Each reading of the clock takes a second: one per step, one before and one after each save.
    clock = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    saved, save = [], checkpoint.save

    def recording_save(path, state):
        saved.append(state["progress"]["step"])
        save(path, state)

    monkeypatch.setattr(loop.checkpoints, "save", recording_save)
    parts, training = start(checkpoint=tmp_path / "deep" / "checkpoint.pt")
    stats, fingerprint = straight_run()
    assert dict(training) == stats and checkpoint.fingerprint(parts) == fingerprint
    assert saved == expected
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["checkpoint.pt"]


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch, save_every_step):
    monkeypatch.chdir(tmp_path)
    list(start()[1])
    assert list(tmp_path.iterdir()) == []


def test_only_the_main_process_writes(tmp_path, monkeypatch, save_every_step):
    monkeypatch.setattr(loop, "rank", lambda: 1)
    list(start(checkpoint=tmp_path / "checkpoint.pt")[1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("first", "every", "noticed"), [(1, 1, 1), (4, 1, 4), (4, 3, 6), (7, 10, 8), (8, 1, 8)]
)
def test_a_non_finite_loss_stops_the_run_with_its_state_saved(
    tmp_path, value, first, every, noticed
):
    losses, path = [1.0] * 8, tmp_path / "checkpoint.pt"
    losses[first - 1 :] = [value] * (9 - first)  # once non-finite, it stays so
    learner, training = start_script(losses, log_every=every, checkpoint=path)
    logged = []
    message = rf"^step {noticed}: the loss is {value}; lower the learning rate or raise tau$"
    with pytest.raises(Diverged, match=message):
        logged.extend(step for step, _ in training)
    assert logged == [step for step in range(1, noticed) if step % every == 0]
    twin, optimizer = Scripted(losses), torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1)
    state = {"method": twin, "view": Twice(), "optimizer": optimizer, "progress": {}}
    assert checkpoint.load(path, state)["progress"]["step"] == noticed
    assert twin.position == noticed == learner.position
    # Interrupted before its row was written, the run diverges again at once.
    with pytest.raises(Diverged, match=message):
        list(start_script(losses, log_every=every, checkpoint=path)[1])


@pytest.mark.parametrize("change", ["width", "optimizer", "view", "damage"])
def test_the_checkpoint_of_another_run_is_refused(tmp_path, change):
    path = tmp_path / "checkpoint.pt"
    list(start("sgd", checkpoint=path)[1])
    parts, _ = start("sgd")
    if change == "width":
        parts["method"] = Tracked(width=0.5)
    elif change == "optimizer":
        parts["optimizer"] = torch.optim.SGD(parts["method"].heads.parameters(), 0.1)
    elif change == "view":
        parts["view"] = Twice()
    else:
        path.write_bytes(path.read_bytes()[:-100])
    before = checkpoint.fingerprint(parts)
    options = {"steps": STEPS, "rate": lambda step: 1.0, "checkpoint": path}
    message = r"checkpoint\.pt: .*delete it and run the same command again"
    with pytest.raises(ValueError, match=message):
        list(fit(batches=random_batches, **parts, **options))
    assert checkpoint.fingerprint(parts) == before


class Stateful(Scripted):
    """Has a buffer that changes after some step."""

    def __init__(self, change, persistent, when):
        super().__init__([1.0] * 4)
        self.change, self.when = change, when
        self.register_buffer("memory", torch.zeros(2), persistent=persistent)

    def after_step(self, step):
        super().after_step(step)
        if step >= self.when:
            self.memory = self.change(self.memory)


def grow(memory):
    return torch.cat([memory, memory])


@pytest.mark.parametrize(
    ("change", "persistent", "when", "message"),
    [
        (torch.clone, False, 0, None),  # a constant need not be saved
        (lambda memory: memory + 1, True, 0, None),
        (lambda memory: memory + 1, False, 0, "a step changed this buffer, which is not saved"),
        (lambda memory: memory + 1, False, 2, "a step changed this buffer, which is not saved"),
        (grow, True, 0, r"got the shape \[4\] after a step, \[2\] before it"),
        (grow, True, 3, r"got the shape \[4\] after a step, \[2\] before it"),
        (grow, False, 0, "a step changed this buffer, which is not saved"),
        (lambda memory: None, True, 1, r"got the shape None after a step, \[2\] before it"),
    ],
)
def test_a_state_that_could_not_be_restored_is_an_error(
    tmp_path, save_every_step, change, persistent, when, message
):
    """Rather than a checkpoint that is refused, or that leaves something out."""
    learner = Stateful(change, persistent, when)
    _, training = start_script([1.0] * 4, learner, checkpoint=tmp_path / "checkpoint.pt")
    if message is None:
        assert len(list(training)) == 4
        return
    with pytest.raises(ValueError, match=f"^fit: Stateful: memory: {message}"):
        list(training)
    assert learner.position == when + 1


def test_a_method_in_eval_mode_is_trained_in_training_mode():
    parts, training = start()
    parts["method"].eval()
    assert dict(training) == straight_run()[0] and parts["method"].training
