from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.errors import InputError, ShapeError
from simulate.physiology import Heartbeats, smooth_phase_map


@settings(deadline=None)
@given(
    mean=st.floats(0.3, 2.0),
    variability=st.floats(0, 0.3),
    share=st.floats(0, 1),
    duration=st.floats(0, 30),
    prospective=st.booleans(),
    seed=st.integers(0, 10000),
)
def test_r_waves_lie_on_either_side_of_the_scan(mean, variability, share, duration, prospective, seed):
    beats = Heartbeats(mean, variability, share, prospective=prospective, seed=seed)
    waves = beats.r_waves(duration)
    assert waves.dtype == torch.float64
    assert float(waves[0]) == 0 if prospective else -1.5 * mean <= float(waves[0]) <= 0
    assert float(waves[-2]) <= duration < float(waves[-1])
    assert float(waves.diff().min()) >= 0.5 * mean - 1e-12
    assert float(waves.diff().max()) <= 1.5 * mean + 1e-12


@settings(deadline=None)
@given(seed=st.integers(0, 10000), short=st.floats(0, 10), long=st.floats(10, 30))
def test_a_longer_scan_has_the_same_beats_and_more(seed, short, long):
    beats = Heartbeats(seed=seed)
    few, many = beats.r_waves(short), beats.r_waves(long)
    assert torch.equal(few, many[: len(few)])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_intervals_have_the_mean_and_variability_asked_for(share):
    intervals = torch.cat([Heartbeats(0.9, 0.05, share, seed=seed).r_waves(400).diff() for seed in range(5)])
    assert float(intervals.mean()) == pytest.approx(0.9, rel=5e-3)
    assert float(intervals.std() / intervals.mean()) == pytest.approx(0.05, rel=0.06)


def test_respiratory_share_follows_the_breath():
    waves = Heartbeats(0.9, 0.05, 1.0, breathing_hz=0.25, seed=2).r_waves(300)
    intervals = waves.diff() - waves.diff().mean()
    turns = torch.exp(2j * torch.pi * 0.25 * waves[:-1])
    explained = 2 * (turns * intervals).mean().abs() ** 2 / intervals.square().mean()
    assert float(explained) > 0.95


def test_without_variability_every_beat_is_alike():
    torch.testing.assert_close(Heartbeats(0.75, 0.0).r_waves(10).diff(), torch.full((14,), 0.75).double()[:14])


def test_same_seed_same_beats():
    assert torch.equal(Heartbeats(seed=3).r_waves(9), Heartbeats(seed=3).r_waves(9))
    assert not torch.equal(Heartbeats(seed=3).r_waves(9)[:5], Heartbeats(seed=4).r_waves(9)[:5])


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean_rr_s": 0.1},
        {"mean_rr_s": float("nan")},
        {"variability": 0.5},
        {"variability": -0.1},
        {"respiratory_share": 2.0},
        {"breathing_hz": 0.0},
        {"seed": -1},
    ],
)
def test_what_no_heart_does_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Heartbeats(**wrong)


@pytest.mark.parametrize("duration", [-1.0, float("nan"), float("inf")])
def test_a_duration_that_is_none_is_refused(duration):
    with pytest.raises(InputError, match="duration"):
        Heartbeats().r_waves(duration)


@settings(deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 10000))
def test_phase_map_has_unit_modulus(rows, columns, seed):
    phase = smooth_phase_map((rows, columns), seed)
    assert phase.shape == (rows, columns)
    torch.testing.assert_close(phase.abs(), torch.ones(rows, columns))


@settings(deadline=None)
@given(rows=st.integers(2, 30), columns=st.integers(2, 30), seed=st.integers(0, 10000))
def test_phase_map_is_that_of_the_place_not_of_the_matrix(rows, columns, seed):
    coarse, fine = smooth_phase_map((2 * rows, 2 * columns), seed), smooth_phase_map((4 * rows, 4 * columns), seed)
    torch.testing.assert_close(coarse, fine[::2, ::2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(10))
def test_phase_map_is_smooth_and_not_flat(seed):
    phase = smooth_phase_map((128, 128), seed)
    assert float((phase[1:] * phase[:-1].conj()).angle().abs().max()) < 0.4
    assert float((phase * phase[64, 64].conj()).angle().abs().max()) > 0.5
    assert not torch.equal(phase, smooth_phase_map((128, 128), seed + 1))


def test_phase_map_of_no_image_is_refused():
    with pytest.raises(ShapeError):
        smooth_phase_map((0, 4), 0)
    with pytest.raises(InputError):
        smooth_phase_map((4, 4), -1)
