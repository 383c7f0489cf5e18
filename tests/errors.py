"""What tests of errors share."""

import pytest

import infomin
from infomin.common import files

TINY = {
    "steps": 10,
    "batch": 16,
    "size": 24,
    "width": 0.25,
    "dim": 16,
    "candidates": 16,
    "probe_images": 64,
    "precision": "fp32",
    "device": "cpu",
}


RECIPE = infomin.Recipe(**TINY, view="color:lab")


def told(parts, door, *arguments, **settings):
    """The message of the error that a call raises; all parts are in it, in this order."""
    with pytest.raises((ValueError, TypeError, OSError, files.Locked)) as error:
        door(*arguments, **settings)
    message, at = str(error.value), 0
    for part in parts:
        assert part in message[at:], f"{part!r} is missing from, or out of order in: {message}"
        at = message.index(part, at) + len(part)
    return message
