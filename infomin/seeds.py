"""Random numbers that are a function of what they are for, so that nothing has to be remembered between runs."""

import hashlib

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
    words = [part if isinstance(part, str) else int(part) for part in (seed, *purpose)]
    if any(isinstance(word, int) and word < 0 for word in words):
        raise ValueError(f"seed: got {words}, wanted no negative number; use 0 or more")
    digest = hashlib.sha256(repr(words).encode()).digest()  # a list's text tells words from numbers and (a, 0) from (a)
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
