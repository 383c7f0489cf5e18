"""Cut square patches from a folder of photographs, such as DIV2K, to train on as data folder:OUT.

    python data_tools/patches.py photographs patches --side 256 --per_image 16 --seed 0

Boxes are uniform and patches never enlarged: photographs that are too small are left out and
counted. A patch of photographs/cat/a.jpg becomes patches/train/cat/a.jpg-00.png; every fifth
photograph of a class goes to patches/test/ instead, because patches of one photograph overlap. A
source with a folder train keeps its own parts. A box depends only on the seed and the photograph's
name. If interrupted, the same command resumes. At the end, patches/patches.jsonl has a line for
each patch: its file, its source, and its box (left, top, right, bottom; px of the upright source).
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from tqdm import tqdm

from infomin.common import files
from infomin.common.checks import check_positive
from infomin.common.seeds import seeded_generator
from infomin.data.image_folder import find_images
from infomin.data.image_io import image_size, read_upright
from infomin.experiment import run_script

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
        `cut`, `there` (nothing was missing), `too small` or `unreadable`; and a row for each patch.
    """
    try:
        width, height = image_size(source / name)
        rows: list[dict[str, Any]] = []
        for i, box in enumerate(boxes(width, height, side, n, name, seed)):
            rows.append({"file": f"{part}{name}-{i:02d}.{ending}", "source": name, "box": box})
        missing = [row for row in rows if not (out / row["file"]).exists()]
        photograph = read_upright(source / name) if missing else None
    except Exception:  # decoders raise anything on bytes that are not an image
        return "unreadable", []
    if photograph is None:
        return "there" if rows else "too small", rows
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


def main(
    source: str,
    out: str,
    side: int = 256,
    per_image: int = 16,
    seed: int = 0,
    kind: Literal["png", "jpg"] = "png",
) -> None:
    """Cut square patches from photographs.

    Args:
        source: Folder of photographs, with or without subfolders.
        out: Folder for the patches.
        side: Side of a patch in pixels.
        per_image: Patches of a photograph.
        seed: Seed of the boxes.
        kind: File format of the patches: png, or jpg of quality 95.
    """
    check_positive(side, "side")
    check_positive(per_image, "per_image")
    check_positive(seed, "seed", zero=True)
    source_folder, out_folder = Path(os.path.expanduser(source)), Path(os.path.expanduser(out))
    names = _photograph_names(source_folder, out_folder)
    sizes = {name: os.stat(source_folder / name).st_size for name in names}
    settings = {
        "side": side,
        "per_image": per_image,
        "seed": seed,
        "kind": kind,
        "photographs": files.hash_json(sizes),
    }
    _claim(out_folder, settings)
    part = {} if (source_folder / "train").is_dir() else parts(names)

    def cut_patches(name: str) -> tuple[str, list[dict[str, Any]]]:
        return cut(source_folder, name, out_folder, side, per_image, seed, kind, part.get(name, ""))

    with _thread_pool() as pool:
        jobs = pool.map(cut_patches, names)
        results = list(tqdm(jobs, total=len(names), unit="photo"))
    rows = (row for _, patch_rows in results for row in patch_rows)
    files.write_jsonl(out_folder / "patches.jsonl", rows)
    for name, (outcome, _) in zip(names, results, strict=True):
        if outcome == "unreadable":
            print(f"{source_folder / name}: cannot be read; left out", file=sys.stderr)
    count = Counter(outcome for outcome, _ in results)
    outcomes = [name for name in ("cut", "there", "too small", "unreadable") if count[name]]
    print(", ".join(f"{count[name]} {name}" for name in outcomes) + f"; {out_folder}")


def _photograph_names(source: Path, out: Path) -> list[str]:
    """Paths of the photographs in `source`, without the patches in `out`."""
    if not source.is_dir():
        raise FileNotFoundError(
            f"source: got no folder {source}, wanted one with photographs; correct the path"
        )
    paths = find_images(source, [os.path.realpath(out)])
    if not paths:
        raise ValueError(
            f"source: got no image files in {source}, wanted photographs; correct the path"
        )
    return [Path(path).relative_to(source).as_posix() for path in paths]


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


if __name__ == "__main__":
    run_script(main, __doc__)
