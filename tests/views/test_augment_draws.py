"""What augmentations draw: each number against its distribution, by Kolmogorov-Smirnov or chi-square tests at 1e-3."""

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from infomin.views.augment.crop import boxes
from infomin.views.augment.presets import (
    Blur,
    Crop,
    Flip,
    Grey,
    Jigsaw,
    Jitter,
    MultiCrop,
    RandAugment,
)
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


def draw(view: Any, height: int = 64, width: int = 64, number: int = 0) -> Any:
    return view.draw(N, height, width, torch.Generator().manual_seed(number))


def is_uniform(sample: Tensor, low: float, high: float) -> None:
    assert (
        sample.min() >= low and sample.max() <= high and len(sample.unique()) > 0.99 * len(sample)
    )
    assert stats.kstest(sample.numpy(), stats.uniform(low, high - low).cdf).pvalue > LEVEL


def is_fair(counts: Tensor, expected: Tensor | None = None) -> None:
    share = None if expected is None else (expected / expected.sum() * counts.sum()).numpy()
    assert stats.chisquare(counts.numpy(), share).pvalue > LEVEL


def independent(*samples: Tensor) -> None:
    """No rank of one says anything about the rank of another."""
    for i, one in enumerate(samples):
        for other in samples[:i]:
            assert stats.spearmanr(one.numpy(), other.numpy()).pvalue > LEVEL / 10


# --- crops ---


def reference(
    n: int, height: int, width: int, area: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Boxes one at a time with numpy: ten tries, then the central one."""
    rng, found = np.random.default_rng(0), []
    for _ in range(n):
        for _ in range(10):
            pixels = height * width * rng.uniform(*area)
            aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
            w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
            if 0 < w <= width and 0 < h <= height:
                found.append(
                    (rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w)
                )
                break
        else:
            w, h = width, height
            if width / height < ratio[0]:
                h = round(w / ratio[0])
            elif width / height > ratio[1]:
                w = round(h * ratio[1])
            found.append(((height - h) // 2, (width - w) // 2, h, w))
    return np.array(found)


def no_ties(values: np.ndarray, number: int) -> np.ndarray:
    """Whole numbers spread over their unit, for a test of continuous distributions."""
    return values + np.random.default_rng(number).uniform(0, 1, values.shape)


@pytest.mark.parametrize(
    ("height", "width", "area", "ratio"),
    [
        (64, 64, (0.2, 1.0), (3 / 4, 4 / 3)),
        (96, 96, (0.08, 1.0), (3 / 4, 4 / 3)),
        (40, 64, (0.5, 1.0), (3 / 4, 4 / 3)),
        (64, 20, (0.5, 1.0), (3 / 4, 4 / 3)),  # many fall back
        (32, 32, (0.9, 1.0), (1 / 3, 3.0)),
    ],
)
def test_boxes_are_those_of_the_slow_way(height: int, width: int, area: Any, ratio: Any) -> None:
    ours = torch.stack(draw(Crop(area, ratio), height, width), 1).numpy()
    theirs = reference(N, height, width, area, ratio)
    for measure in (*range(4), lambda b: b[:, 2] * b[:, 3], lambda b: np.log(b[:, 3] / b[:, 2])):
        one, other = (
            b[:, measure] if isinstance(measure, int) else measure(b) for b in (ours, theirs)
        )
        if isinstance(measure, int):
            one, other = no_ties(one, 1), no_ties(other, 2)
        assert stats.ks_2samp(one, other).pvalue > LEVEL


def test_area_and_logarithm_of_the_ratio_are_uniform_where_every_box_fits() -> None:
    box = draw(Crop((0.1, 0.5)), 4000, 4000)  # so large that whole pixels do not show
    area, ratio = box.height * box.width / 16e6, (box.width / box.height).log()
    for sample, low, high in ((area, 0.1, 0.5), (ratio, math.log(3 / 4), math.log(4 / 3))):
        assert sample.min() > low - 2e-3 and sample.max() < high + 2e-3
        assert (
            stats.kstest(sample.double().numpy(), stats.uniform(low, high - low).cdf).pvalue > LEVEL
        )
    independent(area, ratio)


def test_places_are_all_equally_likely() -> None:
    box = boxes(N, 10, 12, (1 / 30, 1 / 30), (1, 1), torch.Generator().manual_seed(1))  # 2x2
    assert torch.equal(torch.stack(box[2:]), torch.full((2, N), 2))
    is_fair(torch.bincount(box.top * 11 + box.left, minlength=99))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (3, 2), (7, 64)])
def test_boxes_lie_inside_whatever_the_image(height: int, width: int) -> None:
    for area in ((0.2, 1.0), (1.0, 1.0), (1e-6, 1e-6)):
        box = draw(Crop(area), height, width)
        assert (
            (box.top >= 0).all()
            and (box.left >= 0).all()
            and (box.height >= 1).all()
            and (box.width >= 1).all()
        )
        assert (box.top + box.height <= height).all() and (box.left + box.width <= width).all()


def test_the_fall_back_is_the_greatest_central_box() -> None:
    for height, width, expected in (
        (100, 20, (36, 0, 27, 20)),
        (20, 100, (0, 36, 20, 27)),
        (30, 30, (0, 0, 30, 30)),
    ):
        ratio = (3 / 4, 4 / 3) if height != width else (0.999, 1.001)
        box = draw(Crop((1, 1), ratio), height, width)
        assert torch.equal(torch.stack(box, 1).unique(dim=0), torch.tensor([expected]))


def test_multicrop_draws_each_view_anew() -> None:
    box = draw(MultiCrop((32, 16), (2, 3)), 400, 400)
    assert box.height.shape == (N, 5)
    share = (box.height * box.width / 160_000).double()
    assert (
        share[:, :2].min() > 0.13
        and share[:, :2].max() <= 1
        and share[:, 2:].min() > 0.045
        and share[:, 2:].max() < 0.145
    )
    independent(*box.top.double().unbind(1))


# --- the others ---


@pytest.mark.parametrize("view", [Flip(0.3), Grey(0.3), Blur(p=0.3)])
def test_how_often(view: Any) -> None:
    assert stats.binomtest(int(draw(view).which.sum()), N, 0.3).pvalue > LEVEL


@pytest.mark.parametrize("make", [Flip, Grey, lambda p: Blur(p=p)])
def test_never_and_always(make: Any) -> None:
    assert not draw(make(0)).which.any() and draw(make(1)).which.all()


def test_jitter() -> None:
    drawn = draw(Jitter(0.4, 0.8, 1.5, 0.2, p=0.7))
    is_uniform(drawn.brightness, 0.6, 1.4)
    is_uniform(drawn.contrast, 0.2, 1.8)
    is_uniform(drawn.saturation, 0, 2.5)
    is_uniform(drawn.hue, -0.2, 0.2)
    used = drawn.order[:, 0] < 4
    assert (
        stats.binomtest(int(used.sum()), N, 0.7).pvalue > LEVEL and (drawn.order[~used] == 4).all()
    )
    keys = drawn.order[used] @ torch.tensor([64, 16, 4, 1])
    assert (drawn.order[used].sort(1).values == torch.arange(4)).all() and len(keys.unique()) == 24
    is_fair(keys.unique(return_counts=True)[1])
    independent(*drawn[:4], used.double())
    independent(drawn.brightness[used], drawn.hue[used], *drawn.order[used, :1].double().unbind(1))


def test_jitter_at_zero_changes_nothing() -> None:
    drawn = draw(Jitter.of(0))
    assert (torch.stack(drawn[:3]) == 1).all() and (drawn.hue == 0).all()
    images = torch.rand(8, 3, 6, 6)
    assert torch.equal(Jitter.of(0)(images)[0], images)


def test_blur() -> None:
    drawn = draw(Blur((0.1, 2.0)))
    is_uniform(drawn.sigma, 0.1, 2)
    independent(drawn.sigma, drawn.which.double())


@pytest.mark.parametrize(("color", "names"), [(True, COLOR), (False, NO_COLOR)])
def test_operations_of_randaugment(color: bool, names: tuple[str, ...]) -> None:
    assert len(COLOR) == 15 and set(NO_COLOR) < set(OPERATIONS)
    assert not set(NO_COLOR) & {
        "Equalize",
        "Invert",
        "Posterize",
        "Solarize",
        "SolarizeAdd",
        "Color",
        "Contrast",
        "Brightness",
    }
    drawn = draw(RandAugment(n=2, p=0.5, color=color))
    expected = torch.zeros(len(OPERATIONS))
    for name in names:
        expected[OPERATIONS.index(name)] = 0.5 / len(names)
    expected[0] += 0.5
    for round_ in drawn.operation.unbind(1):
        counts = torch.bincount(round_, minlength=len(OPERATIONS)).double()
        assert torch.equal(counts > 0, expected > 0)
        is_fair(counts[counts > 0], expected[expected > 0].double())
    independent(*drawn.operation.double().unbind(1), *drawn.sign.double().unbind(1))
    is_fair(torch.stack([(drawn.sign == sign).sum() for sign in (-1, 1)]).double())
    assert (drawn.sign.abs() == 1).all()


def test_magnitudes_of_randaugment_are_a_clipped_gaussian() -> None:
    middle = draw(RandAugment(m=5, std=0.5)).magnitude
    for column in middle.unbind(1):
        assert stats.kstest(column.numpy(), stats.norm(5, 0.5).cdf).pvalue > LEVEL
    top = draw(RandAugment(m=10, std=0.5)).magnitude[:, 0]
    assert top.max() == 10 and stats.binomtest(int((top == 10).sum()), N, 0.5).pvalue > LEVEL
    assert stats.kstest(top[top < 10].numpy(), stats.truncnorm(-20, 0, 10, 0.5).cdf).pvalue > LEVEL
    angle = (
        3
        * draw(RandAugment(m=5, std=0.5)).magnitude[:, 1]
        * draw(RandAugment(m=5, std=0.5)).sign[:, 1]
    )
    folded = stats.norm(15, 1.5)  # degrees, either way equally likely
    assert stats.kstest(angle.numpy(), lambda x: (folded.cdf(x) + folded.sf(-x)) / 2).pvalue > LEVEL


def test_jigsaw() -> None:
    drawn = draw(Jigsaw(2, crop=6), 20, 24)
    assert drawn.offsets.shape == (N, 4, 2)
    for cell in range(4):
        is_fair(
            torch.bincount(drawn.offsets[:, cell, 0], minlength=5).double()
        )  # cells of 10x12, squares of 6
        is_fair(torch.bincount(drawn.offsets[:, cell, 1], minlength=7).double())
    is_fair((drawn.order @ torch.tensor([64, 16, 4, 1])).unique(return_counts=True)[1])
    independent(*drawn.offsets.flatten(1).double().unbind(1))


# --- what they share ---


def test_draws_are_uniform_and_fair() -> None:
    g = torch.Generator().manual_seed(0)
    is_uniform(uniform((N,), -3, 5, g), -3, 5)
    is_fair(torch.bincount(randint_below((N,), 7, g), minlength=7).double())
    is_fair((permutations(N, 3, g) @ torch.tensor([9, 3, 1])).unique(return_counts=True)[1])
    assert stats.binomtest(int(bernoulli((N,), 0.25, g).sum()), N, 0.25).pvalue > LEVEL
    ends = torch.tensor([1, 2, 3]).repeat(1000)
    assert (randint_below((3000,), ends, g) < ends).all()


def test_change_works_on_what_was_picked() -> None:
    images, seen = torch.rand(5, 1, 2, 2), []

    def add(some: Tensor, rows: Tensor) -> Tensor:
        seen.append(rows.tolist())
        return some + rows.view(-1, 1, 1, 1)

    which = torch.tensor([True, False, True, True, False])
    expected = images + torch.tensor([0.0, 0, 2, 3, 0]).view(-1, 1, 1, 1)
    assert torch.equal(apply_where(images, which, add), expected) and seen == [[0, 2, 3]]
    assert (
        torch.equal(apply_where(images, torch.zeros(5, dtype=torch.bool), add), images)
        and len(seen) == 1
    )
    assert torch.equal(
        apply_where(images, torch.ones(5, dtype=torch.bool), add),
        images + torch.arange(5.0).view(-1, 1, 1, 1),
    )


def test_in_turn_is_each_sample_by_itself() -> None:
    g = torch.Generator().manual_seed(0)
    images, choices = (
        torch.rand(50, 1, 2, 2, generator=g),
        torch.randint(0, 3, (50, 4), generator=g),
    )
    operations = [
        lambda x, rows: x + 1,
        lambda x, rows: 2 * x,
        lambda x, rows: x - rows.view(-1, 1, 1, 1),
    ]
    expected = images.clone()
    for i in range(50):
        for k in range(4):
            expected[i] = operations[choices[i, k]](expected[i][None], torch.tensor([i]))[0]
    torch.testing.assert_close(apply_in_sequence(images, choices, operations), expected)
    halves = apply_in_sequence(
        apply_in_sequence(images, choices[:, :2], operations), choices[:, 2:], operations
    )
    assert torch.equal(halves, apply_in_sequence(images, choices, operations))


def test_a_piece_is_what_a_cache_holds_of_a_batch_and_at_least_an_image() -> None:
    most = PIECE * torch.get_num_threads()
    for shape in ((256, 3, 64, 64), (1000, 1, 8, 8), (3, 3, 2000, 2000)):
        numbers = chunk_size(torch.empty(shape, device="cpu")) * math.prod(shape[1:])
        assert numbers <= most < numbers + math.prod(shape[1:]) or numbers == math.prod(shape[1:])
        assert (
            chunk_size(torch.empty(shape, device="meta"))
            == chunk_size(torch.empty(shape, requires_grad=True))
            == shape[0]
        )


@pytest.mark.parametrize("ratio", [1 / 3, 2 / 3, 1.5, 3.0])
def test_the_ratio_is_width_over_height(ratio):
    box = boxes(200, 900, 900, (0.1, 0.2), (ratio, ratio), torch.Generator().manual_seed(0))
    assert (box.width - ratio * box.height).abs().max() <= 1 + ratio  # both are rounded


def test_boxes_are_torchvision_s_unless_told_otherwise():
    theirs, ours = (inspect.signature(made).parameters for made in (v2.RandomResizedCrop, boxes))
    assert (
        ours["area"].default == theirs["scale"].default
        and ours["ratio"].default == theirs["ratio"].default
    )


@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (2, 3), (1 / 3, 1 / 2), (1, 1)])
@pytest.mark.parametrize(
    ("height", "width"), [(10, 10), (10, 12), (12, 10), (10, 25), (10, 40), (25, 10), (40, 10)]
)
def test_where_no_try_fits_the_box_is_torchvision_s(height, width, ratio):
    """Twice the area of the image fits nowhere."""
    theirs = v2.RandomResizedCrop(8, scale=(2, 2), ratio=ratio).make_params(
        [torch.zeros(3, height, width)]
    )
    ours = boxes(2, height, width, (2, 2), ratio, torch.Generator().manual_seed(0))
    assert {name: getattr(ours, name).tolist() for name in theirs} == {
        name: [value] * 2 for name, value in theirs.items()
    }
