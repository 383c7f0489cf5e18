"""Held-out I_NCE between frozen features, by a critic trained on them."""

import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

from ..common import checks
from ..common.precision import no_autocast
from ..common.seeds import seeded_generator, to_device, torch_seeded
from ..training.optim import build_optimizer, rate_factor
from .bounds import infonce_symmetric
from .critics import SeparableCritic
from .regression import standardise

# Chosen on synthetic codes of known information.
CRITIC_STEPS = 300  # for 4096 pairs
CRITIC_BATCH = 512
CRITIC_RATE = 3e-3
FEWEST_PAIRS = 256  # to train on, and held out


def nats(
    train: Sequence[Tensor], test: Sequence[Tensor], *, candidates: int = 1024, seed: int = 0
) -> float:
    """Held-out I_NCE between the features of two views; with more views, the mean over all pairs.

    The critic is trained here, so the measure is the same whatever method trained the encoders. It
    is a lower bound of the nats between the features, which in turn are at most the nats between
    the views; never above log(candidates).

    Args:
        train: one `[N, D]` per view: the pairs that the critic is trained on.
        test: one `[M, D]` per view: the pairs that it is evaluated on, in blocks of `candidates`.
        candidates: K, the positive included; 1 to M.
        seed: of the critic's initial weights, dropout and batches.

    Returns:
        nats; NaN for a single view, which has no pair.

    Warns:
        UserWarning: the value says little, see `doubt`.

    Raises:
        TypeError, ValueError: features of another type, shape or range, different numbers of rows
            or columns, candidates out of range.
    """
    value = held_out_nats(train, test, candidates=candidates, seed=seed)
    if reason := doubt(value, train, test):
        warnings.warn(f"nats: {reason}", stacklevel=2)
    return value


def doubt(value: float, train: Sequence[Tensor], test: Sequence[Tensor]) -> str:
    """Why a value of `nats` says little about these features; empty if it does not."""
    if math.isnan(value):
        return ""
    pairs = min(len(train[0]), len(test[0]))
    if pairs < FEWEST_PAIRS:
        return (
            f"got {len(train[0])} training and {len(test[0])} held-out pairs, wanted "
            f"{FEWEST_PAIRS} or more of each; with fewer the critic reads too little"
        )
    if value < 0:
        return (
            f"read {value:.3f}, below 0, which bounds nothing; the views share little, or the "
            "critic did not find it"
        )
    return ""


def held_out_nats(
    train: Sequence[Tensor], test: Sequence[Tensor], *, candidates: int, seed: int = 0
) -> float:
    """As `nats`, without a warning."""
    train = [_checked(x) for x in train]
    test = [_checked(x) for x in test]
    train_shapes = [list(x.shape) for x in train]
    test_shapes = [list(x.shape) for x in test]
    equal_rows = all(len({n for n, _ in shapes}) <= 1 for shapes in (train_shapes, test_shapes))
    if not equal_rows or [d for _, d in train_shapes] != [d for _, d in test_shapes]:
        raise ValueError(
            "nats: views must have equal rows, training and test data equal columns, "
            f"got {train_shapes} to train and {test_shapes} to test; pass pairs"
        )
    if len(train) < 2:
        return math.nan
    checks.check_type(candidates, int, "nats(candidates)")
    if not 1 <= candidates <= len(test[0]):
        raise ValueError(
            f"nats: got {candidates} candidates, wanted 1 to {len(test[0])}, "
            "the number of test images"
        )
    pairs = combinations(zip(train, test, strict=True), 2)
    with no_autocast(train[0].device.type), torch.enable_grad():
        values = [_nats_of_pair(a, b, candidates, seed) for a, b in pairs]
    return sum(values) / len(values)


def _checked(features: Tensor) -> Tensor:
    return checks.check_features(features, "nats", "features of a view")


def _nats_of_pair(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], candidates: int, seed: int
) -> float:
    """Nats between two views, each given as its (training, test) features."""
    x, x_test = (part.float() for part in standardise(*first))
    y, y_test = (part.float() for part in standardise(*second))
    batch = min(CRITIC_BATCH, len(x))
    # A fixed number of passes over the pairs: more of them would memorise the pairs.
    steps = CRITIC_STEPS * CRITIC_BATCH * len(x) // (4096 * batch)
    draws = seeded_generator(seed, "critic")
    with torch_seeded(draws.initial_seed(), x.device):  # seeds initial weights and dropout
        critic = SeparableCritic(x.shape[1], y.shape[1]).to(x.device)
        optimizer = build_optimizer("adamw", critic, CRITIC_RATE, weight_decay=0.01)
        batches = _random_batches(len(x), batch, draws)
        for step in range(steps):
            # Only the weights (group 0) follow the schedule: if the scale did as well, the critic
            # would read 0.3 nats less where much is shared.
            factor = rate_factor("cosine", step, steps, warmup=steps // 15)
            optimizer.param_groups[0]["lr"] = CRITIC_RATE * factor
            rows = to_device(next(batches), x.device)
            loss = -infonce_symmetric(critic(x[rows], y[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    critic.eval()
    starts = range(0, len(x_test) - candidates + 1, candidates)
    blocks = [slice(start, start + candidates) for start in starts]
    with torch.no_grad():
        values = [infonce_symmetric(critic(x_test[block], y_test[block])) for block in blocks]
        return torch.stack(values).mean().item()


def _random_batches(n: int, batch: int, draws: torch.Generator) -> Iterator[Tensor]:
    """Rows in batches, in a new order each epoch; a row twice in a batch would be its negative."""
    while True:
        order = torch.randperm(n, generator=draws, device="cpu")
        yield from order.split(batch)[: n // batch]
