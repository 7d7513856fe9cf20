"""From instants to states of the body, and to the ECG that the scanner sees.

A beat is not a stretched copy of another: systole hardly shortens when the beat does, and diastole takes what is left
(Weissler et al., Circulation 37:149, 1968). The mechanical phase runs through systole in the time that the beat before
allows, and through diastole in the rest, so that two beats of different length disagree at linearly stretched phase,
which is what gating takes for the phase.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError, UsageError
from simulate.body import BodyState
from simulate.events import (
    Array,
    Breathing,
    BulkRotation,
    BulkShift,
    DroppedSpokes,
    EcgJitter,
    EctopicBeat,
    Event,
    FalseTrigger,
    MissedTrigger,
    Mistriggering,
    Spike,
)
from simulate.physiology import Heartbeats
from simulate.source import SLACK_S

_MARGIN_S = 8.0
_WEISSLER_S = 0.0021 * 60  # electromechanical systole is 546 ms - 2.1 ms times the heart rate
_Q_TO_R_S = 0.04
_SHORTEST_SYSTOLE_S = 0.15
_SYSTOLE_AT_MOST = 0.7  # of a beat
_T_WAVE = 0.95  # of systole after the R wave


@dataclass(frozen=True)
class States:
    """States of the body at many instants, as arrays; see :class:`~simulate.body.BodyState`.

    Parameters
    ----------
    phase, stroke, breath_mm, rotation_rad
        (instant,) float64.
    shift_mm
        (instant, 3) float64.
    beat
        (instant,) int64, counted by true R waves.
    """

    phase: Tensor
    stroke: Tensor
    breath_mm: Tensor
    shift_mm: Tensor
    rotation_rad: Tensor
    beat: Tensor

    def __post_init__(self) -> None:
        n = len(self.phase)
        for name in ("phase", "stroke", "breath_mm", "rotation_rad", "beat"):
            if getattr(self, name).shape != (n,):
                raise ShapeError(name, getattr(self, name), f"(instant,) = ({n},)")
        if self.shift_mm.shape != (n, 3):
            raise ShapeError("shift_mm", self.shift_mm, f"(instant, 3) = ({n}, 3)")

    def __len__(self) -> int:
        return len(self.phase)

    def state(self, index: int) -> BodyState:
        """Return one of the states."""
        x, y, z = (float(value) for value in self.shift_mm[index])
        return BodyState(
            phase=float(self.phase[index]),
            stroke=float(self.stroke[index]),
            breath_mm=float(self.breath_mm[index]),
            shift_mm=(x, y, z),
            rotation_rad=float(self.rotation_rad[index]),
        )


@dataclass(frozen=True)
class Timeline:
    """One slice's time under the scanner: a rhythm, and what happens.

    Parameters
    ----------
    rhythm
        The sinus rhythm.
    events
        In any order. Without a :class:`~simulate.events.Breathing` the breath is held perfectly.
    end_systole
        Phase at which the ventricle is smallest in a beat of the mean length: the body's own. None takes Weissler's
        regression for the mean heart rate.
    """

    rhythm: Heartbeats = field(default_factory=Heartbeats)
    events: tuple[Event, ...] = ()
    end_systole: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "events", tuple(self.events))
        if not all(isinstance(event, Event) for event in self.events):
            raise InputError(f"the events are {self.events}", expected="events of simulate.events")
        if self.end_systole is not None and not 0.1 <= self.end_systole <= 0.8:
            raise UsageError(f"end-systole at phase {self.end_systole}", expected="0.1 to 0.8")

    @property
    def systole(self) -> float:
        """Phase of end-systole in a beat of the mean length."""
        if self.end_systole is not None:
            return self.end_systole
        rr = self.rhythm.mean_rr_s
        return min((0.546 - _Q_TO_R_S - _WEISSLER_S / rr) / rr, 0.62)

    def beats(self, until_s: float) -> tuple[Tensor, Tensor]:
        """Return the true R waves, the first at or before 0 and the last well after ``until_s``, and the strokes.

        Returns
        -------
        (beat,) float64 in seconds, and (beat,) float64 stroke volume of each relative to a regular one. The same
        beats, and more, come for a later end.
        """
        events = sorted((event for event in self.events if isinstance(event, EctopicBeat)), key=lambda e: e.at_s)
        last = max([until_s, *(event.at_s for event in events)])
        waves = self.rhythm.r_waves(last + _MARGIN_S).numpy().copy()
        strokes = np.ones(len(waves))
        for event in events:
            beat = int(np.searchsorted(waves, event.at_s, side="right")) - 1
            length = waves[beat + 1] - waves[beat]
            early = (1 - event.prematurity) * length
            # Fully compensatory: the sinus beat after the one that it replaces comes when it always would have.
            waves[beat + 1 : None if not event.compensatory else beat + 2] -= early
            strokes[beat + 1 : beat + 3] = event.stroke, event.potentiation
        return torch.from_numpy(waves), torch.from_numpy(strokes)

    def at(self, times_s: Tensor) -> States:
        """Return the states at some instants.

        Parameters
        ----------
        times_s
            (instant,) float64, seconds from the first spoke, not negative.
        """
        if times_s.ndim != 1:
            raise ShapeError("times_s", times_s, "(instant,)")
        times = times_s.detach().cpu().double().numpy()
        if not np.isfinite(times).all() or times.min(initial=0.0) < 0:
            raise InputError("an instant is negative or not finite", expected="seconds from the first spoke")
        waves, strokes = (values.numpy() for values in self.beats(float(times.max(initial=0.0))))
        beat = np.searchsorted(waves, times, side="right") - 1
        phase = self._phase(times, beat, waves)
        # What fills the ventricle after end-systole is the next beat's volume; at end-systole both are as small.
        stroke = np.where(phase < self.systole, strokes[beat], strokes[beat + 1])
        shift, rotation = self._bulk(times)
        of = torch.from_numpy
        return States(of(phase), of(stroke), of(self._breath(times)), of(shift), of(rotation), of(beat))

    def recorded_ecg(self, until_s: float) -> Tensor:
        """Return the R waves that the scanner detects: (beat,) float64, ascending, the first of them at about 0.

        True ones, less those missed, more the false ones, each with the detector's error. Those well after
        ``until_s`` are left out, but for one.
        """
        named = [event.at_s for event in self.events if isinstance(event, MissedTrigger | FalseTrigger)]
        true, _ = self.beats(max([until_s, *named]))
        kept = np.ones(len(true), dtype=bool)
        waves = true.numpy()
        false: list[float] = []
        for event in self.events:
            if isinstance(event, MissedTrigger):
                kept[np.abs(waves - event.at_s).argmin()] = False
            elif isinstance(event, FalseTrigger):
                false.append(event.at_s)
            elif isinstance(event, Mistriggering):
                chance = np.random.default_rng([event.seed, 32]).random((len(waves), 2))
                during = (waves >= event.at_s) & (waves < event.stop_s)
                kept &= ~(during & (chance[:, 0] < event.missed))
                doubled = np.flatnonzero(during[:-1] & (chance[:-1, 1] < event.doubled))
                false += (waves[doubled] + _T_WAVE * self._systole_s(doubled, waves)).tolist()
        errors = np.zeros(len(waves))
        for event in self.events:
            if isinstance(event, EcgJitter):
                rng = np.random.default_rng([event.seed, 33])
                errors += event.sd_s * np.clip(rng.normal(size=len(waves)), -4, 4)
        recorded = np.sort(np.concatenate([(waves + errors)[kept], false]))
        after = int(np.searchsorted(recorded, until_s, side="right"))
        return torch.from_numpy(recorded[: after + 1])

    def spoilt(self, times_s: Tensor, tr_s: float) -> tuple[Tensor, Tensor]:
        """Return which spokes are dropped, and which have a spike: two (spoke,) bool.

        A spike hits the spoke whose TR it falls into.
        """
        dropped, spiked = torch.zeros(len(times_s), dtype=torch.bool), torch.zeros(len(times_s), dtype=torch.bool)
        for event in self.events:
            if isinstance(event, DroppedSpokes):
                dropped |= (times_s >= event.at_s) & (times_s < event.stop_s)
            elif isinstance(event, Spike):
                spiked |= spike_hits(event, times_s, tr_s)
        return dropped, spiked

    @cached_property
    def _breathing(self) -> list[Breathing]:
        return sorted((event for event in self.events if isinstance(event, Breathing)), key=lambda event: event.at_s)

    def _breath(self, times: Array) -> Array:
        breath = np.zeros(len(times))
        level = getattr(self._breathing[0], "level_mm", 0.0) if self._breathing else 0.0
        breath[:] = level
        for number, event in enumerate(self._breathing):
            inside = times >= event.at_s
            breath[inside] = level + event.displacement_mm(times[inside] - event.at_s)
            if number + 1 < len(self._breathing):
                level += float(event.displacement_mm(np.array([self._breathing[number + 1].at_s - event.at_s]))[0])
        return breath

    def _bulk(self, times: Array) -> tuple[Array, Array]:
        shift, rotation = np.zeros((len(times), 3)), np.zeros(len(times))
        for event in self.events:
            if isinstance(event, BulkShift):
                shift += _moved(times, event.at_s, event.duration_s)[:, None] * np.array(event.shift_mm)
            elif isinstance(event, BulkRotation):
                rotation += _moved(times, event.at_s, event.duration_s) * event.rotation_rad
        return shift, rotation

    def _systole_s(self, beat: npt.NDArray[np.intp], waves: Array) -> Array:
        """Duration of systole of some beats: by the interval before, as Weissler's regression by the heart rate."""
        mean = self.rhythm.mean_rr_s
        intervals = np.diff(waves)
        before = np.concatenate([[mean], intervals])[beat]
        own = intervals[np.minimum(beat, len(intervals) - 1)]
        wanted = self.systole * mean + _WEISSLER_S * (1 / mean - 1 / before)
        return np.asarray(np.minimum(np.maximum(wanted, _SHORTEST_SYSTOLE_S), _SYSTOLE_AT_MOST * own))

    def _phase(self, times: Array, beat: npt.NDArray[np.intp], waves: Array) -> Array:
        length, since = waves[beat + 1] - waves[beat], times - waves[beat]
        systole_s = self._systole_s(beat, waves)
        early = self.systole * since / systole_s
        late = self.systole + (1 - self.systole) * (since - systole_s) / (length - systole_s)
        return np.asarray(np.clip(np.where(since < systole_s, early, late), 0.0, math.nextafter(1.0, 0.0)))


def spike_hits(event: Spike, times_s: Tensor, tr_s: float) -> Tensor:
    """Return which of the spokes, one every ``tr_s``, a spike falls into: (spoke,) bool."""
    at_s = event.at_s + SLACK_S
    return (times_s <= at_s) & (at_s < times_s + tr_s)


def _moved(times: Array, at_s: float, duration_s: float) -> Array:
    """Share of a movement that is over: smooth at both ends."""
    share = np.clip((times - at_s) / duration_s, 0, 1) if duration_s > 0 else (times >= at_s).astype(np.float64)
    return np.asarray(share * share * (3 - 2 * share))
