"""Colours that the tests of colour spaces share, and scikit-image as their oracle."""

from itertools import product

import numpy as np
import pytest
import skimage.color
import torch
from torch import Tensor

from infomin.views.color import SPACES

torch.set_num_threads(1)


NAMES = list(SPACES)


CORNERS = torch.tensor(list(product((0.0, 1.0), repeat=3)), dtype=torch.float64)


GREYS = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None].expand(6, 3)


every_space = pytest.mark.parametrize("name", NAMES)


def batch(colors: Tensor) -> Tensor:
    """Rows of colours [N, 3] as images [N, 3, 1, 1]."""
    return colors.reshape(-1, 3, 1, 1)


def cube() -> Tensor:
    """Colours of the RGB cube `[1, 3, n, 1]`: a grid, fine steps along the edges, random, dark."""
    g = torch.Generator().manual_seed(0)
    grid = torch.cartesian_prod(*[torch.linspace(0, 1, 9, dtype=torch.float64)] * 3)
    fine = torch.linspace(0, 1, 801, dtype=torch.float64)
    corners = product((0, 1), repeat=2)
    lines = [torch.stack([fine, fine * 0 + a, fine * 0 + b], 1) for a, b in corners]
    edges = [line.roll(axis, 1) for line in lines for axis in range(3)]
    uniform = torch.rand(20000, 3, generator=g, dtype=torch.float64)
    dark = 0.2 * torch.rand(20000, 3, generator=g, dtype=torch.float64)
    return torch.cat([grid, *edges, uniform, dark, dark**3]).T[None, :, :, None].contiguous()


CUBE = cube()


SPAN = {
    name: torch.tensor(np.subtract(space.high, space.low), dtype=torch.float64)
    for name, space in SPACES.items()
}


def oracle(name: str, images: Tensor, back: bool = False) -> Tensor:
    """The same conversion by scikit-image, in float64."""
    if name == "rgb":
        return images
    function = getattr(skimage.color, f"{name}2rgb" if back else f"rgb2{name}")
    return torch.from_numpy(function(images.movedim(1, -1).numpy())).movedim(-1, 1)


def worst(name: str, ours: Tensor, theirs: Tensor) -> float:
    """The largest difference relative to the range of its channel."""
    return float(((ours - theirs).abs() / SPAN[name].view(3, 1, 1)).max())
