"""How close is I_NCE to the truth? Views that share a known number of nats (InfoMin).

    python experiments/known_nats.py                             # 5 minutes on 2 cores
    python experiments/known_nats.py --save experiments/figures  # also saves rows and figure

The budget is that of the demo; nothing is downloaded. I_NCE is limited by log K, by what the
probe's critic can use, and by what the encoders kept. So expect a gap, which measures how far
training has come. The shared factors: the digit's column among three (1.10 nats), its position
among nine (2.20 nats), its position and the class modulo 2 (2.89 nats), the class modulo 3 (1.09
nats) and the class (2.30 nats).

Measured: within 5 % of the truth where a position is shared; 17 % and 27 % below it for the class
and the class modulo 3, which are harder to read from handwriting that was not in training.
"""

from pathlib import Path

import pandas as pd

from infomin import sweep
from infomin.common import files
from infomin.experiment import recipes, run_script
from infomin.report import plots
from infomin.report.summary import summarise
from infomin.runs.presets import U_CURVE

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
    """Compare I_NCE with known information.

    Args:
        preset: Budget: tiny is a smoke test, quick draws the figure.
        out: Folder of runs; run the same command again to resume.
        jobs: Runs in parallel; 0 means one per core. Another number may change the last
            digits of a row, by rounding.
        save: Folder that also gets known_nats.jsonl and known_nats.png.
    """
    rows = sweep(recipes(U_CURVE, preset, views=VIEWS), out, jobs=jobs)
    table = summarise(pd.DataFrame(rows), "view", ["true_nats", "i_nce"])
    table["share of the truth"] = table["i_nce_mean"] / table["true_nats_mean"]
    print(table.to_string(index=False, float_format="%.3f"))
    plots.calibration(rows, Path(out) / "known_nats.png")
    if save:
        files.write_jsonl(Path(save) / "known_nats.jsonl", rows)
        plots.calibration(rows, Path(save) / "known_nats.png")


if __name__ == "__main__":
    run_script(main, __doc__)
