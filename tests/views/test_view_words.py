"""Views one after another and side by side, a user's own, and the words for all of them."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from view_cases import IMAGES, SCENES, seed

from infomin.data.scenes import Scenes
from infomin.views import (
    VIEWS,
    ColorSplit,
    Crop,
    Each,
    Frequency,
    Jitter,
    Then,
    View,
    parse,
    register,
)
from infomin.views.color import SPACES


@pytest.fixture(autouse=True)
def forget_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that a test registers are gone afterwards."""
    monkeypatch.setattr(VIEWS, "_entries", dict(VIEWS._entries))


@pytest.mark.parametrize(
    ("first", "second"), [("shared:digit", "color:lab"), ("shared:nothing", "color:hsv/2-01")]
)
def test_then_applies_view_i_to_view_i(first: str, second: str) -> None:
    whole, one, two = parse(f"{first}+{second}"), parse(first), parse(second)
    expected = [two(v)[i] for i, v in enumerate(one(SCENES, seed(0)))]
    assert all(map(torch.equal, whole(SCENES, seed(0)), expected))
    assert isinstance(whole, Then) and whole.takes == "scenes"
    assert whole.channels == two.channels and whole.readout == one.readout


class Shift(View):
    """Two views: the images, plus random noise, plus one number per view."""

    channels, readout = (3, 3), (1,)

    def __init__(self, *steps: float) -> None:
        super().__init__()
        self.steps = steps

    def forward(
        self, batch: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        noise = torch.rand(batch.shape, generator=generator)
        return tuple(batch + noise + step for step in self.steps)


def test_then_passes_the_generator_on_and_keeps_what_the_first_declares() -> None:
    view = Then(Shift(10, 20), Shift(300, 400))
    v1, v2 = view(IMAGES, seed(5))
    g = seed(5)
    # one for the first part, then one for each of its views
    noise = [torch.rand(IMAGES.shape, generator=g) for _ in range(3)]
    torch.testing.assert_close(v1, IMAGES + noise[0] + 10 + noise[1] + 300)
    torch.testing.assert_close(v2, IMAGES + noise[0] + 20 + noise[2] + 400)
    assert view.readout == (1,) and view.takes == "images"


def test_composition_is_associative() -> None:
    a, b, c = Shift(1, 2), Shift(30, 40), Shift(500, 600)
    left, right = Then(Then(a, b), c), Then(a, Then(b, c))
    with torch.no_grad():
        black = torch.zeros_like(IMAGES)
        for one, other in zip(left(black, seed(0)), right(black, seed(0)), strict=True):
            # the same steps; the order of the draws may differ
            assert (one.mean() - other.mean()).abs() < 0.1


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (
            "color:rgb+color:lab",
            "Then: ColorSplit takes images of 3 channels, got views of 1, 2; "
            "put it before the part that splits channels",
        ),
        (
            "color:lab/0-1-2+jitter:1",
            "Then: Jitter takes images of 3 channels, got views of 1, 1, 1; put it before",
        ),
        ("color:lab+crop:0.2+grey:1", "Then: Grey takes images of 3 channels, got views of 1, 2"),
        (
            "color:rgb/012+shared:digit",
            "Then: the second part must take images, got one that takes scenes; put it first",
        ),
        ("shared:digit+shared:digit", "Then: the second part must take images, got .* scenes"),
        (
            "shared:digit+color:lab/0-1-2",
            "Then: got 2 views and then 3, wanted equally many, or one on either side",
        ),
        ("crop:0.2/3+color:lab", "Then: got 3 views and then 2"),
        (
            "frequency:1+color:lab",
            r"Then: ColorSplit takes images in \[0, 1\], got views with other values; put it",
        ),
        (
            "shared:digit|color:lab",
            "Each: parts must take the same input, got parts for images and scenes",
        ),
        (
            "crop:0.2/0",
            "the number after the slash must be 1 or more, got '0'; write crop:0.2/1 to draw",
        ),
        ("multicrop:2x8/2", "view 'multicrop:2x8/2': got '2x8/2'; the dial of multicrop is"),
    ],
)
def test_parts_that_do_not_fit_are_errors_when_composed(view: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(view)


def test_one_view_before_several_and_several_before_one() -> None:
    lab, whole = parse("color:lab"), parse("color:lab/012")
    split = Then(Crop((0.3, 1)), lab)
    (crop,) = Crop((0.3, 1))(IMAGES, seed(0))
    assert split.channels == (1, 2) and split.readout == (0, 1) and split.in_channels == 3
    assert all(map(torch.equal, split(IMAGES, seed(0)), lab(crop)))
    both = Then(Frequency(1), Crop((0.3, 1)))
    g = seed(0)
    expected = [Crop((0.3, 1)).make_views(v, g)[0] for v in Frequency(1)(IMAGES)]
    assert both.channels == (3, 3) and all(map(torch.equal, both(IMAGES, seed(0)), expected))
    assert Then(parse("patch:8/16"), whole).channels == (3, 3)


@pytest.mark.parametrize(
    ("view", "readout"),
    [
        ("multicrop:2x32-2x24", (0,)),
        ("flip:0.5/1+multicrop:2x32-2x24", (0,)),
        ("flip:0.5+multicrop:2x32-2x24", (0,)),
        ("aug:infomin+multicrop:2x32-4x20", (0,)),
        ("crop:0.2+color:lab", (0, 1)),
        ("crop:0.2+frequency:1-2", (0, 1, 2)),
        ("shared:digit+color:lab", (0,)),
        ("frames:digit+crop:0.5", (1,)),
    ],
)
def test_a_probe_reads_the_views_in_both_readouts(view: str, readout: tuple[int, ...]) -> None:
    assert parse(view).readout == readout


def test_each_puts_views_side_by_side() -> None:
    parts = parse("color:lab"), Crop(), parse("frequency:1")
    side_by_side, g = Each(*parts), seed(0)
    expected = [v for part in parts for v in part(IMAGES, g)]
    assert side_by_side.channels == (1, 2, 3, 3, 3) and side_by_side.readout == (0, 1, 2, 3, 4)
    assert all(map(torch.equal, side_by_side(IMAGES, seed(0)), expected))
    with pytest.raises(ValueError, match="Each: need at least one part, got none"):
        Each()


def test_each_needs_parts_that_take_the_same_channels() -> None:
    four = ColorSplit("lab")
    four.in_channels = 4
    with pytest.raises(ValueError, match=r"Each: parts must .* number of channels, .* 3 and 4"):
        Each(ColorSplit("lab"), four)


@pytest.mark.parametrize("part", [torch.nn.Identity(), "color:lab", None])
def test_only_views_can_be_composed(part: Any) -> None:
    name = type(part).__name__
    message = rf"must be of type infomin.views.View, got {name}; derive its class from View"
    for compose in (
        lambda: Then(part, ColorSplit()),
        lambda: Then(Crop(), part),
        lambda: Each(Crop(), part),
    ):
        with pytest.raises(TypeError, match=message):
            compose()


def test_a_chain_of_augmentations_is_drawn_for_each_view() -> None:
    one, two = parse("crop:0.2+jitter:1"), Then(Crop((0.2, 1)), Jitter.from_strength(1))
    g = seed(0)
    assert all(map(torch.equal, one(IMAGES, seed(0)), [two(IMAGES, g)[0] for _ in range(2)]))
    lab, (first, second) = parse("color:lab"), parse("crop:0.2")(IMAGES, seed(0))
    luma, chroma = parse("crop:0.2+color:lab")(IMAGES, seed(0))
    assert torch.equal(luma, lab(first)[0]) and torch.equal(chroma, lab(second)[1])
    luma, chroma = parse("crop:0.2/1+color:lab")(IMAGES, seed(0))
    assert torch.equal(luma, lab(first)[0]) and torch.equal(chroma, lab(first)[1])


class Noise(View):
    """A user's augmentation."""

    channels, readout, augments = (3,), (0,), True

    def __init__(self, dial: str) -> None:
        super().__init__()
        self.amount = float(dial)

    def forward(self, batch: Any, generator: torch.Generator | None = None) -> tuple[Tensor]:
        return (batch + self.amount * torch.rand(batch.shape, generator=generator),)


@pytest.mark.parametrize(
    "name", ["noise", "crop"]
)  # a new family, and one that replaces a built-in
def test_a_users_augmentation_is_drawn_like_a_built_in_one(name: str) -> None:
    register(name, dial="the amount of noise")(Noise)
    for suffix, draws in (("", 2), ("/1", 1), ("/3", 3)):
        views = parse(f"{name}:0.5{suffix}")(IMAGES, seed(0))
        assert len(views) == draws and len({float(view.sum()) for view in views}) == draws
    one: Any = parse(f"{name}:0.5/1+color:rgb")
    two: Any = parse(f"{name}:0.5+color:rgb")
    noise = Noise("0.5")(IMAGES, seed(0))[0]
    assert torch.equal(one.first(IMAGES, seed(0))[0], noise)
    assert len(one.first.channels) == 1 and len(two.first.channels) == 2


@pytest.mark.parametrize(
    ("dial", "message"),
    [
        (
            "much",
            "view 'noise:much': could not convert string to float: 'much'; "
            "the dial of noise is the amount of noise$",
        ),
        ("0.5/x", "view 'noise:0.5/x': the number after the slash must be 1 or more, got 'x'"),
    ],
)
def test_errors_in_a_users_family_name_the_view(dial: str, message: str) -> None:
    register("noise", dial="the amount of noise")(Noise)
    with pytest.raises(ValueError, match=message):
        parse(f"crop:0.5+noise:{dial}")


class DuckNoise(torch.nn.Module):
    """All that a view declares and does, but no View."""

    channels, readout, augments, takes = (3,), (0,), True, "images"
    in_channels, bounded, beside, tiles, digest = 3, True, {}, (), ""

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor]:
        return (images,)


@pytest.mark.parametrize("built", [None, torch.nn.Identity(), DuckNoise()])
def test_a_users_family_must_build_a_view(built: object) -> None:
    register("odd")(lambda dial: built)
    message = (
        rf"view 'odd:1': a family must build an infomin.views.View, got {type(built).__name__}; "
        "derive its class from View"
    )
    with pytest.raises(ValueError, match=message):
        parse("odd:1")


def test_a_users_function_that_builds_a_view_is_a_family() -> None:
    register("double")(lambda dial: Shift(float(dial), 2 * float(dial)))
    view = parse("double:3")
    assert isinstance(view, Shift) and view.steps == (3, 6) and view.channels == (3, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("channels", 3),
        ("channels", ()),
        ("channels", (3.0,)),
        ("channels", (0,)),
        ("readout", None),
        ("readout", ()),
        ("readout", (1,)),
        ("readout", (0.0,)),
    ],
)
def test_a_users_view_must_declare_its_views(name: str, value: object) -> None:
    register("odd")(type("Odd", (Noise,), {name: value}))
    message = rf"view 'odd:1': channels must be a tuple .* {name}={re.escape(repr(value))}"
    with pytest.raises(ValueError, match=message):
        parse("odd:1+color:lab")
    with pytest.raises(ValueError, match=message.replace("view 'odd:1'", r"Each\(Odd\)")):
        Each(VIEWS["odd"]("1"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("takes", "image", "takes: got 'image', wanted one of images, scenes, clips"),
        ("tiles", (1, 1), r"tiles must give .*, got \(1, 1\) for channels=\(3,\)"),
        ("tiles", (2,), r"tiles must give .*, got \(2,\)"),
        ("beside", {"past": (1,)}, r"beside must give .*, got past=\(1,\)"),
    ],
)
def test_what_a_users_view_declares_must_fit(name: str, value: object, message: str) -> None:
    register("odd")(type("Odd", (Noise,), {name: value}))
    with pytest.raises(ValueError, match=f"^view 'odd:1': {message}"):
        parse("odd:1")


@pytest.mark.parametrize("mistake", [{}.__getitem__, [0].__getitem__, lambda dial: 1 / 0])
def test_any_error_while_a_dial_is_read_names_the_view(mistake: Any) -> None:
    register("odd", dial="anything")(lambda dial: mistake(7 if dial == "7" else dial))
    with pytest.raises(ValueError, match=r"^view 'odd:7': .*; the dial of odd is anything$"):
        parse("odd:7")


@pytest.mark.parametrize(
    "view", ["color:lab+", "|color:lab", "color:lab++grey:1", "grey:1||grey:1"]
)
def test_a_missing_part_is_an_error_with_the_whole_word(view: str) -> None:
    message = (
        rf"view '{re.escape(view)}': a part is missing next to \+ or \|; add one of aug, bits,"
    )
    with pytest.raises(ValueError, match=message):
        parse(view)


def test_only_text_can_be_parsed() -> None:
    with pytest.raises(ValueError, match="view: got None, wanted str"):
        parse(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("dial", ["-1", "fine", "1-", "１"])  # the last a full-width digit
def test_a_frequency_that_is_not_a_number_is_an_error_with_an_example(dial: str) -> None:
    message = (
        rf"view 'frequency:{dial}': got '{dial}'; the dial of frequency is sigma .*frequency:0.7"
    )
    with pytest.raises(ValueError, match=message):
        parse(f"frequency:{dial}")


@pytest.mark.parametrize("family", VIEWS)
def test_every_family_describes_its_dial_with_an_example(family: str) -> None:
    assert f"{family}:" in VIEWS.dial(family)


@pytest.mark.parametrize(
    "view",
    [
        "colour:lab",
        "lab",
        "",
        "color:lab+",
        "+color:lab",
        "color:lab++color:lab",
        "Color:lab",
        " color:lab",
    ],
)
def test_an_unknown_family_lists_the_known_ones(view: str) -> None:
    with pytest.raises(ValueError, match=f"(wanted|add) one of {', '.join(VIEWS)}"):
        parse(view)


@pytest.mark.parametrize("family", VIEWS)
@pytest.mark.parametrize("colon", ["", ":"])
def test_a_missing_dial_is_an_error_with_an_example(family: str, colon: str) -> None:
    message = f"view '{family}{colon}': the dial is missing; the dial of {family} is .*{family}:"
    with pytest.raises(ValueError, match=message):
        parse(family + colon)


@pytest.mark.parametrize("view", ["color:cmyk", "color:LAB", "color:/0-12", "color:lab:0-12"])
def test_an_unknown_space_lists_the_known_ones(view: str) -> None:
    with pytest.raises(
        ValueError, match=f"wanted one of {', '.join(SPACES)}; the dial of color is"
    ):
        parse(view)


@pytest.mark.parametrize("split", ["", "0", "0-1", "0-123", "00-12", "0--12", "a-b", "0-12/3"])
def test_a_bad_split_is_an_error_with_an_example(split: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"ColorSplit\(split\): got .*; write for example '0-12', or \[\[0\], range",
    ):
        parse(f"color:lab/{split}")


def test_an_unknown_factor_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="wanted one of digit, digit_image, position"):
        parse("shared:digits")


def test_scenes_are_scenes() -> None:
    assert isinstance(SCENES, Scenes) and len(SCENES) == len(IMAGES)
