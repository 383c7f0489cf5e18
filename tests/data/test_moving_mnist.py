"""Clips against slow simulations: where digits are at any time, and what is painted there."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from infomin.data import moving_mnist as module
from infomin.data import scenes as still
from infomin.data.moving_mnist import Clips, draw_clips, positions, render_clips, shared_clip_nats
from infomin.data.scenes import World, corners

torch.set_num_threads(1)


def world() -> World:
    """Digits of 5 x 4 px on a canvas of 12: the room is 7 x 8 px. Crops 2 x 3. Pixels are random."""
    g = torch.Generator().manual_seed(0)
    return World(
        digits=torch.randint(256, (12, 5, 4), dtype=torch.uint8, generator=g),
        digit_class=torch.tensor([5, 0, 1, 0, 2, 5, 0, 1, 3, 4, 5, 3]),
        backgrounds=torch.randint(256, (5, 3, 13, 14), dtype=torch.uint8, generator=g),
        background_class=torch.tensor([2, 0, 1, 0, 2]),
        size=12,
    )


WORLD = world()
WORLDS = {
    "small": WORLD,
    "canvas of 7": replace(WORLD, size=7),
    "room of one pixel": replace(WORLD, size=6),
    "full canvas": replace(WORLD, digits=WORLD.digits.repeat(1, 3, 3)[:, :12, :12]),
    "full height": replace(WORLD, digits=WORLD.digits.repeat(1, 3, 1)[:, :12]),
    "no room for the crop": replace(WORLD, backgrounds=WORLD.backgrounds[:, :, :12, :12]),
    "all light": replace(WORLD, dim=1.0),
    "no light": replace(WORLD, dim=0.0),
    "a third": replace(WORLD, dim=0.3),
}
every_world = pytest.mark.parametrize("name", WORLDS)


def room(w: World) -> Tensor:
    return torch.tensor([w.size - side for side in w.digits.shape[1:]]).double()


def test_what_clips_are_called_shows_no_picture() -> None:
    said = repr(draw_clips(WORLD, 3, 0)[0])
    assert said.startswith(f"Clips(world={WORLD!r}, digit=tensor([") and len(said) < 700


# --- where digits are ---


@pytest.mark.parametrize("speed", [0.1, 0.37])
def test_positions_are_those_of_small_steps_that_bounce(speed: float) -> None:
    """1,000 clips, 1,000 frames, 8 steps a frame; a step that leaves the room is mirrored at the border it crossed."""
    clips = draw_clips(WORLD, 1000, 1, speed=speed)
    found, ends = positions(clips, range(1000))[:, :, 0].numpy(), room(WORLD).numpy()
    place, step = clips.start[:, 0].numpy().copy(), clips.velocity[:, 0].numpy() / 8
    bounces, worst = 0, 0.0
    for t in range(1000):
        worst = max(worst, np.abs(found[:, t] - place).max())
        for _ in range(8):
            place += step
            outside = (place < 0) | (place > ends)
            place = np.where(place < 0, -place, np.where(place > ends, 2 * ends - place, place))
            step = np.where(outside, -step, step)
            bounces += outside.sum()
    assert worst < 1e-6 and bounces > 100_000
    assert found.min() >= 0 and (found <= ends).all()


def fold(x: Fraction, room: int) -> Fraction:
    """Mirrored at one border after the other until it is inside."""
    while not 0 <= x <= room:
        x = -x if x < 0 else 2 * room - x
    return x


def test_positions_of_binary_fractions_are_exact() -> None:
    """Places, speeds and times of a few bits: doubles make no error, so that a border is met exactly, and left again."""
    eighth = [Fraction(k, 8) for k in range(-60, 61, 12)]
    paths = list(itertools.product([Fraction(0), Fraction(7), Fraction(13, 4)], eighth))
    starts, velocities = (
        torch.tensor([[[float(x)] * 2] for x in xs]).double() for xs in zip(*paths, strict=True)
    )
    clips = replace(draw_clips(WORLD, len(paths), 0), start=starts, velocity=velocities)
    times = [Fraction(k, 4) for k in range(-41, 42)]
    found = positions(clips, [float(t) for t in times])[:, :, 0]
    for axis, end in enumerate((7, 8)):
        exact = [
            [float(fold(start + velocity * t, end)) for t in times] for start, velocity in paths
        ]
        assert found[..., axis].tolist() == exact
    touched = (found[..., 0] == 0).sum() + (found[..., 0] == 7).sum()
    assert touched > 50


def test_the_nats_of_several_digits_are_not_known() -> None:
    with pytest.raises(
        ValueError, match="nats: got clips of 3 digits, wanted one each; draw them with digits=1"
    ):
        shared_clip_nats(draw_clips(WORLD, 4, seed=0, digits=3), "digit")


def test_at_time_zero_digits_are_where_they_start() -> None:
    clips = draw_clips(WORLD, 500, 2, digits=3)
    assert torch.equal(positions(clips, [0.0])[:, 0], clips.start)


def test_time_runs_backwards_if_velocity_does() -> None:
    clips, times = (
        draw_clips(WORLD, 200, 3, digits=2),
        torch.linspace(-50, 50, 101, dtype=torch.float64),
    )
    assert torch.equal(
        positions(replace(clips, velocity=-clips.velocity), -times), positions(clips, times)
    )


def test_a_clip_taken_up_later_goes_on_as_before() -> None:
    clips, times = (
        draw_clips(WORLD, 300, 4, digits=2),
        torch.linspace(-20, 20, 33, dtype=torch.float64),
    )
    for later in (0.25, 7.3, -11.9, 400.0):
        turns = ((clips.start + clips.velocity * later) / room(WORLD)).floor()
        velocity = torch.where(turns % 2 == 0, clips.velocity, -clips.velocity)
        moved = replace(clips, start=positions(clips, [later])[:, 0], velocity=velocity)
        torch.testing.assert_close(
            positions(moved, times), positions(clips, times + later), rtol=0, atol=1e-10
        )


def test_speed_is_constant_between_bounces_and_never_greater() -> None:
    clips, dt = draw_clips(WORLD, 150, 5, digits=2, speed=0.15), 2.0**-7
    times = torch.arange(0, 40, dt, dtype=torch.float64)
    place = positions(clips, times)
    speed = place.diff(dim=1).div(dt).norm(dim=-1)
    side = (
        (clips.start[:, None] + clips.velocity[:, None] * times[:, None, None]) / room(WORLD)
    ).floor()
    straight = (side.diff(dim=1) == 0).all(-1)
    assert 0.9 < straight.double().mean() < 0.999
    torch.testing.assert_close(
        speed[straight], torch.full_like(speed[straight], 0.15 * 12), rtol=0, atol=1e-9
    )
    assert speed.max() <= 0.15 * 12 + 1e-9
    assert (speed[~straight] < 0.15 * 12 - 1e-6).double().mean() > 0.9


@every_world
@pytest.mark.parametrize("speed", [0.0, 0.1, 25.0])
def test_digits_never_leave_the_canvas(name: str, speed: float) -> None:
    w = WORLDS[name]
    clips = draw_clips(w, 200, 6, digits=2, speed=speed)
    times = torch.cat(
        [torch.linspace(-100, 100, 67).double(), torch.tensor([1e6, -1e9, 1e12, -1e15]).double()]
    )
    place = positions(clips, times)
    assert place.shape == (200, 71, 2, 2) and place.dtype == torch.float64
    assert place.min() >= 0 and (place <= room(w)).all()
    if not speed:
        assert torch.equal(place, clips.start[:, None].expand_as(place))
    elif speed == 0.1:
        assert torch.equal(place.amax((0, 1, 2)) > 0.99 * room(w), room(w) > 0)


def test_times_may_differ_from_clip_to_clip() -> None:
    clips, times = (
        draw_clips(WORLD, 4, 7, digits=2),
        torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double() * 9,
    )
    one_by_one = torch.cat([positions(clips[i : i + 1], times[i]) for i in range(4)])
    assert torch.equal(positions(clips, times), one_by_one)
    assert torch.equal(
        positions(clips, times),
        torch.stack([positions(clips, times[:, j : j + 1])[:, 0] for j in range(6)], 1),
    )
    assert torch.equal(positions(clips, range(3)), positions(clips, torch.arange(3)))
    assert torch.equal(
        render_clips(clips, times),
        torch.cat([render_clips(clips[i : i + 1], times[i]) for i in range(4)]),
    )


# --- what is painted ---


def inks(clips: Clips, places: np.ndarray, n: int, subpixel: bool) -> np.ndarray:
    """The ink of one frame as bytes in float64; between pixels each is spread by the weights of a tent of one pixel."""
    size, ink = clips.world.size, np.zeros((clips.world.size,) * 2)
    for d, (top, left) in enumerate(places if subpixel else places.round()):
        stamp = clips.world.digits[clips.digit_image[n, d]].double().numpy()
        down, across = (
            np.maximum(0, 1 - np.abs(np.arange(size)[:, None] - at - np.arange(length)))
            for at, length in ((top, stamp.shape[0]), (left, stamp.shape[1]))
        )
        ink = np.maximum(ink, np.rint(down @ stamp @ across.T))
    return ink


def slow_render(clips: Clips, times: Tensor, subpixel: bool) -> Iterator[np.ndarray]:
    w, places = clips.world, positions(clips, times).numpy()
    for n, t in itertools.product(range(len(clips)), range(len(times))):
        y, x = clips.crop[n].tolist()
        ground = (
            w.backgrounds[clips.background_image[n], :, y : y + w.size, x : x + w.size]
            .double()
            .numpy()
            * w.dim
            / 255
        )
        alpha = inks(clips, places[n, t], n, subpixel) / 255
        yield ground * (1 - alpha) + alpha


def quarters(clips: Clips) -> Clips:
    """The clips on places and at speeds of whole quarters, where bilinear weights are exact in float32."""
    return replace(
        clips, start=(clips.start * 4).round() / 4, velocity=(clips.velocity * 4).round() / 4
    )


@every_world
@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.parametrize("digits", [1, 2, 3])
def test_render_equals_the_loop_over_frames(name: str, subpixel: bool, digits: int) -> None:
    clips, times = (
        quarters(draw_clips(WORLDS[name], 7, 8, digits=digits, speed=0.2)),
        torch.arange(-3.0, 9),
    )
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
    assert (
        np.abs(frames - slow).max() < 1 / 255 + 1e-6
    )  # a level where doubles and floats are rounded to different sides
    assert (np.abs(frames - slow) < 1e-6).mean() > 0.999


@every_world
@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.parametrize("digits", [1, 2])
def test_bytes_are_the_floats_rounded(name: str, subpixel: bool, digits: int) -> None:
    clips = draw_clips(WORLDS[name], 9, 10, digits=digits)
    frames = render_clips(clips, range(6), subpixel, torch.uint8)
    assert frames.dtype == torch.uint8
    assert torch.equal(
        frames, (render_clips(clips, range(6), subpixel) * 255).round().to(torch.uint8)
    )


def stills(name: str, n: int = 40) -> tuple[still.Scenes, Clips]:
    """Scenes, and clips in which the same digits stand still at the same places."""
    scenes = still.draw_scenes(WORLDS[name], n, torch.Generator().manual_seed(11))
    corner = corners(scenes)[:, None].double()
    parts = {name: value for name, value in scenes.tensors().items() if name != "position"}
    parts |= {"digit": scenes.digit[:, None], "digit_image": scenes.digit_image[:, None]}
    return scenes, Clips(scenes.world, **parts, start=corner, velocity=torch.zeros_like(corner))


@every_world
@pytest.mark.parametrize("subpixel", [False, True])
def test_a_still_clip_is_the_scene_to_the_bit(name: str, subpixel: bool) -> None:
    scenes, clips = stills(name)
    assert torch.equal(
        render_clips(clips, [0, 5.5], subpixel),
        still.render_scenes(scenes)[:, None].repeat(1, 2, 1, 1, 1),
    )


@every_world
def test_on_whole_pixels_both_ways_agree(name: str) -> None:
    clips = draw_clips(WORLDS[name], 30, 12, digits=2)
    whole = replace(clips, start=clips.start.round(), velocity=clips.velocity.round())
    assert torch.equal(render_clips(whole, range(9), subpixel=True), render_clips(whole, range(9)))
    if name == "small":
        assert not torch.equal(
            render_clips(clips, range(9), subpixel=True), render_clips(clips, range(9))
        )


def only(clips: Clips, order: list[int]) -> Clips:
    """The same clips with these of their digits, in this order."""
    return replace(
        clips,
        **{
            name: getattr(clips, name)[:, order]
            for name in ("digit", "digit_image", "start", "velocity")
        },
    )


@pytest.mark.parametrize("subpixel", [False, True])
def test_the_order_of_digits_means_nothing_and_twice_is_once(subpixel: bool) -> None:
    clips = draw_clips(WORLD, 30, 13, digits=3)
    frames = render_clips(clips, range(9), subpixel)
    for order in ([2, 0, 1], [1, 0, 2], [0, 1, 2, 1]):
        assert torch.equal(render_clips(only(clips, order), range(9), subpixel), frames)
    fewer = [
        render_clips(only(clips, part), range(9), subpixel) for part in ([0], [1], [2], [0, 1])
    ]
    assert not any(torch.equal(less, frames) for less in fewer)
    # White ink can only brighten, so the brightest ink gives the brightest pixel.
    torch.testing.assert_close(frames, torch.stack(fewer[:3]).amax(0), rtol=0, atol=1e-6)


def test_every_factor_shows() -> None:
    one = draw_clips(WORLD, 1, 14)
    for name, values in (("digit_image", 12), ("background_image", 5)):
        like = getattr(one, name)
        pictures = {
            render_clips(replace(one, **{name: torch.full_like(like, v)}), [0]).numpy().tobytes()
            for v in range(values)
        }
        assert len(pictures) == values, name
    crops = [replace(one, crop=torch.tensor([[y, x]])) for y in range(2) for x in range(3)]
    assert len({render_clips(clip, [0]).numpy().tobytes() for clip in crops}) == 6
    places = [
        replace(one, start=torch.tensor([[[y, x]]]).double()) for y in range(8) for x in range(9)
    ]
    assert len({render_clips(clip, [0]).numpy().tobytes() for clip in places}) == 72


@pytest.mark.parametrize("chunk", [1, 288, 720, 5760])  # pixels: 1, 2, 5, 40 frames of one digit
@pytest.mark.parametrize("subpixel", [False, True])
@pytest.mark.parametrize("digits", [1, 3])
def test_frames_do_not_depend_on_how_many_are_painted_at_once(
    monkeypatch: pytest.MonkeyPatch, chunk: int, subpixel: bool, digits: int
) -> None:
    clips = draw_clips(WORLD, 5, 15, digits=digits)
    whole = {
        length: render_clips(clips, range(length), subpixel, torch.uint8)
        for length in (1, 3, 4, 17)
    }
    monkeypatch.setattr(module, "_CHUNK", chunk)
    for length, frames in whole.items():
        assert torch.equal(render_clips(clips, range(length), subpixel, torch.uint8), frames)


@every_world
@pytest.mark.parametrize("digits", [1, 3])
def test_pixels_may_be_written_one_by_one(
    monkeypatch: pytest.MonkeyPatch, name: str, digits: int
) -> None:
    clips = draw_clips(WORLDS[name], 9, 21, digits=digits)
    by_rows = [render_clips(clips, range(5), dtype=dtype) for dtype in (torch.float32, torch.uint8)]
    monkeypatch.setattr(module, "_BY_ROWS", ())
    assert all(
        torch.equal(render_clips(clips, range(5), dtype=frames.dtype), frames) for frames in by_rows
    )


def test_render_of_a_batch_is_the_render_of_each_and_of_each_frame() -> None:
    clips, times = draw_clips(WORLD, 6, 16, digits=2), torch.tensor([0.0, 3.7, -2.0, 1e4])
    frames = render_clips(clips, times)
    assert torch.equal(frames, torch.cat([render_clips(clips[i : i + 1], times) for i in range(6)]))
    assert torch.equal(
        frames, torch.cat([render_clips(clips, times[i : i + 1]) for i in range(4)], 1)
    )
    assert render_clips(clips[:0], times).shape == (0, 4, 3, 12, 12) and render_clips(
        clips, []
    ).shape == (6, 0, 3, 12, 12)


def test_banks_need_not_be_contiguous_and_are_not_written_to() -> None:
    turned = replace(
        WORLD, digits=WORLD.digits.transpose(1, 2), backgrounds=WORLD.backgrounds.transpose(2, 3)
    )
    clips = draw_clips(turned, 9, 17, digits=2)
    plain = replace(
        clips,
        world=replace(
            turned, digits=turned.digits.clone(), backgrounds=turned.backgrounds.contiguous()
        ),
    )
    before = [
        value.clone() for value in (WORLD.digits, WORLD.backgrounds, *clips.tensors().values())
    ]
    assert torch.equal(render_clips(clips, range(4), True), render_clips(plain, range(4), True))
    assert all(
        map(torch.equal, before, (WORLD.digits, WORLD.backgrounds, *clips.tensors().values()))
    )


# --- slices, devices, errors ---


def test_clips_are_sliced_by_slices_and_indices() -> None:
    clips, index = draw_clips(WORLD, 20, 18, digits=2), torch.tensor([4, 0, 4])
    assert len(clips) == 20 and len(clips[5:9]) == 4 and clips[5:9].world is WORLD
    assert torch.equal(render_clips(clips[index], range(3)), render_clips(clips, range(3))[index])
    assert list(clips.tensors()) == [
        "digit",
        "digit_image",
        "start",
        "velocity",
        "background",
        "background_image",
        "crop",
    ]


@pytest.mark.parametrize(
    "device", ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]
)
def test_clips_move_with_their_world(device: str) -> None:
    clips = draw_clips(WORLD, 5, 19, digits=2)
    moved = clips.to(device)
    assert all(
        v.device.type == device
        for v in (*moved.tensors().values(), moved.world.digits, moved.world.backgrounds)
    )
    if device != "meta":
        there = draw_clips(WORLD.to(device), 5, 19, digits=2)
        assert all(
            torch.equal(there.tensors()[name].cpu(), value)
            for name, value in clips.tensors().items()
        )
        for subpixel in (False, True):
            assert torch.equal(
                render_clips(moved, range(9), subpixel, torch.uint8).cpu(),
                render_clips(clips, range(9), subpixel, torch.uint8),
            )


CLIPS = draw_clips(WORLD, 3, 20)
BAD_TIMES = [
    (
        3.0,
        r"got the shape \[\], wanted \[T\] or, for 3 clips, \[3, T\]; write for example range\(20\)",
    ),
    (torch.zeros(2, 5), r"got the shape \[2, 5\], wanted \[T\] or, for 3 clips, \[3, T\]"),
    (torch.zeros(1, 5), r"got the shape \[1, 5\]"),
    (torch.zeros(4, 5), r"got the shape \[4, 5\]"),
    (torch.zeros(3, 5, 1), r"got the shape \[3, 5, 1\]"),
    ([0.0, float("nan")], r"got 6 places that are NaN or Inf, wanted finite times; change them"),
    ([float("inf")], "wanted finite times"),
    ([0.0, -float("inf"), 1.0], "wanted finite times"),
]


@pytest.mark.parametrize(("times", "message"), BAD_TIMES)
@pytest.mark.parametrize("function", [positions, render_clips])
def test_bad_times_say_what_is_wanted(function: object, times: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(CLIPS, times)  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.bool])
def test_a_bad_dtype_says_what_is_wanted(dtype: torch.dtype) -> None:
    with pytest.raises(
        ValueError, match=rf"got {dtype}, wanted torch.float32 or torch.uint8; convert the frames"
    ):
        render_clips(CLIPS, [0], dtype=dtype)


@pytest.mark.parametrize("digits", [2, 3])
def test_nats_are_those_of_one_digit(digits: int) -> None:
    with pytest.raises(
        ValueError,
        match=f"nats: got clips of {digits} digits, wanted one each; draw them with digits=1",
    ):
        shared_clip_nats(draw_clips(WORLD, 4, seed=0, digits=digits), "digit")
