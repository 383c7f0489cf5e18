"""Laws of all methods, InfoNCE against a slow oracle, two processes against one."""

import math
import sys
from itertools import permutations

import numpy as np
import pytest
import torch
from helpers import context, launch
from torch import nn

from infomin.common import distributed
from infomin.methods import METHODS, InfoNCE, Step, build_method
from infomin.networks import encoders
from infomin.training.step import make_batch

SHAPES = {
    "one and two": ((1, 2), False),
    "separate": ((3, 3), False),
    "shared": ((3, 3), True),
    "three": ((1, 1, 1), False),
    "three shared": ((1, 1, 1), True),
}
# Supervised has labels and no critic: see test_supervised.py.
NAMES = [name for name in METHODS if name != "supervised"]
LAWS = [(name, *shape) for name in NAMES for shape in SHAPES.values()]
LAW_IDS = [f"{name}-{shape}" for name in NAMES for shape in SHAPES]
each_law = pytest.mark.parametrize(("name", "channels", "shared"), LAWS, ids=LAW_IDS)
each_shape = pytest.mark.parametrize(("channels", "shared"), SHAPES.values(), ids=SHAPES)


def build(name, channels, shared, **fields):
    torch.manual_seed(0)
    return METHODS[name](context(channels, width=0.25, shared=shared, dim=8, **fields))


def step(method, views):
    return method(views, make_batch(len(views[0])))


def trained_statistics(method, channels):
    """The method in eval mode, with batch-norm statistics that differ from the initial ones."""
    for _ in range(3):
        step(method, random_views(channels, 16, seed=7))
    return method.eval()


def random_views(channels, n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, c, 18, 18, generator=generator) for c in channels]


def select(views, rows):
    return [view[rows] for view in views]


def count_parameters(method):
    return sum(p.numel() for p in method.parameters())


@each_law
def test_a_step_is_a_finite_loss_and_detached_numbers(name, channels, shared):
    result = step(build(name, channels, shared), random_views(channels))
    assert isinstance(result, Step)
    assert result.loss.shape == () and result.loss.isfinite() and result.loss.requires_grad
    assert {"loss", "i_nce"} <= set(result.stats)
    for value in result.stats.values():
        assert value.shape == () and value.isfinite() and not value.requires_grad


@pytest.mark.parametrize("n", [1, 3])
def test_a_wrong_number_of_views_is_an_error(n):
    method = build("infonce", (1, 1), False)
    with pytest.raises(ValueError, match=f"got {n} views, wanted 2"):
        step(method, random_views((1,) * n))


@each_law
def test_every_parameter_gets_a_gradient(name, channels, shared):
    method = build(name, channels, shared, head="mlp")
    step(method, random_views(channels)).loss.backward()
    for parameter_name, p in method.named_parameters():
        assert p.grad is not None and p.grad.any(), parameter_name
        assert p.grad.isfinite().all(), parameter_name


@each_law
def test_in_eval_mode_a_batch_equals_its_images_one_by_one(name, channels, shared):
    method = trained_statistics(build(name, channels, shared), channels)
    views = random_views(channels)
    for extract in (method.features, method.embed):
        batched = extract(views)
        singles = [extract(select(views, slice(i, i + 1))) for i in range(6)]
        assert len(batched) == len(channels)
        for i, h in enumerate(batched):
            assert h.dim() == 2 and len(h) == 6
            stacked = torch.cat([single[i] for single in singles])
            torch.testing.assert_close(h, stacked, atol=1e-5, rtol=1e-5)


@each_law
def test_only_a_shared_encoder_is_the_same_for_all_views(name, channels, shared):
    method = build(name, channels, shared)
    shared_sizes = [count_parameters(build(name, (c, c), True)) for c in channels]
    assert count_parameters(method) == (shared_sizes[0] if shared else sum(shared_sizes))
    if len(set(channels)) == 1:
        # The same images as every view: only separate encoders give different features.
        images = [random_views(channels)[0]] * len(channels)
        h = trained_statistics(method, channels).features(images)
        assert all(torch.allclose(h[0], other, atol=1e-5) for other in h[1:]) == shared


@each_law
def test_the_state_after_a_step_can_be_saved_and_loaded(name, channels, shared):
    method, twin = build(name, channels, shared), build(name, channels, shared)
    step(method, random_views(channels)).loss.backward()
    method.after_step(0)
    states = zip(method.state_dict().values(), twin.state_dict().values(), strict=True)
    assert not all(torch.equal(a, b) for a, b in states)
    twin.load_state_dict(method.state_dict())
    views = random_views(channels, seed=1)
    assert torch.equal(step(method, views).loss, step(twin, views).loss)


@each_law
def test_groups_contain_every_parameter_once(name, channels, shared):
    method = build(name, channels, shared)
    grouped = [id(p) for group in method.groups() for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters())


@each_law
def test_autocast_changes_the_arithmetic_but_hardly_the_loss(name, channels, shared):
    method = trained_statistics(build(name, channels, shared), channels)
    views = random_views(channels, 16)
    exact = step(method, views).loss
    with torch.autocast("cpu", torch.bfloat16):
        rounded = step(method, views).loss
    assert rounded.dtype == torch.float32 and rounded != exact
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0)


# InfoNCE


def oracle(z, tau):
    """I_NCE in numpy and loops: the mean over pairs of views, both directions, and rows."""
    z = [np.asarray(embedding.detach().double()) for embedding in z]
    unit = [embedding / np.linalg.norm(embedding, axis=1, keepdims=True) for embedding in z]
    k = len(z[0])
    values = []
    for a, b in permutations(range(len(z)), 2):
        for i in range(k):
            scores = [unit[a][i] @ unit[b][j] / tau for j in range(k)]
            values.append(math.log(k) + scores[i] - np.log(np.sum(np.exp(scores))))
    return np.mean(values)


@each_shape
@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
@pytest.mark.parametrize("n", [2, 5, 16])
def test_infonce_is_the_mean_over_pairs_and_directions(channels, shared, tau, n):
    method = trained_statistics(build("infonce", channels, shared, tau=tau), channels)
    views = random_views(channels, n)
    loss, stats = step(method, views)
    assert stats["i_nce"].item() == pytest.approx(oracle(method.embed(views), tau), abs=1e-5)
    assert (loss + stats["i_nce"]).item() == pytest.approx(math.log(n), abs=1e-6)
    assert torch.equal(loss.detach(), stats["loss"])


@each_shape
def test_i_nce_never_exceeds_its_ceiling_and_perfect_partners_reach_it(channels, shared):
    views = random_views(channels)
    for tau in (1e-3, 0.1, 10.0):
        method = build("infonce", channels, shared, tau=tau)
        assert step(method, views).stats["i_nce"] <= math.log(6) + 1e-6
    if shared:  # one encoder, the same images as every view: embeddings equal their partners'
        method = build("infonce", channels, True, tau=1e-3)
        i_nce = step(method, [views[0]] * len(channels)).stats["i_nce"]
        assert i_nce.item() == pytest.approx(math.log(6), abs=1e-3)


@pytest.mark.parametrize("channels", [(3, 3), (1, 1, 1)])
def test_matching_pairs_have_a_lower_loss_than_shuffled_ones(channels):
    method = build("infonce", channels, True)
    views = [random_views(channels)[0]] * len(channels)
    shuffled = [*views[:-1], views[-1].roll(1, 0)]
    assert step(method, shuffled).loss > step(method, views).loss + 0.5


@pytest.mark.parametrize("channels", [(3, 3), (1, 1, 1)])
def test_the_order_of_views_and_images_does_not_matter(channels):
    method, views = build("infonce", channels, True), random_views(channels)
    loss = step(method, views).loss
    for order in permutations(range(len(channels))):
        reordered = step(method, [views[i] for i in order]).loss
        torch.testing.assert_close(reordered, loss, atol=1e-5, rtol=0)
    shuffled = step(method, select(views, torch.randperm(6))).loss
    torch.testing.assert_close(shuffled, loss, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("encoder", "width"), [("tiny", 0.25), ("tiny", 1.0), ("resnet18", 0.25)])
def test_encoders_dim_and_tau_are_those_of_the_context(encoder, width):
    method = InfoNCE(context((1, 2), encoder, width, dim=24, tau=0.3))
    for built, channels in zip(method.encoders, (1, 2), strict=True):
        expected = encoders.build_encoder(encoder, channels, width)
        assert [p.shape for p in built.parameters()] == [p.shape for p in expected.parameters()]
    assert method.tau == 0.3 and [head.features for head in method.heads] == [24, 24]


@each_shape
def test_the_embedding_is_the_head_of_the_features(channels, shared):
    views = random_views(channels)
    method = trained_statistics(build("infonce", channels, shared), channels)
    for i, (h, z) in enumerate(zip(method.features(views), method.embed(views), strict=True)):
        assert z.shape == (6, 8) and torch.equal(z, method.heads[0 if shared else i](h))
    features = method.encoders[0].features
    fields = {"width": 0.25, "shared": shared, "dim": features, "head": "none"}
    headless = InfoNCE(context(channels, **fields)).eval()
    for h, z in zip(headless.features(views), headless.embed(views), strict=True):
        assert torch.equal(h, z)


def test_what_cannot_be_contrasted_is_an_error():
    with pytest.raises(ValueError, match="method 'infonce': got 1 view, wanted 2 or more; split"):
        build_method("infonce", context((3,)))
    message = r"encoders: a shared encoder needs .* same number of channels, got \(1, 2\); give"
    with pytest.raises(ValueError, match=message):
        InfoNCE(context((1, 2), shared=True))
    with pytest.raises(ValueError, match=r"cosine\(tau\): got 0, wanted a finite number above 0"):
        step(InfoNCE(context((3, 3), tau=0)), random_views((3, 3)))
    message = r"tiny: images must have the shape \[B, 1, H, W\], got \[6, 2, 18, 18\]"
    with pytest.raises(ValueError, match=message):
        step(InfoNCE(context((1, 2))), random_views((2, 1)))


# Two processes, in eval mode: batch statistics would differ, as each process takes its own.

WORLD, ROWS = 2, 4


def gradient(name, channels, shared, rows, wrap=lambda method: method):
    method = trained_statistics(build(name, channels, shared), channels)
    method.zero_grad()
    wrapped = wrap(method)  # kept alive until backward has run: the wrapper owns the hooks
    views = select(random_views(channels, WORLD * ROWS, seed=3), rows)
    loss, stats = step(wrapped, views)
    loss.backward()
    grads = torch.cat([p.grad.flatten() for p in method.parameters()])
    return {"loss": loss.detach(), "i_nce": stats["i_nce"], "gradient": grads}


def worker(path):
    distributed.setup_device("cpu")
    rows = slice(distributed.rank(), None, WORLD)
    results = {str(law): gradient(*law, rows, nn.parallel.DistributedDataParallel) for law in LAWS}
    distributed.leave_processes()
    torch.save(results, path)


@pytest.fixture(scope="module")
def results_of_two(tmp_path_factory):
    return launch(__file__, tmp_path_factory.mktemp("methods"), WORLD)


@each_law
def test_two_processes_have_the_gradient_of_one(results_of_two, name, channels, shared):
    whole = gradient(name, channels, shared, torch.arange(WORLD * ROWS))
    half = gradient(name, channels, shared, torch.arange(0, WORLD * ROWS, WORLD))
    for results in results_of_two:
        result = results[str((name, channels, shared))]
        for quantity in ("loss", "i_nce", "gradient"):
            torch.testing.assert_close(result[quantity], whole[quantity], atol=1e-5, rtol=0)
    # The other process's images do change the gradient.
    difference = (whole["gradient"] - half["gradient"]).norm()
    assert difference > 0.1 * whole["gradient"].norm()


if __name__ == "__main__":
    worker(sys.argv[1])
