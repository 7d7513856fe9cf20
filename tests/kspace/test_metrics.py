from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from kspace.errors import InputError, ShapeError
from kspace.metrics import best_scale, body_mask, nrmse, psnr, ssim, ssim_map

Metric = Callable[..., torch.Tensor]
metrics = pytest.mark.parametrize("metric", [nrmse, psnr, ssim])


def noisy_cine(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape[-2:]), indexing="ij")
    truth = (1.2 + torch.sin(5 * x + 2 * y * y)).expand(shape).clone()
    truth[..., : shape[-2] // 4, :] = 0.1
    return (truth + 0.2 * torch.randn(shape, generator=generator)).to(dtype), truth.to(dtype)


def test_a_perfect_image_has_no_error() -> None:
    _, truth = noisy_cine(3, 20, 24)
    assert nrmse(truth, truth) == 0
    assert psnr(truth, truth) == torch.inf
    assert ssim(truth, truth) == pytest.approx(1, abs=1e-6)
    assert best_scale(truth, truth) == pytest.approx(1)


def test_known_errors() -> None:
    truth = torch.full((2, 12, 12), 2.0)
    assert nrmse(torch.zeros_like(truth), truth) == 1
    assert nrmse(1.1 * truth, truth) == pytest.approx(0.1, rel=1e-5)
    assert psnr(truth + 0.2, truth) == pytest.approx(20, rel=1e-5)
    # Without structure only the luminance term is left.
    assert ssim(truth / 2, truth) == pytest.approx((2 * 0.5 + 1e-4) / (0.25 + 1 + 1e-4), rel=1e-4)


@metrics
def test_scale_counts_unless_asked(metric: Metric) -> None:
    image, truth = noisy_cine(2, 20, 24)
    torch.testing.assert_close(metric(3 * image, truth, rescale=True), metric(image, truth, rescale=True))
    assert abs(metric(3 * image, truth) - metric(image, truth)) > 0.1
    assert metric(3 * image, truth, rescale=True) == metric(3 * image * best_scale(3 * image, truth), truth)


def test_best_scale_is_least_squares() -> None:
    image, truth = noisy_cine(2, 20, 24)
    mask = truth[0] > 0.5
    scale = best_scale(image, truth, mask)
    for other in (0.99, 1.01):
        assert nrmse(scale * image, truth, mask) < nrmse(other * scale * image, truth, mask)


@metrics
def test_only_the_mask_counts(metric: Metric) -> None:
    image, truth = noisy_cine(3, 40, 40)
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[15:25, 15:25] = True
    elsewhere = image.clone()
    elsewhere[:, :5] = 50
    truth_elsewhere = truth.clone()
    truth_elsewhere[:, -5:] = 70
    inside = metric(image, truth, mask)
    torch.testing.assert_close(metric(elsewhere, truth_elsewhere, mask), inside)
    torch.testing.assert_close(metric(image, truth, mask.expand(3, 40, 40)), inside)
    assert abs(metric(elsewhere, truth) - metric(image, truth)) > 0.01


@metrics
def test_magnitudes_of_complex_images_count(metric: Metric) -> None:
    image, truth = noisy_cine(2, 20, 24)
    image = image.abs()
    phase = torch.polar(torch.ones_like(truth), torch.linspace(0, 6, 24).expand_as(truth))
    torch.testing.assert_close(metric(image * phase, truth / phase), metric(image, truth), rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(11, 50), st.integers(11, 50), st.sampled_from([1e-4, 1.0, 3e3]), st.integers(0, 99))
def test_ssim_map_is_the_one_of_skimage(ny: int, nx: int, unit: float, seed: int) -> None:
    image, truth = noisy_cine(ny, nx, seed=seed)
    data_range = float(truth.max()) * unit
    _, expected = structural_similarity(
        truth.double().numpy() * unit,
        image.double().numpy() * unit,
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    got = ssim_map(image * unit, truth * unit, data_range)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got, expected, atol=1e-4)
    got = ssim_map(image.double() * unit, truth.double() * unit, data_range)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_ssim_takes_frames_one_by_one_and_its_range_from_the_mask() -> None:
    image, truth = noisy_cine(3, 20, 24)
    truth[1] *= 2
    mask = truth[0] > 0.5
    peak = truth[:, mask].max()
    each = [ssim_map(i, t, peak)[mask].mean() for i, t in zip(image, truth, strict=True)]
    torch.testing.assert_close(ssim(image, truth, mask), torch.stack(each).mean())


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 4), max_size=2), st.integers(1, 13), st.integers(1, 13))
def test_any_shape_gives_one_finite_number(leading: list[int], ny: int, nx: int) -> None:
    image, truth = noisy_cine(*leading, ny, nx)
    for metric in (nrmse, psnr, ssim):
        value = metric(image, truth + 1)
        assert value.shape == ()
        assert bool(torch.isfinite(value))


@metrics
def test_gradients_are_right(metric: Metric) -> None:
    image, truth = noisy_cine(2, 7, 6, dtype=torch.float64)
    image.requires_grad_(True)
    mask = truth[0] > 0.5
    assert torch.autograd.gradcheck(lambda x: metric(x, truth, mask), image)
    assert torch.autograd.gradcheck(lambda x: metric(x, truth, mask, rescale=True), image)


@metrics
def test_bad_inputs_are_refused(metric: Metric) -> None:
    image, truth = noisy_cine(2, 8, 9)
    with pytest.raises(ShapeError, match="the image"):
        metric(image[:1], truth)
    with pytest.raises(ShapeError, match="the truth"):
        metric(image[0, 0], truth[0, 0])
    with pytest.raises(ShapeError, match="the mask"):
        metric(image, truth, torch.ones(9, 8, dtype=torch.bool))
    with pytest.raises(InputError, match="bool"):
        metric(image, truth, torch.ones(8, 9))
    with pytest.raises(InputError, match="mask is empty"):
        metric(image, truth, torch.zeros(8, 9, dtype=torch.bool))
    with pytest.raises(InputError, match="the truth"):
        metric(image, torch.zeros_like(truth))
    with pytest.raises(InputError, match="the image is zero"):
        metric(torch.zeros_like(image), truth, rescale=True)
    with pytest.raises(InputError, match="floating point"):
        metric(image.to(torch.int64), truth)


def test_a_data_range_must_be_positive() -> None:
    with pytest.raises(InputError, match="data range"):
        ssim_map(torch.ones(8, 8), torch.ones(8, 8), 0.0)


# The body


def chest(ny: int, nx: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A noisy chest with two dark lungs, and its outline."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, ny), torch.linspace(-1, 1, nx), indexing="ij")
    body = (y / 0.7) ** 2 + (x / 0.8) ** 2 < 1
    image = body.float()
    for side in (-0.4, 0.4):
        image[(y / 0.4) ** 2 + ((x - side) / 0.22) ** 2 < 1] = 0.03
    image[(y - 0.1) ** 2 + x**2 < 0.02] = 3.0
    generator = torch.Generator().manual_seed(0)
    noise = 0.03 * torch.randn(4, ny, nx, dtype=torch.complex64, generator=generator)
    return image + noise, body


def dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("shape", [(128, 128), (97, 160), (192, 144)])
def test_the_body_holds_its_lungs_and_not_the_air(shape: tuple[int, int]) -> None:
    images, body = chest(*shape)
    mask = body_mask(images)
    assert mask.shape == shape
    assert mask.dtype == torch.bool
    assert dice(mask, body) > 0.96
    assert torch.equal(body_mask(1e-6 * images.abs()), mask)


def test_a_bright_speck_is_no_body() -> None:
    images, body = chest(128, 128)
    images[:, 2:5, 2:5] = 2.0
    mask = body_mask(images)
    assert not bool(mask[:8, :8].any())
    assert dice(mask, body) > 0.96


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_image_without_contrast_is_body_throughout(value: float) -> None:
    assert bool(body_mask(torch.full((2, 16, 17), value)).all())


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))
def test_a_body_is_found_in_any_shape(n_frames: int, ny: int, nx: int) -> None:
    image, _ = noisy_cine(n_frames, ny, nx)
    mask = body_mask(image)
    assert mask.shape == (ny, nx)
    assert bool(mask.any())


def test_bad_bodies_are_refused() -> None:
    with pytest.raises(ShapeError):
        body_mask(torch.ones(8, 8))
    with pytest.raises(InputError, match="NaN"):
        body_mask(torch.full((1, 8, 8), torch.nan))
