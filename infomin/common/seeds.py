"""Random numbers determined by a seed and a purpose, so that no generator state has to be saved."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor

_GLOBAL_GENERATORS = threading.RLock()


def seeded_generator(seed: int, *purpose: int | str) -> torch.Generator:
    """Return a CPU generator that depends only on the arguments.

    It gives the same bits after every restart and for every compute device.

    Args:
        seed: the experiment's seed, 0 or more.
        purpose: words and whole numbers of 0 or more, for example `("views", step, rank)`;
            different purposes give independent streams.

    Raises:
        ValueError: a negative number or a fraction.

    >>> a, b = seeded_generator(0, "views", 7), seeded_generator(0, "views", 7)
    >>> torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b))
    True
    """
    parts = (seed, *purpose)
    for part in parts:
        if not (isinstance(part, str) or (isinstance(part, Integral) and part >= 0)):
            raise ValueError(f"seed: got {list(parts)}, wanted whole numbers of 0 or more")
    # the repr of a list keeps words and numbers apart, and ("a", 0) apart from ("a",)
    words = repr([part if isinstance(part, str) else int(part) for part in parts])
    digest = hashlib.sha256(words.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def uniform_at(counters: Tensor, seed: int, *purpose: int | str) -> Tensor:
    """Uniform numbers in [0, 1), each determined by its counter, the seed and the purpose.

    Any part of the sequence can be computed without the rest. Element i is output number
    `counters[i]` of SplitMix64 (Steele, Lea and Flood, 2014), of which the top 53 bits are kept;
    64-bit integer overflow makes it the same on every device.

    Args:
        counters: long, any shape, 0 or more.
        seed: the experiment's seed, 0 or more.
        purpose: as in `seeded_generator`.

    Returns:
        float64 of the shape of `counters`.

    >>> whole = uniform_at(torch.arange(9), 0, "clips")
    >>> torch.equal(whole[5:], uniform_at(torch.arange(5, 9), 0, "clips"))
    True
    """
    start = seeded_generator(seed, *purpose).initial_seed()
    word = start + counters * (0x9E3779B97F4A7C15 - 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        signed_factor = factor - 2**64  # the same 64 bits, as torch's signed long
        word = (word ^ _shift_right(word, shift)) * signed_factor
    return _shift_right(word ^ _shift_right(word, 31), 11).double() * 2.0**-53


def _shift_right(word: Tensor, shift: int) -> Tensor:
    """Logical right shift: fills with zeros, where torch's `>>` repeats the sign bit."""
    return (word >> shift) & (2 ** (64 - shift) - 1)


def to_device(made: Tensor, like: Tensor | torch.device | str) -> Tensor:
    """Copy a CPU tensor to a device without waiting for the work queued there.

    Copies in the other direction do wait: the result could be read before it has arrived.

    Args:
        made: the tensor to copy.
        like: the target device, or a tensor whose device and dtype are taken.

    >>> to_device(torch.ones(2, dtype=torch.float64), torch.zeros(1)).dtype
    torch.float32
    """
    device = like.device if isinstance(like, Tensor) else torch.device(like)
    # MPS reads the source only when it gets to the copy: it may be freed by then (pytorch #139550)
    return made.to(like, non_blocking=made.device.type == "cpu" and device.type != "mps")


@contextmanager
def seeded_draws(
    device: torch.device | str, seed: int, *purpose: int | str
) -> Iterator[torch.Generator]:
    """Yield the generator of a purpose, and seed torch's global ones by it for the block.

    What a view draws is then determined even if it ignores the generator that it is given.
    """
    generator = seeded_generator(seed, *purpose)
    with torch_seeded(generator.initial_seed(), device):
        yield generator


@contextmanager
def torch_seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators of the CPU and the device for one block.

    Afterwards the caller's random streams continue as if the block had not run. Blocks in other
    threads wait: the generators are those of the whole process.

    >>> before = torch.get_rng_state()
    >>> with torch_seeded(0):
    ...     weight = torch.nn.Linear(2, 2).weight
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    device = torch.device(device)
    gpus = []
    if device.type == "cuda":
        gpus = [torch.cuda.current_device() if device.index is None else device.index]
    with _GLOBAL_GENERATORS, torch.random.fork_rng(devices=gpus):
        # not torch.manual_seed: it would seed every device, and only these are restored
        torch.default_generator.manual_seed(seed)
        for index in gpus:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
