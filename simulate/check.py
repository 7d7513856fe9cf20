"""What ``spokewise check`` does: the judges of a scan, on any cine or on any radial k-space.

Of a cine alone the labels can be judged that are drawn on it. Of k-space the images can be, too: a fifth of the spokes
is held out, and what images of the rest say of them is compared with what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kspace.biomarkers import biomarkers
from kspace.coils import whiten, whitening_matrix
from kspace.curve_problems import curve_problems
from kspace.equations import NormalEquations
from kspace.errors import InputError, UsageError
from kspace.formats.source import open_source
from kspace.gating import assign_frames
from kspace.noise import noise_std
from kspace.quality.held_out import every_nth, held_out_residual
from kspace.recon.method import Method
from kspace.recon.methods import make_method
from kspace.scan import Cine, RadialScan
from kspace.segment.segmentation import Segmentation, SlicePosition
from kspace.segment.segmenter import Segmenter
from kspace.segment.topology import betti_errors
from kspace.volume_curves import volume_curves
from simulate.calibration import calibrate
from simulate.choices import choose_slices, parse_slices
from simulate.opened import with_frames
from simulate.output import plain
from simulate.scan_heart import CineSegmenter
from simulate.segment_text import biomarker_line
from simulate.source import Replay
from simulate.study.look import dice, disagreement

HELD_OUT = 5
"""Every so many spokes of a frame one is held out."""
LIMITS = {
    "held_out_error": (0.15, "images do not explain spokes that they were not made from"),
    "disagreement": (0.15, "the networks draw different contours"),
    "flip_risk": (0.25, "the networks are unsure which structure it is"),
    "betti_errors": (0.5, "pieces and holes are not those of a heart"),
}
"""Above these a slice is worth a second look, and why: rules of thumb, with no calibration behind them."""


@dataclass(frozen=True)
class CheckOptions:
    """What the user said: reconstruction and frames of k-space, slices, series of a DICOM folder, seconds of a beat."""

    method: str = "unrolled"
    frames: int | None = None
    slices: str | None = None
    series: str | None = None
    rr_s: float | None = None


def check_source(
    source: str, options: CheckOptions, *, device: torch.device | None = None, segment: CineSegmenter | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:  # fmt: skip
    """Judge a cine or k-space.

    Parameters
    ----------
    source
        A 4D NIfTI file, a DICOM folder, the folder of a scan (its reconstruction), or a radial ISMRMRD file.
    options
        What the user said.
    device
        Where to compute; the CPU by default.
    segment
        Draws the labels; the shipped networks by default.
    say
        Hears of progress.

    Returns
    -------
        What a machine may want, and ``text`` for people.

    Raises
    ------
    UsageError, InputError
        When the source cannot be used.
    """
    where = device or torch.device("cpu")
    if options.rr_s is not None and not 0.2 <= options.rr_s <= 3.0:
        raise UsageError(f"--rr-s {options.rr_s:g}", expected="0.2 to 3 seconds")
    path = Path(source)
    if path.is_dir() and (path / "recon.nii.gz").is_file():
        path = path / "recon.nii.gz"
    series = int(options.series) if options.series is not None and options.series.isdecimal() else options.series
    opened = open_source(path, series=series)
    images: list[dict[str, float]] = []
    if isinstance(opened, Cine):
        cine, chosen = _cine(opened, options)
    else:
        cine, chosen, images = _reconstructed(opened, options, where, say)
    segmentation = (segment or Segmenter())(replace(cine, images=cine.images.to(where)))
    rr_s = options.rr_s or (None if "RR assumed" in cine.source else cine.slice_rr_s(0))
    found = biomarkers(segmentation, rr_s)
    curves = volume_curves(segmentation.labels.cpu(), segmentation.geometry, segmentation.positions)
    slices = [
        {"index": number, **_of_labels(segmentation, place), **(images[place] if images else {})}
        for place, number in enumerate(chosen)
    ]
    doubts = [
        f"slice {row['index']}: {why} ({name.replace('_', ' ')} {row[name]:.2f} > {limit:g})"
        for row in slices
        for name, (limit, why) in LIMITS.items()
        if name in row and float(row[name]) > limit
    ]
    doubts += [f"volumes: {problem}" for problem in curve_problems(curves)]
    doubts += list(found.warnings)
    record: dict[str, Any] = plain(
        {
            "source": cine.source, "kind": "k-space" if images else "cine", "slices": slices, **found.record(),
            "worth_a_second_look": doubts, "calibrated": False,
        }
    )  # fmt: skip
    return record | {"text": _text(slices, doubts, biomarker_line(found), kspace=bool(images))}


def _cine(opened: Cine, options: CheckOptions) -> tuple[Cine, tuple[int, ...]]:
    seen = opened.images.abs().amax((1, 2, 3)) > 0
    shown = tuple(int(index) for index in torch.nonzero(seen).flatten())
    chosen = shown if options.slices is None else parse_slices(options.slices, opened.n_slices)
    if not chosen:
        raise InputError("the cine is zero throughout", expected="images")
    cine = opened.select_slices(chosen)
    return (cine if options.rr_s is None else replace(cine, rr_s=options.rr_s)), chosen


def _reconstructed(
    opened: RadialScan, options: CheckOptions, where: torch.device, say: Callable[[str], None]
) -> tuple[Cine, tuple[int, ...], list[dict[str, float]]]:
    """Return the images of some slices, which they are, and what is found of each."""
    scan, n_frames = with_frames(opened, options.frames)
    replay = Replay(scan)
    chosen, method = choose_slices(replay, options.slices), make_method(options.method)
    cines, found = [], []
    for index in chosen:
        image, scores = judge_slice(scan.select_slice(index), method, n_frames, where)
        cines.append(image)
        found.append(scores)
        say(f"slice {index}: {scores['spokes_per_frame']:.0f} spokes a frame, error of held-out spokes "
            f"{100 * scores['held_out_error']:.1f} %")  # fmt: skip
    geometry = scan.geometry.select_slices(chosen)
    return Cine(torch.stack(cines), geometry, replay.rr_s, replay.description), chosen, found


def judge_slice(
    scan: RadialScan, method: Method, n_frames: int, device: torch.device | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Reconstruct a slice, and judge images of four fifths of its spokes by the fifth that is held out.

    Returns
    -------
    Magnitudes (frame, y, x) of all spokes, and the scores: ``held_out_error``, an estimate of the NRMSE of images of
    four fifths of the spokes; ``held_out_over_noise``, 1 where nothing but noise is left; ``spokes_per_frame``.
    """
    whitening = None if scan.noise_covariance is None else whitening_matrix(scan.noise_covariance)
    white = whiten(scan)
    frame = assign_frames(white, n_frames)
    out = every_nth(frame, HELD_OUT, first=HELD_OUT - 1)
    equations = NormalEquations(white.matrix, n_frames, white.n_coils, density=method.density, device=device or "cpu")
    noise = noise_std(white)

    def add(which: Tensor) -> None:
        equations.add(white.samples[which].to(equations.adjoint.device), white.positions[which], frame[which])

    add(~out)
    if not bool(out.any()) or not bool((~out).any()):
        raise InputError(f"{white.n_spokes} spokes in {n_frames} frames", expected=f"{HELD_OUT} or more in a frame")
    calibration = calibrate(equations, whitening)
    part = method(equations, calibration.maps, noise_std=noise)
    residual = held_out_residual(part.image, calibration.maps, white.select(out), frame[out], noise_std=noise)
    add(out)
    calibration = calibrate(equations, whitening)
    image = method(equations, calibration.maps, noise_std=noise).image
    scores = {
        "spokes_per_frame": float(equations.spokes.mean()),
        "held_out_error": residual.image_error,
        "held_out_over_noise": residual.over_noise,
    }
    return (image.abs() * calibration.shading).cpu(), scores


def _of_labels(segmentation: Segmentation, place: int) -> dict[str, Any]:
    """Return what can be said of the labels of one slice without a truth."""
    labels, samples = segmentation.labels[place], segmentation.samples[:, place]
    heart = labels > 0
    row: dict[str, Any] = {
        "position": segmentation.positions[place].word,
        "flip_risk": float(segmentation.flip_risk[place].nanmean()),
        "entropy": float(segmentation.entropy[place][heart].mean()) if bool(heart.any()) else float("nan"),
        "disagreement": disagreement(labels, samples) if len(samples) and bool(heart.any()) else float("nan"),
        "steadiness": float(dice(labels, labels.roll(1, 0)).nanmean()) if bool(heart.any()) else float("nan"),
    }
    if segmentation.positions[place] is SlicePosition.MIDDLE:
        row["betti_errors"] = float(betti_errors(labels).double().mean())
    return row


def _text(slices: list[dict[str, Any]], doubts: list[str], measured: str, *, kspace: bool) -> str:
    lines = []
    for row in slices:
        image = f"  held-out error {100 * row['held_out_error']:5.1f} %" if kspace else ""
        betti = f"  Betti errors {row['betti_errors']:.1f}" if "betti_errors" in row else ""
        lines.append(
            f"slice {row['index']:>3}  {row['position']:8}{image}  disagreement {row['disagreement']:.3f}  "
            f"flip risk {row['flip_risk']:.3f}{betti}"
        )
    lines.append(measured)
    lines += [f"worth a second look: {doubt}" for doubt in doubts] or ["nothing found to look at again"]
    lines.append("Limits are rules of thumb; no calibration stands behind them.")
    return "\n".join(lines)
