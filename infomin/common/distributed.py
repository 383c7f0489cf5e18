"""Multi-process training with the gradients of a single process: an exact gather, and ranks.

Under torchrun every process holds a part of the batch, gathers the embeddings of all parts and
computes the loss of the whole batch. The backward pass of `gather` sums the gradients of all these
losses, which is `world_size` times the gradient of one; DistributedDataParallel then averages the
parameters' gradients over the processes. The two factors cancel: every parameter gets exactly the
gradient that one process with the whole batch would compute, and learning rates need no correction.

This holds for layers that treat each image independently. Batch norm does not: on GPUs
`sync_batch_norm` takes its statistics over the whole batch; on CPUs, where torch has no such layer,
each process normalises its own part, as usual with DistributedDataParallel.
"""

import inspect
import os
from typing import Any

import torch
import torch.distributed as c10d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """Return the rank of this process, 0 if it is the only one."""
    return c10d.get_rank() if c10d.is_available() and c10d.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes, 1 unless launched by torchrun."""
    return c10d.get_world_size() if c10d.is_available() and c10d.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


def setup_device(device: str | None = None) -> torch.device:
    """Return the device to use; under torchrun, join the process group (gloo on CPU, nccl on CUDA).

    Args:
        device: `cpu` or `cuda`; by default CUDA if available. Under torchrun each process uses the
            GPU of its local rank.

    Raises:
        ValueError: CUDA without a GPU, or more processes on this machine than GPUs.

    >>> setup_device("cpu"), rank(), world_size(), is_main_process()
    (device(type='cpu'), 0, 1, True)
    """
    device_type = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device_type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda', but torch finds no GPU; use 'cpu' or 'auto'")
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        return torch.device(device_type)
    if device_type != "cuda":
        if not c10d.is_initialized():
            c10d.init_process_group("gloo")
        return torch.device(device_type)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise ValueError(
            f"torchrun: need one GPU per process, got local rank {local_rank} with {gpus} GPUs; "
            f"use --nproc-per-node {gpus}, or the device cpu"
        )
    gpu = torch.device("cuda", local_rank)
    torch.cuda.set_device(gpu)
    if not c10d.is_initialized():
        c10d.init_process_group("nccl", device_id=gpu)
    return gpu


def leave_processes() -> None:
    """Leave the process group; does nothing without one."""
    if c10d.is_available() and c10d.is_initialized():
        c10d.destroy_process_group()


def barrier() -> None:
    """Wait until all processes get here."""
    if world_size() > 1:
        c10d.barrier()


def share_buffers(module: nn.Module) -> None:
    """Copy a module's buffers, such as running means, from rank 0 to all other processes.

    They differ because each process has updated them with its own part of the last batch.
    """
    if world_size() > 1:
        for buffer in module.buffers():
            c10d.broadcast(buffer, 0)


def gather(x: Tensor) -> Tensor:
    """Concatenate the `x` of all processes along axis 0, ordered by rank, with gradients to all.

    Args:
        x: `[B, ...]`, the same shape in every process.

    Returns:
        `[world * B, ...]`; the rows of rank r are `r * B` to `(r + 1) * B`. With one process, `x`
        itself.

    Raises:
        ValueError: the shapes differ between processes; raised in all of them, so none hangs.

    >>> gather(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    if world_size() == 1:
        return x
    _check_shapes(x)
    gathered: Tensor = _Gather.apply(x)
    return gathered


def sync_batch_norm(method: nn.Module, device: torch.device) -> None:
    """Make the batch norms in a method take their statistics over all processes.

    torch supports this on CUDA only; elsewhere nothing changes.
    """
    if world_size() > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(method)


def average_gradients(method: nn.Module) -> nn.Module:
    """Wrap a module so that its gradients are averaged over processes; unchanged with one process.

    Buffers are not broadcast: those that a method updates from gathered batches, such as queues,
    are equal in all processes and can be large.
    """
    if world_size() == 1:
        return method
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    # torch 2.14 renamed the option
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {option: False}
    return DistributedDataParallel(method, **options)


def mean_over_processes(x: Tensor) -> Tensor:
    """Average a tensor over all processes, without gradient; with one process, `x` detached.

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
        gathered = x.new_empty(world_size() * x.shape[0], *x.shape[1:])
        c10d.all_gather_into_tensor(gathered, x.contiguous())  # nccl refuses other strides
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        local = gradient.new_empty(gradient.shape[0] // world_size(), *gradient.shape[1:])
        c10d.reduce_scatter_tensor(local, gradient.contiguous())
        return local


def _check_shapes(x: Tensor) -> None:
    local = torch.tensor([[x.shape[0], x[:1].numel()]], device=x.device)
    shapes = local.new_empty(world_size(), 2)
    c10d.all_gather_into_tensor(shapes, local)
    if bool((shapes != local).any()):
        rows, row_sizes = shapes[:, 0].tolist(), shapes[:, 1].tolist()
        raise ValueError(
            "gather: need the same shape in every process, "
            f"got batches of {rows} rows of {row_sizes} values; drop the last incomplete batch, "
            "or use a batch size that is a multiple of the number of processes"
        )
