"""A seed and a purpose determine a generator: the same bits everywhere, independent streams."""

import itertools
import zlib

import pytest
import torch

from infomin.common.seeds import seeded_generator, torch_seeded

PURPOSES = [
    (),
    ("views",),
    ("order",),
    ("views", 0),
    ("views", 1),
    ("views", 0, 0),
    ("views", 0, 1),
    ("views", 1, 0),
    ("order", 0),
]


def rand(seed: int, *purpose: int | str, n: int = 4) -> torch.Tensor:
    return torch.rand(n, generator=seeded_generator(seed, *purpose))


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**40])
def test_equal_arguments_give_equal_bits(seed: int, purpose: tuple[int | str, ...]) -> None:
    assert torch.equal(rand(seed, *purpose, n=100), rand(seed, *purpose, n=100))


def test_calls_are_independent_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first = seeded_generator(0, "views")
    torch.rand(10, generator=first)  # using one stream does not advance the next
    assert torch.equal(rand(0, "views"), rand(0, "views"))
    assert not torch.equal(torch.rand(4, generator=first), rand(0, "views"))
    assert torch.equal(torch.get_rng_state(), before)


def test_purposes_of_a_grid_have_different_states() -> None:
    words, steps, ranks = ("views", "order", "critic", "probe", "digits"), range(50), range(4)
    grid = list(itertools.product((0, 1), words, steps, ranks))  # 2,000 purposes
    seeds = [seeded_generator(seed, *purpose).initial_seed() for seed, *purpose in grid]
    low_bits = {seed & 0xFFFFFFFF for seed in seeds}  # all that the CPU's Mersenne Twister uses
    assert len(low_bits) == len(grid)


def test_purposes_of_different_length_do_not_collide() -> None:
    alike = [
        (0, "a"),
        (0, "a", 0),
        (0, "a", 0, 0),
        (0, "a", 0, 1),
        (0, "a", 2**32),
        (0,),
        (0, 0),
        (0, 0, 0),
        (0, 12),
        (0, 1, 2),
        (1, 2),
    ]
    states = {arguments: seeded_generator(*arguments).initial_seed() for arguments in alike}
    assert len(set(states.values())) == len(alike), states


def test_words_and_numbers_do_not_collide() -> None:
    alike = [
        (0, "a", "b"),
        (0, "ab"),
        (0, "b", "a"),
        (0, "7"),
        (0, 7),
        (0, "views"),
        (0, zlib.crc32(b"views")),
    ]
    states = {arguments: seeded_generator(*arguments).initial_seed() for arguments in alike}
    assert len(set(states.values())) == len(alike), states


def test_streams_of_neighbouring_purposes_are_uncorrelated_and_normal() -> None:
    x = torch.stack(
        [torch.randn(2000, generator=seeded_generator(0, "views", step)) for step in range(60)]
    )
    correlation = torch.corrcoef(x) - torch.eye(60)
    # the standard deviation is 1 / sqrt(2000): 5 of them are very rare among 1,770 pairs
    assert correlation.abs().max() < 5 / 2000**0.5
    assert abs(x.mean()) < 5 / x.numel() ** 0.5 and abs(x.var() - 1) < 5 * (2 / x.numel()) ** 0.5
    # the first values of all purposes are uniform too
    first_values = torch.stack([rand(0, "views", step, n=1)[0] for step in range(1000)])
    counts = first_values.mul(10).long().bincount(minlength=10).double()
    assert ((counts - 100) ** 2 / 100).sum() < 27.9  # chi-square, 9 degrees of freedom, 1e-3


def test_bits_are_the_same_in_every_version() -> None:
    pinned = {
        (0,): [26321, 36254, 32345, 38185],
        (0, "views", 7, 1): [61050, 62793, 13327, 39694],
        (0, "order", 3): [51535, 4634, 18107, 13203],
        (3, "views", 399, 1): [5032, 28246, 28793, 20040],
        (12345, "critic"): [13758, 62255, 32469, 52795],
    }
    for (seed, *purpose), bits in pinned.items():
        drawn = torch.randint(2**16, (4,), generator=seeded_generator(seed, *purpose))
        assert drawn.tolist() == bits, (seed, purpose)


@pytest.mark.parametrize("arguments", [(-1,), (0, "views", -1), (0.7,), (0, "views", 0.5)])
def test_negative_numbers_and_fractions_are_errors(arguments: tuple[int, ...]) -> None:
    message = r"seed: got \[.*(-1|0.7|0.5)\], wanted whole numbers of 0 or more$"
    with pytest.raises(ValueError, match=message):
        seeded_generator(*arguments)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_torch_is_seeded_inside_and_continues_outside(device: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3, device=device), torch.rand(3, device=device)
    torch.manual_seed(5)
    outside = [torch.rand(3, device=device)]
    inside = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), torch_seeded(0, device):
            inside.append(torch.rand(3, device=device))
            raise KeyboardInterrupt
    outside.append(torch.rand(3, device=device))
    assert all(map(torch.equal, outside, expected)) and torch.equal(*inside)
    torch.manual_seed(0)
    assert torch.equal(inside[0], torch.rand(3, device=device))
