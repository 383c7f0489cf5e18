"""Colours and shared factors, as views."""

import math

import pytest
import torch
from view_cases import IMAGES, SCENES, SHARED, SPLITS, every_color, every_shared, seed

from infomin.data.scenes import render_scenes
from infomin.views import (
    VIEWS,
    ColorSplit,
    SharedFactors,
    parse,
)
from infomin.views.color import SPACES


@pytest.fixture(autouse=True)
def forget_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that a test registers are gone afterwards."""
    monkeypatch.setattr(VIEWS, "_entries", dict(VIEWS._entries))


@every_color
def test_colours_of_a_batch_equal_those_of_each_image(name: str) -> None:
    view = parse(name)
    singles = zip(*(view(image[None]) for image in IMAGES), strict=True)
    for whole, parts in zip(view(IMAGES), singles, strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=0, atol=1e-6)


@every_color
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.uint8, torch.float32),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
    ],
)
def test_dtypes_of_colours(name: str, dtype: torch.dtype, expected: torch.dtype) -> None:
    batch = (IMAGES * 255).byte() if dtype == torch.uint8 else IMAGES.to(dtype)
    assert {v.dtype for v in parse(name)(batch)} == {expected}


@every_color
def test_gradients_flow_from_every_channel_to_the_image(name: str) -> None:
    for i in range(len(parse(name).channels)):
        images = IMAGES.clone().requires_grad_()
        parse(name)(images)[i].square().sum().backward()
        grad = images.grad
        assert grad is not None and grad.isfinite().all() and grad.abs().sum() > 0


@every_color
def test_colours_stay_on_their_device(name: str) -> None:
    view, batch = parse(name), torch.zeros(2, 3, 4, 4, dtype=torch.uint8, device="meta")
    views = view(batch)
    assert {v.device.type for v in views} == {"meta"}
    assert tuple(v.shape[1] for v in views) == view.channels


@pytest.mark.parametrize("space", SPACES)
def test_every_split_has_the_same_channels(space: str) -> None:
    whole = parse(f"color:{space}/012")(IMAGES)[0]
    for split in SPLITS:
        for v, group in zip(parse(f"color:{space}/{split}")(IMAGES), split.split("-"), strict=True):
            assert torch.equal(v, whole[:, [int(channel) for channel in group]])
    default = parse(f"color:{space}")
    assert isinstance(default, ColorSplit) and default.split == "0-12"


@every_shared
def test_draws_affect_the_second_view_only(name: str) -> None:
    view = parse(name)
    one, other = view(SCENES, seed(0)), view(SCENES, seed(1))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1]) == name.startswith("shared:all")


@every_shared
def test_the_first_view_of_a_scene_does_not_depend_on_the_batch(name: str) -> None:
    view = parse(name)
    singles = [view(SCENES[i : i + 1], seed(i))[0] for i in range(8)]
    torch.testing.assert_close(view(SCENES, seed(0))[0], torch.cat(singles))


@pytest.mark.parametrize("name", SHARED)
def test_the_first_view_is_the_scene_that_the_labels_describe(name: str) -> None:
    view = parse(name)
    v1, v2 = view(SCENES, seed(0))
    assert torch.equal(v1, render_scenes(SCENES))
    assert torch.equal(v1, v2) == (name == "shared:all")


@pytest.mark.parametrize(
    ("dial", "nats"),
    [
        ("nothing", 0),
        ("digit%2", math.log(2)),
        ("digit", math.log(10)),
        ("digit-position", math.log(90)),
        ("position", math.log(9)),
    ],
)
def test_nats_of_shared_factors(dial: str, nats: float) -> None:
    assert SharedFactors(dial).nats(SCENES) == pytest.approx(nats)


@every_shared
def test_images_instead_of_scenes_are_an_error(name: str) -> None:
    with pytest.raises(
        TypeError, match=r"SharedFactors\(.*\): got Tensor, wanted scenes.Scenes, .*data='digits'"
    ):
        parse(name)(IMAGES)


@pytest.mark.parametrize("name", ["color:lab", "color:rgb/0-1-2"])
def test_scenes_instead_of_images_are_an_error(name: str) -> None:
    with pytest.raises(
        TypeError, match=r"ColorSplit: images must be a torch.Tensor .*, got Scenes"
    ):
        parse(name)(SCENES)
