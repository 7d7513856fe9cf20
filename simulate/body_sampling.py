"""Spokes of a body that is never still: every spoke sees it at its own instant, at a price that thousands can pay.

What spokes share, and what that costs in truth:

- *Cardiac states* are drawn on a grid of phases and combined by periodic cubic splines.
- *Breathing states* are drawn on a grid of diaphragm positions and combined linearly.
- *The beating part* is kept apart: an image is that of its breathing state at end-diastole, transformed once, plus a
  difference that is zero outside a window about the heart. The window is transformed on a small grid of its own, at few
  points of each spoke (:mod:`simulate.lines`), for the few combinations of coils that differ inside it.
- *Bulk motion* in the plane is exact but for what enters at the field of view's edge: spokes turn the other way and get
  a phase ramp. The coils stay where they are in the room, so that a body that moved is seen through the sensitivities
  where it is now; while it moves, these are rounded to 0.5 mm and 0.5 degrees. Motion through the plane is drawn; while
  it lasts, rounded to 0.5 mm.

``Sharing(shared=False)`` draws one body per spoke instead: the yardstick. Relative L2 error against it, with 48 cardiac
states (a smooth body: ``tests/simulate/test_body_scanner.py``; a virtual patient: seed 3, 208 x 208, 8 coils, where
noise at SNR 30 is 2.9e-2):

==============================================  ===========  ================
what happens                                    smooth body  virtual patient
==============================================  ===========  ================
breath held, middle slice                       4e-6         4e-4
breath held, basal slices                       .            7e-4 to 1.6e-3 (see below)
hold drifts, breathing states 1 (0.5) mm apart  4e-5         2.3e-3 (1.3e-3)
free breathing, 1 mm (0.5)                      4e-5         2.0e-3 (0.9e-3)
after a bulk shift and turn                     1.5e-4       4e-3 (see below)
while the body moves                            1.3e-3       .
==============================================  ===========  ================

Splines need a body that is smooth in phase: a patient's valves therefore have a depth through which the planes of a
slice pass by degrees (:meth:`simulate.patient.heart.Heart.split`); with planes that change all at once, basal slices
were at 3e-3 to 1.2e-2. A bulk shift moves what was drawn: the patient agrees to 4e-3 where all of him lies in the field
of view (520 mm, 280 x 280). Where the field of view cuts him, the cut moves along, and what it would have uncovered
(11 % of the samples' norm for 7 mm at 360 mm) is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from kspace.errors import ShapeError
from kspace.nufft import Accuracy, AccuracyName, Nufft
from kspace.scan import Geometry
from kspace.trajectory import readout_radii
from simulate.body import Body
from simulate.body_states import BodyStates, Cache, Sharing, side_by_side
from simulate.lines import Lines, line_weights
from simulate.scanner import spline_weights
from simulate.timeline import States

SHIFT_STEP_MM, ROTATION_STEP_RAD = 0.5, math.radians(0.5)
_COIL_TOLERANCE = 5e-4
_MAP_BYTES = 200e6
_COILS_AT_ONCE, _STATES_AT_ONCE = 4, 12  # to spare memory


@dataclass(frozen=True)
class Placement:
    """Where a body is but for its heartbeat: the key of states that are shared.

    Parameters
    ----------
    breath
        Number of the breathing state.
    z_mm
        Shift through the plane.
    shift_mm
        Shift in the plane along (x, y) at which the coils see it.
    rotation_rad
        Likewise.
    """

    breath: int
    z_mm: float
    shift_mm: tuple[float, float]
    rotation_rad: float


class SliceSampler:
    """One slice of a body, ready to be measured.

    Parameters
    ----------
    body
        The body. Its images' device is where all happens.
    index
        The slice.
    maps
        (coil, y, x) complex, what each coil makes of the image, on the body's grid.
    grid
        The reconstruction grid, of the same field of view: its matrix sets the unit of the samples.
    sharing
        How much spokes share.
    """

    def __init__(self, body: Body, index: int, maps: Tensor, grid: Geometry, sharing: Sharing | None = None) -> None:
        self.sharing = sharing or Sharing()
        self.states = BodyStates(body, index, self.sharing)
        self._fine = (body.geometry.shape[1], body.geometry.shape[2])
        if maps.ndim != 3 or tuple(maps.shape[1:]) != self._fine:
            raise ShapeError("maps", maps, f"(coil, y, x) on the body's grid of {self._fine}")
        self._mm = torch.tensor(body.geometry.spacing_mm[1:], dtype=torch.float64)
        self._moved_maps: Cache[tuple[tuple[float, float], float], Tensor] = Cache(_MAP_BYTES)
        self.device = self.states.still(0, 0.0).device
        self._maps = maps.to(self.device, torch.complex64)
        # Samples are those of the unitary transform on the reconstruction grid.
        self._unit = math.sqrt(grid.shape[1] * grid.shape[2]) / (self._fine[0] * self._fine[1])

    @property
    def n_coils(self) -> int:
        """Number of coils."""
        return int(self._maps.shape[0])

    def sample(self, lines: Lines, n_readout: int, states: States, moving: Tensor) -> Tensor:
        """Measure spokes, each at its own state.

        Parameters
        ----------
        lines
            Where the spokes lie.
        n_readout
            Samples on each.
        states
            (spoke,) states of the body.
        moving
            (spoke,) bool, whether bulk motion is under way.

        Returns
        -------
        (spoke, coil, readout) complex64 on the body's device, without noise.
        """
        if len(lines) != len(states) or moving.shape != (len(states),):
            raise ShapeError("the spokes", (len(lines), len(moving)), f"as many as states, {len(states)}, twice")
        samples = torch.zeros((len(lines), self.n_coils, n_readout), dtype=torch.complex64, device=self.device)
        if not self.sharing.shared:
            self._one_by_one(lines, n_readout, states, samples)
            return samples
        seen = lines.turned(states.rotation_rad)
        for placement, spokes, weights in self._placements(states, moving):
            self._add_still(placement, seen, spokes, weights, samples)
            strokes = states.stroke[spokes]
            for stroke in torch.unique(strokes).tolist():
                chosen = strokes == stroke
                phases = states.phase[spokes[chosen]]
                self._add_beating(placement, stroke, seen, spokes[chosen], weights[chosen], phases, samples)
        shifted = torch.nonzero((states.shift_mm[:, :2] != 0).any(1)).flatten()
        if len(shifted):
            to_mm = states.shift_mm[shifted][:, [1, 0]]
            ramp = lines.select(shifted).ramp(readout_radii(n_readout), to_mm)
            samples[shifted.to(self.device)] *= ramp.to(self.device)[:, None]
        return samples

    def _one_by_one(self, lines: Lines, n_readout: int, states: States, samples: Tensor) -> None:
        radii = readout_radii(n_readout)

        def measure(spoke: int) -> None:
            maps = self._maps * self.states.image(states.state(spoke))
            positions = lines.select(torch.tensor([spoke])).positions(radii)[0]
            samples[spoke] = self._transform(maps, positions, self._unit)

        side_by_side(measure, range(len(lines)), self.device)

    def _placements(self, states: States, moving: Tensor) -> Iterable[tuple[Placement, Tensor, Tensor]]:
        """Give each placement with its spokes and the weight that each gives to it."""
        nodes, weights = breath_weights(states.breath_mm, self.sharing.breath_step_mm)
        bulk = torch.cat((states.shift_mm, states.rotation_rad[:, None]), dim=1)
        step = torch.tensor([SHIFT_STEP_MM] * 3 + [ROTATION_STEP_RAD], dtype=torch.float64)
        bulk = torch.where(moving[:, None], (bulk / step).round() * step, bulk)
        n_taps = nodes.shape[1]
        rows = torch.cat((nodes.reshape(-1, 1).double(), bulk.repeat_interleave(n_taps, 0)), dim=1)
        keys, which = torch.unique(rows, dim=0, return_inverse=True)
        flat = weights.reshape(-1)
        for number, key in enumerate(keys.tolist()):
            taps = torch.nonzero((which == number) & (flat != 0)).flatten()
            if len(taps):
                placement = Placement(round(key[0]), key[3], (key[1], key[2]), key[4])
                yield placement, taps // n_taps, flat[taps]

    def _add_still(self, place: Placement, lines: Lines, spokes: Tensor, weights: Tensor, samples: Tensor) -> None:
        still, maps = self.states.still(place.breath, place.z_mm), self._maps_seen(place)
        n_readout = samples.shape[-1]
        positions = lines.select(spokes).positions(readout_radii(n_readout)).reshape(-1, 2)
        factor = (weights * self._unit).float()[:, None, None].to(self.device)
        blocks = [slice(first, first + _COILS_AT_ONCE) for first in range(0, self.n_coils, _COILS_AT_ONCE)]
        here = spokes.to(self.device)

        def measure(part: slice) -> None:
            values = self._transform(maps[part] * still, positions, 1.0)
            values = values.reshape(len(values), -1, n_readout)
            # Blocks differ in coils: no two threads write the same samples.
            samples[:, part].index_add_(0, here, values.transpose(0, 1) * factor)

        side_by_side(measure, blocks, self.device)

    def _add_beating(
        self, place: Placement, stroke: float, lines: Lines, spokes: Tensor, weights: Tensor, phases: Tensor,
        samples: Tensor,
    ) -> None:  # fmt: skip
        window, coefficients = self.states.difference(stroke, place.breath, place.z_mm)
        height, width = coefficients.shape[1:]
        if min(height, width) == 0:
            return
        rows, columns = slice(*window.rows), slice(*window.columns)
        mixing, basis = self._few_coils(self._maps_seen(place)[:, rows, columns])
        chosen, n_readout = lines.select(spokes), samples.shape[-1]
        radii, fill = self._radii(chosen, (height, width), n_readout)
        positions = chosen.positions(radii)
        indices, splines = spline_weights(phases, self.sharing.n_phases)
        splines = splines * weights[:, None] * self._unit
        few = torch.zeros((len(spokes), len(basis), len(radii)), dtype=torch.complex64, device=self.device)

        def measure(state: int) -> tuple[Tensor, Tensor]:
            spoke, slot = torch.nonzero(indices == state, as_tuple=True)
            values = self._transform(basis * coefficients[state], positions[spoke].reshape(-1, 2), 1.0)
            values = values.reshape(len(basis), -1, len(radii)).transpose(0, 1)
            return spoke.to(self.device), values * splines[spoke, slot].float()[:, None, None].to(self.device)

        # A few at a time, to spare memory, and added in order: the same scan to the last bit.
        for first in range(0, self.sharing.n_phases, _STATES_AT_ONCE):
            some = range(first, min(first + _STATES_AT_ONCE, self.sharing.n_phases))
            for result in side_by_side(measure, some, self.device):
                few.index_add_(0, *result)
        # The window's own origin is its middle pixel, which lies here in the image.
        middle = torch.tensor([[window.rows[0] + height // 2, window.columns[0] + width // 2]], dtype=torch.float64)
        middle = (middle - torch.tensor([self._fine[0] // 2, self._fine[1] // 2])) * self._mm
        ramp = chosen.ramp(readout_radii(n_readout), middle).to(self.device)
        for first in range(0, len(spokes), 512):
            part = slice(first, first + 512)
            values = torch.view_as_real(few[part]).transpose(-1, -2) @ fill  # (spoke, coil, 2, readout)
            line = torch.complex(values[..., 0, :], values[..., 1, :]) * ramp[part][:, None]
            samples.index_add_(0, spokes[part].to(self.device), line if mixing is None else mixing @ line)

    def _transform(self, images: Tensor, positions: Tensor, unit: float) -> Tensor:
        """(coil, y, x) images at (sample, 2) positions in cycles per mm: (coil, sample), the sum times ``unit``."""
        rows, columns = images.shape[-2:]
        # Cycles per pixel; the spectrum of pixels repeats.
        k = torch.remainder(positions * self._mm + 0.5, 1.0) - 0.5
        accuracy: AccuracyName | Accuracy = self.sharing.accuracy if self.sharing.shared else "reference"
        plan = Nufft(
            k.to(self.device), (rows, columns), n_transforms=len(images), accuracy=accuracy,
            n_threads=1 if self.device.type == "cpu" else None,
        )  # fmt: skip
        return plan.forward(images) * (unit * math.sqrt(rows * columns))

    def _maps_seen(self, place: Placement) -> Tensor:
        """(coil, y, x) the coils as the body at this place meets them, in the body's own frame."""
        if place.shift_mm == (0.0, 0.0) and place.rotation_rad == 0:
            return self._maps
        spacing = (float(self._mm[0]), float(self._mm[1]))

        def move() -> tuple[Tensor, Tensor]:
            maps = moved(self._maps, spacing, place.shift_mm, place.rotation_rad)
            return maps, maps

        return self._moved_maps.get_or((place.shift_mm, place.rotation_rad), move)

    def _few_coils(self, maps: Tensor) -> tuple[Tensor | None, Tensor]:
        """(coil, few) and (few, y, x) whose product is the maps; None and the maps where few would be almost all."""
        if self.sharing.accuracy == "reference":
            return None, maps
        flat = maps.reshape(len(maps), -1).to(torch.complex128)
        energy, vectors = torch.linalg.eigh(flat @ flat.mH)
        few = max(1, int((energy.cumsum(0) > _COIL_TOLERANCE**2 * energy.sum()).sum()))
        if few > 0.8 * len(maps):
            return None, maps
        mixing = vectors[:, -few:]
        return mixing.to(torch.complex64), (mixing.mH @ flat).to(torch.complex64).reshape(few, *maps.shape[1:])

    def _radii(self, lines: Lines, shape: tuple[int, int], n_readout: int) -> tuple[Tensor, Tensor]:
        """Radii at which a window has to be transformed, and the (radius, readout) float32 that fills in the rest."""
        if self.sharing.accuracy == "reference":
            return readout_radii(n_readout), torch.eye(n_readout, device=self.device)
        half = [(size // 2 + 0.5) * float(mm) for size, mm in zip(shape, self._mm, strict=True)]
        longest = float(torch.linalg.vector_norm(lines.direction, dim=-1).max())
        radii, fill = line_weights(n_readout, math.hypot(*half) * longest)
        return radii, fill.to(self.device)


def breath_weights(breath_mm: Tensor, step_mm: float) -> tuple[Tensor, Tensor]:
    """Return which two breathing states a position lies between, and how much of each: (spoke, 2) int64 and float64."""
    position = breath_mm.double() / step_mm
    nearest = position.round()
    # A hold lies on a state exactly: its neighbour need not be drawn.
    position = torch.where((position - nearest).abs() < 1e-6, nearest, position)
    low = torch.floor(position)
    share = position - low
    nodes = torch.stack((low, low + 1), dim=1).long()
    return nodes, torch.stack((1 - share, share), dim=1)


def moved(maps: Tensor, spacing_mm: tuple[float, float], shift_mm: tuple[float, float], rotation_rad: float) -> Tensor:
    """Return maps as seen from a body that has turned and then shifted: at r, what they are at R r + shift.

    Parameters
    ----------
    maps
        (coil, y, x) complex, smooth; beyond their edge they go on as at it.
    spacing_mm
        Pixel along (y, x).
    shift_mm, rotation_rad
        Along (x, y), and from +x to +y about the pixel ``N // 2``.

    Returns
    -------
    (coil, y, x) complex64.
    """
    rows, columns = maps.shape[-2:]
    y = ((np.arange(rows) - rows // 2) * spacing_mm[0])[:, None]
    x = ((np.arange(columns) - columns // 2) * spacing_mm[1])[None]
    c, s = math.cos(rotation_rad), math.sin(rotation_rad)
    at = np.stack(np.broadcast_arrays(
        (s * x + c * y + shift_mm[1]) / spacing_mm[0] + rows // 2,
        (c * x - s * y + shift_mm[0]) / spacing_mm[1] + columns // 2,
    ))  # fmt: skip
    result = np.empty(maps.shape, dtype=np.complex64)
    for coil, values in enumerate(maps.cpu().numpy()):
        for part in ("real", "imag"):
            getattr(result[coil], part)[:] = map_coordinates(getattr(values, part), at, order=3, mode="nearest")
    return torch.from_numpy(result).to(maps.device)
