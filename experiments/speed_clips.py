"""Speed of Colorful Moving-MNIST, as ratios against a step-by-step simulation and a plain copy.

    python experiments/speed_clips.py          # 1 minute on 2 cores

It needs no GPU and no download, but 3 GB of scratch space for a moment; speed.py explains how it is
timed. First a data set of 10,000 clips is written to disk: clips per second, and the peak memory
after a quarter of them and after all.

Then 256 clips of 20 frames of 64 px are rendered as bytes, with a digit of 28 px in each, and
compared over ours with two things. A plain numpy simulation, clip by clip and frame by frame, which
moves a digit, reflects it at the borders, puts its ink on an empty canvas and blends that with the
background (goal at least 100). And the time this machine takes to copy as many bytes (goal at least
0.25), into new memory, where ours go too, and into memory that was used before. All of it twice: as
a process begins, and where it keeps the memory it frees (infomin.common.allocator), as our runs do,
so that new memory was used before.

Missed on 2 cores (figures/speed_clips.jsonl): 100 times the simulation, which would be faster than
copying the frames; ours is 4 and 9 times as fast. And a quarter of the copy into used memory (0.1,
and 0.2 where memory is kept), because a digit's pixels pass through a dozen torch operations, each
at best a copy.
"""

import resource
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from speed import MACHINE, Row, compare, time_calls

from infomin.common import allocator, files
from infomin.data import shards
from infomin.data.moving_mnist import Clips, draw_clips, render_clips
from infomin.data.sources import load_worlds
from infomin.experiment import run_script

CLIPS, FRAMES, SIZE = 256, 20, 64


def simulate(clips: Clips, frames: int = FRAMES) -> np.ndarray:
    """Simulate the clips step by step: uint8 `[B, T, 3, size, size]`."""
    world = clips.world
    free = world.size - world.digits.shape[1]  # largest position of a digit's corner
    digits, backgrounds = world.digits.numpy(), world.backgrounds.numpy()
    result = np.empty((len(clips), frames, 3, world.size, world.size), np.uint8)
    for n in range(len(clips)):
        y, x = clips.crop[n].tolist()
        photograph = backgrounds[clips.background_image[n]]
        crop = photograph[:, y : y + world.size, x : x + world.size]
        background = crop / 255 * world.dim
        digit = digits[clips.digit_image[n, 0]]
        position = clips.start[n, 0].numpy().copy()
        velocity = clips.velocity[n, 0].numpy().copy()
        for t in range(frames):
            top, left = position.round().astype(int)
            ink = np.zeros((world.size, world.size))
            ink[top : top + len(digit), left : left + digit.shape[1]] = digit / 255
            result[n, t] = np.rint((background * (1 - ink) + ink) * 255)
            position += velocity
            velocity = np.where((position < 0) | (position > free), -velocity, velocity)
            reflected = np.where(position > free, 2 * free - position, position)
            position = np.where(position < 0, -position, reflected)
    return result


def _render(repeats: int, memory: str) -> list[Row]:
    clips = draw_clips(load_worlds(size=SIZE)[0], CLIPS, seed=0)
    render = partial(render_clips, clips, range(FRAMES), dtype=torch.uint8)
    frames = render()
    difference = frames.int() - torch.from_numpy(simulate(clips)).int()
    levels = int(difference.abs().max())
    if levels > 1:  # float64 may round a tie between two levels the other way
        raise RuntimeError(f"the simulation renders other pixels, by up to {levels} levels")
    used = torch.empty_like(frames)
    simulation = partial(time_calls, partial(simulate, clips), 1)
    new_copy = partial(time_calls, frames.clone, 5)
    used_copy = partial(time_calls, partial(used.copy_, frames), 5)
    sides = {
        "step by step": (simulation, 100),
        "copy into new memory": (new_copy, 0.25),
        "copy into used memory": (used_copy, 0.25),
    }
    ours = partial(time_calls, render, 5)
    rows = []
    for name, (theirs, goal) in sides.items():
        row = compare(f"render{memory}: {name} / ours", theirs, ours, repeats, least=goal)
        row["frames_per_s_ours"] = 1e3 * CLIPS * FRAMES / row["ms_below"]
        rows.append(row)
    print(f"  ours {rows[-1]['frames_per_s_ours']:.0f} frames/s")
    return rows


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _write() -> Row:
    with TemporaryDirectory() as folder:
        shards.write(f"{folder}/quarter", clips=2_500, bar=True)
        mib_after_quarter, start = _peak_mib(), perf_counter()
        shards.write(f"{folder}/all", clips=10_000, bar=True)
        seconds = perf_counter() - start
        size = sum(file.stat().st_size for file in Path(folder, "all").iterdir())
    row: Row = {"name": "write 10,000 clips", "clips_per_s": 10_000 / seconds, "bytes": size}
    row |= {"mib_after_2500": mib_after_quarter, "mib_after_10000": _peak_mib()}
    row |= {"threads": torch.get_num_threads(), **MACHINE}
    print(f"write 10,000 clips, {size / 1e9:.2f} GB: {row['clips_per_s']:.0f} clips/s")
    print(f"  peak memory {row['mib_after_10000']:.0f} MiB, {mib_after_quarter:.0f} after 2,500")
    return row


def main(repeats: PositiveInt = 7, save: bool = False) -> None:
    """Measure the speed of the clip generator as ratios.

    Args:
        repeats: How often both sides of a ratio are timed; use at least 5 for a stable median.
        save: Whether to write the rows to figures/speed_clips.jsonl beside this script.
    """
    rows = [_write(), *_render(repeats, "")]  # writing first, because it measures peak memory
    if allocator.keep_memory():
        rows += _render(repeats, ", kept")
    if save:
        files.write_jsonl(Path(__file__).parent / "figures" / "speed_clips.jsonl", rows)


if __name__ == "__main__":
    run_script(main, __doc__, keeps_memory=False)  # it is timed both ways
