"""Two processes compute the gradient of a single one."""

import sys

import pytest
import torch
import torch.distributed as c10d
from helpers import launch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from infomin.common import distributed

WORLD, ROWS = 2, 6


def make_problem():
    """The network and the views `[2, WORLD, ROWS, 5]` that all processes and the test share."""
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
    """The common mistake: the other processes' rows carry no gradient."""
    gathered = [torch.empty_like(z) for _ in range(distributed.world_size())]
    c10d.all_gather(gathered, z.detach())
    gathered[distributed.rank()] = z
    return torch.cat(gathered)


def worker(path):
    """What each process runs; each saves its results to a file of its own."""
    out = {"before": (distributed.rank(), distributed.world_size())}
    out["device"] = str(distributed.setup_device("cpu"))
    out["during"] = (distributed.rank(), distributed.world_size(), distributed.is_main_process())
    net, views = make_problem()
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
    local = torch.arange(3.0) + 10 * distributed.rank()
    strided = torch.stack([local, local], dim=1).mT.requires_grad_()  # [2, 3], not contiguous
    distributed.gather(strided).sum().backward()  # the incoming gradient is an expanded scalar
    out["gathered"], out["expanded"] = distributed.gather(strided).detach(), strided.grad
    stats = local.clone().requires_grad_()
    out["mean"], out["unchanged"] = distributed.mean_over_processes(stats), stats.detach()
    unequal = {
        "rows": torch.zeros(3 + distributed.rank(), 4),
        "features": torch.zeros(3, 4 + distributed.rank()),
    }
    for name, x in unequal.items():
        try:
            distributed.gather(x)
        except ValueError as error:
            out[name] = str(error)
    distributed.leave_processes()
    out["after"] = (distributed.rank(), distributed.world_size())
    torch.save(out, path)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of two processes."""
    return launch(__file__, tmp_path_factory.mktemp("dist"), WORLD)


@pytest.fixture(scope="module")
def single():
    """Loss and gradients of inputs and weight in one process with the whole batch."""
    net, views = make_problem()
    x = views.flatten(1, 2).requires_grad_()
    value = loss(*net(x))
    value.backward()
    return {
        "loss": value.detach(),
        "inputs": x.grad.unflatten(1, (WORLD, ROWS)),
        "weight": net.weight.grad,
    }


def test_each_process_knows_its_rank(results):
    for rank, result in enumerate(results):
        assert result["during"] == (rank, WORLD, rank == 0) and result["device"] == "cpu"
        assert result["before"] == result["after"] == (0, 1)


def test_two_processes_compute_the_gradient_of_one(results, single):
    for rank, result in enumerate(results):
        exact = result["exact"]
        close = {"atol": 1e-6, "rtol": 0}
        torch.testing.assert_close(exact["loss"], single["loss"], **close)
        torch.testing.assert_close(exact["inputs"] / WORLD, single["inputs"][:, rank], **close)
        torch.testing.assert_close(exact["weight"], single["weight"], **close)  # averaged by DDP


def test_gathering_detached_rows_gives_the_right_loss_and_a_wrong_gradient(results, single):
    for result in results:
        detached = result["detached"]
        torch.testing.assert_close(detached["loss"], single["loss"], atol=1e-6, rtol=0)
        error = (detached["weight"] - single["weight"]).norm()
        assert error > 0.1 * single["weight"].norm()


def test_gather_concatenates_in_rank_order(results):
    want = torch.stack([torch.arange(3.0) + 10 * rank for rank in range(WORLD) for _ in range(2)])
    for result in results:
        assert torch.equal(result["gathered"], want)
        # once from the loss of each process
        assert torch.equal(result["expanded"], torch.full((2, 3), float(WORLD)))


def test_mean_is_the_average_without_a_gradient(results):
    for rank, result in enumerate(results):
        mean = result["mean"]
        assert torch.equal(mean, torch.arange(3.0) + 5) and not mean.requires_grad
        assert torch.equal(result["unchanged"], torch.arange(3.0) + 10 * rank)


def test_unequal_shapes_are_refused_in_every_process(results):
    rows = "got batches of [3, 4] rows of [4, 4] values; drop the last incomplete batch"
    for result in results:
        assert rows in result["rows"]
        assert "got batches of [3, 3] rows of [4, 5] values" in result["features"]


def test_one_process_is_the_identity(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    device = distributed.setup_device()
    x = torch.randn(3, 2, requires_grad=True)
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert distributed.rank() == 0 and distributed.world_size() == 1
    assert distributed.is_main_process() is True
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    distributed.sync_batch_norm(layers, torch.device("cuda"))
    assert type(layers[1]) is torch.nn.BatchNorm2d  # with one process nothing is shared
    assert distributed.gather(x) is x
    mean = distributed.mean_over_processes(x)
    assert torch.equal(mean, x) and not mean.requires_grad
    distributed.leave_processes()


def test_batch_norm_is_synchronised_on_cuda_only(monkeypatch):
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    names = list(layers.state_dict())
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    distributed.sync_batch_norm(layers, torch.device("cpu"))
    assert type(layers[1]) is torch.nn.BatchNorm2d
    distributed.sync_batch_norm(layers, torch.device("cuda"))
    assert isinstance(layers[1], torch.nn.SyncBatchNorm) and list(layers.state_dict()) == names


if __name__ == "__main__":
    worker(sys.argv[1])
