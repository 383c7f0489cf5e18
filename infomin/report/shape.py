"""The shape of a curve: its dial, and what its means and their errors allow to say of it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from .summary import (
    Rows,
    drop_diverged,
    drop_untrained,
    encoder_rows,
    label_rows,
    points,
    varied_fields,
)
from .two_lines import (
    CLAIMS,
    LEVEL,
    MARGIN,
    MOST_SEEDS,
    Array,
    Curves,
    correct,
    count_more_seeds,
    find_peak,
    resample_orders,
    summarise_seeds,
    weigh_shapes,
)

LEAST_POINTS = 4  # two on each side of a break
DRAWS = 100  # of the order of views whose nats are uncertain
UNDECIDED = "Undecided"


def dial_values(names: Sequence[str]) -> list[float] | None:
    """The numbers that the names of views differ in, or None unless they differ in one number only.

    `crop:0.2+grey:1`, `crop:0.4+grey:1` give 0.2, 0.4.

    >>> dial_values(["patch:8/32", "patch:16/32"]), dial_values(["color:lab", "color:rgb"])
    ([8.0, 16.0], None)
    """
    number = r"(?<![\w.])-?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
    templates = {re.sub(number, "#", name) for name in names}
    if len(templates) != 1:
        return None
    numbers = [[float(digits) for digits in re.findall(number, name)] for name in names]
    varied = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    return list(varied[0]) if len(varied) == 1 else None


def by_dial(at: pd.DataFrame, rows: Rows) -> pd.DataFrame:
    """Sort the points of a curve by their dial, or by first appearance if it is not a number.

    Args:
        at: the points, as `points(rows, task)` returns them.
        rows: the rows that they come from.

    Returns:
        the points, with a column `dial` if it is a number.
    """
    values = dial_values(list(at["view"]))
    if values is not None:
        return at.assign(dial=values).sort_values("dial", kind="stable").reset_index(drop=True)
    views = drop_diverged(label_rows(rows))["view"]
    order = {name: i for i, name in enumerate(dict.fromkeys(views))}
    in_order = at.sort_values("view", key=lambda names: names.map(order), kind="stable")
    return in_order.reset_index(drop=True)


@dataclass(frozen=True)
class Verdict:
    """What a curve shows; `str()` is the sentence.

    Args:
        shape: "An inverted U", "Rising", "Falling", "Flat" or "Undecided".
        p: of that shape, or, if undecided, of the inverted U; NaN if nothing could be tested.
        peak: the view of highest mean accuracy.
        interval: the first and the last view of those that may be the best at 95 %, in the order of
            the curve; None if nothing could be tested.
        more_seeds: how many more would decide, with a probability of 80 % if the slopes are as
            measured; 0 if it is decided, None if 100 would not decide or nothing could be tested.
        sentence: all this in words.
    """

    shape: str
    p: float
    peak: str
    interval: tuple[str, str] | None
    more_seeds: int | None
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def verdict(rows: Rows, task: str, *, dial: bool = False) -> Verdict:
    """Say what the curve shows: an inverted U, a rise, a fall, nothing, or too little to say.

    An inverted U is two lines with a break between them and two views or more on each side: the
    first line rises and the second one falls, both significantly (p < 0.05, corrected for the
    choice of the break), and no view turns back (Simonsohn, 2018). "Rising" and "Falling" are a
    significant line over all views; the other side of a hill may still be too faint to be seen.
    "Flat" is the evidence that no two views differ by 0.05. Seeds that not every view has are left
    out, as only what a seed does at one view and not at all of them counts as error.

    A point with negative I_NCE, which bounds nothing, is never the best one. Where rows include
    untrained networks, a second sentence compares the most accurate point with its own.

    Args:
        rows: as `run` returns them.
        task: what accuracy is measured on.
        dial: order the points by the views' dial, see `by_dial`, not by shared information. The
            order by `true_nats` is exact too. That by I_NCE is not: p is a mean over the orders
            that a bootstrap over seeds gives.
    """
    return verdicts({"": (rows, task)}, dial=dial)[""]


def verdicts(sweeps: Mapping[str, tuple[Rows, str]], *, dial: bool = False) -> dict[str, Verdict]:
    """The verdicts of several sweeps shown together, corrected for their number (Holm, 1979).

    Args:
        sweeps: name -> rows and task, as `verdict` takes them.
        dial: as `verdict` takes it.

    Returns:
        name -> verdict.
    """
    cases = {name: _Case.read(rows, task, dial) for name, (rows, task) in sweeps.items()}
    tested = [name for name, case in cases.items() if case.means is not None]
    corrected = correct(np.array([cases[name].p for name in tested]).reshape(-1, len(CLAIMS)))
    p = dict(zip(tested, corrected, strict=True))
    return {
        name: _decide(case, p[name], len(tested)) if name in p else _refuse(case)
        for name, case in cases.items()
    }


@dataclass(frozen=True)
class _Case:
    """A curve, why it cannot be tested, and if it can, its means and the evidence for claims."""

    curve: pd.DataFrame
    task: str
    dial: bool
    refusal: str
    means: Curves | None = None
    p: Array | None = None
    turns: bool = False

    @classmethod
    def read(cls, rows: Rows, task: str, dial: bool) -> "_Case":
        curve = points(rows, task)
        frame = encoder_rows(rows)
        if others := varied_fields(frame) if frame["view"].nunique() > 1 else []:
            fields = " and ".join(others)
            refusal = f"several curves, for the rows differ in view and in {fields}; choose rows "
            return cls(curve, task, dial, refusal + "that differ only in view.")
        curve = by_dial(curve, rows) if dial else curve
        accuracy, nats = _seed_numbers(curve, rows, task)
        case = cls(curve, task, dial, "")
        if refusal := case.find_refusal(accuracy.shape[1]):
            return replace(case, refusal=refusal)
        means = summarise_seeds(accuracy)
        exact = dial or "true_nats_mean" in curve
        order = np.arange(len(curve))[None, None]
        p, turns = weigh_shapes(means, order if exact else resample_orders(nats, DRAWS))
        return replace(case, means=means, p=p[0], turns=bool(turns[0]))

    def find_refusal(self, seeds: int) -> str:
        highest = f"the highest accuracy is that of {self.describe(self.best)}"
        if len(self.curve) < LEAST_POINTS:
            return (
                f"a shape needs {LEAST_POINTS} points or more, got {len(self.curve)}; {highest}; "
                "vary the view further."
            )
        if self.curve["i_nce_mean"][self.best] < 0:
            return f"{highest}, where I_NCE finds nothing shared."
        if seeds < 2:
            return f"{highest}; an error needs 2 seeds that all views have, got {seeds}; run more."
        return ""

    @property
    def best(self) -> int:
        return int(self.curve[f"acc_{self.task}_mean"].idxmax())

    def describe(self, i: int) -> str:
        deviation, nats = self.curve["spread"][i], self.curve["i_nce_mean"][i]
        plus_minus = f" ± {deviation:.2f}" if self.curve["n"][i] > 1 else ""  # else unknown
        accuracy = self.curve[f"acc_{self.task}_mean"][i]
        return f"{self.curve['view'][i]} ({nats:.2f} nats, accuracy {accuracy:.2f}{plus_minus})"

    def describe_peak(self) -> str:
        """The best point, and by how much it exceeds the ends."""
        accuracy, last = self.curve[f"acc_{self.task}_mean"], len(self.curve) - 1
        names = {0: "shares least", last: "shares most"}
        gains = [
            f"{accuracy[self.best] - accuracy[end]:.2f} above {self.describe(end)}"
            + ("" if self.dial else f", which {name}")
            for end, name in names.items()
            if end != self.best
        ]
        return f"the best point is {self.describe(self.best)}, {', and '.join(gains)}"

    def describe_untrained(self) -> str:
        if "untrained" not in self.curve or math.isnan(self.curve["untrained"][self.best]):
            return ""
        accuracy, deviation = self.curve.loc[self.best, ["untrained", "untrained_std"]]
        plus_minus = "" if math.isnan(deviation) else f" ± {deviation:.2f}"
        name = self.curve["view"][self.best]
        return f" Untrained, the network of {name} reaches {accuracy:.2f}{plus_minus}."


def _seed_numbers(curve: pd.DataFrame, rows: Rows, task: str) -> tuple[Array, Array]:
    """Accuracy and nats of the views of a curve and the seeds that all of them have, [1, n, P]."""
    names = [f"acc_{task}", "i_nce"]
    frame = drop_diverged(drop_untrained(label_rows(rows)))
    count = frame.groupby("view").cumcount()  # your own rows may have no seed
    frame = frame.assign(seed=frame["seed"].fillna(count) if "seed" in frame else count)
    frame = frame[frame["view"].isin(curve["view"])].astype(dict.fromkeys(names, float))
    table = frame.pivot_table(index="seed", columns="view", values=names).dropna()
    accuracy, nats = (table[name][list(curve["view"])].to_numpy()[None] for name in names)
    return accuracy, nats


def _refuse(case: _Case) -> Verdict:
    peak = case.curve["view"][case.best]
    sentence = f"{UNDECIDED}: {case.refusal}{case.describe_untrained()}"
    return Verdict(UNDECIDED, math.nan, peak, None, None, sentence)


def _decide(case: _Case, p: Array, sweeps: int) -> Verdict:
    """Turn evidence into a verdict; p of each claim is corrected for the number of sweeps."""
    assert case.means is not None
    holds = np.flatnonzero(p < LEVEL)
    decided = len(holds) > 0
    claim = int(holds[0]) if decided else 0
    shape = CLAIMS[claim] if decided else UNDECIDED
    views = case.curve["view"]
    may_be_best = np.flatnonzero(find_peak(case.means)[0])
    first, last = views[may_be_best[0]], views[may_be_best[-1]]
    peak = f"the peak lies from {first} to {last}" if first != last else "no other view reaches it"
    more = 0 if decided else count_more_seeds(case.means, LEVEL / sweeps)
    seeds = f"; about {more} more seeds would decide" if more else ""
    seeds = seeds if more is not None else f"; {MOST_SEEDS} more seeds would not decide"
    value = "p < 0.001" if p[claim] < 0.001 else f"p = {p[claim]:.3f}"
    corrected = f", corrected for {sweeps} sweeps" if sweeps > 1 else ""
    of_what = "" if decided else " for an inverted U"
    sentence = (
        f"{shape} ({value}{of_what}{corrected}): "
        + (f"no two views differ by {MARGIN}; " if shape == "Flat" else "")
        + ("accuracy turns back more than once; " if case.turns else "")
        + f"{case.describe_peak()}; {peak} (95 %)"
        + f"{seeds}.{case.describe_untrained()}"
    )
    return Verdict(shape, float(p[claim]), views[case.best], (first, last), more, sentence)
