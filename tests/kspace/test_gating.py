from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.errors import InputError, ShapeError, UsageError
from kspace.gating import assign_frames, beat_of, cardiac_phase, frame_of_phase, usable_beats
from kspace.scan import Geometry, RadialScan


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def make_scan(time_s: torch.Tensor, ecg_s: torch.Tensor, frame: torch.Tensor | None = None) -> RadialScan:
    n = len(time_s)
    return RadialScan(
        samples=torch.ones(n, 1, 2, dtype=torch.complex64),
        positions=torch.zeros(n, 2, 2),
        time_s=time_s,
        geometry=Geometry((1, 4, 4)),
        ecg_s=ecg_s,
        frame=frame,
    )


rr_intervals = st.lists(st.floats(0.25, 2.5), min_size=1, max_size=12)


@settings(deadline=None)
@given(rr_intervals, st.floats(-5, 5), st.lists(st.floats(-20, 40), min_size=1, max_size=30))
def test_phase_is_half_open_and_linear_in_each_beat(rr: list[float], start: float, instants: list[float]) -> None:
    ecg = start + torch.cumsum(times(0.0, *rr), 0)
    time = torch.cat([times(*instants), ecg])
    phase = cardiac_phase(time, ecg)
    assert phase.dtype == torch.float64
    assert bool(((phase >= 0) & (phase < 1)).all())
    assert phase[len(instants) :].abs().max() == 0
    beat = beat_of(time, ecg)
    closed = (beat >= 0) & (beat < len(rr))
    length = times(*rr)[beat[closed]]
    torch.testing.assert_close(phase[closed], (time[closed] - ecg[beat[closed]]) / length, atol=1e-12, rtol=1e-9)


def test_open_ends_continue_with_the_median_beat() -> None:
    ecg = times(10.0, 10.8, 11.8, 13.0)  # 0.8, 1.0, 1.2
    phase = cardiac_phase(times(9.25, 7.75, 13.25, 15.75), ecg)
    torch.testing.assert_close(phase, times(0.25, 0.75, 0.25, 0.75))


def test_the_median_of_an_even_number_of_intervals_lies_between() -> None:
    torch.testing.assert_close(cardiac_phase(times(2.25), times(0.0, 0.8, 2.0)), times(0.25))


def test_a_single_r_wave_takes_the_default_interval() -> None:
    torch.testing.assert_close(cardiac_phase(times(1.0, 1.2, 0.9), times(1.0)), times(0.0, 0.2, 0.9))
    torch.testing.assert_close(cardiac_phase(times(1.2), times(1.0), default_rr_s=0.8), times(0.25))
    with pytest.raises(UsageError):
        cardiac_phase(times(1.2), times(1.0), default_rr_s=0.0)


@pytest.mark.parametrize("before", [math.ulp(0.0), 1e-300, 1e-18, 1e-17])
def test_phase_never_rounds_to_one(before: float) -> None:
    assert cardiac_phase(times(-before), times(0.0)) < 1
    assert cardiac_phase(times(-before), times(-0.7, 0.0)) < 1
    start = 1e9
    assert cardiac_phase(times(math.nextafter(start + 1, 0)), times(start, start + 1)) < 1


def test_order_and_duplicates_of_r_waves_do_not_matter() -> None:
    time = torch.linspace(-1, 5, 50, dtype=torch.float64)
    ecg = times(0.0, 0.9, 1.7, 2.8)
    assert torch.equal(cardiac_phase(time, times(1.7, 0.9, 2.8, 0.9, 0.0)), cardiac_phase(time, ecg))
    assert torch.equal(beat_of(time, times(1.7, 0.9, 2.8, 0.9, 0.0)), beat_of(time, ecg))


def test_inputs_that_cannot_be_gated_are_refused() -> None:
    with pytest.raises(InputError, match="no R waves") as caught:
        cardiac_phase(times(1.0), times())
    assert "scan.frame" in caught.value.hint
    with pytest.raises(InputError, match="NaN"):
        cardiac_phase(times(float("nan")), times(0.0))
    with pytest.raises(InputError, match="NaN"):
        cardiac_phase(times(0.0), times(float("inf")))
    with pytest.raises(ShapeError, match="ecg_s"):
        cardiac_phase(times(0.0), torch.zeros(2, 2))
    with pytest.raises(ShapeError, match="time_s"):
        beat_of(torch.zeros(()), times(0.0))
    with pytest.raises(InputError, match="milliseconds"):
        cardiac_phase(times(0.0), times(0.0, 900.0, 1810.0))


def test_beats_are_numbered_by_their_r_wave() -> None:
    assert beat_of(times(-0.1, 0.0, 0.8, 0.9, 5.0), times(0.0, 0.9)).tolist() == [-1, 0, 0, 1, 1]


def test_missed_and_double_triggers_are_found() -> None:
    rr = times(0.0, 0.9, 0.9, 1.8, 0.9, 0.45, 0.45, 0.9, 0.9, 2.7, 0.2, 1.1)
    usable = usable_beats(torch.cumsum(rr, 0), tolerance=0.4)
    assert usable.tolist() == [True, True, False, True, False, False, True, True, False, False, True, True]
    implausible = usable_beats(torch.cumsum(rr, 0), tolerance=10.0)
    assert (~implausible).nonzero().flatten().tolist() == [8, 9]
    with pytest.raises(UsageError):
        usable_beats(rr, tolerance=0.0)
    assert usable_beats(times(3.0)).tolist() == [True]


@settings(deadline=None)
@given(st.integers(1, 200))
def test_frames_cover_the_beat_half_open(n_frames: int) -> None:
    frames = torch.arange(n_frames)
    assert torch.equal(frame_of_phase(frames.double() / n_frames, n_frames), frames)
    assert torch.equal(frame_of_phase((frames + 0.5) / n_frames, n_frames), frames)
    last = times(math.nextafter(1.0, 0.0))
    assert frame_of_phase(last, n_frames).tolist() == [n_frames - 1]
    assert frame_of_phase(last.float().clamp(max=1 - 2**-24), n_frames).dtype == torch.int64


@pytest.mark.parametrize("phase", [1.0, -1e-9, float("nan")])
def test_phases_outside_the_beat_are_refused(phase: float) -> None:
    with pytest.raises(InputError):
        frame_of_phase(times(phase), 10)


def test_fixed_frames_are_taken_and_checked() -> None:
    scan = make_scan(times(0.0, 0.1, 0.2), times(), frame=torch.tensor([2, 0, 1], dtype=torch.int32))
    assert assign_frames(scan, 3).tolist() == [2, 0, 1]
    assert assign_frames(scan, 3).dtype == torch.int64
    with pytest.raises(InputError, match="frames up to 2"):
        assign_frames(scan, 2)
    with pytest.raises(UsageError):
        assign_frames(scan, 0)


@pytest.mark.parametrize("n", [0, 1])
def test_few_spokes_are_gated(n: int) -> None:
    assert assign_frames(make_scan(torch.full((n,), 0.5, dtype=torch.float64), times(0.0, 1.0)), 4).tolist() == [2] * n


def test_a_scan_without_any_gating_is_refused() -> None:
    with pytest.raises(InputError, match="no R waves"):
        assign_frames(make_scan(times(0.0), times()), 4)


@settings(deadline=None)
@given(st.lists(st.floats(0.3, 2.0), min_size=2, max_size=10), st.data())
def test_spokes_of_completed_beats_keep_their_frame(rr: list[float], data: st.DataObject) -> None:
    ecg = 0.4 + torch.cumsum(times(0.0, *rr), 0)
    time = torch.arange(0, float(ecg[-1]) + 1, 0.0173, dtype=torch.float64)
    whole = assign_frames(make_scan(time, ecg), 25)
    known = data.draw(st.integers(1, len(ecg)))
    sofar = assign_frames(make_scan(time, ecg[:known]), 25)
    completed = (time >= ecg[0]) & (time < ecg[known - 1])
    assert torch.equal(sofar[completed], whole[completed])


def test_arrhythmic_beats_are_rejected_only_when_asked() -> None:
    scan = make_scan(times(-0.5, 0.45, 1.35, 3.0, 4.1, 9.2), times(0.0, 0.9, 1.8, 3.6, 4.5))
    assert assign_frames(scan, 2).tolist() == [0, 1, 1, 1, 1, 0]
    assert assign_frames(scan, 2, tolerance=0.5).tolist() == [0, 1, 1, -1, 1, 0]
