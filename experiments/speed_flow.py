"""Speed of pixel-wise flows, as ratios against libraries that could implement them.

    python experiments/speed_flow.py           # 4 minutes on 2 cores

It needs `pip install 'infomin[dev]'`, but no GPU and no download; speed.py explains how it is
timed.

Six couplings of hidden width 32 on 64 images of 64 px, forward and backward with the log-det in the
loss. Ours over nflows on the images with 1x1 convolutions (goal at most 0.40), over nflows on rows
of pixels, and over zuko on rows; additive and affine couplings, with equal masks and sizes. Then
memory: the peak bytes that torch's CPU allocator held during a step beyond those held before it
(images, parameters, their gradients), ours over nflows on the images (goal at most 0.60).

Each is timed twice: as a process begins, where the peers spend much time on new pages for their
large layers; and where the process keeps the memory it frees (infomin.common.allocator), as our
runs do, so that arithmetic is what is left. In the second case additive couplings of one layer
reach the goal and the others miss it with 0.45 to 0.6 (figures/speed_flow.jsonl): most of the time
is matrix products, ours and theirs.

Last, a step of the semi-supervised game, forward and backward of all players, over its four
encoders alone with the same losses on precomputed views (goal at most 1.5): half-width ResNet-18s
at 64 px, and the tiny encoder at 32 px. The latter misses the goal, 2.1 on 2 cores, because that
network costs hardly more than four couplings at each pixel.
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
from speed import MACHINE, Row, compare, time_calls
from torch import Tensor, nn

from infomin.common import allocator, files
from infomin.experiment import run_script
from infomin.methods import Game
from infomin.runs.provenance import fast_bf16
from infomin.training.step import make_batch
from infomin.views import parse
from infomin.views.flow import FlowSplit, PixelFlow

MAX_MEMORY = 0.60  # goal of the ratio of peak memories


def _network(i: int, o: int, depth: int, layer: Callable[[int, int], nn.Module]) -> nn.Module:
    sizes = [i, *[32] * depth, o]
    layers = [part for a, b in pairwise(sizes) for part in (layer(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class _WithoutContext(nn.Module):
    """A network that takes the second argument of nflows, and ignores it."""

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

    def make_network(i: int, o: int) -> nn.Module:
        return _WithoutContext(_network(i, o, depth, layer))

    transform = AdditiveCouplingTransform if additive else AffineCouplingTransform
    masks = [[int(c in group) for c in range(3)] for group in order]
    return nn.ModuleList(transform(mask, make_network) for mask in masks)


def _zuko(order: Sequence[Sequence[int]], depth: int, additive: bool) -> nn.ModuleList:
    from zuko.flows.coupling import GeneralCouplingTransform
    from zuko.transforms import AdditiveTransform

    options: Row = {"hidden_features": [32] * depth}
    if additive:
        options |= {"univariate": AdditiveTransform, "shapes": [()]}
    masks = [torch.tensor([c not in group for c in range(3)]) for group in order]
    return nn.ModuleList(GeneralCouplingTransform(3, mask=mask, **options) for mask in masks)


def _step(
    couplings: nn.ModuleList, x: Tensor, call: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]
) -> None:
    """Forward and backward of a peer's couplings; `call` gives latent and log-det of one."""
    total: Tensor | float = 0.0
    for coupling in couplings:
        x, log_det = call(coupling, x)
        total = total + log_det
    _backward(couplings, x, torch.as_tensor(total))


def _our_step(flow: PixelFlow, x: Tensor) -> None:
    _backward(flow, *flow.forward_and_log_det(x))


def _backward(weights: nn.Module, latent: Tensor, log_det: Tensor) -> None:
    weights.zero_grad(set_to_none=True)
    (latent.square().mean() + log_det.mean()).backward()


def _peak_bytes(work: Callable[[], object]) -> int:
    """The peak bytes that torch's CPU allocator held during the work, beyond those held before."""
    # Without this the profiler prints that there is no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from torch.profiler import ProfilerActivity, profile

    work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    events = recorded.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in changes))  # freed blocks count negative


def _flow(depth: int, additive: bool, repeats: int, memory: str) -> list[Row]:
    """Ratios of a flow with couplings of that depth and kind; `memory` is a suffix of the names."""
    images = torch.rand(64, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    rows = images.movedim(1, -1).reshape(-1, 3).contiguous()
    flow = PixelFlow(couplings=6, depth=depth, volume_preserving=additive)
    order = flow.config["order"]
    name = f"flow, {'additive' if additive else 'affine'}, depth {depth}{memory}"
    convolutions = _nflows(order, depth, additive, partial(nn.Conv2d, kernel_size=1))
    linears = _nflows(order, depth, additive, nn.Linear)
    zuko = _zuko(order, depth, additive)
    ours = partial(_our_step, flow, images)
    theirs = partial(_step, convolutions, images, lambda coupling, x: coupling(x))
    on_rows = partial(_step, linears, rows, lambda coupling, x: coupling(x))
    zuko_on_rows = partial(_step, zuko, rows, lambda coupling, x: coupling().call_and_ladj(x))
    peers = {
        "nflows, images": (theirs, 0.40),
        "nflows, rows": (on_rows, inf),
        "zuko, rows": (zuko_on_rows, inf),
    }
    clock = partial(time_calls, ours, 3)
    results = [
        compare(f"{name}: ours / {peer}", clock, partial(time_calls, step, 1), repeats, most=goal)
        for peer, (step, goal) in peers.items()
    ]
    if memory:
        return results  # what is held at once is the same
    return [*results, _compare_memory(f"{name}, memory: ours / nflows, images", ours, theirs)]


def _compare_memory(name: str, above: Callable[[], object], below: Callable[[], object]) -> Row:
    mib_above, mib_below = _peak_bytes(above) / 2**20, _peak_bytes(below) / 2**20
    ratio, goal = mib_above / mib_below, f"<= {MAX_MEMORY:g}"
    verdict = "reached" if mib_above <= MAX_MEMORY * mib_below else "MISSED"
    print(
        f"{name:57} {ratio:6.2f}  {mib_above:.4g} / {mib_below:.4g} MiB  goal {goal}: {verdict}",
        flush=True,
    )
    row: Row = {"name": name, "ratio": ratio, "goal": goal}
    row |= {"mib_above": mib_above, "mib_below": mib_below}
    return row | {"threads": torch.get_num_threads(), **MACHINE}


def _game(encoder: str, size: int, batch: int, repeats: int) -> Row:
    flow = FlowSplit(PixelFlow(hidden=8))
    game = Game(flow, 10, task="label", encoder=encoder).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
    crops = parse("crop:0.5")(images, generator)
    labels = torch.arange(batch) % 10
    labels[: 2 * batch // 3] = -1  # a third has labels, as by default
    known = make_batch(batch, {"label": labels})
    views = [view.detach().contiguous() for view in game.split(crops)]
    encoders_only = copy.deepcopy(game)
    encoders_only.split = lambda views: views  # type: ignore[method-assign]
    dtype, enabled = torch.bfloat16, fast_bf16(torch.device("cpu"))

    def step(players: Game, inputs: Sequence[Tensor]) -> None:
        players.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype, enabled=enabled):
            loss = players(inputs, known).loss
        loss.backward()

    whole = partial(time_calls, partial(step, game, crops), 1)
    encoders = partial(time_calls, partial(step, encoders_only, views), 1)
    name = f"game: a round / its encoders, {encoder}, {size} px"
    return compare(name, whole, encoders, repeats, most=1.5)


def main(repeats: PositiveInt = 7, save: bool = False) -> None:
    """Measure the speed and the memory of flows as ratios.

    Args:
        repeats: How often both sides of a ratio are timed; use at least 5 for a stable median.
        save: Whether to write the rows to figures/speed_flow.jsonl beside this script.
    """
    flows = [(depth, additive) for depth in (1, 2) for additive in (True, False)]
    rows = [row for flow in flows for row in _flow(*flow, repeats, "")]
    if allocator.keep_memory():
        rows += [row for flow in flows for row in _flow(*flow, repeats, ", kept")]
    rows += [_game("resnet18", 64, 96, repeats), _game("tiny", 32, 192, repeats)]
    if save:
        files.write_jsonl(Path(__file__).parent / "figures" / "speed_flow.jsonl", rows)


if __name__ == "__main__":
    run_script(main, __doc__, keeps_memory=False)  # it is timed both ways
