"""What bounds and critics accept, and the errors for what they do not."""

import numpy as np
import pytest
import torch

from infomin.measure.bounds import infonce, infonce_symmetric
from infomin.measure.critics import SeparableCritic, cosine_scores

MATRIX = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
TAKES = {
    "infonce": infonce,
    "infonce_symmetric": infonce_symmetric,
    "cosine": lambda z: cosine_scores(z, MATRIX, 0.1),
    "cosine: second": lambda z: cosine_scores(MATRIX, z, 0.1),
    "SeparableCritic": lambda x: SeparableCritic(4, 4, 2, 8)(x, MATRIX),
    "SeparableCritic: second": lambda y: SeparableCritic(4, 4, 2, 8)(MATRIX, y),
}
NO_FLOATS = {
    "list": MATRIX.tolist(),
    "ndarray": np.zeros((4, 4), np.float32),
    "None": None,
    "torch.int64": MATRIX.long(),
    "torch.bool": MATRIX > 0,
    "torch.complex64": MATRIX.to(torch.complex64),
}


@pytest.mark.parametrize("name", TAKES)
@pytest.mark.parametrize("got", NO_FLOATS)
def test_scores_and_embeddings_are_floating_point_tensors(name, got):
    who = name.partition(":")[0]
    with pytest.raises(
        TypeError, match=rf"^{who}: .* must be .*floating-point.*, got {got}.*; use"
    ):
        TAKES[name](NO_FLOATS[got])


@pytest.mark.parametrize("name", TAKES)
@pytest.mark.parametrize("shape", [(), (4,), (2, 4, 4), (0, 4), (0, 0), (4, 5, 1)])
def test_scores_and_embeddings_are_matrices(name, shape):
    who = name.partition(":")[0]
    with pytest.raises(ValueError, match=rf"^{who}: .* must be .*, got .*\[.*\]"):
        TAKES[name](torch.zeros(shape))


@pytest.mark.parametrize(
    ("partner", "error", "message"),
    [
        ([0, 1, 2, 3], TypeError, r"be an integer tensor \[4\], got list; use torch.as_tensor"),
        (2, TypeError, r"be an integer tensor \[4\], got int"),
        (torch.eye(4), TypeError, r"be an integer tensor \[4\], got torch.float32"),
        (torch.arange(4.0), TypeError, r"be an integer tensor \[4\], got torch.float32"),
        (torch.arange(4) > 1, TypeError, r"be an integer tensor \[4\], got torch.bool"),
        (torch.arange(3), ValueError, r"have the shape \[4\], got \[3\]"),
        (torch.arange(4)[:, None], ValueError, r"have the shape \[4\], got \[4, 1\]"),
        (torch.tensor(2), ValueError, r"have the shape \[4\], got \[\]"),
        (torch.tensor([0, -100, 1, 2]), ValueError, "be a column, 0 to 3, got -100; leave out"),
        (torch.tensor([0, 4, 1, 2]), ValueError, "be a column, 0 to 3, got 4; leave out"),
    ],
)
def test_partners_are_columns(partner, error, message):
    with pytest.raises(error, match=rf"^infonce: partner must {message}"):
        infonce(MATRIX, partner)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_partners_may_have_any_integer_type(dtype):
    partner = torch.tensor([3, 0, 1, 1])
    assert torch.equal(infonce(MATRIX, partner.to(dtype)), infonce(MATRIX, partner))


def test_a_score_that_is_nan_shows_in_the_result():
    """A run that diverges goes by the loss."""
    scores = MATRIX.clone()
    scores[1, 2] = torch.nan
    assert infonce(scores).isnan() and infonce_symmetric(scores).isnan()


def test_embeddings_of_two_types_are_compared_in_the_wider_one():
    z = MATRIX.double()
    for other in (z.float(), z.half(), z.bfloat16()):
        want = cosine_scores(z, other.double(), 0.1)
        torch.testing.assert_close(cosine_scores(z, other, 0.1), want)


@pytest.mark.parametrize("size", [0, -1, 2.5, "8", None, True])
@pytest.mark.parametrize("name", ["d1", "d2", "dim", "hidden"])
def test_sizes_of_a_critic_are_whole_numbers_above_0(name, size):
    sizes = {"d1": 4, "d2": 4, "dim": 2, "hidden": 8} | {name: size}
    with pytest.raises(ValueError, match=rf"^SeparableCritic\({name}\): got {size!r}, wanted"):
        SeparableCritic(**sizes)
