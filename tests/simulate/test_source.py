from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.errors import InputError
from kspace.scan import Geometry, RadialScan
from kspace.trajectory import golden_angles, radial_positions
from simulate.source import Replay, SpokeSource, next_stop


def measured(times: torch.Tensor, slices: torch.Tensor, *, frame: bool = False, ecg: bool = True) -> RadialScan:
    n = len(times)
    return RadialScan(
        samples=torch.randn(n, 2, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)),
        positions=radial_positions(golden_angles(n), 16),
        time_s=times,
        geometry=Geometry((3, 8, 8)),
        slice_index=slices,
        ecg_s=torch.arange(-1.0, 40.0, 0.8, dtype=torch.float64) if ecg else torch.zeros(0, dtype=torch.float64),
        frame=torch.arange(n) % 5 if frame else None,
    )


def steady(n: int = 300, tr_s: float = 0.01) -> RadialScan:
    """Slices 0 and 2, one after the other and then mixed."""
    slices = torch.where(torch.arange(n) < n // 3, 0, 2)
    slices[-n // 3 :: 2] = 0
    return measured(7.0 + torch.arange(n, dtype=torch.float64) * tr_s, slices)


@settings(deadline=None, max_examples=30)
@given(steps=st.lists(st.floats(0.001, 1.5), min_size=1, max_size=12), index=st.sampled_from([0, 2]))
def test_each_spoke_is_given_out_once_and_at_its_time(steps, index):
    scan = steady()
    mine = torch.nonzero(scan.slices == index)[:, 0]
    stream = Replay(scan).open_slice(index)
    times = (scan.time_s[mine] - scan.time_s[mine[0]]).tolist()
    given_out, now = 0, 0.0
    for step in steps:
        now += step
        while given_out < len(mine) and times[given_out] >= now - 5e-7:
            now += step
        batch = stream.acquire(step)
        assert batch.n_spokes == sum(t < now - 5e-7 for t in times[given_out:])
        chosen = mine[given_out : given_out + batch.n_spokes]
        given_out += batch.n_spokes
        assert torch.equal(batch.samples, scan.samples[chosen])
        assert torch.equal(batch.positions, scan.positions[chosen])
        torch.testing.assert_close(batch.time_s, scan.time_s[chosen] - scan.time_s[mine[0]])
        assert batch.geometry.shape == (1, 8, 8)
    assert stream.truth(4) is None


def test_a_step_ends_just_before_the_spoke_at_its_end():
    stream = Replay(measured(torch.arange(10).double() * 0.1 + 3e-8, torch.zeros(10, dtype=torch.int64))).open_slice(0)
    assert [stream.acquire(0.3).n_spokes for _ in range(5)] == [3, 3, 3, 1, 0]


def test_a_gap_in_the_file_is_waited_for_and_not_taken_for_its_end():
    times = torch.tensor([0.0, 0.1, 3.33, 3.4, 9.0], dtype=torch.float64)
    stream = Replay(measured(times, torch.zeros(5, dtype=torch.int64))).open_slice(0)
    assert [stream.acquire(0.5).time_s.tolist() for _ in range(4)] == [[0.0, 0.1], [3.33, 3.4], [9.0], []]


def test_r_waves_come_as_they_happen_and_the_first_one_at_once():
    scan = measured(7.0 + torch.arange(300).double() * 0.01, torch.zeros(300, dtype=torch.int64))
    stream = Replay(replace(scan, ecg_s=torch.tensor([7.7, 8.4, 9.3], dtype=torch.float64))).open_slice(0)
    seen = [stream.acquire(0.5).ecg_s.tolist() for _ in range(6)]
    assert [len(waves) for waves in seen] == [1, 1, 2, 2, 3, 3]
    assert seen[-1] == pytest.approx([0.7, 1.4, 2.3])


def test_fixed_frames_stay_with_their_spokes():
    scan = measured(torch.arange(30).double() * 0.01, torch.zeros(30, dtype=torch.int64), frame=True)
    replay = Replay(scan)
    assert replay.n_frames == 5
    batch = replay.open_slice(0).acquire(0.1)
    assert batch.frame is not None
    assert batch.frame.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_what_a_replay_says_of_itself():
    scan = steady()
    replay: SpokeSource = Replay(scan)
    assert not replay.synthetic
    assert replay.n_frames is None
    assert replay.rr_s == pytest.approx(0.8)
    assert replay.geometry.shape == (3, 8, 8)
    assert replay.description == "measured spokes"
    assert Replay(replace(scan, source="a file")).description == "a file"
    assert Replay(replace(scan, ecg_s=torch.zeros(0))).rr_s == 1.0


def test_a_slice_without_spokes_is_refused():
    with pytest.raises(InputError, match="slice 1 has no spokes"):
        Replay(steady()).open_slice(1)


@settings(deadline=None)
@given(
    now=st.floats(0, 100),
    seconds=st.floats(1e-3, 5),
    wait=st.one_of(st.none(), st.floats(0, 50)),
)
def test_a_step_is_a_multiple_that_reaches_the_next_spoke(now, seconds, wait):
    end = next_stop(now, seconds, None if wait is None else now + wait)
    multiple = (end - now) / seconds
    assert multiple == pytest.approx(round(multiple), abs=1e-6)
    if wait is None:
        assert round(multiple) == 1
    else:
        assert end > now + wait
        assert multiple <= max(1, wait / seconds + 1 + 1e-3)


def test_steps_add_up():
    ends = [0.0]
    for _ in range(1000):
        ends.append(next_stop(ends[-1], 0.1, None))
    assert all(b - a == pytest.approx(0.1) for a, b in pairwise(ends))
