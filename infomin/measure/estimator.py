"""Nats between features: a lower bound read on held-out pairs, with its interval."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..common import checks
from ..common.precision import no_autocast
from ..common.seeds import seeded_generator, to_device, torch_seeded
from ..training.optim import build_optimizer, rate_factor
from .bounds import infonce_symmetric
from .critics import SeparableCritic
from .gaussian import GaussianCritic, normal_scores
from .regression import standardise

# Chosen on pairs of known information, with other seeds than experiments/calibration.py.
PASSES = 23  # over the pairs, at most
STEPS = (40, 3000)  # the fewest and the most
BATCH = 256
RATE = 3e-3
LOOK = 20  # steps between looks at the held-out pairs
PATIENCE = 4  # looks without a gain before training stops
HELD_OUT = 5  # one in five pairs is held out from the critics' training
VARIATES = 64  # of each Gaussian critic, that the network sees
WEIGHED = 512  # held-out pairs that weights are found on, in each part
FEW, FEWEST = 1024, 10  # below: a third part, as each is cheap; nothing can be fitted
DOUBTFUL = 256  # pairs
CHUNK = 2**21  # scores of a critic at a time

Embeddings: TypeAlias = dict[str, tuple[Tensor, Tensor]]  # by critic: inner products are scores


@dataclass(frozen=True)
class Estimate:
    """Nats that two views are seen to share; `float(estimate)` is `value`.

    The value is a lower bound of I(x; y). The interval covers what the bound would read on other
    test pairs and with other critics of this kind; I itself may lie above it.

    Attributes:
        value: nats, 0 or more; NaN for a single view.
        low: the lower end of the interval of 95 %, 0 or more.
        high: its upper end, raised by the nats of the weakest correlation that the held-out pairs
            could show: 0.0025 of 4,096 pairs, 0.2 of 64.
        ceiling: log K, which no value exceeds.
        saturated: whether the value is within 1 nat of its ceiling: use more candidates.
        converged: whether critics fitted on half of the pairs read the same within 0.1 nat.
        parts: what each critic reads alone, by name; below 0 where one misjudges.
        pairs: how many pairs the critics were fitted on.
    """

    value: float
    low: float
    high: float
    ceiling: float
    saturated: bool
    converged: bool
    parts: Mapping[str, float] = field(default_factory=dict)
    pairs: int = 0

    def __float__(self) -> float:
        return self.value

    @property
    def doubt(self) -> str:
        """Why the value says little; empty if it does not."""
        if math.isnan(self.value):
            return ""
        if self.pairs < DOUBTFUL:
            return (
                f"critics had {self.pairs} pairs, wanted {DOUBTFUL} or more; with fewer they read "
                "too little"
            )
        if not self.converged:
            return "critics with half of the pairs read another value; more pairs would read more"
        return ""


def nats(
    train: Sequence[Tensor], test: Sequence[Tensor], *, candidates: int = 1024, seed: int = 0
) -> Estimate:
    """Estimate the nats that the features of two views share, from anywhere.

    Three critics are fitted on the training pairs: a Gaussian one in closed form on the columns,
    another on their normal scores, and a network on the columns and the canonical variates of both.
    Their weighted sum, with weights found on held-out training pairs, is a critic like any other,
    so what I_NCE reads with it on the test pairs is a lower bound of I(x; y). All of it happens
    twice, with other pairs held out and other initial weights (three times with few pairs); the
    value is the mean.

    Args:
        train: one `[N, D]` per view: the pairs that critics are fitted on, row by row. They should
            be pairs that the encoders have not learned from.
        test: one `[M, D]` per view: the pairs that are read, in blocks of `candidates`.
        candidates: K, the positive included; 1 to M.
        seed: of the critics' initial weights, batches and held-out pairs.

    Returns:
        an `Estimate`, in nats. With more than two views its numbers are means over all pairs of
        views. Fewer than 10 training pairs read nothing, with an interval up to the ceiling.

    Raises:
        TypeError, ValueError: features of another type, shape or range, different numbers of rows
            or columns, candidates out of range.

    Source: van den Oord et al. 2018 (the bound); see also `GaussianCritic` and `SeparableCritic`.

    >>> x = torch.randn(512, 4, generator=torch.Generator().manual_seed(0))
    >>> estimate = nats([x[:256], x[:256]], [x[256:], x[256:]], candidates=256)
    >>> round(float(estimate), 2), estimate.saturated  # equal views share log 256 and more
    (5.55, True)
    """
    train, test = _check_pairs(train, test, candidates, seed)
    ceiling = math.log(candidates)
    if len(train) < 2:
        return Estimate(math.nan, math.nan, math.nan, ceiling, False, False)
    if len(train[0]) < FEWEST:
        return Estimate(0.0, 0.0, ceiling, ceiling, False, False, pairs=len(train[0]))
    no_inference = torch.inference_mode(False)
    with no_autocast(train[0].device.type), no_inference, torch.enable_grad():
        readings = [
            _read_pair(train[i], train[j], test[i], test[j], candidates, seed)
            for i, j in combinations(range(len(train)), 2)
        ]
    rows = torch.stack([reading.rows for reading in readings]).mean(0)  # [folds, pairs]
    of_folds = rows.mean(1)
    variance = rows.var(1).mean() / rows.shape[1] + of_folds.var() / len(of_folds)
    error = 1.96 * math.sqrt(variance.item()) if rows.shape[1] > 1 else ceiling
    value = of_folds.mean().item()
    half = sum(reading.half for reading in readings) / len(readings)
    parts = {
        name: sum(reading.parts[name] for reading in readings) / len(readings)
        for name in readings[0].parts
    }
    return Estimate(
        value=max(value, 0.0),
        low=max(value - error, 0.0),
        high=min(max(value + error, 0.0) + _weakest(len(train[0]) / HELD_OUT), ceiling),
        ceiling=ceiling,
        saturated=value > ceiling - 1,
        converged=abs(max(value, 0.0) - max(half, 0.0)) < 0.1,
        parts=parts,
        pairs=len(train[0]),
    )


def _weakest(pairs: float) -> float:
    """The nats of a correlation of two standard errors, infinite with 4 pairs or fewer."""
    return -math.log1p(-4 / pairs) / 2 if pairs > 4 else math.inf


def _check_pairs(
    train: Sequence[Tensor], test: Sequence[Tensor], candidates: int, seed: int
) -> tuple[list[Tensor], list[Tensor]]:
    for part in (train, test):
        if not isinstance(part, Sequence | Tensor):
            raise TypeError(
                f"nats: wanted a list of features [N, D], one per view, got {type(part).__name__}"
            )
    train = [checks.check_features(x, "nats", "features of a view") for x in train]
    test = [checks.check_features(x, "nats", "features of a view") for x in test]
    train_shapes = [list(x.shape) for x in train]
    test_shapes = [list(x.shape) for x in test]
    equal_rows = all(len({n for n, _ in shapes}) <= 1 for shapes in (train_shapes, test_shapes))
    if not equal_rows or [d for _, d in train_shapes] != [d for _, d in test_shapes]:
        raise ValueError(
            "nats: views must have equal rows, training and test data equal columns, "
            f"got {train_shapes} to train and {test_shapes} to test; pass pairs"
        )
    checks.check_type(candidates, int, "nats(candidates)")
    checks.check_type(seed, int, "nats(seed)")
    if test and not 1 <= candidates <= len(test[0]):
        raise ValueError(
            f"nats: got {candidates} candidates, wanted 1 to {len(test[0])}, "
            "the number of test images"
        )
    return train, test


class _Reading(NamedTuple):
    """What the test pairs read: `rows` `[folds, pairs]`, each critic alone, half of the pairs."""

    rows: Tensor
    parts: dict[str, float]
    half: float


def _read_pair(
    x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, candidates: int, seed: int
) -> _Reading:
    xs = tuple(part.float() for part in standardise(x, x_test))
    ys = tuple(part.float() for part in standardise(y, y_test))
    scores = zip(normal_scores(*xs), normal_scores(*ys), strict=True)
    train, test = (_Pairs(*part) for part in zip(xs, ys, *zip(*scores, strict=True), strict=True))
    order = torch.randperm(len(x), generator=seeded_generator(seed, "critic"), device="cpu")
    order = to_device(order, x.device)
    parts = order.tensor_split(HELD_OUT)
    splits = [
        (torch.cat([*parts[:i], *parts[i + 1 :]]), parts[i])
        for i in range(3 if len(x) < FEW else 2)
    ]
    half = order[: len(x) // 2]
    cut = len(half) // HELD_OUT
    splits.append((half[cut:], half[:cut]))
    fits = [
        _fit(train.of(fit), train.of(held), test, seeded_generator(seed, "critic", i))
        for i, (fit, held) in enumerate(splits)
    ]
    weights = _weigh([held for held, _ in fits[:-1]])
    each = torch.cat([weights[None], torch.eye(len(weights)).to(weights)])  # all, and one by one
    rows = torch.stack([_read(test, each, candidates) for _, test in fits[:-1]])
    alone = rows[:, 1:].mean((0, 2)).tolist()
    of_half = _read(fits[-1][1], _weigh([fits[-1][0]])[None], candidates)
    return _Reading(
        rows[:, 0].cpu(), dict(zip(fits[0][1], alone, strict=True)), of_half.mean().item()
    )


class _Pairs(NamedTuple):
    """Standardised features of two views, row by row, and their normal scores."""

    x: Tensor
    y: Tensor
    x_scores: Tensor
    y_scores: Tensor

    def of(self, rows: Tensor) -> "_Pairs":
        return _Pairs(*[part[rows] for part in self])


def _fit(
    fit: _Pairs, held: _Pairs, test: _Pairs, draws: torch.Generator
) -> tuple[Embeddings, Embeddings]:
    """Fit all critics on some pairs; return the embeddings of held-out and of test pairs."""
    columns = GaussianCritic(*fit[:2], *held[:2])
    ranks = GaussianCritic(*fit[2:], *held[2:])

    def inputs(pairs: _Pairs) -> tuple[Tensor, Tensor]:
        of_columns = [part[:, :VARIATES] for part in columns.variates(*pairs[:2])]
        of_ranks = [part[:, :VARIATES] for part in ranks.variates(*pairs[2:])]
        sides = zip(pairs[:2], of_columns, of_ranks, strict=True)
        x, y = (torch.cat(side, 1).float() for side in sides)
        return x, y

    network = _train(inputs(fit), inputs(held), draws)

    def embed(pairs: _Pairs) -> Embeddings:
        with torch.no_grad():
            first, second = network.embed(*inputs(pairs))
        return {
            "columns": columns.embed(*pairs[:2]),
            "ranks": ranks.embed(*pairs[2:]),
            "network": (first.double(), second.double()),
        }

    return embed(held), embed(test)


def _train(
    pairs: tuple[Tensor, ...], held: tuple[Tensor, ...], draws: torch.Generator
) -> SeparableCritic:
    """Train a critic on pairs; keep its weights from where the held-out pairs read most."""
    (x, y), (x_held, y_held) = pairs, (part[:1024] for part in held)
    batch = min(BATCH, len(x))
    steps = min(max(STEPS[0], PASSES * len(x) // batch), STEPS[1])
    best: dict[str, Tensor] = {}
    best_value, best_step = -math.inf, 0
    with torch_seeded(draws.initial_seed(), x.device):  # seeds initial weights
        critic = SeparableCritic(x.shape[1], y.shape[1]).to(x)
    optimizer = build_optimizer("adamw", critic, RATE, weight_decay=0.01)
    batches = _random_batches(len(x), batch, draws)
    for step in range(steps):
        # Only the weights (group 0) follow the schedule: if the scale did as well, the critic
        # would read 0.3 nats less where much is shared.
        factor = rate_factor("cosine", step, steps, warmup=steps // 15)
        optimizer.param_groups[0]["lr"] = RATE * factor
        rows = to_device(next(batches), x.device)
        loss = -infonce_symmetric(critic(x[rows], y[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % LOOK == LOOK - 1 or step == steps - 1:
            with torch.no_grad():
                value = infonce_symmetric(critic(x_held, y_held)).item()
            if value > best_value or not best:
                best_value, best_step = value, step
                best = {name: weight.clone() for name, weight in critic.state_dict().items()}
            elif step - best_step >= PATIENCE * LOOK:
                break
    critic.load_state_dict(best)
    return critic


def _random_batches(n: int, batch: int, draws: torch.Generator) -> Iterator[Tensor]:
    """Rows in batches, in a new order each epoch; a row twice in a batch would be its negative."""
    while True:
        order = torch.randperm(n, generator=draws, device="cpu")
        yield from order.split(batch)[: n // batch]


def _weigh(parts: Sequence[Embeddings]) -> Tensor:
    """The weight of each critic with which the held-out pairs of all parts read most."""
    scores = [
        torch.stack([a[:WEIGHED] @ b[:WEIGHED].T for a, b in part.values()]) for part in parts
    ]
    # In units of their spread, so that one step size fits all: equal columns have scores of 1e9.
    spread = torch.stack([s.flatten(1).std(1, correction=0) for s in scores]).mean(0)
    spread = spread.clamp_min(1e-9)
    scores = [s / spread[:, None, None] for s in scores]

    def read(weights: Tensor) -> Tensor:
        values = [infonce_symmetric(torch.einsum("c,cij->ij", weights, s)) for s in scores]
        return torch.stack(values).mean()

    alone = torch.diag(spread)
    values = torch.stack([read(weights) for weights in alone])
    start = alone[values.argmax()] if values.max() > 0 else torch.zeros_like(spread)
    unit = start.sum().clamp_min(1.0)
    weights = (start / unit).requires_grad_()
    solver = torch.optim.LBFGS(
        [weights], max_iter=30, tolerance_change=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = -read(weights * unit)
        loss.backward()
        return loss

    solver.step(closure)
    found = weights.detach() * unit
    if not found.isfinite().all() or read(found) < values.max():
        found = start
    return found / spread


def _read(embeddings: Embeddings, weights: Tensor, candidates: int) -> Tensor:
    """What each test pair adds to I_NCE: `[W, pairs]` for weights `[W, critics]`.

    In blocks of `candidates`: the mean over rows and columns of log K - L_NCE. Of a block's scores
    only some rows are in memory at a time.
    """
    pairs = len(next(iter(embeddings.values()))[0])
    blocks = []
    for start in range(0, pairs - candidates + 1, candidates):
        block = slice(start, start + candidates)
        parts = [(a[block], b[block]) for a, b in embeddings.values()]
        own = weights @ torch.stack([(a * b).sum(1) for a, b in parts])
        of_rows, of_columns = [], torch.full_like(own, -math.inf)
        for rows in torch.arange(candidates, device=own.device).split(max(1, CHUNK // candidates)):
            scores = torch.stack([a[rows] @ b.T for a, b in parts])
            scores = torch.einsum("wc,cij->wij", weights, scores)
            of_rows.append(scores.logsumexp(2))
            of_columns = torch.logaddexp(of_columns, scores.logsumexp(1))
        blocks.append(math.log(candidates) + own - (torch.cat(of_rows, 1) + of_columns) / 2)
    return torch.cat(blocks, 1)
