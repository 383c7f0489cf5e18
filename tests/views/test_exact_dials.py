"""Dials of known information: classes through a channel, and bits beside the picture."""

import math
from dataclasses import replace
from itertools import combinations, product

import pytest
import torch
from torch import Tensor
from view_cases import BITS, IMAGES, SCENES, inputs, seed, world

from infomin import Recipe, run
from infomin.data.scenes import channel_nats, draw_partner, draw_scenes
from infomin.views import Bits, Crop, Each, Flip, SharedFactors, Then, parse

N = 40_000
LOG2 = math.log(2)


def information(joint: Tensor) -> float:
    """I of a table of probabilities `[u, v]`, term by term."""
    product_of_margins = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    terms = joint * (joint / product_of_margins).log()
    return float(terms[joint > 0].sum())


def is_within_4_sigma(hits: Tensor, p: float) -> bool:
    return abs(float(hits.double().mean()) - p) <= 4 * math.sqrt(p * (1 - p) / hits.numel())


@pytest.mark.parametrize("p", [[0.5, 0.5], [0.7, 0.2, 0.1], [0.1] * 10, [5 / 9, 4 / 9], [1.0]])
@pytest.mark.parametrize("error", [0, 0.1, 0.5, 2 / 3, 0.9, 0.97, 1])
def test_nats_through_a_channel_are_those_of_the_enumerated_table(p: list, error: float) -> None:
    table = torch.zeros(len(p), len(p), dtype=torch.float64)
    for (u, p_u), v in product(enumerate(p), range(len(p))):
        wrong = error / (len(p) - 1) if len(p) > 1 else 0
        table[u, v] = p_u * (wrong if u != v else 1 - wrong * (len(p) - 1))
    nats = channel_nats(torch.tensor(p, dtype=torch.float64), error)
    assert nats >= 0 and nats == pytest.approx(information(table), abs=1e-9)


def test_nats_of_a_class_fall_to_0_where_all_classes_are_equally_likely_and_rise_again() -> None:
    nats = [SharedFactors(f"digit~{error}").nats(SCENES) for error in (0, 0.18, 0.36, 0.54, 0.72)]
    assert [round(value, 2) for value in nats] == [2.30, 1.44, 0.86, 0.43, 0.13]
    assert SharedFactors("digit~0.9").nats(SCENES) == pytest.approx(0, abs=1e-12)
    assert SharedFactors("digit~1").nats(SCENES) == pytest.approx(math.log(10 / 9))
    assert SharedFactors("digit%2~0.5").nats(SCENES) == 0
    assert SharedFactors("digit%2~1").nats(SCENES) == pytest.approx(LOG2)
    both = SharedFactors("digit~0.3-position%2~0.1").nats(SCENES)
    each = [SharedFactors(part).nats(SCENES) for part in ("digit~0.3", "position%2~0.1")]
    assert both == pytest.approx(sum(each), abs=1e-12)


@pytest.mark.parametrize("error", [0.3, 0.9, 1.0])
def test_the_classes_of_partners_are_drawn_through_the_channel(error: float) -> None:
    scenes = draw_scenes(world(), N, seed(1))
    partner = draw_partner(scenes, f"digit~{error}", seed(2))
    assert torch.equal(scenes.world.digit_class[partner.digit_image], partner.digit)
    step = (partner.digit - scenes.digit) % 10
    assert is_within_4_sigma(step == 0, 1 - error)
    assert all(is_within_4_sigma(step == k, error / 9) for k in range(1, 10))


def test_without_an_error_draws_are_those_of_the_plain_word() -> None:
    for word in ("digit", "digit%2-position"):
        plain, same = (parse(f"shared:{word}{end}")(SCENES, seed(0)) for end in ("", "~0"))
        assert all(map(torch.equal, plain, same))


def test_a_single_class_has_no_other_and_is_kept() -> None:
    alone = draw_scenes(replace(world(), digit_class=torch.zeros(12).long()), 8, seed(0))
    assert draw_partner(alone, "digit~1", seed(1)).digit.eq(0).all()
    assert SharedFactors("digit~1").nats(alone) == 0


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("training", [True, False])
def test_bits_stand_beside_the_views_that_the_rest_of_the_chain_draws(
    name: str, training: bool
) -> None:
    if not name.startswith("bits"):
        view, rest = parse(name).train(training), parse(name.rpartition("+")[0]).train(training)
        pictures = rest(inputs(view), seed(0))
        pictures = pictures * 2 if len(pictures) == 1 else pictures
        views = view(inputs(view), seed(0))
        assert view.augments == rest.augments and view.takes == rest.takes
        assert all(torch.equal(v[:, :-2], p) for v, p in zip(views, pictures, strict=True))
    view = parse(name).train(training)
    planes = [v[:, -2:] for v in view(inputs(view), seed(0))]
    assert all(torch.equal(p, p[..., :1, :1].expand_as(p)) for p in planes)  # constant
    if "~0.25" not in name and "~0.5" not in name:
        assert all(torch.equal(p[..., 0, 0], planes[0][..., 0, 0]) for p in planes)
    anew = view(inputs(view), seed(9))[0][:, -2:]
    assert not torch.equal(anew, planes[0])


def drawn_bits(view: Bits, calls: int = 4) -> list[Tensor]:
    """What the planes of each view show of many images, bool `[N, count]`."""
    generator, black = seed(3), torch.zeros(N // calls, 1, 1, 1)
    drawn = [view(black, generator) for _ in range(calls)]
    shown = torch.stack([v[:, 1:] for views in drawn for v in views]).unique()
    assert shown.tolist() == pytest.approx([0, view.contrast])
    return [torch.cat(views)[:, 1:, 0, 0] > 0 for views in zip(*drawn, strict=True)]


@pytest.mark.parametrize("flip", [0, 0.1, 0.5, 1])
def test_bits_are_fair_independent_and_flip_as_often_as_they_should(flip: float) -> None:
    first, second = drawn_bits(Bits(3, contrast=0.02, flip=flip))
    if flip == 0:
        assert torch.equal(first, second)
    columns = [*first.unbind(1), *second.unbind(1)]
    assert all(is_within_4_sigma(column, 0.5) for column in columns)
    for i, j in combinations(range(6), 2):
        assert is_within_4_sigma(columns[i] ^ columns[j], flip if j == i + 3 else 0.5)
    assert is_within_4_sigma(first[1:] ^ first[:-1], 0.5)  # from sample to sample
    quarter = N // 4
    assert is_within_4_sigma(first[quarter : 2 * quarter] ^ first[:quarter], 0.5)  # and batch


@pytest.mark.parametrize("flip", [0, 0.1, 0.25, 0.5, 1])
def test_nats_of_bits_are_those_of_the_enumerated_table(flip: float) -> None:
    codes = list(product((0, 1), repeat=3))
    table = [
        [
            math.prod(0.5 * (flip if a != b else 1 - flip) for a, b in zip(u, v, strict=True))
            for v in codes
        ]
        for u in codes
    ]
    expected = information(torch.tensor(table, dtype=torch.float64))
    assert Bits(3, flip=flip).bit_nats == pytest.approx(expected, abs=1e-9)
    assert parse(f"shared:nothing+bits:3*0.1~{flip}").nats(SCENES) == pytest.approx(expected)
    assert Bits(3, contrast=0, flip=flip).bit_nats == Bits(0, flip=flip).bit_nats == 0


def test_nats_add_up_where_those_of_the_rest_are_known() -> None:
    rest = SharedFactors("digit~0.3").nats(SCENES)
    assert parse("shared:digit~0.3+bits:4").nats(SCENES) == rest + 4 * LOG2
    assert parse("shared:digit~0.3+bits:4+bits:1~0.5").nats(SCENES) == rest + 4 * LOG2
    assert parse("shared:digit~0.3+bits:0").nats(SCENES) == rest
    for word in ("bits:8", "crop:0.2+bits:8", "color:lab+bits:2"):
        assert parse(word).nats(IMAGES) is None
    for word in ("shared:digit+color:lab+bits:2", "shared:digit+bits:2+crop:0.5"):
        assert parse(word).nats(SCENES) is None


@pytest.mark.parametrize(
    "dial", ["", "x", "-1", "2.5", "1001", "8*2", "8~1.1", "8~0.1*0.1", "8/2", "8*", "8~", "8*-1"]
)
def test_a_bad_dial_of_bits_is_an_error_with_an_example(dial: str) -> None:
    with pytest.raises(ValueError, match=r"^view 'bits:.*; the dial of bits is .*bits:8\*0.1"):
        parse(f"bits:{dial}")


def test_bits_that_would_differ_between_views_are_an_error() -> None:
    two = Each(Crop(), Crop())
    for last in (Then(Bits(2), Flip()), Then(Flip(), Bits(2)), Each(Bits(2))):
        with pytest.raises(ValueError, match=r"Then: got Bits inside .*; compose from the left"):
            Then(two, last)
    views = Then(Then(two, Bits(2)), Flip(1))(IMAGES, seed(0))
    assert torch.equal(views[0][:, 3:], views[1][:, 3:])
    with pytest.raises(ValueError, match="Then: ColorSplit takes images of 3 channels"):
        parse("bits:2+color:lab")


def test_a_run_has_the_exact_nats_in_its_row() -> None:
    sizes = {"steps": 4, "batch": 16, "probe_images": 64, "candidates": 16, "width": 0.25}
    row = run(Recipe(view="shared:digit~0.3+bits:2", data="digits", device="cpu", **sizes))
    uniform = torch.full((10,), 0.1, dtype=torch.float64)
    assert row["status"] == "done" and math.isfinite(row["i_nce"])
    assert row["true_nats"] == pytest.approx(channel_nats(uniform, 0.3) + 2 * LOG2, abs=1e-9)
