"""Judge a view game: how far the generator has gone, which one to keep, and how the game went.

View games are unstable. I_NCE by the game's own critics is only what they can tell at that moment,
and the generator may have outrun them. Fresh critics, trained on a frozen generator, measure what
its views share.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

COLLAPSE = 0.1  # views have collapsed below this share of the raw views' I_NCE
LABELS_KNOWN = 0.5  # classifiers know labels below this share of the untrained ones' cross-entropy
EXPLOSION = 100.0  # a generator has exploded above this multiple of the raw views' stretch
SWING = 0.5  # nats
# So many swings are a cycle; an ordinary game rises, falls, and rises as learning rates decay.
CYCLE_SWINGS = 5

Line = Mapping[str, Any]  # of a game's log


def gradient_norms(players: Mapping[str, Iterable[Tensor]]) -> dict[str, float]:
    """The norm of each player's gradient, as `gradient_PLAYER`.

    Players that did not move in this step have no gradient and are left out.
    """
    norms = {}
    for player, parameters in players.items():
        lengths = [p.grad.detach().norm() for p in parameters if p.grad is not None]
        if lengths:
            norms[f"gradient_{player}"] = float(torch.stack(lengths).norm())
    return norms


def color_stretch(flow: Callable[[Tensor], Tensor], images: Tensor) -> dict[str, float]:
    """How a pixel-wise map stretches colour space at given colours.

    Computed from the singular values of its derivative.

    Args:
        flow: maps `[B, C, H, W]` to the same shape, each pixel independently.
        images: `[B, C, H, W]`, floating point: the colours.

    Returns:
        `lipschitz` and `lipschitz_inverse`, the largest factors by which the map and its inverse
        stretch a small difference of colours (lower bounds of their Lipschitz constants), and
        `log_det`, the mean of log |det|. All are NaN if the derivative is not finite.

    >>> [round(v, 3) for v in color_stretch(lambda x: 2 * x, torch.rand(1, 3, 4, 4)).values()]
    [2.0, 0.5, 2.079]
    """
    with torch.enable_grad():
        images = images.detach().double().requires_grad_()
        latent = flow(images)
        gradients = [
            torch.autograd.grad(plane.sum(), images, retain_graph=True)[0]
            for plane in latent.unbind(1)
        ]
    derivative = torch.stack(gradients, -1).permute(0, 2, 3, 4, 1).flatten(0, 2)
    if not derivative.isfinite().all():  # the decomposition would raise an error
        return dict.fromkeys(("lipschitz", "lipschitz_inverse", "log_det"), math.nan)
    values = torch.linalg.svdvals(derivative)
    return {
        "lipschitz": float(values.max()),
        "lipschitz_inverse": float(1 / values.min()),
        "log_det": float(values.log().sum(-1).mean()),
    }


def count_swings(series: Sequence[float], least: float = SWING) -> int:
    """Count the rises and falls of a series by `least` or more.

    Smaller movements in the opposite direction do not end a rise or fall.

    >>> count_swings([0, 1, 0.8, 2, 0, 2]), count_swings([0, 0.3, 0, 0.3])
    (3, 0)
    """
    count, direction, low, high = 0, 0, math.inf, -math.inf
    for x in series:
        low, high = min(low, x), max(high, x)
        if direction <= 0 and x - low >= least:
            count, direction, high = count + 1, 1, x
        elif direction >= 0 and high - x >= least:
            count, direction, low = count + 1, -1, x
    return count


def best_generator(log: Sequence[Line], value: Callable[[Line], float]) -> Line | None:
    """The measured row of least value whose generator has neither collapsed nor exploded.

    None if there is no such row, or if fresh critics measured nothing in the raw views: then there
    is nothing to compare with.

    Args:
        log: rows of a game; measured rows have `i_nce_fresh`, and the first of them measures the
            raw views.
        value: what the generator minimises, from a measured row.
    """
    measured = _measured(log)
    if not measured or measured[0]["i_nce_fresh"] <= 0:
        return None
    raw = measured[0]
    sound = [row for row in measured if not (_collapsed(row, raw) or _exploded(row, raw))]
    finite = [row for row in sound if value(row) < math.inf]  # false for NaN
    return min(finite, key=value, default=None)


def judge_game(log: Sequence[Line]) -> tuple[str, str]:
    """How a game went: a word and a sentence.

    - exploded: the generator or its inverse stretches some colours 100 times as much as at first.
    - unmeasured: fresh critics measured no generator after the start, or nothing in the raw views.
    - collapsed: by fresh critics, the last views share less than a tenth of what the raw views
      share, and classifiers do not know the labels from them, which would be all they need to
      share.
    - cycling: I_NCE by the game's own critics rose or fell by half a nat or more at least 5 times;
      a game without critics cannot cycle.
    - steady: none of these.

    Args:
        log: rows of a game, as for `best_generator`, with `i_nce` of the steps.
    """
    measured = _measured(log)
    if len(measured) < 2:
        return "unmeasured", "The game was never measured by fresh critics after its start."
    raw, last = measured[0], measured[-1]
    shares = (
        f"the last views share {last['i_nce_fresh']:.2f} nats, the raw views "
        f"{raw['i_nce_fresh']:.2f} (by fresh critics)"
    )
    stretched = [row for row in log if "lipschitz" in row]
    if any(_exploded(row, raw) for row in stretched):
        stretch = _largest_stretch(stretched)
        return (
            "exploded",
            f"The generator or its inverse stretches colours by up to {stretch:.3g}; {shares}.",
        )
    if raw["i_nce_fresh"] <= 0:
        return (
            "unmeasured",
            "Fresh critics measured nothing in the raw views, so the game cannot be judged: "
            f"{shares}; train fresh critics for more steps.",
        )
    if _collapsed(last, raw):
        return (
            "collapsed",
            f"The generator has removed nearly all shared information: {shares}.",
        )
    count = count_swings([row["i_nce"] for row in log if row.get("i_nce") is not None])
    if count >= CYCLE_SWINGS:
        return (
            "cycling",
            f"Generator and critics chased each other: I_NCE swung {count} times by {SWING} nats "
            f"or more; {shares}.",
        )
    return "steady", f"The game was steady: {shares}."


def _measured(log: Sequence[Line]) -> list[Line]:
    measured = []
    for row in log:
        i_nce = row.get("i_nce_fresh")
        if i_nce is not None and not math.isnan(i_nce):
            measured.append(row)
    return measured


def _largest_stretch(rows: Sequence[Line]) -> float:
    """The largest stretch in rows, either way; logs have null for Inf and NaN."""
    sides = [row[name] for row in rows for name in ("lipschitz", "lipschitz_inverse")]
    return max(math.inf if side is None or math.isnan(side) else side for side in sides)


def _collapsed(row: Line, raw: Line) -> bool:
    """Whether views share too little; the classifiers of the `raw` row are untrained."""
    entropy, untrained = row.get("cross_entropy_held"), raw.get("cross_entropy_held")
    knows_labels = (
        entropy is not None and untrained is not None and entropy < LABELS_KNOWN * untrained
    )
    return row["i_nce_fresh"] < COLLAPSE * raw["i_nce_fresh"] and not knows_labels


def _exploded(row: Line, raw: Line) -> bool:
    for name in ("lipschitz", "lipschitz_inverse"):
        stretch, raw_stretch = row.get(name), raw[name]
        if stretch is None or raw_stretch is None:
            return True
        if not stretch <= EXPLOSION * raw_stretch:  # true for NaN
            return True
    return False
