"""One process or many, the same numbers: a gather whose gradient is exact, and each process's rank.

Launched by torchrun, every process holds a part of the batch, gathers the embeddings of all parts and computes the loss of the
whole batch. `gather` hands back to each part the sum of the gradients of all these losses, `world_size` times the gradient of one;
DistributedDataParallel then averages the parameters' gradients over the processes. The two factors cancel: every parameter gets
exactly the gradient that one process with the whole batch would compute, and learning rates need no correction.

That holds for layers that see each image by itself. Batch norm does not: `sync_batch_norm` lets it see the whole batch on GPUs; on CPUs,
for which torch has no such layer, each process normalises its own part, as DistributedDataParallel does.
"""

import os
from typing import Any

import torch
import torch.distributed as c10d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..common import allocator


def rank() -> int:
    """Return the number of this process, from 0; 0 when there is one only."""
    return c10d.get_rank() if c10d.is_available() and c10d.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes; 1 unless launched by torchrun."""
    return c10d.get_world_size() if c10d.is_available() and c10d.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


def setup_device(device: str | None = None) -> torch.device:
    """Join the other processes if torchrun launched this one (gloo on CPU, nccl on CUDA), and return the device to use.

    From then on the process keeps memory that it frees, see `allocator.keep_memory`.

    Args:
        device: `cpu` or `cuda`; by default CUDA where there is one. Under torchrun each process has the GPU of its local rank.

    Raises:
        ValueError: more processes on this machine than GPUs.

    >>> setup_device("cpu"), rank(), world_size(), is_main_process()
    (device(type='cpu'), 0, 1, True)
    """
    allocator.keep_memory()
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device: got 'cuda', wanted a device that is there: torch finds no GPU; use 'cpu' or 'auto'"
        )
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        return torch.device(kind)
    if kind != "cuda":
        if not c10d.is_initialized():
            c10d.init_process_group("gloo")
        return torch.device(kind)
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= gpus:
        raise ValueError(
            f"torchrun: local rank {local} wants a GPU of its own, this machine has {gpus}; "
            f"use --nproc-per-node {gpus}, or the device cpu"
        )
    place = torch.device("cuda", local)
    torch.cuda.set_device(place)
    if not c10d.is_initialized():
        c10d.init_process_group("nccl", device_id=place)
    return place


def leave_processes() -> None:
    """Leave the other processes; nothing happens when there are none."""
    if c10d.is_available() and c10d.is_initialized():
        c10d.destroy_process_group()


def barrier() -> None:
    """Wait until all processes have come here."""
    if world_size() > 1:
        c10d.barrier()


def share_buffers(module: nn.Module) -> None:
    """Give all processes the buffers of the first one, such as running means: each has seen its own part of the last batch."""
    if world_size() > 1:
        for buffer in module.buffers():
            c10d.broadcast(buffer, 0)


def gather(x: Tensor) -> Tensor:
    """Concatenate `x` of all processes along axis 0, in the order of their ranks; the gradient flows back to every one of them.

    Args:
        x: `[B, ...]`, the same shape in every process. With one process it is returned as it is.

    Returns:
        `[world * B, ...]`; rank r's own rows are `r * B` to `(r + 1) * B`.

    Raises:
        ValueError: the shapes differ between processes; raised in all of them, so none is left waiting.

    >>> gather(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    if world_size() == 1:
        return x
    _check_shapes(x)
    whole: Tensor = _Gather.apply(x)
    return whole


def sync_batch_norm(method: nn.Module, device: torch.device) -> nn.Module:
    """Let batch norm take its statistics over all processes, where torch can: on CUDA."""
    return (
        nn.SyncBatchNorm.convert_sync_batchnorm(method)
        if world_size() > 1 and device.type == "cuda"
        else method
    )


def mean_over_processes(x: Tensor) -> Tensor:
    """Average a tensor of statistics over all processes, without a gradient; with one process it is `x` detached.

    >>> mean_over_processes(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    x = x.detach()
    if world_size() == 1:
        return x
    total = x.clone()
    c10d.all_reduce(total)
    return total / world_size()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        whole = x.new_empty(world_size() * x.shape[0], *x.shape[1:])
        c10d.all_gather_into_tensor(
            whole, x.contiguous()
        )  # gloo would take any strides, nccl does not
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        own = gradient.new_empty(gradient.shape[0] // world_size(), *gradient.shape[1:])
        c10d.reduce_scatter_tensor(own, gradient.contiguous())
        return own


def _check_shapes(x: Tensor) -> None:
    own = torch.tensor([[x.shape[0], x[:1].numel()]], device=x.device)
    every = own.new_empty(world_size(), 2)
    c10d.all_gather_into_tensor(every, own)
    if bool((every != own).any()):
        sizes, features = every[:, 0].tolist(), every[:, 1].tolist()
        raise ValueError(
            f"gather: wanted the same shape in every process, got batches of {sizes} rows of {features} numbers; "
            "drop the last incomplete batch, or use a batch size that the number of processes divides"
        )
