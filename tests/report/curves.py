"""Made-up rows of curves, as `run` would return them."""

import math

import numpy as np
from matplotlib.collections import LineCollection

NATS, HILL = [0.1, 1.0, 2.0, 3.0], [0.2, 0.5, 0.9, 0.4]
CEILING, ENTROPY = math.log(256), math.log(10)
TRUE_NATS = {"a": 0.5, "b": 2.5, "c": 1.5, "d": 40.0}
NETWORK = {
    "data": "digits",
    "size": 32,
    "encoder": "tiny",
    "width": 1.0,
    "share_encoder": True,
    "probe_images": 64,
}
TRAINING = {"method": "infonce", "tau": 0.2, "lr": 0.1, "batch": 32, "steps": 400}


def make_row(view, nats, accuracy, seed=0, **fields):
    """A row of a run that is done, with two tasks."""
    row = {"view": view, "seed": seed, "status": "done"}
    row |= {"i_nce": nats, "candidates": 256, "ceiling": CEILING}
    row |= {"acc_digit": accuracy, "knn_digit": accuracy / 2, "entropy_digit": ENTROPY}
    row |= {"acc_place": 1 - accuracy, "knn_place": 0.1, "entropy_place": math.log(9)}
    return row | fields


def make_curve(accuracies=HILL, nats=NATS, spread=0.01, **fields):
    """Three seeds per point: the given numbers are their mean, `spread` is their deviation."""
    views = [f"color:{letter}" for letter in "abcdefgh"]
    points = list(zip(views, nats, accuracies, strict=False))
    return [
        make_row(view, x + shift, y + shift, seed, **fields)
        for seed, shift in enumerate((-spread, 0.0, spread))
        for view, x, y in points
    ]


def with_truth(rows):
    """The same rows with the true information, in another order than the measured one."""
    return [row | {"true_nats": TRUE_NATS[row["view"][-1]]} for row in rows]


def diverged(view="color:z", **fields):
    """A diverged row as `run` returns it, without numbers."""
    row = {"view": view, "seed": 0, "status": "diverged", "reason": "step 3: the loss is nan"}
    return row | fields


DIVERGED = [(place, known) for place in ("first", "last") for known in ({}, {"true_nats": 1.0})]


def with_diverged(place, known):
    """Rows of a curve, and the same rows with two diverged ones before or after them."""
    good = with_truth(make_curve()) if known else make_curve()
    bad = [diverged(**known), diverged("color:b", **known)]
    return good, bad + good if place == "first" else good + bad


def baselines(**fields):
    """Rows of a user's own baselines, with the columns that a point needs and no others."""
    columns = ("view", "seed", "i_nce", "acc_digit")
    return [{name: row[name] for name in columns} | fields for row in make_curve()]


def with_untrained(rows, accuracy):
    """The rows, and for each one a row of its network before training, of that accuracy."""
    trained = [{"key": f"{i}", "steps": 400} | row for i, row in enumerate(rows)]
    return trained + [
        row | {"key": f"0{row['key']}", "steps": 0, "i_nce": 9.0, "acc_digit": accuracy(row)}
        for row in trained
    ]


def recipe_first(rows):
    """Rows in the order of columns of `run`."""
    order = ["key", "view", *NETWORK, *TRAINING, "seed", "status"]
    return [{name: row[name] for name in order if name in row} | row for row in rows]


def error_bars(axes):
    """The error bars of an axes along "x" and "y": their centres and half lengths."""
    artists = [np.ravel(part) for bars in axes.containers for part in bars if part]
    collections = [line for line in np.concatenate(artists) if isinstance(line, LineCollection)]
    found = {}
    for collection in collections:
        ends = np.array(collection.get_segments())
        lengths = np.ptp(ends, axis=1)
        side = 0 if lengths[:, 0].any() and not lengths[:, 1].any() else 1
        found.setdefault("xy"[side], []).append((ends.mean(1), lengths[:, side] / 2))
    return {
        side: tuple(map(np.concatenate, zip(*bars, strict=True))) for side, bars in found.items()
    }
