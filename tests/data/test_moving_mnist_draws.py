"""What is drawn: clips as a function of seed and number alone, against plain integers, closed laws and frozen bytes."""

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
from infomin.data.moving_mnist import Clips, draw_clips, render_clips
from infomin.data.scenes import World

torch.set_num_threads(1)

N = 20_000


def world() -> World:
    """6 classes of 3, 2, 1, 2, 1 and 3 digits; 3 classes of 2, 1 and 2 backgrounds; 2 x 3 crops; a room of 8 x 16 px."""

    def pixels(
        *shape: int,
    ) -> Tensor:  # no generator, whose numbers another version of torch may change
        return (
            ((torch.arange(math.prod(shape)) * 2654435761 >> 9) % 256).to(torch.uint8).view(shape)
        )

    return World(
        digits=pixels(12, 12, 4),
        digit_class=torch.tensor([5, 0, 1, 0, 2, 5, 0, 1, 3, 4, 5, 3]),
        backgrounds=pixels(5, 3, 21, 22),
        background_class=torch.tensor([2, 0, 1, 0, 2]),
        size=20,
    )


WORLD = world()
ROOM = torch.tensor([8.0, 16.0], dtype=torch.float64)
CLIPS = draw_clips(WORLD, N, 7, digits=2)


def equal(one: Clips, other: Clips) -> bool:
    return all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())


def joined(*parts: Clips) -> Clips:
    return Clips(
        parts[0].world,
        **{name: torch.cat([p.tensors()[name] for p in parts]) for name in parts[0].tensors()},
    )


# --- a clip is a function of its seed and number ---


@pytest.mark.parametrize("cuts", [[1] * 12, [5, 7], [0, 12, 0], [11, 1]])
def test_however_the_sequence_is_cut_it_is_the_same(cuts: list[int]) -> None:
    ends = list(itertools.accumulate(cuts, initial=100))
    parts = [
        draw_clips(WORLD, n, 3, first=first, digits=3) for n, first in zip(cuts, ends, strict=False)
    ]
    whole = draw_clips(WORLD, 12, 3, first=100, digits=3)
    assert equal(joined(*parts), whole) and equal(
        joined(draw_clips(WORLD, 100, 3, digits=3), whole), draw_clips(WORLD, 112, 3, digits=3)
    )
    frames = torch.cat([render_clips(part, range(5)) for part in parts])
    assert torch.equal(frames, render_clips(whole, range(5)))


def test_a_digit_is_the_same_however_many_there_are() -> None:
    for fewer, more in itertools.combinations((1, 2, 5), 2):
        one, other = (
            draw_clips(WORLD, 50, 4, digits=fewer).tensors(),
            draw_clips(WORLD, 50, 4, digits=more).tensors(),
        )
        for name, value in one.items():
            moving = name in ("digit", "digit_image", "start", "velocity")
            assert torch.equal(value, other[name][:, :fewer] if moving else other[name]), name


def test_speed_changes_nothing_but_the_velocity() -> None:
    slow, fast = draw_clips(WORLD, 50, 5, speed=0.1), draw_clips(WORLD, 50, 5, speed=0.2)
    assert equal(fast, replace(slow, velocity=fast.velocity))
    torch.testing.assert_close(fast.velocity, slow.velocity * 2, rtol=1e-15, atol=0)
    assert not draw_clips(WORLD, 50, 5, speed=0).velocity.any()


def test_no_generator_of_torch_is_used() -> None:
    before = torch.get_rng_state()
    draw_clips(WORLD, 5, 6)
    assert torch.equal(torch.get_rng_state(), before)


def split_mix(state: int) -> int:
    """The finalizer of SplitMix64 on Python's whole numbers."""
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
    clips, key = (
        draw_clips(WORLD, 3, seed, first=first, digits=2, speed=0.25),
        seeded_generator(seed, "clips").initial_seed(),
    )

    def word(i: int, row: int, column: int) -> float:
        counter = ((first + i) * 8192 + row) * 8 + column
        return (split_mix((key + counter * 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**53

    def member(bank: Tensor, i: int, row: int) -> tuple[int, int]:
        kind = int(word(i, row, 0) * (int(bank.max()) + 1))
        rows = [j for j, other in enumerate(bank.tolist()) if other == kind]
        return kind, rows[int(word(i, row, 1) * len(rows))]

    for i in range(3):
        assert member(WORLD.background_class, i, 0) == (
            clips.background[i],
            clips.background_image[i],
        )
        assert clips.crop[i].tolist() == [int(word(i, 0, 2) * 2), int(word(i, 0, 3) * 3)]
        for d in range(2):
            assert member(WORLD.digit_class, i, 1 + d) == (
                clips.digit[i, d],
                clips.digit_image[i, d],
            )
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


def test_bytes_are_those_of_every_machine() -> None:
    clips = draw_clips(WORLD, 16, 2020, digits=2)
    found = {
        "factors": list(clips.tensors().values()),
        "float32": [render_clips(clips, range(20))],
        "uint8": [render_clips(clips, range(20), dtype=torch.uint8)],
        "between pixels": [render_clips(clips, [k * 5.6875 - 9 for k in range(20)], True)],
    }
    for name, tensors in found.items():
        digest = hashlib.sha256(
            b"".join(value.contiguous().numpy().tobytes() for value in tensors)
        ).hexdigest()
        assert digest == FROZEN[name], name


# --- the laws of what is drawn ---


def values(clips: Clips) -> dict[str, np.ndarray]:
    """Each factor of the first digit as one number uniform on 0..1, or as a class."""
    angle = torch.atan2(clips.velocity[:, 0, 0], clips.velocity[:, 0, 1]) / (2 * math.pi) + 0.5
    y, x = (clips.start[:, 0] / ROOM).unbind(-1)
    return {"y": y.numpy(), "x": x.numpy(), "angle": angle.numpy()}


@pytest.mark.parametrize("seed", [7, 8])
def test_start_and_direction_are_uniform(seed: int) -> None:
    clips = draw_clips(WORLD, N, seed, digits=2)
    for part in (clips, replace(clips, start=clips.start[:, 1:], velocity=clips.velocity[:, 1:])):
        for name, u in values(part).items():
            assert kstest(u, "uniform").pvalue > 1e-3, name
        components = (
            part.velocity[:, 0] / 2.0
        )  # of a unit vector: each has the arcsine law on -1..1
        for axis in (0, 1):
            assert kstest(components[:, axis].numpy(), "arcsine", args=(-1, 2)).pvalue > 1e-3, axis


@pytest.mark.parametrize("speed", [0.1, 0.03, 2.5])
def test_speed_is_the_same_for_all(speed: float) -> None:
    found = draw_clips(WORLD, N, 9, speed=speed).velocity.norm(dim=-1)
    torch.testing.assert_close(found, torch.full_like(found, speed * 20), rtol=1e-14, atol=0)


def test_all_53_bits_are_fair() -> None:
    """The room is a power of two: the start gives the uniform number back, bit by bit."""
    bits = torch.arange(53)
    for axis, side in enumerate(ROOM.tolist()):
        word = (CLIPS.start[:, 0, axis] / side * 2**53).long()
        ones = (word[:, None] >> bits & 1).sum(0)
        assert ((ones - N / 2).abs() < 4.5 * math.sqrt(N) / 2).all()
    both = (CLIPS.start[:, :, 0] / 8 * 2**53).long().flatten()
    assert both.unique().numel() == len(both)


def improbable(counts: np.ndarray, expected: np.ndarray) -> bool:
    """Whether a chi-square test rejects at 1e-3."""
    return bool(((counts - expected) ** 2 / expected).sum() > chi2.ppf(1 - 1e-3, len(expected) - 1))


def test_classes_are_uniform_then_images_within_them_and_crops() -> None:
    for name, found in (
        ("digit", CLIPS.digit[:, 0]),
        ("digit", CLIPS.digit[:, 1]),
        ("background", CLIPS.background),
    ):
        bank = getattr(WORLD, f"{name}_class")
        kinds = int(bank.max()) + 1
        assert not improbable(found.bincount(minlength=kinds).numpy(), np.full(kinds, N / kinds)), (
            name
        )
    for name, image in (("digit", CLIPS.digit_image[:, 1]), ("background", CLIPS.background_image)):
        bank = getattr(WORLD, f"{name}_class")
        chance = 1 / (int(bank.max()) + 1) / bank.bincount()[bank].double()
        assert not improbable(image.bincount(minlength=len(bank)).numpy(), N * chance.numpy()), name
    crops = CLIPS.crop[:, 0] * 3 + CLIPS.crop[:, 1]
    assert not improbable(crops.bincount(minlength=6).numpy(), np.full(6, N / 6))
    assert torch.equal(WORLD.digit_class[CLIPS.digit_image], CLIPS.digit)
    assert torch.equal(WORLD.background_class[CLIPS.background_image], CLIPS.background)


def bins(clips: Clips) -> dict[str, np.ndarray]:
    """Every factor, both digits, as a small class: reals in eight parts."""
    second = replace(clips, start=clips.start[:, 1:], velocity=clips.velocity[:, 1:])
    reals = {
        f"{name} {d}": u
        for d, part in enumerate((clips, second))
        for name, u in values(part).items()
    }
    found = {name: (u * 8).astype(int).clip(0, 7) for name, u in reals.items()}
    found |= {f"digit {d}": clips.digit_image[:, d].numpy() for d in range(2)}
    return found | {
        "background": clips.background_image.numpy(),
        "crop": (clips.crop[:, 0] * 3 + clips.crop[:, 1]).numpy(),
    }


def independent(one: np.ndarray, other: np.ndarray) -> bool:
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    return bool(chi2_contingency(table).pvalue > 1e-5)


def test_factors_are_independent_of_each_other() -> None:
    found = bins(CLIPS)
    for one, other in itertools.combinations(found, 2):
        assert independent(found[one], found[other]), (one, other)


def test_clips_are_independent_of_the_next_and_seeds_of_each_other() -> None:
    found, neighbour = bins(CLIPS), bins(draw_clips(WORLD, N, 8, digits=2))
    for name, mine in found.items():
        for lag in (1, 2, 3, 64):
            assert independent(mine[:-lag], mine[lag:]), (name, lag)
        assert independent(mine, neighbour[name]), name


# --- worlds and errors ---


def test_one_image_and_no_room_leave_nothing_to_chance_but_the_direction() -> None:
    only = World(
        WORLD.digits[:1, :, :1],
        torch.tensor([0]),
        WORLD.backgrounds[:1, :, :12, :12],
        torch.tensor([0]),
        size=12,
    )
    clips = draw_clips(
        replace(only, digits=torch.zeros(1, 12, 12, dtype=torch.uint8)), 100, 0, digits=2
    )
    for name, value in clips.tensors().items():
        assert value.any() == (name == "velocity")
    assert clips.velocity[..., 0].unique().numel() == 200


def test_types_and_shapes() -> None:
    for n, digits in ((0, 1), (1, 1), (4, 3)):
        clips = draw_clips(WORLD, n, 0, digits=digits)
        shapes = {name: list(value.shape) for name, value in clips.tensors().items()}
        assert shapes == {
            "digit": [n, digits],
            "digit_image": [n, digits],
            "start": [n, digits, 2],
            "velocity": [n, digits, 2],
            "background": [n],
            "background_image": [n],
            "crop": [n, 2],
        }
        for name, value in clips.tensors().items():
            assert value.dtype == (torch.float64 if name in ("start", "velocity") else torch.long)


NONE = torch.zeros(0, dtype=torch.long)
BAD = [
    ({}, {"seed": -1}, r"seed: got \[-1, 'clips'\], wanted whole numbers of 0 or more"),
    ({}, {"n": -1}, r"draw\(n\): got -1, wanted a whole number from 0 to .*; change it"),
    ({}, {"n": 2.0}, r"draw\(n\): got 2.0"),
    ({}, {"first": -3}, r"draw\(first\): got -3, wanted a whole number from 0"),
    ({}, {"first": 2**48}, r"draw\(first\): got 281474976710656"),
    ({}, {"digits": 0}, r"draw\(digits\): got 0, wanted a whole number from 1 to 8191; change it"),
    ({}, {"digits": 8192}, r"draw\(digits\): got 8192"),
    ({}, {"digits": 1.5}, r"draw\(digits\): got 1.5"),
    (
        {},
        {"speed": -0.1},
        r"draw\(speed\): got -0.1, wanted a finite number of 0 or more; change it",
    ),
    ({}, {"speed": float("nan")}, r"draw\(speed\): got nan"),
    ({}, {"speed": float("inf")}, r"draw\(speed\): got inf"),
    (
        {"digit_class": NONE, "digits": WORLD.digits[:0]},
        {},
        r"got \[\] digits of the classes 0, 1, …, wanted at least one of each",
    ),
    (
        {"background_class": NONE, "backgrounds": WORLD.backgrounds[:0]},
        {},
        r"got \[\] backgrounds of the classes 0, 1, …",
    ),
    (
        {"digit_class": torch.arange(12) * 2 % 6},
        {},
        r"got \[4, 0, 4, 0, 4\] digits .* number the classes without gaps",
    ),
    (
        {"size": 11},
        {},
        r"got a canvas of 11 px, wanted 12 \(the digits\) to 21 px \(the backgrounds\); change World\(size\)",
    ),
    ({"size": 22}, {}, r"got a canvas of 22 px, wanted 12 .* to 21 px"),
]


@pytest.mark.parametrize(("parts", "arguments", "message"), BAD)
def test_what_cannot_be_drawn_says_what_is_wanted(
    parts: dict, arguments: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        draw_clips(replace(WORLD, **parts), **({"n": 2, "seed": 0} | arguments))
