"""Colorful Moving-MNIST: handwritten digits that move over a background at constant speed and bounce off the borders.

`draw_clips` makes factors, `positions` tells where digits are at any real time, `render_clips` makes pixels; nothing is simulated step by
step. `shared_clip_nats` says what a clip and an image that has some of its factors share. Pictures and names of factors are those of
`scenes`, which stand still; the setting is InfoMin's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import check_positive
from ..common.seeds import to_device, uniform_at
from .scenes import Factors, World, nats_per_factor, parse_factors, pick_member
from .windows import cut_windows, row_starts

_CHUNK = 2**21  # pixels painted at once, 512 frames of 64 px: some megabytes beside the result
_BY_ROWS = (
    "cpu",
)  # devices where rows are written through a view in which they overlap; others might write through a copy
PAST, LATER = (
    10,
    20,
)  # frames that a view of the past has, and the time of the frame that is to come; as recalled of the paper
_ROWS = 8192  # rows of random words that a clip owns: the first is its background's, the others are its digits'


@dataclass(frozen=True, eq=False)
class Clips(Factors):
    """A batch of B clips of D digits each: the factors of each, and the world they are drawn from.

    Args:
        world: the banks of pictures and the canvas; `cells` means nothing here.
        digit: the digits' classes, long `[B, D]`.
        digit_image: rows of the world's digits, long `[B, D]`.
        start: top-left corners (y, x) at time 0, float64 `[B, D, 2]`, pixels from 0 to the canvas less the digit.
        velocity: pixels per frame (y, x) at time 0, float64 `[B, D, 2]`.
        background: the backgrounds' classes, long `[B]`.
        background_image: rows of the world's backgrounds, long `[B]`.
        crop: the canvas's top-left pixel (y, x) in the background, long `[B, 2]`.
    """

    digit_image: Tensor
    start: Tensor
    velocity: Tensor
    background: Tensor
    background_image: Tensor
    crop: Tensor


def draw_clips(
    world: World, n: int, seed: int, *, first: int = 0, digits: int = 1, speed: float = 0.1
) -> Clips:
    """Clips `first` to `first + n - 1` of the endless sequence that belongs to a seed.

    A clip depends on the seed and its own number alone: its bytes are the same on any machine, however the sequence is cut into
    batches; and digit d of a clip is the same however many there are. Classes are uniform, then an image within its class, a
    crop within its image, the start over all places where the digit is whole, and the direction on the circle.

    Args:
        world: what clips are made of.
        n: how many, 0 or more.
        seed: 0 or more.
        first: the number of the first clip, 0 or more.
        digits: how many move in each clip, 1 to 8191.
        speed: canvases per frame, 0 or more.

    Raises:
        ValueError: a world that has no pictures for a class or too small a canvas, a negative seed, a number out of range.

    >>> ink, ground = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    >>> world = World(ink, torch.tensor([0, 1, 1]), ground, torch.tensor([0, 1]))
    >>> torch.equal(draw_clips(world, 5, seed=0).start[3:], draw_clips(world, 2, seed=0, first=3).start)
    True
    """
    world.check()
    for name, value, least, most in (
        ("n", n, 0, 2**47),
        ("first", first, 0, 2**47),
        ("digits", digits, 1, _ROWS - 1),
    ):
        if not isinstance(value, int) or not least <= value <= most:
            raise ValueError(
                f"draw({name}): got {value!r}, wanted a whole number from {least} to {most}; change it"
            )
    clip, row, column = (
        torch.arange(*ends, device="cpu") for ends in ((first, first + n), (1 + digits,), (5,))
    )
    words = uniform_at((clip[:, None, None] * _ROWS + row[:, None]) * 8 + column, seed, "clips")
    ground, figure = words[:, 0], words[:, 1:]
    (kind, image), (digit, digit_image) = (
        _chosen(world, "background", ground),
        _chosen(world, "digit", figure),
    )
    cut = torch.tensor(world.backgrounds.shape[2:], device="cpu") - world.size + 1
    factors = {
        "digit": digit,
        "digit_image": digit_image,
        "start": figure[..., 2:4] * _room(world),
        "velocity": _direction(figure[..., 4])
        * (check_positive(speed, "draw(speed)", zero=True) * world.size),
        "background": kind,
        "background_image": image,
        "crop": (ground[:, 2:4] * cut).long(),
    }
    return Clips(
        world, **{name: to_device(value, world.digits.device) for name, value in factors.items()}
    )


def positions(clips: Clips, times: Tensor | Sequence[float]) -> Tensor:
    """Where the digits are: float64 `[B, T, D, 2]`, the top-left corners (y, x) in pixels.

    A path that is reflected at two borders is the straight path folded: exact at the borders, and as easy at any time as at the
    next frame.

    Args:
        clips: `[B]` clips.
        times: frames, any real numbers: `[T]` for all clips, or `[B, T]`.

    Raises:
        ValueError: times of another shape, or NaN or Inf.

    >>> ink, ground, none = torch.zeros(1, 8, 8).byte(), torch.zeros(1, 3, 32, 32).byte(), torch.zeros(1).long()
    >>> start, velocity = torch.tensor([[[20., 0.]]]).double(), torch.tensor([[[3., -1.]]]).double()
    >>> world = World(ink, none, ground, none)  # the room is 32 - 8 px
    >>> clip = Clips(world, none[None], none[None], start, velocity, none, none, torch.zeros(1, 2).long())
    >>> positions(clip, [0, 1, 2.5, 100]).flatten(2).tolist()
    [[[20.0, 0.0], [23.0, 1.0], [20.5, 2.5], [16.0, 4.0]]]
    """
    times = (
        times
        if isinstance(times, Tensor)
        else torch.tensor(times, dtype=torch.float64, device="cpu")
    )
    at = to_device(times, clips.start)  # in float64
    if at.dim() not in (1, 2) or (at.dim() == 2 and len(at) != len(clips)):
        raise ValueError(
            f"positions(times): got the shape {list(at.shape)}, wanted [T] or, for {len(clips)} clips, [{len(clips)}, T]; "
            "write for example range(20)"
        )
    path = clips.start[:, None] + clips.velocity[:, None] * at[..., None, None]
    if bad := int((~path.isfinite()).sum()):
        raise ValueError(
            f"positions(times): got {bad} places that are NaN or Inf, wanted finite times; change them"
        )
    room = _room(clips.world, path.device)
    there_and_back = (2 * room).clamp(
        min=1
    )  # where there is no room, anything: the place is 0 by the last minimum
    along = path % there_and_back
    return along.minimum(there_and_back - along).minimum(room)


def render_clips(
    clips: Clips,
    times: Tensor | Sequence[float],
    subpixel: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw clips: frames `[B, T, 3, size, size]`, white ink over a dimmed crop of the background.

    Values are those of `scenes.render_scenes`. Where digits overlap the brighter ink is seen, so their order means nothing.

    Args:
        clips: `[B]` clips.
        times: frames, any real numbers: `[T]` for all clips, or `[B, T]`.
        subpixel: False pastes digits at whole pixels, the nearest; True between pixels, by bilinear weights, ink being rounded
            to one of its 256 levels.
        dtype: float32, in [0, 1]; or uint8, the same values times 255, rounded.

    Raises:
        ValueError: times or a dtype out of these.

    >>> ink, ground = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    >>> clips = draw_clips(World(ink, torch.tensor([0, 1, 1]), ground, torch.tensor([0, 1])), 5, seed=0, digits=2)
    >>> render_clips(clips, range(20), dtype=torch.uint8).shape
    torch.Size([5, 20, 3, 32, 32])
    """
    if dtype not in (torch.float32, torch.uint8):
        raise ValueError(
            f"render(dtype): got {dtype}, wanted torch.float32 or torch.uint8; convert the frames afterwards"
        )
    places, world = positions(clips, times), clips.world
    (length, count), places = places.shape[1:3], places.flatten(0, 1)
    frames = torch.empty(len(places), 3, world.size, world.size, dtype=dtype, device=places.device)
    step = max(1, _CHUNK // (count * world.size**2))
    step = (
        step // max(1, length) * length or step
    )  # whole clips where that can be, for a background is made once a chunk
    for i in range(0, len(frames), step):
        clip = torch.arange(i, min(i + step, len(frames)), device=places.device) // length
        some = clips[i // length : (i + step - 1) // length + 1]
        _paint(frames[i : i + step], some, clip - i // length, places[i : i + step], subpixel)
    return frames.unflatten(0, (len(clips), length))


def parse_clip_factors(share: str) -> dict[str, int]:
    """Read a list of factors that an image shares with a frame of a clip, as `scenes.parse_factors` does.

    Raises:
        ValueError: an unknown factor; a position modulo a number, for places in a clip are not numbered.
    """
    if (keep := parse_factors(share)).get("position"):
        raise ValueError(
            f"shared factors {share!r}: got a position with a modulus, wanted none, for places in a clip are not numbered; "
            "write 'position'"
        )
    return keep


def shared_clip_nats(clips: Clips, share: str) -> float:
    """What a clip shares with an image that has the named factors of a frame of it, all else drawn anew; closed form, in nats.

    It bounds I(v1; v2) from above. Places are uniform, as starts are, and seen to the pixel, those at borders half as often.

    Args:
        clips: of one digit each.
        share: see `parse_clip_factors`, also for errors.

    >>> ink, ground = torch.zeros(10, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    >>> clips = draw_clips(World(ink, torch.arange(10), ground, torch.tensor([0, 1]), size=40), 1, seed=0)
    >>> round(shared_clip_nats(clips, "digit"), 4), round(shared_clip_nats(clips, "position"), 4)  # log 10, 2 (log 32 + log 2 / 32)
    (2.3026, 6.9748)
    """
    if (digits := clips.digit.shape[1]) != 1:
        raise ValueError(
            f"nats: got clips of {digits} digits, wanted one each; draw them with digits=1"
        )
    found = nats_per_factor(clips.world, share)
    if "position" in parse_clip_factors(share):
        found["position"] = sum(
            math.log(side) + math.log(2) / side for side in _room(clips.world).tolist() if side
        )
    return math.fsum(found.values())


def _paint(frames: Tensor, clips: Clips, clip: Tensor, places: Tensor, subpixel: bool) -> None:
    """Fill `frames` `[n, 3, size, size]`: those of the clips numbered `clip` `[n]`, with digits at `places` `[n, D, 2]`."""
    world, size = clips.world, clips.world.size
    ground = cut_windows(world.backgrounds, clips.background_image, clips.crop, size, size) * (
        world.dim / 255
    )
    torch.index_select(
        _stored(ground.clone(), frames.dtype), 0, clip, out=frames
    )  # made once a clip, and copied for each frame
    corner = (
        places.floor().minimum(_room(world, places.device).sub(1).clamp(min=0))
        if subpixel
        else places.round()
    )
    image = clips.digit_image.index_select(0, clip)
    stamps = world.digits.index_select(0, image.flatten()).unflatten(0, image.shape)
    if subpixel:
        stamps = _between(stamps, (places - corner).float(), size)
    corner = corner.long()
    if stamps.shape[1] > 1:
        stamps = _brightest(stamps, corner, size)
    height, width = stamps.shape[2:]
    ink = stamps[:, :, None].float().div_(255)
    seen = _stored(
        cut_windows(ground, clip[:, None], corner, height, width).mul_(1 - ink).add_(ink),
        frames.dtype,
    )
    rows = row_starts(
        frames, torch.arange(len(frames), device=frames.device)[:, None], corner, height
    )
    flat = frames.view(-1)  # windows that overlap hold the same values there
    if flat.device.type in _BY_ROWS:
        flat.unfold(0, width, 1)[rows] = seen.view(-1, width)
    else:
        flat.scatter_(
            0, (rows[:, None] + torch.arange(width, device=flat.device)).flatten(), seen.flatten()
        )


def _stored(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats in [0, 1] as frames have them, in their own memory; bytes by way of 16 bits, which torch converts to in vectors."""
    return values.mul_(255).round_().to(torch.int16).to(dtype) if dtype == torch.uint8 else values


def _between(stamps: Tensor, offset: Tensor, size: int) -> Tensor:
    """Stamps `[n, D, h, w]` moved down and right by parts of a pixel `[n, D, 2]`, grown by a pixel where there is room."""
    grow = [min(1, size - side) for side in stamps.shape[2:]]
    ink = F.pad(stamps, (grow[1], grow[1], grow[0], grow[0])).float()
    for axis, more, part in zip((2, 3), grow, offset[..., None, None].unbind(2), strict=True):
        last = ink.shape[axis] - 1
        ink = (
            ink.narrow(axis, 0, last) * part + ink.narrow(axis, 1, last) * (1 - part)
            if more
            else ink
        )
    return ink.round().to(torch.uint8)


def _brightest(stamps: Tensor, corner: Tensor, size: int) -> Tensor:
    """For each of the stamps `[n, D, h, w]` at `corner` `[n, D, 2]`, the brightest ink that any stamp has in its window."""
    n, count, height, width = stamps.shape
    room = to_device(torch.tensor([size - height, size - width], device="cpu"), stamps.device)
    sheets = F.pad(stamps, (size - width, size - width, size - height, size - height)).flatten(
        0, 1
    )[:, None]
    sheet = torch.arange(n * count, device=stamps.device).view(n, 1, count).expand(n, count, count)
    return (
        cut_windows(sheets, sheet, room + corner[:, :, None] - corner[:, None], height, width)
        .squeeze(3)
        .amax(2)
    )


def _room(world: World, device: torch.device | str = "cpu") -> Tensor:
    """The greatest place (y, x) of a digit: the canvas less the digit, float64 `[2]`."""
    return to_device(
        torch.tensor(
            [world.size - n for n in world.digits.shape[1:]], dtype=torch.float64, device="cpu"
        ),
        device,
    )


def _chosen(world: World, name: str, words: Tensor) -> tuple[Tensor, Tensor]:
    """A class from the first of the uniform words `[..., 5]`, and a row of the bank within that class from the second."""
    of_class, of_row = to_device(words[..., :2], world.digits.device).unbind(-1)
    kind = (of_class * len(world.counts[name])).long()
    return kind, pick_member(world, name, kind, of_row)


def _direction(turn: Tensor) -> Tensor:
    """Unit vectors (y, x) `[..., 2]` at angles of `turn` of a full circle, 0 to 1, counted from the left.

    By sums and products, which are rounded alike on every machine; the sine of a library is not.
    """
    angle = (turn * 2 - 1) * math.pi
    square, sine, cosine = angle * angle, torch.ones_like(angle), torch.ones_like(angle)
    for k in range(
        30, 0, -2
    ):  # their power series from the far end; beyond angle**31 the terms are below the rounding
        sine, cosine = (
            1 - square * sine * (1 / (k * (k + 1))),
            1 - square * cosine * (1 / (k * (k - 1))),
        )
    return torch.stack([sine * angle, cosine], -1)
