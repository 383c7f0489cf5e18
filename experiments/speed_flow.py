"""Speed of pixel-wise flows, as ratios against the libraries they could be made with; speed.py explains how it is timed.

    python experiments/speed_flow.py           # 4 minutes on 2 cores, no GPU, no download; needs pip install 'infomin[dev]'

Six couplings of hidden width 32 over 64 images of 64 px, forward and backward with the log-det in the loss: ours over nflows' own
on the images with 1x1 convolutions (goal 0.40 or less), on rows of pixels, and zuko's on rows; additive and affine, with equal
masks and sizes. Then memory: the most bytes that torch's CPU allocator held during a step beyond those held before it (images,
parameters, their gradients), ours over nflows' on the images (goal 0.60 or less).

Times twice: as a process begins, where much of theirs goes into new pages for their large layers; and where the process keeps
the memory it frees (infomin.allocator), as our runs do, so that arithmetic is what is left. Then additive couplings of one layer
reach the goal, and the others miss it with 0.6 to 0.9 (figures/speed_flow.jsonl; 0.4 to 0.6 on another day of this processor):
most of the time is products of matrices, ours and theirs.

Last, a round of the semi-supervised game, forward and backward of all players, over its four encoders alone with the same losses
on views that are there already (goal 1.5 or less): with half-width ResNet-18s at 64 px, and with the tiny encoder at 32 px. The
latter misses the goal, 2.0 on 2 cores: that network costs hardly more than four couplings do at each pixel.
"""

import copy
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from math import inf
from pathlib import Path

import torch
from jsonargparse.typing import PositiveInt
from speed import MACHINE, Row, _compare, _timed
from torch import Tensor, nn

from infomin.common import allocator, files
from infomin.experiment import run_script
from infomin.methods import Game
from infomin.runs.provenance import fast_bf16
from infomin.views import parse
from infomin.views.flow import FlowSplit, PixelFlow


def _network(i: int, o: int, depth: int, layer: Callable[[int, int], nn.Module]) -> nn.Module:
    sizes = [i, *[32] * depth, o]
    layers = [part for a, b in pairwise(sizes) for part in (layer(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class _WithoutContext(nn.Module):
    """What nflows wants of a network: a second argument."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network(x)


def _nflows(
    order: Sequence[Sequence[int]],
    depth: int,
    additive: bool,
    layer: Callable[[int, int], nn.Module],
) -> nn.ModuleList:
    from nflows.transforms.coupling import AdditiveCouplingTransform, AffineCouplingTransform

    kind = AdditiveCouplingTransform if additive else AffineCouplingTransform
    masks = [[int(c in group) for c in range(3)] for group in order]
    return nn.ModuleList(
        kind(mask, lambda i, o: _WithoutContext(_network(i, o, depth, layer))) for mask in masks
    )


def _zuko(order: Sequence[Sequence[int]], depth: int, additive: bool) -> nn.ModuleList:
    from zuko.flows.coupling import GeneralCouplingTransform
    from zuko.transforms import AdditiveTransform

    how: Row = {"univariate": AdditiveTransform, "shapes": [()]} if additive else {}
    masks = [torch.tensor([c not in group for c in range(3)]) for group in order]
    return nn.ModuleList(
        GeneralCouplingTransform(3, mask=mask, hidden_features=[32] * depth, **how)
        for mask in masks
    )


def _learn(
    couplings: nn.ModuleList, x: Tensor, call: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]
) -> None:
    total: Tensor | float = 0.0
    for coupling in couplings:
        x, log_det = call(coupling, x)
        total = total + log_det
    _back(couplings, x, torch.as_tensor(total))


def _learn_ours(flow: PixelFlow, x: Tensor) -> None:
    _back(flow, *flow.forward_and_log_det(x))


def _back(weights: nn.Module, latent: Tensor, log_det: Tensor) -> None:
    weights.zero_grad(set_to_none=True)
    (latent.square().mean() + log_det.mean()).backward()


def _peak(work: Callable[[], object]) -> int:
    """The most bytes that torch's CPU allocator held at once during the work, beyond those held before it."""
    os.environ.setdefault(
        "KINETO_LOG_LEVEL", "99"
    )  # without it the profiler says that there is no GPU
    from torch.profiler import ProfilerActivity, profile

    work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    assert found.profiler is not None and found.profiler.kineto_results is not None
    changes = [
        event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    changes.sort(key=lambda event: event.start_ns())
    return max(
        accumulate(event.nbytes() for event in changes)
    )  # below 0 where memory is given back


def _flow_of(depth: int, additive: bool, repeats: int, memory: str) -> list[Row]:
    images = torch.rand(64, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    rows = images.movedim(1, -1).reshape(-1, 3).contiguous()
    flow = PixelFlow(couplings=6, depth=depth, volume_preserving=additive)
    order, name = (
        flow.config["order"],
        f"flow, {'additive' if additive else 'affine'}, depth {depth}{memory}",
    )
    ours, made = partial(_learn_ours, flow, images), partial(_nflows, order, depth, additive)
    whole = partial(
        _learn, made(partial(nn.Conv2d, kernel_size=1)), images, lambda coupling, x: coupling(x)
    )
    by_rows = partial(_learn, made(nn.Linear), rows, lambda coupling, x: coupling(x))
    zuko = partial(
        _learn, _zuko(order, depth, additive), rows, lambda coupling, x: coupling().call_and_ladj(x)
    )
    peers = {
        "nflows, images": (whole, 0.40),
        "nflows, rows": (by_rows, inf),
        "zuko, rows": (zuko, inf),
    }
    clock = partial(_timed, ours, 3)
    times = [
        _compare(f"{name}: ours / {peer}", clock, partial(_timed, work, 1), repeats, most=most)
        for peer, (work, most) in peers.items()
    ]
    if memory:
        return times  # what is held at once is the same
    mib = [_peak(work) / 2**20 for work in (ours, whole)]
    verdict = "reached" if mib[0] <= 0.60 * mib[1] else "MISSED"
    held = f"{name}, memory: ours / nflows, images"
    print(
        f"{held:57} {mib[0] / mib[1]:6.2f}  {mib[0]:.4g} / {mib[1]:.4g} MiB  goal <= 0.6: {verdict}",
        flush=True,
    )
    row = {
        "name": held,
        "ratio": mib[0] / mib[1],
        "goal": "<= 0.6",
        "mib_above": mib[0],
        "mib_below": mib[1],
    }
    return [*times, row | {"threads": torch.get_num_threads(), **MACHINE}]


def _game(encoder: str, size: int, batch: int, repeats: int) -> Row:
    flow = FlowSplit(PixelFlow(hidden=8))
    game = Game(flow, 10, task="label", encoder=encoder).to(memory_format=torch.channels_last)
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8, generator=draws)
    crops = parse("crop:0.5")(images, draws)
    labels = {"label": torch.arange(batch) % 10}
    labels["label"][: 2 * batch // 3] = -1  # a third has labels, as by default
    fixed = [view.detach().contiguous() for view in game.split(crops)]
    alone = copy.deepcopy(game)
    alone.split = lambda views: views  # type: ignore[method-assign]
    dtype, enabled = torch.bfloat16, fast_bf16(torch.device("cpu"))

    def a_round(players: Game, views: Sequence[Tensor]) -> None:
        players.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype, enabled=enabled):
            loss = players(views, None, labels).loss
        loss.backward()

    name = f"game: a round / its encoders, {encoder}, {size} px"
    return _compare(
        name,
        partial(_timed, partial(a_round, game, crops), 1),
        partial(_timed, partial(a_round, alone, fixed), 1),
        repeats,
        most=1.5,
    )


def main(repeats: PositiveInt = 7, save: bool = False) -> None:
    """Measure the speed and the memory of flows as ratios.

    Args:
        repeats: How often both sides of a ratio are timed; 5 or more for a median worth its name.
        save: Whether to write the rows to figures/speed_flow.jsonl beside this script.
    """
    kinds = ((1, True), (1, False), (2, True), (2, False))
    rows = [row for kind in kinds for row in _flow_of(*kind, repeats, "")]
    if allocator.keep_memory():
        rows += [row for kind in kinds for row in _flow_of(*kind, repeats, ", kept")]
    rows += [_game(*sizes, repeats) for sizes in (("resnet18", 64, 96), ("tiny", 32, 192))]
    if save:
        files.write_jsonl(Path(__file__).parent / "figures" / "speed_flow.jsonl", rows)


if __name__ == "__main__":
    run_script(main, __doc__)
