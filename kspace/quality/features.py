"""What a state of a scan shows without any truth, as numbers that predictors are fitted on.

Sizes enter as logarithms, errors of biomarkers in units of what the tolerance allows, so that patients of any size lie
on one scale. NaN stands where a number cannot be told; predictors take the mean for it.
"""

from __future__ import annotations

import numpy as np

from kspace.quality.measures import MEASURES, TOLERATED, Tolerance, measured, of_volumes, volumes_ml
from kspace.quality.trajectory import Array
from kspace.quality.view import View
from kspace.segment.segmentation import FOREGROUND, Structure

_LV, _WALL, _RV = (FOREGROUND.index(s) for s in (Structure.LV, Structure.MYOCARDIUM, Structure.RV))
_WHICH = [MEASURES.index(name) for name in TOLERATED]
_WEIGHED = (
    "spokes_per_frame",
    "image_change",
    "prediction_error",
    "held_out_over_noise",
    "reconstruction_spread",
    "entropy",
    "flip_risk",
    "disagreement",
    "label_change",
)
"""Scores of slices that enter as logarithms."""
_STRUCTURES = ("disagreement_lv", "disagreement_myocardium", "disagreement_rv")
_PLAIN = ("betti_errors", "distrusted_share")
_POSITIONS = ("position_base", "position_middle", "position_apex")
_LEAST = 0.01  # of a tolerance or a share: below it, all is the same

CURVE_FEATURES = ("stroke_mismatch", "wall_variation", "curve_roughness")
"""Rules of plausibility of volume curves: LV and RV eject the same, muscle keeps its volume, a curve is smooth."""
STATE_FEATURES = (
    *(f"{kind}_{name}" for kind in ("spread", "change", "change_2", "offset") for name in ("ef", "edv", "esv")),
    "slices_spread",
    "slices_change",
    *CURVE_FEATURES,
    *(f"log_{name}" for name in _WEIGHED),
    *_PLAIN,
    "log_seconds",
    "log_edv",
    "ef",
    "log_slices",
)
"""Of a patient at a state, in the order of :func:`state_features`."""
ERROR_FEATURES = (
    "spread_ef",
    "slices_spread",
    "slices_change",
    "log_prediction_error",
    "log_entropy",
    "log_disagreement",
    "log_seconds",
)
"""Of :data:`STATE_FEATURES`, what a stopping rule predicts the error from: few, as it learns from tens of patients."""
_ERROR = [STATE_FEATURES.index(name) for name in ERROR_FEATURES]
SLICE_FEATURES = (
    *(f"{kind}_{name}" for kind in ("spread", "change") for name in ("lv", "myocardium", "rv")),
    "log_area",
    *(f"log_{name}" for name in (*_WEIGHED, *_STRUCTURES)),
    *_PLAIN,
    *_POSITIONS,
    "log_seconds",
)
"""Of a slice at a state, in the order of :func:`slice_features`."""


def error_features(features: Array) -> Array:
    """Return those of :data:`ERROR_FEATURES` of state features (..., feature)."""
    chosen: Array = features[..., _ERROR]
    return chosen


def state_features(view: View, tolerance: Tolerance) -> Array:
    """Return the (feature,) numbers of :data:`STATE_FEATURES` of a patient's scan so far."""
    spacing = view.spacing_mm
    volumes = volumes_ml(view.areas_mm2, spacing)  # (lag, structure, frame)
    found = of_volumes(volumes)  # (lag, measure)
    limits = tolerance.limits(found[0])
    samples = measured(view.sample_areas_mm2, spacing)[:, _WHICH]
    now = found[0, _WHICH]
    # Without two samples that have the measure there is no spread.
    known = len(samples) > 1
    spread = samples.std(0) / limits if known else np.full(3, np.nan)
    offset = np.abs(samples.mean(0) - now) / limits if known else np.full(3, np.nan)
    moved = [np.where(view.steps.max() > lag, np.abs(now - found[lag, _WHICH]) / limits, np.nan) for lag in (1, 2)]
    weights = _weights(view)
    lv = view.areas_mm2[:, :, _LV] * spacing / 1000  # (lag, slice, frame)
    ed, es = int(volumes[0, _LV].argmax()), int(volumes[0, _LV].argmin())
    ends = [ed, es]
    apart = view.sample_areas_mm2[:, :, _LV][..., ends].std(0) * spacing / 1000 if known else np.full((1, 2), np.nan)
    tolerable = limits[1:].mean()
    change = np.where(view.steps.max() > 1, np.sqrt(((lv[0] - lv[1])[:, ends] ** 2).sum() / 2) / tolerable, np.nan)
    return np.array(
        [
            *np.log(np.concatenate([spread, *moved, offset]) + _LEAST),
            np.log(np.sqrt((apart**2).sum() / 2) / tolerable + _LEAST),
            np.log(change + _LEAST),
            *_curve_rules(volumes[0], found[0]),
            *(np.log(_mean(view.score(name), weights) + 1e-4) for name in _WEIGHED),
            *(_mean(view.score(name), weights) for name in _PLAIN),
            np.log(view.mean_seconds),
            np.log(found[0, 0]) if found[0, 0] > 0 else np.nan,
            found[0, MEASURES.index("lv_ef_percent")] / 100,
            np.log((weights > 0).sum() + 1),
        ]
    )


def slice_features(view: View) -> Array:
    """Return the (slice, feature) numbers of :data:`SLICE_FEATURES` of each slice as it is now."""
    areas = view.areas_mm2.mean(-1)  # (lag, slice, structure), over the beat
    size = areas[0].sum(-1, keepdims=True) + 100.0  # mm2: a cm2 of nothing, so that an empty slice has no share
    spread = view.sample_areas_mm2.std(0).mean(-1) if len(view.sample_areas_mm2) > 1 else np.full_like(areas[0], np.nan)
    moved = np.abs(view.areas_mm2[0] - view.areas_mm2[1]).mean(-1)
    moved = np.where((view.steps > 1)[:, None], moved, np.nan)
    return np.concatenate(
        [
            np.log(spread / size + _LEAST),
            np.log(moved / size + _LEAST),
            np.log(size / size.max()),
            *(np.log(np.abs(view.score(name)) + 1e-4)[:, None] for name in (*_WEIGHED, *_STRUCTURES)),
            *(view.score(name)[:, None] for name in (*_PLAIN, *_POSITIONS)),
            np.log(view.seconds)[:, None],
        ],
        axis=1,
    )


def _weights(view: View) -> Array:
    """Return the (slice,) share of each slice in the heart's labels."""
    areas: Array = view.areas_mm2[0].sum((1, 2))
    total = float(areas.sum())
    return areas / total if total > 0 else np.full(len(areas), 1 / len(areas))


def _mean(values: Array, weights: Array) -> float:
    known = np.isfinite(values) & (weights > 0)
    return float((np.abs(values[known]) * weights[known]).sum() / weights[known].sum()) if known.any() else np.nan


def _curve_rules(volumes: Array, found: Array) -> tuple[float, float, float]:
    edv, esv, _, _, rv_edv, rv_esv, _ = found
    if not edv > esv:
        return np.nan, np.nan, np.nan
    stroke = edv - esv
    wall, curve = volumes[_WALL], volumes[_LV]
    spectrum = np.fft.rfft(curve)
    spectrum[4:] = 0  # three harmonics carry the beat, the rest is noise or a wrong frame
    rough = float(np.abs(curve - np.fft.irfft(spectrum, len(curve))).mean())
    return (
        float(np.log(abs((rv_edv - rv_esv) - stroke) / stroke + _LEAST)),
        float(np.log(wall.std() / wall.mean() + _LEAST)) if wall.mean() > 0 else np.nan,
        float(np.log(rough / stroke + _LEAST)),
    )
