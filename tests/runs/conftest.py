"""Fixtures of the tests of runs."""

import sys

import pytest
from tiny_runs import tiny

from infomin import run
from infomin.measure import probe

single = sys.modules["infomin.runs.single"]  # the name infomin.run is the function's


@pytest.fixture(scope="module")
def one_penalty():
    """The linear probe tries one instead of four: it has tests of its own, and here it would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe.linear, "__defaults__", ((0.1,),))
        yield


@pytest.fixture(scope="module")
def row(one_penalty):
    """The tiny recipe's, nothing being written."""
    return run(tiny())


@pytest.fixture
def untrained(monkeypatch):
    """Training is a mistake."""

    def fail(*_, **__):
        raise AssertionError("trained")

    monkeypatch.setattr(single, "fit", fail)


@pytest.fixture
def handed(monkeypatch):
    """What the loop and the probe are handed, instead of carrying it out."""
    seen = {}

    def fit(method, view, batches, **options):
        seen.update(options, method=method, view=view, batches=batches)
        return iter(())

    def all_of(method, view, train, test, **options):
        seen.update(options, train=train, test=test, probed=options)
        return {}

    monkeypatch.setattr(single, "fit", fit)
    monkeypatch.setattr(single, "evaluate", all_of)
    return seen
