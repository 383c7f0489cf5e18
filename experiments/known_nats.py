"""How near is I_NCE to the truth? Views that share a known number of nats, measured with the budget of the demo.

    python experiments/known_nats.py                                  # 3 minutes on 2 cores, no download
    python experiments/known_nats.py --save experiments/figures       # the same, and the committed rows and figure

I_NCE has three limits: log K, what the probe's critic can use, and what the encoders have kept. So a gap is expected, and it
tells how far the training has come. The factors: the digit's column among three (1.10 nats), its place among nine (2.20 nats),
its place and the class modulo 2 (2.89 nats); the class modulo 3 (1.09 nats) and the class (2.30 nats).

Seen: within 5 % of the truth where a place is shared, 17 % and 27 % below it for the class and the class modulo 3, which are
harder to read off handwriting that was not trained on.
"""

from pathlib import Path

import pandas as pd

from infomin import sweep
from infomin.common import files
from infomin.experiment import recipes, run_script
from infomin.report import plots
from infomin.report.summary import summary

VIEWS = (
    "shared:digit%3",
    "shared:position%3",
    "shared:position",
    "shared:digit",
    "shared:position-digit%2",
)


def main(
    preset: str = "quick", out: str = "runs/known_nats", jobs: int = 0, save: str = ""
) -> None:
    """Hold I_NCE against known information.

    Args:
        preset: Budget: tiny only shows that it runs, quick is the figure.
        out: Folder of runs; the same command again goes on where it was cut.
        jobs: Processes at a time; 0 means one per core.
        save: Folder to put known_nats.jsonl and known_nats.png into as well.
    """
    rows = sweep(recipes(preset, VIEWS), out, jobs=jobs)
    at = summary(pd.DataFrame(rows), "view", ["true_nats", "i_nce"])
    at["share of the truth"] = at["i_nce_mean"] / at["true_nats_mean"]
    print(at.to_string(index=False, float_format="%.3f"))
    plots.calibration(rows, Path(out) / "known_nats.png")
    if save:
        files.write_jsonl(Path(save) / "known_nats.jsonl", rows)
        plots.calibration(rows, Path(save) / "known_nats.png")


if __name__ == "__main__":
    run_script(main, __doc__)
