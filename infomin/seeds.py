"""Random numbers that are a function of what they are for, so that nothing has to be remembered between runs."""

import zlib

import numpy as np
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
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in purpose]
    state = np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
