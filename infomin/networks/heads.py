"""Projection heads: what stands between an encoder's features and the embedding that a critic compares."""

from collections.abc import Callable

from torch import nn

from ..common.checks import check_choice


def _none(features: int, dim: int) -> list[nn.Module]:
    if dim != features:
        raise ValueError(
            f"Projection(head='none'): dim must equal the features, got dim={dim} and features={features}; "
            f"use dim={features} or head='linear'"
        )
    return []


HEADS: dict[str, Callable[[int, int], list[nn.Module]]] = {
    "none": _none,
    "linear": lambda features, dim: [nn.Linear(features, dim)],
    "mlp": lambda features, dim: [
        nn.Linear(features, features),
        nn.ReLU(),
        nn.Linear(features, dim),
    ],
}


class Projection(nn.Sequential):
    """The head between features and embedding: none, one linear layer, or one hidden layer as wide as the features.

    Args:
        features: size of the input.
        dim: size of the output; head "none" needs dim equal to features.
        head: a key of `HEADS`.

    Raises:
        ValueError: an unknown head, or head "none" with a dim other than features.

    >>> import torch
    >>> Projection(512, 128, "mlp")(torch.zeros(1, 512)).shape
    torch.Size([1, 128])
    """

    def __init__(self, features: int, dim: int = 128, head: str = "linear") -> None:
        super().__init__(*HEADS[check_choice(head, HEADS, "Projection(head)")](features, dim))
        self.features = dim
