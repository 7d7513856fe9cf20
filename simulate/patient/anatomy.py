"""The virtual patient as a body that a scanner can see: images, tissue fractions, labels and exact volumes."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError
from kspace.parallel import one_thread
from kspace.scan import Geometry
from simulate.body import BodyState, Window
from simulate.patient.canvas import Canvas
from simulate.patient.heart import Heart
from simulate.patient.left import THETA, Array
from simulate.patient.parameters import Patient
from simulate.patient.placement import axes, heart_shift, mitral_centre, stack_affine
from simulate.patient.recent import Recent
from simulate.patient.render import PolarGrid, paint_heart, paint_labels
from simulate.patient.shapes import Points
from simulate.patient.thorax import Thorax
from simulate.signal import on_resonance_signals
from simulate.tissues import N_TISSUES, Tissue

_EDGE = 1.15  # width of an edge in pixels
_REACH_STEP_MM = 3.0
_BREATH_MM, _SHIFT_MM, _ROTATION_RAD = (-12.0, 30.0), 12.0, 0.12  # places of the body that the window has room for


class SignalSource(Protocol):
    """Signal of every tissue where and when it is seen."""

    def __call__(self, slice_index: int, state: BodyState) -> Tensor:
        """Return (N_TISSUES,) or (N_TISSUES, y, x) complex64, on the geometry's grid.

        What lies outside the heart is seen with the signal of phase 0, stroke 1. A source may also have a method
        ``brightening`` of the same arguments that returns by how much flow brightens arterial blood in these signals:
        what of it is next to rest is drawn without.
        """
        ...


class PatientBody:
    """A virtual patient in a scanner: implements :class:`simulate.body.Body`.

    Parameters
    ----------
    patient
        Who it is.
    geometry
        A short-axis stack of this patient (:func:`simulate.patient.placement.short_axis_geometry`); about 1.0 to
        1.3 mm in plane.
    signals
        (N_TISSUES,) or (N_TISSUES, y, x) complex, or a function of slice and state that returns either; None is an
        on-resonance balanced SSFP at 1.5 T with arterial blood 1.
    planes
        Number of planes through the thickness of a slice whose mean is the image.
    cached_slices
        How many bodies without heart, one per slice and place of the body, are kept.
    device
        Where tensors live.

    Raises
    ------
    InputError, ShapeError
        When the stack is not perpendicular to the long axis, or the signals have the wrong shape.
    """

    def __init__(
        self, patient: Patient, geometry: Geometry, *, signals: Tensor | SignalSource | None = None, planes: int = 4,
        cached_slices: int = 16, device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        if planes < 1 or cached_slices < 1:
            raise InputError(f"{planes} planes, {cached_slices} cached slices", expected="1 or more of each")
        self.patient, self.heart, self.thorax = patient, Heart(patient), Thorax(patient)
        self._geometry, self._device = geometry, torch.device(device)
        self._affine = stack_affine(patient, geometry)
        self._signals = on_resonance_signals() if signals is None else signals
        thickness = geometry.slice_thickness_mm or geometry.spacing_mm[0]
        self._offsets = ((np.arange(planes) + 0.5) / planes - 0.5) * thickness
        self._plane_mm = thickness / planes
        self._pixel = max(geometry.spacing_mm[1:])
        self._chests: Recent[Canvas] = Recent(2)
        self._chest_images: Recent[Tensor] = Recent(cached_slices)
        self._grids: Recent[tuple[PolarGrid, Array, Window]] = Recent(4 * cached_slices)
        self._reach_z, self._reach_mm = self._tabulate_reach()
        self._window = self._find_window()

    @property
    def geometry(self) -> Geometry:
        """The fine grid on which the body is drawn."""
        return self._geometry

    @property
    def heart_window(self) -> Window:
        """The part of the grid outside which nothing changes with the cardiac phase, in any slice.

        It has room for a diaphragm from 12 mm towards the head to 30 mm towards the feet, shifts of 12 mm along each
        axis and rotations of 0.12 rad; :meth:`window_of` is tight, for one slice and state.
        """
        return self._window

    def window_of(self, slice_index: int, state: BodyState) -> Window:
        """Return the smallest part of a slice that holds the heart in every phase, for this place of the body."""
        return self._grid(slice_index, state)[2]

    def volumes_ml(self, state: BodyState) -> dict[str, float]:
        """Return the exact volumes in mL of ``lv``, ``myocardium`` and ``rv`` at a state of the body."""
        return self.heart.volumes_ml(state)

    @one_thread()
    def image(self, slice_index: int, state: BodyState, window: Window | None = None) -> Tensor:
        """Return the (y, x) complex64 transverse magnetisation of one slice, or of a window of it."""
        chest = self._chest_image(slice_index, state)
        image = chest.clone() if window is None else chest[_slices(window)].clone()
        drawn = self._heart(slice_index, state)
        if drawn is None:
            return image
        canvas, tight = drawn
        used = sorted(canvas.used)
        signals = self._signal(slice_index, state)
        signals = signals[used] if signals.ndim == 1 else signals[used][(slice(None), *_slices(tight))]
        spell = "t,tyx->yx" if signals.ndim == 1 else "tyx,tyx->yx"
        heart = torch.einsum(spell, signals, canvas.densities[used].to(signals.dtype))
        flowing = getattr(self._signals, "brightening", None)
        if flowing is not None and Tissue.ARTERIAL_BLOOD in canvas.used:  # slow blood has no inflow to be bright by
            gained = 1 - 1 / float(flowing(slice_index, state))
            heart = heart - gained * canvas.slow * signals[used.index(Tissue.ARTERIAL_BLOOD)]
        heart = heart + canvas.rest() * chest[_slices(tight)]
        return _paste(image, heart, tight, window)

    @one_thread()
    def fractions(
        self, slice_index: int, state: BodyState, window: Window | None = None, *, textured: bool = False
    ) -> Tensor:
        """Return the share of each tissue in each pixel: (N_TISSUES, y, x) float32, of sum 1.

        With ``textured`` each share is multiplied by the local texture of its tissue: times the signals, that is
        exactly what :meth:`image` shows, but for blood next to rest where the source of signals brightens what flows.
        """
        canvas = self._chest(slice_index, state)
        chest = canvas.densities if textured else canvas.fractions
        result = chest.clone() if window is None else chest[(slice(None), *_slices(window))].clone()
        drawn = self._heart(slice_index, state)
        if drawn is None:
            return result
        canvas, tight = drawn
        heart = canvas.densities if textured else canvas.fractions
        heart = heart + canvas.rest() * chest[(slice(None), *_slices(tight))]
        return _paste(result, heart, tight, window)

    @one_thread()
    def labels(self, slice_index: int, state: BodyState) -> Tensor:
        """Return (y, x) uint8: 0 background, 1 LV cavity, 2 myocardium, 3 RV cavity, in the middle of the slice."""
        self._check_slice(slice_index)
        labels = torch.zeros(self._geometry.shape[1:], dtype=torch.uint8, device=self._device)
        tight = self._grid(slice_index, state)[2]
        if tight.rows[0] == tight.rows[1]:
            return labels
        x, y, z = self._stack_points(slice_index, state, np.zeros(1), tight)
        shift = heart_shift(self.patient, state)
        grid = self._polar(x - shift[0], y - shift[1], z - shift[2])
        labels[_slices(tight)] = paint_labels(self.heart.section(z - shift[2], state), grid)[0]
        return labels

    def _check_slice(self, slice_index: int) -> None:
        if not 0 <= slice_index < self._geometry.shape[0]:
            raise InputError(
                f"there is no slice {slice_index}", expected=f"an index from 0 to {self._geometry.shape[0] - 1}"
            )

    def _signal(self, slice_index: int, state: BodyState) -> Tensor:
        signals = self._signals if isinstance(self._signals, Tensor) else self._signals(slice_index, state)
        if signals.shape not in ((N_TISSUES,), (N_TISSUES, *self._geometry.shape[1:])):
            raise ShapeError("signals", signals, f"({N_TISSUES},) or ({N_TISSUES}, y, x) on the geometry's grid")
        return signals.to(self._device, torch.complex64)

    def _stack_points(
        self, slice_index: int, state: BodyState, offsets: Array, window: Window | None = None
    ) -> tuple[Tensor, Tensor, Array]:
        """Return x and y (1, y, x) and z (plane,) in mm of what is seen, before bulk motion moved it."""
        _, rows, columns = self._geometry.shape
        window = Window((0, rows), (0, columns)) if window is None else window
        at = self._affine
        i = torch.arange(*window.columns, dtype=torch.float32, device=self._device)[None, None, :]
        j = torch.arange(*window.rows, dtype=torch.float32, device=self._device)[None, :, None]
        x, y = (float(at[k, 0]) * i + float(at[k, 1]) * j + float(at[k, 3] + at[k, 2] * slice_index) for k in (0, 1))
        middle = at @ np.array([columns // 2, rows // 2, slice_index, 1.0])
        c, s = float(np.cos(state.rotation_rad)), float(np.sin(state.rotation_rad))
        x, y = x - float(middle[0] + state.shift_mm[0]), y - float(middle[1] + state.shift_mm[1])
        x, y = c * x + s * y + float(middle[0]), c * y - s * x + float(middle[1])
        return x, y, middle[2] - state.shift_mm[2] + offsets

    def _polar(self, x: Tensor, y: Tensor, z: Array) -> PolarGrid:
        p = self.patient.placement
        drift = torch.as_tensor(z, dtype=torch.float32, device=self._device)[:, None, None]
        return PolarGrid.of(x - p.drift_x * drift, y - p.drift_y * drift, p.septum_rad)

    def _place(self, slice_index: int, state: BodyState) -> tuple[object, ...]:
        return slice_index, state.breath_mm, tuple(state.shift_mm), state.rotation_rad

    def _grid(self, slice_index: int, state: BodyState) -> tuple[PolarGrid, Array, Window]:
        """Return the pixels about the heart's axis, z of the planes and the window, which outlast the beat."""
        self._check_slice(slice_index)

        def lay() -> tuple[PolarGrid, Array, Window]:
            shift = heart_shift(self.patient, state)
            x, y, z = self._stack_points(slice_index, state, self._offsets)
            grid = self._polar(x - shift[0], y - shift[1], z - shift[2])
            window = self._heart_box(grid, z - shift[2])
            return grid.part(*_slices(window)), z - shift[2], window

        return self._grids.get_or(self._place(slice_index, state), lay)

    def _heart_box(self, grid: PolarGrid, z: Array) -> Window:
        """Return the box of everything that the heart covers in any phase and with any stroke volume."""
        reach = self._reach(z)
        flat = torch.from_numpy(reach.astype(np.float32)).to(self._device)
        covered = (grid.radius <= torch.take(flat, grid.index)).any(0)
        return _box(covered)

    def _reach(self, z: Array) -> Array:
        """Return at least the largest radius that the heart has at each angle over the beat: (plane, angle) mm."""
        place = (z - self._reach_z[0]) / _REACH_STEP_MM
        low = np.clip(np.floor(place).astype(int), 0, len(self._reach_z) - 1)
        high = np.clip(np.ceil(place).astype(int), 0, len(self._reach_z) - 1)
        return np.asarray(np.maximum(self._reach_mm[low], self._reach_mm[high]))

    def _tabulate_reach(self) -> tuple[Array, Array]:
        """Return planes and the largest radius of the heart in each, over contraction, twist and stroke volume."""
        z = np.arange(-80.0, self.patient.left.length_mm + 15.0, _REACH_STEP_MM)
        reach = np.zeros((len(z), 1))
        for c in (-0.25, 0.2, 0.65, 1.05):
            reach = np.maximum(reach, self.heart.contracted(z, c, max(0.0, c)).reach_mm())
        if not self.heart.in_step:  # a late wall is still long when the others have thickened
            for phase in np.arange(10) / 10:
                reach = np.maximum(reach, self.heart.section(z, BodyState(phase=float(phase))).reach_mm())
        neighbours = np.maximum(reach, np.maximum(np.roll(reach, 16, 1), np.roll(reach, -16, 1)))
        margin = self.patient.around.pericardium_mm + _EDGE * self._pixel + 2.0
        return z, np.where(neighbours > 0, neighbours + margin, 0.0)

    def _find_window(self) -> Window:
        """Return the box of the heart over slices and every place of the body that is promised."""
        p, (_, rows, columns) = self.patient, self._geometry.shape
        z, reach = self._reach_z, self._reach_mm
        angle = p.placement.septum_rad + THETA
        drift = np.stack([p.placement.drift_x * z, p.placement.drift_y * z])[..., None]
        points = np.stack([reach * np.cos(angle), reach * np.sin(angle)]) + drift
        points = points[:, reach > 0]
        inverse = np.linalg.inv(self._affine)
        lows, highs = [], []
        for breath in _BREATH_MM:
            shift = heart_shift(p, BodyState(breath_mm=breath))
            index = inverse[:2, :2] @ (points + shift[:2, None]) + inverse[:2, 3:]
            lows.append(index.min(1))
            highs.append(index.max(1))
        low, high = np.min(lows, 0), np.max(highs, 0)
        far = np.abs(np.stack([low, high]) - np.array([columns // 2, rows // 2])).max()
        slack = _SHIFT_MM / min(self._geometry.spacing_mm[1:]) + _ROTATION_RAD * far + 1
        first, last = np.floor(low - slack).astype(int), np.ceil(high + slack).astype(int) + 1
        return Window(
            (int(np.clip(first[1], 0, rows)), int(np.clip(last[1], 0, rows))),
            (int(np.clip(first[0], 0, columns)), int(np.clip(last[0], 0, columns))),
        )

    def _heart(self, slice_index: int, state: BodyState) -> tuple[Canvas, Window] | None:
        grid, z, window = self._grid(slice_index, state)
        if window.rows[0] == window.rows[1]:
            return None
        source, planes, weights = self.heart.split(z, state, self._plane_mm)
        grid = grid.planes(source)
        canvas = Canvas(
            tuple(grid.radius.shape), _EDGE * self._pixel, self._device, torch.from_numpy(weights.astype(np.float32))
        )
        paint_heart(canvas, self.heart.section(planes, state, self._plane_mm), grid, self.patient)
        return canvas, window

    def _chest(self, slice_index: int, state: BodyState) -> Canvas:
        self._check_slice(slice_index)

        def draw() -> Canvas:
            x, y, z = self._stack_points(slice_index, state, self._offsets)
            points = self.thorax.displaced(self._body_points(x, y, z), state.breath_mm)
            middle = self.thorax.displaced(self._body_points(x, y, z.mean(keepdims=True)), state.breath_mm)
            canvas = Canvas(tuple(points.left.shape), _EDGE * self._pixel, self._device)
            self.thorax.paint(canvas, points, middle)
            canvas.remaining = torch.zeros(())
            return canvas

        return self._chests.get_or(self._place(slice_index, state), draw)

    def _body_points(self, x: Tensor, y: Tensor, z: Array) -> Points:
        frame, centre = axes(self.patient), mitral_centre(self.patient)
        depth = torch.as_tensor(z, dtype=torch.float32, device=self._device)[:, None, None]
        left, back, feet = (
            float(frame[0, k]) * x + float(frame[1, k]) * y + float(frame[2, k]) * depth + float(centre[k])
            for k in range(3)
        )
        return Points(left, back, feet)

    def _chest_image(self, slice_index: int, state: BodyState) -> Tensor:
        def draw() -> Tensor:
            canvas = self._chest(slice_index, state)
            signals = self._signal(slice_index, replace(state, phase=0.0, stroke=1.0))
            spell = "t,tyx->yx" if signals.ndim == 1 else "tyx,tyx->yx"
            return torch.einsum(spell, signals, canvas.densities.to(signals.dtype))

        return self._chest_images.get_or(self._place(slice_index, state), draw)


def _slices(window: Window) -> tuple[slice, slice]:
    return slice(*window.rows), slice(*window.columns)


def _within(rows: tuple[int, int], columns: tuple[int, int], window: Window) -> tuple[slice, slice]:
    """Return rows and columns of the grid as slices of an image of ``window``."""
    r, c = window.rows[0], window.columns[0]
    return slice(rows[0] - r, rows[1] - r), slice(columns[0] - c, columns[1] - c)


def _box(mask: Tensor) -> Window:
    if not bool(mask.any()):
        return Window((0, 0), (0, 0))
    rows, columns = (torch.nonzero(mask.any(axis)).flatten() for axis in (1, 0))
    return Window((int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1))


def _paste(image: Tensor, heart: Tensor, tight: Window, window: Window | None) -> Tensor:
    """Put the heart, drawn in ``tight``, where it belongs in an image of ``window``."""
    if window is None:
        image[(..., *_slices(tight))] = heart
        return image
    rows = max(tight.rows[0], window.rows[0]), min(tight.rows[1], window.rows[1])
    columns = max(tight.columns[0], window.columns[0]), min(tight.columns[1], window.columns[1])
    if rows[0] < rows[1] and columns[0] < columns[1]:
        image[(..., *_within(rows, columns, window))] = heart[(..., *_within(rows, columns, tight))]
    return image
