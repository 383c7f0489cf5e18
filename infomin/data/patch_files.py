"""Square patches cut from a folder of photographs, a data set to train on.

A patch of photographs/cat/a.jpg becomes patches/train/cat/a.jpg-00.png; every fifth photograph of a
class goes to patches/test/ instead, because patches of one photograph overlap. A source with a
folder train keeps its own parts. A box depends only on the seed and the photograph's name.
`patches.jsonl` has a line for each patch: its file, its source, and its box (left, top, right,
bottom; px of the upright source).
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from ..common import files
from ..common.checks import check_positive
from ..common.seeds import seeded_generator
from .digests import file_hashes
from .image_folder import TEXTS, count_kinds, list_files
from .image_io import Unreadable, image_size, read_upright

QUALITY = 95  # of JPEG files


def boxes(width: int, height: int, side: int, n: int, name: str, seed: int = 0) -> list[list[int]]:
    """Draw the boxes to cut from a photograph, uniform over all that lie inside it.

    Args:
        width, height: of the photograph in pixels.
        side: of a box in pixels.
        n: number of boxes.
        name: of the photograph, which determines the boxes together with the seed.
        seed: 0 or more.

    Returns:
        `n` boxes (left, top, right, bottom), or none if the photograph is too small.

    >>> boxes(300, 256, 256, 1, "a.jpg") == boxes(300, 256, 256, 1, "a.jpg")
    True
    >>> boxes(300, 255, 256, 1, "a.jpg")
    []
    """
    if min(width, height) < side:
        return []
    generator = seeded_generator(seed, "patches", name)
    lefts = torch.randint(width - side + 1, (n,), generator=generator).tolist()
    tops = torch.randint(height - side + 1, (n,), generator=generator).tolist()
    corners = zip(lefts, tops, strict=True)
    return [[left, top, left + side, top + side] for left, top in corners]


def parts(names: Sequence[str]) -> dict[str, str]:
    """The part of each photograph: every fifth of a class is for the test, or the last of fewer.

    >>> parts(["cat/a.jpg", "cat/b.jpg", "dog/c.jpg"])
    {'cat/a.jpg': 'train/', 'cat/b.jpg': 'test/', 'dog/c.jpg': 'train/'}
    """
    classes: dict[str, list[str]] = {}
    for name in names:
        folder = name.rpartition("/")[0].partition("/")[0]
        classes.setdefault(folder, []).append(name)
    part_of = {}
    for members in classes.values():
        last = min(5, len(members)) - 1
        for i, name in enumerate(members):
            part_of[name] = "test/" if last and i % 5 == last else "train/"
    return part_of


def cut(
    source: Path, name: str, out: Path, side: int, n: int, seed: int, ending: str, part: str = ""
) -> tuple[str, list[dict[str, Any]]]:
    """Write the patches of a photograph that are missing.

    Args:
        source: folder of photographs.
        name: path of this one in it.
        out: folder of patches.
        side: of a patch in pixels.
        n: patches of a photograph.
        seed: of the boxes.
        ending: `png` or `jpg`.
        part: folder in `out` to write to, with a final slash.

    Returns:
        `cut`, `there` (nothing was missing) or `too small`; and a row for each patch.

    Raises:
        Unreadable: the photograph cannot be read.
    """
    width, height = image_size(source / name)
    rows: list[dict[str, Any]] = []
    for i, box in enumerate(boxes(width, height, side, n, name, seed)):
        rows.append({"file": f"{part}{name}-{i:02d}.{ending}", "source": name, "box": box})
    missing = [row for row in rows if not (out / row["file"]).exists()]
    if not missing:
        return "there" if rows else "too small", rows
    photograph = read_upright(source / name)
    image_format = Image.registered_extensions()[f".{ending}"]
    for row in missing:
        with files.atomic_write(out / row["file"]) as file:
            photograph.crop(row["box"]).save(file, image_format, quality=QUALITY)
    return "cut", rows


@contextmanager
def _thread_pool() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the queue


def cut_all(
    source: Path, out: Path, side: int, per_image: int, seed: int, kind: str
) -> tuple[Counter[str], list[str]]:
    """Cut patches from all photographs in a folder, those that are missing in `out`.

    Args:
        source: folder of photographs.
        out: folder of patches.
        side: of a patch in pixels.
        per_image: patches of a photograph.
        seed: of the boxes, 0 or more.
        kind: `png` or `jpg`.

    Returns:
        how many photographs had each outcome of `cut`, or were `unreadable`; and a line for each
        file that was left out.

    Raises:
        ValueError: a number out of range, no photographs, or patches of others in `out`.
        FileNotFoundError: no such folder.
    """
    check_positive(side, "side")
    check_positive(per_image, "per_image")
    check_positive(seed, "seed", zero=True)
    names, others = _photograph_names(source, out)
    paths = [os.path.join(source, name) for name in names]
    settings = {
        "side": side,
        "per_image": per_image,
        "seed": seed,
        "kind": kind,
        "photographs": files.hash_json({"files": file_hashes(source, paths)}),
    }
    _claim(out, settings)
    part = {} if (source / "train").is_dir() else parts(names)
    outcomes: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    left_out = [f"{source}: {count_kinds(others)} left out, no images by name"] if others else []

    def cut_patches(name: str) -> tuple[str, list[dict[str, Any]]]:
        where = part.get(name, "")
        try:
            return cut(source, name, out, side, per_image, seed, kind, where)
        except Unreadable as error:
            left_out.append(f"{source / name}: cannot be read ({error}); left out")
            return "unreadable", []

    with _thread_pool() as pool:
        jobs = pool.map(cut_patches, names)
        for outcome, new_rows in tqdm(jobs, total=len(names), unit="photo"):
            outcomes[outcome] += 1
            rows += new_rows
    files.write_jsonl(out / "patches.jsonl", rows)
    return outcomes, sorted(left_out)


def _photograph_names(source: Path, out: Path) -> tuple[list[str], list[str]]:
    """Photographs in `source` by their paths in it, without patches in `out`; and other files."""
    if not source.is_dir():
        raise FileNotFoundError(
            f"source: got no folder {source}, wanted one with photographs; correct the path"
        )
    paths, others = list_files(source, [os.path.realpath(out)])
    if not paths:
        raise ValueError(
            f"source: got no image files in {source}, wanted photographs; correct the path"
        )
    names = [Path(path).relative_to(source).as_posix() for path in paths]
    return names, [path for path in others if not path.lower().endswith(TEXTS)]


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Store the settings of a folder of patches, or check that they are the stored ones."""
    path = out / "settings.json"
    if path.exists():
        stored = files.read_json(path)
        if stored != settings:
            raise ValueError(
                f"out: got {settings}, but {out} holds patches of {stored}; choose another folder "
                "or delete that one"
            )
    files.write_json(path, settings)
