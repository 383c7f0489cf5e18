"""Random numbers that are a function of what they are for, so that nothing has to be remembered between runs."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor


def seeded_generator(seed: int, *purpose: int | str) -> torch.Generator:
    """A CPU generator that depends on its arguments alone: the same bits after any restart, whatever device computes.

    Args:
        seed: the experiment's seed, 0 or more.
        purpose: words and whole numbers, for example `("views", step, rank)`; different purposes give independent streams.

    >>> a, b = seeded_generator(0, "views", 7), seeded_generator(0, "views", 7)
    >>> torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b))
    True
    """
    parts = (seed, *purpose)
    if not all(
        isinstance(part, str) or (isinstance(part, Integral) and part >= 0) for part in parts
    ):
        raise ValueError(f"seed: got {list(parts)}, wanted whole numbers of 0 or more; change it")
    words = [part if isinstance(part, str) else int(part) for part in parts]
    digest = hashlib.sha256(
        repr(words).encode()
    ).digest()  # a list's text tells words from numbers and (a, 0) from (a)
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def uniform_at(counters: Tensor, seed: int, *purpose: int | str) -> Tensor:
    """Numbers uniform in [0, 1), float64 of any shape, each a function of its counter (long), the seed and the purpose alone.

    Nothing has to be stepped, and any part of the sequence is made by itself: output number `counter` of SplitMix64 (Steele, Lea
    and Flood, 2014), of which the top 53 bits are kept. Whole numbers of 64 bits, which overflow alike everywhere.

    >>> torch.equal(uniform_at(torch.arange(9), 0, "clips")[5:], uniform_at(torch.arange(5, 9), 0, "clips"))
    True
    """
    word = seeded_generator(seed, *purpose).initial_seed() + counters * (0x9E3779B97F4A7C15 - 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word = (word ^ _right(word, shift)) * (factor - 2**64)  # the same bits, as a signed number
    return _right(word ^ _right(word, 31), 11).double() * 2.0**-53


def _right(word: Tensor, shift: int) -> Tensor:
    """Bits moved to the right with zeros after them: torch moves the sign in."""
    return (word >> shift) & (2 ** (64 - shift) - 1)


def to_device(made: Tensor, like: Tensor | torch.device | str) -> Tensor:
    """Bring what was made on the CPU to a device (to that of a tensor, and to its dtype) without waiting for work queued there.

    A copy in the other direction is waited for: it could be read before it has arrived.

    >>> to_device(torch.ones(2, dtype=torch.float64), torch.zeros(1)).dtype
    torch.float32
    """
    there = like.device if isinstance(like, Tensor) else torch.device(like)
    # Apple's GPUs read the memory when they come to it, which may be freed by then (issue 139550 of pytorch).
    return made.to(like, non_blocking=made.device.type == "cpu" and there.type != "mps")


@contextmanager
def torch_seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, the random numbers that torch draws by itself, on the CPU and the device, start at the seed; the caller's go on
    afterwards as if nothing had happened.

    >>> before = torch.get_rng_state()
    >>> with torch_seeded(0):
    ...     weight = torch.nn.Linear(2, 2).weight
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    device = torch.device(device)
    others = (
        [torch.cuda.current_device() if device.index is None else device.index]
        if device.type == "cuda"
        else []
    )
    with torch.random.fork_rng(devices=others):
        torch.default_generator.manual_seed(
            seed
        )  # torch.manual_seed would seed every device, and nothing would undo it
        for index in others:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
