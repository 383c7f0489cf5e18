"""Pixels of augmentations against torchvision, image by image, and against closed forms."""

import math
from collections.abc import Callable
from functools import partial
from itertools import permutations

import pytest
import torch
import torchvision.transforms.v2.functional as TV
from torch import Tensor
from torchvision.transforms import InterpolationMode

from infomin.views.augment.blur import blur
from infomin.views.augment.crop import Box, crop, whole
from infomin.views.augment.jigsaw import assemble, cells
from infomin.views.augment.jitter import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    jitter,
)
from infomin.views.augment.randaugment import MOVES, OPERATIONS, TONES, randaugment
from infomin.views.augment.sometimes import Flip, Grey
from infomin.views.augment.tone import (
    adjust_sharpness,
    autocontrast,
    equalize,
    invert,
    posterize,
    solarize,
    solarize_add,
)
from infomin.views.augment.warp import rotation, shear, translation, warp
from infomin.views.draws import Selection

torch.set_num_threads(1)
G = torch.Generator().manual_seed(0)
RANDOM = torch.rand(6, 3, 17, 23, generator=G, dtype=torch.float64)
EXTREMES = torch.stack(
    [
        torch.zeros_like(RANDOM[0]),
        torch.ones_like(RANDOM[0]),
        torch.full_like(RANDOM[0], 0.3),
        RANDOM[0, :1].expand(3, -1, -1),  # grey
        RANDOM[1].round(),  # corners of the RGB cube
        (RANDOM[2] * 4).round() / 4,  # some pixels with equal channels
        torch.tensor([1.0, 0, 0], dtype=torch.float64)[:, None, None].expand_as(RANDOM[0]),
    ]
)
IMAGES = torch.cat([RANDOM, EXTREMES])
N = len(IMAGES)
BYTES = (IMAGES * 255).round().byte()


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=tolerance)


def one_by_one(function: Callable[..., Tensor], images: Tensor, *draws: Tensor) -> Tensor:
    """Call a function of one image and of numbers on each image and its draws."""
    results = []
    for i, image in enumerate(images):
        numbers = [draw[i].item() for draw in draws]
        results.append(function(image, *numbers))
    return torch.stack(results)


def uniform(low: float, high: float) -> Tensor:
    return torch.rand(N, generator=G, dtype=torch.float64) * (high - low) + low


ADJUST = {
    "brightness": (adjust_brightness, TV.adjust_brightness, 0, 2.5),
    "contrast": (adjust_contrast, TV.adjust_contrast, 0, 2.5),
    "saturation": (adjust_saturation, TV.adjust_saturation, 0, 2.5),
    "hue": (adjust_hue, TV.adjust_hue, -0.5, 0.5),
    "sharpness": (adjust_sharpness, TV.adjust_sharpness, 0, 2.5),
}


@pytest.mark.parametrize("name", ADJUST)
def test_adjustments(name: str) -> None:
    ours, theirs, low, high = ADJUST[name]
    for amounts in (
        uniform(low, high),
        uniform(low, low),
        uniform(high, high),
        uniform(0, 0),
        uniform(0.5, 0.5),
    ):
        assert_close(ours(IMAGES, amounts), one_by_one(theirs, IMAGES, amounts))
        assert_close(ours(IMAGES.float(), amounts), one_by_one(theirs, IMAGES, amounts), 1e-5)


@pytest.mark.parametrize("name", ADJUST)
def test_neutral_adjustments_change_nothing(name: str) -> None:
    neutral = 0.0 if name == "hue" else 1.0
    assert_close(ADJUST[name][0](IMAGES, uniform(neutral, neutral)), IMAGES, 1e-14)


def test_hue_is_a_circle_and_turns_back() -> None:
    turn = uniform(-0.5, 0.5)
    assert_close(adjust_hue(adjust_hue(IMAGES, turn), -turn), IMAGES, 1e-12)
    full_turn = adjust_hue(IMAGES, turn - turn.sign())
    assert_close(adjust_hue(IMAGES, turn), full_turn, 1e-12)
    third = torch.full((N,), 1 / 3, dtype=torch.float64)
    red_to_green_to_blue = IMAGES.roll(1, 1)
    assert_close(adjust_hue(IMAGES, third), red_to_green_to_blue, 1e-12)


def test_jitter_in_every_order() -> None:
    all_orders = torch.tensor(list(permutations(range(4))))
    functions = (TV.adjust_brightness, TV.adjust_contrast, TV.adjust_saturation, TV.adjust_hue)
    for shift in (0, 11):
        order = all_orders[(torch.arange(N) + shift) % 24]
        amounts = (uniform(0.2, 1.8), uniform(0.2, 1.8), uniform(0.2, 1.8), uniform(-0.2, 0.2))
        expected = []
        for i in range(N):
            expected.append(IMAGES[i])
            for step in order[i].tolist():
                expected[i] = functions[step](expected[i], amounts[step][i].item())
        assert_close(jitter(IMAGES, *amounts, order), torch.stack(expected), 2e-6)


def test_jitter_without_operations_changes_nothing_and_the_order_matters() -> None:
    amounts = (uniform(0.2, 1.8), uniform(0.2, 1.8), uniform(0.2, 1.8), uniform(-0.2, 0.2))
    assert torch.equal(jitter(IMAGES, *amounts, torch.full((N, 4), 4)), IMAGES)
    one, other = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])[:, None].expand(2, N, 4)
    difference = jitter(IMAGES, *amounts, one) - jitter(IMAGES, *amounts, other)
    assert difference[: len(RANDOM)].abs().amax((1, 2, 3)).min() > 0.01
    neutral = (uniform(1, 1), uniform(1, 1), uniform(1, 1), uniform(0, 0))
    assert torch.equal(jitter(IMAGES, *neutral, one), IMAGES)


def test_grey_and_flip() -> None:
    half = Selection(torch.arange(N) % 2 == 0)
    (grey,), (flipped,) = Grey().augment(IMAGES, half), Flip().augment(IMAGES, half)
    assert_close(grey[::2], TV.rgb_to_grayscale(IMAGES[::2], 3), 1e-15)
    assert torch.equal(grey[1::2], IMAGES[1::2])
    assert torch.equal(flipped[::2], TV.horizontal_flip(IMAGES[::2]))
    assert torch.equal(flipped[1::2], IMAGES[1::2])
    assert torch.equal(Flip().augment(flipped, half)[0], IMAGES)


@pytest.mark.parametrize("kernel", [1, 3, 7, 13, 33])
def test_blur(kernel: int) -> None:
    sigma = uniform(0.1, 3)
    expected = one_by_one(
        lambda image, s: TV.gaussian_blur(image, [kernel] * 2, [s] * 2), IMAGES, sigma
    )
    assert_close(blur(IMAGES, sigma, kernel), expected, 1e-12)
    assert_close(blur(IMAGES.float(), sigma, kernel), expected, 1e-5)


def test_blur_keeps_constants_and_is_linear() -> None:
    constant = torch.full((N, 2, 9, 11), -3.5, dtype=torch.float64)  # any range, any channels
    assert_close(blur(constant, uniform(0.1, 2), 7), constant, 1e-14)
    sigma = uniform(0.5, 2)
    assert_close(
        blur(IMAGES, sigma, 7) + blur(2 * IMAGES, sigma, 7), 3 * blur(IMAGES, sigma, 7), 1e-14
    )


def random_boxes() -> Box:
    tops = torch.randint(0, 12, (N,), generator=G)
    lefts = torch.randint(0, 17, (N,), generator=G)
    heights = [int(torch.randint(1, 17 - int(top) + 1, (1,), generator=G)) for top in tops]
    widths = [int(torch.randint(1, 23 - int(left) + 1, (1,), generator=G)) for left in lefts]
    return Box(tops, lefts, torch.tensor(heights), torch.tensor(widths))


@pytest.mark.parametrize("size", [(17, 23), (8, 8), (40, 31), (1, 1), (5, 60)])
def test_crop(size: tuple[int, int]) -> None:
    for box in (random_boxes(), random_boxes(), whole(N, 17, 23)):
        expected = one_by_one(partial(TV.resized_crop, size=list(size)), IMAGES, *box)
        assert_close(crop(IMAGES, box, size), expected, 1e-12)
        assert_close(crop(IMAGES.float(), box, size), expected, 1e-5)


def test_crop_of_a_box_to_its_own_size_is_the_box() -> None:
    box = Box(*[torch.full((N,), value) for value in (3, 4, 9, 12)])
    assert torch.equal(crop(IMAGES, box, (9, 12)), IMAGES[:, :, 3:12, 4:16])


def test_crop_reads_no_pixel_outside_the_box() -> None:
    box = random_boxes()
    poisoned = IMAGES.clone()
    for i in range(N):
        top, left, height, width = (field[i].item() for field in box)
        rows, columns = slice(top, top + height), slice(left, left + width)
        poisoned[i] = 1e3
        poisoned[i, :, rows, columns] = IMAGES[i, :, rows, columns]
    assert_close(crop(poisoned, box, (12, 12)), crop(IMAGES, box, (12, 12)), 0)


# --- RandAugment's operations ---


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(autocontrast, TV.autocontrast), (equalize, TV.equalize), (invert, TV.invert)],
    ids=lambda f: f.__name__,
)
def test_operations_without_amount(
    ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor]
) -> None:
    levels = ours(BYTES.double() / 255) * 255
    tolerance = 1 + 1e-9 if ours is autocontrast else 1e-6  # theirs rounds bytes down
    assert (levels - one_by_one(theirs, BYTES)).abs().max() < tolerance
    if ours is not equalize:
        assert_close(ours(IMAGES), one_by_one(theirs, IMAGES), 1e-12)


@pytest.mark.parametrize("side", [1, 2, 15, 16, 40])
def test_equalize_images_of_any_size(side: int) -> None:
    images = torch.randint(0, 256, (4, 3, side, side), generator=G, dtype=torch.uint8)
    images[1] = images[1] // 8  # few dark levels
    images[2] = 77
    assert_close(equalize(images.double() / 255) * 255, TV.equalize(images), 1e-10)


def test_posterize_solarize_and_solarize_add() -> None:
    values = BYTES.double() / 255
    for bits in range(9):
        assert_close(
            posterize(values, torch.full((N,), bits)) * 255, TV.posterize(BYTES, bits), 1e-9
        )
    for level in (0, 1, 100, 255):
        threshold = torch.full((N,), level / 255, dtype=torch.float64)
        assert_close(solarize(values, threshold) * 255, TV.solarize(BYTES, level), 1e-9)
    added = torch.where(BYTES < 128, (BYTES.int() + 50).clamp(max=255), BYTES.int())
    amount = torch.full((N,), 50 / 255, dtype=torch.float64)
    assert_close(solarize_add(values, amount) * 255, added, 1e-9)


def test_sharpness_of_bytes_and_of_tiny_images() -> None:
    factor = uniform(0.1, 1.9)
    theirs = one_by_one(TV.adjust_sharpness, BYTES, factor)
    ours = adjust_sharpness(BYTES.double() / 255, factor) * 255
    assert (ours - theirs).abs().max() < 1 + 2  # theirs rounds twice
    assert torch.equal(adjust_sharpness(IMAGES[:, :, :2], factor), IMAGES[:, :, :2])


def grey_outside(
    transform: Callable[..., Tensor], image: Tensor, *arguments: object, **options: object
) -> Tensor:
    """Warp bilinearly with torchvision, with grey outside the image.

    torchvision's `fill` counts the weight of border pixels twice.
    """
    warped = transform(image - 0.5, *arguments, interpolation=InterpolationMode.BILINEAR, **options)
    return warped + 0.5


def test_rotation() -> None:
    for degrees in (uniform(-30, 30), uniform(-180, 180), uniform(90, 90), uniform(0, 0)):
        theirs = one_by_one(
            lambda image, angle: grey_outside(TV.rotate, image, angle), IMAGES, degrees
        )
        assert_close(warp(IMAGES, rotation(degrees)), theirs, 1e-5)


def test_shear_about_the_corner() -> None:
    x, y, zero = uniform(-0.3, 0.3), uniform(-0.3, 0.3), torch.zeros(N, dtype=torch.float64)

    def theirs(image: Tensor, x: float, y: float) -> Tensor:
        angles = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
        return grey_outside(TV.affine, image, 0, [0, 0], 1, angles, center=[0, 0])

    for amounts in ((x, zero), (zero, y)):
        assert_close(
            warp(IMAGES, shear(*amounts, 17, 23)), one_by_one(theirs, IMAGES, *amounts), 1e-5
        )


def test_translation() -> None:
    x, y = uniform(-8, 8).round(), uniform(-8, 8).round()

    def theirs(image: Tensor, x: float, y: float) -> Tensor:
        return grey_outside(TV.affine, image, 0, [x, y], 1, [0, 0])

    assert_close(warp(IMAGES, translation(x, y)), one_by_one(theirs, IMAGES, x, y), 1e-5)


def test_the_identity_warp_changes_nothing_and_a_warp_outside_the_image_is_grey() -> None:
    zero = torch.zeros(N, dtype=torch.float64)
    assert_close(warp(IMAGES, rotation(zero)), IMAGES, 1e-12)
    assert_close(warp(IMAGES, translation(zero + 30, zero)), torch.full_like(IMAGES, 0.5), 0)


def oracle(name: str, m: float, sign: float, height: int, width: int) -> Callable[[Tensor], Tensor]:
    """An operation of timm's RandAugment on one image, at magnitude m in 0..1."""
    factor = 0.1 + 1.8 * m
    degrees = math.degrees(math.atan(sign * 0.3 * m))
    x, y = sign * 0.45 * m * width, sign * 0.45 * m * height

    def affine(image: Tensor, translate: list[float], shear: list[float]) -> Tensor:
        return grey_outside(TV.affine, image, 0.0, translate, 1.0, shear, center=[0, 0])

    return {
        "Identity": lambda image: image,
        "AutoContrast": TV.autocontrast,
        "Equalize": TV.equalize,
        "Invert": TV.invert,
        "Posterize": lambda image: TV.posterize((image * 255).round().byte(), int(4 * m)) / 255,
        "Solarize": lambda image: torch.where(image * 255 >= 256 * m, 1 - image, image),
        "SolarizeAdd": lambda image: torch.where(
            image * 255 < 128, (image + 110 * m / 255).clamp(max=1), image
        ),
        "Color": lambda image: TV.adjust_saturation(image, factor),
        "Contrast": lambda image: TV.adjust_contrast(image, factor),
        "Brightness": lambda image: TV.adjust_brightness(image, factor),
        "Sharpness": lambda image: TV.adjust_sharpness(image, factor),
        "Rotate": lambda image: grey_outside(TV.rotate, image, sign * 30 * m),
        "ShearX": lambda image: affine(image, [0.0, 0.0], [degrees, 0.0]),
        "ShearY": lambda image: affine(image, [0.0, 0.0], [0.0, degrees]),
        "TranslateX": lambda image: affine(image, [x, 0.0], [0.0, 0.0]),
        "TranslateY": lambda image: affine(image, [0.0, y], [0.0, 0.0]),
    }[name]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("magnitude", [0.0, 4.3, 9.7, 10.0])
def test_operations_of_randaugment(name: str, magnitude: float) -> None:
    images = BYTES.double() / 255
    operation = torch.full((N, 1), OPERATIONS.index(name))
    magnitudes = torch.full((N, 1), magnitude, dtype=torch.float64)
    for sign in (-1.0, 1.0):
        ours = randaugment(images, operation, magnitudes, torch.full((N, 1), sign))
        assert_close(ours, one_by_one(oracle(name, magnitude / 10, sign, 17, 23), images), 1e-5)


def test_rounds_of_randaugment_follow_each_other() -> None:
    images = BYTES.double() / 255
    operation = torch.randint(0, len(OPERATIONS), (N, 3), generator=G)
    magnitude = 10 * torch.rand(N, 3, generator=G, dtype=torch.float64)
    sign = 2.0 * torch.randint(0, 2, (N, 3), generator=G) - 1
    expected = images.clone()
    for k in range(3):
        for i in range(N):
            index = slice(i, i + 1), slice(k, k + 1)
            draws = operation[index], magnitude[index], sign[index]
            expected[i : i + 1] = randaugment(expected[i : i + 1], *draws)
    assert_close(randaugment(images, operation, magnitude, sign), expected, 1e-12)


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_of_operations_are_finite(name: str) -> None:
    """Operations on 256 levels have gradient 0 rather than None, so training does not fail."""
    images, one = IMAGES.clone().requires_grad_(), torch.ones(N, 1)
    operation = torch.full((N, 1), OPERATIONS.index(name))
    randaugment(images, operation, 5 * one, one).sum().backward()
    assert images.grad is not None and images.grad.isfinite().all()
    assert bool(images.grad.any()) != (name in ("Equalize", "Posterize"))


def test_there_are_16_operations_and_the_first_is_the_identity() -> None:
    assert len(TONES) + len(MOVES) == len(OPERATIONS) == 16 and OPERATIONS[0] == "Identity"


# --- jigsaw ---


@pytest.mark.parametrize(("n", "side"), [(2, 8), (3, 4), (3, 5), (5, 3)])
def test_cells_are_slices(n: int, side: int) -> None:
    height, width = 17 // n, 23 // n
    free = torch.tensor([height - side + 1, width - side + 1])
    offsets = (torch.rand(N, n * n, 2, generator=G) * free).long()
    parts = cells(IMAGES, n, side, offsets)
    assert parts.shape == (N, n * n, 3, side, side)
    for i in range(N):
        for cell in range(n * n):
            top = cell // n * height + offsets[i, cell, 0]
            left = cell % n * width + offsets[i, cell, 1]
            assert torch.equal(parts[i, cell], IMAGES[i, :, top : top + side, left : left + side])


def test_whole_cells_in_order_are_the_image() -> None:
    images = IMAGES[:, :, :16, :16]
    parts = cells(images, 4, 4, torch.zeros(N, 16, 2, dtype=torch.long))
    assert torch.equal(assemble(parts), images)
