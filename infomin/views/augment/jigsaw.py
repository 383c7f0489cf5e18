"""Jigsaw: cut images into cells, crop a square from each cell and shuffle the squares."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...common.checks import check_integer, to_unit
from ...common.seeds import to_device
from ..base import Augmentation, Views, register
from ..dials import match_dial
from ..draws import check_sides, permutations, randint_below

SHARE = 64 / 85  # PIRL takes 64 px of each cell of 85


class JigsawDraws(NamedTuple):
    """The draws of `Jigsaw`.

    The offset (row, column) of each square in its cell, long `[n, cells^2, 2]`, and which square
    goes to each place, long `[n, cells^2]`.
    """

    offsets: Tensor
    order: Tensor


def cells(images: Tensor, n: int, crop: int, offsets: Tensor) -> Tensor:
    """Cut images into n x n cells and crop a square from each.

    Args:
        images: `[B, C, H, W]`; the remainder at the right and at the bottom is dropped.
        n: cells per row and per column.
        crop: side of the squares in px, at most that of a cell.
        offsets: long `[B, n * n, 2]`: the first row and column of each square in its cell, cells
            row by row.

    Returns:
        `[B, n * n, C, crop, crop]`.

    >>> offsets = torch.zeros(1, 4, 2, dtype=torch.long)
    >>> cells(torch.arange(16).view(1, 1, 4, 4), 2, 1, offsets).flatten()
    tensor([ 0,  2,  8, 10])
    """
    height, width = images.shape[2] // n, images.shape[3] // n
    offsets = to_device(offsets, images.device)
    cell = torch.arange(n * n, device=images.device)
    span = torch.arange(crop, device=images.device)
    rows = (cell // n * height + offsets[:, :, 0])[:, :, None] + span
    columns = (cell % n * width + offsets[:, :, 1])[:, :, None] + span
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    return images.movedim(1, 3)[sample, rows[..., None], columns[:, :, None]].movedim(4, 2)


def assemble(parts: Tensor) -> Tensor:
    """Assemble n x n cells `[B, n * n, C, h, w]` row by row to images `[B, C, n * h, n * w]`.

    >>> assemble(torch.arange(4).view(1, 4, 1, 1, 1))
    tensor([[[[0, 1],
              [2, 3]]]])
    """
    batch, count, channels, height, width = parts.shape
    n = round(count**0.5)
    grid = parts.view(batch, n, n, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(batch, channels, n * height, n * width)


@register("jigsaw", dial="the number of cells per row and per column: jigsaw:3")
class Jigsaw(Augmentation[JigsawDraws]):
    """Images whose cells are cropped and shuffled; in eval mode images stay whole, at their size.

    Args:
        cells: per row and per column, 2 or more.
        crop: side in px of the square cropped from each cell; None is 64/85 of the cell, as in
            PIRL.

    Raises:
        ValueError: a number out of range; from `draw`, images too small for the cells.

    Source: PIRL (arXiv 1912.01991), which encodes each cell by itself: use `cells` for that.
    InfoMin has both.

    >>> (view,) = Jigsaw(3)(torch.rand(2, 3, 64, 64))
    >>> view.shape
    torch.Size([2, 3, 48, 48])
    """

    def __init__(self, cells: int = 3, crop: int | None = None) -> None:
        super().__init__()
        self.cells = check_integer(cells, 2, 100, "Jigsaw(cells)")
        self.crop = crop if crop is None else check_integer(crop, 1, 1e6, "Jigsaw(crop)")

    def side(self, height: int, width: int) -> int:
        """Side in px of the square cropped from each cell of an image."""
        cell = min(height, width) // self.cells
        return self.crop or max(1, round(SHARE * cell))

    @classmethod
    def from_dial(cls, dial: str) -> "Jigsaw":
        """`jigsaw:CELLS`."""
        return cls(int(match_dial(dial, r"\d+")[0]))

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> JigsawDraws:
        """Draw the offsets and the order of the squares of n images."""
        check_sides(height, width, self.cells * (self.crop or 1), type(self).__name__)
        side, count = self.side(height, width), self.cells**2
        positions = (height // self.cells - side + 1, width // self.cells - side + 1)
        offsets = randint_below((n, count, 2), torch.tensor(positions, device="cpu"), generator)
        return JigsawDraws(offsets, permutations(n, count, generator))

    def augment(self, images: Tensor, draws: JigsawDraws) -> Views:
        """Make the view from given draws."""
        side = self.side(images.shape[2], images.shape[3])
        squares = cells(to_unit(images), self.cells, side, draws.offsets)
        sample = torch.arange(len(images), device=images.device)[:, None]
        return (assemble(squares[sample, to_device(draws.order, images.device)]),)

    def extra_repr(self) -> str:
        return f"cells={self.cells}, crop={self.crop}"
