"""Scans to learn reconstruction from: virtual patients under the virtual scanner, with what a perfect scan would show.

Nothing is made simpler than in a scan that is judged: whole bodies on a finer grid, every spoke at its own instant,
noise, coil maps estimated from the spokes. All synthetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kspace.coils import whiten, whitening_matrix
from kspace.equations import NormalEquations
from kspace.errors import UsageError
from kspace.noise import noise_std
from kspace.recon.locally_low_rank import LocallyLowRank
from kspace.recon.method import Method
from kspace.recon.temporal_tv import TemporalTV
from simulate.body_scanner import BodySlice
from simulate.calibration import Calibration, calibrate
from simulate.gated import GatedEquations
from simulate.patient.parameters import Group
from simulate.patient.population import draw_patient
from simulate.subject import SubjectOptions, scan_patient
from simulate.training.dataset import Split, patient_seed
from simulate.vendors import VENDORS, vendor

START = LocallyLowRank(max_iterations=30)
"""What an unrolled network starts from: compressed sensing that has come most of its way."""
SECOND = TemporalTV()
"""What it sees beside it: images whose errors are others."""
WARM_ITERATIONS = 4
"""Of it, at least, where it goes on from earlier images (docs/unrolled.md)."""


@dataclass(frozen=True)
class Protocol:
    """How one slice of one patient is scanned.

    Parameters
    ----------
    vendor, group
        See :class:`~simulate.subject.SubjectOptions`.
    slice_index
        Counted from the base.
    matrix, n_coils, snr, golden_order
        See :class:`~simulate.body_scanner.BodyScannerOptions`.
    n_frames
        Cardiac phases.
    seconds
        When the scan is reconstructed, in rising order.
    """

    vendor: str
    group: Group
    slice_index: int
    matrix: int
    n_coils: int
    snr: float
    golden_order: int
    n_frames: int
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class ProtocolRange:
    """What protocols are drawn from.

    Parameters
    ----------
    groups
        Share of each diagnostic group, in the order of :class:`~simulate.patient.parameters.Group`.
    vendors
        Equally likely.
    matrix, n_coils, n_frames
        Smallest and largest; the field of view is the vendor's.
    snr
        Smallest and largest; drawn evenly in the logarithm.
    seconds
        One reconstruction in each of these ranges, drawn evenly in the logarithm.
    tiny
        Share of scans with a tiny golden angle.
    """

    groups: tuple[float, ...] = (0.36, 0.18, 0.18, 0.14, 0.14)
    vendors: tuple[str, ...] = tuple(VENDORS)
    matrix: tuple[int, int] = (160, 208)
    n_coils: tuple[int, int] = (4, 16)
    n_frames: tuple[int, int] = (20, 30)
    snr: tuple[float, float] = (12.0, 60.0)
    seconds: tuple[tuple[float, float], ...] = ((0.8, 1.6), (1.6, 4.5), (4.5, 12.0))
    tiny: float = 0.15

    def draw(self, rng: np.random.Generator) -> Protocol:
        """Draw a protocol."""

        def log_within(low: float, high: float) -> float:
            return float(np.exp(rng.uniform(math.log(low), math.log(high))))

        style = vendor(str(rng.choice(self.vendors)))
        return Protocol(
            vendor=style.name,
            group=list(Group)[int(rng.choice(len(Group), p=self.groups))],
            slice_index=int(rng.integers(1, style.n_slices - 1)),
            matrix=2 * int(rng.integers(self.matrix[0] // 2, self.matrix[1] // 2 + 1)),
            n_coils=int(rng.integers(self.n_coils[0], self.n_coils[1] + 1)),
            snr=log_within(*self.snr),
            golden_order=int(rng.integers(2, 8)) if rng.random() < self.tiny else 1,
            n_frames=int(rng.integers(self.n_frames[0], self.n_frames[1] + 1)),
            seconds=tuple(log_within(*limits) for limits in self.seconds),
        )


@dataclass(frozen=True)
class TrainingScan:
    """A scan as far as it had come at some time, and the truth.

    Parameters
    ----------
    equations
        Sums over its spokes.
    maps
        (coil, y, x) complex, estimated from them.
    noise_std
        Of one whitened sample, estimated from them.
    start
        (frame, y, x) complex, the compressed-sensing image that the network begins with.
    second
        (frame, y, x) complex, the other that it sees.
    target
        (frame, y, x) complex, the images of a perfect scan, combined with ``maps``.
    labels
        (frame, y, x) uint8.
    shading
        (y, x); see :class:`~simulate.acquisition.Calibration`.
    truth
        (frame, y, x) real; the magnitude that ``shading`` times the image should show.
    seconds
        Of scanning.
    seed
        The patient's.
    """

    equations: NormalEquations
    maps: Tensor
    noise_std: float
    start: Tensor
    second: Tensor
    target: Tensor
    labels: Tensor
    shading: Tensor
    truth: Tensor
    seconds: float
    seed: int


def draw_protocol(index: int, split: Split | str, limits: ProtocolRange | None = None, *, epoch: int = 0) -> Protocol:
    """Return how a patient of a split is scanned; ``epoch`` changes the protocol, not the patient."""
    return (limits or ProtocolRange()).draw(np.random.default_rng([patient_seed(index, split), 600, epoch]))


def simulated_scans(
    seed: int, protocol: Protocol, method: Method | None = None, *, scanner_seed: int | None = None
) -> Iterator[TrainingScan]:
    """Scan a virtual patient and yield the state of the scan at each of the protocol's times.

    Parameters
    ----------
    seed
        The patient's, see :func:`~simulate.training.dataset.patient_seed`.
    protocol
        How.
    method
        Gives the start.
    scanner_seed
        Of noise, coils and rhythm; by default follows the patient's.

    Raises
    ------
    UsageError
        When the times do not rise.
    """
    if list(protocol.seconds) != sorted(set(protocol.seconds)) or not protocol.seconds or protocol.seconds[0] <= 0:
        raise UsageError(f"reconstructions at {protocol.seconds} s", expected="rising times, the first above 0")
    method = method or START
    stream = open_slice(seed, protocol, scanner_seed=scanner_seed)
    truth, labels = stream.truth(protocol.n_frames), stream.labels(protocol.n_frames)
    channels = stream.channel_truth(protocol.n_frames)
    gated = GatedEquations(protocol.n_frames, method)
    now, n_calibrated = 0.0, 0.0
    calibration: Calibration | None = None
    for seconds in protocol.seconds:
        raw = stream.acquire(seconds - now)
        now = seconds
        batch = whiten(raw)
        equations = gated.add(batch, gated.foresee(batch))
        whitening = None if raw.noise_covariance is None else whitening_matrix(raw.noise_covariance)
        spokes = float(equations.spokes.sum())
        if calibration is None or spokes >= 4 * n_calibrated:  # as often as the loop does
            calibration, n_calibrated = calibrate(equations, whitening), spokes
        noise = noise_std(batch)
        start, second = (each(equations, calibration.maps, noise_std=noise).image for each in (method, SECOND))
        combine = calibration.maps.conj().to(channels)
        if whitening is not None:
            combine = torch.einsum("cyx,cd->dyx", combine, whitening.to(channels))
        target = torch.einsum("cyx,fcyx->fyx", combine, channels)
        # A copy: the sums go on growing.
        yield TrainingScan(
            deepcopy(equations),
            calibration.maps,
            noise,
            start,
            second,
            target,
            labels,
            calibration.shading,
            truth,
            seconds,
            seed,
        )


def open_slice(seed: int, protocol: Protocol, *, scanner_seed: int | None = None) -> BodySlice:
    """Put a virtual patient into the scanner and start the scan of the protocol's slice."""
    subject = SubjectOptions(group=protocol.group.value, vendor=protocol.vendor)
    scanner = {
        "matrix": protocol.matrix,
        "n_coils": protocol.n_coils,
        "snr": protocol.snr,
        "golden_order": protocol.golden_order,
    }
    patient = draw_patient(seed, group=protocol.group)
    source = scan_patient(patient, subject, scanner, seed=seed if scanner_seed is None else scanner_seed)
    return source.open_slice(protocol.slice_index)
