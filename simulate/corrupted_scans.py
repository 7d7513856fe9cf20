"""Virtual patients whose scans go wrong in a known way; all synthetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from kspace.coils import whiten, whitening_matrix
from kspace.gating import assign_frames
from kspace.scan import RadialScan
from simulate.body_scanner import BodyScanner, BodySlice
from simulate.corruption import SpokeCorruption, corruption_of
from simulate.corruption_levels import Corruption
from simulate.events import Breathing, EcgJitter, Event
from simulate.patient.cardiac_cycle import filling
from simulate.patient.parameters import Group, Patient
from simulate.patient.population import draw_patient
from simulate.subject import SubjectOptions, scan_patient
from simulate.training.dataset import Split, patient_seed
from simulate.vendors import VENDORS, vendor


@dataclass(frozen=True)
class CorruptedScan:
    """A scan of one slice.

    Parameters
    ----------
    spokes
        Whitened.
    frame
        (spoke,) int64, the frame that each was sorted into.
    corruption
        What is wrong with each.
    n_frames
        Cardiac phases.
    whitening
        (coil, coil), what the spokes were multiplied by.
    """

    spokes: RadialScan
    frame: Tensor
    corruption: SpokeCorruption
    n_frames: int
    whitening: Tensor


@dataclass(frozen=True)
class PatientSetting:
    """How a patient of the studies is scanned.

    Parameters
    ----------
    matrix, n_coils, n_frames, snr, seconds
        As everywhere.
    breath_step_mm
        See :class:`~simulate.body_states.Sharing`; coarse, as most of the time goes into drawing breaths.
    """

    matrix: int = 112
    n_coils: int = 6
    n_frames: int = 20
    snr: float = 30.0
    seconds: float = 4.0
    breath_step_mm: float = 2.0


class StudyPatient:
    """One slice of one virtual patient, to be scanned again and again; what was drawn is kept.

    Parameters
    ----------
    index, split
        Who it is.
    setting
        How the scan is set up.
    """

    def __init__(self, index: int, split: Split | str, setting: PatientSetting) -> None:
        seed = patient_seed(index, split)
        rng = np.random.default_rng([seed, 700])
        style = vendor(list(VENDORS)[int(rng.integers(len(VENDORS)))])
        group = list(Group)[int(rng.choice(len(Group), p=(0.36, 0.18, 0.18, 0.14, 0.14)))]
        self.setting = setting
        self.patient: Patient = draw_patient(seed, group=group)
        self.scanner: BodyScanner = scan_patient(
            self.patient, SubjectOptions(group=group.value, vendor=style.name),
            {"matrix": setting.matrix, "n_coils": setting.n_coils, "snr": setting.snr,
             "breath_step_mm": setting.breath_step_mm}, seed=seed,
        )  # fmt: skip
        n_slices = self.scanner.geometry.shape[0]
        self.index = int(rng.integers(n_slices // 3, 2 * n_slices // 3 + 1))
        self.slice: BodySlice = self.scanner.open_slice(self.index)

    def stream(self, corruptions: Sequence[Corruption], *, seconds: float | None = None) -> BodySlice:
        """Return the slice before its first spoke, with corruptions to come."""
        events: list[Event] = []
        for corruption in corruptions:
            events += corruption.events(seconds or self.setting.seconds, self.scanner.rr_s, self.scanner.options.tr_s)
        own = self.slice.timeline
        kept = [e for e in own.events if not isinstance(e, EcgJitter)] if _any(events, EcgJitter) else list(own.events)
        kept = [e for e in kept if not isinstance(e, Breathing)] if _any(events, Breathing) else kept
        return self.slice.again(replace(own, events=(*kept, *events)))

    def scan(self, corruptions: Sequence[Corruption] = ()) -> CorruptedScan:
        """Scan with some corruptions; without any the scan is clean."""
        setting = self.setting
        stream = self.stream(corruptions)
        raw = stream.acquire(setting.seconds)
        assert raw.noise_covariance is not None
        whitening, spokes = whitening_matrix(raw.noise_covariance), whiten(raw)
        frame = assign_frames(spokes, setting.n_frames)
        truth, sorted_into = stream.spoke_truth(), None
        for corruption in corruptions:
            swapped = corruption.swap(frame, setting.n_frames)
            if not torch.equal(swapped, frame):
                moved = swapped != frame
                sorted_into = truth.gated_phase if sorted_into is None else sorted_into
                sorted_into = torch.where(moved, (swapped + 0.5) / setting.n_frames, sorted_into)
                frame = swapped
        rhythm = self.patient.rhythm
        wrong = corruption_of(truth, lambda phase: filling(rhythm, phase), frame_phase=sorted_into)
        return CorruptedScan(spokes, frame, wrong, setting.n_frames, whitening)


def _any(events: Sequence[Event], kind: type[Event]) -> bool:
    return any(isinstance(event, kind) for event in events)
