"""Scenes against oracles per pixel and per value: what is drawn, rendered and shared."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scene_world import SCENES, WORLD, N, check_range, finest, generator, histogram, probabilities
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

WORLDS = {
    "small": WORLD,
    "one cell": replace(WORLD, cells=1),
    "many cells": replace(WORLD, cells=5),
    "full canvas": replace(WORLD, digits=torch.zeros(12, 12, 12, dtype=torch.uint8)),
    "a single crop": replace(WORLD, backgrounds=WORLD.backgrounds[:, :, :12, :12]),
    "one class each": replace(
        WORLD, digit_class=torch.zeros(12).long(), background_class=torch.zeros(5).long()
    ),
}
every_world = pytest.mark.parametrize("name", WORLDS)


def equal(one: Scenes, other: Scenes) -> bool:
    return all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())


# --- what is drawn ---


def test_the_repr_of_scenes_shows_sizes_and_no_picture() -> None:
    banks = "digits=[12, 5, 4], backgrounds=[5, 3, 13, 14]"
    assert repr(WORLD) == f"World({banks}, size=12, cells=3, dim=0.5)"
    text = repr(SCENES[:2])
    assert text.startswith(f"Scenes(world={WORLD!r}, digit=tensor([") and len(text) < 500


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"digit_class": torch.tensor([0, 2, 2])}, "number the classes without gaps"),
        ({"size": 48}, "got a canvas of 48 px, wanted 8"),
        ({"size": 7}, "got a canvas of 7 px, wanted 8"),
        ({"dim": -0.5}, "got a brightness of -0.5, wanted 0 to 1"),
        ({"dim": 1.5}, "got a brightness of 1.5, wanted 0 to 1"),
    ],
    ids=str,
)
def test_a_world_that_nothing_can_be_drawn_from_is_an_error(fields: dict, message: str) -> None:
    ink, photos = torch.zeros(3, 8, 8).byte(), torch.zeros(2, 3, 40, 40).byte()
    world = World(ink, torch.tensor([0, 1, 1]), photos, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=message):
        draw_scenes(replace(world, **fields), 2)


def test_draws_are_uniform() -> None:
    for factor, values in finest(SCENES).items():
        expected = N * probabilities(factor)
        counts = np.bincount(values, minlength=len(expected))
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert statistic < chi2.ppf(1 - 1e-3, len(expected) - 1), factor
    for name, classes in (("digit", 6), ("background", 3)):
        counts = getattr(SCENES, name).bincount(minlength=classes).numpy()
        expected = N / classes
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert statistic < chi2.ppf(1 - 1e-3, classes - 1), name


def test_factors_are_drawn_independently() -> None:
    values = finest(SCENES)
    for one, other in itertools.combinations(values, 2):
        table = histogram(one, values[one], other, values[other])
        assert chi2_contingency(table).pvalue > 1e-3, (one, other)


@every_world
def test_everything_is_in_range_and_reaches_its_ends(name: str) -> None:
    scenes = draw_scenes(WORLDS[name], 2000, generator(2))
    check_range(scenes)
    world, corner = scenes.world, corners(scenes)
    last_corner = torch.tensor(world.size) - torch.tensor(world.digits.shape[1:])
    if world.cells > 1:
        assert corner.amin(0).tolist() == [0, 0] and torch.equal(corner.amax(0), last_corner)
    cells = 1 if name == "full canvas" else world.cells**2
    assert len(set(map(tuple, corner.tolist()))) == cells
    crops = math.prod(side - world.size + 1 for side in world.backgrounds.shape[2:])
    assert len(set(map(tuple, scenes.crop.tolist()))) == crops


def test_cells_run_through_the_rows_of_the_grid() -> None:
    scenes = replace(SCENES[:9], position=torch.arange(9))
    # The last corner is 7 x 8; its half is rounded down.
    assert corners(scenes).tolist() == [[y, x] for y in (0, 3, 7) for x in (0, 4, 8)]


def test_numbers_are_fine_enough_for_any_count():
    """With the steps of float32, 2**-24, only every fourth crop of this picture could be drawn."""
    last = 2**26
    photo = torch.zeros(1, dtype=torch.uint8).expand(1, 3, 8, last + 7)
    zero = torch.zeros(1).long()
    world = World(photo[..., :8][:, 0], zero, photo, zero, size=8)
    scenes = draw_scenes(world, 4000, generator(0))
    left = scenes.crop[:, 1]
    assert left.min() >= 0 and left.max() < last and (scenes.crop[:, 0] == 0).all()
    shares = (left % 4).bincount(minlength=4) / 4000
    assert torch.allclose(shares, torch.full((4,), 0.25), atol=0.04)


# --- what is rendered ---


def slow_render(scenes: Scenes) -> np.ndarray:
    world, size = scenes.world, scenes.world.size
    height, width = world.digits.shape[1:]
    out = np.zeros((len(scenes), 3, size, size))
    for n in range(len(scenes)):
        row, column = divmod(int(scenes.position[n]), world.cells)
        top = row * (size - height) // max(1, world.cells - 1)
        left = column * (size - width) // max(1, world.cells - 1)
        digit = world.digits[scenes.digit_image[n]]
        photo = world.backgrounds[scenes.background_image[n]]
        crop_top, crop_left = scenes.crop[n].tolist()
        for c, y, x in itertools.product(range(3), range(size), range(size)):
            paper = int(photo[c, crop_top + y, crop_left + x])
            inside = top <= y < top + height and left <= x < left + width
            ink = int(digit[y - top, x - left]) / 255 if inside else 0.0
            out[n, c, y, x] = ink + (1 - ink) * world.dim * paper / 255
    return out


@every_world
@pytest.mark.parametrize("dim", [0.5, 1.0, 0.0])
def test_render_equals_the_loop_over_pixels(name: str, dim: float) -> None:
    scenes = draw_scenes(replace(WORLDS[name], dim=dim), 6, generator(3))
    images = render_scenes(scenes)
    assert images.dtype == torch.float32 and images.shape == (6, 3, 12, 12)
    np.testing.assert_allclose(images.numpy(), slow_render(scenes), rtol=0, atol=1e-6)
    assert images.min() >= 0 and images.max() <= 1


def count_pictures(variants: list[Scenes]) -> int:
    return len({render_scenes(scene).numpy().tobytes() for scene in variants})


def test_every_factor_is_visible() -> None:
    scene = SCENES[:1]
    for name, values in (("digit_image", 12), ("position", 9), ("background_image", 5)):
        variants = [replace(scene, **{name: torch.tensor([v])}) for v in range(values)]
        assert count_pictures(variants) == values, name
    crops = itertools.product(range(2), range(3))
    assert count_pictures([replace(scene, crop=torch.tensor([crop])) for crop in crops]) == 6
    darker = replace(scene, world=replace(WORLD, dim=0.4))
    assert not torch.equal(render_scenes(scene), render_scenes(darker))


def test_a_batch_is_rendered_like_each_scene() -> None:
    scenes = SCENES[:7]
    one_by_one = torch.cat([render_scenes(scenes[i : i + 1]) for i in range(7)])
    assert torch.equal(render_scenes(scenes), one_by_one)
    assert render_scenes(scenes[:0]).shape == (0, 3, 12, 12)


# --- randomness, devices, errors ---


def test_the_same_generator_gives_the_same_scenes() -> None:
    def scenes_and_partner(seed: int) -> tuple[Scenes, Scenes]:
        g = generator(seed)
        scenes = draw_scenes(WORLD, 50, g)
        return scenes, draw_partner(scenes, "digit%2-background", g)

    before = torch.get_rng_state()
    one, other, third = scenes_and_partner(0), scenes_and_partner(0), scenes_and_partner(1)
    assert all(map(equal, one, other)) and not any(map(equal, one, third))
    assert torch.equal(torch.get_rng_state(), before)  # only the given generator is used
    torch.manual_seed(3)
    scenes = draw_scenes(WORLD, 50)
    torch.manual_seed(3)
    assert equal(scenes, draw_scenes(WORLD, 50))


def test_draw_partner_does_not_change_the_scenes() -> None:
    before = {name: value.clone() for name, value in SCENES.tensors().items()}
    draw_partner(SCENES, "digit%2-position%2-background")
    assert all(torch.equal(value, before[name]) for name, value in SCENES.tensors().items())


@pytest.mark.parametrize(
    "device", ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]
)
def test_scenes_move_with_their_world(device: str) -> None:
    moved = SCENES[:5].to(device)
    world = moved.world
    tensors: list[Tensor] = [*moved.tensors().values(), world.digits, world.digit_class]
    tensors += [world.backgrounds, world.background_class]
    assert all(value.device.type == device for value in tensors) and len(moved) == 5
    assert world.size == 12 and corners(moved).device.type == device
    if device != "meta":
        partner = draw_partner(moved, "digit%2", generator(0))
        assert partner.digit.device.type == device
        assert equal(partner.to("cpu"), draw_partner(SCENES[:5], "digit%2", generator(0)))
        torch.testing.assert_close(render_scenes(moved).cpu(), render_scenes(SCENES[:5]))


def test_scenes_are_sliced_by_slices_and_indices() -> None:
    index = torch.tensor([4, 0, 4])
    assert torch.equal(SCENES[index].crop, SCENES.crop[index]) and len(SCENES[index]) == 3
    assert len(SCENES[10:20]) == 10 and SCENES[10:20].world is SCENES.world


def test_scenes_are_rows_and_compare_by_identity() -> None:
    scenes = SCENES[3:5]
    assert isinstance(scenes, Scenes) and len(scenes) == 2 and scenes.world is WORLD
    names = ["digit", "digit_image", "position", "background", "background_image", "crop"]
    assert list(scenes.tensors()) == names
    for name, value in scenes.tensors().items():
        assert torch.equal(value, getattr(SCENES, name)[3:5])
    assert scenes == scenes and scenes != SCENES[3:5]  # tensors have no truth value to compare by


def test_parse_reads_names_and_moduli() -> None:
    assert parse_factors("nothing") == {}
    assert parse_factors("digit%10") == {"digit": (10, 0)}
    assert parse_factors("position%2-digit") == {"position": (2, 0), "digit": (0, 0)}
    assert parse_factors("digit%2~.5-background~1") == {"digit": (2, 0.5), "background": (0, 1)}
    finest_levels = dict.fromkeys(("digit_image", "position", "background_crop"), (0, 0))
    assert parse_factors("all") == parse_factors(ALL) == finest_levels


UNKNOWN = ["", "digits", "digit-", "digit--position", "nothing-digit", "all-digit", "crop"]
UNKNOWN += ["digit+position", "%2"]


@pytest.mark.parametrize("share", UNKNOWN)
def test_an_unknown_factor_is_an_error_that_lists_the_known_ones(share: str) -> None:
    message = r"'nothing' or 'all'.* wanted one of digit, digit_image, position, background, "
    with pytest.raises(ValueError, match=message):
        parse_factors(share)


BAD_MODULI = ["digit%1", "digit%0", "digit%x", "digit%", "digit%2.5", "digit%2%2"]
BAD_MODULI += ["digit_image%2", "background_crop%3"]


@pytest.mark.parametrize("part", BAD_MODULI)
def test_a_bad_modulus_is_an_error(part: str) -> None:
    message = f"{part!r}: .* wanted digit, position or background % a whole number from 2"
    with pytest.raises(ValueError, match=message):
        parse_factors(f"position-{part}")


BAD_ERRORS = ["digit~", "digit~x", "digit~1.1", "digit~-0.1", "digit~nan", "digit~0.1%2"]
BAD_ERRORS += ["digit~0.1~0.1", "digit~1e-3", "digit_image~0.2", "background_crop~0", "digit~١"]


@pytest.mark.parametrize("part", BAD_ERRORS)
def test_a_bad_error_is_an_error(part: str) -> None:
    with pytest.raises(ValueError, match="wanted digit, position or background ~ a probability"):
        parse_factors(f"position-{part}")


REPEATED = ["digit-digit", "digit-digit_image", "digit%2-digit%5", "background_crop-background"]
REPEATED += ["position-position%2", "digit~0.1-digit"]


@pytest.mark.parametrize("share", REPEATED)
def test_a_factor_named_twice_is_an_error(share: str) -> None:
    with pytest.raises(ValueError, match="names a factor twice; keep the finer one"):
        parse_factors(share)


@pytest.mark.parametrize("function", [shared_nats, draw_partner])
def test_every_function_checks_the_shared_factors(function: object) -> None:
    with pytest.raises(ValueError, match="wanted one of"):
        function(SCENES[:1], "digits")  # type: ignore[operator]
