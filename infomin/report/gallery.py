"""What views look like: a sheet of the views of one image."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.checks import check_positive, check_type
from ..common.seeds import seeded_generator
from ..data.datasets import load
from ..data.image_io import read_upright
from ..views import parse
from .plots import view_strip


def view_sheet(
    views: Sequence[str],
    path: str | Path = "views.png",
    image: str | Path = "",
    draws: int = 3,
    seed: int = 0,
) -> Path:
    """Draw the views of one image, a row a draw; a view that is the same in a hundred draws takes one row.

    Args:
        views: as they are written for `parse`.
        path: the picture.
        image: an image file; without one, a photograph that scikit-image ships. Views of scenes and clips show one of the
            data set digits or clips.
        draws: rows for a view that is drawn at random.
        seed: of the draws.

    Returns:
        the path.

    Raises:
        ValueError: an unknown view, one that the image is too small for, or an image that cannot be read.
    """
    check_type(draws, int, "gallery: draws")
    check_positive(draws, "gallery: draws")
    check_positive(seed, "gallery: seed", zero=True)
    made, sheet = {word: parse(word) for word in views}, {}
    for word, view in made.items():
        data = {"scenes": ("digits", 32), "clips": ("clips", 64)}.get(
            getattr(view, "takes", "images")
        )
        inputs: Any = load(*data)[1].scenes[:1] if data else _photograph(image)[None]  # type: ignore[index]

        def drawn(draw: int, view: Any = view, inputs: Any = inputs) -> list[Tensor]:
            return [
                _colours(v[0], view) for v in view(inputs, seeded_generator(seed, "gallery", draw))
            ]

        rows = [drawn(draw) for draw in range(draws if draws > 1 and _varies(view, drawn) else 1)]
        for draw, row in enumerate(rows):
            shown = row if data else [inputs[0] / 255, *row]
            sheet[word if len(rows) == 1 else f"{word}, draw {draw + 1}"] = shown
    alike = (
        len(set(map(len, sheet.values()))) == 1
    )  # otherwise the longest row would make the others as wide
    return view_strip(
        sheet, path, across=max(1, round(math.sqrt(len(sheet) / 2))) if alike else 1
    )  # about as high as wide


def _varies(view: Any, drawn: Callable[[int], list[Tensor]]) -> bool:
    """Whether anything is drawn at random; of small probabilities one draw says little."""
    if getattr(view, "takes", "images") == "images" and not any(
        getattr(part, "augments", False) for part in view.modules()
    ):
        return False
    first = drawn(0)
    return any(not all(map(torch.equal, first, drawn(draw))) for draw in range(1, 100))


def _colours(shown: Tensor, view: Any) -> Tensor:
    """Of channels with signs, 0 as middle grey: on one scale for all draws, but for those that leave it or hardly show on it.

    What has three is seen as a picture, as the low frequencies are.
    """
    signed = getattr(view, "signed", False) and len(shown) < 3
    return shown / shown.abs().amax().clamp(min=0.5) / 2 + 0.5 if signed else shown


def _photograph(path: str | Path) -> Tensor:
    """uint8 `[3, H, W]`."""
    if not path:
        from skimage import data

        return torch.tensor(data.chelsea()).permute(2, 0, 1)
    try:
        return torch.from_numpy(np.array(read_upright(path))).permute(2, 0, 1)
    except Exception as error:  # decoders raise errors of many kinds
        raise ValueError(
            f"image {str(path)!r}: it cannot be read ({error}); name another, or leave it out"
        ) from error
