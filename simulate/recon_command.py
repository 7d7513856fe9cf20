"""What ``spokewise recon`` does: a file of measured spokes becomes a cine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kspace.coils import whiten, whitening_matrix
from kspace.delay_estimate import DelayEstimate, find_delays
from kspace.delays import NO_DELAYS, GradientDelays, correct
from kspace.drift import Drift, drift_of_slices
from kspace.equations import NormalEquations
from kspace.errors import InputError, UsageError
from kspace.formats.files import temporary_beside
from kspace.formats.nifti import write_cine
from kspace.formats.source import open_source
from kspace.gating import assign_frames
from kspace.noise import noise_std
from kspace.recon.method import Method
from kspace.recon.methods import weights_of
from kspace.scan import Cine, RadialScan
from simulate.calibration import calibrate
from simulate.opened import with_frames
from simulate.output import require_free, stack_of
from simulate.source import Replay

_BATCH = 1000  # spokes


def reconstruct_slice(scan: RadialScan, method: Method, n_frames: int, device: torch.device) -> Tensor:
    """Return the (frame, y, x) magnitude of a scan of one slice, in the unit of its received signal.

    Parameters
    ----------
    scan
        The spokes of the slice, with frames or an ECG.
    method, n_frames
        How to reconstruct, and how many frames.
    device
        Where the sums are kept and solved.
    """
    whitening = None if scan.noise_covariance is None else whitening_matrix(scan.noise_covariance)
    white = whiten(scan)
    frame = assign_frames(white, n_frames)
    equations = NormalEquations(white.matrix, n_frames, white.n_coils, density=method.density, device=device)
    for start in range(0, white.n_spokes, _BATCH):
        part = slice(start, start + _BATCH)
        equations.add(white.samples[part].to(device), white.positions[part].to(device), frame[part])
    calibration = calibrate(equations, whitening)
    image = method(equations, calibration.maps, noise_std=noise_std(white)).image
    return (image.abs() * calibration.shading).cpu()


def reconstruct_file(
    raw: Path,
    out: Path,
    method: Method,
    *,
    n_frames: int | None = None,
    delays: GradientDelays | Literal["auto"] = NO_DELAYS,
    drift: bool = False,
    device: torch.device | None = None,
    overwrite: bool = False,
    on_slice: Callable[[int], None] | None = None,
    on_delays: Callable[[DelayEstimate], None] | None = None,
    on_drift: Callable[[dict[int, Drift]], None] | None = None,
) -> dict[str, Any]:
    """Reconstruct all slices of a radial ISMRMRD file into a NIfTI cine of magnitudes.

    Parameters
    ----------
    raw, out
        The file to read, and the ``.nii`` or ``.nii.gz`` file to write.
    method
        How.
    n_frames
        Frames, see :func:`with_frames`.
    delays
        Gradient delays to correct; ``auto`` finds them and corrects what is significant.
    drift
        Whether to take out drift of phase and gain then, and the phase that goes with a spoke's direction.
    device
        Where to compute; the CPU by default.
    overwrite
        Whether a file that is there may be replaced.
    on_slice
        Hears of each slice that is done.
    on_delays
        Hears of the gradient delays that were found.
    on_drift
        Hears of the drift in each slice.

    Raises
    ------
    UsageError, InputError
        When the names, the file or the frames are not usable; nothing is left behind.
    """
    if not out.name.endswith((".nii", ".nii.gz")):
        raise UsageError(f"{out.name} does not end like a NIfTI file", expected="a name ending in .nii or .nii.gz")
    require_free(out, overwrite=overwrite)
    temporary_beside(out)  # refuses now what could not be written after minutes of work
    scan = open_source(raw)
    if isinstance(scan, Cine):
        raise InputError(f"{raw.name} holds images", expected="a radial ISMRMRD file")
    scan, frames = with_frames(scan, n_frames)
    applied, estimate = find_delays(scan if delays != "auto" else whiten(scan), delays)
    if on_delays is not None and estimate is not None:
        on_delays(estimate)
    scan = correct(scan, applied)
    drifts: dict[int, Drift] = {}
    if drift:
        # After the delays: a large delay can pass for a drift, a drift only for a small delay.
        scan, drifts = drift_of_slices(scan)
        if on_drift is not None:
            on_drift(drifts)
    images: dict[int, Tensor] = {}
    for index in (int(i) for i in torch.unique(scan.slices)):
        images[index] = reconstruct_slice(scan.select_slice(index), method, frames, device or torch.device("cpu"))
        if on_slice is not None:
            on_slice(index)
    rr_s = Replay(scan).rr_s
    write_cine(out, stack_of(images, scan.geometry, rr_s, scan.source))
    return {
        "cine": str(out),
        "source": scan.source,
        "method": method.name,
        "weights": weights_of(method),
        "frames": frames,
        "delays": {
            "asked": "auto" if delays == "auto" else [delays.x, delays.y, delays.xy],
            "applied": [applied.x, applied.y, applied.xy],
            **({} if estimate is None else estimate.record()),
        },
        "drift": {str(index): found.record() for index, found in drifts.items()} if drift else None,
        "slices": [
            {"index": index, "spokes": int((scan.slices == index).sum())} for index in range(scan.geometry.shape[0])
        ],
        "slices_zero_in_recon": [index for index in range(scan.geometry.shape[0]) if index not in images],
        "rr_s": rr_s,
    }
