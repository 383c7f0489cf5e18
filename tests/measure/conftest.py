"""Fixtures of the tests of measures."""

import pytest

from infomin.measure import estimator


@pytest.fixture
def quick_critic(monkeypatch):
    """A hardly trained critic, for tests that hold however good it is."""
    monkeypatch.setattr(estimator, "STEPS", (20, 20))
    monkeypatch.setattr(estimator, "BATCH", 64)
