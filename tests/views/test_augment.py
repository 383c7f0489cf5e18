"""Laws of every augmentation, the presets and the words; what they compute and what they draw is in the files beside this one."""

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from infomin.common import checks
from infomin.views.augment.presets import (
    AUGMENTATION_DIALS,
    AUGMENTATIONS,
    PRESETS,
    Blur,
    Crop,
    Flip,
    Grey,
    Jigsaw,
    Jitter,
    MultiCrop,
    RandAugment,
    preset,
)
from infomin.views.draws import chunk_size

torch.set_num_threads(1)
FAMILY: dict[str, Any] = {
    "crop": Crop(),
    "crop to 9 px": Crop((0.1, 0.5), size=9),
    "flip": Flip(),
    "jitter": Jitter.of(1, p=0.8),
    "jitter without hue": Jitter(0.4, 0, 0.4, 0),
    "grey": Grey(0.5),
    "blur": Blur(),
    "blur of a share": Blur(kernel=0.3, p=1),
    "randaugment": RandAugment(),
    "randaugment, always": RandAugment(3, 5, 4, 1),
    "randaugment without colours": RandAugment(color=False),
    "jigsaw": Jigsaw(2),
    "jigsaw of 3 px": Jigsaw(3, crop=3),
    "multicrop": MultiCrop((8, 5), (2, 1)),
}
every = pytest.mark.parametrize("name", FAMILY)
REFERENCE = torch.rand(
    16, 3, 18, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64
)
IMAGES = REFERENCE.float()
BYTES = (REFERENCE * 255).round().byte()
EXTREMES = torch.stack(
    [
        torch.zeros(3, 18, 14),
        torch.ones(3, 18, 14),
        torch.full((3, 18, 14), 0.5),
        IMAGES[0, :1].expand(3, 18, 14),
        IMAGES[1].round(),
    ]
)


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def build(name: str) -> Any:
    return copy.deepcopy(FAMILY[name]).train()


def views_at(view: Any, images: Tensor, draws: Any) -> tuple[Tensor, ...]:
    made = view.at(images, draws)
    return made if isinstance(made, tuple) else (made,)


def side(view: Any, name: str) -> list[tuple[int, int]]:
    sizes = {
        "crop to 9 px": [(9, 9)],
        "jigsaw": [(10, 10)],
        "jigsaw of 3 px": [(9, 9)],
        "multicrop": [(8, 8), (8, 8), (5, 5)],
    }
    return sizes.get(name, [(18, 14)])


@every
def test_a_view_has_the_channels_the_size_and_the_type_it_says(name: str) -> None:
    view = build(name)
    made = view(BYTES, seed(0))
    assert (
        isinstance(made, tuple)
        and view.channels == (3,) * len(made)
        and view.readout == (0,)
        and view.augments is True
    )
    assert view.wants in (None, 3)
    for v, size in zip(made, side(view, name), strict=True):
        assert v.shape == (16, 3, *size) and v.dtype == torch.float32 and v.isfinite().all()
        assert v.min() > -1e-6 and v.max() < 1 + 1e-6


@every
def test_forward_draws_and_then_applies_the_draws(name: str) -> None:
    view = build(name)
    expected = views_at(view, IMAGES, view.draw(16, 18, 14, seed(3)))
    assert all(map(torch.equal, view(IMAGES, seed(3)), expected))


@every
def test_a_batch_is_its_images_with_their_draws(name: str) -> None:
    view = build(name)
    draws = view.draw(16, 18, 14, seed(1))
    for images in (REFERENCE, EXTREMES[torch.arange(16) % 5].double()):
        whole = views_at(view, images, draws)
        for i in range(16):
            single = views_at(
                view, images[i : i + 1], type(draws)(*[draw[i : i + 1] for draw in draws])
            )
            for v, one in zip(whole, single, strict=True):
                torch.testing.assert_close(v[i : i + 1], one, rtol=0, atol=1e-12)


@every
def test_draws_are_on_the_cpu_one_for_each_sample_and_differ(name: str) -> None:
    draws = build(name).draw(200, 18, 14, seed(2))
    for draw in draws:
        assert draw.device.type == "cpu" and len(draw) == 200
    table = torch.cat(
        [draw.double().flatten(1) if draw.dim() > 1 else draw.double()[:, None] for draw in draws],
        1,
    )
    assert len(table.unique(dim=0)) > (1 if name in ("flip", "grey") else 30)


@every
def test_one_image_does_not_change_what_the_others_become(name: str) -> None:
    view = build(name)
    other = IMAGES.clone()
    other[3] = 1 - other[3]
    for v, w in zip(view(IMAGES, seed(5)), view(other, seed(5)), strict=True):
        keep = torch.arange(16) != 3
        assert torch.equal(v[keep], w[keep])


@every
def test_the_generator_decides_and_without_one_the_global_one_does(name: str) -> None:
    view = build(name)
    before = torch.get_rng_state()
    one, same, other = (view(IMAGES, seed(number)) for number in (7, 7, 8))
    assert all(map(torch.equal, one, same)) and not all(map(torch.equal, one, other))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert all(map(torch.equal, view(IMAGES), one))


@every
def test_the_same_draws_whatever_the_default_type(name: str) -> None:
    view = build(name)
    expected = view.draw(5, 18, 14, seed(0))
    try:
        torch.set_default_dtype(torch.float64)
        assert all(map(torch.equal, view.draw(5, 18, 14, seed(0)), expected))
    finally:
        torch.set_default_dtype(torch.float32)


@every
def test_in_eval_mode_an_image_stays_as_it_is(name: str) -> None:
    view = build(name).eval()
    state = torch.get_rng_state()
    for v, size in zip(view(IMAGES), side(view, name), strict=True):
        if name.startswith("jigsaw") or size == (18, 14):
            assert torch.equal(v, IMAGES)
        else:  # the whole image, scaled
            expected = torch.nn.functional.interpolate(
                IMAGES, size, mode="bilinear", antialias=True
            )
            torch.testing.assert_close(v, expected, rtol=0, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    assert view(BYTES)[0].dtype == torch.float32


@every
def test_a_single_image_needs_no_batch(name: str) -> None:
    view = build(name)
    for v, one in zip(view(IMAGES[:1], seed(1)), view(IMAGES[0], seed(1)), strict=True):
        assert torch.equal(v[0], one)


@every
def test_no_state_and_copies(name: str) -> None:
    view = build(name)
    assert view.state_dict() == {} and not list(view.parameters()) and not list(view.buffers())
    twin = copy.deepcopy(view)
    assert all(map(torch.equal, view(IMAGES, seed(0)), twin(IMAGES, seed(0)))) and repr(
        twin
    ) == repr(view)
    assert repr(view).startswith(type(view).__name__ + "(") and "=" in repr(view)


@every
def test_the_images_are_left_as_they_are(name: str) -> None:
    images, pixels = IMAGES.clone(), BYTES.clone()
    build(name)(images, seed(0)), build(name)(pixels, seed(0))
    assert torch.equal(images, IMAGES) and torch.equal(pixels, BYTES)


@every
@pytest.mark.parametrize("images", [IMAGES, EXTREMES], ids=["random", "extremes"])
def test_gradients_are_finite_and_reach_the_image(name: str, images: Tensor) -> None:
    images = images.clone().requires_grad_()
    made = build(name)(images, seed(0))
    sum((v * torch.rand(v.shape, generator=seed(1))).sum() for v in made).backward()
    assert images.grad is not None and images.grad.isfinite().all() and images.grad.abs().sum() > 0
    assert images.grad.abs().max() < 1e4


@pytest.mark.parametrize("name", [name for name in FAMILY if "randaugment" not in name])
def test_gradcheck(name: str) -> None:
    view, images = build(name), REFERENCE[:4, :, :9, :9].clone()
    if "blur" in name or "crop" in name:
        images = images[:2]
    draws = view.draw(len(images), 9, 9, seed(3))
    assert torch.autograd.gradcheck(lambda x: views_at(view, x, draws), images.requires_grad_())


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes_are_kept_and_half_precision_rounds_once(name: str, dtype: torch.dtype) -> None:
    view = build(name)
    images = IMAGES.to(dtype)
    for v, reference in zip(view(images, seed(0)), view(images.float(), seed(0)), strict=True):
        assert v.dtype == dtype
        tolerance = 1e-4 if dtype == torch.float64 else 0
        if (
            name not in ("randaugment", "randaugment, always") or dtype != torch.float64
        ):  # a level may fall on either side
            torch.testing.assert_close(v, reference.to(dtype), rtol=0, atol=tolerance)


@every
def test_bytes_are_scaled_once(name: str) -> None:
    for v, w in zip(
        build(name)(BYTES, seed(0)), build(name)(BYTES.float() / 255, seed(0)), strict=True
    ):
        assert torch.equal(v, w)


@every
def test_autocast_does_not_round_the_pixels(name: str) -> None:
    view = build(name)
    expected = view(IMAGES, seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, view(IMAGES, seed(0)), expected))


@every
def test_channels_last_is_the_same(name: str) -> None:
    view = build(name)
    for v, w in zip(
        view(IMAGES.to(memory_format=torch.channels_last), seed(0)),
        view(IMAGES, seed(0)),
        strict=True,
    ):
        torch.testing.assert_close(v, w, rtol=0, atol=1e-5)


@every
def test_draws_are_applied_on_the_device_of_the_images(name: str) -> None:
    view = build(name)
    draws = view.draw(16, 18, 14, seed(0))
    for v, size in zip(views_at(view, IMAGES.to("meta"), draws), side(view, name), strict=True):
        assert v.device.type == "meta" and v.shape == (16, 3, *size) and v.dtype == torch.float32


@every
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_sees_the_same_draws(name: str) -> None:
    view = build(name)
    for v, w in zip(view(IMAGES.cuda(), seed(0)), view(IMAGES, seed(0)), strict=True):
        assert v.device.type == "cuda"
        torch.testing.assert_close(v.cpu(), w, rtol=0, atol=1e-4)


@every
def test_what_a_view_wants_is_what_it_takes(name: str) -> None:
    view = build(name)
    if view.wants == 3:
        with pytest.raises(
            ValueError, match=rf"{type(view).__name__}: images must have the shape \[B, 3, H, W\]"
        ):
            view(IMAGES[:, :2])
        with pytest.raises(ValueError, match=r"floating-point images must lie in \[0, 1\]"):
            view(IMAGES * 2)
    else:
        for channels in (1, 2, 5):
            images = 100 * torch.randn(3, channels, 18, 14, generator=seed(0))
            assert all(v.shape[:2] == (3, channels) for v in view(images, seed(0)))


@every
@pytest.mark.parametrize("wrong", ["a list", 3])
def test_images_are_tensors(name: str, wrong: object) -> None:
    with pytest.raises(
        TypeError, match=r"images must be a torch.Tensor \[B, (C|3), H, W\], got (str|int)"
    ):
        build(name)(wrong)


@every
@pytest.mark.parametrize("images", [IMAGES, BYTES], ids=["float", "bytes"])
def test_the_pieces_that_a_batch_is_worked_on_in_do_not_show(
    name: str, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = build(name)(images, seed(0))
    monkeypatch.setattr("infomin.views.draws.PIECE", 5 * images[0].numel())
    assert chunk_size(images) == 5
    for v, w in zip(build(name)(images, seed(0)), expected, strict=True):
        torch.testing.assert_close(v, w, rtol=0, atol=1e-6)


@every
def test_pixels_that_augmentations_made_of_bytes_are_not_read_to_be_checked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, values = [], checks._values
    monkeypatch.setattr(
        checks, "_values", lambda x, who, unit: read.append(who) or values(x, who, unit)
    )
    first, view = build(name), build("jitter")
    made = first(BYTES, seed(0))[0]
    view(made, seed(0)), view.eval()(made), view.train()(view(made)[0])
    assert not read
    for other in (made + 0, made[:2], copy.deepcopy(made), made.clone().half()):
        read.clear()
        view(other, seed(0))
        assert read == ["Jitter"]
    for images in (
        IMAGES.clone(),
        IMAGES[0].clone(),
        IMAGES.half(),
    ):  # of floats the first part reads what it is given
        read.clear()
        view(view(first(images, seed(0))[0], seed(0))[0], seed(0))
        assert len(read) == 1
    for images in (
        IMAGES.clone() - 5e-4,
        IMAGES.clone() + 5e-4,
    ):  # which is let in, but may leave [0, 1] further on
        read.clear()
        view(first(images, seed(0))[0].clamp(0, 1), seed(0))
        assert len(read) == 2
    read.clear()
    with torch.inference_mode():
        view(first(BYTES, seed(0))[0], seed(0))
    assert read == ["Jitter"]


def test_what_a_user_writes_between_two_augmentations_is_checked() -> None:
    crop, jitter = build("crop"), build("jitter")
    for write, message in (
        (lambda x: x.mul_(3), r"must lie in \[0, 1\]"),
        (lambda x: x[0].fill_(torch.nan), "NaN or Inf"),
    ):
        (made,) = crop(BYTES, seed(0))
        write(made)
        for images in (made, copy.deepcopy(made)):
            with pytest.raises(ValueError, match=message):
                jitter(images)
    (made,) = crop(BYTES, seed(0))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        jitter(3 * made)


@every
def test_nan_is_found(name: str) -> None:
    images = IMAGES.clone()
    images[2, 1, 3, 4] = torch.nan
    with pytest.raises(ValueError, match="1 pixels that are NaN or Inf"):
        build(name)(images)


def test_compiled_is_eager_with_the_same_global_seed() -> None:
    parts = [Crop(size=8), Flip(), Jitter.of(1, p=0.8), Grey(), Blur()]

    def chain(images: Tensor) -> Tensor:
        for part in parts:
            (images,) = part(images)
        return images

    torch.manual_seed(3)
    expected = chain(IMAGES)
    torch.manual_seed(3)
    torch.testing.assert_close(
        torch.compile(chain, backend="eager")(IMAGES), expected, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    "name",
    [name for name, part in FAMILY.items() if hasattr(part, "at") and len(part.channels) == 1],
)
def test_at_takes_bytes_as_forward_does(name: str) -> None:
    part = FAMILY[name]
    images = (IMAGES * 255).round().to(torch.uint8)
    draws = part.draw(len(images), *images.shape[2:], torch.Generator().manual_seed(0))
    assert torch.equal(part.at(images, draws), part.at(images.float() / 255, draws))
    assert torch.equal(part.at(images, draws), part(images, torch.Generator().manual_seed(0))[0])


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_the_channels_of_a_grey_image_are_its_own(p: float) -> None:
    (view,) = Grey(p)(IMAGES, torch.Generator().manual_seed(0))
    want = view.clone()
    view[:, 0].add_(1)  # as Normalize does in place, channel by channel
    assert view.is_contiguous() and torch.equal(view[:, 1:], want[:, 1:])


def test_numbers_may_be_numpys() -> None:
    assert repr(Flip(np.float32(0.5))) == repr(Flip(0.5)) and Crop(size=np.int64(8)).size == 8
    with pytest.raises(ValueError, match="got True, wanted a number"):
        Flip(True)


# --- presets and words ---


def test_presets_are_those_of_the_paper_in_order() -> None:
    jitter = "Jitter(brightness={0}, contrast={0}, saturation={0}, hue={1}, p={2})".format
    crop, flip, grey, blur = (
        repr(Crop((0.2, 1.0))),
        "Flip(p=0.5)",
        "Grey(p=0.2)",
        repr(Blur((0.1, 2.0), 0.5)),
    )
    rand = "RandAugment(n=2, m=10, std=0.5, p=0.5, color={})".format
    infomin = [crop, flip, jitter(0.8, 0.2, 0.8), blur, rand(True), grey]
    expected = {
        "A": [crop, flip, jitter(0.4, 0.4, 1.0), grey],
        "B": [crop, flip, jitter(0.4, 0.1, 0.8), grey, blur],
        "C": [crop, flip, jitter(0.4, 0.1, 1.0)],
        "D": infomin,
        "E": [crop, flip, jitter(0.4, 0.1, 0.8), blur, rand(False)],
        "infomin": infomin,
        "simclr": [
            repr(Crop((0.08, 1.0))),
            flip,
            jitter(0.8, 0.2, 0.8),
            grey,
            repr(Blur((0.1, 2.0), 0.5, 0.1)),
        ],
    }
    assert {name: list(map(repr, preset(name))) for name in PRESETS} == expected
    assert "area=(0.2, 1.0)" in crop and "kernel=0.1" in expected["simclr"][-1]
    assert preset("D")[0] is not preset("D")[0]


WORDS = {
    "crop:0.2": Crop((0.2, 1)),
    "crop:.08": Crop((0.08, 1)),
    "crop:0.2-0.9": Crop((0.2, 0.9)),
    "crop:1": Crop((1, 1)),
    "flip:0.5": Flip(0.5),
    "flip:0": Flip(0),
    "jitter:1": Jitter(0.8, 0.8, 0.8, 0.2),
    "jitter:0.125": Jitter(0.1, 0.1, 0.1, 0.025),
    "jitter:5": Jitter(4, 4, 4, 0.5),
    "grey:0.2": Grey(0.2),
    "blur:0.5": Blur(p=0.5),
    "randaugment:10": RandAugment(m=10),
    "randaugment:2.5": RandAugment(m=2.5),
    "jigsaw:3": Jigsaw(3),
    "multicrop:2x32": MultiCrop((32,), (2,), ((0.14, 1),)),
    "multicrop:2x32-4x16": MultiCrop((32, 16), (2, 4)),
    "multicrop:1x9-1x8-2x7": MultiCrop(
        (9, 8, 7), (1, 1, 2), ((0.14, 1), (0.05, 0.14), (0.05, 0.14))
    ),
}


def same(one: Any, other: Any) -> bool:
    """Equal types and settings, 0.2 and 1 / 5 or 1 and 1.0 being one number."""
    numbers = [[float(n) for n in re.findall(r"\d+\.?\d*", repr(view))] for view in (one, other)]
    return type(one) is type(other) and numbers[0] == pytest.approx(numbers[1])


@pytest.mark.parametrize("word", WORDS)
def test_words(word: str) -> None:
    family, _, dial = word.partition(":")
    assert same(AUGMENTATIONS[family](dial), WORDS[word])


@pytest.mark.parametrize("name", PRESETS)
def test_presets_as_words(name: str) -> None:
    assert list(map(repr, AUGMENTATIONS["aug"](name))) == list(map(repr, preset(name)))


def test_every_word_has_a_help_whose_examples_parse() -> None:
    assert list(AUGMENTATION_DIALS) == list(AUGMENTATIONS)
    for family, text in AUGMENTATION_DIALS.items():
        examples = re.findall(rf"{family}:([^,\s]+)", text)
        assert examples
        for dial in examples:
            AUGMENTATIONS[family](dial)


BAD = {
    "crop": ["", "a", "0.2,0.9", "-0.2", "0.2-", "1.5", "0.9-0.2", "0", "0.2-0.9-1", "nan"],
    "flip": ["", "yes", "1.1", "-1"],
    "jitter": ["", "strong", "-1", "0.8-0.2", "inf"],
    "grey": ["", "2"],
    "blur": ["", "1.5", "0.5-1"],
    "randaugment": ["", "11", "m10"],
    "jigsaw": ["", "1", "2.5", "three", "-3"],
    "multicrop": ["", "2", "2x", "2x32,4x16", "0x32", "2x0", "2x32-"],
    "aug": ["", "F", "InfoMin", "d"],
}


@pytest.mark.parametrize(
    ("family", "dial"), [(family, dial) for family, dials in BAD.items() for dial in dials]
)
def test_a_bad_dial_says_what_came_and_what_a_good_one_is(family: str, dial: str) -> None:
    with pytest.raises(ValueError, match=r"got .*wanted .+") as caught:
        AUGMENTATIONS[family](dial)
    message = str(caught.value)
    assert "; " in message or f"{family}:" in message.split("wanted")[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Crop((0.9, 0.2)),
            r"Crop\(area\): got \(0.9, 0.2\), wanted the lesser number first; swap them",
        ),
        (lambda: Crop((0, 1)), r"Crop\(area\): got 0, wanted a number from 1e-06 to 1; change it"),
        (lambda: Crop(0.2), r"Crop\(area\): got 0.2, wanted two numbers \(least, greatest\)"),  # type: ignore[arg-type]
        (lambda: Crop(ratio=(0, 1)), r"Crop\(ratio\): got 0"),
        (lambda: Crop(size=0), r"Crop\(size\): got 0"),
        (lambda: Flip(1.5), r"Flip\(p\): got 1.5, wanted a number from 0 to 1; change it"),
        (lambda: Flip(True), r"Flip\(p\): got True"),
        (
            lambda: Jitter(brightness=-1),
            r"Jitter\(brightness\): got -1, wanted a number of 0 or more; change it",
        ),
        (lambda: Jitter(hue=0.6), r"Jitter\(hue\): got 0.6, wanted a number from 0 to 0.5"),
        (lambda: Jitter.of(-1), r"Jitter.of\(strength\): got -1"),
        (lambda: Blur((0, 1)), r"Blur\(sigma\): got 0"),
        (
            lambda: Blur(kernel=4),
            r"Blur\(kernel\): got 4, wanted an odd whole number or a share below 1; change it",
        ),
        (lambda: Blur(kernel=3.5), r"Blur\(kernel\): got 3.5"),
        (lambda: Blur(kernel=-1), r"Blur\(kernel\): got -1"),
        (lambda: RandAugment(m=11), r"RandAugment\(m\): got 11, wanted a number from 0 to 10"),
        (lambda: RandAugment(std=-1), r"RandAugment\(std\): got -1"),
        (lambda: Crop(size=24.7), r"Crop\(size\): got 24.7, wanted a whole number; round it"),
        (lambda: RandAugment(n=1.6), r"RandAugment\(n\): got 1.6, wanted a whole number"),  # type: ignore[arg-type]
        (lambda: Jigsaw(2.7), r"Jigsaw\(cells\): got 2.7, wanted a whole number"),  # type: ignore[arg-type]
        (lambda: Jigsaw(3, crop=2.5), r"Jigsaw\(crop\): got 2.5, wanted a whole number"),  # type: ignore[arg-type]
        (lambda: MultiCrop((32.6,), (1,), ((0.1, 1),)), r"MultiCrop\(sizes\): got 32.6"),  # type: ignore[arg-type]
        (lambda: MultiCrop((32,), (1.9,), ((0.1, 1),)), r"MultiCrop\(counts\): got 1.9"),  # type: ignore[arg-type]
        (lambda: Jigsaw(1), r"Jigsaw\(cells\): got 1, wanted a number from 2 to 100"),
        (
            lambda: MultiCrop((8,), (2, 1)),
            "MultiCrop: got 1 sizes, 2 counts and 2 areas, wanted equally many",
        ),
        (lambda: MultiCrop((), (), ()), "MultiCrop: got 0 sizes"),
        (
            lambda: Blur(kernel=99, p=1)(IMAGES),
            r"got 99 for images of 18x14, wanted an odd number from 1 to 27; use a smaller",
        ),
        (
            lambda: Jigsaw(3, crop=6)(IMAGES),
            r"Jigsaw\(cells=3, crop=6\): images must be 18 px or more on each side",
        ),
        (
            lambda: Jigsaw(15)(IMAGES),
            r"Jigsaw\(cells=15, crop=None\): images must be 15 px or more on each side",
        ),
    ],
)
def test_errors(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
