"""Fixtures of the tests of the command line."""

import os

import pytest
from tiny_cli import TINY

import infomin
from infomin.__main__ import main


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """One job with one thread, in this very process."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)


@pytest.fixture
def call(capsys):
    """Carry out a command line: exit status, what was printed, what was complained about."""

    def carry_out(*words):
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as left:
            status = left.code or 0
        return status, *capsys.readouterr()

    return carry_out


@pytest.fixture
def asked(monkeypatch):
    """The recipes that commands would carry out, without doing so."""
    recipes = []
    for name, fake in {
        "runs.single.run": lambda recipe, *_, **__: recipes.append(recipe) or {},
        "runs.sweeps.sweep": lambda those, *_, **__: recipes.extend(those) or [],
        "experiment.print_report": lambda *_, **__: None,
    }.items():
        monkeypatch.setattr(f"infomin.{name}", fake)
    return recipes


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A folder of two runs, and the rows."""
    folder = tmp_path_factory.mktemp("rows")
    return folder, [infomin.run(infomin.Recipe(**TINY, seed=seed), folder) for seed in (0, 1)]
