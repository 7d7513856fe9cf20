"""The HDF5 side of an ISMRMRD file: opened with suspicion, read in blocks of many readouts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ismrmrd.hdf5 import acquisition_header_dtype

from kspace.errors import InputError
from kspace.formats.files import MAX_COMPRESSION, one_line

_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Readouts:
    """The readouts of an open file.

    Parameters
    ----------
    name
        Name of the file, for messages.
    xml
        The header's text.
    heads
        (readout,) structured array, ismrmrd's acquisition header.
    table
        The HDF5 dataset with the fields head, traj and data.
    size
        Length of the file in bytes.
    """

    name: str
    xml: bytes
    heads: np.ndarray
    table: Any
    size: int

    def load(self, chosen: np.ndarray, *, trajectory: bool) -> tuple[np.ndarray, np.ndarray]:
        """Read some readouts, all of one size.

        Parameters
        ----------
        chosen
            Ascending indices of readouts.
        trajectory
            Whether to read their trajectory too.

        Returns
        -------
            Samples (readout, coil, sample) complex64 and trajectory (readout, sample, dimension) float32.

        Raises
        ------
        InputError
            When a readout is not as long as its header says, holds NaN, or more is declared than the file can hold.
        """
        head = self.heads[chosen[0]]
        n_samples, n_coils = int(head["number_of_samples"]), int(head["active_channels"])
        n_dims = int(head["trajectory_dimensions"]) if trajectory else 0
        row_bytes = n_samples * (8 * n_coils + 4 * n_dims)
        if row_bytes == 0 or row_bytes * len(chosen) > self.size:
            raise InputError(
                f"{self.name} declares {len(chosen)} readouts of {n_coils} x {n_samples} in {self.size} bytes",
                expected="at least one sample, and as much data as declared",
                hint="The file is truncated or its headers damaged",
            )
        samples = np.empty((len(chosen), n_coils, n_samples), dtype=np.complex64)
        traj = np.empty((len(chosen), n_samples, n_dims), dtype=np.float32)
        fields = self.table.fields(["traj", "data"] if trajectory else ["data"])
        done, step = 0, max(1, _BLOCK_BYTES // row_bytes)
        while done < len(chosen):
            first = int(chosen[done])
            inside = chosen[done : done + step]
            inside = inside[inside < first + 2 * step]
            with reading(self.name):
                block = fields[first : int(inside[-1]) + 1][inside - first]
            into = slice(done, done + len(inside))
            samples[into].view(np.float32).reshape(len(inside), -1)[:] = self._rows(
                block["data"], 2 * n_coils * n_samples, inside, "samples"
            )
            if trajectory:
                traj[into].reshape(len(inside), -1)[:] = self._rows(
                    block["traj"], n_dims * n_samples, inside, "trajectory"
                )
            done += len(inside)
        return samples, traj

    def _rows(self, rows: np.ndarray, length: int, indices: np.ndarray, what: str) -> np.ndarray:
        for row, index in zip(rows, indices, strict=True):
            if len(row) != length:
                raise InputError(
                    f"readout {index} of {self.name} holds {len(row)} numbers of {what}",
                    expected=f"{length}, as its header declares",
                )
        values: np.ndarray = np.stack(list(rows))
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            raise InputError(
                f"the {what} of readout {indices[~finite][0]} of {self.name} hold NaN or infinity"
                f" ({int((~finite).sum())} readout(s) of this block do)",
                expected="finite numbers",
                hint="Leave these readouts out",
            )
        return values


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn HDF5's errors into an InputError about the file ``name``."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{name} cannot be read as HDF5: truncated or damaged ({one_line(error)})",
            expected="a complete ISMRMRD file",
            hint="Copy it again from its source",
        ) from error


@contextmanager
def open_readouts(path: Path, dataset: str) -> Iterator[Readouts]:
    """Open an ISMRMRD file and read its header and the heads of all readouts, not yet their data.

    Raises
    ------
    InputError
        When the file is damaged, no ISMRMRD, refers to other files, or declares more readouts than it can hold.
    """
    with reading(path.name):
        if not h5py.is_hdf5(path):
            raise InputError(f"{path.name} is no HDF5 file", expected="an ISMRMRD file (HDF5)")
        file = h5py.File(path, "r")
    with file:
        with reading(path.name):
            group = _member(file, dataset, path.name, h5py.Group)
            xml = _xml(_member(group, "xml", path.name, h5py.Dataset), path.name)
            table = _member(group, "data", path.name, h5py.Dataset)
            _check_table(table, path)
            heads = table.fields("head")[()]
        yield Readouts(path.name, xml, heads, table, path.stat().st_size)


def _member(parent: Any, names: str, file: str, kind: type) -> Any:
    """Follow plain links only: a link into another file could point anywhere on this machine."""
    here = parent
    for name in names.strip("/").split("/"):
        if not isinstance(here, h5py.Group) or name not in here:
            found = ", ".join(f"'{one_line(key, 40)}'" for key in list(parent)[:8]) or "nothing"
            raise InputError(
                f"{file} has no '{one_line(names, 60)}' in {parent.name}",
                expected="an ISMRMRD group with 'xml' and 'data'",
                hint=f"It holds {found}",
            )
        if here.get(name, getclass=True, getlink=True) is not h5py.HardLink:
            raise InputError(f"'{one_line(name, 60)}' in {file} is a link", expected="data inside the file itself")
        here = here[name]
    foreign = isinstance(here, h5py.Dataset) and (here.external is not None or here.is_virtual)
    if not isinstance(here, kind) or foreign:
        what = "lies in another file" if foreign else "is of the wrong kind"
        raise InputError(f"'{one_line(names, 60)}' in {file} {what}", expected=f"an HDF5 {kind.__name__.lower()}")
    return here


def _xml(table: Any, file: str) -> bytes:
    value = table[()] if table.size == 1 else None
    value = value.ravel()[0] if isinstance(value, np.ndarray) else value
    if isinstance(value, str):
        value = value.encode("utf-8", errors="replace")
    if not isinstance(value, bytes) or not value.strip():
        raise InputError(f"the XML header of {file} is empty or no text", expected="one ISMRMRD header")
    return value


def _check_table(table: Any, path: Path) -> None:
    names = table.dtype.names or ()
    vlen = [h5py.check_vlen_dtype(table.dtype[name]) for name in ("traj", "data") if name in names]
    known = "head" in names and vlen == [np.dtype("<f4")] * 2 and table.ndim == 1
    if not (known and _covers(table.dtype["head"], acquisition_header_dtype)):
        raise InputError(
            f"the readouts of {path.name} are stored as {one_line(table.dtype, 80)}",
            expected="ISMRMRD acquisitions with head, traj and data",
        )
    declared = table.shape[0] * acquisition_header_dtype.itemsize
    if declared > MAX_COMPRESSION * table.id.get_storage_size():
        raise InputError(
            f"{path.name} declares {table.shape[0]} readouts in {path.stat().st_size} bytes",
            expected="at least one readout, and as many as the file can hold",
        )
    if table.shape[0] == 0:
        raise InputError(f"{path.name} holds no readouts", expected="a scan with data")


def _covers(got: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether all fields are there, of the same shape and kind of number."""
    if wanted.names is None:
        return got.names is None and got.shape == wanted.shape and got.base.kind in "iuf"
    return all(name in (got.names or ()) and _covers(got[name], wanted[name]) for name in wanted.names)
