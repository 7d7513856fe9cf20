"""A few short-axis slices of a virtual patient in a small field of view.

What lies outside a disc about the heart gives no signal, as after an ideal suppression of the outer volume: a smaller
matrix then holds all that is seen, and a study of many patients becomes affordable. Coils lie around what is seen.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kspace.scan import Geometry
from simulate.body import BodyState, Window
from simulate.body_scanner import BodyScanner, BodyScannerOptions
from simulate.events import BreathHold, EctopicBeat, Event
from simulate.magnet import MagnetSignals
from simulate.patient.anatomy import PatientBody
from simulate.patient.cardiac_cycle import timing
from simulate.patient.parameters import Patient
from simulate.patient.placement import short_axis_geometry
from simulate.patient.population import draw_patient
from simulate.study.protocol import Protocol, Who
from simulate.subject import FINER
from simulate.vendors import vendor

PASSED, STOPPED = 0.36, 0.48
"""Radii of the disc, as shares of the field of view, at which the signal begins to fall and is gone."""
_HEARTS_MIDDLE_MM = 22.0  # of both ventricles, from the axis of the left one to the patient's right
_PLANES = 3  # through a slice
_PHASES = 24  # cardiac states that are drawn: twice the frames, joined by splines
_DRIFT_MM_S, _ECTOPIC_S = -0.3, 5.0


class SuppressedBody:
    """A :class:`~simulate.body.Body` seen through the disc.

    Parameters
    ----------
    body
        All of it.
    """

    def __init__(self, body: PatientBody) -> None:
        self.whole = body
        _, rows, columns = body.geometry.shape
        y, x = ((torch.arange(n) - n // 2) / n for n in (rows, columns))
        radius = torch.sqrt(y[:, None] ** 2 + x**2)
        outside = ((radius - PASSED) / (STOPPED - PASSED)).clamp(0, 1)
        self._gain = (torch.cos(math.pi / 2 * outside) ** 2).to(torch.complex64)

    @property
    def geometry(self) -> Geometry:
        """The fine grid on which the body is drawn."""
        return self.whole.geometry

    @property
    def heart_window(self) -> Window:
        """See :class:`~simulate.body.Body`."""
        return self.whole.heart_window

    def window_of(self, slice_index: int, state: BodyState) -> Window:
        """See :meth:`~simulate.patient.anatomy.PatientBody.window_of`."""
        return self.whole.window_of(slice_index, state)

    def image(self, slice_index: int, state: BodyState, window: Window | None = None) -> Tensor:
        """See :class:`~simulate.body.Body`."""
        gain = self._gain if window is None else self._gain[slice(*window.rows), slice(*window.columns)]
        return self.whole.image(slice_index, state, window) * gain

    def labels(self, slice_index: int, state: BodyState) -> Tensor:
        """See :class:`~simulate.body.Body`."""
        return self.whole.labels(slice_index, state)

    def volumes_ml(self, state: BodyState) -> dict[str, float]:
        """Return the exact volumes of the whole heart."""
        return self.whole.volumes_ml(state)


def stack_geometry(patient: Patient, protocol: Protocol) -> Geometry:
    """Plan the slices: on a grid finer than the reconstruction's, about the middle of both ventricles.

    The operator misses the middle by a third of what he misses it by in a large field of view.
    """
    place = patient.placement
    view = replace(
        place,
        view_x_mm=_HEARTS_MIDDLE_MM + (place.view_x_mm - 4) / 3,
        view_y_mm=(place.view_y_mm + 28) / 3,
    )
    fine = math.ceil(FINER * protocol.matrix)
    step = patient.left.length_mm / protocol.n_slices
    thickness = min(protocol.thickness_mm, step)
    return short_axis_geometry(
        replace(patient, placement=view), n_slices=protocol.n_slices, rows=fine, columns=fine,
        pixel_mm=protocol.field_of_view_mm / fine, thickness_mm=thickness, gap_mm=step - thickness, first_mm=0.5 * step,
    )  # fmt: skip


def scan_who(protocol: Protocol, who: Who) -> BodyScanner:
    """Put a patient of a study into the scanner."""
    patient = draw_patient(who.seed, group=who.group, heart_rate_bpm=protocol.heart_rate_bpm)
    style = vendor(who.vendor)
    geometry = stack_geometry(patient, protocol)
    signals = MagnetSignals(patient, geometry, style.sequence)
    body = SuppressedBody(PatientBody(patient, geometry, signals=signals, planes=_PLANES, cached_slices=2))
    options = BodyScannerOptions(
        n_phases=_PHASES,
        matrix=protocol.matrix, n_coils=protocol.n_coils, snr=who.snr, seed=who.seed % 2**31,
        tr_s=style.tr_s if protocol.tr_ms is None else protocol.tr_ms / 1e3,
    )  # fmt: skip
    return BodyScanner(
        body, options, rr_s=patient.rr_s, end_systole=timing(patient.rhythm).end_systole,
        events=_events(protocol, who), description=f"virtual patient {who.seed} ({who.group.value})",
    )  # fmt: skip


def _events(protocol: Protocol, who: Who) -> tuple[Event, ...]:
    events: list[Event] = [BreathHold(drift_mm_s=_DRIFT_MM_S if who.drifting else 0.0)]
    if who.ectopic:
        rng = np.random.default_rng([who.seed, 901])
        at = float(rng.uniform(0.3, _ECTOPIC_S))
        while at < protocol.seconds[-1]:
            events.append(EctopicBeat(at))
            at += float(rng.uniform(0.6, 1.4)) * _ECTOPIC_S
    return tuple(events)
