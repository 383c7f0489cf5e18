"""What tests of the command line share."""

from pathlib import Path

import errors

TINY = errors.TINY | {"view": "color:lab", "steps": 4}
AS_TINY = [f"--{name}={value}" for name, value in TINY.items()]
SPEED = Path(__file__).parents[2] / "experiments" / "figures" / "speed.jsonl"
