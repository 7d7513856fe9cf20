from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.errors import InputError, ShapeError, UsageError
from kspace.gating import cardiac_phase
from simulate.events import (
    BreathHold,
    BreathHoldFails,
    BulkRotation,
    BulkShift,
    DroppedSpokes,
    EcgJitter,
    EctopicBeat,
    FalseTrigger,
    FreeBreathing,
    MissedTrigger,
    Mistriggering,
    Spike,
)
from simulate.physiology import Heartbeats
from simulate.timeline import States, Timeline

STEADY = Heartbeats(0.9, variability=0.0, prospective=True)
TIMES = torch.arange(0, 12, 0.003, dtype=torch.float64)


def test_a_regular_beat_runs_linearly_through_its_phase():
    timeline = Timeline(STEADY, end_systole=0.35)
    states = timeline.at(TIMES)
    apart = torch.remainder(states.phase - TIMES / 0.9 + 0.5, 1.0) - 0.5
    assert float(apart.abs().max()) < 1e-9
    assert bool((states.stroke == 1).all())
    assert bool((states.breath_mm == 0).all())
    assert bool((states.shift_mm == 0).all())
    assert int(states.beat[-1]) == 13


@settings(deadline=None, max_examples=40)
@given(
    rr=st.floats(0.45, 1.4),
    variability=st.floats(0, 0.25),
    seed=st.integers(0, 50),
    ectopic=st.lists(st.floats(0, 12), max_size=3),
    compensatory=st.booleans(),
)
def test_phase_rises_from_0_to_1_in_every_beat_and_states_do_not_depend_on_what_is_asked(
    rr: float, variability: float, seed: int, ectopic: list[float], compensatory: bool
):
    events = [EctopicBeat(at, compensatory=compensatory) for at in ectopic]
    timeline = Timeline(Heartbeats(rr, variability=variability, seed=seed), events)
    states = timeline.at(TIMES)
    assert bool(((states.phase >= 0) & (states.phase < 1)).all())
    same = states.beat.diff() == 0
    assert bool((states.phase.diff()[same] > 0).all())
    assert bool((states.phase.diff()[~same] < 0).all())
    waves, strokes = timeline.beats(12.0)
    assert len(waves) == len(strokes)
    assert bool((waves.diff() > 0).all())
    assert float(waves[0]) <= 0
    early = timeline.at(TIMES[:500])
    torch.testing.assert_close(early.phase, states.phase[:500])
    torch.testing.assert_close(early.stroke, states.stroke[:500])


def test_systole_hardly_shortens_when_a_beat_does():
    timeline = Timeline(Heartbeats(0.9, variability=0.2, seed=3), end_systole=0.36)
    waves, _ = timeline.beats(60.0)
    times = torch.arange(0, 60, 1e-3, dtype=torch.float64)
    states = timeline.at(times)
    lengths, systoles = [], []
    for beat in range(2, int(states.beat[-1])):
        inside = states.beat == beat
        systole = times[inside & (states.phase >= 0.36)][0] - waves[beat]
        lengths.append(float(waves[beat + 1] - waves[beat]))
        systoles.append(float(systole))
    assert np.std(lengths) > 0.12
    assert np.std(systoles) < 0.3 * np.std(lengths)
    assert np.mean(systoles) == pytest.approx(0.36 * 0.9, abs=0.02)
    # So beats of different length do not agree at linearly stretched phase.
    gated = cardiac_phase(times, waves)
    assert float((gated - states.phase).abs().max()) > 0.05


def test_without_an_end_systole_weissler_gives_it():
    assert Timeline(Heartbeats(60 / 70)).systole * 60 / 70 == pytest.approx(0.546 - 0.0021 * 70 - 0.04)
    with pytest.raises(UsageError):
        Timeline(end_systole=0.95)


def test_an_ectopic_beat_comes_early_ejects_little_and_is_followed_by_a_pause():
    timeline = Timeline(STEADY, [EctopicBeat(4.0, prematurity=0.6, stroke=0.4, potentiation=1.2)], 0.35)
    waves, strokes = timeline.beats(12.0)
    intervals = waves.diff()
    assert intervals[3:7].tolist() == pytest.approx([0.9, 0.54, 1.26, 0.9])
    assert strokes[4:8].tolist() == [1.0, 0.4, 1.2, 1.0]
    states = timeline.at(TIMES)
    # The volume, of any body that is smallest at end-systole, goes on without a jump.
    filling = torch.where(states.phase < 0.35, 1 - states.phase / 0.35, (states.phase - 0.35) / 0.65)
    volume = states.stroke * filling
    assert float(volume.diff().abs().max()) < 0.03
    reset = Timeline(STEADY, [EctopicBeat(4.0, prematurity=0.6, compensatory=False)], 0.35).beats(12.0)[0].diff()
    assert reset[3:7].tolist() == pytest.approx([0.9, 0.54, 0.9, 0.9])


def test_breathing_goes_on_where_it_was():
    events = [BreathHold(0.0, 0.5, level_mm=2.0), BreathHoldFails(6.0, variability=0.0), BreathHold(9.0)]
    breath = Timeline(STEADY, events).at(TIMES).breath_mm
    assert float(breath[0]) == 2
    assert float(breath[TIMES < 6][-1]) == pytest.approx(5, abs=0.01)
    assert float(breath.diff().abs().max()) < 0.3
    assert float(breath.max()) > 20
    assert float(breath[TIMES >= 9].diff().abs().max()) == 0
    free = Timeline(STEADY, [FreeBreathing(seed=2)]).at(TIMES).breath_mm
    assert float(free.max()) > 8


def test_bulk_motion_adds_up_and_stays():
    events = [
        BulkShift(2.0, (4.0, 0.0, 0.0), 0.2), BulkShift(5.0, (1.0, -3.0, 2.0), 0.0), BulkRotation(7.0, 0.1, 1.0),
    ]  # fmt: skip
    states = Timeline(STEADY, events).at(TIMES)
    assert states.shift_mm[TIMES < 2].abs().max() == 0
    between = (TIMES > 2.2) & (TIMES < 5)
    torch.testing.assert_close(states.shift_mm[between], torch.tensor([4.0, 0, 0]).double().expand(between.sum(), 3))
    assert states.shift_mm[-1].tolist() == [5, -3, 2]
    assert float(states.rotation_rad[-1]) == pytest.approx(0.1)
    assert float(states.rotation_rad[(TIMES - 7.5).abs().argmin()]) == pytest.approx(0.05, abs=1e-3)
    state = states.state(len(states) - 1)
    assert state.shift_mm == (5, -3, 2)
    assert state.rotation_rad == pytest.approx(0.1)


def test_recorded_ecg_misses_and_invents_beats_that_never_changed_the_heart():
    timeline = Timeline(STEADY, [MissedTrigger(3.7), FalseTrigger(6.0), MissedTrigger(200.0)])
    true, _ = timeline.beats(12.0)
    recorded = timeline.recorded_ecg(12.0)
    assert set(true[true <= 12].tolist()) - set(recorded.tolist()) == {float(true[4])}
    assert set(recorded.tolist()) - set(true.tolist()) == {6.0}
    torch.testing.assert_close(timeline.at(TIMES).phase, Timeline(STEADY).at(TIMES).phase)
    assert int((recorded > 12).sum()) == 1
    torch.testing.assert_close(timeline.recorded_ecg(5.0), recorded[: len(timeline.recorded_ecg(5.0))])


def test_jitter_and_poor_ecg():
    jitter = Timeline(STEADY, [EcgJitter(sd_s=5e-3, seed=1)])
    true, _ = jitter.beats(300.0)
    recorded = jitter.recorded_ecg(300.0)
    errors = recorded - true[: len(recorded)]
    assert float(errors.std()) == pytest.approx(5e-3, rel=0.2)
    poor = Timeline(STEADY, [Mistriggering(30.0, 200.0, missed=0.2, doubled=0.1, seed=4)])
    recorded = poor.recorded_ecg(300.0)
    inside = (true >= 30) & (true < 200)
    known = torch.isin(true, recorded)
    assert bool(known[~inside][:-20].all())
    assert 0.1 < 1 - float(known[inside].double().mean()) < 0.3
    invented = recorded[~torch.isin(recorded, true)]
    assert 0.03 < len(invented) / int(inside.sum()) < 0.2
    # T waves: at the end of systole.
    since = (invented[:, None] - true).clamp_min(0)
    phase = since.masked_fill(since == 0, 9).amin(1) / 0.9
    assert float(phase.min()) == pytest.approx(0.95 * poor.systole, abs=0.02)


def test_faults_hit_their_spokes():
    dropped, spiked = Timeline(STEADY, [DroppedSpokes(1.0, 1.3), Spike(2.0)]).spoilt(TIMES, 0.003)
    assert int(dropped.sum()) in (99, 100, 101)
    assert float(TIMES[dropped].min()) >= 1.0
    assert int(spiked.sum()) == 1
    assert float(TIMES[spiked][0]) == pytest.approx(2.0, abs=0.003)


def test_nonsense_is_refused():
    timeline = Timeline(STEADY)
    with pytest.raises(ShapeError):
        timeline.at(TIMES[None])
    for bad in (-1.0, math.nan):
        with pytest.raises(InputError):
            timeline.at(torch.tensor([bad]))
    wrong: Any = ["breath-hold"]
    with pytest.raises(InputError, match="events"):
        Timeline(STEADY, wrong)
    n = torch.zeros(3)
    with pytest.raises(ShapeError):
        States(n, n, n, torch.zeros(3, 2), n, n)
