"""What one has to know of a view game to trust it: how far the generator has gone, which one to keep, how the game went.

The game is known to be unstable. I_NCE by the critics of the game is what they can read just now, so a generator may have outrun
them; critics that start anew and meet a generator that stands still tell what its views share.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

COLLAPSE = 0.1  # share of the raw views' information
TOLD = (
    0.5  # share of the cross entropy of classifiers that know nothing, below which labels are told
)
EXPLOSION = 100.0  # times the stretch of the raw views
SWING, SWINGS = (
    0.5,
    5,
)  # nats, and how many are too many: a rise, a fall and a rise as rates go down are an ordinary game

Row = Mapping[str, Any]


def gradient_norms(players: Mapping[str, Iterable[Tensor]]) -> dict[str, float]:
    """The length of each player's gradient, as `gradient_PLAYER`; nothing of one that did not have this move."""
    found = {
        name: [p.grad.detach().norm() for p in parameters if p.grad is not None]
        for name, parameters in players.items()
    }
    return {
        f"gradient_{name}": float(torch.stack(norms).norm())
        for name, norms in found.items()
        if norms
    }


def color_stretch(flow: Callable[[Tensor], Tensor], images: Tensor) -> dict[str, float]:
    """How a pixel-wise map stretches colour space at the colours of images, from the singular values of its derivative.

    Args:
        flow: `[B, C, H, W]` to as many channels, each pixel by itself.
        images: `[B, C, H, W]`, floating point: the colours to look at.

    Returns:
        `lipschitz` and `lipschitz_inverse`, the most that a small difference of colours grows by, there and on the way back:
        lower bounds of the Lipschitz constants; and `log_det`, the mean of log |det|. All NaN if the derivative is not finite.

    >>> [round(v, 3) for v in color_stretch(lambda x: 2 * x, torch.rand(1, 3, 4, 4)).values()]
    [2.0, 0.5, 2.079]
    """
    with torch.enable_grad():
        images = images.detach().double().requires_grad_()
        latent = flow(images)
        rows = [
            torch.autograd.grad(plane.sum(), images, retain_graph=True)[0]
            for plane in latent.unbind(1)
        ]
    derivative = torch.stack(rows, -1).permute(0, 2, 3, 4, 1).flatten(0, 2)
    if not derivative.isfinite().all():  # of which the decomposition would make an error
        return dict.fromkeys(("lipschitz", "lipschitz_inverse", "log_det"), math.nan)
    values = torch.linalg.svdvals(derivative)
    return {
        "lipschitz": float(values.max()),
        "lipschitz_inverse": float(1 / values.min()),
        "log_det": float(values.log().sum(-1).mean()),
    }


def count_swings(series: Sequence[float], least: float = SWING) -> int:
    """How often a series has gone up or down by `least` or more, smaller movements back between them forgiven.

    >>> count_swings([0, 1, 0.8, 2, 0, 2]), count_swings([0, 0.3, 0, 0.3])
    (3, 0)
    """
    count, way, low, high = 0, 0, math.inf, -math.inf
    for x in series:
        low, high = min(low, x), max(high, x)
        if way <= 0 and x - low >= least:
            count, way, high = count + 1, 1, x
        elif way >= 0 and high - x >= least:
            count, way, low = count + 1, -1, x
    return count


def best_generator(log: Sequence[Row], value: Callable[[Row], float]) -> Row | None:
    """The measured row of least value whose generator has neither collapsed nor exploded; None if there is none.

    Where fresh critics read nothing from the raw views there is nothing to compare with, and no row is chosen either.

    Args:
        log: rows of a game; those that were measured have `i_nce_fresh`, the first of the raw views.
        value: of a measured row, what the generator plays for: less is better.
    """
    measured = _measured(log)
    if not measured or measured[0]["i_nce_fresh"] <= 0:
        return None
    sound = [
        row for row in measured if not (_collapsed(row, measured[0]) or _exploded(row, measured[0]))
    ]
    return min(
        (row for row in sound if value(row) < math.inf), key=value, default=None
    )  # NaN is no number below either


def judge_game(log: Sequence[Row]) -> tuple[str, str]:
    """How a game went, in a word and in a sentence: steady, cycling, collapsed, exploded or unmeasured.

    Collapsed: by fresh critics, the last views share less than a tenth of what the raw ones did, and no classifiers tell labels
    by them, which would be all that they need to share. Exploded: the generator stretches some colours, or their way back, a
    hundred times more than at first. Cycling: I_NCE against the critics of the game went up or down by half a nat or more at
    least five times; a game without critics does not cycle. Unmeasured: fresh critics never met the generator after its start, or
    read nothing from the raw views.

    Args:
        log: rows of a game, as for `best_generator`, with `i_nce` of the steps.
    """
    measured = _measured(log)
    if len(measured) < 2:
        return "unmeasured", "The game was never measured by fresh critics after its start."
    first, last = measured[0], measured[-1]
    shares = f"by fresh critics its views share {last['i_nce_fresh']:.2f} nats, the raw ones {first['i_nce_fresh']:.2f}"
    stretched = [row for row in log if "lipschitz" in row]
    if any(_exploded(row, first) for row in stretched):
        sides = [row[name] for row in stretched for name in ("lipschitz", "lipschitz_inverse")]
        most = max(
            math.inf if side is None or math.isnan(side) else side for side in sides
        )  # a log has no Inf
        return (
            "exploded",
            f"The generator stretches colours, or their way back, by up to {most:.3g}; {shares}.",
        )
    if first["i_nce_fresh"] <= 0:
        return (
            "unmeasured",
            f"Fresh critics read nothing, so nothing can be said of the game: {shares}; let them learn for longer.",
        )
    if _collapsed(last, first):
        return "collapsed", f"The generator has thrown away nearly all that was shared: {shares}."
    count = count_swings([row["i_nce"] for row in log if row.get("i_nce") is not None])
    if count >= SWINGS:
        return (
            "cycling",
            f"Generator and critics ran after each other: I_NCE swung {count} times by {SWING} nats or more; {shares}.",
        )
    return "steady", f"The game went steadily: {shares}."


def _measured(log: Sequence[Row]) -> list[Row]:
    return [
        row
        for row in log
        if row.get("i_nce_fresh") is not None and not math.isnan(row["i_nce_fresh"])
    ]


def _collapsed(row: Row, raw: Row) -> bool:
    """The first classifiers measured, `raw`, know nothing yet."""
    entropy, unknowing = (given.get("cross_entropy_held") for given in (row, raw))
    told = entropy is not None and unknowing is not None and entropy < TOLD * unknowing
    return row["i_nce_fresh"] < COLLAPSE * raw["i_nce_fresh"] and not told


def _exploded(row: Row, raw: Row) -> bool:
    sides = [(row.get(name), raw[name]) for name in ("lipschitz", "lipschitz_inverse")]
    return any(
        None in side or not side[0] <= EXPLOSION * side[1] for side in sides
    )  # NaN is no number below
