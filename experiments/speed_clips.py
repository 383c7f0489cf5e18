"""Speed of Colorful Moving-MNIST, as ratios against a simulation that goes step by step and against copying the bytes.

    python experiments/speed_clips.py          # 1 minute on 2 cores, no GPU, no download; 3 GB of scratch space for a moment

256 clips of 20 frames of 64 px as bytes, a digit of 28 px in each. Over ours: a plain simulation in numpy, clip by clip and frame
by frame, that moves a digit, mirrors it at the borders, puts its ink on an empty canvas and blends that with the background (goal
100 or more). The share of the rate at which this machine copies as many bytes (goal 0.25 or more), into new memory, for that is
where ours go too, and into memory that was used before. All of it twice: as a process begins, and where it keeps the memory that
it frees (infomin.allocator), as our runs do; then new memory was used before.

Before that a data set of 10,000 clips is written to disk: clips a second, and the most memory after a quarter as many and after
all; speed.py explains how it is timed.

Missed on 2 cores (figures/speed_clips.jsonl): 100 times the simulation, which would be faster than copying the frames, ours is 4
and 9 times; and a quarter of the copy into used memory (0.1, and 0.2 where memory is kept), for a digit's pixels pass through a
dozen of torch's operations, each a copy at best.
"""

import resource
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from speed import MACHINE, Row, _compare, _timed

from infomin.common import allocator, files
from infomin.data import shards
from infomin.data.moving_mnist import Clips, draw_clips, render_clips
from infomin.data.sources import load_worlds
from infomin.experiment import run_script

CLIPS, FRAMES, SIZE = 256, 20, 64


def simulate(clips: Clips, frames: int = FRAMES) -> np.ndarray:
    """The clips step by step: uint8 `[B, T, 3, size, size]`."""
    world, room = clips.world, clips.world.size - clips.world.digits.shape[1]
    result = np.empty((len(clips), frames, 3, world.size, world.size), np.uint8)
    digits, backgrounds = world.digits.numpy(), world.backgrounds.numpy()
    for n in range(len(clips)):
        y, x = clips.crop[n].tolist()
        ground = (
            backgrounds[clips.background_image[n], :, y : y + world.size, x : x + world.size]
            / 255
            * world.dim
        )
        place, step = clips.start[n, 0].numpy().copy(), clips.velocity[n, 0].numpy().copy()
        for t in range(frames):
            top, left = place.round().astype(int)
            ink, stamp = np.zeros((world.size, world.size)), digits[clips.digit_image[n, 0]]
            ink[top : top + len(stamp), left : left + stamp.shape[1]] = stamp / 255
            result[n, t] = np.rint((ground * (1 - ink) + ink) * 255)
            place += step
            step = np.where((place < 0) | (place > room), -step, step)
            place = np.where(place < 0, -place, np.where(place > room, 2 * room - place, place))
    return result


def _render(repeats: int, memory: str) -> list[Row]:
    clips = draw_clips(load_worlds(size=SIZE)[0], CLIPS, seed=0)
    made, slow = (
        partial(render_clips, clips, range(FRAMES), dtype=torch.uint8),
        partial(simulate, clips),
    )
    frames, rows = made(), []
    off = int((frames.int() - torch.from_numpy(slow()).int()).abs().max())
    if (
        off > 1
    ):  # half of an odd byte is a tie between two levels, which float64 may round the other way
        raise RuntimeError(f"the simulation paints other pixels, by up to {off} levels")
    ours, into = partial(_timed, made, 5), torch.empty_like(frames)
    sides = {
        "step by step": (partial(_timed, slow, 1), 100),
        "copy into new memory": (partial(_timed, frames.clone, 5), 0.25),
        "copy into used memory": (partial(_timed, partial(into.copy_, frames), 5), 0.25),
    }
    for side, (theirs, goal) in sides.items():
        row = _compare(f"render{memory}: {side} / ours", theirs, ours, repeats, least=goal)
        rows.append(row | {"frames_per_s_ours": 1e3 * CLIPS * FRAMES / row["ms_below"]})
    print(f"  ours {rows[-1]['frames_per_s_ours']:.0f} frames/s")
    return rows


def _most() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _write() -> Row:
    with TemporaryDirectory() as folder:
        shards.write(f"{folder}/quarter", clips=2_500)
        quarter, start = _most(), perf_counter()
        shards.write(f"{folder}/all", clips=10_000)
        seconds = perf_counter() - start
        size = sum(file.stat().st_size for file in Path(folder, "all").iterdir())
    row = {"name": "write 10,000 clips", "clips_per_s": 10_000 / seconds, "bytes": size}
    row |= {
        "mib_after_2500": quarter,
        "mib_after_10000": _most(),
        "threads": torch.get_num_threads(),
        **MACHINE,
    }
    print(
        f"write 10,000 clips, {size / 1e9:.2f} GB: {row['clips_per_s']:.0f} clips/s, at most {row['mib_after_10000']:.0f} MiB;"
    )
    print(f"  after 2,500 clips it was {quarter:.0f} MiB")
    return row


def main(repeats: PositiveInt = 7, save: bool = False) -> None:
    """Measure the speed of the generator of clips as ratios.

    Args:
        repeats: How often both sides of a ratio are timed; 5 or more for a median worth its name.
        save: Whether to write the rows to figures/speed_clips.jsonl beside this script.
    """
    rows = [_write(), *_render(repeats, "")]  # first what counts memory
    if allocator.keep_memory():
        rows += _render(repeats, ", kept")
    if save:
        files.write_jsonl(Path(__file__).parent / "figures" / "speed_clips.jsonl", rows)


if __name__ == "__main__":
    run_script(main, __doc__)
