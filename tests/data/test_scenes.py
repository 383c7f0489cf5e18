"""Scenes against per-pixel and per-value oracles: what is rendered, what partners share, and how many nats that is."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2, chi2_contingency
from torch import Tensor

from infomin.data.scenes import (
    ALL,
    Scenes,
    World,
    corners,
    draw_partner,
    draw_scenes,
    parse_factors,
    render_scenes,
    shared_nats,
)

N = 20_000


def world() -> World:
    """6 classes of 3, 2, 1, 2, 1 and 3 digits; 3 classes of 2, 1 and 2 backgrounds; 9 places; 2 x 3 crops. Pixels are random."""
    g = torch.Generator().manual_seed(0)
    return World(
        digits=torch.randint(256, (12, 5, 4), dtype=torch.uint8, generator=g),
        digit_class=torch.tensor([5, 0, 1, 0, 2, 5, 0, 1, 3, 4, 5, 3]),  # in no order
        backgrounds=torch.randint(256, (5, 3, 13, 14), dtype=torch.uint8, generator=g),
        background_class=torch.tensor([2, 0, 1, 0, 2]),
        size=12,
    )


WORLD = world()
SCENES = draw_scenes(WORLD, N, torch.Generator().manual_seed(1))


def test_what_scenes_are_called_shows_sizes_and_no_picture() -> None:
    assert (
        repr(WORLD)
        == "World(digits=[12, 5, 4], backgrounds=[5, 3, 13, 14], size=12, cells=3, dim=0.5)"
    )
    said = repr(SCENES[:2])
    assert said.startswith(f"Scenes(world={WORLD!r}, digit=tensor([") and len(said) < 500


# The family: every level of every factor, from nothing to its finest; `>` would read "shares more than".
DIGIT = ("", "digit%2", "digit%5", "digit", "digit_image")
POSITION = ("", "position%2", "position")
BACKGROUND = ("", "background%2", "background", "background_image", "background_crop")
SHARES = {
    parts: "-".join(filter(None, parts)) or "nothing"
    for parts in itertools.product(DIGIT, POSITION, BACKGROUND)
}
every_share = pytest.mark.parametrize("share", [*SHARES.values(), "all"])


def finest(scenes: Scenes) -> dict[str, np.ndarray]:
    """Each factor at its finest level, as one whole number a scene."""
    crop = scenes.background_image * 6 + scenes.crop[:, 0] * 3 + scenes.crop[:, 1]
    return {
        "digit": scenes.digit_image.numpy(),
        "position": scenes.position.numpy(),
        "background": crop.numpy(),
    }


def levels(factor: str) -> dict[str, np.ndarray]:
    """For each finest value of a factor, its label at each level."""
    if factor == "position":
        place = np.arange(9)
        return {"": 0 * place, "position": place, "position%2": place % 2}
    bank = getattr(WORLD, f"{factor}_class").numpy()
    per_image = 1 if factor == "digit" else 6
    image = np.repeat(np.arange(len(bank)), per_image)
    kind = bank[image]
    names = {
        "": 0 * image,
        factor: kind,
        f"{factor}%2": kind % 2,
        f"{factor}%5": kind % 5,
        f"{factor}_image": image,
    }
    return names | {"background_crop": np.arange(len(image))}


def chances(factor: str) -> np.ndarray:
    """The probability of each finest value: classes uniform, images uniform in a class, crops uniform in an image."""
    if factor == "position":
        return np.full(9, 1 / 9)
    kind = levels(factor)[factor]
    return 1 / (kind.max() + 1) / np.bincount(kind)[kind]


def law(factor: str, level: str) -> np.ndarray:
    """P(u, v) of a scene's finest value and its partner's: the label is kept, all else drawn anew."""
    p, label = chances(factor), levels(factor)[level]
    return np.array(
        [
            [
                p[u] * p[v] / p[label == label[u]].sum() if label[u] == label[v] else 0
                for v in range(len(p))
            ]
            for u in range(len(p))
        ]
    )


def level_of(factor: str, share: str) -> str:
    share = {"all": ALL, "nothing": ""}.get(share, share)
    return next((part for part in share.split("-") if part.startswith(factor)), "")


def information(joint: np.ndarray) -> float:
    out = np.outer(joint.sum(1), joint.sum(0))
    return float((joint[joint > 0] * np.log(joint[joint > 0] / out[joint > 0])).sum())


def improbable(counts: np.ndarray, expected: np.ndarray) -> bool:
    """Whether a chi-square test rejects at 1e-5; where nothing is expected nothing may be."""
    assert not counts[expected == 0].any()
    e = expected[expected > 0]
    return bool(((counts[expected > 0] - e) ** 2 / e).sum() > chi2.ppf(1 - 1e-5, len(e) - 1))


# --- what is drawn ---


def test_a_world_that_nothing_can_be_drawn_from_is_told() -> None:
    ink, ground = (
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 3, 40, 40, dtype=torch.uint8),
    )
    for world, said in (
        (
            World(ink, torch.tensor([0, 2, 2]), ground, torch.tensor([0, 1])),
            "number the classes without gaps",
        ),
        (
            World(ink, torch.tensor([0, 1, 1]), ground, torch.tensor([0, 1]), size=48),
            "got a canvas of 48 px, wanted 8",
        ),
        (
            World(ink, torch.tensor([0, 1, 1]), ground, torch.tensor([0, 1]), size=7),
            "got a canvas of 7 px, wanted 8",
        ),
        (
            World(ink, torch.tensor([0, 1, 1]), ground, torch.tensor([0, 1]), dim=-0.5),
            "got a brightness of -0.5, wanted 0 to 1",
        ),
        (
            World(ink, torch.tensor([0, 1, 1]), ground, torch.tensor([0, 1]), dim=1.5),
            "got a brightness of 1.5, wanted 0 to 1",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            draw_scenes(world, 2)


def test_draws_are_uniform() -> None:
    for factor, values in finest(SCENES).items():
        expected = N * chances(factor)
        counts = np.bincount(values, minlength=len(expected))
        assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(
            1 - 1e-3, len(expected) - 1
        ), factor
    for name, kinds in (("digit", 6), ("background", 3)):
        counts = getattr(SCENES, name).bincount(minlength=kinds).numpy()
        assert ((counts - N / kinds) ** 2 / (N / kinds)).sum() < chi2.ppf(1 - 1e-3, kinds - 1), name


def test_factors_are_drawn_independently() -> None:
    values = finest(SCENES)
    for one, other in itertools.combinations(values, 2):
        table = np.histogram2d(
            values[one], values[other], bins=(len(chances(one)), len(chances(other)))
        )[0]
        assert chi2_contingency(table).pvalue > 1e-3, (one, other)


def in_range(scenes: Scenes) -> None:
    w = scenes.world
    assert torch.equal(w.digit_class[scenes.digit_image], scenes.digit)
    assert torch.equal(w.background_class[scenes.background_image], scenes.background)
    assert scenes.position.min() >= 0 and scenes.position.max() < w.cells**2
    room = torch.tensor(w.backgrounds.shape[2:]) - w.size
    assert (scenes.crop >= 0).all() and (scenes.crop <= room).all()
    corner = corners(scenes)
    assert (corner >= 0).all() and (corner + torch.tensor(w.digits.shape[1:]) <= w.size).all()
    assert all(
        value.dtype == torch.long and len(value) == len(scenes)
        for value in scenes.tensors().values()
    )


WORLDS = {
    "small": WORLD,
    "one cell": replace(WORLD, cells=1),
    "many cells": replace(WORLD, cells=5),
    "full canvas": replace(WORLD, digits=torch.zeros(12, 12, 12, dtype=torch.uint8)),
    "no room for the crop": replace(WORLD, backgrounds=WORLD.backgrounds[:, :, :12, :12]),
    "one class each": replace(
        WORLD, digit_class=torch.zeros(12).long(), background_class=torch.zeros(5).long()
    ),
}
every_world = pytest.mark.parametrize("name", WORLDS)


@every_world
def test_everything_is_in_range_and_reaches_its_ends(name: str) -> None:
    scenes = draw_scenes(WORLDS[name], 2000, torch.Generator().manual_seed(2))
    in_range(scenes)
    w, corner = scenes.world, corners(scenes)
    room = torch.tensor(w.size) - torch.tensor(w.digits.shape[1:])
    if w.cells > 1:
        assert corner.amin(0).tolist() == [0, 0] and torch.equal(corner.amax(0), room)
    assert len(set(map(tuple, corner.tolist()))) == (
        1 if name == "full canvas" else w.cells**2
    )  # as many as there are cells
    assert len(set(map(tuple, scenes.crop.tolist()))) == math.prod(
        side - w.size + 1 for side in w.backgrounds.shape[2:]
    )


def test_cells_run_through_the_rows_of_the_grid() -> None:
    scenes = replace(SCENES[:9], position=torch.arange(9))
    assert corners(scenes).tolist() == [
        [y, x] for y in (0, 3, 7) for x in (0, 4, 8)
    ]  # room 7 x 8, rounded down


# --- what is rendered ---


def slow_render(scenes: Scenes) -> np.ndarray:
    w = scenes.world
    height, width = w.digits.shape[1:]
    out = np.zeros((len(scenes), 3, w.size, w.size))
    for n in range(len(scenes)):
        row, column = divmod(int(scenes.position[n]), w.cells)
        top = row * (w.size - height) // max(1, w.cells - 1)
        left = column * (w.size - width) // max(1, w.cells - 1)
        for c, y, x in itertools.product(range(3), range(w.size), range(w.size)):
            paper = int(
                w.backgrounds[
                    scenes.background_image[n], c, scenes.crop[n, 0] + y, scenes.crop[n, 1] + x
                ]
            )
            inside = top <= y < top + height and left <= x < left + width
            ink = int(w.digits[scenes.digit_image[n], y - top, x - left]) / 255 if inside else 0.0
            out[n, c, y, x] = ink + (1 - ink) * w.dim * paper / 255
    return out


@every_world
@pytest.mark.parametrize("dim", [0.5, 1.0, 0.0])
def test_render_equals_the_loop_over_pixels(name: str, dim: float) -> None:
    scenes = draw_scenes(replace(WORLDS[name], dim=dim), 6, torch.Generator().manual_seed(3))
    images = render_scenes(scenes)
    assert images.dtype == torch.float32 and images.shape == (6, 3, 12, 12)
    np.testing.assert_allclose(images.numpy(), slow_render(scenes), rtol=0, atol=1e-6)
    assert images.min() >= 0 and images.max() <= 1


def test_every_factor_shows() -> None:
    w, one = WORLD, SCENES[:1]
    for name, values in (("digit_image", 12), ("position", 9), ("background_image", 5)):
        pictures = {
            render_scenes(replace(one, **{name: torch.tensor([v])})).numpy().tobytes()
            for v in range(values)
        }
        assert len(pictures) == values, name
    crops = [torch.tensor([[y, x]]) for y in range(2) for x in range(3)]
    assert len({render_scenes(replace(one, crop=crop)).numpy().tobytes() for crop in crops}) == 6
    assert not torch.equal(
        render_scenes(one), render_scenes(replace(one, world=replace(w, dim=0.4)))
    )


def test_render_of_a_batch_is_the_render_of_each() -> None:
    some = SCENES[:7]
    assert torch.equal(
        render_scenes(some), torch.cat([render_scenes(some[i : i + 1]) for i in range(7)])
    )
    assert render_scenes(some[:0]).shape == (0, 3, 12, 12)


# --- what partners share ---


@every_share
def test_partners_keep_what_is_named_and_draw_the_rest_anew(share: str) -> None:
    mate = draw_partner(SCENES, share, torch.Generator().manual_seed(4))
    in_range(mate)
    before, after = finest(SCENES), finest(mate)
    for factor in before:
        level, size = level_of(factor, share), len(chances(factor))
        label = levels(factor)[level]
        assert np.array_equal(label[before[factor]], label[after[factor]])  # kept exactly
        counts = np.bincount(before[factor] * size + after[factor], minlength=size**2).reshape(
            size, size
        )
        assert not improbable(counts, N * law(factor, level)), (
            factor,
            level,
        )  # nothing but it is kept, and the margin stays
        for other in set(before) - {factor}:  # nor does another factor of the scene leak into it
            table = np.histogram2d(before[other], after[factor], bins=(len(chances(other)), size))[
                0
            ]
            assert chi2_contingency(table).pvalue > 1e-5, (other, factor)


@pytest.mark.parametrize(
    "share", ["nothing", "digit", "digit%2-background", "position%2", "background_image"]
)
def test_factors_drawn_anew_are_independent_of_each_other(share: str) -> None:
    after = finest(draw_partner(SCENES, share, torch.Generator().manual_seed(5)))
    for one, other in itertools.combinations(after, 2):
        table = np.histogram2d(
            after[one], after[other], bins=(len(chances(one)), len(chances(other)))
        )[0]
        assert chi2_contingency(table).pvalue > 1e-4, (one, other)


def test_all_gives_the_same_images_and_the_finest_levels_are_all() -> None:
    some = SCENES[:50]
    assert torch.equal(render_scenes(draw_partner(some, "all")), render_scenes(some))
    assert torch.equal(render_scenes(draw_partner(some, ALL)), render_scenes(some))
    assert not torch.equal(
        render_scenes(draw_partner(some, "digit_image-position-background_image")),
        render_scenes(some),
    )


def test_the_order_of_names_means_nothing() -> None:
    for share in ("digit-position", "digit%2-background_image-position"):
        turned = "-".join(reversed(share.split("-")))
        assert parse_factors(share) == parse_factors(turned) and shared_nats(
            SCENES, share
        ) == pytest.approx(shared_nats(SCENES, turned))
    mates = [
        draw_partner(SCENES, share, torch.Generator().manual_seed(6))
        for share in ("digit-position", "position-digit")
    ]
    assert all(
        torch.equal(value, mates[1].tensors()[name]) for name, value in mates[0].tensors().items()
    )


# --- how many nats ---


@every_share
def test_nats_are_the_information_of_the_exact_law(share: str) -> None:
    exact = sum(
        information(law(factor, level_of(factor, share)))
        for factor in ("digit", "position", "background")
    )
    assert shared_nats(SCENES, share) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(
    "share",
    ["nothing", "digit%2", "digit-position%2", "digit%2-background", "position", "digit_image"],
)
def test_nats_are_what_is_counted(share: str) -> None:
    """The plug-in estimate over tuples (digit image, position parity, background), less its bias by Miller and Madow."""
    scenes = draw_scenes(WORLD, 100_000, torch.Generator().manual_seed(7))
    mate = draw_partner(scenes, share, torch.Generator().manual_seed(8))
    u, v = (
        (s.digit_image * 2 + s.position % 2 if share != "position" else s.position)
        for s in (scenes, mate)
    )
    if "background" in share:
        u, v = u * 3 + scenes.background, v * 3 + mate.background
    joint = np.bincount((u * 100 + v).numpy(), minlength=100 * 100).reshape(100, 100) / len(scenes)
    bias = ((joint > 0).sum() - (joint.sum(1) > 0).sum() - (joint.sum(0) > 0).sum() + 1) / (
        2 * len(scenes)
    )
    assert shared_nats(scenes, share) == pytest.approx(information(joint) - bias, abs=0.006)


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
    "digit_image": math.log(6) + math.log(3 * 2 * 1 * 2 * 1 * 3) / 6,
    "background_image": math.log(3) + math.log(2 * 1 * 2) / 3,
    "background_crop": math.log(3) + math.log(2 * 1 * 2) / 3 + math.log(6),
    "digit-position": math.log(54),
    "all": math.log(6)
    + math.log(36) / 6
    + math.log(9)
    + math.log(3)
    + math.log(4) / 3
    + math.log(6),
}


@pytest.mark.parametrize("share", BY_HAND)
def test_nats_by_hand(share: str) -> None:
    assert shared_nats(SCENES, share) == pytest.approx(BY_HAND[share], abs=1e-12)
    assert shared_nats(SCENES[:1], share) == shared_nats(
        SCENES, share
    )  # a fact of the world, not of the sample


def test_sharing_more_never_lowers_the_nats() -> None:
    finer = {("", x) for x in (*DIGIT, *POSITION, *BACKGROUND)} | {
        (x, x) for x in (*DIGIT, *POSITION, *BACKGROUND)
    }
    for chain in (
        ("digit%2", "digit", "digit_image"),
        ("digit%5", "digit"),
        ("position%2", "position"),
        BACKGROUND[1:],
    ):
        finer |= set(itertools.combinations(chain, 2))
    found = {parts: shared_nats(SCENES, share) for parts, share in SHARES.items()}

    def ordered() -> Iterator[tuple[float, float]]:
        for one, other in itertools.permutations(found, 2):
            if all(pair in finer for pair in zip(one, other, strict=True)):
                yield found[one], found[other]

    pairs = list(ordered())
    assert len(pairs) > 500 and all(less < more for less, more in pairs)
    assert (
        max(found.values())
        == found["digit_image", "position", "background_crop"]
        == shared_nats(SCENES, "all")
    )


# --- randomness, devices, errors ---


def equal(one: Scenes, other: Scenes) -> bool:
    return all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())


def test_the_same_generator_gives_the_same_scenes() -> None:
    def twice(seed: int) -> tuple[Scenes, Scenes]:
        g = torch.Generator().manual_seed(seed)
        scenes = draw_scenes(WORLD, 50, g)
        return scenes, draw_partner(scenes, "digit%2-background", g)

    before = torch.get_rng_state()
    one, other, third = twice(0), twice(0), twice(1)
    assert all(map(equal, one, other)) and not any(map(equal, one, third))
    assert torch.equal(
        torch.get_rng_state(), before
    )  # a generator that is given is the only one that is used
    torch.manual_seed(3)
    scenes = draw_scenes(WORLD, 50)
    torch.manual_seed(3)
    assert equal(scenes, draw_scenes(WORLD, 50))


def test_partner_leaves_the_scenes_as_they_are() -> None:
    before = {name: value.clone() for name, value in SCENES.tensors().items()}
    draw_partner(SCENES, "digit%2-position%2-background")
    assert all(torch.equal(value, before[name]) for name, value in SCENES.tensors().items())


@pytest.mark.parametrize(
    "device", ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]
)
def test_scenes_move_with_their_world(device: str) -> None:
    moved = SCENES[:5].to(device)
    tensors: list[Tensor] = [*moved.tensors().values(), moved.world.digits, moved.world.digit_class]
    tensors += [moved.world.backgrounds, moved.world.background_class]
    assert all(value.device.type == device for value in tensors) and len(moved) == 5
    assert moved.world.size == 12 and corners(moved).device.type == device
    if device != "meta":
        mate = draw_partner(moved, "digit%2", torch.Generator().manual_seed(0))
        assert mate.digit.device.type == device
        assert equal(
            mate.to("cpu"), draw_partner(SCENES[:5], "digit%2", torch.Generator().manual_seed(0))
        )
        torch.testing.assert_close(render_scenes(moved).cpu(), render_scenes(SCENES[:5]))


def test_scenes_are_sliced_by_slices_and_indices() -> None:
    index = torch.tensor([4, 0, 4])
    assert torch.equal(SCENES[index].crop, SCENES.crop[index]) and len(SCENES[index]) == 3
    assert len(SCENES[10:20]) == 10 and SCENES[10:20].world is SCENES.world


def test_parse_reads_names_and_moduli() -> None:
    assert (
        parse_factors("nothing") == {}
        and parse_factors("digit%10") == {"digit": 10}
        and parse_factors("position%2-digit") == {"position": 2, "digit": 0}
    )
    assert (
        parse_factors("all")
        == parse_factors(ALL)
        == {"digit_image": 0, "position": 0, "background_crop": 0}
    )


@pytest.mark.parametrize(
    "share",
    [
        "",
        "digits",
        "digit-",
        "digit--position",
        "nothing-digit",
        "all-digit",
        "crop",
        "digit+position",
        "%2",
    ],
)
def test_an_unknown_factor_lists_the_known_ones(share: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"wanted one of digit, digit_image, position, background, .*; pick one of those",
    ) as caught:
        parse_factors(share)
    assert "'nothing' or 'all'" in str(caught.value)


@pytest.mark.parametrize(
    "part",
    [
        "digit%1",
        "digit%0",
        "digit%x",
        "digit%",
        "digit%2.5",
        "digit%2%2",
        "digit_image%2",
        "background_crop%3",
    ],
)
def test_a_bad_modulus_says_what_is_wanted(part: str) -> None:
    with pytest.raises(
        ValueError, match="wanted digit, position or background % a whole number from 2"
    ) as caught:
        parse_factors(f"position-{part}")
    assert repr(part) in str(caught.value)


@pytest.mark.parametrize(
    "share",
    [
        "digit-digit",
        "digit-digit_image",
        "digit%2-digit%5",
        "background_crop-background",
        "position-position%2",
    ],
)
def test_a_factor_named_twice_is_an_error(share: str) -> None:
    with pytest.raises(ValueError, match="names a factor twice; keep the finer one"):
        parse_factors(share)


@pytest.mark.parametrize("function", [shared_nats, draw_partner])
def test_a_bad_share_is_an_error_at_every_door(function: object) -> None:
    with pytest.raises(ValueError, match="wanted one of"):
        function(SCENES[:1], "digits")  # type: ignore[operator]


def test_scenes_are_rows_and_compare_as_what_they_are() -> None:
    some = SCENES[3:5]
    assert isinstance(some, Scenes) and len(some) == 2 and some.world is WORLD
    assert list(some.tensors()) == [
        "digit",
        "digit_image",
        "position",
        "background",
        "background_image",
        "crop",
    ]
    assert all(
        torch.equal(value, getattr(SCENES, name)[3:5]) for name, value in some.tensors().items()
    )
    assert (
        some == some and some != SCENES[3:5]
    )  # tensors have no truth value by which they could be told apart


def test_numbers_are_fine_enough_for_any_count():
    """Of float32, whose steps are 2**-24, every fourth crop of this picture could be drawn and no other."""
    ground, room = torch.zeros(1, dtype=torch.uint8).expand(1, 3, 8, 2**26 + 7), 2**26
    scenes = draw_scenes(World(ground[..., :8][:, 0], torch.zeros(1).long(), ground, torch.zeros(1).long(), size=8), 4000,
                  torch.Generator().manual_seed(0))  # fmt: skip
    left = scenes.crop[:, 1]
    assert left.min() >= 0 and left.max() < room and (scenes.crop[:, 0] == 0).all()
    assert torch.allclose(
        (left % 4).bincount(minlength=4) / 4000, torch.full((4,), 0.25), atol=0.04
    )
