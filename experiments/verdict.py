"""How often is the verdict on a curve right? Simulated curves with the noise of committed rows.

    python experiments/verdict.py                             # 4 minutes on one core
    python experiments/verdict.py --save experiments/figures  # also saves rows and figure

Each of 1,000 curves a cell has a true shape, and noise either of the rows of a committed figure or
normal, of deviation 0.01 or 0.02 in accuracy and three times that in nats. The noise of rows is a
random combination, with normal weights, of the deviations of its three seeds from their means: it
keeps, for accuracy and nats together, the variance of each view and the correlations within a seed.
The views have the nats of that figure; where they hardly differ, seeds change their order.

Wanted: at most 6 % "an inverted U" where there is none, and 80 % and more on the demo's shape.
Measured: at most 4 % with the noise of any one figure, and on the demo's shape, with the demo's
noise, 94 % along the dial and 84 % along I_NCE with two seeds, more than 99 % with three.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from infomin.common import files
from infomin.experiment import run_script
from infomin.report.plots import save_figure
from infomin.report.shape import DRAWS, UNDECIDED
from infomin.report.two_lines import CLAIMS, LEVEL, resample_orders, summarise_seeds, weigh_shapes

FIGURES = Path(__file__).parent / "figures"
TASKS = {
    "u_curve": "digit",
    "patch_distance": "digit",
    "frequency": "digit",
    "crop_area": "background",
    "color_jitter": "digit",
    "color_spaces": "digit",
    "augmentations": "digit",
}
SIGMAS = (0.01, 0.02)
NATS_PER_ACCURACY = 3  # deviation of nats over that of accuracy: the median of those figures
SEEDS = (2, 3, 5, 10)
DEMO, LOW_HILL = "the demo", "a low hill"  # of 0.36 to 0.5, and of 0.06
NO_U = ("flat", "rising, then flat", "flat, then falling", "rising", "falling")


def read_seeds(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and nats of a figure's trained networks, each [seeds, views], in order of nats."""
    lines = (FIGURES / f"{name}.jsonl").read_text().splitlines()
    frame = pd.DataFrame(map(json.loads, lines)).query("steps > 0")
    columns = (f"acc_{TASKS[name]}", "i_nce")
    accuracy, nats = (frame.pivot(index="seed", columns="view", values=name) for name in columns)
    views = nats.mean().sort_values().index
    return accuracy[views].to_numpy(), nats[views].to_numpy()


def shapes(views: int) -> dict[str, np.ndarray]:
    """The true accuracies of so many views, 7 or more."""
    x = np.linspace(0, 1, views)
    rise = 0.5 + 0.4 * np.minimum(1, np.arange(views) / (views // 2 - 1))
    levels = (0.7 + 0 * x, rise, rise[::-1], 0.5 + 0.4 * x, 0.9 - 0.4 * x)
    humps = {
        "three humps": [0.6, 0.9, 0.6, 0.9, 0.6, 0.9, 0.6],
        "a hill of three humps": [0.5, 0.8, 0.6, 0.9, 0.6, 0.8, 0.5],
    }
    flat_end = {name: np.pad(hump, (0, views - 7), mode="edge") for name, hump in humps.items()}
    hill = {LOW_HILL: 0.8 + 0.06 * (1 - (2 * x - 1) ** 2)}
    return dict(zip(NO_U, levels, strict=True)) | flat_end | hill


def draw(
    noise: str, shape: str, seeds: int, curves: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and nats of curves with a true shape, each [curves, seeds, views]."""
    demo, nats = read_seeds("u_curve")
    if noise in TASKS:
        accuracy, nats = read_seeds(noise)
        weights = generator.standard_normal((curves, seeds, len(nats)))
        deviations = (numbers - numbers.mean(0) for numbers in (accuracy, nats))
        errors = [weights @ deviation / np.sqrt(len(nats) - 1) for deviation in deviations]
    else:
        size = (curves, seeds, nats.shape[1])
        errors = [
            float(noise) * factor * generator.standard_normal(size)
            for factor in (1, NATS_PER_ACCURACY)
        ]
    truth = demo.mean(0) if shape == DEMO else shapes(nats.shape[1])[shape]
    return truth + errors[0], nats.mean(0) + errors[1]


def count_verdicts(accuracy: np.ndarray, nats: np.ndarray, axis: str) -> dict[str, float]:
    """The share of each verdict along an axis, dial or nats."""
    curves, _, views = accuracy.shape
    dial = np.broadcast_to(np.arange(views), (1, curves, views))
    orders = dial if axis == "dial" else resample_orders(nats, DRAWS)
    p, _ = weigh_shapes(summarise_seeds(accuracy), orders)
    claim = np.where((p < LEVEL).any(1), (p < LEVEL).argmax(1), len(CLAIMS))
    return {name: float(np.mean(claim == i)) for i, name in enumerate((*CLAIMS, UNDECIDED))}


def simulate(curves: int = 1000, seed: int = 1) -> Iterator[dict[str, Any]]:
    """One row a cell: noise, true shape, number of seeds, axis and the share of each verdict."""
    generator = np.random.default_rng(seed)
    for noise in (*TASKS, *map(str, SIGMAS)):
        has_demo = noise not in TASKS or noise == "u_curve"
        for shape in (*shapes(7), *[DEMO] * has_demo):
            for seeds in SEEDS:
                accuracy, nats = draw(noise, shape, seeds, curves, generator)
                for axis in ("dial", "nats"):
                    cell = {"noise": noise, "shape": shape, "seeds": seeds, "axis": axis}
                    shares = count_verdicts(accuracy, nats, axis)
                    yield cell | {"curves": curves, "generator": seed} | shares


def summarise(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Inverted Us by shape, axis and seeds: over the figures' noise and its worst, and sigma's."""
    frame = pd.DataFrame(rows)
    from_rows = frame["noise"].isin(list(TASKS))
    groups = frame[from_rows].groupby(["shape", "axis", "seeds"], sort=False)[CLAIMS[0]]
    table = groups.agg(rows="mean", worst="max")
    for sigma in map(str, SIGMAS):
        cells = frame[frame["noise"] == sigma].set_index(["shape", "axis", "seeds"])
        table[sigma] = cells[CLAIMS[0]]
    return table


def draw_figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the share of inverted Us against the number of seeds, for each true shape."""
    table = summarise(rows)["rows"].unstack("seeds")
    figure = Figure(figsize=(9.6, 4.0))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, axis, title in zip(panels, ("dial", "nats"), ("the dial", "$I_{NCE}$"), strict=True):
        for shape, shares in table.xs(axis, level="axis").iterrows():
            axes.plot(shares.index, shares, "o-", ms=4, lw=1.2, label=shape)
        axes.axhline(0.06, color="0.5", lw=1, ls=":", label="6 %")
        axes.set(xscale="log", xlabel="seeds", title=f"along {title}", ylim=(-0.02, 1.02))
        axes.set_xticks(SEEDS, map(str, SEEDS))
        axes.minorticks_off()
    panels[0].set_ylabel("share of verdicts \u201cAn inverted U\u201d")
    panels[0].legend(fontsize=7.5, loc="lower right", bbox_to_anchor=(1, 0.1))
    save_figure(figure, path)


def main(curves: int = 1000, seed: int = 1, save: str = "") -> None:
    """Simulate curves and count verdicts.

    Args:
        curves: How many a cell.
        seed: Of the random numbers.
        save: Folder that also gets verdict.jsonl and verdict.png.
    """
    rows = list(simulate(curves, seed))
    print(summarise(rows).to_string(float_format="%.3f"))
    if save:
        files.write_jsonl(Path(save) / "verdict.jsonl", rows)
        draw_figure(rows, Path(save) / "verdict.png")


if __name__ == "__main__":
    run_script(main, __doc__)
