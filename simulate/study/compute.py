"""One patient's quality trajectory: scanned once up to the cap, reconstructed, segmented and judged at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from kspace.coils import whiten, whitening_matrix
from kspace.metrics import nrmse, ssim
from kspace.noise import noise_std
from kspace.quality.held_out import held_out_residual
from kspace.quality.trajectory import Trajectory
from kspace.recon.method import Method, Reconstruction
from kspace.recon.methods import make_method
from kspace.segment.maps import likeliest
from kspace.segment.segmentation import FOREGROUND, SlicePosition
from simulate.body import BodyState
from simulate.body_scanner import BodyScanner, BodySlice
from simulate.calibration import Calibration, calibrate, turned
from simulate.gated import GatedEquations
from simulate.patient.population import draw_patient
from simulate.study.look import Look, Looker, dice, disagreement
from simulate.study.pretend import pretended_trajectory
from simulate.study.protocol import PRETEND, Protocol, Who
from simulate.study.seen import Seen, as_bytes
from simulate.study.stack import scan_who

_NAN = float("nan")
_NAMES = ("lv", "myocardium", "rv")  # of FOREGROUND, in scores
_MARGIN_MM = 10.0  # around the heart, within which images are compared
_RENEWED = 4  # coil maps are estimated anew when there are so many times the spokes, as the loop does


@dataclass(frozen=True)
class _SliceCourse:
    """One slice: (step, structure, frame) areas, (step, sample, structure, frame), and a row of scores per step."""

    areas: Tensor
    sample_areas: Tensor
    reference: Tensor
    exact: Tensor
    scores: tuple[Mapping[str, float], ...]
    truth_scores: tuple[Mapping[str, float], ...]
    seen: Seen


OnSeen = Callable[[Seen], None]


def patient_trajectory(protocol: Protocol, who: Who, on_seen: OnSeen | None = None) -> Trajectory:
    """Scan a patient and judge every step; the same protocol and patient give the same trajectory.

    ``on_seen`` hears of the images and labels that were judged; pretended patients have none.
    """
    if protocol.method == PRETEND:
        return pretended_trajectory(protocol, who)
    scanner = scan_who(protocol, who)
    looker = Looker.shipped(protocol.members, protocol.window, protocol.frames_at_once)
    method = make_method(protocol.method)
    courses = [_course(protocol, scanner, index, looker, method) for index in range(protocol.n_slices)]
    if on_seen is not None:
        on_seen(Seen.of_slices([course.seen for course in courses]))
    patient = draw_patient(who.seed, group=who.group, heart_rate_bpm=protocol.heart_rate_bpm)
    facts = {
        "number": str(who.number), "part": who.part.value, "seed": str(who.seed), "snr": f"{who.snr:.2f}",
        "heart_rate_bpm": f"{60 / patient.rr_s:.1f}", "breathing": "drift" if who.drifting else "hold",
        "rhythm": "ectopic" if who.ectopic else "sinus", "protocol": protocol.digest, "synthetic": "yes",
        "age_years": f"{patient.age_years:.0f}", "bsa_m2": f"{patient.bsa_m2:.2f}",
        "exact_lv_ef_percent": f"{100 * patient.left.ef:.2f}", "exact_lv_edv_ml": f"{patient.left.edv_ml:.2f}",
    }  # fmt: skip
    return Trajectory(
        patient=f"{protocol.digest[:6]}-{who.number:05d}",
        seconds=np.array(protocol.seconds),
        spacing_mm=scanner.geometry.spacing_mm[0],
        areas_mm2=torch.stack([course.areas for course in courses], dim=1).numpy(),
        sample_areas_mm2=torch.stack([course.sample_areas for course in courses], dim=2).numpy(),
        reference_areas_mm2=torch.stack([course.reference for course in courses]).numpy(),
        exact_areas_mm2=torch.stack([course.exact for course in courses]).numpy(),
        scores=_by_name([course.scores for course in courses]),
        truth_scores=_by_name([course.truth_scores for course in courses]),
        group=who.group.value, sex=patient.sex.value, vendor=who.vendor, facts=facts,
    )  # fmt: skip


def _by_name(rows: list[tuple[Mapping[str, float], ...]]) -> dict[str, np.ndarray]:
    """Return (step, slice) of every score, from rows of slices and steps."""
    return {
        name: np.array([[row[step][name] for row in rows] for step in range(len(rows[0]))], dtype=np.float64)
        for name in rows[0][0]
    }


def planned_place(index: int, n_slices: int) -> SlicePosition:
    """Return the third of the ventricle in which a planned slice lies."""
    third = int(3 * (index + 0.5) / n_slices)
    return (SlicePosition.BASE, SlicePosition.MIDDLE, SlicePosition.APEX)[third]


def _course(protocol: Protocol, scanner: BodyScanner, index: int, looker: Looker, method: Method) -> _SliceCourse:
    stream, frames = scanner.open_slice(index), protocol.frames
    place, view = planned_place(index, protocol.n_slices), protocol.field_of_view_mm
    truth = stream.truth(frames)
    reference = looker(truth, view, place)
    fine, exact_areas = _exact(protocol, scanner, stream, index)
    fine_window, window = (looker.window(n, view) for n in (fine.shape[-1], protocol.matrix))
    drawn = torch.stack([fine_window.cut((fine == label).float()) for label in range(len(FOREGROUND) + 1)], dim=1)
    drawn[:, 0] += 1 - drawn.sum(1)
    exact_labels = likeliest(drawn)
    near = _near_heart(stream.labels(frames), view / protocol.matrix)
    box = _box(near)
    scores, truth_scores, looks, images = [], [], [], []
    before: Look | None = None
    for step in _steps(protocol, stream, method):
        look = looker(step.image, view, place)
        looks.append(look)
        images.append(as_bytes(window.cut(step.image)))
        scores.append(
            {
                **step.scores, "entropy": look.entropy, "flip_risk": look.flip_risk, "betti_errors": look.betti_errors,
                "disagreement": disagreement(look.labels, look.samples),
                **_named("disagreement", 1 - torch.stack([dice(look.labels, s) for s in look.samples]).nanmean(0)),
                "label_change": _NAN if before is None else 1 - float(dice(look.labels, before.labels).nanmean()),
                "position_base": float(look.position[SlicePosition.BASE]),
                "position_middle": float(look.position[SlicePosition.MIDDLE]),
                "position_apex": float(look.position[SlicePosition.APEX]),
            }
        )  # fmt: skip
        truth_scores.append(
            {
                "heart_nrmse": float(nrmse(step.image[box], truth[box], near[box[1:]])),
                "heart_ssim": float(ssim(step.image[box], truth[box], near[box[1:]])),
                **_named("dice", dice(look.labels, reference.labels)),
                **_named("exact_dice", dice(look.labels, exact_labels)),
            }
        )  # fmt: skip
        before = look
    return _SliceCourse(
        torch.stack([looker.areas(look.labels) for look in looks]),
        torch.stack([looker.areas(look.samples) for look in looks]),
        looker.areas(reference.labels), exact_areas, tuple(scores), tuple(truth_scores),
        Seen(np.stack(images)[:, None], torch.stack([look.labels for look in looks])[:, None].numpy(),
             as_bytes(window.cut(truth))[None], reference.labels[None].numpy(), exact_labels[None].numpy()),
    )  # fmt: skip


def _named(kind: str, values: Tensor) -> dict[str, float]:
    return {f"{kind}_{name}": float(value) for name, value in zip(_NAMES, values, strict=True)}


def _exact(protocol: Protocol, scanner: BodyScanner, stream: BodySlice, index: int) -> tuple[Tensor, Tensor]:
    """Return exact labels (frame, y, x) on the body's own grid, and their areas (structure, frame) in mm2."""
    body, n = scanner.body, protocol.frames
    labels = torch.stack([body.labels(index, BodyState((frame + 0.5) / n)) for frame in range(n)])
    _, dy, dx = body.geometry.spacing_mm
    counts = torch.stack([(labels == structure).sum((-2, -1)) for structure in FOREGROUND])
    return labels, counts.double() * dy * dx


def _near_heart(labels: Tensor, pixel_mm: float) -> Tensor:
    """Return (y, x) bool, the heart of any frame and what lies about it; the middle where there is no heart."""
    heart = (labels > 0).any(0)
    if not bool(heart.any()):
        heart = heart.clone()
        heart[heart.shape[0] // 2, heart.shape[1] // 2] = True
    reach = round(_MARGIN_MM / pixel_mm)
    return max_pool2d(heart[None, None].float(), 2 * reach + 1, 1, reach)[0, 0] > 0


def _box(mask: Tensor) -> tuple[slice, slice, slice]:
    """Return all frames of the rows and columns that a mask covers."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    return (
        slice(None),
        slice(int(rows.min()), int(rows.max()) + 1),
        slice(int(columns.min()), int(columns.max()) + 1),
    )


@dataclass(frozen=True)
class _Step:
    """Magnitudes (frame, y, x) after a step, in the unit of the received signal, and what judges images."""

    image: Tensor
    scores: Mapping[str, float]


def _steps(protocol: Protocol, stream: BodySlice, method: Method) -> Iterator[_Step]:
    """Yield what is reconstructed after each step, from spokes that are simulated once and added as they come."""
    gated = GatedEquations(protocol.frames, method)
    calibration: Calibration | None = None
    latest: Reconstruction | None = None
    now, n_calibrated = 0.0, 0
    for seconds in protocol.seconds:
        raw = stream.acquire(seconds - now)
        now = seconds
        batch = whiten(raw)
        noise = noise_std(batch)
        frame = gated.foresee(batch)
        foreseen, over_noise = _NAN, _NAN
        if latest is not None and calibration is not None:
            residual = held_out_residual(latest.image, calibration.maps, batch, frame, noise_std=noise)
            foreseen, over_noise = residual.image_error, residual.over_noise
        equations = gated.add(batch, frame)
        n_spokes = int(equations.spokes.sum())
        before = latest
        if calibration is None or n_spokes >= _RENEWED * n_calibrated:
            whitening = None if raw.noise_covariance is None else whitening_matrix(raw.noise_covariance)
            renewed = calibrate(equations, whitening)
            if calibration is not None and before is not None:
                before = turned(before, calibration.maps, renewed.maps)
            calibration, n_calibrated = renewed, n_spokes
        latest = method(equations, calibration.maps, noise_std=noise, start=before)
        change = _NAN
        if before is not None:
            moved = float(torch.linalg.vector_norm(latest.image - before.image))
            change = moved / max(float(torch.linalg.vector_norm(latest.image)), 1e-30)
        yield _Step(
            latest.image.abs() * calibration.shading,
            {
                "spokes_per_frame": float(equations.spokes.mean()), "image_change": change,
                "prediction_error": foreseen, "held_out_over_noise": over_noise,
            },
        )  # fmt: skip
