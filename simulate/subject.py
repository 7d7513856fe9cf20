"""The virtual patient on the table of a virtual scanner: what ``phantom:SEED`` stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kspace.errors import UsageError
from simulate.body_scanner import BodyScanner, BodyScannerOptions
from simulate.event_text import parse_events
from simulate.events import Event
from simulate.magnet import MagnetSignals
from simulate.patient.anatomy import PatientBody
from simulate.patient.cardiac_cycle import timing
from simulate.patient.parameters import Group, Patient, Sex
from simulate.patient.placement import short_axis_like
from simulate.patient.population import draw_patient
from simulate.vendors import Vendor, vendor

FINER = 4 / 3
"""Pixels of the grid on which a patient is drawn, over those of the reconstruction, along each side."""


@dataclass(frozen=True)
class SubjectOptions:
    """Who lies in the scanner, and what happens meanwhile; as a person says it.

    Parameters
    ----------
    group, sex
        ``normal``, ``dilated``, ``hypertrophic``, ``infarct`` or ``abnormal_rv``; ``female`` or ``male``. None draws
        the sex from the seed; without a group the patient is healthy.
    heart_rate_bpm
        Beats per minute; None draws it.
    vendor
        Style of imaging, see :data:`simulate.vendors.VENDORS`.
    breathing, events
        See :mod:`simulate.event_text`.
    gradient_delays
        (dx, dy, dxy) in samples of the readout.
    """

    group: str | None = None
    sex: str | None = None
    heart_rate_bpm: float | None = None
    vendor: str = "siemens"
    breathing: str = "hold"
    events: tuple[str, ...] = ()
    gradient_delays: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def sex_or_none(self) -> Sex | None:
        """The sex asked for."""
        return None if self.sex is None else _choice(Sex, "--sex", self.sex)

    def patient(self, seed: int) -> Patient:
        """Draw the patient of a seed.

        Raises
        ------
        UsageError
            When there is no such group or sex.
        """
        group = _choice(Group, "--group", self.group or Group.NORMAL.value)
        return draw_patient(seed, group=group, sex=self.sex_or_none, heart_rate_bpm=self.heart_rate_bpm)


def _choice(kind: type[Any], flag: str, text: str) -> Any:
    try:
        return kind(text.replace("-", "_"))
    except ValueError:
        raise UsageError(f"{flag} {text!r} is not known", expected=", ".join(member.value for member in kind)) from None


def draw_body(patient: Patient, style: Vendor, matrix: int) -> PatientBody:
    """Return a patient's short-axis stack as a scanner of a style would image it, on a grid finer than ``matrix``."""
    fine = math.ceil(FINER * matrix)
    geometry = short_axis_like(patient, style.geometry).with_matrix(fine, fine)
    return PatientBody(patient, geometry, signals=MagnetSignals(patient, geometry, style.sequence))


def scan_patient(patient: Patient, subject: SubjectOptions, scanner: Mapping[str, Any], *, seed: int) -> BodyScanner:
    """Put a patient into a scanner.

    Parameters
    ----------
    patient
        Who it is.
    subject
        The scanner's style and what happens during the scan.
    scanner
        Options of :class:`~simulate.body_scanner.BodyScannerOptions` that differ from the style's.
    seed
        Of noise, coils, ECG and rhythm.
    """
    style = vendor(subject.vendor)
    events: tuple[Event, ...] = parse_events(subject.breathing, subject.events)
    given = {"matrix": style.matrix, "tr_s": style.tr_s, "gradient_delays": subject.gradient_delays, **scanner}
    options = BodyScannerOptions(**given, seed=seed)
    assert options.matrix is not None
    if not 8 <= options.matrix <= 512:
        raise UsageError(f"--matrix {options.matrix}", expected="8 to 512 for a virtual patient")
    body = draw_body(patient, style, options.matrix)
    return BodyScanner(
        body,
        options,
        rr_s=patient.rr_s,
        end_systole=timing(patient.rhythm).end_systole,
        events=events,
        description=f"virtual patient {patient.seed} ({patient.group.value}, {patient.sex.value}, {style.name} style)",
    )
