"""Colorful Moving-MNIST on disk: shards of clips, resumable and verifiable, read by any loader.

A folder holds `manifest.json` and the shards `00000.safetensors`, …. A shard is a function of the
configuration and its own number, so neither order nor interruption changes a byte. The manifest is
written before the first shard and updated with the checksum of each; a shard without a checksum
there is unfinished and is made again.
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
from .sources import load_worlds
from .worlds import World

MANIFEST, FORMAT = "manifest.json", "infomin.ClipShards"
VERSION = 1  # increase it whenever other bytes would be written
# Number of the first clip of each part in the sequence of a seed: parts share no path.
FIRST_CLIP = {"train": 0, "test": 2**46}
REPAIR = "run the command that wrote it again, which replaces missing and damaged shards"


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
    """Write a data set of clips, or the shards of it that are missing, damaged or unfinished.

    A shard holds `frames`, uint8 `[n, T, 3, size, size]`; `positions`, float32 `[n, T, D, 2]`,
    top-left corners (y, x) in pixels; and the factors of `moving_mnist.Clips` by name. Memory is
    that of a few shards, 250 kB a clip by default.

    Args:
        folder: For this data set only; created if missing.
        clips: Number of clips, 1 or more.
        shard: Clips in a shard, 1 or more; the last shard may have fewer.
        frames: Frames of a clip (T), 1 or more.
        size: Side of the canvas in pixels, as in `sources.load_worlds`.
        digit: Side of a digit in pixels.
        speed: Distance that a digit moves from frame to frame, in canvases, 0 or more.
        digits_per_clip: Moving digits in a clip (D), 1 to 8191.
        dim: Brightness of the background, 0 to 1.
        seed: Seed of everything that is drawn, 0 or more.
        part: Which part, train or test; they share no picture and no path.
        digits: What moves: digits, mnist, fashion, emnist:SPLIT, idx:PATH or folder:PATH, see
            `sources.load_worlds`.
        backgrounds: What is behind: photos, stl10 or folder:PATH.
        bar: Show progress and the remaining time.

    Returns:
        the names of the shards that were written by this call.

    Raises:
        ValueError: a number or word out of range, or a folder that holds another configuration.
        FileNotFoundError: pictures are missing.
        Locked: another process writes to the folder.
        OSError: the disk is full or not writable; complete shards stay, and the same call resumes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(folder, clips=5, shard=3, frames=2, size=16, digit=8)
    ...     write(folder, clips=5, shard=3, frames=2, size=16, digit=8), verify(folder)
    ['00000.safetensors', '00001.safetensors']
    ([], [])
    """
    # Everything that a byte depends on.
    config = {name: value for name, value in locals().items() if name not in ("folder", "bar")}
    for name in ("clips", "shard", "frames", "size", "digit", "digits_per_clip", "seed"):
        check_type(config[name], int, f"write({name})")
        config[name] = check_positive(config[name], f"write({name})", zero=name == "seed")
    for name in ("speed", "dim"):
        config[name] = float(check_positive(config[name], f"write({name})", zero=True))
    check_choice(part, FIRST_CLIP, "write(part)")
    train, test = load_worlds(digits, backgrounds, size, digit, dim)
    world = test if part == "test" else train
    draw_clips(world, 0, seed, digits=digits_per_clip)  # fails before the folder is created
    with lock(folder):
        manifest = _open_manifest(Path(folder), config, world)
        return _write_missing(Path(folder), manifest, world, bar)


def verify(folder: PathLike, bar: bool = False) -> list[str]:
    """Read every byte of a data set and compare checksums.

    Args:
        folder: that `write` wrote.
        bar: show progress.

    Returns:
        a sentence for each shard that is missing, damaged, unfinished or does not belong; empty if
        the data set is as it was written.

    Raises:
        FileNotFoundError: no manifest.
        ValueError: a damaged manifest, or one of another version.
    """
    folder, manifest = Path(folder), _read_manifest(folder)
    names = _names(manifest["config"])
    problems = []
    for name in tqdm(names, unit="shard", disable=not bar):
        if problem := _problem(folder / name, manifest["shards"].get(name)):
            problems.append(f"{problem}; {REPAIR}")
    for path in sorted(folder.glob("*.safetensors")):
        if path.name not in names:
            problems.append(f"{path} does not belong to this data set; delete or move it")
    return problems


def preview(folder: PathLike, path: PathLike, clips: int = 8) -> None:
    """Draw the first clips of a data set.

    A GIF plays them side by side at 10 frames a second; a PNG shows each as a row of frames.

    Args:
        folder: that `write` wrote.
        path: the picture, `.gif` or `.png`.
        clips: how many at most, 1 or more.

    Raises:
        ValueError: another suffix, or a data set that `ClipShards` rejects.
    """
    suffix = check_choice(Path(path).suffix.lower(), (".gif", ".png"), "preview(path)")
    moving = suffix == ".gif"
    data, most = ClipShards(folder), int(check_positive(clips, "preview(clips)"))
    frames = torch.stack([data[i][0] for i in range(min(most, len(data)))])
    pages = frames.unbind(1) if moving else [frames.flatten(0, 1)]
    columns = min(4, len(frames)) if moving else frames.shape[1]
    pictures = []
    for images in pages:
        grid = make_grid(images, nrow=columns, padding=2, pad_value=255)
        pictures.append(Image.fromarray(grid.permute(1, 2, 0).contiguous().numpy()))
    first, *rest = pictures
    options: dict[str, Any] = {}
    if moving:
        options = {"save_all": True, "append_images": rest, "duration": 100, "loop": 0}
    with atomic_write(path) as file:
        first.save(file, suffix[1:], **options)


class ClipShards(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """The clips of a folder that `write` wrote, as a torch data set.

    Item i is its frames, uint8 `[T, 3, size, size]`, and its labels: `digit` long `[D]`,
    `background` long `[]` and `positions` float32 `[T, D, 2]` in pixels. Each process maps a shard
    into memory when it first needs one of its clips, and reads only that clip. Checksums are not
    compared here; `verify` does that.

    Args:
        folder: the complete data set.

    Attributes:
        config: the arguments of `write`.
        classes: the number of classes of `digit` and of `background`.

    Raises:
        FileNotFoundError: no manifest.
        ValueError: a damaged manifest, or shards that are missing, unfinished or of another size.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write(folder, clips=5, frames=2, size=16, digit=8)
    ...     ClipShards(folder)[4][0].shape
    torch.Size([2, 3, 16, 16])
    """

    LABELS = ("digit", "background", "positions")

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        manifest = _read_manifest(folder)
        self.config: dict[str, Any] = manifest["config"]
        self.classes: dict[str, int] = manifest["classes"]
        self._names = _names(self.config)
        self._open: dict[int, Any] = {}
        problems = []
        for name in self._names:
            facts = manifest["shards"].get(name)
            if problem := _problem(self.folder / name, facts, size_only=True):
                problems.append(problem)
        if problems:
            raise ValueError(
                f"ClipShards: got {len(problems)} unusable shards of {len(self._names)}: "
                f"{', '.join(problems[:3])}; {REPAIR}"
            )

    def __len__(self) -> int:
        return int(self.config["clips"])

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"ClipShards: got the index {index}, wanted {-len(self)} to {len(self) - 1}"
            )
        shard, row = divmod(index % len(self), self.config["shard"])
        # Cloned: a slice of the map would send the whole shard to another process, and writing to
        # it would change later reads.
        file = self._file(shard)
        frames = file.get_slice("frames")[row].clone()
        return frames, {name: file.get_slice(name)[row].clone() for name in self.LABELS}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def _file(self, shard: int) -> Any:
        if shard not in self._open:
            path = self.folder / self._names[shard]
            try:
                self._open[shard] = safe_open(path, "pt")
            except Exception as error:  # what damaged bytes raise is undocumented
                raise ValueError(
                    f"{path}: got a file that cannot be read ({error}), wanted a shard; {REPAIR}"
                ) from error
        return self._open[shard]


def _names(config: Mapping[str, Any]) -> list[str]:
    count = -(-config["clips"] // config["shard"])
    return [f"{i:05d}.safetensors" for i in range(count)]


def _sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with its own checksum."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return {**manifest, "sha256": digest}


def _read_manifest(folder: PathLike) -> dict[str, Any]:
    """The manifest of a folder, without its checksum, which must be right."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: got no {MANIFEST}, wanted a data set of clips; correct the path, or write "
            "one there"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        checksum = manifest.pop("sha256")
        intact = checksum == _sealed(manifest)["sha256"] and manifest["format"] == FORMAT
    except (ValueError, TypeError, AttributeError, KeyError):  # not JSON, or another structure
        intact = False
    if not intact:
        raise ValueError(
            f"{path}: got a damaged manifest or an unrelated file; delete {folder} and write again"
        )
    if manifest["version"] != VERSION:
        raise ValueError(
            f"{path}: got version {manifest['version']}, wanted {VERSION}; use the infomin version "
            "that wrote it"
        )
    return manifest


def _open_manifest(folder: Path, config: dict[str, Any], world: World) -> dict[str, Any]:
    """The manifest of a folder to write to, created if the folder is new."""
    new = {
        "format": FORMAT,
        "version": VERSION,
        "infomin": __version__,
        "config": config,
        "classes": {name: len(count) for name, count in world.counts.items()},
        "pictures": fingerprint(world.banks()),
        "shards": {},
    }
    who, cure = f"write({folder})", "choose another folder or delete that one"
    if not (folder / MANIFEST).exists():
        if any(folder.glob("*.safetensors")):
            raise ValueError(
                f"{who}: got a folder with safetensors files but no {MANIFEST}; {cure}"
            )
        write_json(folder / MANIFEST, _sealed(new))
        return new
    old = _read_manifest(folder)
    differences = []
    for name, value in config.items():
        old_value = old["config"].get(name)
        if value != old_value:
            differences.append(f"{name} {value!r} for {old_value!r}")
    if not differences and new["pictures"] != old["pictures"]:
        # The files have changed, or the path leads elsewhere now.
        differences = ["other pictures under the same names, or a CPU that scales them differently"]
    if differences:
        raise ValueError(
            f"{who}: the folder holds another data set, got {', '.join(differences)}; {cure}"
        )
    return old


def _problem(path: Path, facts: Mapping[str, Any] | None, size_only: bool = False) -> str | None:
    """What is wrong with a shard, or None.

    Args:
        path: the shard.
        facts: its entry in the manifest, None if there is none.
        size_only: check the size, but not the checksum.
    """
    if facts is None:
        return f"{path} is not written yet"
    if not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    if size != facts["bytes"]:
        return f"{path} has {size} bytes, not {facts['bytes']}"
    try:
        with open(path, "rb", buffering=0) as file:
            if size_only or hashlib.file_digest(file, "sha256").hexdigest() == facts["sha256"]:
                return None
    except OSError as error:  # a bad sector, or no permission
        return f"{path} cannot be read ({error.strerror})"
    return f"{path} has another checksum, so its bytes have changed"


def _write_missing(folder: Path, manifest: dict[str, Any], world: World, bar: bool) -> list[str]:
    """Write the shards that are not as the manifest says; return their names."""
    config, known = manifest["config"], manifest["shards"]
    names = _names(config)
    todo = [i for i, name in enumerate(names) if _problem(folder / name, known.get(name))]
    total = config["clips"]
    done = total - sum(_clips_in_shard(i, config) for i in todo)
    with tqdm(total=total, initial=done, unit="clip", disable=not bar) as progress:
        for i in todo:
            name, data = names[i], _shard(i, config, world)
            facts = {
                "clips": _clips_in_shard(i, config),
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            if manifest["shards"].get(name, facts) != facts:
                raise ValueError(
                    f"{folder / name}: the shard differs from the first time; use the infomin "
                    "version and the machine that wrote it"
                )
            with atomic_write(folder / name) as file:
                file.write(data)
            del data  # before the next is made
            manifest["shards"] = dict(sorted({**manifest["shards"], name: facts}.items()))
            write_json(folder / MANIFEST, _sealed(manifest))
            progress.update(facts["clips"])
    return [names[i] for i in todo]


def _clips_in_shard(i: int, config: Mapping[str, Any]) -> int:
    return int(min(config["shard"], config["clips"] - i * config["shard"]))


def _shard(i: int, config: Mapping[str, Any], world: World) -> bytes:
    """The bytes of a shard."""
    times = range(config["frames"])
    clips = draw_clips(
        world,
        _clips_in_shard(i, config),
        config["seed"],
        first=FIRST_CLIP[config["part"]] + i * config["shard"],
        digits=config["digits_per_clip"],
        speed=config["speed"],
    )
    tensors = {
        "frames": render_clips(clips, times, dtype=torch.uint8),
        "positions": positions(clips, times).float(),
        **clips.tensors(),
    }
    # A single entry, because safetensors writes several in random order.
    metadata = {FORMAT: json.dumps({"config": config, "shard": i}, sort_keys=True)}
    return safetensors.torch.save(tensors, metadata)
