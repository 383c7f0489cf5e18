"""Write a data set of Colorful Moving-MNIST clips to disk, verify it, or look at its first clips.

    python data_tools/moving_mnist.py clips --clips 10000 --seed 0
    python data_tools/moving_mnist.py test_clips --part test --digits idx:fashion --backgrounds folder:photographs
    python data_tools/moving_mnist.py clips --verify true
    python data_tools/moving_mnist.py clips --preview clips.gif

10,000 clips of 20 frames of 64 px are 2.5 GB on disk; memory is that of a few shards of 500 clips, however many there are. Cut
short, the same command goes on where it was, and every file ends up the same; run again, it makes shards that are missing or
damaged. What was written is read by infomin.shards.ClipShards, a torch.utils.data.Dataset. Exit status: 0 when all is well, 1
when something is wrong with what is verified, 2 for a mistake, 130 when interrupted.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jsonargparse import auto_cli

from infomin import shards, table

SHOWN = 8  # clips of a preview


def main(
    out: str,
    clips: int = 10_000,
    shard: int = 500,
    frames: int = 20,
    size: int = 64,
    digit: int = 28,
    speed: float = 0.1,
    digits_per_clip: int = 1,
    dim: float = 0.5,
    seed: int = 0,
    part: str = "train",
    digits: str = "digits",
    backgrounds: str = "photos",
    verify: bool = False,
    preview: str = "",
) -> int:
    """Write clips of handwritten digits that move over photographs.

    Args:
        out: Folder of the data set.
        clips: How many clips there are.
        shard: Clips of a file; more take more memory.
        frames: Frames of a clip.
        size: Side of a frame in pixels.
        digit: Side of a digit in pixels.
        speed: How far a digit moves from frame to frame, in sides of a frame.
        digits_per_clip: Digits that move in a clip.
        dim: Brightness of the background, 0 to 1.
        seed: Seed of everything that is drawn.
        part: train or test; they share no picture.
        digits: What moves: digits, mnist, fashion, emnist:SPLIT, idx:PATH (IDX files) or folder:PATH (images).
        backgrounds: What is behind: photos, stl10 or folder:PATH (images).
        verify: Write nothing, but compare the checksums of what is there; all other settings are read from there.
        preview: Write nothing but a picture of the first clips, a .gif that moves or a .png of all frames; of those that are
            there, or else of those that would be written.
    """
    made: dict[str, Any] = {name: value for name, value in locals().items() if name not in ("out", "verify", "preview")}
    if verify:
        wrong = shards.verify(out, bar=True)
        print("\n".join(wrong) or f"{out}: whole")
        return 1 if wrong else 0
    if preview:
        with TemporaryDirectory() as scratch:
            there = (Path(out) / shards.MANIFEST).exists()
            if not there:
                shards.write(scratch, **made | {"clips": min(SHOWN, clips)})
            shards.preview(out if there else scratch, preview, SHOWN)
        print(preview)
        return 0
    new = shards.write(out, **made, bar=True)
    print(f"{len(new)} shards made, {-(-clips // shard) - len(new)} there; {out}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(auto_cli(main))
    except (ValueError, OSError, table.Locked) as error:
        print(f"moving_mnist.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nmoving_mnist.py: stopped; run the same command again to go on where it was cut", file=sys.stderr)
        sys.exit(130)
