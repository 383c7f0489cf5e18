"""What tests of the command line share."""

from pathlib import Path

COMMANDS = ("demo", "run", "sweep", "plot", "views")


TINY = {
    "view": "color:lab",
    "steps": 4,
    "batch": 16,
    "size": 24,
    "width": 0.25,
    "dim": 16,
    "candidates": 16,
    "probe_images": 64,
    "precision": "fp32",
    "device": "cpu",
}


SPEED = Path(__file__).parents[2] / "experiments" / "figures" / "speed.jsonl"


AS_TINY = [f"--{name}={value}" for name, value in TINY.items()]
