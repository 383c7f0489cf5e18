"""Fixtures of the tests of runs."""

import os

import pytest
from tiny_runs import tiny
from tiny_sweeps import log, numbers

import infomin
from infomin import run
from infomin.common import files
from infomin.measure import probe
from infomin.runs import single
from infomin.training import loop


@pytest.fixture(scope="module")
def one_penalty():
    """The linear probe, tested elsewhere, tries one penalty: four would take most of the time."""
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


@pytest.fixture
def one_core(monkeypatch):
    """One job on one core has one thread, as `run` has in these tests."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)


@pytest.fixture
def trained(monkeypatch):
    """The steps that are taken from here on in this process, by recipe seed."""
    taken = []
    fit, step = single.fit, loop._train_step

    def noted(*args, **settings):
        taken.append([settings["seed"], 0])
        return fit(*args, **settings)

    def counted(*args):
        taken[-1][1] += 1
        return step(*args)

    monkeypatch.setattr(single, "fit", noted)
    monkeypatch.setattr(loop, "_train_step", counted)
    return taken


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """recipe -> what `run` alone, never cut, makes of it: the row without seconds, and the log."""
    folder, known = tmp_path_factory.mktemp("alone"), {}

    def carry_out(recipe):
        if recipe not in known:
            infomin.run(recipe, folder)
            known[recipe] = (
                numbers(files.read_json(folder / recipe.key / "row.json")),
                log(folder, recipe),
            )
        return known[recipe]

    return carry_out
