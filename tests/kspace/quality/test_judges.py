from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kspace.nufft import exact_transform
from kspace.quality.change import ChangeJudge
from kspace.quality.judge import Evidence, Judge, Score, Verdict
from kspace.quality.prediction import PredictionJudge, prediction_error
from kspace.scan import Geometry, RadialScan
from kspace.trajectory import golden_angles, radial_positions, uniform_angles

MATRIX = (32, 32)


def blob(row: float, column: float, width: float) -> Tensor:
    """(y, x) complex: nothing of it lies outside the disc of k-space that spokes cover."""
    y, x = torch.meshgrid(torch.arange(32.0) - 16, torch.arange(32.0) - 16, indexing="ij")
    return (torch.exp(-((y - row) ** 2 + (x - column) ** 2) / width**2) * torch.exp(0.3j * x)).to(torch.complex128)


TRUTH = blob(1, -2, 5) + 0.5 * blob(4, 5, 3)


def wrong(nrmse: float) -> Tensor:
    error = blob(-3, 2, 4) * 1j
    return TRUTH + nrmse * error * torch.linalg.vector_norm(TRUTH) / torch.linalg.vector_norm(error)


def measure(image: Tensor, maps: Tensor, positions: Tensor) -> Tensor:
    values = exact_transform(image * maps, positions.reshape(-1, 2))
    return values.reshape(len(maps), *positions.shape[:2]).transpose(0, 1)


# Foreseeing the newest spokes


@pytest.mark.parametrize("nrmse", [0.02, 0.1, 0.5, 1.0])
def test_without_noise_the_prediction_error_is_the_nrmse_of_the_image(nrmse: float, make_maps: Any) -> None:
    positions, maps = radial_positions(uniform_angles(60), 64), make_maps(4, *MATRIX)
    samples, predicted = measure(TRUTH, maps, positions), measure(wrong(nrmse), maps, positions)
    assert prediction_error(samples, predicted, positions, 0.0) == pytest.approx(nrmse, rel=0.01)


@pytest.mark.parametrize("nrmse", [0.1, 0.3])
def test_over_steps_of_few_noisy_spokes_it_is_unbiased(nrmse: float, make_noise: Any, make_maps: Any) -> None:
    # At 0.1 the noise's share of the misfit is 14 times the error's own. Where it is so large that single steps fall
    # below zero, and are cut off there, the mean is too high.
    maps, sigma, errors, uncorrected = make_maps(4, *MATRIX), 0.05, [], []
    for step in range(120):
        positions = radial_positions(golden_angles(8, start=8 * step), 64)
        samples = measure(TRUTH, maps, positions)
        samples = samples + sigma * make_noise(*samples.shape, seed=step, dtype=torch.complex128)
        predicted = measure(wrong(nrmse), maps, positions)
        errors.append(prediction_error(samples, predicted, positions, sigma) ** 2)
        uncorrected.append(prediction_error(samples, predicted, positions, 0.0) ** 2)
    assert math.sqrt(sum(errors) / len(errors)) == pytest.approx(nrmse, rel=0.02)
    assert math.sqrt(sum(uncorrected) / len(uncorrected)) > 1.5 * nrmse


def test_noise_alone_is_no_error(make_noise: Any, make_maps: Any) -> None:
    positions, maps = radial_positions(golden_angles(40), 64), make_maps(4, *MATRIX)
    clean = measure(TRUTH, maps, positions)
    noise = [0.05 * make_noise(*clean.shape, seed=seed, dtype=torch.complex128) for seed in range(20)]
    errors = [prediction_error(clean + n, clean, positions, 0.05) for n in noise]
    assert 0.0 in errors
    assert max(errors) < 0.1


def test_its_unit_is_that_of_the_signal(make_noise: Any, make_maps: Any) -> None:
    positions, maps = radial_positions(golden_angles(20), 64), make_maps(2, *MATRIX)
    noise = 0.1 * make_noise(20, 2, 64, dtype=torch.complex128)
    samples, predicted = measure(TRUTH, maps, positions) + noise, measure(wrong(0.3), maps, positions)
    one = prediction_error(samples, predicted, positions, 0.1)
    assert prediction_error(1e4j * samples, 1e4j * predicted, positions, 1e3) == pytest.approx(one)
    single = prediction_error(samples.to(torch.complex64), predicted.to(torch.complex64), positions, 0.1)
    assert single == pytest.approx(one, rel=1e-4)


def test_without_signal_it_is_unknown() -> None:
    positions, nothing = radial_positions(golden_angles(4), 16), torch.zeros(4, 2, 16, dtype=torch.complex64)
    assert math.isnan(prediction_error(nothing, nothing, positions, 0.0))
    assert math.isnan(prediction_error(nothing, nothing, positions, 1.0))


def evidence(**changes: Any) -> Evidence:
    positions = radial_positions(golden_angles(6), 64)
    maps = torch.ones(1, *MATRIX, dtype=torch.complex128)
    geometry = Geometry((1, *MATRIX))
    scan = RadialScan(measure(TRUTH, maps, positions), positions, torch.arange(6) * 0.003, geometry)
    values: dict[str, Any] = {
        "seconds": 1.0,
        "newest": scan,
        "newest_frame": torch.zeros(6, dtype=torch.int64),
        "predicted": measure(wrong(0.2), maps, positions),
        "image": TRUTH[None],
        "previous": wrong(0.2)[None],
        "spokes_per_frame": torch.tensor([30.0]),
        "maps": maps,
        "noise_std": None,
        "geometry": geometry,
    }
    return Evidence(**(values | changes))


def test_the_prediction_judge_scores_the_prediction_error() -> None:
    case = evidence()
    assert case.predicted is not None
    (score,) = PredictionJudge(limit=0.3)(case)
    expected = prediction_error(case.newest.samples, case.predicted, case.newest.positions, 0.0)
    assert (score.name, score.value, score.limit) == ("prediction_error", expected, 0.3)
    assert score.passed
    assert "newest spokes" in score.label
    (score,) = PredictionJudge()(evidence(noise_std=0.01))
    assert score.value == prediction_error(case.newest.samples, case.predicted, case.newest.positions, 0.01)
    assert score.value < expected
    assert score.limit == 0.10
    assert not score.passed


def test_at_the_first_step_or_without_spokes_there_is_nothing_to_foresee() -> None:
    case = evidence()
    none = case.newest.select(slice(0, 0))
    for changes in ({"predicted": None}, {"newest": none, "predicted": none.samples}):
        (score,) = PredictionJudge()(evidence(**changes))
        assert math.isnan(score.value)
        assert not score.passed


# Change of the image


def test_the_change_is_relative_to_the_image() -> None:
    (score,) = ChangeJudge()(evidence())
    assert score.name == "image_change"
    assert score.value == pytest.approx(0.2, rel=1e-6)
    assert score.limit == 0.05
    assert not score.passed
    (score,) = ChangeJudge(limit=0.25, name="moved")(evidence(image=1e6 * TRUTH[None], previous=1e6 * wrong(0.2)[None]))
    assert score.name == "moved"
    assert score.value == pytest.approx(0.2, rel=1e-6)
    assert score.passed


def test_an_image_that_stays_has_not_changed() -> None:
    (score,) = ChangeJudge()(evidence(previous=TRUTH[None]))
    assert score.value == 0
    assert score.passed


def test_at_the_first_step_or_of_an_empty_image_the_change_is_unknown() -> None:
    for changes in ({"previous": None}, {"image": torch.zeros_like(TRUTH)[None]}):
        (score,) = ChangeJudge()(evidence(**changes))
        assert math.isnan(score.value)
        assert not score.passed


# Scores and verdicts


def test_the_judges_are_judges() -> None:
    for judge in (PredictionJudge(), ChangeJudge()):
        assert isinstance(judge, Judge)


@pytest.mark.parametrize(
    ("value", "passed"), [(0.0, True), (0.1, True), (0.1000001, False), (math.nan, False), (math.inf, False)]
)
def test_a_score_passes_at_or_below_its_limit(value: float, passed: bool) -> None:
    assert Score("a", value, 0.1, "A").passed is passed


def test_a_verdict_is_held_back_by_what_did_not_pass() -> None:
    good, bad, unknown = Score("a", 0.1, 0.2, "A"), Score("b", 0.3, 0.2, "B"), Score("c", math.nan, 0.2, "C")
    assert Verdict(1.0, (good, bad, unknown)).held_back_by == (bad, unknown)
    assert Verdict(1.0, (good,)).held_back_by == ()
