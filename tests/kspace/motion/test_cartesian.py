"""The published corruption, and lines found and taken out without training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kspace.errors import ShapeError, UsageError
from kspace.metrics import psnr
from kspace.motion.cartesian import Mistriggering, corrupted, to_image, to_kspace
from kspace.motion.line_correction import blended, corrected, low_rank, robust
from kspace.motion.line_model import fit_lines

NOISE = 0.01


def beating(frames: int = 20, n: int = 48) -> Tensor:
    """A ring that contracts and turns brighter, on a still body, with a smooth phase."""
    place = (torch.arange(n) - n // 2).float()
    radius = torch.hypot(place[:, None], place[None])
    body = 0.4 * torch.sigmoid((n * 0.42 - radius) * 2)
    times = torch.arange(frames) / frames
    size = n * (0.16 + 0.07 * torch.cos(2 * torch.pi * times))[:, None, None]
    sway = 2 * torch.sin(2 * torch.pi * times)[:, None, None]  # or contraction and relaxation would look alike
    ring = torch.hypot(place[:, None] - sway, place[None])
    image = body + 0.6 * torch.sigmoid((size - ring) * 2)
    return torch.polar(image, (0.02 * place).expand_as(image))


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(like: Tensor) -> Tensor:
    return NOISE * torch.randn(like.shape, dtype=like.dtype, generator=chance(5))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(3, 60), st.floats(0, 1), st.integers(0, 4))
def test_wrong_lines_are_as_many_as_asked_for(frames: int, lines: int, share: float, every: int) -> None:
    source = Mistriggering(share, every).draw(frames, lines, chance())
    wrong = source != torch.arange(frames)[:, None]
    assert 0 <= source.min() <= source.max() < frames
    for count in wrong.sum(1).tolist():
        assert count in ((lines // every, -(-lines // every)) if every else (round(share * lines),))


def test_pattern_begins_at_the_same_line_in_all_frames_where_asked() -> None:
    wrong = Mistriggering(every=3, same_lines=True).draw(9, 24, chance()) != torch.arange(9)[:, None]
    assert bool((wrong == wrong[0]).all())
    wrong = Mistriggering(every=3).draw(9, 24, chance()) != torch.arange(9)[:, None]
    assert not bool((wrong == wrong[0]).all())


def test_corrupted_lines_are_lines_of_their_source() -> None:
    kspace = to_kspace(beating())
    source = Mistriggering(0.3).draw(20, 48, chance())
    bad = corrupted(kspace, source)
    for frame, line in ((0, 3), (7, 16), (11, 31)):
        assert torch.equal(bad[frame, line], kspace[source[frame, line], line])


def test_transform_is_unitary_and_inverts() -> None:
    image = beating(4, 20)
    assert torch.linalg.vector_norm(to_kspace(image)) == pytest.approx(float(torch.linalg.vector_norm(image)), rel=1e-5)
    torch.testing.assert_close(to_image(to_kspace(image)), image)


@pytest.mark.parametrize(
    ("kind", "least", "gain"), [(Mistriggering(every=3), 0.8, 0.7), (Mistriggering(0.2), 0.93, 2.0)]
)
def test_wrong_lines_are_found_and_taken_out(kind: Mistriggering, least: float, gain: float) -> None:
    truth = beating()
    kspace = to_kspace(truth)
    source = kind.draw(20, 48, chance(1))
    wrong = source != torch.arange(20)[:, None]
    measured = corrupted(kspace, source) + noise(kspace)
    model = fit_lines(measured, NOISE)
    middle = slice(12, 36)  # where lines hold more than noise
    score, of_them = model.log_ratio[:, middle], wrong[:, middle]
    auroc = (score[of_them][:, None] > score[~of_them]).float().mean()
    assert auroc > least
    assert model.wrong[:, middle][of_them].mean() > model.wrong[:, middle][~of_them].mean() + 0.2
    before, after = (psnr(to_image(k), truth) for k in (measured, corrected(measured, NOISE, model.wrong)))
    assert after > before + gain
    oracle = psnr(to_image(corrected(measured, NOISE, wrong.float())), truth)
    assert oracle > before + 4


def test_clean_scan_passes_through() -> None:
    truth = beating()
    measured = to_kspace(truth) + noise(truth)
    model = fit_lines(measured, NOISE)
    assert model.wrong.mean() < 0.2
    before, after = (psnr(to_image(k), truth) for k in (measured, corrected(measured, NOISE, model.wrong)))
    assert after > before - 0.1
    untouched = corrected(measured, NOISE, torch.zeros(20, 48))
    assert torch.equal(untouched, measured)


def test_line_that_is_wrong_in_all_frames_becomes_its_average() -> None:
    kspace = to_kspace(beating())
    wrong = torch.zeros(20, 48)
    wrong[:, 24] = 1
    found = corrected(kspace, NOISE, wrong)
    torch.testing.assert_close(found[:, 24], kspace[:, 24].mean(0).expand(20, 48), rtol=1e-3, atol=1e-3)


def test_distrusted_lines_are_not_looked_at() -> None:
    kspace = to_kspace(beating())
    wrong = torch.zeros(20, 48)
    wrong[3, 14] = 1
    spoilt = kspace.clone()
    spoilt[3, 14] = 100
    for method in (corrected, low_rank):
        torch.testing.assert_close(method(spoilt, NOISE, wrong), method(kspace, NOISE, wrong), rtol=1e-3, atol=1e-3)


def test_blend_follows_the_probability() -> None:
    measured, foretold = torch.ones(3, 4, 5, dtype=torch.complex64), torch.zeros(3, 4, 5, dtype=torch.complex64)
    wrong = torch.rand(3, 4, generator=chance())
    torch.testing.assert_close(blended(measured, foretold, wrong)[..., 0].real, 1 - wrong)


def test_robust_fit_gains_without_probabilities() -> None:
    truth = beating()
    kspace = to_kspace(truth)
    measured = corrupted(kspace, Mistriggering(0.1).draw(20, 48, chance(2))) + noise(kspace)
    assert psnr(to_image(robust(measured, NOISE)), truth) > psnr(to_image(measured), truth)


def test_what_makes_no_sense_is_refused() -> None:
    kspace = to_kspace(beating())
    with pytest.raises(UsageError, match="share"):
        Mistriggering(1.5)
    with pytest.raises(UsageError, match="frame"):
        Mistriggering(0.1).draw(1, 8, chance())
    with pytest.raises(ShapeError, match="sources"):
        corrupted(kspace, torch.zeros(3, 3, dtype=torch.int64))
    with pytest.raises(UsageError, match="noise"):
        fit_lines(kspace, 0.0)
    with pytest.raises(ShapeError, match="k-space"):
        fit_lines(kspace[:2], NOISE)
    with pytest.raises(ShapeError, match="probabilities"):
        fit_lines(kspace, NOISE, wrong=torch.zeros(3, 3))
