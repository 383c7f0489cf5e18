"""What views look like: a sheet with the views of one image."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.checks import check_positive, check_type
from ..common.files import as_path
from ..common.seeds import seeded_generator
from ..data.datasets import load
from ..data.image_io import Unreadable, read_upright
from ..views import View, parse
from .plots import view_strip

# What a view takes, if not images -> the data set that it is shown with, and its size in px.
SHOWN_WITH = {"scenes": ("digits", 32), "clips": ("clips", 64)}


def view_sheet(
    views: Sequence[str],
    path: str | Path = "views.png",
    image: str | Path = "",
    draws: int = 3,
    seed: int = 0,
) -> Path:
    """Draw the views of one image, one row per random draw.

    A view that is the same in a hundred draws gets a single row.

    Args:
        views: view words, as `parse` takes them.
        path: the picture to write.
        image: an image file; by default a photograph that scikit-image ships. Views of scenes and
            clips show a sample of the data set digits or clips instead.
        draws: rows for a view that is drawn at random.
        seed: of the draws.

    Returns:
        the path.

    Raises:
        ValueError: an unknown view, an image that is too small for one, or an unreadable image.
    """
    check_type(draws, int, "gallery: draws")
    check_positive(draws, "gallery: draws")
    check_positive(seed, "gallery: seed", zero=True)
    sheet: dict[str, list[Tensor]] = {}
    parsed = {word: parse(word) for word in views}  # before the first one is drawn
    for word, view in parsed.items():
        inputs, originals = _inputs(view.takes, image)
        draw_row = partial(_draw_row, view, inputs, seed)
        varies = draws > 1 and _varies(view, draw_row)
        rows = [draw_row(draw) for draw in range(draws if varies else 1)]
        for draw, row in enumerate(rows):
            title = word if len(rows) == 1 else f"{word}, draw {draw + 1}"
            sheet[title] = [*originals, *row]
    # Rows that share a line all get the width of the longest one.
    same_length = len({len(row) for row in sheet.values()}) == 1
    roughly_square = max(1, round(math.sqrt(len(sheet) / 2)))
    return view_strip(sheet, path, across=roughly_square if same_length else 1)


def _inputs(takes: str, image: str | Path) -> tuple[Any, list[Tensor]]:
    """A batch of one for a view, and the pictures to show before its views."""
    if takes in SHOWN_WITH:
        _, test = load(*SHOWN_WITH[takes])
        return test.scenes[:1], []  # type: ignore[index]
    photograph = _photograph(image)
    return photograph[None], [photograph / 255]


def _draw_row(view: View, inputs: Any, seed: int, draw: int) -> list[Tensor]:
    """The pictures of one draw of the views."""
    views = view(inputs, seeded_generator(seed, "gallery", draw))
    return [_centre_signed(batch[0], view) for batch in views]


def _varies(view: View, draw_row: Callable[[int], list[Tensor]]) -> bool:
    """Whether any of a hundred draws differs: with a small probability two may well be equal."""
    if view.takes == "images" and not view.augments:
        return False
    first = draw_row(0)
    return any(not all(map(torch.equal, first, draw_row(draw))) for draw in range(1, 100))


def _centre_signed(picture: Tensor, view: View) -> Tensor:
    """Map one or two channels that may be negative to [0, 1], with 0 as middle grey.

    The scale is the largest magnitude, but at least 0.5: all draws that stay below share it, and
    noise around 0 stays grey. Three channels are shown as colours, as the low frequencies are.
    """
    if view.bounded or len(picture) >= 3:
        return picture
    return picture / picture.abs().amax().clamp(min=0.5) / 2 + 0.5


def _photograph(path: str | Path) -> Tensor:
    """An image file, or the photograph of scikit-image: uint8 `[3, H, W]`."""
    if not path:
        from skimage import data

        return torch.tensor(data.chelsea()).permute(2, 0, 1)
    try:
        return torch.from_numpy(np.array(read_upright(as_path(path)))).permute(2, 0, 1)
    except Unreadable as error:
        raise ValueError(
            f"image {str(path)!r}: cannot be read ({error}); name another, or leave it out"
        ) from error
