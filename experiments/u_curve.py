"""The inverted U: accuracy against I_NCE as two views share from nothing to everything (InfoMin).

    python experiments/u_curve.py                                  # 6 minutes on 2 cores, no download; the same as `infomin demo`
    python experiments/u_curve.py --save experiments/figures       # the same, and the committed rows and figure

Scenes show a handwritten digit at one of nine places over a photograph. Each view family member shares what the one before it
shares and something more: nothing, the digit's class modulo 2, modulo 5, the class, its place, the photograph, its tile, every
pixel. So the information between the views is known in nats, and the figure holds I_NCE against it. Expected: accuracy on the
digit rises until its class is shared, I(v1; v2) = H(y) = log 10, and falls once backgrounds offer an easier way to the same loss.
"""

from pathlib import Path

from infomin.common import files
from infomin.experiment import TASK, demo, run_script
from infomin.report import plots


def main(preset: str = "quick", out: str = "runs/demo", jobs: int = 0, save: str = "") -> None:
    """Draw the inverted U on embedded data.

    Args:
        preset: Budget: tiny only shows that it runs, quick is the figure.
        out: Folder of runs; the same command again goes on where it was cut.
        jobs: Processes at a time; 0 means one per core.
        save: Folder to put u_curve.jsonl and u_curve.png into as well.
    """
    rows = demo(out, preset, jobs)
    if save:
        files.write_jsonl(Path(save) / "u_curve.jsonl", rows)
        plots.u_curve(rows, Path(save) / "u_curve.png", TASK)


if __name__ == "__main__":
    run_script(main, __doc__)
