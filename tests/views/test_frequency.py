"""Frequency views: the bands add up, the blur is a Gaussian, and edges are reflected."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from infomin.views import Frequency, parse
from infomin.views.frequency import gaussian, low_pass

torch.set_num_threads(1)
IMAGES = torch.rand(3, 3, 20, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SIGMAS = [0.1, 0.3, 0.7, 1.0, 2.5, 6.0, 30.0]  # the last is wider than the image


@pytest.mark.parametrize("sigmas", [(0.7,), (30.0,), (0.5, 1.0, 4.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_the_bands_add_up_to_the_image(sigmas, dtype, tolerance):
    images = IMAGES.to(dtype)
    views = Frequency(*sigmas)(images)
    assert len(views) == len(sigmas) + 1
    torch.testing.assert_close(sum(views), images, rtol=0, atol=tolerance)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_low_pass_is_scipys_gaussian_filter(sigma):
    vertical = gaussian_filter1d(IMAGES.numpy(), sigma, axis=2, mode="reflect")
    expected = torch.from_numpy(gaussian_filter1d(vertical, sigma, axis=3, mode="reflect"))
    torch.testing.assert_close(low_pass(IMAGES, sigma), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_blur_keeps_constants_and_the_mean_and_has_no_negative_weights(sigma):
    matrix = gaussian(14, sigma, IMAGES)
    ones = torch.ones(14, dtype=torch.float64)
    torch.testing.assert_close(matrix @ ones, ones)
    torch.testing.assert_close(ones @ matrix, ones)  # reflected, not lost: the mean stays
    assert matrix.min() >= 0


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
def test_a_wave_is_damped_by_the_gaussians_fourier_transform(sigma):
    """By exp(-(sigma w)^2 / 2), up to sampling and truncation at 4 sigma.

    The wave is continued by its reflection.
    """
    n = 64
    for k in (1, 4, 9):
        w = np.pi * k / n
        wave = torch.cos(w * (torch.arange(n, dtype=torch.float64) + 0.5))
        expected = wave * float(np.exp(-((sigma * w) ** 2) / 2))
        torch.testing.assert_close(gaussian(n, sigma, wave) @ wave, expected, rtol=0, atol=2e-4)


def test_bands_go_from_coarse_to_fine():
    """A wave of low, medium and high frequency is strongest in the first, second and third band."""
    n, view, strongest = 64, Frequency(1.0, 6.0), []
    for k in (1, 12, 50):
        wave = torch.cos(np.pi * k / n * (torch.arange(n) + 0.5)).expand(1, 1, n, n)
        powers = torch.stack([band.square().mean() for band in view.make_views(wave)])
        strongest.append(int(powers.argmax()))
    assert strongest == [0, 1, 2]


def test_frequency_commutes_with_flips_and_takes_any_number_of_channels():
    view = Frequency(1.5)
    for flip in (2, 3):
        for one, other in zip(view(IMAGES.flip(flip)), view(IMAGES), strict=True):
            torch.testing.assert_close(one, other.flip(flip))
    assert [v.shape[1] for v in view(torch.rand(2, 7, 8, 8))] == [7, 7]


@pytest.mark.parametrize(
    "sigmas", [(), (0,), (-1.0,), (2.0, 1.0), (1.0, 1.0), (float("nan"),), (1e9,), ("1",)]
)
def test_bad_sigmas_are_errors(sigmas):
    with pytest.raises(ValueError, match=r"Frequency.*: got .*, wanted"):
        Frequency(*sigmas)


@pytest.mark.parametrize("dial", ["a", "1-", "-1", "2-1", "1--2", "nan"])
def test_a_bad_dial_shows_a_good_one(dial):
    message = (
        rf"view 'frequency:{dial}': .*got .*; the dial of frequency is sigma of the blur in px, "
        "or several in ascending order: frequency:0.7, frequency:1-4"
    )
    with pytest.raises(ValueError, match=message):
        parse(f"frequency:{dial}")


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.124])
def test_a_tiny_sigma_changes_nothing(sigma):
    assert torch.equal(gaussian(5, sigma, torch.zeros(1).double()), torch.eye(5).double())
    images = torch.rand(2, 3, 5, 7)
    assert torch.equal(low_pass(images, sigma), images)
