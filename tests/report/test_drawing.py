"""Points keep their place, and each number is near its own point and explained by the key."""

import re

import numpy as np
import pytest
from curves import make_curve

from infomin.report import plots
from infomin.report.drawing import NUMBER_DISTANCE, spread_numbers


def test_numbers_cover_no_point_and_no_other_number(drawn, tmp_path):
    """Five crowded means, two of them equal, and two that stand alone."""
    means = [(1.0, 0.5), (1.0, 0.5), (1.01, 0.5), (1.0, 0.51), (1.02, 0.49), (3.0, 0.2), (5.0, 0.9)]
    base = make_curve([0.2])[0]
    rows = [
        base | {"view": f"v{i}", "i_nce": nats, "acc_digit": accuracy}
        for i, (nats, accuracy) in enumerate(means)
    ]
    plots.dial_curve(rows, tmp_path / "x.png", "digit")
    figure = drawn[0]
    spread_numbers(figure)
    plane = next(axes for axes in figure.axes if "NCE" in axes.get_xlabel())
    circles = next(line for line in plane.lines if line.get_marker() == "o")
    assert sorted(map(tuple, circles.get_xydata())) == sorted(means)
    notes = [text for text in plane.texts if text.get_gid() == "number"]
    points = plane.transData.transform([note.xy for note in notes]) * 72 / figure.dpi
    numbers = points + np.array([note.xyann for note in notes])
    to_numbers = np.linalg.norm(numbers[:, None] - numbers, axis=2) + 99 * np.eye(len(notes))
    to_points = np.linalg.norm(numbers[:, None] - points, axis=2)
    assert to_numbers.min() > 0.8 * NUMBER_DISTANCE and to_points.min() > 0.6 * NUMBER_DISTANCE
    assert to_points.diagonal().max() < 4 * NUMBER_DISTANCE


def test_the_key_explains_the_numbers_of_the_points(drawn, tmp_path):
    plots.u_curve(make_curve(nats=[2.0, 0.1, 3.0, 1.0]), tmp_path / "u.png")
    figure = drawn[0]
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert key == ["1  color:b", "2  color:d", "3  color:a", "4  color:c"]
    notes = [text for text in figure.axes[0].texts if re.fullmatch(r"\d", text.get_text())]
    numbered = {note.get_text(): tuple(map(float, note.xy)) for note in notes}
    means = {"1": (0.1, 0.5), "2": (1.0, 0.4), "3": (2.0, 0.2), "4": (3.0, 0.9)}
    assert numbered == {number: pytest.approx(mean) for number, mean in means.items()}
