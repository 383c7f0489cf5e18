"""Flows that the tests of flows share, and the couplings by hand."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from infomin.views.flow import PixelFlow

torch.set_num_threads(1)


F64 = torch.float64


# channels, couplings, depth
SHAPES = [
    (2, 1, 0),
    (2, 4, 1),
    (3, 6, 1),
    (3, 6, 2),
    (3, 4, 0),
    (4, 6, 2),
    (5, 4, 1),
    (6, 6, 1),
]


FLOWS = [
    {"channels": channels, "couplings": n, "depth": depth, "volume_preserving": vp}
    for (channels, n, depth), vp in product(SHAPES, (True, False))
]


every_flow = pytest.mark.parametrize(
    "settings", FLOWS, ids=lambda s: "-".join(map(str, s.values()))
)


both_kinds = pytest.mark.parametrize("vp", [True, False], ids=["additive", "affine"])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_flow(seed: int = 0, deviation: float = 0.5, **settings) -> PixelFlow:
    """A flow whose weights and biases are all random."""
    flow, g = PixelFlow(**settings), seeded(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(deviation * torch.randn(parameter.shape, generator=g))
    return flow


def colors(
    channels: int, dtype: torch.dtype = F64, low: float = 0, high: float = 1, seed: int = 1
) -> Tensor:
    x = torch.rand(2, channels, 6, 5, generator=seeded(seed), dtype=F64)
    return (low + (high - low) * x).to(dtype)


def by_hand(flow: PixelFlow, colour: Tensor) -> tuple[Tensor, Tensor]:
    """One colour `[C]` through the flow by the formulas, one channel at a time."""
    x, log_det = list(colour), colour.new_zeros(())
    for coupling, group in zip(flow.couplings, flow.config["order"], strict=True):
        h = torch.stack([x[c] for c in range(len(x)) if c not in group])
        net = coupling.transform_net
        for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
            h = w.to(h) @ h / math.sqrt(len(h)) + b.to(h)
            h = h.clamp(min=0) if i < len(net.weights) - 1 else h
        for i, c in enumerate(group):
            if flow.config["volume_preserving"]:
                x[c] = x[c] + h[i]
            else:
                growth = torch.tanh(h[len(group) + i])
                x[c] = x[c] * torch.exp(growth) + h[i]
                log_det = log_det + growth
    return torch.stack(x), log_det
