"""What is implausible about the volumes of a beat: a heart that vanishes, flickers, or pumps more than it gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kspace.segment.segmentation import Structure
from kspace.volume_curves import VolumeCurves, harmonic_fit


@dataclass(frozen=True)
class CurveLimits:
    """How far a curve may go before it counts as implausible; all are shares.

    Parameters
    ----------
    strokes
        Difference of the ventricles' stroke volumes over their mean. They pump in series; without a leaking valve or a
        shunt they differ by what contours err.
    roughness
        Root mean square of what few harmonics leave of a curve, over its range.
    second_dip
        Depth of another minimum over the curve's range. A ventricle has one end-systole.
    wall
        Standard deviation of the myocardial volume over the beat, over its mean: muscle is hardly compressible.
    least_ef, largest_ef
        Range of the LV ejection fraction.
    """

    strokes: float = 0.35
    roughness: float = 0.06
    second_dip: float = 0.2
    wall: float = 0.1
    least_ef: float = 0.05
    largest_ef: float = 0.9


def curve_problems(curves: VolumeCurves, limits: CurveLimits | None = None) -> tuple[str, ...]:
    """Return what is implausible, a sentence each; none for a beat that could be a heart's.

    Checks that need more frames than there are, or volumes where there is a single slice, are passed over. What each
    check catches is a weak sign of a wrong segmentation (curves alone: AUC 0.68, NAKO 2025): use it to leave out
    labels that a network should not learn from, not to vouch for the others.

    Parameters
    ----------
    curves
        Of one beat.
    limits
        Default: those of :class:`CurveLimits`.
    """
    limits = limits or CurveLimits()
    left, wall, right = (curves.of(structure) for structure in (Structure.LV, Structure.MYOCARDIUM, Structure.RV))
    ed, es = curves.ed_frame, curves.es_frame
    if ed is None or es is None:
        return ("there is no LV in any frame",)
    found = []
    unseen = curves.areas_mm2.shape[2] - len(curves.drawn)
    if unseen:
        found.append(f"nothing is labelled in {unseen} frame(s)")
    stroke, fraction = float(left[ed] - left[es]), float(1 - left[es] / left[ed])
    if float(left[es]) == 0:
        found.append(f"the LV vanishes in frame {es}")
    elif not limits.least_ef <= fraction <= limits.largest_ef:
        found.append(f"an LV ejection fraction of {100 * fraction:.0f} %")
    if float(right[ed]) > 0 and not curves.single:
        other = float(right[ed] - right[es])
        if abs(stroke - other) > limits.strokes * abs(stroke + other) / 2:
            found.append(f"the LV pumps {stroke:.0f} mL and the RV {other:.0f} mL")
    for name, curve in (("LV", left), ("RV", right)):
        found += _shape_problems(name, curve, limits)
    if float(wall.nan_to_num(0.0).sum()) == 0:
        found.append("there is no myocardium in any frame")
    elif not curves.single and not unseen:
        spread = float(wall.std(correction=0) / wall.mean())
        if spread > limits.wall:
            found.append(f"the myocardium changes by {100 * spread:.0f} % over the beat")
    return tuple(found)


def _shape_problems(name: str, curve: Tensor, limits: CurveLimits) -> list[str]:
    from scipy.signal import find_peaks

    smooth = harmonic_fit(curve)
    if smooth is None or not float(curve.max()) > 0:
        return []
    # What hardly beats has no range of its own to be measured by.
    span = max(float(curve.max() - curve.min()), limits.least_ef * float(curve.max()))
    found = []
    rough = float((curve - smooth).square().mean().sqrt()) / span
    if rough > limits.roughness:
        found.append(f"the {name} flickers by {100 * rough:.0f} % of its range from frame to frame")
    # Turned so that the deepest minimum is at both ends, every peak between them is whole.
    turned = np.roll(smooth.numpy(), -int(smooth.argmin()))
    closed = np.append(turned, turned[0])
    dips = find_peaks(-closed, prominence=limits.second_dip * span)[0]
    if len(dips):
        found.append(f"the {name} has {len(dips) + 1} minima in one beat")
    return found
