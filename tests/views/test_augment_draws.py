"""The draws of augmentations against their distributions.

Kolmogorov-Smirnov and chi-square tests at a level of 1e-3.
"""

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from infomin.views import (
    Blur,
    Crop,
    Flip,
    Grey,
    Jigsaw,
    Jitter,
    MultiCrop,
    RandAugment,
)
from infomin.views.augment.crop import boxes
from infomin.views.augment.randaugment import COLOR, NO_COLOR, OPERATIONS
from infomin.views.draws import (
    PIECE,
    apply_in_sequence,
    apply_where,
    bernoulli,
    chunk_size,
    permutations,
    randint_below,
    uniform,
)

torch.set_num_threads(1)
N, LEVEL = 20_000, 1e-3


def draw(view: Any, height: int = 64, width: int = 64, seed: int = 0) -> Any:
    return view.draw(N, height, width, torch.Generator().manual_seed(seed))


def assert_uniform(sample: Tensor, low: float, high: float) -> None:
    assert sample.min() >= low and sample.max() <= high
    assert len(sample.unique()) > 0.99 * len(sample)
    assert stats.kstest(sample.numpy(), stats.uniform(low, high - low).cdf).pvalue > LEVEL


def assert_counts(counts: Tensor, probabilities: Tensor | None = None) -> None:
    """Check counts of categories against their probabilities, equal by default."""
    expected = None
    if probabilities is not None:
        expected = (probabilities / probabilities.sum() * counts.sum()).numpy()
    assert stats.chisquare(counts.numpy(), expected).pvalue > LEVEL


def assert_uncorrelated(*samples: Tensor) -> None:
    """Check that no two samples are rank-correlated."""
    for i, one in enumerate(samples):
        for other in samples[:i]:
            assert stats.spearmanr(one.numpy(), other.numpy()).pvalue > LEVEL / 10


# --- crops ---


def reference_boxes(
    n: int, height: int, width: int, area: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Draw boxes one at a time with NumPy: ten tries, then the central box."""
    rng, drawn = np.random.default_rng(0), []
    for _ in range(n):
        for _ in range(10):
            pixels = height * width * rng.uniform(*area)
            aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
            w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
            if 0 < w <= width and 0 < h <= height:
                top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
                drawn.append((top, left, h, w))
                break
        else:
            w, h = width, height
            if width / height < ratio[0]:
                h = round(w / ratio[0])
            elif width / height > ratio[1]:
                w = round(h * ratio[1])
            drawn.append(((height - h) // 2, (width - w) // 2, h, w))
    return np.array(drawn)


def break_ties(values: np.ndarray, seed: int) -> np.ndarray:
    """Add uniform noise to whole numbers, for a test of continuous distributions."""
    return values + np.random.default_rng(seed).uniform(0, 1, values.shape)


@pytest.mark.parametrize(
    ("height", "width", "area", "ratio"),
    [
        (64, 64, (0.2, 1.0), (3 / 4, 4 / 3)),
        (96, 96, (0.08, 1.0), (3 / 4, 4 / 3)),
        (40, 64, (0.5, 1.0), (3 / 4, 4 / 3)),
        (64, 20, (0.5, 1.0), (3 / 4, 4 / 3)),  # often no try fits
        (32, 32, (0.9, 1.0), (1 / 3, 3.0)),
    ],
)
def test_boxes_are_distributed_as_a_loop_over_images_draws_them(
    height: int, width: int, area: Any, ratio: Any
) -> None:
    ours = torch.stack(draw(Crop(area, ratio), height, width), 1).numpy()
    theirs = reference_boxes(N, height, width, area, ratio)
    for field in range(4):
        one, other = break_ties(ours[:, field], 1), break_ties(theirs[:, field], 2)
        assert stats.ks_2samp(one, other).pvalue > LEVEL
    for measure in (lambda b: b[:, 2] * b[:, 3], lambda b: np.log(b[:, 3] / b[:, 2])):
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > LEVEL


def test_area_and_logarithm_of_the_ratio_are_uniform_where_every_box_fits() -> None:
    box = draw(Crop((0.1, 0.5)), 4000, 4000)  # so large that rounding to pixels does not show
    area, ratio = box.height * box.width / 16e6, (box.width / box.height).log()
    for sample, low, high in ((area, 0.1, 0.5), (ratio, math.log(3 / 4), math.log(4 / 3))):
        assert sample.min() > low - 2e-3 and sample.max() < high + 2e-3
        uniform_cdf = stats.uniform(low, high - low).cdf
        assert stats.kstest(sample.double().numpy(), uniform_cdf).pvalue > LEVEL
    assert_uncorrelated(area, ratio)


def test_all_positions_are_equally_likely() -> None:
    box = boxes(N, 10, 12, (1 / 30, 1 / 30), (1, 1), torch.Generator().manual_seed(1))  # 2x2
    assert torch.equal(torch.stack(box[2:]), torch.full((2, N), 2))
    assert_counts(torch.bincount(box.top * 11 + box.left, minlength=99))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (3, 2), (7, 64)])
def test_boxes_lie_inside_images_of_any_size(height: int, width: int) -> None:
    for area in ((0.2, 1.0), (1.0, 1.0), (1e-6, 1e-6)):
        box = draw(Crop(area), height, width)
        assert (box.top >= 0).all() and (box.left >= 0).all()
        assert (box.height >= 1).all() and (box.width >= 1).all()
        assert (box.top + box.height <= height).all() and (box.left + box.width <= width).all()


def test_the_fallback_is_the_largest_central_box() -> None:
    for height, width, expected in (
        (100, 20, (36, 0, 27, 20)),
        (20, 100, (0, 36, 20, 27)),
        (30, 30, (0, 0, 30, 30)),
    ):
        ratio = (3 / 4, 4 / 3) if height != width else (0.999, 1.001)
        box = draw(Crop((1, 1), ratio), height, width)
        assert torch.equal(torch.stack(box, 1).unique(dim=0), torch.tensor([expected]))


def test_multicrop_draws_each_view_independently() -> None:
    box = draw(MultiCrop((32, 16), (2, 3)), 400, 400)
    assert box.height.shape == (N, 5)
    share = (box.height * box.width / 160_000).double()
    large, small = share[:, :2], share[:, 2:]
    assert large.min() > 0.13 and large.max() <= 1
    assert small.min() > 0.045 and small.max() < 0.145
    assert_uncorrelated(*box.top.double().unbind(1))


# --- other augmentations ---


@pytest.mark.parametrize("view", [Flip(0.3), Grey(0.3), Blur(p=0.3)])
def test_an_augmentation_is_applied_with_probability_p(view: Any) -> None:
    assert stats.binomtest(int(draw(view).which.sum()), N, 0.3).pvalue > LEVEL


@pytest.mark.parametrize("make", [Flip, Grey, lambda p: Blur(p=p)])
def test_an_augmentation_is_never_applied_at_0_and_always_at_1(make: Any) -> None:
    assert not draw(make(0)).which.any() and draw(make(1)).which.all()


def test_jitter() -> None:
    drawn = draw(Jitter(0.4, 0.8, 1.5, 0.2, p=0.7))
    assert_uniform(drawn.brightness, 0.6, 1.4)
    assert_uniform(drawn.contrast, 0.2, 1.8)
    assert_uniform(drawn.saturation, 0, 2.5)
    assert_uniform(drawn.hue, -0.2, 0.2)
    jittered = drawn.order[:, 0] < 4
    assert stats.binomtest(int(jittered.sum()), N, 0.7).pvalue > LEVEL
    assert (drawn.order[~jittered] == 4).all()
    order = drawn.order[jittered]
    keys = order @ torch.tensor([64, 16, 4, 1])
    assert (order.sort(1).values == torch.arange(4)).all() and len(keys.unique()) == 24
    assert_counts(keys.unique(return_counts=True)[1])
    assert_uncorrelated(*drawn[:4], jittered.double())
    assert_uncorrelated(drawn.brightness[jittered], drawn.hue[jittered], order[:, 0].double())


def test_jitter_at_zero_changes_nothing() -> None:
    drawn = draw(Jitter.from_strength(0))
    assert (torch.stack(drawn[:3]) == 1).all() and (drawn.hue == 0).all()
    images = torch.rand(8, 3, 6, 6)
    assert torch.equal(Jitter.from_strength(0)(images)[0], images)


def test_blur() -> None:
    drawn = draw(Blur((0.1, 2.0)))
    assert_uniform(drawn.sigma, 0.1, 2)
    assert_uncorrelated(drawn.sigma, drawn.which.double())


@pytest.mark.parametrize(("color", "names"), [(True, COLOR), (False, NO_COLOR)])
def test_operations_of_randaugment(color: bool, names: tuple[str, ...]) -> None:
    assert len(COLOR) == 15 and set(NO_COLOR) < set(OPERATIONS)
    changes_colors = "Equalize Invert Posterize Solarize SolarizeAdd Color Contrast Brightness"
    assert not set(NO_COLOR) & set(changes_colors.split())
    drawn = draw(RandAugment(n=2, p=0.5, color=color))
    probabilities = torch.zeros(len(OPERATIONS))
    for name in names:
        probabilities[OPERATIONS.index(name)] = 0.5 / len(names)
    probabilities[0] += 0.5
    for operation in drawn.operation.unbind(1):
        counts = torch.bincount(operation, minlength=len(OPERATIONS)).double()
        assert torch.equal(counts > 0, probabilities > 0)
        assert_counts(counts[counts > 0], probabilities[probabilities > 0].double())
    assert_uncorrelated(*drawn.operation.double().unbind(1), *drawn.sign.double().unbind(1))
    assert_counts(torch.stack([(drawn.sign == sign).sum() for sign in (-1, 1)]).double())
    assert (drawn.sign.abs() == 1).all()


def test_magnitudes_of_randaugment_are_a_clipped_gaussian() -> None:
    middle = draw(RandAugment(m=5, std=0.5)).magnitude
    for column in middle.unbind(1):
        assert stats.kstest(column.numpy(), stats.norm(5, 0.5).cdf).pvalue > LEVEL
    top = draw(RandAugment(m=10, std=0.5)).magnitude[:, 0]
    assert top.max() == 10 and stats.binomtest(int((top == 10).sum()), N, 0.5).pvalue > LEVEL
    assert stats.kstest(top[top < 10].numpy(), stats.truncnorm(-20, 0, 10, 0.5).cdf).pvalue > LEVEL
    drawn = draw(RandAugment(m=5, std=0.5))
    degrees = 3 * drawn.magnitude[:, 1] * drawn.sign[:, 1]
    gaussian = stats.norm(15, 1.5)  # with either sign, equally likely
    probability = stats.kstest(
        degrees.numpy(), lambda x: (gaussian.cdf(x) + gaussian.sf(-x)) / 2
    ).pvalue
    assert probability > LEVEL


def test_jigsaw() -> None:
    drawn = draw(Jigsaw(2, crop=6), 20, 24)
    assert drawn.offsets.shape == (N, 4, 2)
    for cell in range(4):  # of 10x12 px, with squares of 6 px
        assert_counts(torch.bincount(drawn.offsets[:, cell, 0], minlength=5).double())
        assert_counts(torch.bincount(drawn.offsets[:, cell, 1], minlength=7).double())
    assert_counts((drawn.order @ torch.tensor([64, 16, 4, 1])).unique(return_counts=True)[1])
    assert_uncorrelated(*drawn.offsets.flatten(1).double().unbind(1))


# --- shared functions ---


def test_draws_are_uniform_and_fair() -> None:
    generator = torch.Generator().manual_seed(0)
    assert_uniform(uniform((N,), -3, 5, generator), -3, 5)
    assert_counts(torch.bincount(randint_below((N,), 7, generator), minlength=7).double())
    keys = permutations(N, 3, generator) @ torch.tensor([9, 3, 1])
    assert_counts(keys.unique(return_counts=True)[1])
    assert stats.binomtest(int(bernoulli((N,), 0.25, generator).sum()), N, 0.25).pvalue > LEVEL
    ends = torch.tensor([1, 2, 3]).repeat(1000)
    assert (randint_below((3000,), ends, generator) < ends).all()


def test_apply_where_changes_only_the_selected_images() -> None:
    images, calls = torch.rand(5, 1, 2, 2), []

    def add_row(selected: Tensor, rows: Tensor) -> Tensor:
        calls.append(rows.tolist())
        return selected + rows.view(-1, 1, 1, 1)

    which = torch.tensor([True, False, True, True, False])
    expected = images + torch.tensor([0.0, 0, 2, 3, 0]).view(-1, 1, 1, 1)
    assert torch.equal(apply_where(images, which, add_row), expected) and calls == [[0, 2, 3]]
    none, every = torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)
    assert torch.equal(apply_where(images, none, add_row), images) and len(calls) == 1
    expected = images + torch.arange(5.0).view(-1, 1, 1, 1)
    assert torch.equal(apply_where(images, every, add_row), expected)


def test_apply_in_sequence_equals_a_loop_over_images() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(50, 1, 2, 2, generator=generator)
    choices = torch.randint(0, 3, (50, 4), generator=generator)
    operations = [
        lambda x, rows: x + 1,
        lambda x, rows: 2 * x,
        lambda x, rows: x - rows.view(-1, 1, 1, 1),
    ]
    expected = images.clone()
    for i in range(50):
        for k in range(4):
            expected[i] = operations[choices[i, k]](expected[i][None], torch.tensor([i]))[0]
    result = apply_in_sequence(images, choices, operations)
    torch.testing.assert_close(result, expected)
    half = apply_in_sequence(images, choices[:, :2], operations)
    assert torch.equal(apply_in_sequence(half, choices[:, 2:], operations), result)


def test_a_chunk_fits_in_the_cache_and_has_at_least_one_image() -> None:
    limit = PIECE * torch.get_num_threads()
    for shape in ((256, 3, 64, 64), (1000, 1, 8, 8), (3, 3, 2000, 2000)):
        image = math.prod(shape[1:])
        chunk = chunk_size(torch.empty(shape, device="cpu")) * image
        assert chunk <= limit < chunk + image or chunk == image
        assert chunk_size(torch.empty(shape, device="meta")) == shape[0]
        assert chunk_size(torch.empty(shape, requires_grad=True)) == shape[0]


@pytest.mark.parametrize("ratio", [1 / 3, 2 / 3, 1.5, 3.0])
def test_the_ratio_is_width_over_height(ratio: float) -> None:
    box = boxes(200, 900, 900, (0.1, 0.2), (ratio, ratio), torch.Generator().manual_seed(0))
    assert (box.width - ratio * box.height).abs().max() <= 1 + ratio  # both are rounded


def test_the_defaults_of_boxes_are_those_of_torchvision() -> None:
    theirs = inspect.signature(v2.RandomResizedCrop).parameters
    ours = inspect.signature(boxes).parameters
    assert ours["area"].default == theirs["scale"].default
    assert ours["ratio"].default == theirs["ratio"].default


@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (2, 3), (1 / 3, 1 / 2), (1, 1)])
@pytest.mark.parametrize(
    ("height", "width"), [(10, 10), (10, 12), (12, 10), (10, 25), (10, 40), (25, 10), (40, 10)]
)
def test_the_fallback_is_that_of_torchvision(
    height: int, width: int, ratio: tuple[float, float]
) -> None:
    crop = v2.RandomResizedCrop(8, scale=(2, 2), ratio=ratio)  # twice the image never fits
    theirs = crop.make_params([torch.zeros(3, height, width)])
    ours = boxes(2, height, width, (2, 2), ratio, torch.Generator().manual_seed(0))
    for field, value in theirs.items():
        assert getattr(ours, field).tolist() == [value] * 2
