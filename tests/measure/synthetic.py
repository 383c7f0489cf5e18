"""Synthetic features with known classes, or with known information between views."""

import torch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(n, classes=4, d=8, noise=1.5, seed=0):
    """Noisy class centres `[N, D]` and their labels; the centres depend only on their shape."""
    centres, draws = torch.randn(classes, d, generator=generator(99)), generator(seed)
    y = torch.randint(classes, (n,), generator=draws)
    return 3 + 5 * (centres[y] + noise * torch.randn(n, d, generator=draws)), y


def codes(n, seed, noise=0.5, sizes=(16, 24)):
    """Views that share one of ten classes and nothing else: log 10 nats, less what noise hides."""
    draws = generator(seed)
    y = torch.randint(10, (n,), generator=draws)
    tables = [torch.randn(10, d, generator=generator(90 + i)) for i, d in enumerate(sizes)]
    return [table[y] + noise * torch.randn(n, table.shape[1], generator=draws) for table in tables]


def independent(n, seed):
    """Views that share nothing."""
    return [torch.randn(n, d, generator=generator(10 * seed + d)) for d in (16, 24)]


def identical(n, seed):
    """Views that share everything."""
    x = torch.randn(n, 16, generator=generator(seed))
    return [x, x]
