"""One thread: tests that run side by side share the cores, and every sum has one order."""

import pytest
import torch

from infomin.common.registry import Entry
from infomin.report import panels, plots

torch.set_num_threads(1)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would be saved."""
    figures = []

    def keep(figure, path, **_):
        figure.draw_without_rendering()
        figures.append(figure)
        return path

    for module in (plots, panels):
        monkeypatch.setattr(module, "save_figure", keep)
    return figures


@pytest.fixture
def registered(monkeypatch):
    """Give a view, a method or an encoder a name for the length of a test."""

    def register(registry, name, make):
        monkeypatch.setitem(registry._entries, name, Entry(make, ""))

    return register
