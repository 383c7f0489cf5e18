"""Write a data set of Colorful Moving-MNIST clips, verify it, or preview its first clips.

    python data_tools/moving_mnist.py clips --clips 10000 --seed 0
    python data_tools/moving_mnist.py test_clips --part test --digits idx:fashion \\
        --backgrounds folder:photographs
    python data_tools/moving_mnist.py clips --verify true
    python data_tools/moving_mnist.py clips --preview clips.gif

10,000 clips of 20 frames of 64 px are 2.5 GB on disk; memory is that of a few shards of 500 clips,
for any number of clips. If interrupted, the same command resumes and ends with the same bytes; run
again, it replaces missing and damaged shards. infomin.shards.ClipShards, a
torch.utils.data.Dataset, reads the result. Exit status: 0 on success, 1 if verification finds a
problem, 2 for a mistake, 130 if interrupted.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from infomin.data import shards
from infomin.experiment import run_script

SHOWN = 8  # clips in a preview


def main(out: str, *, verify: bool = False, preview: str = "", **settings: Any) -> int:
    """Write clips of handwritten digits that move over photographs.

    Args:
        out: Folder of the data set.
        verify: Write nothing; compare the checksums of the data set. Other settings are ignored.
        preview: Write only a picture of the first clips, a .gif that moves or a .png of all frames;
            of the data set if it exists, otherwise of the one that would be written.
        settings: As for `shards.write`.
    """
    if verify:
        problems = shards.verify(out, bar=True)
        print("\n".join(problems) or f"{out}: complete")
        return 1 if problems else 0
    if preview:
        _preview(out, preview, settings)
        print(preview)
        return 0
    written = shards.write(out, bar=True, **settings)
    config = shards.ClipShards(out).config
    total = -(-config["clips"] // config["shard"])
    print(f"{len(written)} shards written, {total - len(written)} already there; {out}")
    return 0


def _preview(out: str, picture: str, settings: dict[str, Any]) -> None:
    if (Path(out) / shards.MANIFEST).exists():
        shards.preview(out, picture, SHOWN)
        return
    clips = min(SHOWN, settings.get("clips", SHOWN))
    with TemporaryDirectory() as scratch:
        shards.write(scratch, **{**settings, "clips": clips})
        shards.preview(scratch, picture, SHOWN)


if __name__ == "__main__":
    run_script(main, __doc__)
