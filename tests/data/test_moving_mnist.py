"""Clips against slow simulations: where digits are at any time, and what is rendered there."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from infomin.data import moving_mnist
from infomin.data.moving_mnist import Clips, draw_clips, positions, render_clips
from infomin.data.scenes import Scenes, World, corners, draw_scenes, render_scenes

torch.set_num_threads(1)


def make_world() -> World:
    """Digits of 5 x 4 px on a canvas of 12: corners to 7 x 8 px. Crops 2 x 3. Random pixels."""
    g = torch.Generator().manual_seed(0)
    return World(
        digits=torch.randint(256, (12, 5, 4), dtype=torch.uint8, generator=g),
        digit_class=torch.tensor([5, 0, 1, 0, 2, 5, 0, 1, 3, 4, 5, 3]),
        backgrounds=torch.randint(256, (5, 3, 13, 14), dtype=torch.uint8, generator=g),
        background_class=torch.tensor([2, 0, 1, 0, 2]),
        size=12,
    )


WORLD = make_world()
WORLDS = {
    "small": WORLD,
    "canvas of 7": replace(WORLD, size=7),
    "room of one pixel": replace(WORLD, size=6),
    "full canvas": replace(WORLD, digits=WORLD.digits.repeat(1, 3, 3)[:, :12, :12]),
    "full height": replace(WORLD, digits=WORLD.digits.repeat(1, 3, 1)[:, :12]),
    "a single crop": replace(WORLD, backgrounds=WORLD.backgrounds[:, :, :12, :12]),
    "all light": replace(WORLD, dim=1.0),
    "no light": replace(WORLD, dim=0.0),
    "a third": replace(WORLD, dim=0.3),
}
every_world = pytest.mark.parametrize("name", WORLDS)
both_ways = pytest.mark.parametrize("subpixel", [False, True])


def last_corner(world: World) -> Tensor:
    return torch.tensor([world.size - side for side in world.digits.shape[1:]]).double()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- where digits are ---


@pytest.mark.parametrize("speed", [0.1, 0.37])
def test_positions_are_those_of_small_steps_that_bounce(speed: float) -> None:
    """1,000 clips and frames, 8 steps a frame; a step across a border is mirrored there."""
    clips = draw_clips(WORLD, 1000, 1, speed=speed)
    found, last = positions(clips, range(1000))[:, :, 0].numpy(), last_corner(WORLD).numpy()
    corner, step = clips.start[:, 0].numpy().copy(), clips.velocity[:, 0].numpy() / 8
    bounces, worst = 0, 0.0
    for t in range(1000):
        worst = max(worst, np.abs(found[:, t] - corner).max())
        for _ in range(8):
            corner += step
            outside = (corner < 0) | (corner > last)
            corner = np.abs(corner)
            corner = np.where(corner > last, 2 * last - corner, corner)
            step = np.where(outside, -step, step)
            bounces += outside.sum()
    assert worst < 1e-6 and bounces > 100_000
    assert found.min() >= 0 and (found <= last).all()


def fold(x: Fraction, last: int) -> Fraction:
    """Mirror at one border after the other until it is inside."""
    while not 0 <= x <= last:
        x = -x if x < 0 else 2 * last - x
    return x


def test_positions_of_binary_fractions_are_exact() -> None:
    """With few bits doubles are exact, so a border is met exactly, and left again."""
    starts = [Fraction(0), Fraction(7), Fraction(13, 4)]
    velocities = [Fraction(k, 8) for k in range(-60, 61, 12)]
    paths = list(itertools.product(starts, velocities))
    clips = replace(
        draw_clips(WORLD, len(paths), 0),
        start=torch.tensor([[[float(start)] * 2] for start, _ in paths]).double(),
        velocity=torch.tensor([[[float(velocity)] * 2] for _, velocity in paths]).double(),
    )
    times = [Fraction(k, 4) for k in range(-41, 42)]
    found = positions(clips, [float(t) for t in times])[:, :, 0]
    for axis, last in enumerate((7, 8)):
        for path, (start, velocity) in enumerate(paths):
            exact = [fold(start + velocity * t, last) for t in times]
            assert found[path, :, axis].tolist() == exact
    touched = (found[..., 0] == 0).sum() + (found[..., 0] == 7).sum()
    assert touched > 50


def test_at_time_zero_digits_are_where_they_start() -> None:
    clips = draw_clips(WORLD, 500, 2, digits=3)
    assert torch.equal(positions(clips, [0.0])[:, 0], clips.start)


def test_time_runs_backwards_if_velocity_does() -> None:
    clips = draw_clips(WORLD, 200, 3, digits=2)
    times = torch.linspace(-50, 50, 101, dtype=torch.float64)
    reversed_clips = replace(clips, velocity=-clips.velocity)
    assert torch.equal(positions(reversed_clips, -times), positions(clips, times))


def test_a_clip_restarted_later_goes_on_as_before() -> None:
    clips = draw_clips(WORLD, 300, 4, digits=2)
    times = torch.linspace(-20, 20, 33, dtype=torch.float64)
    for later in (0.25, 7.3, -11.9, 400.0):
        bounces = ((clips.start + clips.velocity * later) / last_corner(WORLD)).floor()
        velocity = torch.where(bounces % 2 == 0, clips.velocity, -clips.velocity)
        moved = replace(clips, start=positions(clips, [later])[:, 0], velocity=velocity)
        expected = positions(clips, times + later)
        torch.testing.assert_close(positions(moved, times), expected, rtol=0, atol=1e-10)


def test_speed_is_constant_between_bounces_and_never_greater() -> None:
    clips, dt = draw_clips(WORLD, 150, 5, digits=2, speed=0.15), 2.0**-7
    times = torch.arange(0, 40, dt, dtype=torch.float64)
    speed = positions(clips, times).diff(dim=1).div(dt).norm(dim=-1)
    path = clips.start[:, None] + clips.velocity[:, None] * times[:, None, None]
    straight = ((path / last_corner(WORLD)).floor().diff(dim=1) == 0).all(-1)
    assert 0.9 < straight.double().mean() < 0.999
    expected = torch.full_like(speed[straight], 0.15 * 12)
    torch.testing.assert_close(speed[straight], expected, rtol=0, atol=1e-9)
    assert speed.max() <= 0.15 * 12 + 1e-9
    assert (speed[~straight] < 0.15 * 12 - 1e-6).double().mean() > 0.9


@every_world
@pytest.mark.parametrize("speed", [0.0, 0.1, 25.0])
def test_digits_never_leave_the_canvas(name: str, speed: float) -> None:
    world = WORLDS[name]
    clips = draw_clips(world, 200, 6, digits=2, speed=speed)
    far = torch.tensor([1e6, -1e9, 1e12, -1e15]).double()
    corner = positions(clips, torch.cat([torch.linspace(-100, 100, 67).double(), far]))
    last = last_corner(world)
    assert corner.shape == (200, 71, 2, 2) and corner.dtype == torch.float64
    assert corner.min() >= 0 and (corner <= last).all()
    if not speed:
        assert torch.equal(corner, clips.start[:, None].expand_as(corner))
    elif speed == 0.1:
        assert torch.equal(corner.amax((0, 1, 2)) > 0.99 * last, last > 0)


def test_times_may_differ_from_clip_to_clip() -> None:
    clips = draw_clips(WORLD, 4, 7, digits=2)
    times = torch.randn(4, 6, generator=generator(0)).double() * 9
    by_clip = torch.cat([positions(clips[i : i + 1], times[i]) for i in range(4)])
    assert torch.equal(positions(clips, times), by_clip)
    by_time = [positions(clips, times[:, j : j + 1])[:, 0] for j in range(6)]
    assert torch.equal(positions(clips, times), torch.stack(by_time, 1))
    assert torch.equal(positions(clips, range(3)), positions(clips, torch.arange(3)))
    frames = torch.cat([render_clips(clips[i : i + 1], times[i]) for i in range(4)])
    assert torch.equal(render_clips(clips, times), frames)


# --- what is rendered ---


def slow_ink(clips: Clips, corner: np.ndarray, n: int, subpixel: bool) -> np.ndarray:
    """The ink of a frame in float64; between pixels it is spread by a tent of one pixel."""
    size = clips.world.size
    ink = np.zeros((size, size))
    for d, (top, left) in enumerate(corner if subpixel else corner.round()):
        stamp = clips.world.digits[clips.digit_image[n, d]].double().numpy()
        weights = []
        for start, length in ((top, stamp.shape[0]), (left, stamp.shape[1])):
            distance = np.abs(np.arange(size)[:, None] - start - np.arange(length))
            weights.append(np.maximum(0, 1 - distance))
        down, across = weights
        ink = np.maximum(ink, np.rint(down @ stamp @ across.T))
    return ink


def slow_render(clips: Clips, times: Tensor, subpixel: bool) -> Iterator[np.ndarray]:
    world, corner = clips.world, positions(clips, times).numpy()
    for n, t in itertools.product(range(len(clips)), range(len(times))):
        y, x = clips.crop[n].tolist()
        photo = world.backgrounds[clips.background_image[n]].double().numpy()
        ground = photo[:, y : y + world.size, x : x + world.size] * world.dim / 255
        alpha = slow_ink(clips, corner[n, t], n, subpixel) / 255
        yield ground * (1 - alpha) + alpha


def quarters(clips: Clips) -> Clips:
    """The clips at quarter-pixel starts and speeds, where bilinear weights are exact in float32."""
    start, velocity = (clips.start * 4).round() / 4, (clips.velocity * 4).round() / 4
    return replace(clips, start=start, velocity=velocity)


@every_world
@both_ways
@pytest.mark.parametrize("digits", [1, 2, 3])
def test_render_equals_the_loop_over_frames(name: str, subpixel: bool, digits: int) -> None:
    clips = quarters(draw_clips(WORLDS[name], 7, 8, digits=digits, speed=0.2))
    times = torch.arange(-3.0, 9)
    frames, size = render_clips(clips, times, subpixel), clips.world.size
    assert frames.dtype == torch.float32 and frames.shape == (7, 12, 3, size, size)
    slow = np.stack(list(slow_render(clips, times, subpixel))).reshape(frames.shape)
    np.testing.assert_allclose(frames.numpy(), slow, rtol=0, atol=1e-6)
    assert frames.min() >= 0 and frames.max() <= 1


@pytest.mark.parametrize("digits", [1, 3])
def test_between_pixels_ink_is_off_by_half_a_level_at_most(digits: int) -> None:
    clips, times = draw_clips(WORLD, 20, 9, digits=digits), torch.linspace(0, 30, 9)
    slow = np.stack(list(slow_render(clips, times, True)))
    frames = render_clips(clips, times, subpixel=True).numpy().reshape(slow.shape)
    error = np.abs(frames - slow)
    # A whole level where doubles and floats are rounded to different sides.
    assert error.max() < 1 / 255 + 1e-6 and (error < 1e-6).mean() > 0.999


@every_world
@both_ways
@pytest.mark.parametrize("digits", [1, 2])
def test_bytes_are_the_floats_rounded(name: str, subpixel: bool, digits: int) -> None:
    clips = draw_clips(WORLDS[name], 9, 10, digits=digits)
    frames = render_clips(clips, range(6), subpixel, torch.uint8)
    floats = render_clips(clips, range(6), subpixel)
    assert frames.dtype == torch.uint8
    assert torch.equal(frames, (floats * 255).round().to(torch.uint8))


def scenes_and_still_clips(name: str, n: int = 40) -> tuple[Scenes, Clips]:
    """Scenes, and clips in which the same digits stand still at the same positions."""
    scenes = draw_scenes(WORLDS[name], n, generator(11))
    corner = corners(scenes)[:, None].double()
    factors = scenes.tensors()
    del factors["position"]
    factors |= {"digit": scenes.digit[:, None], "digit_image": scenes.digit_image[:, None]}
    clips = Clips(scenes.world, **factors, start=corner, velocity=torch.zeros_like(corner))
    return scenes, clips


@every_world
@both_ways
def test_a_still_clip_is_the_scene_to_the_bit(name: str, subpixel: bool) -> None:
    scenes, clips = scenes_and_still_clips(name)
    expected = render_scenes(scenes)[:, None].repeat(1, 2, 1, 1, 1)
    assert torch.equal(render_clips(clips, [0, 5.5], subpixel), expected)


@every_world
def test_on_whole_pixels_both_ways_agree(name: str) -> None:
    clips = draw_clips(WORLDS[name], 30, 12, digits=2)
    whole = replace(clips, start=clips.start.round(), velocity=clips.velocity.round())
    assert torch.equal(render_clips(whole, range(9), subpixel=True), render_clips(whole, range(9)))
    if name == "small":
        between = render_clips(clips, range(9), subpixel=True)
        assert not torch.equal(between, render_clips(clips, range(9)))


def select_digits(clips: Clips, order: list[int]) -> Clips:
    """The same clips with these of their digits, in this order."""
    names = ("digit", "digit_image", "start", "velocity")
    return replace(clips, **{name: clips.tensors()[name][:, order] for name in names})


@both_ways
def test_the_order_of_digits_does_not_matter_and_twice_is_once(subpixel: bool) -> None:
    clips = draw_clips(WORLD, 30, 13, digits=3)

    def frames_of(order: list[int]) -> Tensor:
        return render_clips(select_digits(clips, order), range(9), subpixel)

    frames = render_clips(clips, range(9), subpixel)
    for order in ([2, 0, 1], [1, 0, 2], [0, 1, 2, 1]):
        assert torch.equal(frames_of(order), frames)
    fewer = [frames_of(order) for order in ([0], [1], [2], [0, 1])]
    assert not any(torch.equal(less, frames) for less in fewer)
    # White ink can only brighten, so the brightest ink gives the brightest pixel.
    torch.testing.assert_close(frames, torch.stack(fewer[:3]).amax(0), rtol=0, atol=1e-6)


def count_pictures(variants: list[Clips]) -> int:
    return len({render_clips(clip, [0]).numpy().tobytes() for clip in variants})


def test_every_factor_is_visible() -> None:
    clip = draw_clips(WORLD, 1, 14)
    for name, values in (("digit_image", 12), ("background_image", 5)):
        like = clip.tensors()[name]
        variants = [replace(clip, **{name: torch.full_like(like, v)}) for v in range(values)]
        assert count_pictures(variants) == values, name
    crops = itertools.product(range(2), range(3))
    assert count_pictures([replace(clip, crop=torch.tensor([crop])) for crop in crops]) == 6
    starts = [torch.tensor([[[y, x]]]).double() for y in range(8) for x in range(9)]
    assert count_pictures([replace(clip, start=start) for start in starts]) == 72


@pytest.mark.parametrize("chunk", [1, 288, 720, 5760])  # pixels: 1, 2, 5, 40 frames of one digit
@both_ways
@pytest.mark.parametrize("digits", [1, 3])
def test_frames_do_not_depend_on_how_many_are_rendered_at_once(
    monkeypatch: pytest.MonkeyPatch, chunk: int, subpixel: bool, digits: int
) -> None:
    clips = draw_clips(WORLD, 5, 15, digits=digits)

    def frames_of(length: int) -> Tensor:
        return render_clips(clips, range(length), subpixel, torch.uint8)

    whole = {length: frames_of(length) for length in (1, 3, 4, 17)}
    monkeypatch.setattr(moving_mnist, "_CHUNK", chunk)
    for length, frames in whole.items():
        assert torch.equal(frames_of(length), frames)


@every_world
@pytest.mark.parametrize("digits", [1, 3])
def test_pixels_may_be_written_one_by_one(
    monkeypatch: pytest.MonkeyPatch, name: str, digits: int
) -> None:
    clips = draw_clips(WORLDS[name], 9, 21, digits=digits)
    by_rows = [render_clips(clips, range(5), dtype=dtype) for dtype in (torch.float32, torch.uint8)]
    monkeypatch.setattr(moving_mnist, "_BY_ROWS", ())
    for frames in by_rows:
        assert torch.equal(render_clips(clips, range(5), dtype=frames.dtype), frames)


def test_a_batch_is_rendered_like_each_clip_and_each_frame() -> None:
    clips, times = draw_clips(WORLD, 6, 16, digits=2), torch.tensor([0.0, 3.7, -2.0, 1e4])
    frames = render_clips(clips, times)
    by_clip = torch.cat([render_clips(clips[i : i + 1], times) for i in range(6)])
    assert torch.equal(frames, by_clip)
    by_time = torch.cat([render_clips(clips, times[i : i + 1]) for i in range(4)], 1)
    assert torch.equal(frames, by_time)
    assert render_clips(clips[:0], times).shape == (0, 4, 3, 12, 12)
    assert render_clips(clips, []).shape == (6, 0, 3, 12, 12)


def test_banks_need_not_be_contiguous_and_are_not_written_to() -> None:
    digits, backgrounds = WORLD.digits.transpose(1, 2), WORLD.backgrounds.transpose(2, 3)
    clips = draw_clips(replace(WORLD, digits=digits, backgrounds=backgrounds), 9, 17, digits=2)
    contiguous = replace(WORLD, digits=digits.clone(), backgrounds=backgrounds.contiguous())
    same_clips = replace(clips, world=contiguous)
    tensors = (WORLD.digits, WORLD.backgrounds, *clips.tensors().values())
    before = [value.clone() for value in tensors]
    frames = render_clips(clips, range(4), True)
    assert torch.equal(frames, render_clips(same_clips, range(4), True))
    assert all(map(torch.equal, before, tensors))


# --- errors ---


CLIPS = draw_clips(WORLD, 3, 20)
BAD_TIMES = [
    (3.0, r"got the shape \[\], wanted \[T\], or \[3, T\] for 3 clips; write .* range\(20\)"),
    (torch.zeros(2, 5), r"got the shape \[2, 5\], wanted \[T\], or \[3, T\] for 3 clips"),
    (torch.zeros(1, 5), r"got the shape \[1, 5\]"),
    (torch.zeros(4, 5), r"got the shape \[4, 5\]"),
    (torch.zeros(3, 5, 1), r"got the shape \[3, 5, 1\]"),
    ([0.0, float("nan")], r"got 6 coordinates that are NaN or Inf, wanted finite times"),
    ([float("inf")], "wanted finite times"),
    ([0.0, -float("inf"), 1.0], "wanted finite times"),
]


@pytest.mark.parametrize(("times", "message"), BAD_TIMES)
@pytest.mark.parametrize("function", [positions, render_clips])
def test_bad_times_are_errors(function: object, times: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(CLIPS, times)  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.bool])
def test_a_bad_dtype_is_an_error(dtype: torch.dtype) -> None:
    message = rf"got {dtype}, wanted torch.float32 or torch.uint8; convert the frames"
    with pytest.raises(ValueError, match=message):
        render_clips(CLIPS, [0], dtype=dtype)
