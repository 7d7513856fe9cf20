"""What the virtual scanner sees: a body in a state, as a complex image of each slice.

Coordinates are those of the short-axis stack, in mm: x along the columns, to the patient's left; y along the rows, to
the back; z along the left ventricle's long axis, from 0 at the mitral plane at end-diastole towards the apex.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from kspace.scan import Geometry


@dataclass(frozen=True)
class BodyState:
    """Where everything in the body is at one instant.

    Parameters
    ----------
    phase
        Mechanical phase of the heart in [0, 1): 0 at end-diastole; the ventricle is smallest at the patient's own
        end-systolic phase. Beats of different length pass through it at different speeds.
    stroke
        Stroke volume of this beat relative to a regular one; below 1 for a premature beat that had no time to fill.
    breath_mm
        Displacement of the diaphragm from the breath-hold position, in mm, positive towards the feet.
    shift_mm
        Bulk shift of the whole body along (x, y, z), in mm.
    rotation_rad
        Bulk rotation of the whole body in the slice plane about the centre of the field of view, from +x towards +y.
    """

    phase: float = 0.0
    stroke: float = 1.0
    breath_mm: float = 0.0
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation_rad: float = 0.0


@dataclass(frozen=True)
class Window:
    """A part of the image grid: rows and columns from ``start`` up to, not including, ``stop``."""

    rows: tuple[int, int]
    columns: tuple[int, int]


class Body(Protocol):
    """A body that can be imaged without noise or coils."""

    @property
    def geometry(self) -> Geometry:
        """The fine grid on which the body is drawn; finer than any grid that it is reconstructed on."""
        ...

    @property
    def heart_window(self) -> Window:
        """The part of the grid outside which nothing changes with the cardiac phase (breath and bulk being equal)."""
        ...

    def image(self, slice_index: int, state: BodyState, window: Window | None = None) -> Tensor:
        """Return the (y, x) complex64 transverse magnetisation of one slice, or of a window of it."""
        ...

    def labels(self, slice_index: int, state: BodyState) -> Tensor:
        """Return (y, x) uint8: 0 background, 1 LV cavity, 2 myocardium, 3 RV cavity, in the middle of the slice."""
        ...
