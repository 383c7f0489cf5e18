"""What every method returns."""

from typing import NamedTuple

from torch import Tensor


class Step(NamedTuple):
    """One step of a method: the scalar to go down, and scalars to be logged by name (no gradient).

    Among these are `loss` and, of methods that contrast views, `i_nce` in nats.
    """

    loss: Tensor
    stats: dict[str, Tensor]
