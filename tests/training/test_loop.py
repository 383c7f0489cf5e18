"""The loop: exact rates and averages, when it yields, and what the view and method are given."""

import ast
import math
from pathlib import Path

import pytest
import torch
from learners import (
    STEPS,
    Noisy,
    Scripted,
    Tracked,
    random_batches,
    start,
    start_script,
    take_until,
)

import infomin
from infomin.training import loop
from infomin.training.loop import Diverged, fit
from infomin.training.optim import OPTIMIZERS, build_optimizer
from infomin.training.step import Step


def test_several_processes_do_not_train_a_view(monkeypatch):
    monkeypatch.setattr(loop, "world_size", lambda: 2)
    method = Tracked()
    optimizer = build_optimizer("sgd", method, 0.1)
    training = fit(
        method, Noisy(), lambda step: None, steps=1, optimizer=optimizer, rate=lambda step: 1.0
    )
    message = "fit: a view with trainable parameters needs 1 process, got 2; "
    with pytest.raises(ValueError, match=message):
        next(training)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_step_is_taken_at_its_own_rate(tmp_path, monkeypatch, name):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)  # after every step
    method, view = Tracked(), Noisy()
    factors = [1.0, 0.0, 0.3, 1e-7, 2.5, 0.7]
    rates_of_steps = []

    def train(last):
        groups = [
            {"params": list(method.parameters()), "lr": 0.01},
            {"params": list(view.parameters()), "lr": 0.5},
        ]
        optimizer = OPTIMIZERS[name](groups, lr=1.0, momentum=0.9)

        def record(optimizer, *_):
            rates_of_steps.append([group["lr"] for group in optimizer.param_groups])

        optimizer.register_step_pre_hook(record)
        training = fit(
            method,
            view,
            random_batches,
            steps=6,
            optimizer=optimizer,
            rate=factors.__getitem__,
            checkpoint=tmp_path / "checkpoint.pt",
            log_every=1,
        )
        return {step: stats["rate"] for step, stats in take_until(training, last).items()}

    logged = train(3) | train(6)  # step 4 was not saved and is taken twice
    taken = [*factors[:4], *factors[3:]]
    assert rates_of_steps == [[0.01 * factor, 0.5 * factor] for factor in taken]
    assert [logged[step] for step in range(1, 7)] == factors


def test_each_group_has_its_own_factor():
    method, view = Tracked(), Noisy()
    groups = [{"params": list(part.parameters())} for part in (method, view)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    before = [p.clone() for p in (*method.parameters(), view.strength)]
    training = fit(
        method, view, random_batches, steps=3, optimizer=optimizer, rate=lambda step: [0.5, 0.0]
    )
    assert [stats["rate"] for _, stats in training] == [0.5]
    after = [*method.parameters(), view.strength]
    unchanged = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert unchanged == [False] * (len(before) - 1) + [True]


def test_a_rate_of_zero_leaves_the_parameters_alone():
    parts, training = start("sgd", rate=lambda step: 0.0)
    before = [p.clone() for p in parts["method"].parameters()]
    list(training)
    assert all(torch.equal(a, b) for a, b in zip(before, parts["method"].parameters(), strict=True))


@pytest.mark.parametrize("shared", [True, False])
def test_information_is_learned_if_views_share_it_and_only_then(shared):
    torch.manual_seed(0)
    patterns = torch.randn(8, 1, 18, 18)

    def batches(step):
        rows = torch.randint(8, (16,), generator=torch.Generator().manual_seed(step))
        return patterns[rows], rows, {}

    method = Tracked()
    training = fit(
        method,
        Noisy(shared),
        batches,
        steps=60,
        optimizer=build_optimizer("adamw", method, 0.01),
        rate=lambda step: 1.0,
        log_every=1,
    )
    stats = [values for _, values in training]
    first, last = (sum(s["i_nce"] for s in part) / 10 for part in (stats[:10], stats[-10:]))
    first_loss, last_loss = (
        sum(s["loss"] for s in part) / 10 for part in (stats[:10], stats[-10:])
    )
    if shared:
        assert last > first + 0.3 and last_loss < first_loss - 0.3
    else:
        assert last < 0.1
    assert last < math.log(8) + 0.1  # the pattern is all that views share


def test_averages_are_plain_means_first_and_exponential_ones_later():
    losses = torch.rand(130, generator=torch.Generator().manual_seed(0)).tolist()
    logged = dict(start_script(losses)[1])
    for step in (1, 2, 7, 49, 50):
        mean = sum(losses[:step]) / step
        assert logged[step]["loss_ema"] == pytest.approx(mean, abs=1e-5)
    for step in (51, 60, 130):
        newer = sum(0.02 * 0.98 ** (step - i) * losses[i - 1] for i in range(51, step + 1))
        expected = 0.98 ** (step - 50) * sum(losses[:50]) / 50 + newer
        assert logged[step]["loss_ema"] == pytest.approx(expected, abs=1e-5)
        assert logged[step]["i_nce_ema"] == pytest.approx(2 - expected, abs=1e-5)
    assert [stats["loss"] for stats in logged.values()] == pytest.approx(losses)
    assert set(logged[1]) == {"loss", "i_nce", "loss_ema", "i_nce_ema", "rate"}
    for stats in logged.values():
        assert all(type(value) is float for value in stats.values())


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [
        (25, 10, [10, 20, 25]),
        (20, 10, [10, 20]),
        (3, 10, [3]),
        (1, 1, [1]),
        (5, 2, [2, 4, 5]),
        (4, 1, [1, 2, 3, 4]),
    ],
)
def test_it_yields_every_few_steps_and_always_the_last(
    tmp_path, monkeypatch, steps, every, expected
):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)  # after every step
    losses = [1.0] * steps
    assert [step for step, _ in start_script(losses, log_every=every)[1]] == expected
    path = tmp_path / "checkpoint.pt"
    next(start_script(losses, log_every=every, checkpoint=path)[1])  # stopped at the first yield
    resumed = start_script(losses, log_every=every, checkpoint=str(path))[1]
    assert [step for step, _ in resumed] == expected


def test_logging_every_0_steps_is_an_error():
    with pytest.raises(ValueError, match="fit: log_every: got 0, wanted a finite number above 0"):
        next(start_script([1.0], log_every=0)[1])


def test_a_non_finite_loss_between_two_logs_shows_in_its_average():
    with pytest.raises(Diverged, match=r"^step 4: the loss_ema is nan; "):
        list(start_script([1.0, math.nan, 1.0, 1.0], log_every=4)[1])


class Returning(Scripted):
    """Returns what it is told to, which may use its weight."""

    def __init__(self, make):
        super().__init__([1.0] * 4)
        self.make = make

    def forward(self, views, batch):
        return self.make(self.weight.sum())


ONE = torch.tensor(1.0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda w: None, TypeError, r"wanted Step\(loss, stats\), got NoneType"),
        (lambda w: w, TypeError, r"wanted Step\(loss, stats\), got Tensor"),
        (lambda w: (w, {}), TypeError, r"wanted Step\(loss, stats\), got tuple"),
        (lambda w: Step(1.0, {}), TypeError, "loss: .* got float"),
        (lambda w: Step(w.detach(), {}), TypeError, r"loss: .* got a tensor \[\] without a grad"),
        (lambda w: Step(w.expand(3), {}), TypeError, r"loss: .* got a tensor \[3\] with a grad"),
        (lambda w: Step(w, None), TypeError, "stats: wanted a dict, got NoneType"),
        (lambda w: Step(w, {"a": 1.0}), TypeError, r"stats\['a'\]: .* got float"),
        (lambda w: Step(w, {"a": w}), TypeError, r"stats\['a'\]: .* got a tensor \[\] with a grad"),
        (lambda w: Step(w, {"a": ONE.expand(2)}), TypeError, r"stats.*got a tensor \[2\] without"),
        (lambda w: Step(w, {"step": ONE}), ValueError, "stats: got 'step', the name of a column"),
        (lambda w: Step(w, {"rate": ONE}), ValueError, "stats: got 'rate', the name of a column"),
    ],
)
def test_what_is_no_step_is_an_error_before_the_first_one(make, error, message):
    learner, training = start_script([1.0] * 4, Returning(make))
    with pytest.raises(error, match=rf"^fit: Returning\.forward: {message}"):
        next(training)
    assert torch.equal(learner.weight, torch.ones(2)) and learner.position == 0


class Late(Scripted):
    """Logs an accuracy as well, from the third step on."""

    def __init__(self, right):
        super().__init__([1.0] * 4)
        self.right = right

    def forward(self, views, batch):
        result = super().forward(views, batch)
        if batch.step >= 2:
            result.stats["right"] = torch.tensor(self.right)
        return result


def test_a_method_may_add_stats_later_and_a_non_finite_one_is_named():
    _, training = start_script([1.0] * 4, Late(0.5))
    assert [stats.get("right_ema") for _, stats in training] == [None, None, 0.5, 0.5]
    _, training = start_script([1.0] * 4, Late(math.nan))
    with pytest.raises(Diverged, match=r"^step 3: the right is nan; "):
        list(training)


@pytest.mark.parametrize("last", [1, 5, STEPS])
def test_learning_rates_are_restored_at_the_end(last):
    parts, training = start("adamw", rate=lambda step: 1 / (2 + step))
    before = [group["lr"] for group in parts["optimizer"].param_groups]
    take_until(training, last)
    assert [group["lr"] for group in parts["optimizer"].param_groups] == before


UNRELATED = [
    {"name": "lars"},
    {"precision": "bf16"},
    {"rate": lambda step: 0.5},
    {"log_every": 7},
    {"weights": 99},
]


def test_random_draws_depend_only_on_seed_step_and_process(monkeypatch):
    """Those of the view, and those of the method, which are others."""

    def seeds(**options):
        parts, training = start(**options)
        list(training)
        of_method = [batch.generator.initial_seed() for batch in parts["method"].batches]
        return parts["view"].seeds + of_method

    expected = seeds()
    assert len(set(expected)) == 2 * STEPS
    for options in UNRELATED:
        assert seeds(**options) == expected
    longer = seeds(steps=20)
    assert longer[:STEPS] + longer[20 : 20 + STEPS] == expected
    torch.manual_seed(99)
    assert seeds() == expected
    assert not set(seeds(seed=6)) & set(expected)
    monkeypatch.setattr(loop, "rank", lambda: 1)
    assert not set(seeds()) & set(expected)


def test_the_method_is_given_the_step_the_rows_and_the_labels():
    parts, training = start(steps=4)
    list(training)
    batches = parts["method"].batches
    assert [batch.step for batch in batches] == [0, 1, 2, 3]
    for batch in batches:
        _, rows, labels = random_batches(batch.step)
        assert torch.equal(batch.index, rows) and batch.labels == labels


@pytest.mark.parametrize(("precision", "enabled"), [("fp32", False), ("bf16", True)])
def test_the_forward_pass_has_the_given_precision(precision, enabled):
    learner, training = start_script([1.0] * 3, precision=precision)
    list(training)
    assert learner.autocast == [enabled] * 3 and not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("module", ["training/loop", "measure/probe", "report/plots"])
def test_the_loop_imports_no_view_no_method_and_no_data(module):
    tree = ast.parse((Path(infomin.__file__).parent / f"{module}.py").read_text())
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            for name in names:
                parts.update(name.split("."))
    assert parts and not {"views", "methods", "data"} & parts
