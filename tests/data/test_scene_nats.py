"""What partners of scenes share, against exact probabilities, and how many nats that is."""

import itertools
import math

import numpy as np
import pytest
import torch
from scene_world import (
    SCENES,
    WORLD,
    N,
    check_range,
    finest,
    generator,
    histogram,
    levels,
    probabilities,
)
from scipy.stats import chi2, chi2_contingency

from infomin.data.scenes import (
    ALL,
    draw_partner,
    draw_scenes,
    parse_factors,
    render_scenes,
    shared_nats,
)

# Classes that pass through a channel, frequent alike or not, on either side of sharing nothing.
CHANNELS = ["digit~0.3", "digit~1", "digit%2~0.1", "digit%5~0.8", "digit%5~0.95-position"]
CHANNELS += ["position~0.4-background%2~0.2", "position%2~1-digit", "background~0.25-digit_image"]
# Every level of every factor, from nothing to the finest.
DIGIT = ("", "digit%2", "digit%5", "digit", "digit_image")
POSITION = ("", "position%2", "position")
BACKGROUND = ("", "background%2", "background", "background_image", "background_crop")
SHARES = {
    parts: "-".join(filter(None, parts)) or "nothing"
    for parts in itertools.product(DIGIT, POSITION, BACKGROUND)
}
every_share = pytest.mark.parametrize("share", [*SHARES.values(), "all", *CHANNELS])


def joint_probabilities(factor: str, level: str) -> np.ndarray:
    """P(u, v) of a scene's and its partner's finest values: the label is kept, the rest redrawn.

    With an error, the label of v is another one, each equally likely.
    """
    level, _, error = level.partition("~")
    p, label = probabilities(factor), levels(factor)[level]
    share = np.bincount(label, p)
    wrong = float(error or 0) / max(1, len(share) - 1)
    channel = np.where(np.eye(len(share)), 1 - float(error or 0), wrong)
    return p[:, None] * channel[label][:, label] * p / share[label]


def level_of(factor: str, share: str) -> str:
    share = {"all": ALL, "nothing": ""}.get(share, share)
    return next((part for part in share.split("-") if part.startswith(factor)), "")


def mutual_information(joint: np.ndarray) -> float:
    product = np.outer(joint.sum(1), joint.sum(0))
    positive = joint > 0
    return float((joint[positive] * np.log(joint[positive] / product[positive])).sum())


def rejected(counts: np.ndarray, expected: np.ndarray) -> bool:
    """Whether a chi-square test rejects at 1e-5; where nothing is expected nothing may be."""
    possible = expected > 0
    assert not counts[~possible].any()
    observed, expected = counts[possible], expected[possible]
    statistic = ((observed - expected) ** 2 / expected).sum()
    return bool(statistic > chi2.ppf(1 - 1e-5, len(expected) - 1))


@every_share
def test_partners_keep_what_is_named_and_redraw_the_rest(share: str) -> None:
    partner = draw_partner(SCENES, share, generator(4))
    check_range(partner)
    before, after = finest(SCENES), finest(partner)
    for factor in before:
        level = level_of(factor, share)
        if "~" not in level:
            label = levels(factor)[level]
            assert np.array_equal(label[before[factor]], label[after[factor]])  # kept exactly
        # Nothing else is kept, and the marginal is right.
        counts = histogram(factor, before[factor], factor, after[factor])
        assert not rejected(counts, N * joint_probabilities(factor, level)), (factor, level)
        for other in set(before) - {factor}:  # no other factor of the scene leaks into it
            table = histogram(other, before[other], factor, after[factor])
            assert chi2_contingency(table).pvalue > 1e-5, (other, factor)


@pytest.mark.parametrize(
    "share", ["nothing", "digit", "digit%2-background", "position%2", "background_image"]
)
def test_redrawn_factors_are_independent_of_each_other(share: str) -> None:
    after = finest(draw_partner(SCENES, share, generator(5)))
    for one, other in itertools.combinations(after, 2):
        table = histogram(one, after[one], other, after[other])
        assert chi2_contingency(table).pvalue > 1e-4, (one, other)


def test_all_gives_the_same_images_and_means_the_finest_levels() -> None:
    scenes = SCENES[:50]
    images = render_scenes(scenes)
    assert torch.equal(render_scenes(draw_partner(scenes, "all")), images)
    assert torch.equal(render_scenes(draw_partner(scenes, ALL)), images)
    coarser = draw_partner(scenes, "digit_image-position-background_image")
    assert not torch.equal(render_scenes(coarser), images)


def test_the_order_of_names_does_not_matter() -> None:
    for share in ("digit-position", "digit%2-background_image-position"):
        turned = "-".join(reversed(share.split("-")))
        assert parse_factors(share) == parse_factors(turned)
        assert shared_nats(SCENES, share) == pytest.approx(shared_nats(SCENES, turned))
    one = draw_partner(SCENES, "digit-position", generator(6)).tensors()
    other = draw_partner(SCENES, "position-digit", generator(6)).tensors()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@every_share
def test_nats_are_the_information_of_the_exact_probabilities(share: str) -> None:
    exact = 0.0
    for factor in ("digit", "position", "background"):
        exact += mutual_information(joint_probabilities(factor, level_of(factor, share)))
    assert shared_nats(SCENES, share) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(
    "share",
    ["nothing", "digit%2", "digit-position%2", "digit%2-background", "position", "digit_image"],
)
def test_nats_are_what_is_counted(share: str) -> None:
    """The plug-in estimate less its bias by Miller and Madow.

    It counts tuples (digit image, position parity, background), or positions alone.
    """
    scenes = draw_scenes(WORLD, 100_000, generator(7))
    partner = draw_partner(scenes, share, generator(8))
    if share == "position":
        u, v = scenes.position, partner.position
    else:
        u, v = (part.digit_image * 2 + part.position % 2 for part in (scenes, partner))
    if "background" in share:
        u, v = u * 3 + scenes.background, v * 3 + partner.background
    joint = np.bincount((u * 100 + v).numpy(), minlength=100 * 100).reshape(100, 100) / len(scenes)
    cells, rows, columns = ((table > 0).sum() for table in (joint, joint.sum(1), joint.sum(0)))
    bias = (cells - rows - columns + 1) / (2 * len(scenes))
    assert shared_nats(scenes, share) == pytest.approx(mutual_information(joint) - bias, abs=0.006)


DIGIT_IMAGE = math.log(6) + math.log(3 * 2 * 1 * 2 * 1 * 3) / 6
BACKGROUND_CROP = math.log(3) + math.log(2 * 1 * 2) / 3 + math.log(6)
BY_HAND = {
    "nothing": 0,
    "digit": math.log(6),
    "digit%2": math.log(2),
    "digit%3": math.log(3),
    "digit%4": 2 / 3 * math.log(3) + 1 / 3 * math.log(6),  # 0 and 4 | 1 and 5 | 2 | 3
    "digit%5": 1 / 3 * math.log(3) + 2 / 3 * math.log(6),  # 0 and 5 | 1 | 2 | 3 | 4
    "digit%6": math.log(6),
    "digit%9": math.log(6),
    "position": math.log(9),
    "position%2": math.log(9) - 5 / 9 * math.log(5) - 4 / 9 * math.log(4),
    "background": math.log(3),
    "background%2": math.log(3) - 2 / 3 * math.log(2),
    "digit_image": DIGIT_IMAGE,
    "background_image": math.log(3) + math.log(2 * 1 * 2) / 3,
    "background_crop": BACKGROUND_CROP,
    "digit-position": math.log(54),
    "all": DIGIT_IMAGE + math.log(9) + BACKGROUND_CROP,
}


@pytest.mark.parametrize("share", BY_HAND)
def test_nats_by_hand(share: str) -> None:
    nats = shared_nats(SCENES, share)
    assert nats == pytest.approx(BY_HAND[share], abs=1e-12)
    assert shared_nats(SCENES[:1], share) == nats  # a fact of the world, not of the sample


def test_sharing_more_never_lowers_the_nats() -> None:
    every_level = {*DIGIT, *POSITION, *BACKGROUND}
    finer = {("", level) for level in every_level} | {(level, level) for level in every_level}
    for chain in (
        ("digit%2", "digit", "digit_image"),
        ("digit%5", "digit"),
        ("position%2", "position"),
        BACKGROUND[1:],
    ):
        finer |= set(itertools.combinations(chain, 2))
    nats = {parts: shared_nats(SCENES, share) for parts, share in SHARES.items()}
    compared = 0
    for less, more in itertools.permutations(nats, 2):
        if all(pair in finer for pair in zip(less, more, strict=True)):
            assert nats[less] < nats[more]
            compared += 1
    assert compared > 500
    everything = nats["digit_image", "position", "background_crop"]
    assert max(nats.values()) == everything == shared_nats(SCENES, "all")
