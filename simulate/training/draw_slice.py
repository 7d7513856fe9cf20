"""One slice of a virtual patient in a small window, over the beat: shares of tissue times signals, and labels.

The same anatomy as :class:`simulate.patient.anatomy.PatientBody`, without its grid, its caches and its whole stack:
only the window that is needed is drawn, in any orientation in its plane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simulate.body import BodyState
from simulate.patient.canvas import Canvas
from simulate.patient.heart import Heart
from simulate.patient.parameters import Patient
from simulate.patient.placement import axes, heart_shift, mitral_centre
from simulate.patient.render import PolarGrid, paint_heart, paint_labels
from simulate.patient.shapes import Points
from simulate.patient.thorax import Thorax

_EDGE = 1.15  # width of an edge in pixels


@dataclass(frozen=True)
class Frame:
    """A window in the plane of a slice.

    Parameters
    ----------
    size
        Rows and columns.
    pixel_mm
        Size of a pixel.
    z_mm, thickness_mm
        Where the slice lies along the long axis, and its thickness.
    centre_mm
        (x, y) of the window's middle from the left ventricle's axis.
    rotation_rad, mirrored
        Turn of the window in its plane, and whether its columns run the other way.
    """

    size: int
    pixel_mm: float
    z_mm: float
    thickness_mm: float = 8.0
    centre_mm: tuple[float, float] = (0.0, 0.0)
    rotation_rad: float = 0.0
    mirrored: bool = False

    def points(self, patient: Patient, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return stack coordinates x and y of the pixels: two (1, y, x)."""
        place = (torch.arange(self.size, device=device) - self.size // 2) * self.pixel_mm
        i, j = place[None, None, :], place[None, :, None]
        i = -i if self.mirrored else i
        c, s = math.cos(self.rotation_rad), math.sin(self.rotation_rad)
        x0 = self.centre_mm[0] + patient.placement.drift_x * self.z_mm
        y0 = self.centre_mm[1] + patient.placement.drift_y * self.z_mm
        return c * i - s * j + x0, s * i + c * j + y0


def draw_slice(
    patient: Patient, frame: Frame, phases: Tensor, signals: Tensor, *, breath_mm: float = 0.0, planes: int = 2,
    device: str | torch.device = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Draw a slice of a patient over the beat.

    Parameters
    ----------
    patient, frame
        Who and where.
    phases
        (frame,) mechanical phases in [0, 1).
    signals
        (frame, N_TISSUES) real signals at each phase.
    breath_mm
        Displacement of the diaphragm.
    planes
        Drawn through the thickness, and averaged.
    device
        Where to draw.

    Returns
    -------
    Images (frame, y, x) float32, labels (frame, y, x) uint8, and the share of blood (frame, y, x) float32.
    """
    where = torch.device(device)
    signals = signals.to(where, torch.float32)
    x, y = frame.points(patient, where)
    offsets = ((np.arange(planes) + 0.5) / planes - 0.5) * frame.thickness_mm
    z = frame.z_mm + offsets
    still = BodyState(breath_mm=breath_mm)
    edge = _EDGE * frame.pixel_mm
    chest = _chest(patient, x, y, z, breath_mm, edge)
    shift = heart_shift(patient, still)
    heart, p = Heart(patient), patient.placement

    def polar(depth: np.ndarray) -> PolarGrid:
        at = torch.as_tensor(depth, dtype=torch.float32, device=where)[:, None, None]
        return PolarGrid.of(x - float(shift[0]) - p.drift_x * at, y - float(shift[1]) - p.drift_y * at, p.septum_rad)

    through, middle = z - shift[2], np.array([frame.z_mm - shift[2]])
    grid, flat = polar(through), polar(middle)
    images, labels, blood = [], [], []
    background: dict[bytes, Tensor] = {}
    for phase, now in zip(phases.tolist(), signals, strict=True):
        state = BodyState(phase % 1.0, breath_mm=breath_mm)
        canvas = Canvas(tuple(grid.radius.shape), edge, where)
        paint_heart(canvas, heart.section(through, state), grid, patient)
        key = now.cpu().numpy().tobytes()
        if key not in background:
            background[key] = torch.einsum("t,tyx->yx", now, chest)
        beating = torch.einsum("t,tyx->yx", now, canvas.densities)
        images.append(beating + canvas.remaining.mean(0) * background[key])
        labels.append(paint_labels(heart.section(middle, state), flat)[0])
        blood.append(canvas.fractions[8] + canvas.fractions[9])
    return torch.stack(images), torch.stack(labels), torch.stack(blood)


def _chest(patient: Patient, x: Tensor, y: Tensor, z: np.ndarray, breath_mm: float, edge_mm: float) -> Tensor:
    """Return the textured shares of the tissues around the heart: (N_TISSUES, y, x)."""
    basis, centre, thorax = axes(patient), mitral_centre(patient), Thorax(patient)

    def body(depth: np.ndarray) -> Points:
        at = torch.as_tensor(depth, dtype=torch.float32, device=x.device)[:, None, None]
        left, back, feet = (
            float(basis[0, k]) * x + float(basis[1, k]) * y + float(basis[2, k]) * at + float(centre[k])
            for k in range(3)
        )
        return thorax.displaced(Points(left, back, feet), breath_mm)

    canvas = Canvas((len(z), *x.shape[1:]), edge_mm, x.device)
    thorax.paint(canvas, body(z), body(z.mean(keepdims=True)))
    return canvas.densities
