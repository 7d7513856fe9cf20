"""What happens during a scan: breathing, movement, arrhythmia, false triggers, faults; typed events with their times.

Times are in seconds from the first spoke of the slice. Events are facts about the patient and the scanner; a
:class:`~simulate.timeline.Timeline` tells from them in which state the body is at an instant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from kspace.errors import UsageError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Event:
    """Something that happens at ``at_s``.

    Parameters
    ----------
    at_s
        When it begins, in seconds from the first spoke.
    """

    at_s: float = 0.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(math.isfinite(number) for number in numbers):
                raise UsageError(f"{self.name}: {entry.name} is {value}", expected="finite numbers")
        if self.at_s < 0:
            raise UsageError(f"{self.name} at {self.at_s} s", expected="0 s or later: the first spoke is at 0")

    @property
    def name(self) -> str:
        """Name of the event, as in a record."""
        return type(self).__name__

    def _require(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise UsageError(f"{self.name}: {name} is {value}", expected=f"{low:g} to {high:g}")


@dataclass(frozen=True)
class Breathing(Event):
    """A way to breathe, from ``at_s`` until the next event of this kind; it goes on from where the last one ended."""

    def displacement_mm(self, since_s: Array) -> Array:
        """Return how far the diaphragm has moved towards the feet so long after the event began, in mm."""
        raise NotImplementedError


@dataclass(frozen=True)
class BreathHold(Breathing):
    """A breath-hold during which the diaphragm drifts, as gas is taken up and muscles tire.

    Parameters
    ----------
    drift_mm_s
        Speed of the diaphragm in mm/s, positive towards the feet; at end-expiration it rises by 0.15 mm/s on average
        (Holland et al., Radiology 209:483, 1998).
    level_mm
        Where it is held, in mm from the breath-hold position, where the hold begins the scan.
    """

    drift_mm_s: float = 0.0
    level_mm: float = 0.0

    def displacement_mm(self, since_s: Array) -> Array:
        """Return the drift."""
        return self.drift_mm_s * since_s


@dataclass(frozen=True)
class FreeBreathing(Breathing):
    """Breathing with a rest at end-expiration: ``amplitude sin^(2 n)(pi t / period)``, each breath a little different.

    Lujan et al., Med Phys 26:715, 1999.

    Parameters
    ----------
    amplitude_mm
        Of the diaphragm, end-expiration to end-inspiration.
    rate_hz
        Breaths per second.
    dwell
        The exponent n: the larger, the longer the rest.
    variability
        Standard deviation of each breath's amplitude and length, as a share.
    started
        Share of a breath that is over when the event begins; 0 is end-expiration.
    seed
        Of the variability.
    """

    amplitude_mm: float = 12.0
    rate_hz: float = 0.25
    dwell: int = 2
    variability: float = 0.1
    started: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("amplitude_mm", -60, 60)
        self._require("rate_hz", 0.02, 2)
        self._require("dwell", 1, 10)
        self._require("variability", 0, 0.3)
        self._require("started", 0, 1)
        self._require("seed", 0, 2**62)

    def displacement_mm(self, since_s: Array) -> Array:
        """Return the displacement from where it began."""
        longest = float(since_s.max(initial=0.0))
        rng = np.random.default_rng([self.seed, 31])
        starts, amplitudes, lengths = [], [], []
        start = None
        while start is None or start <= longest:
            vary = 1 + self.variability * np.clip(rng.normal(size=2), -2.5, 2.5)
            length = vary[0] / self.rate_hz
            start = -self.started * length if start is None else start
            starts.append(start)
            amplitudes.append(self.amplitude_mm * vary[1])
            lengths.append(length)
            start += length
        breath = np.clip(np.searchsorted(starts, since_s, side="right") - 1, 0, None)
        share = (since_s - np.array(starts)[breath]) / np.array(lengths)[breath]
        wave = np.array(amplitudes)[breath] * np.sin(math.pi * share) ** (2 * self.dwell)
        return np.asarray(wave - amplitudes[0] * math.sin(math.pi * self.started) ** (2 * self.dwell))


@dataclass(frozen=True)
class BreathHoldFails(FreeBreathing):
    """The patient cannot hold it any longer: deep breaths from ``at_s`` on."""

    amplitude_mm: float = 20.0
    rate_hz: float = 0.35
    dwell: int = 1


@dataclass(frozen=True)
class BulkShift(Event):
    """The whole body moves and stays there.

    Parameters
    ----------
    shift_mm
        Along (x, y, z): towards the left, the back and the apex.
    duration_s
        How long the movement takes.
    """

    shift_mm: tuple[float, float, float] = (5.0, 0.0, 0.0)
    duration_s: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("duration_s", 0, 60)
        if len(self.shift_mm) != 3 or max(abs(part) for part in self.shift_mm) > 100:
            raise UsageError(f"a shift of {self.shift_mm} mm", expected="(x, y, z), each within 100 mm")


@dataclass(frozen=True)
class BulkRotation(Event):
    """The whole body turns in the slice plane about the middle of the field of view, and stays there.

    Parameters
    ----------
    rotation_rad
        From +x (left) towards +y (back).
    duration_s
        How long the movement takes.
    """

    rotation_rad: float = math.radians(5)
    duration_s: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("rotation_rad", -math.pi, math.pi)
        self._require("duration_s", 0, 60)


@dataclass(frozen=True)
class EctopicBeat(Event):
    """A ventricular premature beat: it cuts short the beat in progress, ejects little, and a pause follows.

    Parameters
    ----------
    prematurity
        When it comes, as a share of the beat that it cuts short.
    stroke
        Its stroke volume relative to a regular beat's.
    potentiation
        Stroke volume of the beat after it, likewise.
    compensatory
        Whether the pause is fully compensatory: the next sinus beat is lost and the rhythm goes on as before.
        Otherwise the sinus node starts anew.
    """

    prematurity: float = 0.6
    stroke: float = 0.5
    potentiation: float = 1.1
    compensatory: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("prematurity", 0.3, 1.0)
        self._require("stroke", 0.05, 1.5)
        self._require("potentiation", 0.05, 1.5)


@dataclass(frozen=True)
class MissedTrigger(Event):
    """The R wave nearest to ``at_s`` is not detected."""


@dataclass(frozen=True)
class FalseTrigger(Event):
    """Something at ``at_s`` is taken for an R wave: a high T wave, or the gradients."""


@dataclass(frozen=True)
class Mistriggering(Event):
    """A poor ECG from ``at_s`` on: R waves missed and T waves taken for R waves, at random.

    Parameters
    ----------
    stop_s
        When it ends.
    missed, doubled
        Probability of each beat to be missed, and to be counted twice, the second time at the T wave.
    seed
        Of the choice.
    """

    stop_s: float = 1e6
    missed: float = 0.15
    doubled: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("missed", 0, 1)
        self._require("doubled", 0, 1)
        self._require("stop_s", self.at_s, math.inf)
        self._require("seed", 0, 2**62)


@dataclass(frozen=True)
class EcgJitter(Event):
    """The detector finds R waves a little early or late, all through the scan.

    Parameters
    ----------
    sd_s
        Standard deviation in seconds.
    seed
        Of the errors.
    """

    sd_s: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("sd_s", 0, 0.1)
        self._require("seed", 0, 2**62)


@dataclass(frozen=True)
class Spike(Event):
    """A spark: one sample of the spoke at ``at_s`` is huge, in all channels.

    Parameters
    ----------
    size
        Over the largest sample of that spoke.
    readout
        Where on the spoke, from -0.5 to 0.5; 0 is the centre of k-space.
    """

    size: float = 2.0
    readout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("size", 0, 1e4)
        self._require("readout", -0.5, 0.5)


@dataclass(frozen=True)
class DroppedSpokes(Event):
    """No signal is received from ``at_s`` to ``stop_s``: the spokes hold noise alone.

    Parameters
    ----------
    stop_s
        When it ends.
    """

    stop_s: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("stop_s", self.at_s, math.inf)
