"""Views of every family, and the scenes and images that their tests share."""

from typing import Any

import pytest
import torch
from torch import Tensor

from infomin.data.scenes import World, draw_scenes
from infomin.views import (
    View,
)
from infomin.views.augment.presets import PRESETS
from infomin.views.color import SPACES

# the order within a view matters too
SPLITS = ("0-12", "01-2", "2-01", "2-10", "0-1-2", "2-1-0", "012", "201")


COLOR = (
    [f"color:{space}" for space in SPACES]
    + [f"color:lab/{split}" for split in SPLITS]
    + ["color:rgb/01-2", "color:hsv/0-1-2"]
)


SHARED = [
    f"shared:{dial}"
    for dial in (
        *("nothing", "digit%2", "digit", "digit-position", "background_image", "all"),
        *("digit~0.3", "digit%2~0.1-background~1", "position%4~0.5-digit_image"),
    )
]


MIXED = ["shared:digit+color:lab", "shared:nothing+color:ydbdr/01-2", "shared:all+color:rgb"]


BANDS = ["frequency:1", "frequency:0.5-2", "color:lab+frequency:1", "frequency:3|color:hsv/012"]


RANDOM = [
    "crop:0.2",
    "crop:0.1-0.5",
    "flip:0.5",
    "jitter:1",
    "grey:0.5",
    "blur:0.9",
    "randaugment:7",
    "jigsaw:2",
    "multicrop:2x8-1x5",
    "patch:3/7",
    "crop:0.3/3",
    "crop:0.2+jitter:1+grey:0.2",
    "crop:0.2+color:lab",
    "crop:0.2/1+color:ydbdr/01-2",
    "patch:2/8+jitter:1+blur:0.5",
    "color:lab+crop:0.3",
    "grey:1|crop:0.2+jitter:1|frequency:1",
    "shared:digit+crop:0.5",
    *(f"aug:{name}" for name in PRESETS),
]


BITS = [  # two planes each, last
    "bits:2",
    "bits:2*0.1~0.25",
    "bits:2+crop:0.3",
    "crop:0.2+bits:2",
    "crop:0.3/1+bits:2",
    "multicrop:2x8-1x5+bits:2~0.5",
    "crop:0.2+color:lab+bits:2",
    "frequency:1+bits:2",
    "shared:digit~0.3+bits:2",
    "shared:nothing+color:lab+bits:2",
]


every_view = pytest.mark.parametrize("name", COLOR + SHARED + MIXED + BANDS + RANDOM + BITS)


every_color = pytest.mark.parametrize("name", COLOR)


every_shared = pytest.mark.parametrize("name", SHARED + MIXED)


OF_IMAGES = [n for n in COLOR + BANDS + RANDOM + BITS if not n.startswith("shared")]


every_image_view = pytest.mark.parametrize("name", OF_IMAGES)


def world() -> World:
    g = torch.Generator().manual_seed(0)
    return World(
        digits=torch.randint(256, (12, 6, 5), dtype=torch.uint8, generator=g),
        digit_class=torch.arange(12) % 10,
        backgrounds=torch.randint(256, (4, 3, 20, 22), dtype=torch.uint8, generator=g),
        background_class=torch.tensor([0, 1, 0, 1]),
        size=16,
    )


torch.set_num_threads(1)


SCENES = draw_scenes(world(), 8, torch.Generator().manual_seed(1))


IMAGES = torch.rand(8, 3, 16, 12, generator=torch.Generator().manual_seed(2))


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def call_seeded(view: Any, number: int = 0) -> tuple[Tensor, ...]:
    """The views of IMAGES with draws from torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        return view(IMAGES)


def inputs(view: View) -> Any:
    return SCENES if view.takes == "scenes" else IMAGES
