"""Colorful Moving-MNIST: digits move over a background at constant speed and bounce off the border.

`draw_clips` draws factors, `positions` computes where the digits are at any real time, and
`render_clips` renders pixels; nothing is simulated step by step. `shared_clip_nats` is what a clip
shares with an image that has some of its factors. Pictures and factor names are those of `scenes`,
where nothing moves. The setting is InfoMin's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import check_positive
from ..common.seeds import to_device, uniform_at
from .scenes import Factors, Level, nats_per_factor, parse_factors, pick_member
from .windows import cut_windows, row_starts
from .worlds import World

# The frames in a view of the past, and the time of the later frame; the paper's, from memory.
PAST, LATER = 10, 20
# Pixels rendered at once: 512 frames of 64 px, some megabytes beside the result.
_CHUNK = 2**21
# Devices on which rows are written through an overlapping view; others might write to a copy.
_BY_ROWS = ("cpu",)
# Rows of random words reserved for a clip: the first for its background, the others for its digits.
_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Clips(Factors):
    """The factors of B clips of D digits each, and the world they are drawn from.

    Args:
        world: the banks of pictures and the canvas; its `cells` are not used.
        digit: classes of the digits, long `[B, D]`.
        digit_image: rows of the world's digits, long `[B, D]`.
        start: top-left corners (y, x) at time 0, float64 `[B, D, 2]`, from 0 px to the canvas minus
            the digit.
        velocity: pixels per frame (y, x) at time 0, float64 `[B, D, 2]`.
        background: classes of the backgrounds, long `[B]`.
        background_image: rows of the world's backgrounds, long `[B]`.
        crop: the top-left pixel (y, x) of the canvas in the background, long `[B, 2]`.
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
    """Draw clips `first` to `first + n - 1` of the endless sequence that belongs to a seed.

    A clip depends only on the seed and its own number, so its bytes are the same on any machine and
    for any batch size; digit d of a clip is the same for any number of digits. Classes are uniform,
    images uniform within a class, crops within an image, starts over all corners at which the whole
    digit is on the canvas, and directions on the circle.

    Args:
        world: the pictures and the canvas.
        n: number of clips, 0 or more.
        seed: 0 or more.
        first: number of the first clip, 0 or more.
        digits: moving digits in each clip, 1 to 8191.
        speed: in canvases per frame, 0 or more.

    Raises:
        ValueError: a class without pictures, a canvas too small, a number out of range.

    >>> ink = torch.zeros(3, 8, 8, dtype=torch.uint8)
    >>> photos = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    >>> world = World(ink, torch.tensor([0, 1, 1]), photos, torch.tensor([0, 1]))
    >>> clips, last = draw_clips(world, 5, seed=0), draw_clips(world, 2, seed=0, first=3)
    >>> torch.equal(clips.start[3:], last.start)
    True
    """
    world.check()
    _check_count("n", n, 0, 2**47)
    _check_count("first", first, 0, 2**47)
    _check_count("digits", digits, 1, _ROWS - 1)
    clip = torch.arange(first, first + n, device="cpu")
    row = torch.arange(1 + digits, device="cpu")
    column = torch.arange(5, device="cpu")
    counters = (clip[:, None, None] * _ROWS + row[:, None]) * 8 + column
    words = uniform_at(counters, seed, "clips")
    pixels_per_frame = check_positive(speed, "draw_clips(speed)", zero=True) * world.size
    background_words, digit_words = words[:, 0], words[:, 1:]
    background, background_image = _pick_image(world, "background", background_words)
    digit, digit_image = _pick_image(world, "digit", digit_words)
    crops = torch.tensor(world.backgrounds.shape[2:], device="cpu") - world.size + 1
    factors = {
        "digit": digit,
        "digit_image": digit_image,
        "start": digit_words[..., 2:4] * _last_corner(world),
        "velocity": _direction(digit_words[..., 4]) * pixels_per_frame,
        "background": background,
        "background_image": background_image,
        "crop": (background_words[:, 2:4] * crops).long(),
    }
    device = world.digits.device
    return Clips(world, **{name: to_device(value, device) for name, value in factors.items()})


def positions(clips: Clips, times: Tensor | Sequence[float]) -> Tensor:
    """Top-left corners (y, x) of the digits in pixels, float64 `[B, T, D, 2]`.

    A path that is reflected at two borders is the straight path folded: exact at the borders, and
    as cheap at any time as at the next frame.

    Args:
        clips: `[B]` clips.
        times: in frames, any real numbers: `[T]` for all clips, or `[B, T]`.

    Raises:
        ValueError: times of another shape, or NaN or Inf.

    >>> ink, photos = torch.zeros(1, 8, 8).byte(), torch.zeros(1, 3, 32, 32).byte()
    >>> zero = torch.zeros(1).long()
    >>> world = World(ink, zero, photos, zero)  # corners from 0 to 32 - 8 px
    >>> start = torch.tensor([[[20., 0.]]]).double()
    >>> velocity = torch.tensor([[[3., -1.]]]).double()
    >>> crop = torch.zeros(1, 2).long()
    >>> clip = Clips(world, zero[None], zero[None], start, velocity, zero, zero, crop)
    >>> positions(clip, [0, 1, 2.5, 100]).flatten(2).tolist()
    [[[20.0, 0.0], [23.0, 1.0], [20.5, 2.5], [16.0, 4.0]]]
    """
    if not isinstance(times, Tensor):
        times = torch.tensor(times, dtype=torch.float64, device="cpu")
    times = to_device(times, clips.start)  # float64
    if times.dim() not in (1, 2) or (times.dim() == 2 and len(times) != len(clips)):
        raise ValueError(
            f"positions(times): got the shape {list(times.shape)}, wanted [T], or "
            f"[{len(clips)}, T] for {len(clips)} clips; write for example range(20)"
        )
    path = clips.start[:, None] + clips.velocity[:, None] * times[..., None, None]
    if bad := int((~path.isfinite()).sum()):
        raise ValueError(
            f"positions(times): got {bad} coordinates that are NaN or Inf, wanted finite times"
        )
    last = _last_corner(clips.world, path.device)
    # A digit as large as the canvas has no period; any will do, the last minimum gives 0.
    period = (2 * last).clamp(min=1)
    phase = path % period
    return phase.minimum(period - phase).minimum(last)


def render_clips(
    clips: Clips,
    times: Tensor | Sequence[float],
    subpixel: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Render clips: white ink over a dimmed crop of the background.

    Values are those of `scenes.render_scenes`. Where digits overlap, the brighter ink is visible,
    so their order does not matter.

    Args:
        clips: `[B]` clips.
        times: in frames, any real numbers: `[T]` for all clips, or `[B, T]`.
        subpixel: False rounds corners to whole pixels; True places digits between pixels with
            bilinear weights, rounding ink to one of its 256 levels.
        dtype: float32, in [0, 1]; or uint8, the same values times 255, rounded.

    Returns:
        frames `[B, T, 3, size, size]`.

    Raises:
        ValueError: bad times, see `positions`, or another dtype.

    >>> ink = torch.zeros(3, 8, 8, dtype=torch.uint8)
    >>> photos = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    >>> world = World(ink, torch.tensor([0, 1, 1]), photos, torch.tensor([0, 1]))
    >>> render_clips(draw_clips(world, 5, seed=0), range(20), dtype=torch.uint8).shape
    torch.Size([5, 20, 3, 32, 32])
    """
    if dtype not in (torch.float32, torch.uint8):
        raise ValueError(
            f"render_clips(dtype): got {dtype}, wanted torch.float32 or torch.uint8; convert the "
            "frames afterwards"
        )
    world, corner = clips.world, positions(clips, times)
    length, count = corner.shape[1:3]
    corner = corner.flatten(0, 1)
    frames = torch.empty(len(corner), 3, world.size, world.size, dtype=dtype, device=corner.device)
    step = max(1, _CHUNK // (count * world.size**2))
    # Whole clips if they fit, because a background is rendered once a chunk.
    step = step // max(1, length) * length or step
    for start in range(0, len(frames), step):
        end = min(start + step, len(frames))
        first_clip = start // length
        chunk = clips[first_clip : (start + step - 1) // length + 1]
        clip = torch.arange(start, end, device=corner.device) // length - first_clip
        _paint(frames[start:end], chunk, clip, corner[start:end], subpixel)
    return frames.unflatten(0, (len(clips), length))


def parse_clip_factors(share: str) -> dict[str, Level]:
    """Parse the factors that an image shares with a frame of a clip, see `scenes.parse_factors`.

    Raises:
        ValueError: an unknown factor, or a position with a modulus or an error: positions in a clip
            are not numbered.
    """
    levels = parse_factors(share)
    if any(levels.get("position", ())):
        raise ValueError(
            f"shared factors {share!r}: got a position with a modulus or an error, wanted none, "
            "because positions in a clip are not numbered; write 'position'"
        )
    return levels


def shared_clip_nats(clips: Clips, share: str) -> float:
    """Nats that a clip shares with an image that has the named factors of one of its frames.

    All other factors of the image are redrawn. The value is closed form and an upper bound on
    I(v1; v2). Positions are uniform, as starts are, and visible to the pixel; those at the borders
    are half as likely.

    Args:
        clips: of one digit each.
        share: see `parse_clip_factors`.

    Raises:
        ValueError: clips of several digits, or bad factors, see `parse_clip_factors`.

    >>> ink = torch.zeros(10, 8, 8, dtype=torch.uint8)
    >>> photos = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    >>> world = World(ink, torch.arange(10), photos, torch.tensor([0, 1]), size=40)
    >>> clips = draw_clips(world, 1, seed=0)
    >>> round(shared_clip_nats(clips, "digit"), 4)  # log 10
    2.3026
    >>> round(shared_clip_nats(clips, "position"), 4)  # 2 (log 32 + log 2 / 32)
    6.9748
    """
    digits = clips.digit.shape[1]
    if digits != 1:
        raise ValueError(
            f"shared_clip_nats: got clips of {digits} digits, wanted one each; draw them with "
            "digits=1"
        )
    nats = nats_per_factor(clips.world, share)
    if "position" in parse_clip_factors(share):
        sides = [side for side in _last_corner(clips.world).tolist() if side]
        nats["position"] = sum(math.log(side) + math.log(2) / side for side in sides)
    return math.fsum(nats.values())


def _check_count(name: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, int) or not least <= value <= most:
        raise ValueError(
            f"draw_clips({name}): got {value!r}, wanted an integer from {least} to {most}"
        )


def _paint(frames: Tensor, clips: Clips, clip: Tensor, corner: Tensor, subpixel: bool) -> None:
    """Render frames in place.

    Args:
        frames: float32 or uint8 `[n, 3, size, size]`, written to.
        clips: the clips that the frames belong to.
        clip: the clip of each frame, long `[n]`.
        corner: top-left corners of the digits, float64 `[n, D, 2]`.
        subpixel: as for `render_clips`.
    """
    world, size = clips.world, clips.world.size
    ground = cut_windows(world.backgrounds, clips.background_image, clips.crop, size, size)
    ground = ground * (world.dim / 255)
    # Converted once a clip, copied for each frame.
    torch.index_select(_to_frame_dtype(ground.clone(), frames.dtype), 0, clip, out=frames)
    if subpixel:
        last = _last_corner(world, corner.device).sub(1).clamp(min=0)
        pixel = corner.floor().minimum(last)
    else:
        pixel = corner.round()
    image = clips.digit_image.index_select(0, clip)
    stamps = world.digits.index_select(0, image.flatten()).unflatten(0, image.shape)
    if subpixel:
        stamps = _shifted(stamps, (corner - pixel).float(), size)
    pixel = pixel.long()
    if stamps.shape[1] > 1:
        stamps = _brightest(stamps, pixel, size)
    height, width = stamps.shape[2:]
    ink = stamps[:, :, None].float().div_(255)
    blend = cut_windows(ground, clip[:, None], pixel, height, width).mul_(1 - ink).add_(ink)
    blend = _to_frame_dtype(blend, frames.dtype)
    frame = torch.arange(len(frames), device=frames.device)[:, None]
    starts = row_starts(frames, frame, pixel, height)
    flat = frames.view(-1)  # overlapping windows hold equal values where they overlap
    if flat.device.type in _BY_ROWS:
        flat.unfold(0, width, 1)[starts] = blend.view(-1, width)
    else:
        index = starts[:, None] + torch.arange(width, device=flat.device)
        flat.scatter_(0, index.flatten(), blend.flatten())


def _to_frame_dtype(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats in [0, 1] as float32 or uint8; may overwrite its input.

    Conversion to uint8 goes through int16, which torch vectorises.
    """
    return values.mul_(255).round_().to(torch.int16).to(dtype) if dtype == torch.uint8 else values


def _shifted(stamps: Tensor, offset: Tensor, size: int) -> Tensor:
    """Stamps `[n, D, h, w]` moved down and right by fractions of a pixel `[n, D, 2]`.

    They grow by one pixel along each axis on which the canvas is larger than the digit.
    """
    grow_y, grow_x = [min(1, size - side) for side in stamps.shape[2:]]
    ink = F.pad(stamps, (grow_x, grow_x, grow_y, grow_y)).float()
    fraction_y, fraction_x = offset[..., None, None].unbind(2)
    for axis, grow, fraction in ((2, grow_y, fraction_y), (3, grow_x, fraction_x)):
        if grow:
            last = ink.shape[axis] - 1
            before, after = ink.narrow(axis, 0, last), ink.narrow(axis, 1, last)
            ink = before * fraction + after * (1 - fraction)
    return ink.round().to(torch.uint8)


def _brightest(stamps: Tensor, corner: Tensor, size: int) -> Tensor:
    """The brightest ink of all of a frame's stamps in the window of each of them.

    Args:
        stamps: uint8 `[n, D, h, w]`.
        corner: their corners, long `[n, D, 2]`.
        size: side of the canvas in pixels.

    Returns:
        uint8 `[n, D, h, w]`.
    """
    n, count, height, width = stamps.shape
    margin_y, margin_x = size - height, size - width
    margins = torch.tensor([margin_y, margin_x], device="cpu")
    sheets = F.pad(stamps, (margin_x, margin_x, margin_y, margin_y)).flatten(0, 1)[:, None]
    sheet = torch.arange(n * count, device=stamps.device).view(n, 1, count).expand(n, count, count)
    distance = corner[:, :, None] - corner[:, None]
    shift = to_device(margins, stamps.device) + distance
    return cut_windows(sheets, sheet, shift, height, width).squeeze(3).amax(2)


def _last_corner(world: World, device: torch.device | str = "cpu") -> Tensor:
    """The largest corner (y, x) of a digit: the canvas minus the digit, float64 `[2]`."""
    sides = [world.size - side for side in world.digits.shape[1:]]
    return to_device(torch.tensor(sides, dtype=torch.float64, device="cpu"), device)


def _pick_image(world: World, name: str, words: Tensor) -> tuple[Tensor, Tensor]:
    """A class of `digit` or `background`, and a row of its bank within that class.

    Args:
        world: the banks.
        name: `digit` or `background`.
        words: uniform in [0, 1), `[..., 5]`: the first picks the class, the second the row.
    """
    for_class, for_row = to_device(words[..., :2], world.digits.device).unbind(-1)
    classes = (for_class * len(world.counts[name])).long()
    return classes, pick_member(world, name, classes, for_row)


def _direction(turn: Tensor) -> Tensor:
    """Unit vectors (y, x) `[..., 2]` at angles of `turn` circles, 0..1, counted from the left.

    Computed from sums and products, which are rounded alike on every machine; a library's sine is
    not.
    """
    angle = (turn * 2 - 1) * math.pi
    square, sine, cosine = angle * angle, torch.ones_like(angle), torch.ones_like(angle)
    # The power series, from the last term; terms beyond angle**31 are below the rounding error.
    for k in range(30, 0, -2):
        sine = 1 - square * sine * (1 / (k * (k + 1)))
        cosine = 1 - square * cosine * (1 / (k * (k - 1)))
    return torch.stack([sine * angle, cosine], -1)
