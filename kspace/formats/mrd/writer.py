"""Write a radial scan as an ISMRMRD file, at once or while it runs."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import ismrmrd
import numpy as np
from ismrmrd.hdf5 import acquisition_dtype, acquisition_header_dtype
from torch import Tensor

from kspace.errors import InputError
from kspace.formats.files import temporary_beside
from kspace.formats.mrd.header import build_header
from kspace.formats.mrd.noise import readouts_with
from kspace.formats.mrd.placement import placements
from kspace.formats.mrd.timing import TICK_S, write_instants
from kspace.scan import RadialScan

_BLOCK = 1024  # readouts
_MAX_COUNT = 65535  # counters of a readout are uint16


def write_scan(
    path: str | os.PathLike[str],
    scan: RadialScan,
    *,
    dataset: str = "dataset",
    tr_s: float | None = None,
    te_s: float | None = None,
    dwell_s: float | None = None,
) -> None:
    """Write a whole scan; parameters and errors as in :class:`ScanWriter`."""
    with ScanWriter(path, dataset=dataset, tr_s=tr_s, te_s=te_s, dwell_s=dwell_s) as writer:
        writer.append(scan)


class ScanWriter:
    """Write a scan batch by batch, as it comes.

    The file grows beside its place and is renamed into it by :meth:`close`. As a context manager it closes at the end
    and also when interrupted from the keyboard, so that what was appended is kept; any other exception discards it,
    unless :meth:`close` was called before.

    :func:`kspace.formats.mrd.read_scan` gives back samples exactly (complex64), positions to 1e-7 cycles per pixel,
    instants to 10 us, R waves exactly, the noise covariance to 1e-5 of its size, and frames.

    Parameters
    ----------
    path
        The final name.
    dataset
        Name of the group in the file.
    tr_s, te_s
        Repetition and echo time in seconds, for the header; None leaves them out.
    dwell_s
        Time between two samples in seconds, for the header; None writes 0, "not known".

    Raises
    ------
    InputError
        When the folder does not exist or cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        dataset: str = "dataset",
        tr_s: float | None = None,
        te_s: float | None = None,
        dwell_s: float | None = None,
    ) -> None:
        self._path, self._temporary = Path(path), temporary_beside(path)
        self._tr_s, self._te_s, self._dwell_us = tr_s, te_s, (dwell_s or 0.0) * 1e6
        self._file: Any = h5py.File(self._temporary, "w-")
        self._group: Any = self._file.create_group(dataset)
        self._table: Any = self._group.create_dataset(
            "data", (0,), maxshape=(None,), chunks=(256,), dtype=acquisition_dtype
        )
        self._first: RadialScan | None = None
        self._ecg_s = np.zeros(0)
        self._n_frames = 0
        self._spokes_of_slice: np.ndarray = np.zeros(0, dtype=np.int64)
        self._n_rows = 0  # of whole batches; what an interrupted append left behind them is cut off

    @property
    def n_spokes(self) -> int:
        """Number of spokes appended so far."""
        return int(self._spokes_of_slice.sum())

    def append(self, scan: RadialScan, trust: Tensor | None = None) -> None:
        """Append spokes.

        Parameters
        ----------
        scan
            The next batch. Every batch has the coils, readout and whole geometry of the first (a batch of one slice
            keeps the geometry of all, and its ``slice_index`` says which it is), and frames if the first has. The
            R waves of all batches are merged; the noise covariance is that of the first.
        trust
            (spoke,) how much each should count, for ``user_float[0]`` of its header.

        Raises
        ------
        InputError
            When the batch does not fit the first, a count exceeds 65535, or an instant lies outside 0 to 42949 s.
        """
        if self._file is None:
            raise InputError(f"{self._path.name} is closed", expected="batches before the end")
        self._check(scan)
        frame = None if scan.frame is None else scan.frame.cpu().numpy()
        slices = scan.slices.cpu().numpy()
        ecg_s = np.union1d(self._ecg_s, scan.ecg_s.cpu().numpy())
        stamps, since_r = write_instants(scan.time_s.cpu().numpy(), ecg_s)
        self._table.resize(self._n_rows, axis=0)
        per_slice = np.zeros(scan.geometry.shape[0], np.int64) if self._first is None else self._spokes_of_slice.copy()
        if self._first is None and scan.noise_covariance is not None:
            self._write_noise(readouts_with(scan.noise_covariance.cpu().numpy(), scan.n_readout))
        heads = self._heads(scan.n_spokes, scan.n_coils, scan.n_readout)
        heads["acquisition_time_stamp"], heads["physiology_time_stamp"][:, 0] = stamps, since_r
        heads["trajectory_dimensions"] = 2
        positions_mm, directions = placements(scan.geometry)
        heads["position"] = positions_mm[slices]
        heads["read_dir"], heads["phase_dir"], heads["slice_dir"] = directions
        heads["idx"]["slice"] = slices
        heads["idx"]["phase"] = 0 if frame is None else frame
        heads["idx"]["kspace_encode_step_1"] = _steps(slices, per_slice) % (_MAX_COUNT + 1)
        if trust is not None:
            heads["user_float"][:, 0] = trust.cpu().numpy()
        self._write(heads, scan)
        self._first = self._first or scan.select(slice(0, 0))
        self._ecg_s, self._spokes_of_slice, self._n_rows = ecg_s, per_slice, self._table.shape[0]
        if frame is not None and len(frame):
            self._n_frames = max(self._n_frames, int(frame.max()) + 1)

    def close(self) -> None:
        """Finish the file under its final name; a second call does nothing.

        Raises
        ------
        InputError
            When no spoke was appended (nothing is left behind), or the file cannot be put into place.
        """
        if self._file is None:
            return
        if self._first is None or not self.n_spokes:
            self.discard()
            raise InputError(f"there are no spokes for {self._path.name}", expected="at least one")
        geometry = self._first.geometry
        numbers = {"timestamp_tick_s": TICK_S, "slice_spacing_mm": geometry.spacing_mm[0]}
        if geometry.slice_thickness_mm is not None:
            numbers["slice_thickness_mm"] = geometry.slice_thickness_mm
        try:
            self._table.resize(self._n_rows, axis=0)
            xml = build_header(
                geometry,
                self._first.n_coils,
                n_steps=min(int(self._spokes_of_slice.max()), _MAX_COUNT + 1),
                n_frames=None if self._first.frame is None else max(self._n_frames, 1),
                numbers=numbers,
                r_waves_s=self._ecg_s.tolist(),
                source=self._first.source,
                tr_s=self._tr_s,
                te_s=self._te_s,
            )
            text = self._group.create_dataset("xml", (1,), dtype=h5py.special_dtype(vlen=bytes))
            text[0] = xml
            self._file.close()
            self._temporary.replace(self._path)
            self._file = None
        except OSError as error:
            raise InputError(f"{self._path} could not be written", expected="a writable place with space") from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Give up: close and delete what was written; does nothing after :meth:`close`."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        if kind is None or (interrupted and self.n_spokes):
            self.close()
        else:
            self.discard()

    def _check(self, scan: RadialScan) -> None:
        n_frames = 0 if scan.frame is None or not len(scan.frame) else int(scan.frame.max()) + 1
        counts = (scan.n_coils, scan.n_readout, scan.geometry.shape[0], n_frames)
        if max(counts) > _MAX_COUNT:
            raise InputError(
                f"the scan has (coils, samples, slices, frames) {counts}",
                expected=f"at most {_MAX_COUNT} each, which is what ISMRMRD can count",
            )
        first = self._first
        if first is None:
            return
        if (scan.n_coils, scan.n_readout, scan.geometry.shape) != (
            first.n_coils,
            first.n_readout,
            first.geometry.shape,
        ):
            raise InputError(
                f"the batch has {scan.n_coils} coils x {scan.n_readout} samples on a grid {scan.geometry.shape}",
                expected=f"{first.n_coils} x {first.n_readout} on {first.geometry.shape} as in the first batch",
            )
        if not np.allclose(scan.geometry.affine, first.geometry.affine, atol=1e-4):
            raise InputError("the batch lies elsewhere than the first", expected="one geometry for the whole scan")
        if (scan.frame is None) != (first.frame is None):
            raise InputError("only some batches have frames", expected="frames in all batches or in none")

    def _heads(self, count: int, n_coils: int, n_samples: int) -> np.ndarray:
        heads = np.zeros(count, dtype=acquisition_header_dtype)
        heads["version"] = 1
        heads["scan_counter"] = self._table.shape[0] + np.arange(count)
        heads["number_of_samples"], heads["center_sample"] = n_samples, n_samples // 2
        heads["available_channels"] = heads["active_channels"] = n_coils
        bits = np.zeros(1024, dtype=np.uint8)
        bits[:n_coils] = 1
        heads["channel_mask"] = np.packbits(bits, bitorder="little").view("<u8")
        heads["sample_time_us"] = self._dwell_us
        return heads

    def _write_noise(self, readouts: np.ndarray) -> None:
        heads = self._heads(len(readouts), *readouts.shape[1:])
        heads["flags"] = 1 << (ismrmrd.ACQ_IS_NOISE_MEASUREMENT - 1)
        self._store(heads, np.zeros((len(readouts), 0), np.float32), readouts.reshape(len(readouts), -1))

    def _write(self, heads: np.ndarray, scan: RadialScan) -> None:
        for start in range(0, scan.n_spokes, _BLOCK):
            part = slice(start, min(start + _BLOCK, scan.n_spokes))
            samples = scan.samples[part].detach().cpu().numpy().astype(np.complex64)
            traj = scan.positions[part].detach().cpu().numpy().astype(np.float32)[..., ::-1]  # (kx, ky)
            count = part.stop - part.start
            self._store(heads[part], traj.reshape(count, -1), samples.reshape(count, -1))

    def _store(self, heads: np.ndarray, traj: np.ndarray, samples: np.ndarray) -> None:
        rows = np.zeros(len(heads), dtype=acquisition_dtype)
        rows["head"] = heads
        for index, (k, s) in enumerate(zip(traj, samples, strict=True)):
            rows["traj"][index] = k
            rows["data"][index] = s.view(np.float32)
        start = self._table.shape[0]
        try:
            self._table.resize(start + len(rows), axis=0)
            self._table[start:] = rows
        except OSError as error:
            raise InputError(f"{self._path} could not be written", expected="a writable place with space") from error


def _steps(slices: np.ndarray, per_slice: np.ndarray) -> np.ndarray:
    """Number each spoke within its slice, going on from ``per_slice`` (slice,), which is counted up."""
    steps = np.empty(len(slices), dtype=np.int64)
    for index in np.unique(slices):
        where = np.flatnonzero(slices == index)
        steps[where] = per_slice[index] + np.arange(len(where))
        per_slice[index] += len(where)
    return steps
