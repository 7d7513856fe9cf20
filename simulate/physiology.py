"""What a patient's body adds to the pictures: heartbeats that are never quite alike, and a phase across the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError


@dataclass(frozen=True)
class Heartbeats:
    """A rhythm: RR intervals that follow the breath (respiratory sinus arrhythmia) and vary at random besides.

    Source: Task Force of the ESC and NASPE, Circulation 93:1043, 1996, for the components of short-term variability.

    Parameters
    ----------
    mean_rr_s
        Mean RR interval in seconds.
    variability
        Standard deviation of the RR intervals over their mean.
    respiratory_share
        Share of the variance that follows the breath; the rest is white.
    breathing_hz
        Breaths per second.
    prospective
        True where the scan is triggered: the first R wave is at 0 exactly. Otherwise it is at a random phase before 0.
    seed
        The same seed gives the same beats, however many are asked for.

    Raises
    ------
    InputError
        When a number lies outside what a heart can do.
    """

    mean_rr_s: float = 0.9
    variability: float = 0.03
    respiratory_share: float = 0.5
    breathing_hz: float = 0.25
    prospective: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("mean_rr_s", 0.2, 3.0),
            ("variability", 0.0, 0.3),
            ("respiratory_share", 0.0, 1.0),
            ("breathing_hz", 0.01, 2.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"the heartbeats' {name} is {getattr(self, name)}", expected=f"a number from {low} to {high}"
                )
        if self.seed < 0:
            raise InputError(f"the heartbeats' seed is {self.seed}", expected="0 or more")

    def r_waves(self, duration_s: float) -> Tensor:
        """Return the instants of R waves: (beat,) float64, seconds, ascending.

        The first is at or before 0 and the last after ``duration_s``, so that every instant of the scan has an R wave
        on either side of it. No interval is shorter than half the mean or longer than one and a half of it.
        """
        if not (np.isfinite(duration_s) and duration_s >= 0):
            raise InputError(f"the duration is {duration_s} s", expected="a finite number, 0 or more")
        rng = np.random.default_rng([self.seed, 21])
        start, breath = rng.random(), 2 * np.pi * rng.random()
        slow, fast = np.sqrt(2 * self.respiratory_share), np.sqrt(1 - self.respiratory_share)
        instants = [0.0]  # counted from the first R wave
        offset = 0.0
        while instants[-1] + offset <= duration_s:
            wave = slow * np.sin(2 * np.pi * self.breathing_hz * instants[-1] + breath) + fast * rng.normal()
            interval = self.mean_rr_s * float(np.clip(1 + self.variability * wave, 0.5, 1.5))
            if len(instants) == 1 and not self.prospective:
                offset = -start * interval
            instants.append(instants[-1] + interval)
        return torch.tensor(instants, dtype=torch.float64) + offset


def smooth_phase_map(shape: tuple[int, int], seed: int) -> Tensor:
    """Return a smooth image phase, as of the static field and the receivers, to make a magnitude cine complex.

    A polynomial of second order and a few waves of up to one and a half periods across the field of view, which reach
    somewhere between 0.6 and 1 times +-pi. It depends on the place in the field of view: the same on every matrix.

    Parameters
    ----------
    shape
        Number of (rows, columns).
    seed
        The same seed gives the same phase.

    Returns
    -------
    (y, x) complex64 of unit modulus.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ShapeError("the phase map", tuple(shape), "(rows, columns), each at least 1")
    if seed < 0:
        raise InputError(f"the phase map's seed is {seed}", expected="0 or more")
    rng = np.random.default_rng([seed, 22])
    terms = rng.normal(size=6) * np.array([0.5, 1.0, 1.0, 1.5, 1.5, 1.5])
    waves = np.stack([*rng.uniform(-1.5, 1.5, (2, 4)), rng.uniform(0, 2 * np.pi, 4), 0.25 * rng.normal(size=4)], 1)
    reach = np.pi * rng.uniform(0.6, 1.0)

    def phase(rows: int, columns: int) -> np.ndarray:
        y = ((np.arange(rows) - rows // 2) / rows)[:, None]
        x = ((np.arange(columns) - columns // 2) / columns)[None, :]
        total = sum(t * b for t, b in zip(terms, (1.0, x, y, x * x, x * y, y * y), strict=True))
        for kx, ky, start, size in waves:
            total = total + size * np.sin(2 * np.pi * (kx * x + ky * y) + start)
        return np.asarray(total)

    scale = reach / np.abs(phase(64, 64)).max()
    return torch.from_numpy(np.exp(1j * scale * phase(*shape)).astype(np.complex64))
