"""What tests of runs share: a recipe of seconds, and when rows are the same."""

import os

import infomin
from infomin import Recipe

TINY = {
    "steps": 12,
    "batch": 32,
    "candidates": 32,
    "probe_images": 96,
    "width": 0.25,
    "share_encoder": True,
    "precision": "fp32",
    "device": "cpu",
}


def tiny(**fields):
    return Recipe(**TINY | fields)


def same(*rows):
    """Whether rows are equal bit for bit, but for the time they took."""
    first, *others = (
        {name: value for name, value in row.items() if name != "seconds"} for row in rows
    )
    return all(other == first for other in others)


def environment():
    """Of a child process: one thread, loopback, warnings as errors, this copy of the package."""
    given = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    }
    tests = os.path.dirname(os.path.dirname(__file__))
    root = os.path.dirname(os.path.dirname(infomin.__file__))
    return given | {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONWARNINGS": "error",
        "PYTHONPATH": os.pathsep.join([root, tests]),
    }
