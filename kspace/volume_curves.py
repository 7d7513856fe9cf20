"""Volumes of the heart's structures over the beat, counted from labels, and how fast the LV fills and empties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.errors import ShapeError
from kspace.scan import Geometry
from kspace.segment.segmentation import FOREGROUND, SlicePosition, Structure

HARMONICS = 6
"""Of the Fourier series of a volume curve: fewer blunt early filling, more only add noise (Bacharach et al., J Nucl Med
24:1176, 1983). On the curves of 60 virtual patients in 20 to 50 frames, six leave errors of -2 +- 5 % in peak filling
and +2 +- 2 % in peak emptying, and 10 % where volumes scatter by 3 % of the stroke; five and eight leave more."""
FULL_SHARE = 0.5
"""A stack that ends in a slice with this share of the largest LV area goes on beyond its end."""


@dataclass(frozen=True)
class VolumeCurves:
    """Areas of every structure in every slice and frame, and the volumes that they add up to.

    Parameters
    ----------
    areas_mm2
        (structure, slice, frame) float64 in the order of :data:`~kspace.segment.segmentation.FOREGROUND`. NaN in
        frames in which nothing is labelled in any slice: nobody drew them, or the heart was not found.
    spacing_mm
        From one slice to the next, gap included.
    """

    areas_mm2: Tensor
    spacing_mm: float

    def __post_init__(self) -> None:
        if self.areas_mm2.ndim != 3 or len(self.areas_mm2) != len(FOREGROUND) or min(self.areas_mm2.shape) < 1:
            raise ShapeError("the areas", self.areas_mm2, f"({len(FOREGROUND)}, slice, frame), none of them empty")

    @property
    def single(self) -> bool:
        """Whether there is one slice only, which has areas but says nothing of volumes."""
        return self.areas_mm2.shape[1] == 1

    @property
    def unit(self) -> str:
        """Of :meth:`of`: ``ml``, or ``cm2`` of a single slice."""
        return "cm2" if self.single else "ml"

    def of(self, structure: Structure) -> Tensor:
        """Return the curve of one structure, (frame,) float64: mL of a stack, cm2 of a single slice."""
        area = self.areas_mm2[FOREGROUND.index(structure)].sum(0)
        return area / 100 if self.single else area * self.spacing_mm / 1000

    @property
    def drawn(self) -> tuple[int, ...]:
        """The frames in which anything is labelled."""
        return tuple(int(frame) for frame in torch.nonzero(self.areas_mm2[0, 0].isfinite()).flatten())

    @property
    def ed_frame(self) -> int | None:
        """End-diastole: the frame of the largest LV; None where no frame has any LV."""
        volume = self.of(Structure.LV).nan_to_num(-1.0)
        return int(volume.argmax()) if float(volume.max()) > 0 else None

    @property
    def es_frame(self) -> int | None:
        """End-systole: the frame of the smallest LV among those that are labelled; None where no frame has any LV."""
        if self.ed_frame is None:
            return None
        return int(self.of(Structure.LV).nan_to_num(torch.inf).argmin())

    @property
    def full_ends(self) -> dict[int, float]:
        """The ends of the stack that are full of LV at end-diastole, with their share of the largest LV area.

        The heart goes on beyond such a slice (:data:`FULL_SHARE` or more), and what lies there is not counted.
        """
        if self.single or self.ed_frame is None:
            return {}
        areas = self.areas_mm2[FOREGROUND.index(Structure.LV), :, self.ed_frame]
        share = areas / areas.max()
        return {index: float(share[index]) for index in (0, len(areas) - 1) if float(share[index]) >= FULL_SHARE}


def volume_curves(labels: Tensor, geometry: Geometry, positions: Sequence[SlicePosition] | None = None) -> VolumeCurves:
    """Count the labels of a stack, frame by frame: area times distance of slices (Simpson's rule of discs).

    A slice counts in a frame by what is labelled there, so that the basal slice leaves the ventricle at systole as the
    valve passes it. Left out are slices in which there is no heart, and of each structure in each frame a single slice
    that an empty one parts from the rest: an island of labels in the atrium or the stomach.

    Parameters
    ----------
    labels
        (slice, frame, y, x) uint8, as :class:`~kspace.segment.segmentation.Structure`.
    geometry
        Of the slices.
    positions
        Of each slice, where they are known.

    Raises
    ------
    ShapeError
        When labels, geometry and positions do not fit together.
    """
    shape = tuple(labels.shape)
    if len(shape) != 4 or (shape[0], *shape[2:]) != geometry.shape or shape[1] < 1:
        slices, rows, columns = geometry.shape
        raise ShapeError("the labels", labels, f"(slice, frame, y, x) = ({slices}, n >= 1, {rows}, {columns})")
    if positions is not None and len(positions) != shape[0]:
        raise ShapeError("the positions", (len(positions),), f"({shape[0]},)")
    dz, dy, dx = geometry.spacing_mm
    where = torch.nonzero(labels.amax((0, 1)))  # a heart fills a tenth of its image
    if len(where):
        (top, left), (bottom, right) = where.amin(0).tolist(), where.amax(0).tolist()
        labels = labels[..., top : bottom + 1, left : right + 1]
    counts = torch.stack([(labels == structure).sum((2, 3)) for structure in FOREGROUND]).to("cpu", torch.float64)
    nothing = (counts == 0).all(0).all(0)
    if positions is not None:
        without = torch.tensor([position == SlicePosition.NO_HEART for position in positions])
        counts[:, without] = 0
    for curves in counts:
        for frame in range(shape[1]):
            curves[_islands(curves[:, frame].tolist()), frame] = 0
    counts[:, :, nothing] = torch.nan
    return VolumeCurves(counts * dy * dx, dz)


def _islands(areas: Sequence[float]) -> list[int]:
    """Return the slices that stand alone; the run of slices with the largest area in all never does."""
    runs: list[list[int]] = []
    for index, area in enumerate(areas):
        if area > 0:
            if not runs or runs[-1][-1] != index - 1:
                runs.append([])
            runs[-1].append(index)
    main = max(runs, key=lambda run: sum(areas[index] for index in run), default=[])
    return [run[0] for run in runs if len(run) == 1 and run is not main]


def harmonic_fit(curve: Tensor, harmonics: int = HARMONICS) -> Tensor | None:
    """Return the curve as a periodic series of few harmonics, (frame,) in its own unit.

    None where a frame is not known or there are not more frames than the series has coefficients: nothing would be
    smoothed.
    """
    spectrum = _series(curve, harmonics)
    return None if spectrum is None else torch.fft.irfft(spectrum, n=len(curve))


def peak_rates(curve: Tensor, rr_s: float, harmonics: int = HARMONICS) -> tuple[float, float] | None:
    """Return the fastest filling and the fastest emptying, both positive, in the curve's unit per second.

    The derivative is that of :func:`harmonic_fit`, looked at sixteen times between two frames.

    Parameters
    ----------
    curve
        (frame,) volumes of one beat, evenly spaced in time.
    rr_s
        Length of the beat in seconds.
    harmonics
        Of the series.

    Returns
    -------
        None where :func:`harmonic_fit` is.
    """
    spectrum = _series(curve, harmonics)
    if spectrum is None:
        return None
    order = torch.arange(len(spectrum), dtype=torch.float64)
    fine = 16 * len(curve)
    slope = torch.fft.irfft(spectrum * 2j * torch.pi * order / rr_s, n=fine) * (fine / len(curve))
    return float(slope.max()), float(-slope.min())


def _series(curve: Tensor, harmonics: int) -> Tensor | None:
    if len(curve) <= 2 * harmonics + 1 or not bool(curve.isfinite().all()):
        return None
    spectrum: Tensor = torch.fft.rfft(curve.to(torch.float64))
    spectrum[harmonics + 1 :] = 0
    return spectrum
