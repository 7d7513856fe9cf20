"""The data that travels: where pixels lie, a cine, and a stream of radial spokes.

All three are frozen dataclasses that check themselves on entry, so that what holds one never has to check again.

======================  ==================================  ======================================
quantity                shape                               unit
======================  ==================================  ======================================
cine images             (slice, frame, y, x)                arbitrary, real or complex
k-space samples         (spoke, coil, readout)              the images' unit (unitary scaling)
k-space positions       (spoke, readout, 2), order ky, kx   cycles per pixel, in [-0.5, 0.5]
instants                (spoke,)                            seconds
affine                  (4, 4), of (column, row, slice, 1)  millimetres, right-anterior-superior
======================  ==================================  ======================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError

BEAT_MARGIN_S = 2.0
"""R waves within so many seconds of a slice's spokes belong to it: long enough for one slow beat on either side."""


def _require_finite(name: str, values: Tensor) -> None:
    numbers = torch.view_as_real(values) if values.is_complex() else values
    # NaN is the smallest and the largest of what holds one, and finding both takes a twentieth of asking each number.
    if numbers.numel() and not all(math.isfinite(float(end)) for end in torch.aminmax(numbers)):
        bad = int((~torch.isfinite(numbers)).sum())
        raise InputError(
            f"{name} holds {bad} value(s) that are NaN or infinite",
            expected="finite numbers",
            hint="Find the readouts or images at fault and leave them out",
        )


def _default_affine() -> np.ndarray:
    return np.diag([1.0, 1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of a stack of slices lie in the patient.

    Parameters
    ----------
    shape
        Number of (slices, rows, columns).
    affine
        (4, 4), takes (column, row, slice, 1) to millimetres in right-anterior-superior axes, as NIfTI does.
    slice_thickness_mm
        Thickness of the excited slice; None where the source does not say (the distance of slices, :attr:`spacing_mm`,
        may differ from it by a gap).

    Raises
    ------
    ShapeError, InputError
        When the affine is not an invertible (4, 4) matrix or a number is not positive.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray = field(default_factory=_default_affine)
    slice_thickness_mm: float | None = None

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ShapeError("the geometry", tuple(self.shape), "(slices, rows, columns), each at least 1")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4):
            raise ShapeError("the affine", affine, "(4, 4)")
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise InputError("the affine cannot be inverted", expected="finite, linearly independent axes in mm")
        if self.slice_thickness_mm is not None and not self.slice_thickness_mm > 0:
            raise InputError(f"the slice thickness is {self.slice_thickness_mm} mm", expected="a positive number")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def from_spacing(
        cls,
        shape: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
        *,
        slice_thickness_mm: float | None = None,
    ) -> Self:
        """Build an axis-aligned geometry from the spacing (slice, row, column) in mm, centred on the origin."""
        if len(spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
            raise InputError(f"the spacing is {spacing_mm} mm", expected="three positive numbers (slice, row, column)")
        dz, dy, dx = spacing_mm
        affine = np.diag([dx, dy, dz, 1.0])
        affine[:3, 3] = [-dx * (shape[2] // 2), -dy * (shape[1] // 2), -dz * (shape[0] // 2)]
        return cls(shape, affine, slice_thickness_mm)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbours along (slice, row, column), in mm."""
        dx, dy, dz = (float(np.linalg.norm(self.affine[:3, axis])) for axis in range(3))
        return dz, dy, dx

    @property
    def field_of_view_mm(self) -> tuple[float, float]:
        """Extent in plane along (row, column) axes, in mm."""
        _, dy, dx = self.spacing_mm
        return dy * self.shape[1], dx * self.shape[2]

    def with_matrix(self, rows: int, columns: int) -> Self:
        """Return the same field of view with another in-plane matrix.

        The pixel at index ``N // 2``, the origin of the discrete Fourier transform, keeps its place: this is the
        geometry of an image whose k-space was cropped or zero-padded.
        """
        _, old_rows, old_columns = self.shape
        affine = self.affine.copy()
        affine[:3, 0] *= old_columns / columns
        affine[:3, 1] *= old_rows / rows
        centre_old = np.array([old_columns // 2, old_rows // 2, 0, 1.0])
        centre_new = np.array([columns // 2, rows // 2, 0, 1.0])
        affine[:3, 3] += (self.affine @ centre_old - affine @ centre_new)[:3]
        return replace(self, shape=(self.shape[0], rows, columns), affine=affine)

    def select_slices(self, indices: Sequence[int]) -> Self:
        """Return the geometry of a run of slices; they must be evenly spaced and ascending."""
        steps = set(np.diff(indices).tolist())
        if not indices or len(steps) > 1 or min(steps, default=1) < 1:
            raise InputError(f"cannot keep slices {list(indices)}", expected="evenly spaced, ascending indices")
        affine = self.affine.copy()
        affine[:3, 3] = (self.affine @ np.array([0, 0, indices[0], 1.0]))[:3]
        affine[:3, 2] *= steps.pop() if steps else 1
        return replace(self, shape=(len(indices), *self.shape[1:]), affine=affine)


@dataclass(frozen=True)
class Cine:
    """A stack of beating slices.

    Parameters
    ----------
    images
        (slice, frame, y, x), real or complex. Frame f shows the heart at phase ``(f + 0.5) / n_frames`` of its beat.
    geometry
        Where the pixels lie.
    rr_s
        (slice,) mean RR interval of each slice in seconds; a single number stands for all of them.
    source
        What the cine came from, in a few words, for reports. Never a patient's name.
    """

    images: Tensor
    geometry: Geometry
    rr_s: tuple[float, ...] | float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or min(self.images.shape) < 1:
            raise ShapeError("the cine", self.images, "(slice, frame, y, x), none of them empty")
        if (self.images.shape[0], *self.images.shape[2:]) != self.geometry.shape:
            raise ShapeError("the cine", self.images, f"the geometry's {self.geometry.shape} in slices, rows, columns")
        if not (self.images.is_complex() or self.images.is_floating_point()):
            object.__setattr__(self, "images", self.images.to(torch.float32))
        _require_finite("the cine", self.images)
        rr = self.rr_s if isinstance(self.rr_s, tuple) else (float(self.rr_s),) * self.n_slices
        if len(rr) != self.n_slices:
            raise ShapeError("rr_s", (len(rr),), f"one RR interval for each of the {self.n_slices} slices")
        if not all(0.2 <= value <= 3.0 for value in rr):
            raise InputError(f"an RR interval lies outside 0.2 to 3 s: {rr}", expected="seconds between heartbeats")
        object.__setattr__(self, "rr_s", rr)

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return int(self.images.shape[0])

    @property
    def n_frames(self) -> int:
        """Number of cardiac phases."""
        return int(self.images.shape[1])

    def slice_rr_s(self, index: int) -> float:
        """RR interval of one slice in seconds."""
        assert isinstance(self.rr_s, tuple)
        return self.rr_s[index]

    def select_slices(self, indices: Sequence[int]) -> Self:
        """Return the cine of some of its slices."""
        if any(not 0 <= index < self.n_slices for index in indices):
            raise InputError(f"there is no slice {list(indices)}", expected=f"indices from 0 to {self.n_slices - 1}")
        geometry = self.geometry.select_slices(indices)
        rr_s = tuple(self.slice_rr_s(index) for index in indices)
        return replace(self, images=self.images[list(indices)], geometry=geometry, rr_s=rr_s)


@dataclass(frozen=True)
class RadialScan:
    """Spokes in the order of their acquisition, with the instant at which each was taken.

    Parameters
    ----------
    samples
        (spoke, coil, readout) complex64 or complex128.
    positions
        (spoke, readout, 2), order (ky, kx), in cycles per pixel of the reconstruction grid, within [-0.5, 0.5].
    time_s
        (spoke,) float64, not descending within a slice.
    geometry
        The reconstruction grid: matrix and field of view that ``positions`` refer to.
    slice_index
        (spoke,) int64, which slice each spoke belongs to; zeros by default.
    ecg_s
        (beat,) float64, instants of the R waves seen so far; empty where no ECG was recorded.
    frame
        (spoke,) int64, the frame of each spoke where the source fixes it (repetition or phase counters); None where
        gating has to find it.
    noise_covariance
        (coil, coil), Hermitian: the expectation of ``n n^H`` of one sample; None where it is not known.
    source
        What the spokes came from, in a few words, for reports.
    """

    samples: Tensor
    positions: Tensor
    time_s: Tensor
    geometry: Geometry
    slice_index: Tensor | None = None
    ecg_s: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    frame: Tensor | None = None
    noise_covariance: Tensor | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.samples.ndim != 3 or min(self.samples.shape[1:]) < 1:
            raise ShapeError("samples", self.samples, "(spoke, coil, readout), at least one coil and one sample")
        if not self.samples.is_complex():
            raise InputError(f"samples are {self.samples.dtype}", expected="complex64 or complex128")
        n_spokes, n_coils, n_readout = self.samples.shape
        if self.positions.shape != (n_spokes, n_readout, 2):
            raise ShapeError("positions", self.positions, f"(spoke, readout, 2) = ({n_spokes}, {n_readout}, 2)")
        slice_index = torch.zeros(n_spokes, dtype=torch.int64) if self.slice_index is None else self.slice_index
        for name, values in (("time_s", self.time_s), ("slice_index", slice_index), ("frame", self.frame)):
            if values is not None and values.shape != (n_spokes,):
                raise ShapeError(name, values, f"(spoke,) = ({n_spokes},)")
        if self.ecg_s.ndim != 1:
            raise ShapeError("ecg_s", self.ecg_s, "(beat,)")
        for name, values in (
            ("samples", self.samples),
            ("positions", self.positions),
            ("time_s", self.time_s),
            ("ecg_s", self.ecg_s),
        ):
            _require_finite(f"the scan's {name}", values)
        # The half millionth of slack is float32 rounding of positions that touch the edge.
        if n_spokes and float(self.positions.abs().max()) > 0.5 + 5e-7:
            raise InputError(
                f"k-space positions reach {float(self.positions.abs().max()):.4g}",
                expected="cycles per pixel within [-0.5, 0.5]",
                hint="Divide by the matrix size if they are in cycles per field of view",
            )
        n_slices = self.geometry.shape[0]
        if n_spokes and not 0 <= int(slice_index.min()) <= int(slice_index.max()) < n_slices:
            raise InputError(
                f"slice indices run from {int(slice_index.min())} to {int(slice_index.max())}",
                expected=f"0 to {n_slices - 1}, as the geometry has {n_slices} slice(s)",
            )
        if self.frame is not None and n_spokes and int(self.frame.min()) < 0:
            raise InputError("a frame index is negative", expected="frames counted from 0")
        if self.noise_covariance is not None:
            if self.noise_covariance.shape != (n_coils, n_coils):
                raise ShapeError("noise_covariance", self.noise_covariance, f"(coil, coil) = ({n_coils}, {n_coils})")
            _require_finite("the noise covariance", self.noise_covariance)
        object.__setattr__(self, "slice_index", slice_index)
        object.__setattr__(self, "time_s", self.time_s.to(torch.float64))
        object.__setattr__(self, "ecg_s", self.ecg_s.to(torch.float64))

    @property
    def n_spokes(self) -> int:
        """Number of spokes."""
        return int(self.samples.shape[0])

    @property
    def n_coils(self) -> int:
        """Number of receive channels."""
        return int(self.samples.shape[1])

    @property
    def n_readout(self) -> int:
        """Number of samples on a spoke."""
        return int(self.samples.shape[2])

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns of the reconstruction grid."""
        return self.geometry.shape[1], self.geometry.shape[2]

    @property
    def slices(self) -> Tensor:
        """(spoke,) int64, which slice each spoke belongs to."""
        assert self.slice_index is not None
        return self.slice_index

    def select(self, spokes: Tensor | slice) -> Self:
        """Return some of the spokes (a mask, indices or a slice), with everything else as it is."""
        return replace(
            self,
            samples=self.samples[spokes],
            positions=self.positions[spokes],
            time_s=self.time_s[spokes],
            slice_index=self.slices[spokes],
            frame=None if self.frame is None else self.frame[spokes],
        )

    def select_slice(self, index: int) -> Self:
        """Return the spokes of one slice, with the geometry of that slice alone and the R waves around its time."""
        chosen = self.select(self.slices == index)
        if chosen.n_spokes:
            near = (self.ecg_s >= chosen.time_s[0] - BEAT_MARGIN_S) & (self.ecg_s <= chosen.time_s[-1] + BEAT_MARGIN_S)
            chosen = replace(chosen, ecg_s=self.ecg_s[near])
        return replace(
            chosen, slice_index=torch.zeros_like(chosen.slices), geometry=self.geometry.select_slices([index])
        )


def concatenate(scans: Sequence[RadialScan]) -> RadialScan:
    """Join scans of the same coils and geometry in the order given.

    The R waves are merged; frames are kept only where every part has them.

    Raises
    ------
    InputError
        When there is nothing to join, or the parts differ in coils, readout or matrix.
    """
    if not scans:
        raise InputError("there are no scans to join", expected="at least one")
    first = scans[0]
    for scan in scans[1:]:
        if scan.samples.shape[1:] != first.samples.shape[1:] or scan.geometry.shape != first.geometry.shape:
            raise InputError(
                f"a part has (coil, readout) {tuple(scan.samples.shape[1:])} on a grid {scan.geometry.shape}",
                expected=f"{tuple(first.samples.shape[1:])} on {first.geometry.shape} as in the first part",
            )
    frames = [scan.frame for scan in scans]
    return replace(
        first,
        samples=torch.cat([scan.samples for scan in scans]),
        positions=torch.cat([scan.positions for scan in scans]),
        time_s=torch.cat([scan.time_s for scan in scans]),
        slice_index=torch.cat([scan.slices for scan in scans]),
        ecg_s=torch.unique(torch.cat([scan.ecg_s for scan in scans])),
        frame=None if any(f is None for f in frames) else torch.cat([f for f in frames if f is not None]),
    )
