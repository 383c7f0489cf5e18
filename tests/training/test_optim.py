"""LARS against a numpy oracle, decay groups, and the closed forms of the schedules."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from infomin.training.optim import LARS, OPTIMIZERS, SCHEDULES, build_optimizer, rate_factor


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    ).double()


def take(model: nn.Module, opt: torch.optim.Optimizer, steps: int, seed: int = 0) -> None:
    """Steps down a loss that depends on the step."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(5, 3, 4, 4, generator=generator, dtype=torch.double)
        opt.zero_grad()
        model(x).square().sum().backward()
        opt.step()


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
    opt = LARS(params, lr=0.0, weight_decay=decay, momentum=momentum, trust=trust)
    for step in range(6):
        lr = 2.0 / (step + 1)  # a rate that changes shows whether it enters the velocity
        opt.param_groups[0]["lr"] = lr
        grads = [rng.normal(size=a.shape) for a in w]
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            p.grad = torch.from_numpy(g.copy())
            if g.ndim > 1:
                local = (
                    trust
                    * np.sqrt((w[i] ** 2).sum())
                    / (np.sqrt((g**2).sum()) + decay * np.sqrt((w[i] ** 2).sum()))
                )
                v[i] = momentum * v[i] + lr * local * (g + decay * w[i])
            else:
                v[i] = momentum * v[i] + lr * g
            w[i] = w[i] - v[i]
        opt.step()
    for p, a in zip(params, w, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), a, rtol=1e-10, atol=1e-12)


def test_lars_steps_do_not_depend_on_the_size_of_the_gradient_except_for_vectors() -> None:
    moved: dict[int, list[float]] = {1: [], 2: []}
    for size in (1.0, 1000.0):
        params = [nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(2, 2))]
        for p in params:
            p.grad = torch.full_like(p, size)
        LARS(params, lr=0.1).step()
        for p in params:
            moved[p.dim()].append((1 - p).norm().item())
    assert (
        moved[2][0]
        == pytest.approx(moved[2][1], rel=1e-3)
        == pytest.approx(0.1 * 0.001 * 2, rel=1e-3)
    )
    assert moved[1][1] == pytest.approx(1000 * moved[1][0])


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lars_moves_a_zero_tensor_and_survives_a_zero_gradient(decay: float) -> None:
    start, still = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    start.grad, still.grad = torch.ones(2, 2), torch.zeros(2, 2)
    unused = nn.Parameter(torch.ones(2, 2))
    opt = LARS([start, still, unused], lr=0.5, weight_decay=decay)
    opt.step()
    torch.testing.assert_close(start.data, torch.full((2, 2), -0.5))
    torch.testing.assert_close(still.data, torch.full((2, 2), 1 - 0.5 * 0.001 if decay else 1.0))
    assert torch.equal(unused.data, torch.ones(2, 2)) and unused not in opt.state


def test_lars_runs_a_closure_with_gradients() -> None:
    w = nn.Parameter(torch.ones(2, 2))

    def closure() -> Tensor:
        loss = w.square().sum()
        loss.backward()
        return loss

    assert LARS([w], lr=1.0).step(closure) == 4 and (w < 1).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stop_and_go_is_bit_equal(name: str) -> None:
    straight = net()
    take(straight, opt := build_optimizer(name, straight, 0.01, 1e-2), 3)
    file = io.BytesIO()
    torch.save([straight.state_dict(), opt.state_dict()], file)
    take(straight, opt, 3, seed=1)
    weights, state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    resumed = net(seed=5)
    resumed.load_state_dict(weights)
    again = build_optimizer(name, resumed, 99.0)  # rate and decay come from the file
    again.load_state_dict(state)
    take(resumed, again, 3, seed=1)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    fresh = net()
    fresh.load_state_dict(weights)
    take(
        fresh, build_optimizer(name, fresh, 0.01, 1e-2), 3, seed=1
    )  # without the file's state it is another path
    assert not torch.equal(next(fresh.parameters()), next(straight.parameters()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_reaches_matrices_always_and_vectors_only_in_sgd(name: str) -> None:
    """Two runs that differ in the decay alone, one step from equal gradients."""
    moved = []
    for decay in (0.0, 0.5):
        model = net()
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(1.0)
        opt = build_optimizer(name, model, 0.1, decay)
        for p in model.parameters():
            p.grad = torch.linspace(0.5, 1, p.numel(), dtype=p.dtype).view(p.shape)
        opt.step()
        moved.append([p.detach().clone() for p in model.parameters()])
    for plain, decayed in zip(*moved, strict=True):
        if plain.dim() > 1:
            assert not torch.equal(plain, decayed)
        else:
            assert torch.equal(plain, decayed) == (name != "sgd")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_is_in_one_group_and_frozen_ones_in_none(name: str) -> None:
    model = net()
    next(model.parameters()).requires_grad_(False)
    for params in (model, model.parameters(), list(model.parameters())):
        held = [
            id(p)
            for g in build_optimizer(name, params, 0.1, 1e-4).param_groups
            for p in g["params"]
        ]
        assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert (
        len(build_optimizer(name, [nn.Parameter(torch.ones(3))], 0.1).param_groups) == 1
    )  # no empty group


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_momentum_and_rate_arrive(name: str) -> None:
    group = build_optimizer(name, net(), 0.25, 0.125, momentum=0.5).param_groups[0]
    assert group["lr"] == 0.25 and group["weight_decay"] == 0.125
    assert (group["betas"][0] if name == "adamw" else group["momentum"]) == 0.5


def test_sgd_is_plain_momentum_sgd() -> None:
    a, b = net(), net()
    take(a, build_optimizer("sgd", a, 0.01, 1e-3), 4)
    take(b, torch.optim.SGD(b.parameters(), 0.01, momentum=0.9, weight_decay=1e-3), 4)
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
    assert [rate_factor("constant", s, 20) for s in steps] == [1.0] * 20
    np.testing.assert_allclose(
        [rate_factor("cosine", s, 20) for s in steps], np.cos(np.pi * np.arange(20) / 40) ** 2
    )
    assert [rate_factor("step", s, 20) for s in steps] == pytest.approx(
        [1.0] * 12 + [0.2] * 4 + [0.04] * 4
    )
    assert rate_factor("cosine", 20, 20) == pytest.approx(0, abs=1e-15) and rate_factor(
        "cosine", 35, 20
    ) == rate_factor("cosine", 20, 20)
    assert rate_factor("step", 35, 60, warmup=10) == 1.0 and rate_factor(
        "step", 40, 60, warmup=10
    ) == pytest.approx(0.2)
    assert SCHEDULES["step"](0.5) == 1.0


@pytest.mark.parametrize(
    ("step", "steps", "warmup"), [(-1, 10, 0), (0, 0, 0), (0, 10, 11), (0, 10, -1)]
)
def test_rate_wants_sensible_numbers(step: int, steps: int, warmup: int) -> None:
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
def test_decay_of_adamw_is_apart_from_its_gradient(momentum):
    """Where nothing pulls, weights shrink by lr * decay a step; as part of the gradient it would be a step of lr."""
    w = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    solver = build_optimizer("adamw", [w], lr=0.1, weight_decay=0.05, momentum=momentum)
    for _ in range(3):
        w.grad = torch.zeros_like(w)
        solver.step()
    torch.testing.assert_close(w.detach(), torch.tensor([[1.0, -2.0]]) * (1 - 0.1 * 0.05) ** 3)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_adamw_is_that_of_a_loop(momentum):
    """Kingma and Ba's moments with beta2 = 0.999, Loshchilov and Hutter's decay."""
    draws = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.randn(3, 2, dtype=torch.float64, generator=draws))
    slow, m, v = w.detach().clone(), torch.zeros(3, 2).double(), torch.zeros(3, 2).double()
    solver = build_optimizer("adamw", [w], lr=0.01, weight_decay=0.1, momentum=momentum)
    for step in range(1, 30):
        w.grad = torch.randn(3, 2, dtype=torch.float64, generator=draws) * step
        m, v = momentum * m + (1 - momentum) * w.grad, 0.999 * v + 0.001 * w.grad**2
        slow = slow - 0.01 * (
            0.1 * slow + m / (1 - momentum**step) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        )
        solver.step()
    torch.testing.assert_close(w.detach(), slow)
