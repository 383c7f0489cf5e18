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

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from infomin.data import shards
from infomin.experiment import run_script

SHOWN = 8  # clips of a preview


def main(out: str, *, verify: bool = False, preview: str = "", **settings: Any) -> int:
    """Write clips of handwritten digits that move over photographs.

    Args:
        out: Folder of the data set.
        verify: Write nothing, but compare the checksums of what is there; all other settings are read from there.
        preview: Write nothing but a picture of the first clips, a .gif that moves or a .png of all frames; of those that are
            there, or else of those that would be written.
        settings: What `shards.write` takes.
    """
    if verify:
        wrong = shards.verify(out, bar=True)
        print("\n".join(wrong) or f"{out}: whole")
        return 1 if wrong else 0
    if preview:
        with TemporaryDirectory() as scratch:
            there = (Path(out) / shards.MANIFEST).exists()
            if not there:
                few = dict(settings)
                few["clips"] = min(SHOWN, few.get("clips", SHOWN))
                shards.write(scratch, **few)
            shards.preview(out if there else scratch, preview, SHOWN)
        print(preview)
        return 0
    new = shards.write(out, bar=True, **settings)
    config = shards.ClipShards(out).config
    print(
        f"{len(new)} shards made, {-(-config['clips'] // config['shard']) - len(new)} there; {out}"
    )
    return 0


if __name__ == "__main__":
    run_script(main, __doc__)
