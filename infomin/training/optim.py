"""Optimisers by name, and learning-rate schedules.

Schedules are pure functions of the step, so a resumed run has no scheduler state to restore.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from ..common.checks import check_choice, check_positive
from .step import Group


class LARS(Optimizer):
    """SGD with momentum and a learning rate scaled per tensor.

    The scale is trust * |w| / (|g| + weight_decay * |w|). Tensors of at most one dimension (biases,
    normalisation) are neither scaled nor decayed. As in the paper, the rate is part of the
    velocity: v = momentum * v + lr * scale * (g + weight_decay * w), then w = w - v.

    Args:
        params: tensors or parameter groups, as for every torch optimiser.
        lr: learning rate before scaling; large, for example 0.3 * batch / 256.
        weight_decay: factor on w that is added to the gradient.
        momentum: in [0, 1).
        trust: the paper's trust coefficient eta.

    Source: You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", 2017,
    Algorithm 1.

    >>> w = nn.Parameter(torch.ones(2, 2))
    >>> w.grad = torch.full((2, 2), 1e6)
    >>> LARS([w], lr=1.0, trust=0.01).step()  # moves w by |w| / 100, however large the gradient
    >>> round(w[0, 0].item(), 4)
    0.99
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust: float = 0.001,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every tensor that has a gradient; return what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["velocity"] = torch.zeros_like(p)
                velocity = state["velocity"].mul_(group["momentum"])
                p.sub_(velocity.add_(_scaled_gradient(p, p.grad, group), alpha=group["lr"]))
        return loss


def _scaled_gradient(p: Tensor, g: Tensor, group: dict[str, Any]) -> Tensor:
    """The decayed gradient times the trust ratio; vectors keep their plain gradient."""
    if p.dim() <= 1:
        return g
    decay, norm = group["weight_decay"], p.norm()
    denominator = g.norm() + decay * norm
    # An all-zero tensor would have ratio 0 and never move: it keeps the plain rate. where() makes
    # the choice on the device, without synchronising.
    usable = (norm > 0) & (denominator > 0)
    ratio = torch.where(usable, group["trust"] * norm / denominator, 1.0)
    return ratio * (g + decay * p)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda groups, lr, momentum: SGD(groups, lr=lr, momentum=momentum),
    "adamw": lambda groups, lr, momentum: AdamW(groups, lr=lr, betas=(momentum, 0.999)),
    "lars": lambda groups, lr, momentum: LARS(groups, lr=lr, momentum=momentum),
}


def build_optimizer(
    name: str,
    params: nn.Module | Iterable[Tensor],
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
) -> Optimizer:
    """Build an optimiser by name.

    `sgd` decays every tensor, as contrastive pre-training with SGD does. `adamw` and `lars` do not
    decay tensors of at most one dimension (biases, normalisation, temperatures).

    Args:
        name: a key of `OPTIMIZERS`.
        params: a module, or parameters; frozen ones are left out.
        lr: learning rate, above 0; the training loop multiplies it by `rate_factor` at each step.
        weight_decay: 0 or more.
        momentum: in [0, 1); beta1 of `adamw`.

    Raises:
        ValueError: an unknown name, a number out of range, or nothing to optimise.

    >>> groups = build_optimizer("adamw", nn.Linear(3, 2), 1e-3, 0.05).param_groups
    >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
    [(1, 0.05), (1, 0.0)]
    """
    check_choice(name, OPTIMIZERS, "optimizer")
    check_positive(lr, f"{name}(lr)")
    check_positive(weight_decay, f"{name}(weight_decay)", zero=True)
    if not 0 <= momentum < 1:
        raise ValueError(
            f"{name}(momentum): got {momentum!r}, wanted a number in [0, 1); 0.9 is usual"
        )
    parameters = params.parameters() if isinstance(params, nn.Module) else params
    trainable = [p for p in parameters if p.requires_grad]
    if not trainable:
        raise ValueError(
            f"{name}(params): got no tensor that requires a gradient, wanted one or more; "
            "unfreeze the module"
        )
    decayed = trainable if name == "sgd" else [p for p in trainable if p.dim() > 1]
    undecayed = [] if name == "sgd" else [p for p in trainable if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return OPTIMIZERS[name](groups, lr=lr, momentum=momentum)


def build_training(
    groups: Sequence[Group],
    name: str,
    lr: float,
    weight_decay: float,
    schedule: str,
    steps: int,
    warmup: int,
    momentum: float = 0.9,
) -> tuple[Optimizer, Callable[[int], list[float]]]:
    """Build one optimiser for groups of parameters, and factors on their learning rates by step.

    Args:
        groups: parameters, each group with factors on `lr` and `weight_decay`, and a schedule.
        name: a key of `OPTIMIZERS`.
        lr: learning rate, above 0.
        weight_decay: 0 or more.
        schedule: a key of `SCHEDULES`, for groups without one of their own.
        steps: total number of steps.
        warmup: steps of linear warm-up, 0 to `steps`.
        momentum: in [0, 1); beta1 of `adamw`.

    Returns:
        the optimiser, and a function from the step to one factor per parameter group of the
        optimiser: `fit` takes both.

    Raises:
        TypeError: something else than groups.
        ValueError: no group, or as `build_optimizer` and `rate_factor`.
    """
    if not groups:
        raise ValueError("groups: got none, wanted one Group of parameters or more; see groups()")
    for group in groups:
        if not isinstance(group, Group):
            raise TypeError(
                f"groups: got {type(group).__name__}, wanted Group(name, parameters) from groups()"
            )
    optimizers: list[Optimizer] = []
    schedules: list[str] = []
    for group in groups:
        decay = weight_decay * group.decay
        optimizers.append(build_optimizer(name, group.parameters, lr * group.rate, decay, momentum))
        schedules += [group.schedule or schedule] * len(optimizers[-1].param_groups)
    merged = optimizers[0]
    for optimizer in optimizers[1:]:
        for param_group in optimizer.param_groups:
            merged.add_param_group(param_group)

    def factors(step: int) -> list[float]:
        return [rate_factor(schedule, step, steps, warmup) for schedule in schedules]

    return merged, factors


def cosine_decay(t: float) -> float:
    """Half a cosine, from 1 at t = 0 to 0 at t = 1.

    Source: Loshchilov and Hutter, "SGDR", 2017, without restarts.

    >>> [round(cosine_decay(t), 3) for t in (0, 0.5, 1)]
    [1.0, 0.5, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * t))


def step_decay(t: float, milestones: tuple[float, ...] = (0.6, 0.8), factor: float = 0.2) -> float:
    """1, times `factor` for each milestone that `t` has reached; both are in [0, 1].

    >>> [round(step_decay(t), 3) for t in (0, 0.6, 0.8)]
    [1.0, 0.2, 0.04]
    """
    return factor ** sum(t >= m for m in milestones)


def constant(t: float) -> float:
    """1 at every step."""
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": cosine_decay,
    "step": step_decay,
    "constant": constant,
}


def rate_factor(name: str, step: int, steps: int, warmup: int = 0) -> float:
    """The factor on the learning rate: linear warm-up, then the schedule over the remaining steps.

    Args:
        name: a key of `SCHEDULES`.
        step: the step about to be taken, from 0; after the last one the schedule's end value holds.
        steps: total number of steps, above 0.
        warmup: steps of linear warm-up, from 1 / warmup to 1; 0 to `steps`.

    Raises:
        ValueError: an unknown name, or numbers out of range.

    >>> [round(rate_factor("cosine", s, steps=6, warmup=2), 3) for s in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    check_choice(name, SCHEDULES, "schedule")
    if step < 0 or steps < 1 or not 0 <= warmup <= steps:
        raise ValueError(
            f"rate: got step={step}, steps={steps}, warmup={warmup}, "
            "wanted step >= 0, steps >= 1 and 0 <= warmup <= steps"
        )
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[name](min(1.0, (step - warmup) / max(1, steps - warmup)))
