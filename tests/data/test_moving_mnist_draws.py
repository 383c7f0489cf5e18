"""Clips as functions of seed and number, against plain integers, closed laws and frozen bytes."""

import hashlib
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2, chi2_contingency, kstest
from torch import Tensor

from infomin.common.seeds import seeded_generator
from infomin.data.moving_mnist import Clips, draw_clips, render_clips, shared_clip_nats
from infomin.data.scenes import World

torch.set_num_threads(1)

N = 20_000


def pixels(*shape: int) -> Tensor:
    """Pixels without a generator, whose numbers another version of torch may change."""
    words = torch.arange(math.prod(shape)) * 2654435761 >> 9
    return (words % 256).to(torch.uint8).view(shape)


# 6 classes of 3, 2, 1, 2, 1 and 3 digits; 3 classes of 2, 1 and 2 backgrounds; 2 x 3 crops.
WORLD = World(
    digits=pixels(12, 12, 4),
    digit_class=torch.tensor([5, 0, 1, 0, 2, 5, 0, 1, 3, 4, 5, 3]),
    backgrounds=pixels(5, 3, 21, 22),
    background_class=torch.tensor([2, 0, 1, 0, 2]),
    size=20,
)
LAST_CORNER = torch.tensor([8.0, 16.0], dtype=torch.float64)
CLIPS = draw_clips(WORLD, N, 7, digits=2)
MOVING = ("digit", "digit_image", "start", "velocity")


def equal(one: Clips, other: Clips) -> bool:
    return all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())


def joined(*parts: Clips) -> Clips:
    factors = {}
    for name in parts[0].tensors():
        factors[name] = torch.cat([part.tensors()[name] for part in parts])
    return Clips(parts[0].world, **factors)


# --- a clip is a function of its seed and number ---


@pytest.mark.parametrize("cuts", [[1] * 12, [5, 7], [0, 12, 0], [11, 1]])
def test_the_sequence_is_the_same_in_any_batches(cuts: list[int]) -> None:
    firsts = itertools.accumulate(cuts[:-1], initial=100)
    parts = [
        draw_clips(WORLD, n, 3, first=first, digits=3)
        for n, first in zip(cuts, firsts, strict=True)
    ]
    whole = draw_clips(WORLD, 12, 3, first=100, digits=3)
    assert equal(joined(*parts), whole)
    start = draw_clips(WORLD, 100, 3, digits=3)
    assert equal(joined(start, whole), draw_clips(WORLD, 112, 3, digits=3))
    frames = torch.cat([render_clips(part, range(5)) for part in parts])
    assert torch.equal(frames, render_clips(whole, range(5)))


def test_a_digit_is_the_same_for_any_number_of_digits() -> None:
    for fewer, more in itertools.combinations((1, 2, 5), 2):
        few = draw_clips(WORLD, 50, 4, digits=fewer).tensors()
        many = draw_clips(WORLD, 50, 4, digits=more).tensors()
        for name, value in few.items():
            other = many[name][:, :fewer] if name in MOVING else many[name]
            assert torch.equal(value, other), name


def test_speed_changes_only_the_velocity() -> None:
    slow, fast = draw_clips(WORLD, 50, 5, speed=0.1), draw_clips(WORLD, 50, 5, speed=0.2)
    assert equal(fast, replace(slow, velocity=fast.velocity))
    torch.testing.assert_close(fast.velocity, slow.velocity * 2, rtol=1e-15, atol=0)
    assert not draw_clips(WORLD, 50, 5, speed=0).velocity.any()


def test_no_generator_of_torch_is_used() -> None:
    before = torch.get_rng_state()
    draw_clips(WORLD, 5, 6)
    assert torch.equal(torch.get_rng_state(), before)


def split_mix(state: int) -> int:
    """The finalizer of SplitMix64 on Python's integers."""
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return state ^ state >> 31


def test_the_oracle_is_split_mix() -> None:
    """The first outputs for the state 1234567, as its authors' program prints them."""
    printed = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [split_mix((1234567 + k * 0x9E3779B97F4A7C15) % 2**64) for k in range(1, 6)] == printed


@pytest.mark.parametrize("seed", [0, 1, 2**40])
@pytest.mark.parametrize("first", [0, 12345, 2**45])
def test_draws_are_those_of_plain_integers(seed: int, first: int) -> None:
    clips = draw_clips(WORLD, 3, seed, first=first, digits=2, speed=0.25)
    key = seeded_generator(seed, "clips").initial_seed()

    def word(i: int, row: int, column: int) -> float:
        counter = ((first + i) * 8192 + row) * 8 + column
        return (split_mix((key + counter * 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**53

    def member(bank: Tensor, i: int, row: int) -> tuple[int, int]:
        label = int(word(i, row, 0) * (int(bank.max()) + 1))
        rows = [j for j, other in enumerate(bank.tolist()) if other == label]
        return label, rows[int(word(i, row, 1) * len(rows))]

    for i in range(3):
        background = (clips.background[i], clips.background_image[i])
        assert member(WORLD.background_class, i, 0) == background
        assert clips.crop[i].tolist() == [int(word(i, 0, 2) * 2), int(word(i, 0, 3) * 3)]
        for d in range(2):
            digit = (clips.digit[i, d], clips.digit_image[i, d])
            assert member(WORLD.digit_class, i, 1 + d) == digit
            assert clips.start[i, d].tolist() == [word(i, 1 + d, 2) * 8, word(i, 1 + d, 3) * 16]
            angle = (2 * word(i, 1 + d, 4) - 1) * math.pi
            velocity = [0.25 * 20 * math.sin(angle), 0.25 * 20 * math.cos(angle)]
            np.testing.assert_allclose(clips.velocity[i, d], velocity, rtol=0, atol=2e-14)


FROZEN = {
    "factors": "f7f309c4f5d79e8f7b2bfca9810f753636f22af1a790ac1feced894b95ed13d0",
    "float32": "30a1540e1a86400f6a636374722cb85e930da32642893d4b8299daf5ab531ea0",
    "uint8": "5c5ad766fe530b6f2616c36dae04b6b62ffc24cce5045c40a1e64df02691665a",
    "between pixels": "3697ed7fec1594c163c18641e8bd44b5ee817679eb80b0f3533b3534e2b48a77",
}


def test_bytes_are_the_same_on_every_machine() -> None:
    clips = draw_clips(WORLD, 16, 2020, digits=2)
    made = {
        "factors": list(clips.tensors().values()),
        "float32": [render_clips(clips, range(20))],
        "uint8": [render_clips(clips, range(20), dtype=torch.uint8)],
        "between pixels": [render_clips(clips, [k * 5.6875 - 9 for k in range(20)], True)],
    }
    for name, tensors in made.items():
        content = b"".join(value.contiguous().numpy().tobytes() for value in tensors)
        assert hashlib.sha256(content).hexdigest() == FROZEN[name], name


# --- distributions ---


def uniform_factors(clips: Clips) -> dict[str, np.ndarray]:
    """The real factors of the first digit, each as numbers uniform on 0..1."""
    angle = torch.atan2(clips.velocity[:, 0, 0], clips.velocity[:, 0, 1]) / (2 * math.pi) + 0.5
    y, x = (clips.start[:, 0] / LAST_CORNER).unbind(-1)
    return {"y": y.numpy(), "x": x.numpy(), "angle": angle.numpy()}


def second_digit(clips: Clips) -> Clips:
    """Clips whose first start and velocity are those of the second digit."""
    return replace(clips, start=clips.start[:, 1:], velocity=clips.velocity[:, 1:])


@pytest.mark.parametrize("seed", [7, 8])
def test_start_and_direction_are_uniform(seed: int) -> None:
    clips = draw_clips(WORLD, N, seed, digits=2)
    for part in (clips, second_digit(clips)):
        for name, values in uniform_factors(part).items():
            assert kstest(values, "uniform").pvalue > 1e-3, name
        # Each component of a unit vector has the arcsine law on -1..1.
        components = part.velocity[:, 0] / 2.0
        for axis in (0, 1):
            assert kstest(components[:, axis].numpy(), "arcsine", args=(-1, 2)).pvalue > 1e-3, axis


@pytest.mark.parametrize("speed", [0.1, 0.03, 2.5])
def test_all_digits_have_the_same_speed(speed: float) -> None:
    speeds = draw_clips(WORLD, N, 9, speed=speed).velocity.norm(dim=-1)
    torch.testing.assert_close(speeds, torch.full_like(speeds, speed * 20), rtol=1e-14, atol=0)


def test_all_53_bits_are_fair() -> None:
    """The last corners are powers of two, so the start gives the uniform number back bit by bit."""
    bits = torch.arange(53)
    for axis, last in enumerate(LAST_CORNER.tolist()):
        word = (CLIPS.start[:, 0, axis] / last * 2**53).long()
        ones = (word[:, None] >> bits & 1).sum(0)
        assert ((ones - N / 2).abs() < 4.5 * math.sqrt(N) / 2).all()
    both = (CLIPS.start[:, :, 0] / 8 * 2**53).long().flatten()
    assert both.unique().numel() == len(both)


def rejected(counts: Tensor, expected: np.ndarray) -> bool:
    """Whether a chi-square test rejects at 1e-3."""
    statistic = ((counts.numpy() - expected) ** 2 / expected).sum()
    return bool(statistic > chi2.ppf(1 - 1e-3, len(expected) - 1))


def test_classes_are_uniform_then_images_within_them_and_crops() -> None:
    for name, drawn in (
        ("digit", CLIPS.digit[:, 0]),
        ("digit", CLIPS.digit[:, 1]),
        ("background", CLIPS.background),
    ):
        classes = int(getattr(WORLD, f"{name}_class").max()) + 1
        counts = drawn.bincount(minlength=classes)
        assert not rejected(counts, np.full(classes, N / classes)), name
    for name, image in (("digit", CLIPS.digit_image[:, 1]), ("background", CLIPS.background_image)):
        bank = getattr(WORLD, f"{name}_class")
        probability = 1 / (int(bank.max()) + 1) / bank.bincount()[bank].double()
        assert not rejected(image.bincount(minlength=len(bank)), N * probability.numpy()), name
    crops = CLIPS.crop[:, 0] * 3 + CLIPS.crop[:, 1]
    assert not rejected(crops.bincount(minlength=6), np.full(6, N / 6))
    assert torch.equal(WORLD.digit_class[CLIPS.digit_image], CLIPS.digit)
    assert torch.equal(WORLD.background_class[CLIPS.background_image], CLIPS.background)


def binned_factors(clips: Clips) -> dict[str, np.ndarray]:
    """Every factor of both digits as a small class; reals in eight bins."""
    binned = {}
    for d, part in enumerate((clips, second_digit(clips))):
        for name, values in uniform_factors(part).items():
            binned[f"{name} {d}"] = (values * 8).astype(int).clip(0, 7)
        binned[f"digit {d}"] = clips.digit_image[:, d].numpy()
    binned["background"] = clips.background_image.numpy()
    binned["crop"] = (clips.crop[:, 0] * 3 + clips.crop[:, 1]).numpy()
    return binned


def independent(one: np.ndarray, other: np.ndarray) -> bool:
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    return bool(chi2_contingency(table).pvalue > 1e-5)


def test_factors_are_independent_of_each_other() -> None:
    factors = binned_factors(CLIPS)
    for one, other in itertools.combinations(factors, 2):
        assert independent(factors[one], factors[other]), (one, other)


def test_clips_are_independent_of_the_next_and_seeds_of_each_other() -> None:
    other_seed = binned_factors(draw_clips(WORLD, N, 8, digits=2))
    for name, values in binned_factors(CLIPS).items():
        for lag in (1, 2, 3, 64):
            assert independent(values[:-lag], values[lag:]), (name, lag)
        assert independent(values, other_seed[name]), name


# --- slices, devices and edge cases ---


def test_the_repr_of_clips_shows_no_picture() -> None:
    text = repr(draw_clips(WORLD, 3, 0)[0])
    assert text.startswith(f"Clips(world={WORLD!r}, digit=tensor([") and len(text) < 700


def test_clips_are_sliced_by_slices_and_indices() -> None:
    clips, index = draw_clips(WORLD, 20, 18, digits=2), torch.tensor([4, 0, 4])
    assert len(clips) == 20 and len(clips[5:9]) == 4 and clips[5:9].world is WORLD
    assert torch.equal(render_clips(clips[index], range(3)), render_clips(clips, range(3))[index])
    assert list(clips.tensors()) == [*MOVING, "background", "background_image", "crop"]


@pytest.mark.parametrize(
    "device", ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]
)
def test_clips_move_with_their_world(device: str) -> None:
    clips = draw_clips(WORLD, 5, 19, digits=2)
    moved = clips.to(device)
    tensors = (*moved.tensors().values(), moved.world.digits, moved.world.backgrounds)
    assert all(tensor.device.type == device for tensor in tensors)
    if device != "meta":
        drawn_there = draw_clips(WORLD.to(device), 5, 19, digits=2).tensors()
        for name, value in clips.tensors().items():
            assert torch.equal(drawn_there[name].cpu(), value)
        for subpixel in (False, True):
            frames = render_clips(moved, range(9), subpixel, torch.uint8).cpu()
            assert torch.equal(frames, render_clips(clips, range(9), subpixel, torch.uint8))


def test_one_image_and_one_corner_leave_only_the_direction_to_chance() -> None:
    world = World(
        torch.zeros(1, 12, 12, dtype=torch.uint8),
        torch.tensor([0]),
        WORLD.backgrounds[:1, :, :12, :12],
        torch.tensor([0]),
        size=12,
    )
    clips = draw_clips(world, 100, 0, digits=2)
    for name, value in clips.tensors().items():
        assert value.any() == (name == "velocity")
    assert clips.velocity[..., 0].unique().numel() == 200


def test_types_and_shapes() -> None:
    for n, digits in ((0, 1), (1, 1), (4, 3)):
        tensors = draw_clips(WORLD, n, 0, digits=digits).tensors()
        shapes = {
            "digit": [n, digits],
            "digit_image": [n, digits],
            "start": [n, digits, 2],
            "velocity": [n, digits, 2],
            "background": [n],
            "background_image": [n],
            "crop": [n, 2],
        }
        assert {name: list(value.shape) for name, value in tensors.items()} == shapes
        for name, value in tensors.items():
            assert value.dtype == (torch.float64 if name in ("start", "velocity") else torch.long)


# --- errors ---


NONE = torch.zeros(0, dtype=torch.long)
BAD_ARGUMENTS = [
    ({"seed": -1}, r"seed: .*got \[-1, 'clips'\]"),
    ({"n": -1}, r"draw_clips\(n\): got -1, wanted an integer from 0 to "),
    ({"n": 2.0}, r"draw_clips\(n\): got 2.0"),
    ({"first": -3}, r"draw_clips\(first\): got -3, wanted an integer from 0"),
    ({"first": 2**48}, r"draw_clips\(first\): got 281474976710656"),
    ({"digits": 0}, r"draw_clips\(digits\): got 0, wanted an integer from 1 to 8191"),
    ({"digits": 8192}, r"draw_clips\(digits\): got 8192"),
    ({"digits": 1.5}, r"draw_clips\(digits\): got 1.5"),
    ({"speed": -0.1}, r"draw_clips\(speed\): got -0.1, wanted a finite number of 0 or more"),
    ({"speed": float("nan")}, r"draw_clips\(speed\): got nan"),
    ({"speed": float("inf")}, r"draw_clips\(speed\): got inf"),
]
BAD_WORLDS = [
    (
        {"digit_class": NONE, "digits": WORLD.digits[:0]},
        r"got \[\] digits in classes 0, 1, …, wanted at least one in each",
    ),
    (
        {"background_class": NONE, "backgrounds": WORLD.backgrounds[:0]},
        r"got \[\] backgrounds in classes 0, 1, …",
    ),
    (
        {"digit_class": torch.arange(12) * 2 % 6},
        r"got \[4, 0, 4, 0, 4\] digits .* number the classes without gaps",
    ),
    (
        {"size": 11},
        r"World\(size\): got a canvas of 11 px, wanted 12 \(the digits\) to 21 px \(the background",
    ),
    ({"size": 22}, r"got a canvas of 22 px, wanted 12 .* to 21 px"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_errors(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_clips(WORLD, **({"n": 2, "seed": 0} | arguments))


@pytest.mark.parametrize(("fields", "message"), BAD_WORLDS)
def test_bad_worlds_are_errors(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_clips(replace(WORLD, **fields), n=2, seed=0)


def test_the_nats_of_several_digits_are_not_known() -> None:
    with pytest.raises(ValueError, match="got clips of 3 digits, wanted one each; draw them with"):
        shared_clip_nats(draw_clips(WORLD, 4, seed=0, digits=3), "digit")


@pytest.mark.parametrize("digits", [2, 3])
def test_nats_are_known_for_one_digit_only(digits: int) -> None:
    message = f"got clips of {digits} digits, wanted one each; draw them with digits=1"
    with pytest.raises(ValueError, match=message):
        shared_clip_nats(draw_clips(WORLD, 4, seed=0, digits=digits), "digit")
