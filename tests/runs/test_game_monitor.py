"""The referee of a view game: stretches in closed form, swings against a slow oracle, and logs that differ in one thing."""

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

torch.set_num_threads(1)
COLORS = torch.rand(2, 3, 3, 4, generator=torch.Generator().manual_seed(0))


def linear(matrix: Tensor):
    """A map of colours that is the same matrix everywhere."""
    return lambda images: torch.einsum("oc,bchw->bohw", matrix.to(images), images)


def orthogonal(seed: int) -> Tensor:
    return torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )[0]


def wild(volume_preserving: bool, seed: int = 0) -> PixelFlow:
    """A flow far from the identity."""
    flow, draws = (
        PixelFlow(hidden=5, volume_preserving=volume_preserving, seed=seed),
        torch.Generator().manual_seed(seed),
    )
    with torch.no_grad():
        for p in flow.parameters():
            p.copy_(0.7 * torch.randn(p.shape, generator=draws))
    return flow.double()


# How far the generator has gone


@pytest.mark.parametrize(
    "values", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.25), (2.0, 2.0, 0.125), (1e3, 1.0, 1e-3)]
)
def test_a_matrix_stretches_by_its_singular_values_whatever_turns_it(values):
    wanted = {
        "lipschitz": max(values),
        "lipschitz_inverse": 1 / min(values),
        "log_det": sum(map(math.log, values)),
    }
    for before, after in (
        (torch.eye(3).double(), torch.eye(3).double()),
        (orthogonal(1), orthogonal(2)),
    ):
        found = color_stretch(
            linear(after @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ before), COLORS
        )
        close = 1e-13 + 2e-15 * max(values) / min(
            values
        )  # the least value is rounded like the greatest
        assert found == pytest.approx(wanted, rel=close, abs=close)


def test_a_scale_a_channel_and_a_rotation():
    scales = torch.tensor([0.5, -4.0, 1.0])
    found = color_stretch(lambda images: images * scales.view(1, 3, 1, 1), COLORS)
    assert found == pytest.approx(
        {"lipschitz": 4, "lipschitz_inverse": 2, "log_det": math.log(2)}, abs=1e-12
    )
    turned = color_stretch(linear(orthogonal(3)), COLORS)
    assert turned == pytest.approx(
        {"lipschitz": 1, "lipschitz_inverse": 1, "log_det": 0}, abs=1e-12
    )


def test_the_stretch_is_the_most_of_all_colours_and_log_det_the_mean():
    """x -> x^2 / 2 stretches each channel by x."""
    found, x = color_stretch(lambda images: images**2 / 2, COLORS), COLORS.double()
    assert found["lipschitz"] == pytest.approx(float(x.max())) and found[
        "lipschitz_inverse"
    ] == pytest.approx(1 / float(x.min()))
    assert found["log_det"] == pytest.approx(float(x.log().sum(1).mean()))


@pytest.mark.parametrize("seed", range(4))
def test_a_volume_preserving_flow_keeps_volume_and_stretches_nonetheless(seed):
    found = color_stretch(wild(True, seed), COLORS)
    assert (
        abs(found["log_det"]) < 1e-12
        and found["lipschitz"] > 1.01
        and found["lipschitz_inverse"] > 1.01
    )


@pytest.mark.parametrize("volume_preserving", [True, False])
def test_a_flow_s_numbers_are_those_of_a_slow_jacobian(volume_preserving):
    flow, x = wild(volume_preserving), COLORS.double()
    found = color_stretch(flow, COLORS)
    pixels = x.permute(0, 2, 3, 1).reshape(-1, 3)
    jacobians = [
        torch.autograd.functional.jacobian(lambda c: flow(c.view(1, 3, 1, 1)).flatten(), pixel)
        for pixel in pixels
    ]
    values = [torch.linalg.svdvals(jacobian) for jacobian in jacobians]
    back = [torch.linalg.svdvals(torch.linalg.inv(jacobian)) for jacobian in jacobians]
    assert found["lipschitz"] == pytest.approx(max(float(v.max()) for v in values), rel=1e-9)
    assert found["lipschitz_inverse"] == pytest.approx(max(float(v.max()) for v in back), rel=1e-9)
    assert found["log_det"] == pytest.approx(float(flow.log_det(x).detach().mean()), abs=1e-9)
    assert volume_preserving or abs(found["log_det"]) > 0.01


def test_looking_changes_nothing_and_works_where_gradients_are_off():
    flow = wild(False)
    with torch.no_grad():
        assert color_stretch(flow, COLORS) == color_stretch(flow, COLORS)
    assert all(p.grad is None for p in flow.parameters()) and not COLORS.requires_grad


def test_what_is_not_invertible_or_not_finite_is_no_error():
    flat = color_stretch(linear(torch.diag(torch.tensor([1.0, 1.0, 0.0]))), COLORS)
    assert (
        flat["lipschitz"] == pytest.approx(1)
        and flat["lipschitz_inverse"] == math.inf
        and flat["log_det"] == -math.inf
    )
    broken = wild(True)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    assert all(map(math.isnan, color_stretch(broken, COLORS).values()))


def test_gradient_norms_by_hand():
    a, b, c = (torch.zeros(n, requires_grad=True) for n in (2, 1, 3))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([-4.0])
    assert gradient_norms({"critics": [a, b], "generator": [c], "classifiers": iter([a, c])}) == {
        "gradient_critics": 5.0,
        "gradient_classifiers": 3.0,
    }


# How often a series turns


def slow_swings(series: list[float], least: float) -> int:
    """The most legs that a choice of turning points has, each as long as it must be, up and down in turn: all choices tried."""
    longest = [[0, 0] for _ in series]  # legs that end here, the last one up, or down
    for i, x in enumerate(series):
        for (up, down), y in zip(longest[:i], series[:i], strict=True):
            if x - y >= least:
                longest[i][0] = max(longest[i][0], down + 1)
            if y - x >= least:
                longest[i][1] = max(longest[i][1], up + 1)
    return max((max(legs) for legs in longest), default=0)


quarters = st.lists(
    st.integers(-8, 8).map(lambda n: n / 4), max_size=30
)  # whose sums have no roundings


@settings(max_examples=200, deadline=None)
@given(quarters, st.sampled_from([0.25, 0.5, 1.0, 2.0]))
def test_swings_are_those_of_the_slow_oracle(series, least):
    assert count_swings(series, least) == slow_swings(series, least)


@settings(max_examples=100, deadline=None)
@given(quarters, st.sampled_from([0.25, 1.0]), st.integers(-3, 3), st.integers(1, 4))
def test_swings_know_no_direction_no_level_no_unit_and_no_pace(series, least, level, unit):
    count = count_swings(series, least)
    assert count == count_swings(series[::-1], least) == count_swings([-x for x in series], least)
    assert count == count_swings([unit * x + level for x in series], unit * least)
    assert count == count_swings([x for x in series for _ in range(3)], least)
    assert count >= count_swings(series, 2 * least)


@pytest.mark.parametrize("periods", [1, 3, 8])
def test_a_wave_has_two_legs_a_period_with_or_without_noise(periods):
    wave = [-math.cos(2 * math.pi * periods * t / 400) for t in range(401)]
    noise = (
        torch.rand(401, generator=torch.Generator().manual_seed(periods), dtype=torch.float64)
        .mul(0.24)
        .tolist()
    )
    assert (
        count_swings(wave, 0.5)
        == count_swings([x + e for x, e in zip(wave, noise, strict=True)], 0.5)
        == 2 * periods
    )
    assert count_swings([0.24 * x for x in wave], 0.5) == 0 and count_swings(wave, 2.1) == 0


def test_a_way_is_one_leg_and_standing_still_none():
    climb = [t / 100 for t in range(300)]
    assert (
        count_swings(climb) == count_swings(climb[::-1]) == 1
        and count_swings([1.0] * 50) == count_swings([1.0]) == count_swings([]) == 0
    )
    assert (
        count_swings([0, 0.5]) == 1 and count_swings([0, 0.49]) == 0
    )  # half a nat is enough, by default
    assert all(
        count_swings(climb[:n]) <= count_swings(climb[:m]) for n, m in pairwise(range(0, 300, 10))
    )


# Which generator to keep, and how the game went


def row(step: int, shared: float | None = 2.0, **others) -> dict:
    return {
        "step": step,
        "i_nce_fresh": shared,
        "lipschitz": 1.0,
        "lipschitz_inverse": 1.0,
        "i_nce": 1.0,
    } | others


def shared(row) -> float:
    return row["i_nce_fresh"]


def test_the_best_row_is_that_of_least_value():
    log = [row(0, 3.0), row(10, 1.5, cost=9), row(20, 1.0, cost=5), row(30, 2.0, cost=1)]
    assert (
        best_generator(log, shared)["step"] == 20
        and best_generator(log, lambda row: row.get("cost", 9))["step"] == 30
    )
    assert best_generator(log[::-1][:-1] + log[:1], lambda row: -row["step"])["step"] == 30
    assert best_generator(log[:1], shared)["step"] == 0


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
def test_a_row_is_not_chosen_for_one_thing_that_is_wrong_with_it(change):
    last = row(20, 0.31, lipschitz=99.9, lipschitz_inverse=99.9, cost=0.0)
    others = [row(0, 3.0, cost=2.0), row(10, 2.0, cost=1.0)]
    assert best_generator([*others, last], lambda row: row["cost"])["step"] == 20
    assert best_generator([*others, last | change], lambda row: row["cost"])["step"] == 10


def test_none_is_chosen_where_none_is_sound_or_none_was_measured():
    unmeasured = row(10)
    del unmeasured["i_nce_fresh"]
    assert (
        best_generator([], shared)
        is best_generator([unmeasured], shared)
        is best_generator([row(0, math.nan)], shared)
        is None
    )
    assert best_generator([row(0, 1.0), unmeasured, row(20, 0.5)], shared)["step"] == 20
    assert best_generator([row(0, 1.0), row(10, 0.5)], lambda row: math.nan) is None
    for nothing in (0.0, -0.1):  # fresh critics that have learned nothing cannot tell good from bad
        assert best_generator([row(0, nothing), row(10, 0.5)], shared) is None


ORDINARY = [row(step, 2.0 - step / 100, i_nce=1.0) for step in range(0, 101, 10)]


def changed(**steps: dict) -> list[dict]:
    return [line | steps.get(f"at{line['step']}", {}) for line in ORDINARY]


def waves(rows: int) -> list[dict]:
    """Up and down by a nat, `rows` steps long, at rest after that."""
    return [
        line | {"i_nce": 1.0 + (i % 2 if i < rows else rows % 2 == 0)}
        for i, line in enumerate(ORDINARY)
    ]


@pytest.mark.parametrize(
    ("log", "word", "parts"),
    [
        (ORDINARY, "steady", ["share 1.00 nats", "raw ones 2.00"]),
        (changed(at100={"i_nce_fresh": 0.2}), "steady", ["0.20"]),
        (changed(at100={"i_nce_fresh": 0.19}), "collapsed", ["share 0.19 nats", "2.00"]),
        (changed(at50={"i_nce_fresh": 0.0}), "steady", []),  # it has come back
        (changed(at50={"lipschitz": 100.0}), "steady", []),
        (changed(at50={"lipschitz": 123.4}), "exploded", ["by up to 123", "1.00", "2.00"]),
        (changed(at50={"lipschitz_inverse": 5e6}), "exploded", ["by up to 5e+06"]),
        (changed(at50={"lipschitz": None}), "exploded", ["by up to inf"]),
        (changed(at50={"lipschitz_inverse": math.nan}), "exploded", ["by up to inf"]),
        (waves(4), "steady", []),
        (waves(6), "cycling", ["swung 5 times by 0.5 nats", "1.00", "2.00"]),
        ([line | {"i_nce": line["i_nce"] / 3} for line in waves(11)], "steady", []),
        (changed(at0={"i_nce_fresh": 0.0}), "unmeasured", ["raw ones 0.00", "longer"]),
        (
            [ORDINARY[0], *(line | {"i_nce_fresh": None} for line in ORDINARY[1:])],
            "unmeasured",
            ["never measured"],
        ),
        ([], "unmeasured", ["never measured"]),
    ],
)
def test_a_word_and_a_sentence_say_how_the_game_went(log, word, parts):
    found, said = judge_game(log)
    assert found == word and said.endswith(".") and all(part in said for part in parts), said


def test_an_explosion_between_two_measurements_is_one():
    log = changed(at50={"lipschitz": 1e6})
    del log[5]["i_nce_fresh"]
    assert judge_game(log)[0] == "exploded" and "1e+06" in judge_game(log)[1]


@pytest.mark.parametrize(
    ("entropy", "word"), [(0.1, "steady"), (2.2, "steady"), (2.4, "collapsed"), (4.6, "collapsed")]
)
def test_views_that_share_a_label_alone_have_not_collapsed(entropy, word):
    """Of 5 nats a label of two classes is less than a tenth, and all that is wanted."""
    log = [row(step, 5.0, i_nce=1.0) | {"cross_entropy_held": 4.6} for step in range(0, 101, 10)]
    log[-1] |= {"i_nce_fresh": 0.4, "cross_entropy_held": entropy}
    assert judge_game(log)[0] == word
    assert best_generator(log, lambda row: row["cross_entropy_held"])["step"] == (
        100 if word == "steady" else 0
    )


def test_rows_without_measurement_or_without_a_step_do_not_matter():
    """The first row has no I_NCE of the game, most rows no fresh one, and a log no NaN."""
    log = waves(6)
    del log[0]["i_nce"]
    for line in log[1:-1]:
        del line["i_nce_fresh"]
    assert judge_game(log)[0] == "steady"  # a leg less
    log[0]["i_nce"] = 1.0
    log[7]["i_nce"] = None
    assert judge_game(log)[0] == "cycling"


@pytest.mark.parametrize("level", [-0.25, 0.0, 1.5])
def test_a_game_that_cycles_does_so_at_any_level(level):
    """Also where I_NCE is 0 to the last bit, which is a number as any other."""
    sound = {"i_nce_fresh": 2.0, "lipschitz": 1.0, "lipschitz_inverse": 1.0}
    log = [sound | {"i_nce": level + i % 2} for i in range(12)]
    assert judge_game(log)[0] == "cycling"
