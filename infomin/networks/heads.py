"""Projection heads: from an encoder's features to the embedding that the critic compares."""

from collections.abc import Callable

from torch import nn

from ..common.checks import check_choice


def _no_head(features: int, dim: int) -> list[nn.Module]:
    if dim != features:
        raise ValueError(
            "Projection(head='none'): dim must equal the features, "
            f"got dim={dim} and features={features}; use dim={features} or head='linear'"
        )
    return []


def _mlp(features: int, dim: int) -> list[nn.Module]:
    return [nn.Linear(features, features), nn.ReLU(), nn.Linear(features, dim)]


HEADS: dict[str, Callable[[int, int], list[nn.Module]]] = {
    "none": _no_head,
    "linear": lambda features, dim: [nn.Linear(features, dim)],
    "mlp": _mlp,
}


class Projection(nn.Sequential):
    """Projection head: none, one linear layer, or an MLP with one hidden layer of input width.

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
        make_layers = HEADS[check_choice(head, HEADS, "Projection(head)")]
        super().__init__(*make_layers(features, dim))
        self.features = dim
