"""Cut a set of square patches from a folder of photographs, such as DIV2K, to train on as data folder:OUT.

    python data_tools/patches.py photographs patches --side 256 --per_image 16 --seed 0

Patches are cut at places drawn uniformly, never enlarged: photographs with a side too short are left out and counted. A patch of
photographs/cat/a.jpg becomes patches/train/cat/a.jpg-00.png, or patches/test/… for every fifth photograph of a class: as patches
overlap, a photograph is in one part. A source with a folder train keeps its own. Where a patch lies is a function of the seed and
the photograph's name alone. Cut short, the same command goes on where it was. At the end patches/patches.jsonl has a line for
each: its file, its source, and its box (left, top, right, bottom; px of the upright source).
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
    """Where to cut a photograph: `n` boxes (left, top, right, bottom), uniform among those inside it; none if it is too small.

    >>> boxes(300, 256, 256, 1, "a.jpg") == boxes(300, 256, 256, 1, "a.jpg"), boxes(300, 255, 256, 1, "a.jpg")
    (True, [])
    """
    if min(width, height) < side:
        return []
    draws = seeded_generator(seed, "patches", name)
    corners = zip(
        *(
            torch.randint(room - side + 1, (n,), generator=draws).tolist()
            for room in (width, height)
        ),
        strict=True,
    )
    return [[left, top, left + side, top + side] for left, top in corners]


def parts(names: Sequence[str]) -> dict[str, str]:
    """Which part a photograph is in, by its name: every fifth of each class is the test, the last one of fewer.

    >>> parts(["cat/a.jpg", "cat/b.jpg", "dog/c.jpg"])
    {'cat/a.jpg': 'train/', 'cat/b.jpg': 'test/', 'dog/c.jpg': 'train/'}
    """
    classes: dict[str, list[str]] = {}
    for name in names:
        classes.setdefault(name.rpartition("/")[0].partition("/")[0], []).append(name)
    found = {}
    for of_class in classes.values():
        last = min(5, len(of_class)) - 1
        found |= {
            name: "test/" if last and i % 5 == last else "train/" for i, name in enumerate(of_class)
        }
    return found


def cut(
    source: Path, name: str, out: Path, side: int, n: int, seed: int, ending: str, part: str = ""
) -> tuple[str, list[dict[str, Any]]]:
    """Write the patches of a photograph that are not there yet.

    Args:
        source: folder of photographs.
        name: of this one in it.
        out: folder of patches.
        side: of a patch in pixels.
        n: patches of a photograph.
        seed: of the places.
        ending: `png` or `jpg`.
        part: folder in `out` that it is for, ending in a slash.

    Returns:
        `cut`, `there` (all were), `too small` or `unreadable`; and a row for each patch.
    """
    try:
        rows: list[dict[str, Any]] = [
            {"file": f"{part}{name}-{i:02d}.{ending}", "source": name, "box": box}
            for i, box in enumerate(boxes(*image_size(source / name), side, n, name, seed))
        ]
        todo = [row for row in rows if not (out / row["file"]).exists()]
        photograph = read_upright(source / name) if todo else None
    except Exception:  # on bytes that are no image decoders raise whatever they like
        return "unreadable", []
    if photograph is None:
        return "there" if rows else "too small", rows
    for row in todo:
        with files.atomic_write(out / row["file"]) as file:
            photograph.crop(row["box"]).save(
                file, Image.registered_extensions()[f".{ending}"], quality=QUALITY
            )
    return "cut", rows


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # interrupted, the rest is left


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
        source: Folder of photographs, with folders in it or without.
        out: Folder for the patches.
        side: Side of a patch in pixels.
        per_image: Patches of a photograph.
        seed: Seed of the places.
        kind: What patches are written as: png, or jpg of quality 95.
    """
    (
        check_positive(side, "side"),
        check_positive(per_image, "per_image"),
        check_positive(seed, "seed", zero=True),
    )
    folder, to = (Path(os.path.expanduser(path)) for path in (source, out))
    if not folder.is_dir():
        raise FileNotFoundError(
            f"source: got no folder {folder}, wanted one with photographs; correct the path"
        )
    names = [
        Path(path).relative_to(folder).as_posix()
        for path in find_images(folder, [os.path.realpath(to)])
    ]
    if not names:
        raise ValueError(
            f"source: got no image files in {folder}, wanted photographs; correct the path"
        )
    part = {} if (folder / "train").is_dir() else parts(names)
    photographs = files.key({name: os.stat(folder / name).st_size for name in names})
    settings = {
        "side": side,
        "per_image": per_image,
        "seed": seed,
        "kind": kind,
        "photographs": photographs,
    }
    if (to / "settings.json").exists() and (
        was := files.read_json(to / "settings.json")
    ) != settings:
        raise ValueError(
            f"out: got {settings}, but {to} holds patches of {was}; choose another folder or delete that one"
        )
    files.write_json(to / "settings.json", settings)
    with _pool() as pool:
        jobs = pool.map(
            lambda name: cut(folder, name, to, side, per_image, seed, kind, part.get(name, "")),
            names,
        )
        done = list(zip(names, tqdm(jobs, total=len(names), unit="photo"), strict=True))
    files.write_jsonl(to / "patches.jsonl", (row for _, (_, rows) in done for row in rows))
    for name in (name for name, (what, _) in done if what == "unreadable"):
        print(f"{folder / name}: cannot be read; left out", file=sys.stderr)
    count = Counter(what for _, (what, _) in done)
    print(
        ", ".join(
            f"{count[what]} {what}"
            for what in ("cut", "there", "too small", "unreadable")
            if count[what]
        )
        + f"; {to}"
    )


if __name__ == "__main__":
    run_script(main, __doc__)
