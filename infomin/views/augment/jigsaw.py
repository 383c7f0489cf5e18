"""Jigsaw: images cut into cells, a part of each cell taken, and the parts put together again in a random order."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...common.checks import to_unit
from ...common.seeds import to_device
from ..base import Augmentation, Views, register
from ..dials import match_dial
from ..draws import check_integer, permutations, randint_below

SHARE = 64 / 85  # PIRL takes 64 px of each cell of 85


class JigsawDraws(NamedTuple):
    """For each sample: where in its cell each part starts `[n, cells^2, 2]` (row, column), and which part comes where
    `[n, cells^2]`."""

    offsets: Tensor
    order: Tensor


def cells(images: Tensor, n: int, crop: int, offsets: Tensor) -> Tensor:
    """Cut images into n x n cells and take a square of each.

    Args:
        images: `[B, C, H, W]`; what is left over at the right and at the bottom is dropped.
        n: cells in a row and in a column.
        crop: side of the squares in px, at most that of a cell.
        offsets: long `[B, n * n, 2]`: row and column in its cell at which each square starts, cells row by row.

    Returns:
        `[B, n * n, C, crop, crop]`.

    >>> cells(torch.arange(16).view(1, 1, 4, 4), 2, 1, torch.zeros(1, 4, 2, dtype=torch.long)).flatten()
    tensor([ 0,  2,  8, 10])
    """
    height, width = images.shape[2] // n, images.shape[3] // n
    offsets = to_device(offsets, images.device)
    cell = torch.arange(n * n, device=images.device)
    step = torch.arange(crop, device=images.device)
    rows = (cell // n * height + offsets[:, :, 0])[:, :, None] + step
    columns = (cell % n * width + offsets[:, :, 1])[:, :, None] + step
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    return images.movedim(1, 3)[sample, rows[..., None], columns[:, :, None]].movedim(4, 2)


def assemble(parts: Tensor) -> Tensor:
    """Put n x n cells `[B, n * n, C, h, w]` together, row by row: `[B, C, n * h, n * w]`.

    >>> assemble(torch.arange(4).view(1, 4, 1, 1, 1))
    tensor([[[[0, 1],
              [2, 3]]]])
    """
    batch, count, channels, height, width = parts.shape
    n = round(count**0.5)
    grid = parts.view(batch, n, n, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(batch, channels, n * height, n * width)


@register("jigsaw", dial="how many cells there are in a row and in a column: jigsaw:3")
class Jigsaw(Augmentation[JigsawDraws]):
    """An image whose cells are cropped and shuffled; in eval mode it stays whole, at its own size.

    Args:
        cells: in a row and in a column, 2 or more.
        crop: side in px of the square taken from each cell; None is 64/85 of the cell, as in PIRL.

    Raises:
        ValueError: a number out of range; from `forward`, images too small for the cells.

    Source: PIRL (arXiv 1912.01991), which encodes the cells one by one: for that take `cells`. InfoMin has both.

    >>> (view,) = Jigsaw(3)(torch.rand(2, 3, 64, 64))
    >>> view.shape
    torch.Size([2, 3, 48, 48])
    """

    checks_range = False

    def __init__(self, cells: int = 3, crop: int | None = None) -> None:
        super().__init__()
        self.cells = check_integer(cells, 2, 100, "Jigsaw(cells)")
        self.crop = crop if crop is None else check_integer(crop, 1, 1e6, "Jigsaw(crop)")

    def side(self, height: int, width: int) -> int:
        """Side in px of the square taken from each cell of an image."""
        cell = min(height, width) // self.cells
        return self.crop or max(1, round(SHARE * cell))

    @classmethod
    def from_dial(cls, dial: str) -> "Jigsaw":
        """`jigsaw:CELLS`."""
        return cls(int(match_dial(dial, r"\d+")[0]))

    def draw(
        self, n: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> JigsawDraws:
        """Where each square starts and which comes where, for n samples."""
        crop, count = self.side(height, width), self.cells**2
        free = torch.tensor(
            [height // self.cells - crop + 1, width // self.cells - crop + 1], device="cpu"
        )
        return JigsawDraws(
            randint_below((n, count, 2), free, generator), permutations(n, count, generator)
        )

    def augment(self, images: Tensor, draws: JigsawDraws) -> Views:
        """The view for given draws."""
        parts = cells(
            to_unit(images), self.cells, self.side(images.shape[2], images.shape[3]), draws.offsets
        )
        sample = torch.arange(len(images), device=images.device)[:, None]
        return (assemble(parts[sample, to_device(draws.order, images.device)]),)

    def smallest_side(self) -> int:
        return self.cells * (self.crop or 1)

    def extra_repr(self) -> str:
        return f"cells={self.cells}, crop={self.crop}"
