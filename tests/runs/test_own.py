"""Views and methods of one's own, and what a run leaves for further use."""

import math
import re
from dataclasses import asdict

import pytest
import torch
from tiny_runs import TINY, same, tiny

from infomin import Learning, Recipe, data, run, sweep, trained
from infomin.common import files
from infomin.measure import probe
from infomin.methods import METHODS, InfoNCE
from infomin.runs import single
from infomin.views import VIEWS, Augmentation, PixelFlow, View

pytestmark = pytest.mark.usefixtures("one_penalty")


class Own(View):
    """A user's view: the images twice, the second times a number that can be learned."""

    channels, readout = (3, 3), (0, 1)

    def __init__(self, readout=(0, 1)):
        super().__init__()
        self.readout, self.factor = readout, torch.nn.Parameter(torch.ones(()))

    def forward(self, images, generator=None):
        return images / 255, images / 255 * self.factor


def test_what_a_view_can_learn_is_learned_with_the_networks(handed, registered):
    registered(VIEWS, "own", lambda _: Own())
    run(tiny(view="own:x", data="photos"))
    learned = [p for group in handed["optimizer"].param_groups for p in group["params"]]
    assert {id(p) for p in learned} == {
        id(p) for part in ("method", "view") for p in handed[part].parameters()
    }
    assert any(p is handed["view"].factor for p in learned)


@pytest.mark.parametrize("readout", [(), (2,), (0, 5), (-1,)])
def test_a_view_whose_readout_is_none_of_its_views_is_told_before_anything_is_trained(
    untrained, registered, readout
):
    registered(VIEWS, "own", lambda _: Own(readout))
    with pytest.raises(
        ValueError,
        match=r"view 'own:x': channels must be a tuple .*; got channels=\(3, 3\) and readout=",
    ):
        run(tiny(view="own:x", data="photos"))


class Dropping(InfoNCE):
    """A method of a user's own that draws random numbers, as dropout does."""

    def features(self, views):
        return tuple(
            torch.nn.functional.dropout(h, training=self.training) for h in super().features(views)
        )


def test_what_a_method_of_ones_own_draws_is_that_of_the_seed(tmp_path, registered):
    registered(METHODS, "dropping", Dropping)
    rows = [run(tiny(method="dropping")), run(tiny(method="dropping"))]
    rows += [run(tiny()), run(tiny(method="dropping", seed=1))]
    numbers = [[row["i_nce_high"], row["acc_digit"], row["knn_digit"]] for row in rows]
    assert same(*rows[:2]) and numbers[2] != numbers[0] != numbers[3]


class Made(View):
    """A view of a user's, which makes what `made` says of the images of a batch, a float each."""

    channels, readout = (3, 3), (0, 1)

    def __init__(self, dial):
        super().__init__()
        self.made = MADE[dial]

    def forward(self, images, generator=None):
        return self.made(images / 255)


MADE = {
    "tensor": lambda x: x,
    "single": lambda x: (x,),
    "grey": lambda x: (x[:, :1], x),
    "half": lambda x: (x[::2], x[::2]),
    "flat": lambda x: (x.flatten(1), x.flatten(1)),
    "nothing": lambda x: None,
    "list": lambda x: [x, x],
}


@pytest.mark.parametrize(
    ("dial", "found"),
    [
        ("tensor", "Tensor"),
        ("single", "[[2, 3, 32, 32]]"),
        ("grey", "[[2, 1, 32, 32], [2, 3, 32, 32]]"),
        ("half", "[[1, 3, 32, 32], [1, 3, 32, 32]]"),
        ("flat", "[[2, 3072], [2, 3072]]"),
        ("nothing", "NoneType"),
    ],
)
def test_a_view_that_makes_other_than_it_says_is_told_before_the_first_step(
    dial, found, tmp_path, registered
):
    registered(VIEWS, "own", Made)
    with pytest.raises(
        ValueError,
        match=rf"view 'own:{dial}': got {re.escape(found)} of two images, wanted a tuple of",
    ):
        run(Recipe(**TINY, view=f"own:{dial}"), tmp_path)
    assert not list(tmp_path.glob("*/log.jsonl"))


def test_a_view_may_not_write_into_images_nor_give_nats_that_are_no_number(registered):
    registered(
        VIEWS, "own", type("Zero", (Made,), {"forward": lambda s, x, g=None: (x, x.zero_())})
    )
    with pytest.raises(ValueError, match=r"view 'own:list': wrote into its images"):
        run(Recipe(**TINY, view="own:list"))
    for nats in ("1", math.nan, -1.0, torch.ones(())):
        registered(VIEWS, "own", type("Known", (Made,), {"nats": lambda s, batch, nats=nats: nats}))
        with pytest.raises(
            ValueError, match=r"view 'own:list': nats: got .*, wanted a finite number"
        ):
            run(Recipe(**TINY, view="own:list"))


def test_a_view_that_makes_what_it_says_may_give_a_list(registered):
    registered(VIEWS, "own", Made)
    assert run(Recipe(**TINY | {"steps": 2}, view="own:list"))["status"] == "done"


def test_a_view_that_takes_no_generator_is_told_what_it_takes(registered):
    registered(
        VIEWS, "own", type("Alone", (Made,), {"forward": lambda self, images: (images, images)})
    )
    with pytest.raises(
        TypeError,
        match=r"view 'own:list': .*positional arguments.*; its forward takes images and a torch",
    ):
        run(Recipe(**TINY, view="own:list"))


def test_the_view_that_is_handed_out_is_that_of_the_run_and_no_other_at_the_same_path(tmp_path):
    file = tmp_path / "flow.safetensors"
    PixelFlow(hidden=2, seed=1).save(file)
    row = run(tiny(view=f"crop:0.5+flow:{file}", share_encoder=False), tmp_path / "out")
    kept = file.read_bytes()
    PixelFlow(hidden=2, seed=1, space="ydbdr").save(file)
    with pytest.raises(ValueError, match=r"is not that of the run in .*; put that one back"):
        trained(tmp_path / "out" / row["key"])
    file.write_bytes(kept)
    trained(tmp_path / "out" / row["key"])


@pytest.mark.parametrize(
    "fields", [{}, {"method": "supervised"}, {"view": "crop:0.5", "data": "photos"}, {"steps": 0}]
)
def test_the_network_of_a_run_is_handed_out_as_it_was_probed(fields, tmp_path):
    row = run(tiny(**fields), tmp_path)
    method, view = trained(tmp_path / row["key"])
    assert not any(module.training for module in (*method.modules(), *view.modules()))
    parts = [
        single._view_inputs(split, view, tiny(**fields), torch.device("cpu"))
        for split in data.load(row["data"], row["size"])
    ]
    again = probe.evaluate(
        method,
        view,
        *[data.first_rows(part, 96) for part in parts],
        readout=view.readout,
        augments=view.augments,
        candidates=32,
    )
    assert again == {name: row[name] for name in again}
    images = data.load("digits", 32)[1].images[:4]
    if row["view"] == "crop:0.5":
        assert [len(found) for found in method.features(view(images))] == [4, 4]


def test_where_no_run_is_finished_there_is_no_network(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="wanted the folder of a finished run, OUT/KEY"):
        trained(tmp_path)
    row = run(tiny(), tmp_path)
    folder = tmp_path / row["key"]
    files.write_json(folder / "recipe.json", asdict(Learning()))
    with pytest.raises(
        ValueError, match=r"which has a field unknown to a Recipe, .*; views of games are flow:FILE"
    ):
        trained(folder)
    files.write_json(folder / "recipe.json", asdict(tiny(width=0.5)))
    with pytest.raises(
        ValueError,
        match=r"recipe and row differ in width; put the files of the run back",
    ):
        trained(folder)
    files.write_json(folder / "recipe.json", asdict(tiny()))
    del row["row_digest"]  # as an older row
    for status, words in (
        ("done", "default dtype torch.float64, wanted torch as it is"),
        ("diverged", "the run in .* is diverged"),
    ):
        files.write_json(folder / "row.json", row | {"status": status})
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with pytest.raises(ValueError, match=f"trained: .*{words}"):
                trained(folder)
        finally:
            torch.set_default_dtype(before)
    (folder / "row.json").unlink()
    with pytest.raises(FileNotFoundError, match="run it to its end"):
        trained(folder)


class Odd(Own):
    """A view whose weights are random, and which fails as its dial says."""

    def __init__(self, dial):
        super().__init__()
        self.dial, self.weights = dial, torch.nn.Conv2d(3, 3, 1)
        self.beside = {"_more": (2,)} if dial == "beside" else {}
        self.bounded = dial == "range"
        self.tiles = (1,) if dial == "tiles" else ()
        self.digest = 5 if dial == "digest" else ""

    def forward(self, images, generator=None):
        first, second = images / 255, self.weights(images / 255)
        if self.dial == "error":
            raise TypeError("an error inside")
        second = second * (torch.nan if self.dial == "nan" else 1)
        second = second + 2 if self.dial == "range" else second
        second = second.double() if self.dial == "double" else second
        return (first,) if self.dial == "eval" and not self.training else (first, second)


def test_the_weights_of_a_view_are_those_of_the_seed(tmp_path, registered):
    registered(VIEWS, "odd", Odd)
    rows = [run(tiny(view="odd:x", steps=steps), tmp_path) for steps in (0, 2)]
    torch.rand(1)
    assert same(rows[1], run(tiny(view="odd:x", steps=2)))
    views = [trained(tmp_path / rows[0]["key"])[1] for _ in range(2)]
    assert torch.equal(views[0].weights.weight, views[1].weights.weight)


@pytest.mark.parametrize(
    ("dial", "message"),
    [
        ("nan", "view 'odd:nan': got NaN or Inf"),
        ("range", r"view 'odd:range': got values from .* to .*, wanted \[0, 1\], as it is bounded"),
        ("double", r"view 'odd:double': got torch.float64, wanted float32 or uint8"),
        ("tiles", r"view 'odd:tiles': tiles must give the number .*, got \(1,\)"),
        ("error", "^an error inside$"),
        ("digest", "view 'odd:digest': digest must be a str, got 5"),
        ("eval", r"view 'odd:eval' in eval mode: got \[\[2, 3, 32, 32\]\] of two images, wanted"),
        ("beside", r"view 'odd:beside': beside must give .*, got _more=\(2,\)"),
    ],
)
def test_a_view_that_would_fail_later_is_told_before_training(untrained, registered, dial, message):
    registered(VIEWS, "odd", Odd)
    with pytest.raises((TypeError, ValueError), match=message):
        run(tiny(view=f"odd:{dial}"))


class Doubled(Augmentation):
    """An augmentation that leaves [0, 1] and does not say so; those after it would not show it."""

    def draw(self, n, height, width, generator=None):
        return None

    def augment(self, images, draws):
        return (images.float() / 100,)


@pytest.mark.parametrize("view", ["doubled:1+jitter:1", "doubled:1/1+color:lab"])
def test_a_part_of_a_chain_is_tried_too(untrained, registered, view):
    registered(VIEWS, "doubled", lambda dial: Doubled())
    message = r"^views of Doubled: floating-point images must lie in \[0, 1\]"
    with pytest.raises(ValueError, match=message):
        run(tiny(view=view))


class Few(InfoNCE):
    """A method with the features of one view only."""

    def features(self, views):
        return super().features(views)[:1]


def test_a_method_whose_features_are_not_those_of_the_views_is_told_before_training(
    untrained, registered, tmp_path
):
    registered(METHODS, "few", Few)
    with pytest.raises(TypeError, match=r"features: got \[\[2, .*\]\] of 2 views, wanted a tuple"):
        run(tiny(method="few"), tmp_path)
    assert not list(tmp_path.iterdir())


class Restless(InfoNCE):
    """A method that draws after the step, and logs under a name that is taken."""

    def __init__(self, context, *, stat: str = "loss"):
        super().__init__(context)
        self.stat = stat

    def forward(self, views, batch):
        step = super().forward(views, batch)
        return step._replace(stats=step.stats | {self.stat: step.stats["loss"]})

    @torch.no_grad()
    def after_step(self, step):
        for p in self.parameters():
            p.add_(torch.randn_like(p), alpha=0.01)


def test_draws_after_a_step_are_those_of_the_seed_and_columns_keep_their_meaning(registered):
    registered(METHODS, "restless", Restless)
    row = run(tiny(method="restless"))
    torch.rand(1)
    assert same(row, run(tiny(method="restless")))
    with pytest.raises(ValueError, match="stats: got 'rate', the name of a column of the log"):
        run(tiny(method="restless:stat=rate"))


@pytest.mark.parametrize("row", [{}, {"key": "0", "status": "done"}])
def test_a_row_that_is_no_row_of_this_run_is_told(tmp_path, row):
    path = tmp_path / tiny().key / "row.json"
    path.parent.mkdir()
    files.write_json(path, row)
    for door in (lambda: run(tiny(), tmp_path), lambda: sweep([tiny()], tmp_path, bar=False)):
        with pytest.raises(
            ValueError, match=r"row\.json: wanted a row with a status .*; delete it"
        ):
            door()
