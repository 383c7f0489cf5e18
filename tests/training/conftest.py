"""Fixtures of the training tests."""

import pytest

from infomin.training import loop


@pytest.fixture
def save_every_step(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
