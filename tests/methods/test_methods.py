"""Laws over all methods, the contrast against a slow oracle, and two processes that give one process's gradient."""

import math
import sys
from itertools import permutations

import numpy as np
import pytest
import torch
from helpers import launch
from torch import nn

from infomin.common import distributed
from infomin.methods import METHODS, InfoNCE
from infomin.methods.base import Step
from infomin.networks import encoders

SHAPES = {
    "one and two": ((1, 2), False),
    "separate": ((3, 3), False),
    "shared": ((3, 3), True),
    "three": ((1, 1, 1), False),
    "three shared": ((1, 1, 1), True),
}
NAMES = [
    name for name in METHODS if name != "supervised"
]  # which has labels and no critic: see test_supervised.py
LAWS = [(name, *shape) for name in NAMES for shape in SHAPES.values()]
every = pytest.mark.parametrize(
    ("name", "channels", "shared"), LAWS, ids=[f"{m}-{s}" for m in NAMES for s in SHAPES]
)
each_shape = pytest.mark.parametrize(("channels", "shared"), SHAPES.values(), ids=SHAPES)


def build(name, channels, shared, **options):
    torch.manual_seed(0)
    return METHODS[name](channels, width=0.25, shared=shared, dim=8, **options)


def warm(method, channels):
    """The method in eval mode, with batch statistics that are not the initial ones."""
    for _ in range(3):
        method(pictures(channels, 16, seed=7))
    return method.eval()


def pictures(channels, n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, c, 18, 18, generator=generator) for c in channels]


def rows(views, order):
    return [view[order] for view in views]


@every
def test_a_step_is_a_finite_loss_and_detached_numbers(name, channels, shared):
    step = build(name, channels, shared)(pictures(channels), torch.arange(6), {})
    assert (
        isinstance(step, Step)
        and step.loss.shape == ()
        and step.loss.isfinite()
        and step.loss.requires_grad
    )
    assert {"loss", "i_nce"} <= set(step.stats)
    assert all(
        value.shape == () and value.isfinite() and not value.requires_grad
        for value in step.stats.values()
    )


@pytest.mark.parametrize("n", [1, 3])
def test_another_number_of_views_is_an_error(n):
    with pytest.raises(
        ValueError, match=f"InfoNCE: got {n} views, wanted 2; build it with their channels"
    ):
        build("infonce", (1, 1), True)(pictures((1,) * n))


@every
def test_every_parameter_gets_a_gradient(name, channels, shared):
    method = build(name, channels, shared, head="mlp")
    method(pictures(channels)).loss.backward()
    without = [
        where for where, p in method.named_parameters() if p.grad is None or not p.grad.any()
    ]
    assert without == [] and all(p.grad.isfinite().all() for p in method.parameters())


@every
def test_a_batch_is_its_images_one_by_one_in_eval_mode(name, channels, shared):
    method, views = warm(build(name, channels, shared), channels), pictures(channels)
    for read in (method.features, method.embed):
        whole = read(views)
        alone = [
            torch.cat(parts)
            for parts in zip(*(read(rows(views, slice(i, i + 1))) for i in range(6)), strict=True)
        ]
        assert len(whole) == len(channels) and all(h.dim() == 2 and len(h) == 6 for h in whole)
        for a, b in zip(whole, alone, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@every
def test_a_shared_encoder_is_one_and_separate_ones_are_not(name, channels, shared):
    method = build(name, channels, shared)
    alone = sum(p.numel() for p in build(name, channels[:1] * 2, True).parameters())
    several = sum(sum(p.numel() for p in build(name, (c, c), True).parameters()) for c in channels)
    assert sum(p.numel() for p in method.parameters()) == (alone if shared else several)
    if (
        len(set(channels)) == 1
    ):  # the same picture as every view: one encoder cannot tell the places apart, two can
        h = warm(method, channels).features([pictures(channels)[0]] * len(channels))
        assert all(torch.allclose(h[0], other, atol=1e-5) for other in h[1:]) == shared


@every
def test_after_a_step_the_method_can_go_on_and_its_state_comes_back(name, channels, shared):
    method, twin = build(name, channels, shared), build(name, channels, shared)
    method(pictures(channels)).loss.backward()
    method.after_step()
    assert not all(
        torch.equal(a, b)
        for a, b in zip(method.state_dict().values(), twin.state_dict().values(), strict=True)
    )
    twin.load_state_dict(method.state_dict())
    assert torch.equal(
        method(pictures(channels, seed=1)).loss, twin(pictures(channels, seed=1)).loss
    )


@every
def test_autocast_changes_the_arithmetic_and_hardly_the_loss(name, channels, shared):
    method, views = warm(build(name, channels, shared), channels), pictures(channels, 16)
    exact = method(views).loss
    with torch.autocast("cpu", torch.bfloat16):
        rough = method(views).loss
    assert rough.dtype == torch.float32 and rough != exact
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0)


# The cross-view contrast


def oracle(z, tau):
    """I_NCE of embeddings, with numpy and loops: the mean over pairs of views, both directions, and rows."""
    z = [np.asarray(part.detach().double()) for part in z]
    k, found = len(z[0]), []
    for a, b in permutations(range(len(z)), 2):
        for i in range(k):
            scores = [
                z[a][i] @ z[b][j] / np.linalg.norm(z[a][i]) / np.linalg.norm(z[b][j]) / tau
                for j in range(k)
            ]
            found.append(math.log(k) + scores[i] - np.log(np.sum(np.exp(scores))))
    return np.mean(found)


@each_shape
@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
@pytest.mark.parametrize("n", [2, 5, 16])
def test_the_contrast_is_the_mean_over_pairs_and_directions(channels, shared, tau, n):
    method = warm(build("infonce", channels, shared, tau=tau), channels)
    views = pictures(channels, n)
    loss, stats = method(views)
    assert stats["i_nce"].item() == pytest.approx(oracle(method.embed(views), tau), abs=1e-5)
    assert (loss + stats["i_nce"]).item() == pytest.approx(math.log(n), abs=1e-6) and torch.equal(
        loss.detach(), stats["loss"]
    )


@each_shape
def test_i_nce_never_exceeds_its_ceiling_and_perfect_partners_reach_it(channels, shared):
    for tau in (1e-3, 0.1, 10.0):
        method = build("infonce", channels, shared, tau=tau)
        assert method(pictures(channels)).stats["i_nce"] <= math.log(6) + 1e-6
    if shared:  # one encoder that sees one picture: each embedding's partner is itself
        i_nce = build("infonce", channels, True, tau=1e-3)(
            [pictures(channels)[0]] * len(channels)
        ).stats["i_nce"]
        assert i_nce.item() == pytest.approx(math.log(6), abs=1e-3)


@pytest.mark.parametrize("channels", [(3, 3), (1, 1, 1)])
def test_pairs_that_belong_together_beat_the_same_pictures_shuffled(channels):
    method = build("infonce", channels, True)
    views = [pictures(channels)[0]] * len(channels)
    apart = [*views[:-1], views[-1].roll(1, 0)]
    assert method(apart).loss > method(views).loss + 0.5


@pytest.mark.parametrize("channels", [(3, 3), (1, 1, 1)])
def test_the_order_of_views_and_of_images_is_of_no_account(channels):
    method, views = build("infonce", channels, True), pictures(channels)
    want = method(views).loss
    for order in permutations(range(len(channels))):
        torch.testing.assert_close(method([views[i] for i in order]).loss, want, atol=1e-5, rtol=0)
    torch.testing.assert_close(method(rows(views, torch.randperm(6))).loss, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("encoder", "width"), [("tiny", 0.25), ("tiny", 1.0), ("resnet18", 0.25)])
def test_the_encoders_are_those_of_the_name_and_width_and_the_rest_is_given_unless_told(
    encoder, width
):
    method = InfoNCE((1, 2), encoder, width)
    for found, channels in zip(method.encoders, (1, 2), strict=True):
        wanted = encoders.build_encoder(encoder, channels, width)
        assert [p.shape for p in found.parameters()] == [p.shape for p in wanted.parameters()]
    assert method.tau == 0.1 and [head.features for head in method.heads] == [64, 64]


@each_shape
def test_the_embedding_is_the_head_on_the_features(channels, shared):
    views = pictures(channels)
    bare = warm(build("infonce", channels, shared), channels)
    for i, (h, z) in enumerate(zip(bare.features(views), bare.embed(views), strict=True)):
        assert z.shape == (6, 8) and torch.equal(z, bare.heads[0 if shared else i](h))
    torch.manual_seed(0)
    headless = InfoNCE(
        channels, width=0.25, shared=shared, dim=bare.encoders[0].features, head="none"
    ).eval()
    assert all(
        torch.equal(h, z)
        for h, z in zip(headless.features(views), headless.embed(views), strict=True)
    )


def test_what_cannot_be_contrasted_is_refused():
    with pytest.raises(
        ValueError, match="InfoNCE: got a view of 1 part, wanted two or more to contrast; split it"
    ):
        InfoNCE((3,))
    with pytest.raises(
        ValueError,
        match=r"encoders: got views of \(1, 2\) channels, wanted equal ones for a shared encoder",
    ):
        InfoNCE((1, 2), shared=True)
    with pytest.raises(ValueError, match=r"cosine\(tau\): got 0, wanted a finite number above 0"):
        InfoNCE((3, 3), tau=0)(pictures((3, 3)))
    with pytest.raises(
        ValueError, match=r"tiny: images must have the shape \[B, 1, H, W\], got \[6, 2, 18, 18\]"
    ):
        InfoNCE((1, 2))(pictures((2, 1)))


# Two processes. In eval mode the batch statistics, which each process takes over its own images, play no part.

WORLD, ROWS = 2, 4


def gradient(name, channels, shared, part, wrap=lambda method: method):
    method = warm(build(name, channels, shared), channels)
    method.zero_grad()
    wrapped = wrap(method)  # held until the gradient is there: the wrapper's hooks go with it
    loss, stats = wrapped(rows(pictures(channels, WORLD * ROWS, seed=3), part))
    loss.backward()
    grads = torch.cat([p.grad.flatten() for p in method.parameters()])
    return {"loss": loss.detach(), "i_nce": stats["i_nce"], "gradient": grads}


def worker(path):
    distributed.setup_device("cpu")
    own = slice(distributed.rank(), None, WORLD)
    found = {str(law): gradient(*law, own, nn.parallel.DistributedDataParallel) for law in LAWS}
    distributed.leave_processes()
    torch.save(found, path)


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """What two processes find."""
    return launch(__file__, tmp_path_factory.mktemp("methods"), WORLD)


@every
def test_two_processes_give_one_process_s_gradient(findings, name, channels, shared):
    whole = gradient(name, channels, shared, torch.arange(WORLD * ROWS))
    half = gradient(name, channels, shared, torch.arange(0, WORLD * ROWS, WORLD))
    for found in (of[str((name, channels, shared))] for of in findings):
        for what in ("loss", "i_nce", "gradient"):
            torch.testing.assert_close(found[what], whole[what], atol=1e-5, rtol=0)
    assert (whole["gradient"] - half["gradient"]).norm() > 0.1 * whole[
        "gradient"
    ].norm()  # the other half matters


if __name__ == "__main__":
    worker(sys.argv[1])
