"""Two processes give one process's gradient."""

import sys

import pytest
import torch
import torch.distributed as c10d
from helpers import launch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from infomin.common import distributed

WORLD, ROWS = 2, 6


def parts():
    """The network and the batch that every process and the test agree on; a part is `ROWS` rows of each of the two views."""
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(2, WORLD, ROWS, 5, generator=generator)
    net = nn.Linear(5, 4)
    with torch.no_grad():
        net.weight.copy_(torch.randn(4, 5, generator=generator))
        net.bias.zero_()
    return net, views


def loss(z1, z2, tau=0.1):
    """Cross-view InfoNCE, both directions."""
    scores = normalize(z1) @ normalize(z2).T / tau
    target = torch.arange(len(scores))
    return (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2


def gather_detached(z):
    """The usual mistake: the other processes' rows carry no gradient."""
    whole = [torch.empty_like(z) for _ in range(distributed.world_size())]
    c10d.all_gather(whole, z.detach())
    whole[distributed.rank()] = z
    return torch.cat(whole)


def worker(path):
    """What each process does; the findings of each go to a file of its own."""
    out = {"before": (distributed.rank(), distributed.world_size())}
    out["device"] = str(distributed.setup_device("cpu"))
    out["who"] = (distributed.rank(), distributed.world_size(), distributed.is_main_process())
    net, views = parts()
    for name, gather in (("exact", distributed.gather), ("detached", gather_detached)):
        x1, x2 = (view[distributed.rank()].clone().requires_grad_() for view in views)
        ddp = nn.parallel.DistributedDataParallel(net)
        net.zero_grad()
        z = ddp(torch.cat([x1, x2]))
        value = loss(gather(z[:ROWS]), gather(z[ROWS:]))
        value.backward()
        out[name] = {
            "loss": value.detach(),
            "inputs": torch.stack([x1.grad, x2.grad]),
            "weight": net.weight.grad.clone(),
        }
    own = torch.arange(3.0) + 10 * distributed.rank()
    strided = torch.stack([own, own], dim=1).mT.requires_grad_()  # [2, 3], not contiguous
    distributed.gather(
        strided
    ).sum().backward()  # the gradient that comes back is an expanded scalar
    out["gathered"], out["expanded"] = distributed.gather(strided).detach(), strided.grad
    stats = own.clone().requires_grad_()
    out["mean"], out["unchanged"] = distributed.mean_over_processes(stats), stats.detach()
    for name, x in (
        ("rows", torch.zeros(3 + distributed.rank(), 4)),
        ("features", torch.zeros(3, 4 + distributed.rank())),
    ):
        try:
            distributed.gather(x)
        except ValueError as error:
            out[name] = str(error)
    distributed.leave_processes()
    out["after"] = (distributed.rank(), distributed.world_size())
    torch.save(out, path)


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """What two processes find."""
    return launch(__file__, tmp_path_factory.mktemp("dist"), WORLD)


@pytest.fixture(scope="module")
def single():
    """The loss, and the gradients with respect to the inputs and the weight, of one process with the whole batch."""
    net, views = parts()
    x = views.flatten(1, 2).requires_grad_()
    value = loss(*net(x))
    value.backward()
    return {
        "loss": value.detach(),
        "inputs": x.grad.unflatten(1, (WORLD, ROWS)),
        "weight": net.weight.grad,
    }


def test_each_process_knows_who_it_is(findings):
    for rank, found in enumerate(findings):
        assert found["who"] == (rank, WORLD, rank == 0) and found["device"] == "cpu"
        assert found["before"] == found["after"] == (0, 1)


def test_two_processes_give_one_process_s_gradient(findings, single):
    for rank, found in enumerate(findings):
        torch.testing.assert_close(found["exact"]["loss"], single["loss"], atol=1e-6, rtol=0)
        torch.testing.assert_close(
            found["exact"]["inputs"] / WORLD, single["inputs"][:, rank], atol=1e-6, rtol=0
        )
        torch.testing.assert_close(
            found["exact"]["weight"], single["weight"], atol=1e-6, rtol=0
        )  # averaged by DDP


def test_gathering_detached_rows_gives_the_right_loss_and_a_wrong_gradient(findings, single):
    for found in findings:
        torch.testing.assert_close(found["detached"]["loss"], single["loss"], atol=1e-6, rtol=0)
        assert (found["detached"]["weight"] - single["weight"]).norm() > 0.1 * single[
            "weight"
        ].norm()


def test_gather_is_the_concatenation_in_the_order_of_the_ranks(findings):
    want = torch.stack([torch.arange(3.0) + 10 * rank for rank in range(WORLD) for _ in range(2)])
    for found in findings:
        assert torch.equal(found["gathered"], want)
        assert torch.equal(
            found["expanded"], torch.full((2, 3), float(WORLD))
        )  # once from the loss of each process


def test_mean_is_the_average_without_a_gradient(findings):
    for rank, found in enumerate(findings):
        assert torch.equal(found["mean"], torch.arange(3.0) + 5) and not found["mean"].requires_grad
        assert torch.equal(found["unchanged"], torch.arange(3.0) + 10 * rank)


def test_unequal_shapes_are_refused_in_every_process(findings):
    for found in findings:
        assert (
            "got batches of [3, 4] rows of [4, 4] numbers; drop the last incomplete batch"
            in found["rows"]
        )
        assert "got batches of [3, 3] rows of [4, 5] numbers" in found["features"]


def test_one_process_is_the_identity(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    device = distributed.setup_device()
    x = torch.randn(3, 2, requires_grad=True)
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert (distributed.rank(), distributed.world_size(), distributed.is_main_process()) == (
        0,
        1,
        True,
    )
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    assert distributed.sync_batch_norm(layers, torch.device("cuda")) is layers  # with one process
    assert (
        distributed.gather(x) is x
        and torch.equal(distributed.mean_over_processes(x), x)
        and not distributed.mean_over_processes(x).requires_grad
    )
    distributed.leave_processes()


def test_batch_norm_sees_all_processes_where_torch_can(monkeypatch):
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    names = list(layers.state_dict())
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    assert distributed.sync_batch_norm(layers, torch.device("cpu")) is layers
    spread = distributed.sync_batch_norm(layers, torch.device("cuda"))
    assert isinstance(spread[1], torch.nn.SyncBatchNorm) and list(spread.state_dict()) == names


if __name__ == "__main__":
    worker(sys.argv[1])
