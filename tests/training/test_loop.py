"""The loop: stop-and-go is bit-equal, rates and averages are exact, and what diverges stops with its state saved."""

import ast
import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import infomin
from infomin.common import checkpoint
from infomin.methods import InfoNCE
from infomin.methods.base import Step
from infomin.training import loop
from infomin.training.loop import Diverged, fit
from infomin.training.optim import OPTIMIZERS, build_optimizer, rate_factor

STEPS, BATCH = 12, 6


class Tracked(InfoNCE):
    """Keeps a slow copy of a weight, as momentum encoders do: state that no gradient moves."""

    def __init__(self, **options):
        super().__init__((1, 1), width=0.25, shared=True, dim=8, **options)
        self.register_buffer("slow", torch.zeros_like(self.heads[0][0].weight))

    def after_step(self):
        self.slow.lerp_(self.heads[0][0].weight.detach(), 0.1)


class Noisy(nn.Module):
    """Two noisy looks at a picture; the strength of the noise is learned, so the view has state too."""

    def __init__(self, shared=True):
        super().__init__()
        self.shared = shared
        self.strength = nn.Parameter(torch.tensor(0.5))
        self.draws = []

    def forward(self, batch, generator):
        self.draws.append(generator.initial_seed())
        one, two = (torch.randn(batch.shape, generator=generator) for _ in range(2))
        other = batch if self.shared else torch.randn(batch.shape, generator=generator)
        return batch + self.strength * one, other + self.strength * two


class Scripted(nn.Module):
    """A method whose losses are written down beforehand."""

    def __init__(self, losses):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("losses", torch.tensor(losses))
        self.register_buffer("at", torch.tensor(0))
        self.autocast = []

    def forward(self, views, index, labels):
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        loss = self.losses[self.at]
        return Step(loss + 0 * self.weight.sum(), {"loss": loss.clone(), "i_nce": 2 - loss})

    def after_step(self):
        self.at += 1


class Plain(nn.Module):
    def forward(self, batch, generator):
        return batch, batch


def batches(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, 1, 18, 18, generator=generator), torch.arange(BATCH), {}


def begin(name="adamw", weights=0, **options):
    """A run's parts, freshly built, and the loop over them; all of it with settings that leave nothing at its default."""
    torch.manual_seed(weights)
    method, view = Tracked(), Noisy()
    parts = {
        "method": method,
        "view": view,
        "optimizer": build_optimizer(name, nn.ModuleList([method, view]), 0.01, 0.1),
    }
    options = {
        "steps": STEPS,
        "rate": lambda step: rate_factor("cosine", step, STEPS, 3),
        "seed": 5,
        "log_every": 1,
    } | options
    return parts, fit(batches=batches, **parts, **options)


def script(losses, **options):
    method = Scripted(losses)
    options = {"steps": len(losses), "rate": lambda step: 1.0, "log_every": 1} | options
    return method, fit(
        method, Plain(), batches, optimizer=torch.optim.SGD(method.parameters(), 0.1), **options
    )


def upto(steps, last):
    """What the loop tells before it is cut: while the step after `last` is handed out, which is not saved yet."""
    told = dict(itertools.takewhile(lambda item: item[0] <= last, steps))
    steps.close()
    return told


@pytest.fixture
def eager(monkeypatch):
    """Save after every step."""
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)


uninterrupted = {}


def whole(name, precision):
    """Yields and final state of a run that writes nothing and is not stopped."""
    if (name, precision) not in uninterrupted:
        parts, steps = begin(name, precision=precision)
        uninterrupted[name, precision] = dict(steps), checkpoint.fingerprint(parts)
    return uninterrupted[name, precision]


def test_several_processes_do_not_train_a_view(monkeypatch):
    monkeypatch.setattr(loop, "world_size", lambda: 2)
    method = Tracked()
    settings = {
        "steps": 1,
        "optimizer": build_optimizer("sgd", method, 0.1),
        "rate": lambda step: 1.0,
    }
    with pytest.raises(ValueError, match="fit: got a view that learns and 2 processes, wanted 1"):
        next(fit(method, Noisy(), lambda step: None, **settings))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("cuts", [(2,), (7,), (12,), (3, 5, 11), tuple(range(2, 13))], ids=str)
def test_stop_and_go_is_bit_equal(tmp_path, eager, name, precision, cuts):
    stats, path = {}, tmp_path / "checkpoint.pt"
    for cut in (*cuts, STEPS + 1):
        parts, steps = begin(
            name, precision=precision, checkpoint=path, weights=len(stats)
        )  # other first weights each time
        told = upto(steps, cut - 1)
        assert min(told) == max(stats, default=0) + 1
        stats |= told
    want, state = whole(name, precision)
    assert stats == want and list(stats) == list(range(1, STEPS + 1))
    assert checkpoint.fingerprint(parts) == state


@pytest.mark.parametrize("cut", [1, 4, 9, 11])
def test_a_crash_inside_a_step_costs_that_step_only(tmp_path, eager, cut):
    def crash(step):
        if step == cut:
            raise OSError("power")
        return batches(step)

    path = tmp_path / "checkpoint.pt"
    parts, _ = begin()
    with pytest.raises(OSError, match="power"):
        list(
            fit(
                batches=crash,
                **parts,
                steps=STEPS,
                rate=lambda step: rate_factor("cosine", step, STEPS, 3),
                seed=5,
                checkpoint=path,
            )
        )
    parts, steps = begin(checkpoint=path, weights=1)
    assert dict(steps) == {
        step: stats for step, stats in whole("adamw", "fp32")[0].items() if step > cut
    }
    assert checkpoint.fingerprint(parts) == whole("adamw", "fp32")[1]


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    path = tmp_path / "checkpoint.pt"
    list(begin(checkpoint=path)[1])
    before = path.read_bytes()
    parts, steps = begin(checkpoint=path, weights=1)
    assert list(steps) == [] and path.read_bytes() == before
    assert checkpoint.fingerprint(parts) == whole("adamw", "fp32")[1]


def test_what_differs_makes_a_difference():
    """Without it the equalities above would say little."""

    def state(**change):
        parts, steps = begin(**change)
        list(steps)
        return checkpoint.fingerprint(parts)

    want = whole("adamw", "fp32")[1]
    assert state() == state(log_every=3) == want  # how often one looks is of no account
    changes = (
        {"weights": 1},
        {"seed": 6},
        {"precision": "bf16"},
        {"rate": lambda step: 1.0},
        {"steps": 11},
        {"name": "lars"},
    )
    assert len({want, *(state(**change) for change in changes)}) == 1 + len(changes)


@pytest.mark.parametrize(
    ("every", "want"), [(0.0, list(range(1, 13))), (2.5, [3, 6, 9, 12]), (1e9, [12])]
)
def test_saving_changes_no_number_and_happens_when_it_is_due(tmp_path, monkeypatch, every, want):
    monkeypatch.setattr(loop, "SAVE_EVERY", every)
    monkeypatch.setattr(loop, "SAVE_SLOWLY", 1.0)
    clock = (
        itertools.count()
    )  # a second passes whenever it is read, at each step, before each save and after it
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    saved, save = [], checkpoint.save
    monkeypatch.setattr(
        loop.disk,
        "save",
        lambda path, state: (saved.append(state["progress"]["step"]), save(path, state)),
    )
    parts, steps = begin(checkpoint=tmp_path / "deep" / "checkpoint.pt")
    assert (
        dict(steps) == whole("adamw", "fp32")[0]
        and checkpoint.fingerprint(parts) == whole("adamw", "fp32")[1]
    )
    assert saved == want
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["checkpoint.pt"]


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch, eager):
    monkeypatch.chdir(tmp_path)
    list(begin()[1])
    assert list(tmp_path.iterdir()) == []


def test_only_the_main_process_writes(tmp_path, monkeypatch, eager):
    monkeypatch.setattr(loop, "rank", lambda: 1)
    list(begin(checkpoint=tmp_path / "checkpoint.pt")[1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_step_is_taken_at_its_own_rate(tmp_path, eager, name):
    method, view = Tracked(), Noisy()
    seen, factors, path = [], [1.0, 0.0, 0.3, 1e-7, 2.5, 0.7], tmp_path / "checkpoint.pt"

    def go(stop):
        groups = [
            {"params": [*part.parameters()], "lr": lr} for part, lr in ((method, 0.01), (view, 0.5))
        ]
        solver = OPTIMIZERS[name](groups, lr=1.0, momentum=0.9)
        solver.register_step_pre_hook(
            lambda opt, *_: seen.append([group["lr"] for group in opt.param_groups])
        )
        steps = fit(
            method,
            view,
            batches,
            steps=6,
            optimizer=solver,
            rate=factors.__getitem__,
            checkpoint=path,
            log_every=1,
        )
        return {step: stats["rate"] for step, stats in upto(steps, stop).items()}

    told = go(3) | go(6)  # a stop in between: step 4 is taken twice, for it was not saved
    assert seen == [[0.01 * f, 0.5 * f] for f in [*factors[:4], *factors[3:]]]
    assert [told[step] for step in range(1, 7)] == factors


def test_a_rate_of_zero_leaves_the_parameters_alone():
    parts, steps = begin("sgd", rate=lambda step: 0.0)
    before = [p.clone() for p in parts["method"].parameters()]
    list(steps)
    assert all(torch.equal(a, b) for a, b in zip(before, parts["method"].parameters(), strict=True))


@pytest.mark.parametrize("shared", [True, False])
def test_what_two_views_share_is_learned_and_what_they_do_not_share_is_not(shared):
    torch.manual_seed(0)
    patterns = torch.randn(8, 1, 18, 18)

    def batch(step):
        draw = torch.randint(8, (16,), generator=torch.Generator().manual_seed(step))
        return patterns[draw], draw, {}

    method, view = Tracked(), Noisy(shared)
    solver = build_optimizer("adamw", method, 0.01)
    stats = [
        s
        for _, s in fit(
            method, view, batch, steps=60, optimizer=solver, rate=lambda step: 1.0, log_every=1
        )
    ]
    first, last = (sum(s["i_nce"] for s in part) / 10 for part in (stats[:10], stats[-10:]))
    losses = [sum(s["loss"] for s in part) / 10 for part in (stats[:10], stats[-10:])]
    assert (last > first + 0.3 and losses[1] < losses[0] - 0.3) if shared else last < 0.1
    assert last < math.log(8) + 0.1  # more than the pattern is not shared


def test_averages_are_means_at_first_and_exponential_ones_later():
    losses = torch.rand(130, generator=torch.Generator().manual_seed(0)).tolist()
    told = dict(script(losses)[1])
    for step in (1, 2, 7, 49, 50):
        assert told[step]["loss_ema"] == pytest.approx(sum(losses[:step]) / step, abs=1e-5)
    for step in (51, 60, 130):
        later = sum(0.02 * 0.98 ** (step - i) * losses[i - 1] for i in range(51, step + 1))
        want = 0.98 ** (step - 50) * sum(losses[:50]) / 50 + later
        assert told[step]["loss_ema"] == pytest.approx(want, abs=1e-5)
        assert told[step]["i_nce_ema"] == pytest.approx(2 - want, abs=1e-5)
    assert [told[step]["loss"] for step in told] == pytest.approx(losses)
    assert set(told[1]) == {"loss", "i_nce", "loss_ema", "i_nce_ema", "rate"}
    assert all(type(value) is float for stats in told.values() for value in stats.values())


@pytest.mark.parametrize(
    ("steps", "every", "want"),
    [
        (25, 10, [10, 20, 25]),
        (20, 10, [10, 20]),
        (3, 10, [3]),
        (1, 1, [1]),
        (5, 2, [2, 4, 5]),
        (4, 1, [1, 2, 3, 4]),
    ],
)
def test_steps_are_told_when_they_are_due_and_the_last_one_always(
    tmp_path, eager, steps, every, want
):
    told = [step for step, _ in script([1.0] * steps, log_every=every)[1]]
    assert told == want
    path = tmp_path / "checkpoint.pt"
    next(
        script([1.0] * steps, log_every=every, checkpoint=path)[1]
    )  # stopped at what it told first, goes on from there
    assert [
        step for step, _ in script([1.0] * steps, log_every=every, checkpoint=str(path))[1]
    ] == want


def test_to_look_every_0_steps_is_told():
    with pytest.raises(ValueError, match="fit: log_every: got 0, wanted a finite number above 0"):
        next(script([1.0], log_every=0)[1])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("at", "every", "found"), [(1, 1, 1), (4, 1, 4), (4, 3, 6), (7, 10, 8), (8, 1, 8)]
)
def test_a_loss_that_is_no_number_stops_the_run_with_its_state_saved(
    tmp_path, bad, at, every, found
):
    losses, path = [1.0] * 8, tmp_path / "checkpoint.pt"
    losses[at - 1 :] = [bad] * (9 - at)  # as it does in earnest, it stays so
    method, steps = script(losses, log_every=every, checkpoint=path)
    told = []
    with pytest.raises(
        Diverged, match=rf"^step {found}: the loss is {bad}; lower the learning rate or raise tau$"
    ):
        told.extend(step for step, _ in steps)
    assert told == [step for step in range(1, found) if step % every == 0]
    twin, solver = Scripted(losses), torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1)
    state = {"method": twin, "view": Plain(), "optimizer": solver, "progress": {}}
    assert (
        checkpoint.load(path, state)["progress"]["step"] == found and twin.at == found == method.at
    )
    with pytest.raises(
        Diverged, match=rf"^step {found}: the loss is {bad}; "
    ):  # cut before its row was written
        list(script(losses, log_every=every, checkpoint=path)[1])


def test_a_loss_that_is_a_number_again_when_one_looks_is_found_by_its_average():
    with pytest.raises(Diverged, match=r"^step 4: the loss_ema is nan; "):
        list(script([1.0, math.nan, 1.0, 1.0], log_every=4)[1])


class Telling(Scripted):
    """Tells more than its loss from the third step on."""

    def __init__(self, right):
        super().__init__([1.0] * 4)
        self.right = right

    def forward(self, views, index=None, labels=None):
        step = super().forward(views, index, labels)
        return Step(
            step.loss, step.stats | ({"right": torch.tensor(self.right)} if self.at >= 2 else {})
        )


def test_a_method_may_tell_more_later_and_what_is_no_number_is_named():
    for right in (0.5, math.nan):
        method, solver = Telling(right), torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1)
        steps = fit(
            method, Plain(), batches, steps=4, optimizer=solver, rate=lambda step: 1.0, log_every=1
        )
        if right == 0.5:
            assert [stats.get("right_ema") for _, stats in steps] == [None, None, 0.5, 0.5]
        else:
            with pytest.raises(Diverged, match=r"^step 3: the right is nan; "):
                list(steps)


@pytest.mark.parametrize("stop", [1, 5, STEPS])
def test_whoever_trains_on_finds_the_rates_as_they_were(stop):
    parts, steps = begin("adamw", rate=lambda step: 1 / (2 + step))
    before = [group["lr"] for group in parts["optimizer"].param_groups]
    upto(steps, stop)
    steps.close()
    assert [group["lr"] for group in parts["optimizer"].param_groups] == before


@pytest.mark.parametrize("change", ["width", "optimizer", "view", "damage"])
def test_the_checkpoint_of_something_else_is_refused(tmp_path, change):
    path = tmp_path / "checkpoint.pt"
    list(begin("sgd", checkpoint=path)[1])
    parts, _ = begin("sgd")
    if change == "width":
        parts["method"] = InfoNCE((1, 1), width=0.5, shared=True, dim=8)
    elif change == "optimizer":
        parts["optimizer"] = torch.optim.SGD(parts["method"].heads.parameters(), 0.1)
    elif change == "view":
        parts["view"] = Plain()
    else:
        path.write_bytes(path.read_bytes()[:-100])
    before = checkpoint.fingerprint(parts)
    with pytest.raises(
        ValueError, match=r"checkpoint\.pt: .*delete it and run the same command again"
    ):
        list(fit(batches=batches, **parts, steps=STEPS, rate=lambda step: 1.0, checkpoint=path))
    assert checkpoint.fingerprint(parts) == before


def test_draws_of_a_view_depend_on_seed_step_and_process_alone(monkeypatch, tmp_path):
    def draws(**change):
        parts, steps = begin(**change)
        list(steps)
        return parts["view"].draws

    want = draws()
    assert len(set(want)) == STEPS
    for change in (
        {"name": "lars"},
        {"precision": "bf16"},
        {"rate": lambda step: 0.5},
        {"log_every": 7},
    ):
        assert draws(**change) == want
    assert draws(steps=20)[:STEPS] == want
    torch.manual_seed(99)  # and no global state
    assert draws() == want
    assert not set(draws(seed=6)) & set(want)
    monkeypatch.setattr(loop, "rank", lambda: 1)
    assert not set(draws()) & set(want)


@pytest.mark.parametrize(("precision", "on"), [("fp32", False), ("bf16", True)])
def test_precision_is_that_of_the_forward_pass(precision, on):
    method, steps = script([1.0] * 3, precision=precision)
    list(steps)
    assert method.autocast == [on] * 3 and not torch.is_autocast_enabled("cpu")


def test_a_method_in_eval_mode_is_trained_in_training_mode():
    parts, steps = begin()
    parts["method"].eval()
    assert dict(steps) == whole("adamw", "fp32")[0] and parts["method"].training


@pytest.mark.parametrize("room", ["training/loop", "measure/probe", "report/plots"])
def test_the_loop_knows_no_view_no_method_and_no_data_set(room):
    tree = ast.parse((Path(infomin.__file__).parent / f"{room}.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {getattr(node, "module", None) or "" for node in imports} | {
        a.name for node in imports for a in node.names
    }
    assert modules and not {"views", "methods", "data"} & {
        part for module in modules for part in module.split(".")
    }
