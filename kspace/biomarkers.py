"""What a heart is measured by: volumes, ejection fraction, mass and rates, each with its interval or why it is missing.

End-diastole and end-systole are those of the LV, for the RV too, as in clinical practice: the frames of its largest and
its smallest volume. Mass is that of the myocardium at end-diastole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kspace.errors import InputError
from kspace.segment.segmentation import FOREGROUND, Segmentation, Structure
from kspace.volume_curves import VolumeCurves, peak_rates, volume_curves

BIOMARKERS = (
    "lv_edv_ml",
    "lv_esv_ml",
    "lv_sv_ml",
    "lv_ef_percent",
    "lv_mass_g",
    "rv_edv_ml",
    "rv_esv_ml",
    "rv_ef_percent",
)
"""The keys that others read, in ``scan.json`` and every ``--json`` answer."""
FURTHER = ("rv_sv_ml", "lv_peak_filling_ml_s", "lv_peak_emptying_ml_s")
"""Measures beside them."""
MUSCLE_G_PER_ML = 1.05
"""Density of myocardium, the convention of the field (Schulz-Menger et al., JCMR 22:19, 2020)."""
LEAST_SAMPLES = 3
"""Fewer samples give no interval."""
QUANTILES = (0.05, 0.95)
"""Of the samples: an interval holds nine of ten."""


@dataclass(frozen=True)
class Measure:
    """A number, and the interval in which it is thought to lie; None where nobody can tell."""

    value: float
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Return ``value``, ``low`` and ``high``."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Missing:
    """Why there is no number."""

    reason: str


@dataclass(frozen=True)
class Biomarkers:
    """What was measured of one heart.

    Parameters
    ----------
    measures
        A :class:`Measure` or :class:`Missing` for each of :data:`BIOMARKERS` and :data:`FURTHER`.
    ed_frame, es_frame
        End-diastole and end-systole; None where there is no LV.
    warnings
        What makes the numbers less than they say, in sentences.
    """

    measures: Mapping[str, Measure | Missing]
    ed_frame: int | None
    es_frame: int | None
    warnings: tuple[str, ...] = ()

    def value(self, name: str) -> float:
        """Return a number, NaN where it is missing."""
        measure = self.measures[name]
        return measure.value if isinstance(measure, Measure) else float("nan")

    def to_dict(self) -> dict[str, dict[str, float | None] | None]:
        """Return each of :data:`BIOMARKERS` as ``value``, ``low`` and ``high``, or None: see :meth:`missing`."""
        return {name: _plain(self.measures[name]) for name in BIOMARKERS}

    def missing(self) -> dict[str, str]:
        """Return the reason for each of :data:`BIOMARKERS` that is None in :meth:`to_dict`."""
        return {name: m.reason for name in BIOMARKERS if isinstance(m := self.measures[name], Missing)}

    def record(self) -> dict[str, Any]:
        """Return all of it for JSON: ``biomarkers``, ``biomarkers_missing``, ``beat`` and ``biomarker_warnings``."""
        further = {name: _plain(self.measures[name]) for name in FURTHER}
        reasons = {name: m.reason for name in FURTHER if isinstance(m := self.measures[name], Missing)}
        return {
            "biomarkers": self.to_dict(),
            "biomarkers_missing": self.missing(),
            "beat": {"ed_frame": self.ed_frame, "es_frame": self.es_frame, **further, "missing": reasons},
            "biomarker_warnings": list(self.warnings),
        }


def _plain(measure: Measure | Missing) -> dict[str, float | None] | None:
    return measure.to_dict() if isinstance(measure, Measure) else None


def biomarkers(segmentation: Segmentation, rr_s: float | None = None, *, scale: float = 1.0) -> Biomarkers:
    """Measure a segmented heart; its samples give the intervals.

    Parameters
    ----------
    segmentation
        Labels, positions of slices and samples.
    rr_s
        Length of the beat in seconds, for rates; None where it is not known.
    scale
        Width of the intervals relative to the spread of the samples, from calibration. Each sample is measured as the
        labels are, with its own end-diastole and end-systole. An interval reaches from the value as far down and up as
        the samples' 5 and 95 % quantiles, times ``scale``; it always holds the value. Below
        :data:`LEAST_SAMPLES` samples that have the measure there is none.

    Raises
    ------
    InputError
        When ``scale`` is negative or not finite.
    """
    if not 0 <= scale < float("inf"):
        raise InputError(f"the scale of intervals is {scale}", expected="a number that is not negative")
    geometry, positions = segmentation.geometry, segmentation.positions
    measured = measure(volume_curves(segmentation.labels, geometry, positions), rr_s)
    samples = [measure(volume_curves(labels, geometry, positions), rr_s) for labels in segmentation.samples]
    with_intervals: dict[str, Measure | Missing] = {}
    for name, found in measured.measures.items():
        if isinstance(found, Measure):
            values = [m.value for sample in samples if isinstance(m := sample.measures[name], Measure)]
            low, high = interval(_double(found.value), _double(values), scale)
            # A spread made wider by a scale may leave what is possible.
            low = None if low is None else low.clamp_min(min(found.value, 0.0))
            high = high if high is None or not name.endswith("percent") else high.clamp_max(100.0)
            found = Measure(found.value, _number(low), _number(high))
        with_intervals[name] = found
    return Biomarkers(with_intervals, measured.ed_frame, measured.es_frame, measured.warnings)


def measure(curves: VolumeCurves, rr_s: float | None = None) -> Biomarkers:
    """Measure the volumes of one beat, without intervals.

    Parameters
    ----------
    curves
        In frames without any label nothing is measured: experts draw two phases.
    rr_s
        Length of the beat in seconds; None where it is not known.
    """
    ed, es = curves.ed_frame, curves.es_frame
    found: dict[str, Measure | Missing] = {}
    reason = _why_no_volumes(curves)
    if reason or ed is None or es is None:
        found = dict.fromkeys((*BIOMARKERS, *FURTHER), Missing(reason))
        return Biomarkers(found, ed, es)
    left, wall, right = (curves.of(structure) for structure in FOREGROUND)
    found |= _ventricle("lv", float(left[ed]), float(left[es]), two_phases=ed != es)
    mass = float(wall[ed]) * MUSCLE_G_PER_ML
    found["lv_mass_g"] = Measure(mass) if mass > 0 else Missing("there is no myocardium at end-diastole")
    if float(right[ed]) > 0:
        found |= _ventricle("rv", float(right[ed]), float(right[es]), two_phases=ed != es)
    else:
        found |= dict.fromkeys(
            ("rv_edv_ml", "rv_esv_ml", "rv_sv_ml", "rv_ef_percent"), Missing("there is no RV at end-diastole")
        )
    found |= _rates(left, rr_s)
    return Biomarkers(found, ed, es, _warnings(curves))


def curve_bands(segmentation: Segmentation, scale: float = 1.0) -> dict[Structure, tuple[Tensor, Tensor]]:
    """Return the intervals of the volumes in every frame, as :func:`biomarkers` makes them; empty without samples.

    Returns
    -------
        (frame,) low and (frame,) high of each structure, in the unit of its curve.
    """
    geometry, positions = segmentation.geometry, segmentation.positions
    curves = volume_curves(segmentation.labels, geometry, positions)
    samples = [volume_curves(labels, geometry, positions) for labels in segmentation.samples]
    bands = {}
    for structure in FOREGROUND if len(samples) >= LEAST_SAMPLES else ():
        spread = torch.stack([sample.of(structure).nan_to_num(0.0) for sample in samples])
        low, high = interval(curves.of(structure), spread, scale)
        if low is not None and high is not None:
            bands[structure] = (low.clamp_min(0), high)
    return bands


def interval(values: Tensor, samples: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Return how far down and up from the values their samples reach; None below :data:`LEAST_SAMPLES` samples.

    Parameters
    ----------
    values
        (...), of the labels.
    samples
        (sample, ...), of each sample.
    scale
        See :func:`biomarkers`.
    """
    if len(samples) < LEAST_SAMPLES:
        return None, None
    quantiles = torch.tensor(QUANTILES, dtype=samples.dtype)
    low, high = torch.quantile(samples, quantiles, dim=0)
    return values - scale * (values - low).clamp_min(0), values + scale * (high - values).clamp_min(0)


def _double(values: float | list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _number(value: Tensor | None) -> float | None:
    return None if value is None else float(value)


def _why_no_volumes(curves: VolumeCurves) -> str:
    if curves.single:
        return "one slice has areas and no volumes"
    if curves.ed_frame is None:
        return "there is no LV in any frame"
    if len(curves.full_ends) == 2:
        return "both ends of the stack are still full of LV: base and apex are not covered"
    return ""


def _ventricle(side: str, edv: float, esv: float, *, two_phases: bool) -> dict[str, Measure | Missing]:
    found: dict[str, Measure | Missing] = {f"{side}_edv_ml": Measure(edv)}
    if two_phases:
        found[f"{side}_esv_ml"] = Measure(esv)
        found[f"{side}_sv_ml"] = Measure(edv - esv)
        found[f"{side}_ef_percent"] = Measure(100 * (edv - esv) / edv)
        return found
    still = Missing("there is no second phase to compare with")
    return found | dict.fromkeys((f"{side}_esv_ml", f"{side}_sv_ml", f"{side}_ef_percent"), still)


def _rates(left: Tensor, rr_s: float | None) -> dict[str, Measure | Missing]:
    filling, emptying = FURTHER[1:]
    if rr_s is None:
        return dict.fromkeys((filling, emptying), Missing("the length of the beat is not known"))
    rates = peak_rates(left, rr_s)
    if rates is None:
        return dict.fromkeys((filling, emptying), Missing("too few phases are labelled to follow the volume"))
    return {filling: Measure(rates[0]), emptying: Measure(rates[1])}


def _warnings(curves: VolumeCurves) -> tuple[str, ...]:
    said = [
        f"slice {index} at the end of the stack still holds {100 * share:.0f} % of the largest LV area: "
        "the heart goes on beyond it, and volumes and mass are lower bounds"
        for index, share in curves.full_ends.items()
    ]
    if curves.es_frame is not None and float(curves.of(Structure.LV)[curves.es_frame]) == 0:
        said.append(f"the LV vanishes in frame {curves.es_frame}, which is taken for end-systole")
    return tuple(said)
