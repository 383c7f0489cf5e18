"""Random numbers that are a function of what they are for, so that nothing has to be remembered between runs."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

import torch


def generator(seed: int, *purpose: int | str) -> torch.Generator:
    """A CPU generator that depends on its arguments alone: the same bits after any restart, whatever device computes.

    Args:
        seed: the experiment's seed, 0 or more.
        purpose: words and whole numbers, for example `("views", step, rank)`; different purposes give independent streams.

    >>> a, b = generator(0, "views", 7), generator(0, "views", 7)
    >>> torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b))
    True
    """
    parts = (seed, *purpose)
    if not all(isinstance(part, str) or (isinstance(part, Integral) and part >= 0) for part in parts):
        raise ValueError(f"seed: got {list(parts)}, wanted whole numbers of 0 or more; change it")
    words = [part if isinstance(part, str) else int(part) for part in parts]
    digest = hashlib.sha256(repr(words).encode()).digest()  # a list's text tells words from numbers and (a, 0) from (a)
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


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
    others = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=others):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every device, and nothing would undo it
        for index in others:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
