"""Fixtures of the tests of measures."""

import pytest

from infomin.measure import estimator


@pytest.fixture
def quick_critic(monkeypatch):
    """A hardly trained critic, for tests that hold however good it is."""
    monkeypatch.setattr(estimator, "CRITIC_STEPS", 120)
    monkeypatch.setattr(estimator, "CRITIC_BATCH", 64)
