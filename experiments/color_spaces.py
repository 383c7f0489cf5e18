"""Colour spaces as views: the first channel against the other two, in ten spaces (InfoMin, section 4; CMC).

    python experiments/color_spaces.py                                  # 6 minutes on 2 cores, no download
    python experiments/color_spaces.py --save experiments/figures       # the same, and the committed rows and figure

A linear map of RGB keeps all the information, but splits it otherwise between the channels: R and (G, B) share far more than
luma and chroma do. Expected from the paper: the less the two parts share, the better the features, as long as both show the task;
Lab and YDbDr are near the sweet spot. That was seen on natural photographs; here the task is a white digit over photographs.
"""

from pathlib import Path

from jsonargparse import auto_cli

from infomin import Recipe, grid, plots, sweep, table
from infomin.demo import PRESETS, report
from infomin.views.color import SPACES


def main(
    preset: str = "quick",
    data: str = "digits",
    task: str = "digit",
    out: str = "runs/color_spaces",
    jobs: int = 0,
    save: str = "",
) -> None:
    """Compare colour spaces on embedded data.

    Args:
        preset: Budget: tiny only shows that it runs, quick is the figure.
        data: What is split: digits or photos.
        task: What accuracy is measured on: digit, background or position for digits; background for photos.
        out: Folder of runs; the same command again goes on where it was cut.
        jobs: Processes at a time; 0 means one per core.
        save: Folder to put color_spaces.jsonl and color_spaces.png into as well.
    """
    fields = dict(PRESETS[preset])
    seeds = range(fields.pop("seeds"))
    rows = sweep(
        grid(Recipe(data=data, **fields), seed=seeds, view=[f"color:{space}" for space in SPACES]), out, jobs=jobs or None
    )
    report(rows, out, task)
    if save:
        table.write_rows(Path(save) / "color_spaces.jsonl", rows)
        plots.u_curve(rows, Path(save) / "color_spaces.png", task)


if __name__ == "__main__":
    auto_cli(main)
