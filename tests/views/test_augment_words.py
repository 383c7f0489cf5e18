"""Presets, words and arguments of augmentations."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from infomin.views import (
    VIEWS,
    Blur,
    Crop,
    Flip,
    Grey,
    Jigsaw,
    Jitter,
    MultiCrop,
    RandAugment,
    Then,
    parse,
    preset,
)
from infomin.views.augment.presets import PRESETS

torch.set_num_threads(1)
IMAGES = torch.rand(16, 3, 18, 14, generator=torch.Generator().manual_seed(0))


def test_presets_equal_the_papers() -> None:
    jitter = "Jitter(brightness={0}, contrast={0}, saturation={0}, hue={1}, p={2})".format
    rand = "RandAugment(n=2, m=10, std=0.5, p=0.5, color={})".format
    crop, flip, grey = repr(Crop((0.2, 1.0))), "Flip(p=0.5)", "Grey(p=0.2)"
    blur = repr(Blur((0.1, 2.0), 0.5))
    simclr_crop, simclr_blur = repr(Crop((0.08, 1.0))), repr(Blur((0.1, 2.0), 0.5, 0.1))
    infomin = [crop, flip, jitter(0.8, 0.2, 0.8), blur, rand(True), grey]
    expected = {
        "A": [crop, flip, jitter(0.4, 0.4, 1.0), grey],
        "B": [crop, flip, jitter(0.4, 0.1, 0.8), grey, blur],
        "C": [crop, flip, jitter(0.4, 0.1, 1.0)],
        "D": infomin,
        "E": [crop, flip, jitter(0.4, 0.1, 0.8), blur, rand(False)],
        "infomin": infomin,
        "simclr": [simclr_crop, flip, jitter(0.8, 0.2, 0.8), grey, simclr_blur],
    }
    assert {name: list(map(repr, preset(name))) for name in PRESETS} == expected
    assert "area=(0.2, 1.0)" in crop and "kernel=0.1" in simclr_blur
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


def is_same(one: Any, other: Any) -> bool:
    """Whether types and settings are equal, where 0.2 equals 1 / 5, and 1 equals 1.0."""
    numbers = [[float(n) for n in re.findall(r"\d+\.?\d*", repr(view))] for view in (one, other)]
    return type(one) is type(other) and numbers[0] == pytest.approx(numbers[1])


@pytest.mark.parametrize("word", WORDS)
def test_words(word: str) -> None:
    family, _, dial = word.partition(":")
    make: Any = VIEWS[family]
    assert is_same(make.from_dial(dial), WORDS[word])


@pytest.mark.parametrize("name", PRESETS)
def test_presets_as_words(name: str) -> None:
    chain = parse(f"aug:{name}/1")
    parts = [repr(part) for part in chain.modules() if not isinstance(part, Then)]
    assert parts == list(map(repr, preset(name)))


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


def test_the_dials_of_all_augmentations_are_tested() -> None:
    modules = {name: make.__module__ for name, make in VIEWS.items()}
    registered = {name for name in modules if modules[name].startswith("infomin.views.augment.")}
    assert registered == set(BAD)


@pytest.mark.parametrize("family", BAD)
def test_the_help_of_a_dial_has_examples_that_parse(family: str) -> None:
    examples = re.findall(rf"{family}:([^,\s]+)", VIEWS.dial(family))
    assert examples
    for dial in examples:
        parse(f"{family}:{dial}")


@pytest.mark.parametrize(
    ("family", "dial"), [(family, dial) for family, dials in BAD.items() for dial in dials]
)
def test_a_bad_dial_is_an_error_that_describes_a_good_one(family: str, dial: str) -> None:
    word = f"{family}:{dial}"
    with pytest.raises(ValueError, match=r"^view ") as caught:
        parse(word)
    problem = r".*got .+" if dial else "the dial is missing"
    help_text = re.escape(f"the dial of {family} is {VIEWS.dial(family)}")
    caller = re.escape(f"view {word!r}: ")
    hint = "; commas join several views in a sweep only" if "," in dial else ""
    assert re.fullmatch(f"{caller}{problem}; {help_text}{hint}", str(caught.value))


def test_arguments_may_be_numpy_scalars() -> None:
    assert repr(Flip(np.float32(0.5))) == repr(Flip(0.5)) and Crop(size=np.int64(8)).size == 8
    with pytest.raises(ValueError, match="got True, wanted a number"):
        Flip(True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Crop((0.9, 0.2)),
            r"^Crop\(area\): got \(0.9, 0.2\), wanted the smaller number first$",
        ),
        (lambda: Crop((0, 1)), r"^Crop\(area\): got 0, wanted a number from 1e-06 to 1$"),
        (lambda: Crop(0.2), r"^Crop\(area\): got 0.2, wanted two numbers \(minimum, maximum\)$"),
        (lambda: Crop(ratio=(0, 1)), r"Crop\(ratio\): got 0"),
        (lambda: Crop(size=0), r"Crop\(size\): got 0"),
        (lambda: Flip(1.5), r"^Flip\(p\): got 1.5, wanted a number from 0 to 1$"),
        (lambda: Flip(True), r"Flip\(p\): got True"),
        (
            lambda: Jitter(brightness=-1),
            r"^Jitter\(brightness\): got -1, wanted a number of 0 or more$",
        ),
        (lambda: Jitter(hue=0.6), r"Jitter\(hue\): got 0.6, wanted a number from 0 to 0.5"),
        (lambda: Jitter.from_strength(-1), r"Jitter.from_strength\(strength\): got -1"),
        (lambda: Blur((0, 1)), r"Blur\(sigma\): got 0"),
        (
            lambda: Blur(kernel=4),
            r"^Blur\(kernel\): got 4, wanted an odd whole number or a share below 1$",
        ),
        (lambda: Blur(kernel=3.5), r"Blur\(kernel\): got 3.5"),
        (lambda: Blur(kernel=-1), r"Blur\(kernel\): got -1"),
        (lambda: RandAugment(m=11), r"RandAugment\(m\): got 11, wanted a number from 0 to 10"),
        (lambda: RandAugment(std=-1), r"RandAugment\(std\): got -1"),
        (lambda: Crop(size=24.7), r"^Crop\(size\): got 24.7, wanted a whole number$"),
        (lambda: RandAugment(n=1.6), r"RandAugment\(n\): got 1.6, wanted a whole number"),
        (lambda: Jigsaw(2.7), r"Jigsaw\(cells\): got 2.7, wanted a whole number"),
        (lambda: Jigsaw(3, crop=2.5), r"Jigsaw\(crop\): got 2.5, wanted a whole number"),
        (lambda: MultiCrop((32.6,), (1,), ((0.1, 1),)), r"MultiCrop\(sizes\): got 32.6"),
        (lambda: MultiCrop((32,), (1.9,), ((0.1, 1),)), r"MultiCrop\(counts\): got 1.9"),
        (lambda: Jigsaw(1), r"Jigsaw\(cells\): got 1, wanted a number from 2 to 100"),
        (
            lambda: MultiCrop((8,), (2, 1)),
            r"^MultiCrop: need at least one size, and one count and one area per size, "
            r"got 1 sizes, 2 counts and 2 areas$",
        ),
        (lambda: MultiCrop((), (), ()), "MultiCrop: .*got 0 sizes"),
        (
            lambda: Blur(kernel=99, p=1)(IMAGES),
            r"got 99 for images of 18x14, wanted an odd number from 1 to 27; use a smaller",
        ),
        (
            lambda: Jigsaw(3, crop=6)(IMAGES),
            r"Jigsaw: images must be 18 px or more on each side",
        ),
        (
            lambda: Jigsaw(15)(IMAGES),
            r"Jigsaw: images must be 15 px or more on each side",
        ),
    ],
)
def test_errors(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
