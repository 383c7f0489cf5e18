"""LARS against a numpy oracle, parameter groups, and closed forms of the schedules."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from infomin.training.optim import (
    LARS,
    OPTIMIZERS,
    SCHEDULES,
    build_optimizer,
    build_training,
    rate_factor,
)
from infomin.training.step import Group


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    ).double()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0) -> None:
    """Minimise a loss on random inputs."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(5, 3, 4, 4, generator=generator, dtype=torch.double)
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("decay", [0.0, 1e-2, 1.0])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("trust", [0.001, 0.1])
def test_lars_equals_the_papers_algorithm_in_numpy(
    decay: float, momentum: float, trust: float
) -> None:
    rng = np.random.default_rng(0)
    w = [rng.normal(size=s) for s in ((4, 3, 3, 3), (4,), (2, 5), (1, 1))]
    v = [np.zeros_like(a) for a in w]
    params = [nn.Parameter(torch.from_numpy(a.copy())) for a in w]
    optimizer = LARS(params, lr=0.0, weight_decay=decay, momentum=momentum, trust=trust)
    for step in range(6):
        lr = 2.0 / (step + 1)  # a changing rate shows whether it is part of the velocity
        optimizer.param_groups[0]["lr"] = lr
        grads = [rng.normal(size=a.shape) for a in w]
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            p.grad = torch.from_numpy(g.copy())
            if g.ndim > 1:
                w_norm, g_norm = np.sqrt((w[i] ** 2).sum()), np.sqrt((g**2).sum())
                local = trust * w_norm / (g_norm + decay * w_norm)
                v[i] = momentum * v[i] + lr * local * (g + decay * w[i])
            else:
                v[i] = momentum * v[i] + lr * g
            w[i] = w[i] - v[i]
        optimizer.step()
    for p, a in zip(params, w, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), a, rtol=1e-10, atol=1e-12)


def test_lars_steps_do_not_depend_on_the_size_of_the_gradient_except_for_vectors() -> None:
    vector_steps, matrix_steps = [], []
    for size in (1.0, 1000.0):
        vector, matrix = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(2, 2))
        for p in (vector, matrix):
            p.grad = torch.full_like(p, size)
        LARS([vector, matrix], lr=0.1).step()
        vector_steps.append((1 - vector).norm().item())
        matrix_steps.append((1 - matrix).norm().item())
    assert matrix_steps == pytest.approx([0.1 * 0.001 * 2] * 2, rel=1e-3)
    assert vector_steps[1] == pytest.approx(1000 * vector_steps[0])


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lars_moves_a_zero_tensor_and_survives_a_zero_gradient(decay: float) -> None:
    zero, flat = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    zero.grad, flat.grad = torch.ones(2, 2), torch.zeros(2, 2)
    unused = nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([zero, flat, unused], lr=0.5, weight_decay=decay)
    optimizer.step()
    torch.testing.assert_close(zero.data, torch.full((2, 2), -0.5))
    torch.testing.assert_close(flat.data, torch.full((2, 2), 1 - 0.5 * 0.001 if decay else 1.0))
    assert torch.equal(unused.data, torch.ones(2, 2)) and unused not in optimizer.state


def test_lars_runs_a_closure_with_gradients() -> None:
    w = nn.Parameter(torch.ones(2, 2))

    def closure() -> Tensor:
        loss = w.square().sum()
        loss.backward()
        return loss

    assert LARS([w], lr=1.0).step(closure) == 4 and (w < 1).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_saved_optimizer_resumes_with_the_same_bits(name: str) -> None:
    straight = net()
    optimizer = build_optimizer(name, straight, 0.01, 1e-2)
    train(straight, optimizer, 3)
    file = io.BytesIO()
    torch.save([straight.state_dict(), optimizer.state_dict()], file)
    train(straight, optimizer, 3, seed=1)
    weights, state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    resumed = net(seed=5)
    resumed.load_state_dict(weights)
    loaded = build_optimizer(name, resumed, 99.0)  # rate and decay come from the file
    loaded.load_state_dict(state)
    train(resumed, loaded, 3, seed=1)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    fresh = net()
    fresh.load_state_dict(weights)
    train(fresh, build_optimizer(name, fresh, 0.01, 1e-2), 3, seed=1)
    # Without the optimizer's state the result differs.
    assert not torch.equal(next(fresh.parameters()), next(straight.parameters()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_reaches_matrices_always_and_vectors_only_in_sgd(name: str) -> None:
    """One step from equal gradients, without and with decay."""
    results = []
    for decay in (0.0, 0.5):
        model = net()
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(1.0)
        optimizer = build_optimizer(name, model, 0.1, decay)
        for p in model.parameters():
            p.grad = torch.linspace(0.5, 1, p.numel(), dtype=p.dtype).view(p.shape)
        optimizer.step()
        results.append([p.detach().clone() for p in model.parameters()])
    for plain, decayed in zip(*results, strict=True):
        if plain.dim() > 1:
            assert not torch.equal(plain, decayed)
        else:
            assert torch.equal(plain, decayed) == (name != "sgd")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_is_in_one_group_and_frozen_ones_in_none(name: str) -> None:
    model = net()
    next(model.parameters()).requires_grad_(False)
    trainable = [id(p) for p in model.parameters() if p.requires_grad]
    for params in (model, model.parameters(), list(model.parameters())):
        groups = build_optimizer(name, params, 0.1, 1e-4).param_groups
        grouped = [id(p) for group in groups for p in group["params"]]
        assert sorted(grouped) == sorted(trainable)
    vector = nn.Parameter(torch.ones(3))
    assert len(build_optimizer(name, [vector], 0.1).param_groups) == 1  # no empty group


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rate_decay_and_momentum_are_those_given(name: str) -> None:
    group = build_optimizer(name, net(), 0.25, 0.125, momentum=0.5).param_groups[0]
    assert group["lr"] == 0.25 and group["weight_decay"] == 0.125
    assert (group["betas"][0] if name == "adamw" else group["momentum"]) == 0.5


def test_sgd_is_plain_momentum_sgd() -> None:
    a, b = net(), net()
    train(a, build_optimizer("sgd", a, 0.01, 1e-3), 4)
    train(b, torch.optim.SGD(b.parameters(), 0.01, momentum=0.9, weight_decay=1e-3), 4)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_optimizer_errors_say_what_is_wanted() -> None:
    with pytest.raises(ValueError, match="optimizer: got 'adam', wanted one of sgd, adamw, lars"):
        build_optimizer("adam", net(), 0.1)
    with pytest.raises(ValueError, match=r"sgd\(lr\): got 0, wanted a finite number above 0"):
        build_optimizer("sgd", net(), 0)
    with pytest.raises(ValueError, match=r"lars\(weight_decay\): got -1"):
        build_optimizer("lars", net(), 0.1, -1)
    with pytest.raises(
        ValueError, match=r"adamw\(momentum\): got 1.0, wanted a number in \[0, 1\)"
    ):
        build_optimizer("adamw", net(), 0.1, momentum=1.0)
    with pytest.raises(ValueError, match=r"sgd\(params\): got no tensor that requires a gradient"):
        build_optimizer("sgd", nn.ReLU(), 0.1)


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ([], ValueError, "groups: got none, wanted one Group of parameters or more"),
        ([nn.Parameter(torch.ones(2))], TypeError, "groups: got Parameter, wanted Group"),
        ([("all", [])], TypeError, "groups: got tuple, wanted Group"),
    ],
)
def test_a_training_needs_groups(groups, error, message) -> None:
    with pytest.raises(error, match=message):
        build_training(groups, "sgd", 0.1, 0.0, "step", 8, 2)


# layer of `net` -> factors on rate and decay, and schedule (empty: the default one)
GROUPS = {"0": (1.0, 1.0, ""), "1": (0.3, 0.0, "constant"), "4": (10.0, 2.5, "cosine")}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_groups_are_trained_as_by_an_optimizer_for_each(name: str) -> None:
    together, apart = net(), net()
    groups, separate = [], []
    for layer, (rate, decay, schedule) in GROUPS.items():
        parameters = list(together.get_submodule(layer).parameters())
        groups.append(Group(layer, parameters, rate, decay, schedule))
        module = apart.get_submodule(layer)
        separate.append(build_optimizer(name, module, 0.01 * rate, 0.1 * decay, momentum=0.8))
    merged, factors = build_training(groups, name, 0.01, 0.1, "step", 8, 2, momentum=0.8)
    base_rates = [group["lr"] for group in merged.param_groups]
    for step in range(8):
        for group, base, factor in zip(merged.param_groups, base_rates, factors(step), strict=True):
            group["lr"] = base * factor
        for optimizer, (rate, _, schedule) in zip(separate, GROUPS.values(), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * rate * rate_factor(schedule or "step", step, 8, 2)
        x = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(step)).double()
        for model, optimizers in ((together, [merged]), (apart, separate)):
            model.zero_grad()
            model(x).square().sum().backward()
            for optimizer in optimizers:
                optimizer.step()
    for a, b in zip(together.parameters(), apart.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (10, 0), (10, 3), (100, 10), (7, 7)])
def test_schedules_warm_up_linearly_to_one_and_never_rise_again(
    name: str, steps: int, warmup: int
) -> None:
    factors = [rate_factor(name, s, steps, warmup) for s in range(steps + 1)]
    assert factors[:warmup] == pytest.approx([(s + 1) / warmup for s in range(warmup)])
    assert factors[warmup] == 1.0 or warmup == steps  # the schedule starts where the warm-up ends
    assert all(0 <= b <= a <= 1 for a, b in pairwise(factors[max(0, warmup - 1) :]))


def test_schedules_have_their_closed_forms() -> None:
    steps = range(20)
    factors = {name: [rate_factor(name, s, 20) for s in steps] for name in SCHEDULES}
    assert factors["constant"] == [1.0] * 20
    np.testing.assert_allclose(factors["cosine"], np.cos(np.pi * np.arange(20) / 40) ** 2)
    assert factors["step"] == pytest.approx([1.0] * 12 + [0.2] * 4 + [0.04] * 4)
    assert rate_factor("cosine", 20, 20) == pytest.approx(0, abs=1e-15)
    assert rate_factor("cosine", 35, 20) == rate_factor("cosine", 20, 20)
    assert rate_factor("step", 35, 60, warmup=10) == 1.0
    assert rate_factor("step", 40, 60, warmup=10) == pytest.approx(0.2)
    assert SCHEDULES["step"](0.5) == 1.0


@pytest.mark.parametrize(
    ("step", "steps", "warmup"), [(-1, 10, 0), (0, 0, 0), (0, 10, 11), (0, 10, -1)]
)
def test_numbers_out_of_range_are_errors(step: int, steps: int, warmup: int) -> None:
    with pytest.raises(
        ValueError, match=f"rate: got step={step}, steps={steps}, warmup={warmup}, wanted"
    ):
        rate_factor("cosine", step, steps, warmup)


def test_an_unknown_schedule_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="schedule: got 'linear', wanted one of cosine, step, constant"
    ):
        rate_factor("linear", 0, 10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_adamw_decays_weights_and_not_gradients(momentum):
    """At zero gradients weights shrink by lr * decay; decayed gradients would move them by lr."""
    w = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    optimizer = build_optimizer("adamw", [w], lr=0.1, weight_decay=0.05, momentum=momentum)
    for _ in range(3):
        w.grad = torch.zeros_like(w)
        optimizer.step()
    torch.testing.assert_close(w.detach(), torch.tensor([[1.0, -2.0]]) * (1 - 0.1 * 0.05) ** 3)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_adamw_equals_its_update_equations(momentum):
    """Kingma and Ba's moments with beta2 = 0.999, Loshchilov and Hutter's decay."""
    generator = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.randn(3, 2, dtype=torch.float64, generator=generator))
    expected, m, v = w.detach().clone(), torch.zeros(3, 2).double(), torch.zeros(3, 2).double()
    optimizer = build_optimizer("adamw", [w], lr=0.01, weight_decay=0.1, momentum=momentum)
    for step in range(1, 30):
        w.grad = torch.randn(3, 2, dtype=torch.float64, generator=generator) * step
        m, v = momentum * m + (1 - momentum) * w.grad, 0.999 * v + 0.001 * w.grad**2
        m_unbiased, v_unbiased = m / (1 - momentum**step), v / (1 - 0.999**step)
        update = m_unbiased / (v_unbiased.sqrt() + 1e-8)
        expected = expected - 0.01 * (0.1 * expected + update)
        optimizer.step()
    torch.testing.assert_close(w.detach(), expected)
