"""Read a radial ISMRMRD file."""

from __future__ import annotations

import os
from pathlib import Path

import ismrmrd
import numpy as np
import torch

from kspace.errors import InputError
from kspace.formats.files import existing_file, one_line
from kspace.formats.mrd.blocks import Readouts, open_readouts
from kspace.formats.mrd.header import Encoding, describe, parse_header
from kspace.formats.mrd.noise import covariance
from kspace.formats.mrd.placement import read_geometry
from kspace.formats.mrd.radial import read_positions
from kspace.formats.mrd.timing import read_instants
from kspace.scan import RadialScan

NOT_IMAGING = (
    ismrmrd.ACQ_IS_NOISE_MEASUREMENT,
    ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,
    ismrmrd.ACQ_IS_NAVIGATION_DATA,
    ismrmrd.ACQ_IS_PHASECORR_DATA,
    ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
    ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
    ismrmrd.ACQ_IS_RTFEEDBACK_DATA,
    ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA,
    ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE,
    ismrmrd.ACQ_IS_PHASE_STABILIZATION,
)
"""Flags of readouts that are left out of images."""


def read_scan(path: str | os.PathLike[str], dataset: str = "dataset") -> RadialScan:
    """Read a two-dimensional radial scan from an ISMRMRD (MRD 1) file, in blocks of many readouts.

    Readouts flagged as noise, navigation, calibration, phase correction, feedback or dummies (:data:`NOT_IMAGING`) are
    left out. Samples that a readout discards at its ends (``discard_pre``, ``discard_post``) are cut off.

    Parameters
    ----------
    path
        The file.
    dataset
        Name of the group that holds ``xml`` and ``data``.

    Returns
    -------
        Spokes in the order of the file, sorted by time within a slice should they not be.

        * Geometry: the matrix and field of view of ``reconSpace``; axes from the readouts' directions, else
          axis-aligned.
        * Positions: cycles per pixel of that grid, see :func:`kspace.formats.mrd.radial.read_positions`.
        * Frame: the phase counter if it varies, else the repetition counter if that varies, else None.
        * Instants: from the time stamps (:func:`kspace.formats.mrd.timing.read_instants`). A file without any gets
          one spoke every TR of the header, or every 2.8 ms, and :attr:`RadialScan.source` says so.
        * R waves: from ``r_wave_s`` or ``physiology_time_stamp[0]``, ticks since the last R wave.
        * Noise covariance: from noise readouts, scaled to the sampling time of the spokes where both are known.

    Raises
    ------
    InputError
        When the file is missing, damaged, no ISMRMRD, not radial in two dimensions, or its readouts differ in size.
    """
    path = existing_file(path, "a radial ISMRMRD file")
    with open_readouts(path, dataset) as readouts:
        header = parse_header(readouts.xml, path.name)
        flags = readouts.heads["flags"]
        skipped = np.uint64(sum(1 << (flag - 1) for flag in NOT_IMAGING))
        imaging = np.flatnonzero((flags & skipped) == 0)
        heads = readouts.heads[imaging]
        encoding = _check_heads(heads, header, path)
        samples, traj = readouts.load(imaging, trajectory=True)
        noise = _noise(readouts, heads)
    pre, post = int(heads["discard_pre"][0]), int(heads["discard_post"][0])
    kept = slice(pre, samples.shape[2] - post)
    positions = read_positions(traj[:, kept], encoding, path.name)
    slices = heads["idx"]["slice"].astype(np.int64)
    time_s, ecg_s, remark = read_instants(heads, slices, encoding)
    frame = _frame(heads, encoding)
    geometry = read_geometry(heads, slices, encoding, path.name)
    source = one_line(encoding.strings.get("source") or "ISMRMRD", 200)
    scan = RadialScan(
        samples=torch.from_numpy(np.ascontiguousarray(samples[:, :, kept])),
        positions=torch.from_numpy(positions),
        time_s=torch.from_numpy(time_s),
        geometry=geometry,
        slice_index=torch.from_numpy(slices),
        ecg_s=torch.from_numpy(ecg_s),
        frame=None if frame is None else torch.from_numpy(frame),
        noise_covariance=None if noise is None else torch.from_numpy(noise),
        source=f"{source}, {remark}" if remark else source,
    )
    order = _order_in_time(time_s, slices)
    return scan if order is None else scan.select(torch.from_numpy(order))


def _check_heads(heads: np.ndarray, header: object, path: Path) -> Encoding:
    name = path.name
    if not len(heads):
        raise InputError(f"{name} holds no imaging readouts", expected="spokes beside noise and calibration")
    same = ("number_of_samples", "active_channels", "discard_pre", "discard_post", "encoding_space_ref")
    for key in (*same, "trajectory_dimensions"):
        values = np.unique(heads[key])
        if len(values) > 1:
            raise InputError(
                f"the imaging readouts of {name} differ in {key}: {', '.join(map(str, values[:8]))}",
                expected="one value for all of them",
                hint="Split the file into scans of one kind",
            )
    for key in ("kspace_encode_step_2", "contrast", "set"):
        if len(np.unique(heads["idx"][key])) > 1:
            raise InputError(
                f"{name} holds several values of {key}", expected="one two-dimensional scan", hint="Split the file"
            )
    encoding = describe(header, int(heads["encoding_space_ref"][0]), name)
    n_dims = int(heads["trajectory_dimensions"][0])
    if n_dims not in (2, 3):
        raise InputError(
            f"the readouts of {name} carry a trajectory of {n_dims} dimensions (the header calls it"
            f" {encoding.trajectory})",
            expected="the (kx, ky) of every sample",
            hint="Write the trajectory into the file; it is not guessed from angles",
        )
    head = heads[0]
    if int(head["number_of_samples"]) - int(head["discard_pre"]) - int(head["discard_post"]) < 2:
        raise InputError(
            f"the readouts of {name} keep fewer than 2 of {head['number_of_samples']} samples", expected="spokes"
        )
    return encoding


def _noise(readouts: Readouts, heads: np.ndarray) -> np.ndarray | None:
    flagged = (readouts.heads["flags"] & np.uint64(1 << (ismrmrd.ACQ_IS_NOISE_MEASUREMENT - 1))) != 0
    noise_heads = readouts.heads[flagged]
    if not len(noise_heads):
        return None
    n_coils = int(heads["active_channels"][0])
    if (noise_heads["active_channels"] != n_coils).any() or len(np.unique(noise_heads["number_of_samples"])) > 1:
        raise InputError(
            f"the noise readouts of {readouts.name} differ in size or are not of {n_coils} coils",
            expected="noise of the coils of the spokes",
            hint="Remove the noise readouts, or write those that belong to the scan",
        )
    samples, _ = readouts.load(np.flatnonzero(flagged), trajectory=False)
    return covariance(samples, float(noise_heads["sample_time_us"][0]), float(heads["sample_time_us"][0]))


def _frame(heads: np.ndarray, encoding: Encoding) -> np.ndarray | None:
    said = encoding.strings.get("frame_counter")
    if said == "none":
        return None
    for counter in ("phase", "repetition"):
        values = heads["idx"][counter].astype(np.int64)
        if said == counter or len(np.unique(values)) > 1:
            return np.asarray(values)
    return None


def _order_in_time(time_s: np.ndarray, slices: np.ndarray) -> np.ndarray | None:
    """Return the order that makes time ascend within each slice, None where it does already."""
    order = np.arange(len(time_s))
    for index in np.unique(slices):
        where = np.flatnonzero(slices == index)
        order[where] = where[np.argsort(time_s[where], kind="stable")]
    return None if np.array_equal(order, np.arange(len(order))) else order
