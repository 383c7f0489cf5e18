"""Held-out I_NCE between frozen features, by a critic trained for it: the instrument."""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from ..common import checks
from ..common.precision import full_precision
from ..common.seeds import seeded_generator, to_device, torch_seeded
from ..training.optim import build_optimizer, rate_factor
from .bounds import infonce_symmetric
from .critics import SeparableCritic
from .regression import standardise

CRITIC_STEPS, CRITIC_BATCH, CRITIC_RATE = (
    300,
    512,
    3e-3,
)  # for 4096 pairs; chosen on synthetic codes of known information


def nats(
    train: Sequence[Tensor], test: Sequence[Tensor], *, candidates: int = 1024, seed: int = 0
) -> float:
    """Held-out I_NCE between the features of two views, by a critic of the probe's own; with more views, the mean over pairs.

    The same measure for every method, whatever it was trained with. A lower bound of the nats between the features, which bound
    those between the views from below; never above log(candidates).

    Args:
        train: one `[N, D]` a view: the pairs that the critic learns from.
        test: one `[M, D]` a view: the pairs that it is read on, in blocks of `candidates`.
        candidates: K, the positive included; 1 to M.

    Returns:
        nats; NaN for a single view, which there is nothing to hold against.

    Raises:
        TypeError, ValueError: features of another type, shape or range, not as many of each view, candidates out of range.
    """
    train, test = (
        [checks.check_features(x, "probe.nats", "features of a view").float() for x in part]
        for part in (train, test)
    )
    sizes = [[list(x.shape) for x in part] for part in (train, test)]
    if (
        any(len({n for n, _ in part}) > 1 for part in sizes)
        or len({tuple(d for _, d in part) for part in sizes}) > 1
    ):
        raise ValueError(
            f"probe.nats: got {sizes} to train and test, wanted rows and columns that agree; pass pairs"
        )
    if len(train) < 2:
        return math.nan
    if not 1 <= candidates <= len(test[0]):
        raise ValueError(
            f"probe.nats: got {candidates} candidates, wanted 1 to the {len(test[0])} test images; change them"
        )
    pairs = combinations(zip(train, test, strict=True), 2)
    with full_precision(train[0].device.type), torch.enable_grad():
        return sum(each := [_nats(a, b, candidates, seed) for a, b in pairs]) / len(each)


def _nats(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], candidates: int, seed: int
) -> float:
    (x, x_test), (y, y_test) = (standardise(*parts) for parts in (first, second))
    steps = max(
        1, CRITIC_STEPS * len(x) // 4096
    )  # a given number of passes: more of them learn the pairs by heart
    draws = seeded_generator(seed, "critic")
    with torch_seeded(draws.initial_seed(), x.device):  # the critic's first weights and its dropout
        critic = SeparableCritic(x.shape[1], y.shape[1]).to(x.device)
        solver = build_optimizer("adamw", critic, CRITIC_RATE, weight_decay=0.01)
        for step in range(steps):
            # of the weights alone: where much is shared a scale that comes to rest with them reads 0.3 nats less
            solver.param_groups[0]["lr"] = CRITIC_RATE * rate_factor(
                "cosine", step, steps, warmup=steps // 15
            )
            rows = to_device(
                torch.randint(len(x), (CRITIC_BATCH,), generator=draws, device="cpu"), x.device
            )
            loss = -infonce_symmetric(critic(x[rows], y[rows]))
            solver.zero_grad()
            loss.backward()
            solver.step()
    critic.eval()
    with torch.no_grad():
        blocks = [
            slice(i, i + candidates) for i in range(0, len(x_test) - candidates + 1, candidates)
        ]
        return (
            torch.stack(
                [infonce_symmetric(critic(x_test[block], y_test[block])) for block in blocks]
            )
            .mean()
            .item()
        )
