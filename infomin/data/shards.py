"""Colorful Moving-MNIST on disk: clips written once, in shards that can be verified and resumed, and read by any loader.

A folder holds `manifest.json` and shards `00000.safetensors`, …. A shard is a function of the configuration and its own number,
so neither order nor interruption changes a byte. The manifest is there before the first shard and says after each one what its
checksum is: a shard of which it says nothing was cut short, or never begun, and is made again.
"""

import hashlib
import json
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.utils import make_grid
from tqdm import tqdm

from ..common.checkpoint import fingerprint
from ..common.checks import check_choice, check_positive, check_type
from ..common.files import PathLike, atomic_write, lock, write_json
from ..version import __version__
from .moving_mnist import draw_clips, positions, render_clips
from .scenes import World
from .sources import load_worlds

MANIFEST, FORMAT, VERSION = (
    "manifest.json",
    "infomin.ClipShards",
    1,
)  # a new version whenever other bytes would be written
FIRST_CLIP = {
    "train": 0,
    "test": 2**46,
}  # numbers of their first clips in the sequence of a seed: they share no path either
AGAIN = "run the command that wrote it again, which makes anew what is missing or damaged"


def write(
    folder: PathLike,
    *,
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
    bar: bool = False,
) -> list[str]:
    """Write a data set of clips, or what a folder lacks of it: missing, damaged and unfinished shards.

    A shard holds `frames`, uint8 `[n, T, 3, size, size]`; `positions`, float32 `[n, T, D, 2]`, top-left corners (y, x) in pixels;
    and the factors of `moving_mnist.Clips` by their names. Memory is that of a few shards, 250 kB a clip as it is by default.

    Args:
        folder: For this data set alone; made if missing.
        clips: How many clips there are, 1 or more.
        shard: Clips of a shard, 1 or more; the last may have fewer.
        frames: Frames of a clip (T), 1 or more.
        size: Side of the canvas in pixels, as in `sources.load_worlds`.
        digit: Side of a digit in pixels.
        speed: How far a digit moves from frame to frame, in canvases, 0 or more.
        digits_per_clip: How many digits move in a clip (D), 1 to 8191.
        dim: Brightness of the background, 0 to 1.
        seed: Seed of all that is drawn, 0 or more.
        part: The part, train or test; they share no picture and no path.
        digits: What moves: digits, mnist, fashion, emnist:SPLIT, idx:PATH or folder:PATH, see `sources.load_worlds`.
        backgrounds: What is behind: photos, stl10 or folder:PATH.
        bar: Show progress and the time left.

    Returns:
        the names of the shards that were made now.

    Raises:
        ValueError: a number or word out of range, or a folder that holds another configuration.
        FileNotFoundError: pictures are missing.
        Locked: somebody else writes there.
        OSError: the disk is full or cannot be written; what is there stays, and the same call goes on.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(folder, clips=5, shard=3, frames=2, size=16, digit=8)
    ...     write(folder, clips=5, shard=3, frames=2, size=16, digit=8), verify(folder)
    ['00000.safetensors', '00001.safetensors']
    ([], [])
    """
    config = {
        name: value for name, value in locals().items() if name not in ("folder", "bar")
    }  # all that a byte depends on
    for name in ("clips", "shard", "frames", "digits_per_clip", "seed"):
        check_type(config[name], int, f"write({name})")
        check_positive(config[name], f"write({name})", zero=name == "seed")
    config |= {
        name: float(check_positive(config[name], f"write({name})", zero=True))
        for name in ("speed", "dim")
    }
    check_choice(part, FIRST_CLIP, "write(part)")
    world = load_worlds(digits, backgrounds, size, digit, dim)[part == "test"]
    draw_clips(world, 0, seed, digits=digits_per_clip)  # fails before the folder is made
    with lock(folder):
        return _complete(Path(folder), _begun(Path(folder), config, world), world, bar)


def verify(folder: PathLike, bar: bool = False) -> list[str]:
    """Read every byte of a data set and compare checksums.

    Args:
        folder: that `write` wrote.
        bar: show progress.

    Returns:
        a sentence for each shard that is missing, damaged, unfinished or not of this data set; none if all is as it was written.

    Raises:
        FileNotFoundError: no manifest.
        ValueError: a damaged manifest, or one of another version.
    """
    where, facts = Path(folder), _manifest(folder)
    names = _names(facts["config"])
    said = [
        _wrong(where / name, facts["shards"].get(name))
        for name in tqdm(names, unit="shard", disable=not bar)
    ]
    more = sorted(path for path in where.glob("*.safetensors") if path.name not in names)
    strange = [f"{path} is not of this data set; delete it or move it elsewhere" for path in more]
    return [f"{what}; {AGAIN}" for what in said if what] + strange


def preview(folder: PathLike, path: PathLike, clips: int = 8) -> None:
    """Draw the first clips of a data set: side by side as a GIF of 10 frames a second, or a sheet with a row of frames for each.

    Args:
        folder: that `write` wrote.
        path: the picture, `.gif` or `.png`.
        clips: at most so many, 1 or more.

    Raises:
        ValueError: another suffix; or a data set that `ClipShards` does not take.
    """
    suffix = check_choice(Path(path).suffix.lower(), (".gif", ".png"), "preview(path)")
    data, most = ClipShards(folder), int(check_positive(clips, "preview(clips)"))
    frames = torch.stack([data[i][0] for i in range(min(most, len(data)))])
    moments = frames.unbind(1) if suffix == ".gif" else [frames.flatten(0, 1)]
    columns = min(4, len(frames)) if suffix == ".gif" else frames.shape[1]
    grids = [make_grid(images, nrow=columns, padding=2, pad_value=255) for images in moments]
    first, *rest = [Image.fromarray(grid.permute(1, 2, 0).contiguous().numpy()) for grid in grids]
    moving: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": 100, "loop": 0}
    with atomic_write(path) as file:
        first.save(file, suffix[1:], **moving if suffix == ".gif" else {})


class ClipShards(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """The clips of a folder that `write` wrote: item i is its frames, uint8 `[T, 3, size, size]`, and its labels.

    Labels are `digit` long `[D]`, `background` long `[]` and `positions` float32 `[T, D, 2]` in pixels. A shard is mapped when
    the first of its clips is asked for, by each process for itself, and of it only that clip is read. Checksums are not compared
    here: `verify` does that.

    Args:
        folder: the data set, complete.

    Attributes:
        config: the arguments of `write`.
        classes: how many classes of `digit` and of `background` there are.

    Raises:
        FileNotFoundError: no manifest.
        ValueError: a damaged manifest, or shards that are missing, unfinished or of another size than was written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write(folder, clips=5, frames=2, size=16, digit=8)
    ...     ClipShards(folder)[4][0].shape
    torch.Size([2, 3, 16, 16])
    """

    LABELS = ("digit", "background", "positions")

    def __init__(self, folder: PathLike) -> None:
        self.folder, facts = Path(folder), _manifest(folder)
        self.config: dict[str, Any] = facts["config"]
        self.classes: dict[str, int] = facts["classes"]
        self._names = _names(self.config)
        self._open: dict[int, Any] = {}
        paths = [self.folder / name for name in self._names]
        if wrong := [
            what
            for path in paths
            if (what := _wrong(path, facts["shards"].get(path.name), quick=True))
        ]:
            raise ValueError(
                f"got {len(wrong)} of {len(paths)} shards that cannot be read: {', '.join(wrong[:3])}; {AGAIN}"
            )

    def __len__(self) -> int:
        return int(self.config["clips"])

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        at = operator.index(index)
        if not -len(self) <= at < len(self):
            raise IndexError(
                f"ClipShards: got the index {at}, wanted {-len(self)} to {len(self) - 1}; there are no more clips"
            )
        shard, row = divmod(at % len(self), self.config["shard"])
        # Copies: what is cut from the map would take the whole shard along to another process, and hand on what is written to it.
        frames, *labels = (
            self._file(shard).get_slice(name)[row].clone() for name in ("frames", *self.LABELS)
        )
        return frames, dict(zip(self.LABELS, labels, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def _file(self, shard: int) -> Any:
        if shard not in self._open:
            path = self.folder / self._names[shard]
            try:
                self._open[shard] = safe_open(path, "pt")
            except Exception as error:  # what damaged bytes raise is not written down anywhere
                raise ValueError(
                    f"{path}: got a file that cannot be read ({error}), wanted a shard; {AGAIN}"
                ) from error
        return self._open[shard]


def _names(config: Mapping[str, Any]) -> list[str]:
    return [f"{i:05d}.safetensors" for i in range(-(-config["clips"] // config["shard"]))]


def _sealed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says, with its checksum."""
    return {
        **facts,
        "sha256": hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
    }


def _manifest(folder: PathLike) -> dict[str, Any]:
    """What a manifest says, once its own checksum is right."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: got no {MANIFEST}, wanted a data set of clips; correct the path, or write one there"
        )
    try:
        facts: dict[str, Any] = json.loads(path.read_bytes())
        whole = facts.pop("sha256") == _sealed(facts)["sha256"] and facts["format"] == FORMAT
    except (ValueError, TypeError, AttributeError, KeyError):  # no JSON, or of something else
        whole = False
    if not whole:
        raise ValueError(
            f"{path}: got a damaged manifest, or one of something else; delete {folder} and write it anew"
        )
    if facts["version"] != VERSION:
        raise ValueError(
            f"{path}: got version {facts['version']}, wanted {VERSION}; take the infomin that wrote it"
        )
    return facts


def _begun(folder: Path, config: dict[str, Any], world: World) -> dict[str, Any]:
    """The manifest of a folder that is ours to go on with, written if the folder is new."""
    banks = {
        name: getattr(world, name)
        for name in ("digits", "digit_class", "backgrounds", "background_class")
    }
    classes = {name: len(count) for name, count in world.counts.items()}
    new = {
        "format": FORMAT,
        "version": VERSION,
        "infomin": __version__,
        "config": config,
        "classes": classes,
    }
    new |= {"pictures": fingerprint(banks), "shards": {}}
    who, todo = f"write({folder})", "choose another folder or delete that one"
    if not (folder / MANIFEST).exists():
        if any(folder.glob("*.safetensors")):
            raise ValueError(
                f"{who}: got a folder with safetensors files and no {MANIFEST}, wanted a new one; {todo}"
            )
        write_json(folder / MANIFEST, _sealed(new))
        return new
    was = (old := _manifest(folder))["config"]
    other = [
        f"{name} {value!r} for {was.get(name)!r}"
        for name, value in config.items()
        if value != was.get(name)
    ]
    if (
        not other and new["pictures"] != old["pictures"]
    ):  # files that have changed since, or another folder of that name
        other = ["other pictures by the same names, or a processor that scales them otherwise"]
    if other:
        raise ValueError(
            f"{who}: the folder holds another data set, got {', '.join(other)}; {todo}"
        )
    return old


def _wrong(path: Path, wanted: Mapping[str, Any] | None, quick: bool = False) -> str | None:
    """What is wrong with a shard of which the manifest says `wanted`; `quick` looks at its size alone."""
    if wanted is None:
        return f"{path} is not written yet"
    if not path.is_file():
        return f"{path} is missing"
    if (size := path.stat().st_size) != wanted["bytes"]:
        return f"{path} has {size} bytes, not {wanted['bytes']}"
    try:
        with open(path, "rb", buffering=0) as file:
            good = quick or hashlib.file_digest(file, "sha256").hexdigest() == wanted["sha256"]
    except OSError as error:  # a bad place on the disk, or nobody may read it
        return f"{path} cannot be read ({error.strerror})"
    return (
        None
        if good
        else f"{path} has another checksum, so some of its bytes are not those that were written"
    )


def _complete(folder: Path, facts: dict[str, Any], world: World, bar: bool) -> list[str]:
    """Make the shards that are not there as the manifest wants them."""
    config, names = facts["config"], _names(facts["config"])
    todo = [i for i, name in enumerate(names) if _wrong(folder / name, facts["shards"].get(name))]
    lacking = sum(min(config["shard"], config["clips"] - i * config["shard"]) for i in todo)
    with tqdm(
        total=config["clips"], initial=config["clips"] - lacking, unit="clip", disable=not bar
    ) as progress:
        for i in todo:
            n, data = _shard(i, config, world)
            found = {"clips": n, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            if facts["shards"].get(names[i], found) != found:
                raise ValueError(
                    f"{folder / names[i]}: made again it differs; take the infomin and machine that wrote it"
                )
            with atomic_write(folder / names[i]) as file:
                file.write(data)
            facts["shards"] = dict(sorted({**facts["shards"], names[i]: found}.items()))
            write_json(folder / MANIFEST, _sealed(facts))
            progress.update(n)
            del data  # before the next is made
    return [names[i] for i in todo]


def _shard(i: int, config: Mapping[str, Any], world: World) -> tuple[int, bytes]:
    """The number of clips in a shard, and its bytes."""
    first, times = i * config["shard"], range(config["frames"])
    n, start = min(config["shard"], config["clips"] - first), FIRST_CLIP[config["part"]] + first
    clips = draw_clips(
        world,
        n,
        config["seed"],
        first=start,
        digits=config["digits_per_clip"],
        speed=config["speed"],
    )
    tensors = {
        "frames": render_clips(clips, times, dtype=torch.uint8),
        "positions": positions(clips, times).float(),
        **clips.tensors(),
    }
    # one entry, for safetensors puts several in an order that it draws anew each time
    return n, safetensors.torch.save(
        tensors, {FORMAT: json.dumps({"config": config, "shard": i}, sort_keys=True)}
    )
