"""Judging a view game: closed-form stretches, swings against a slow oracle, and handmade logs."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infomin.runs.game_monitor import (
    best_generator,
    color_stretch,
    count_swings,
    gradient_norms,
    judge_game,
)
from infomin.views.flow import PixelFlow

COLORS = torch.rand(2, 3, 3, 4, generator=torch.Generator().manual_seed(0))


def linear(matrix: Tensor):
    """The same matrix applied to every colour."""
    return lambda images: torch.einsum("oc,bchw->bohw", matrix.to(images), images)


def orthogonal(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]


def random_flow(volume_preserving: bool, seed: int = 0) -> PixelFlow:
    """A flow far from the identity."""
    flow = PixelFlow(hidden=5, volume_preserving=volume_preserving, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in flow.parameters():
            p.copy_(0.7 * torch.randn(p.shape, generator=generator))
    return flow.double()


# How far the generator has gone


@pytest.mark.parametrize(
    "values", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.25), (2.0, 2.0, 0.125), (1e3, 1.0, 1e-3)]
)
def test_a_matrix_stretches_by_its_singular_values_whatever_rotates_it(values):
    expected = {
        "lipschitz": max(values),
        "lipschitz_inverse": 1 / min(values),
        "log_det": sum(map(math.log, values)),
    }
    scales = torch.diag(torch.tensor(values, dtype=torch.float64))
    # The smallest value has the rounding error of the largest.
    tolerance = 1e-13 + 2e-15 * max(values) / min(values)
    for before, after in (
        (torch.eye(3).double(), torch.eye(3).double()),
        (orthogonal(1), orthogonal(2)),
    ):
        stretch = color_stretch(linear(after @ scales @ before), COLORS)
        assert stretch == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_a_scale_per_channel_and_a_rotation():
    scales = torch.tensor([0.5, -4.0, 1.0])
    scaled = color_stretch(lambda images: images * scales.view(1, 3, 1, 1), COLORS)
    expected = {"lipschitz": 4, "lipschitz_inverse": 2, "log_det": math.log(2)}
    assert scaled == pytest.approx(expected, abs=1e-12)
    rotated = color_stretch(linear(orthogonal(3)), COLORS)
    expected = {"lipschitz": 1, "lipschitz_inverse": 1, "log_det": 0}
    assert rotated == pytest.approx(expected, abs=1e-12)


def test_the_stretch_is_the_maximum_over_colours_and_log_det_the_mean():
    """x -> x^2 / 2 stretches each channel by x."""
    stretch, x = color_stretch(lambda images: images**2 / 2, COLORS), COLORS.double()
    assert stretch["lipschitz"] == pytest.approx(float(x.max()))
    assert stretch["lipschitz_inverse"] == pytest.approx(1 / float(x.min()))
    assert stretch["log_det"] == pytest.approx(float(x.log().sum(1).mean()))


@pytest.mark.parametrize("seed", range(4))
def test_a_volume_preserving_flow_keeps_volume_and_still_stretches(seed):
    stretch = color_stretch(random_flow(True, seed), COLORS)
    assert abs(stretch["log_det"]) < 1e-12
    assert stretch["lipschitz"] > 1.01 and stretch["lipschitz_inverse"] > 1.01


@pytest.mark.parametrize("volume_preserving", [True, False])
def test_the_stretch_of_a_flow_matches_a_slow_jacobian(volume_preserving):
    flow, x = random_flow(volume_preserving), COLORS.double()
    stretch = color_stretch(flow, COLORS)

    def on_pixel(color):
        return flow(color.view(1, 3, 1, 1)).flatten()

    pixels = x.permute(0, 2, 3, 1).reshape(-1, 3)
    jacobians = [torch.autograd.functional.jacobian(on_pixel, pixel) for pixel in pixels]
    forward = [torch.linalg.svdvals(jacobian) for jacobian in jacobians]
    inverse = [torch.linalg.svdvals(torch.linalg.inv(jacobian)) for jacobian in jacobians]
    largest, largest_inverse = (max(float(v.max()) for v in side) for side in (forward, inverse))
    assert stretch["lipschitz"] == pytest.approx(largest, rel=1e-9)
    assert stretch["lipschitz_inverse"] == pytest.approx(largest_inverse, rel=1e-9)
    assert stretch["log_det"] == pytest.approx(float(flow.log_det(x).detach().mean()), abs=1e-9)
    assert volume_preserving or abs(stretch["log_det"]) > 0.01


def test_measuring_the_stretch_changes_nothing_and_works_without_gradients():
    flow = random_flow(False)
    with torch.no_grad():
        assert color_stretch(flow, COLORS) == color_stretch(flow, COLORS)
    assert all(p.grad is None for p in flow.parameters()) and not COLORS.requires_grad


def test_a_singular_or_non_finite_map_is_not_an_error():
    flat = color_stretch(linear(torch.diag(torch.tensor([1.0, 1.0, 0.0]))), COLORS)
    assert flat["lipschitz"] == pytest.approx(1)
    assert flat["lipschitz_inverse"] == math.inf and flat["log_det"] == -math.inf
    broken = random_flow(True)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    assert all(map(math.isnan, color_stretch(broken, COLORS).values()))


def test_gradient_norms_by_hand():
    a, b, c = (torch.zeros(n, requires_grad=True) for n in (2, 1, 3))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([-4.0])
    players = {"critics": [a, b], "generator": [c], "classifiers": iter([a, c])}
    expected = {"gradient_critics": 5.0, "gradient_classifiers": 3.0}
    assert gradient_norms(players) == expected


# How often a series turns


def slow_swings(series: list[float], least: float) -> int:
    """The most legs of any choice of turning points, each of `least` or more, in alternation."""
    longest = [[0, 0] for _ in series]  # legs that end here: the last one goes up, or down
    for i, x in enumerate(series):
        for (up, down), y in zip(longest[:i], series[:i], strict=True):
            if x - y >= least:
                longest[i][0] = max(longest[i][0], down + 1)
            if y - x >= least:
                longest[i][1] = max(longest[i][1], up + 1)
    return max((max(legs) for legs in longest), default=0)


# Sums of quarters are exact.
quarters = st.lists(st.integers(-8, 8).map(lambda n: n / 4), max_size=30)


@settings(max_examples=200, deadline=None)
@given(quarters, st.sampled_from([0.25, 0.5, 1.0, 2.0]))
def test_swings_match_the_slow_oracle(series, least):
    assert count_swings(series, least) == slow_swings(series, least)


@settings(max_examples=100, deadline=None)
@given(quarters, st.sampled_from([0.25, 1.0]), st.integers(-3, 3), st.integers(1, 4))
def test_swings_do_not_depend_on_direction_level_unit_or_pace(series, least, level, unit):
    count = count_swings(series, least)
    assert count == count_swings(series[::-1], least) == count_swings([-x for x in series], least)
    assert count == count_swings([unit * x + level for x in series], unit * least)
    assert count == count_swings([x for x in series for _ in range(3)], least)
    assert count >= count_swings(series, 2 * least)


@pytest.mark.parametrize("periods", [1, 3, 8])
def test_a_wave_has_two_legs_per_period_with_or_without_noise(periods):
    wave = [-math.cos(2 * math.pi * periods * t / 400) for t in range(401)]
    generator = torch.Generator().manual_seed(periods)
    noise = torch.rand(401, generator=generator, dtype=torch.float64).mul(0.24).tolist()
    noisy = [x + e for x, e in zip(wave, noise, strict=True)]
    assert count_swings(wave, 0.5) == count_swings(noisy, 0.5) == 2 * periods
    assert count_swings([0.24 * x for x in wave], 0.5) == 0 and count_swings(wave, 2.1) == 0


def test_a_climb_is_one_leg_and_a_constant_series_has_none():
    climb = [t / 100 for t in range(300)]
    assert count_swings(climb) == count_swings(climb[::-1]) == 1
    assert count_swings([1.0] * 50) == count_swings([1.0]) == count_swings([]) == 0
    # Half a nat is the default threshold.
    assert count_swings([0, 0.5]) == 1 and count_swings([0, 0.49]) == 0
    for shorter, longer in pairwise(range(0, 300, 10)):
        assert count_swings(climb[:shorter]) <= count_swings(climb[:longer])


# Which generator to keep, and how the game went


def make_row(step: int, i_nce_fresh: float | None = 2.0, **others) -> dict:
    row = {"step": step, "i_nce_fresh": i_nce_fresh, "i_nce": 1.0}
    return row | {"lipschitz": 1.0, "lipschitz_inverse": 1.0} | others


def by_i_nce(row) -> float:
    return row["i_nce_fresh"]


def test_the_best_row_has_the_least_value():
    log = [make_row(0, 3.0), make_row(10, 1.5, cost=9)]
    log += [make_row(20, 1.0, cost=5), make_row(30, 2.0, cost=1)]
    assert best_generator(log, by_i_nce)["step"] == 20
    assert best_generator(log, lambda row: row.get("cost", 9))["step"] == 30
    assert best_generator(log[::-1][:-1] + log[:1], lambda row: -row["step"])["step"] == 30
    assert best_generator(log[:1], by_i_nce)["step"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"i_nce_fresh": 0.29},  # a tenth of the raw views'
        {"i_nce_fresh": -1.0},
        {"i_nce_fresh": None},
        {"i_nce_fresh": math.nan},
        {"lipschitz": 100.1},
        {"lipschitz_inverse": 100.1},
        {"lipschitz": math.nan},
        {"lipschitz": None},  # a log has null for NaN and Inf
        {"lipschitz_inverse": math.inf},
        {"cost": math.nan},
        {"cost": math.inf},
    ],
    ids=str,
)
def test_a_row_with_a_single_defect_is_not_chosen(change):
    last = make_row(20, 0.31, lipschitz=99.9, lipschitz_inverse=99.9, cost=0.0)
    others = [make_row(0, 3.0, cost=2.0), make_row(10, 2.0, cost=1.0)]
    assert best_generator([*others, last], lambda row: row["cost"])["step"] == 20
    assert best_generator([*others, last | change], lambda row: row["cost"])["step"] == 10


def test_none_is_chosen_if_none_is_sound_or_none_was_measured():
    unmeasured = make_row(10)
    del unmeasured["i_nce_fresh"]
    for log in ([], [unmeasured], [make_row(0, math.nan)]):
        assert best_generator(log, by_i_nce) is None
    log = [make_row(0, 1.0), unmeasured, make_row(20, 0.5)]
    assert best_generator(log, by_i_nce)["step"] == 20
    log = [make_row(0, 1.0), make_row(10, 0.5)]
    assert best_generator(log, lambda row: math.nan) is None
    for i_nce in (0.0, -0.1):  # fresh critics that learned nothing cannot rank generators
        assert best_generator([make_row(0, i_nce), make_row(10, 0.5)], by_i_nce) is None


ORDINARY = [make_row(step, 2.0 - step / 100) for step in range(0, 101, 10)]


def change_at(step: int, **changes) -> list[dict]:
    """The ordinary log, with other numbers at one step."""
    return [row | (changes if row["step"] == step else {}) for row in ORDINARY]


def waves(n_rows: int) -> list[dict]:
    """I_NCE goes up and down by a nat for `n_rows` rows, and stays constant after that."""
    log = []
    for i, row in enumerate(ORDINARY):
        is_high = i % 2 if i < n_rows else n_rows % 2 == 0
        log.append(row | {"i_nce": 1.0 + is_high})
    return log


LOGS = {
    "ordinary": (ORDINARY, "steady", ["share 1.00 nats", "raw views 2.00"]),
    "a tenth is left": (change_at(100, i_nce_fresh=0.2), "steady", ["0.20"]),
    "less is left": (
        change_at(100, i_nce_fresh=0.19),
        "collapsed",
        ["share 0.19 nats", "raw views 2.00"],
    ),
    "it came back": (change_at(50, i_nce_fresh=0.0), "steady", []),
    "a stretch of 100": (change_at(50, lipschitz=100.0), "steady", []),
    "a stretch of more": (
        change_at(50, lipschitz=123.4),
        "exploded",
        ["up to 123", "1.00", "2.00"],
    ),
    "an inverse stretch": (change_at(50, lipschitz_inverse=5e6), "exploded", ["up to 5e+06"]),
    "a stretch of null": (change_at(50, lipschitz=None), "exploded", ["up to inf"]),
    "a stretch of NaN": (change_at(50, lipschitz_inverse=math.nan), "exploded", ["up to inf"]),
    "few swings": (waves(4), "steady", []),
    "many swings": (waves(6), "cycling", ["swung 5 times by 0.5 nats", "1.00", "2.00"]),
    "small swings": ([row | {"i_nce": row["i_nce"] / 3} for row in waves(11)], "steady", []),
    "nothing in the raw views": (
        change_at(0, i_nce_fresh=0.0),
        "unmeasured",
        ["raw views 0.00", "more steps"],
    ),
    "measured once": (
        [ORDINARY[0], *(row | {"i_nce_fresh": None} for row in ORDINARY[1:])],
        "unmeasured",
        ["never measured"],
    ),
    "empty": ([], "unmeasured", ["never measured"]),
}


@pytest.mark.parametrize("case", LOGS)
def test_a_word_and_a_sentence_say_how_the_game_went(case):
    log, expected, parts = LOGS[case]
    word, sentence = judge_game(log)
    assert word == expected and sentence.endswith("."), sentence
    assert all(part in sentence for part in parts), sentence


def test_an_explosion_between_two_measurements_counts():
    log = change_at(50, lipschitz=1e6)
    del log[5]["i_nce_fresh"]
    word, sentence = judge_game(log)
    assert word == "exploded" and "1e+06" in sentence


@pytest.mark.parametrize(
    ("entropy", "word"), [(0.1, "steady"), (2.2, "steady"), (2.4, "collapsed"), (4.6, "collapsed")]
)
def test_views_that_share_only_a_label_have_not_collapsed(entropy, word):
    """A label of two classes is less than a tenth of 5 nats, and all that is wanted."""
    log = [make_row(step, 5.0, cross_entropy_held=4.6) for step in range(0, 101, 10)]
    log[-1] |= {"i_nce_fresh": 0.4, "cross_entropy_held": entropy}
    assert judge_game(log)[0] == word
    best = best_generator(log, lambda row: row["cross_entropy_held"])
    assert best["step"] == (100 if word == "steady" else 0)


def test_rows_without_a_measurement_or_without_i_nce_are_skipped():
    """The first row has no I_NCE of the game, most rows have no fresh one, and a log has no NaN."""
    log = waves(6)
    del log[0]["i_nce"]
    for row in log[1:-1]:
        del row["i_nce_fresh"]
    assert judge_game(log)[0] == "steady"  # one leg less
    log[0]["i_nce"] = 1.0
    log[7]["i_nce"] = None
    assert judge_game(log)[0] == "cycling"


@pytest.mark.parametrize("level", [-0.25, 0.0, 1.5])
def test_a_game_cycles_at_any_level_of_i_nce(level):
    """An I_NCE of exactly 0 is a number like any other."""
    sound = {"i_nce_fresh": 2.0, "lipschitz": 1.0, "lipschitz_inverse": 1.0}
    log = [sound | {"i_nce": level + i % 2} for i in range(12)]
    assert judge_game(log)[0] == "cycling"
