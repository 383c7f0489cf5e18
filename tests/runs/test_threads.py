"""Runs in threads of one process have the numbers of runs alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_runs import same, tiny

from infomin import Recipe, run, sweep
from infomin.views import VIEWS, View

pytestmark = pytest.mark.usefixtures("one_penalty", "one_core")


class Restless(View):
    """A view with random weights that draws from torch's global generator."""

    channels, readout, bounded = (3, 3), (0, 1), False

    def __init__(self, dial):
        super().__init__()
        self.weights = torch.nn.Conv2d(3, 3, 1)

    def forward(self, images, generator=None):
        images = images / 255
        return images, self.weights(images + torch.rand_like(images))


@pytest.fixture(autouse=True)
def restless(registered):
    registered(VIEWS, "restless", Restless)


DOORS = {
    "run": run,
    "run without a folder": lambda recipe, folder: run(recipe),
    "sweep": lambda recipe, folder: sweep([recipe], folder / str(recipe.seed), jobs=1, bar=False)[
        0
    ],
}


@pytest.mark.parametrize("door", DOORS)
def test_runs_in_threads_are_those_of_runs_alone(tmp_path, door):
    fields = {"data": "photos", "view": "restless:x"}
    alone = [run(tiny(seed=seed, **fields)) for seed in (0, 1)]
    setting = torch.backends.cuda.matmul.fp32_precision
    begin = threading.Barrier(2)

    def carry_out(seed):
        begin.wait()
        return DOORS[door](tiny(seed=seed, **fields), tmp_path)

    with ThreadPoolExecutor(2) as threads:
        rows = list(threads.map(carry_out, (0, 1)))
    assert all(map(same, rows, alone))
    assert torch.backends.cuda.matmul.fp32_precision == setting


def test_a_recipe_draws_nothing_from_the_callers_generator():
    before = torch.get_rng_state()
    assert len(Recipe(view="restless:x").key) == 12
    assert torch.equal(torch.get_rng_state(), before)


def test_a_probe_of_a_view_that_ignores_its_generator_is_that_of_the_seed(tmp_path):
    fields = {"data": "photos", "view": "restless:x"}
    first = run(tiny(**fields))
    torch.rand(7)
    assert same(first, run(tiny(**fields)))
