"""The inverted U: accuracy against I_NCE as two views share from nothing to everything (InfoMin).

    python experiments/u_curve.py                             # 6 minutes on 2 cores
    python experiments/u_curve.py --save experiments/figures  # also saves rows and figure

It runs the same sweep as `infomin demo` and downloads nothing. Scenes show a handwritten digit at
one of nine positions over a photograph. Each view shares what the previous one shares and something
more: nothing, the digit's class modulo 2, modulo 5, the class, its position, the photograph, its
tile, every pixel. So the information between the views is known in nats, and the figure shows I_NCE
against it. Expected: accuracy on the digit rises until its class is shared, I(v1; v2) = H(y) =
log 10, and falls once backgrounds offer an easier way to the same loss.
"""

from infomin.experiment import command
from infomin.runs.presets import U_CURVE

if __name__ == "__main__":
    command(U_CURVE, "u_curve", about=__doc__)
