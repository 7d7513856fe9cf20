"""Painting the heart: from tables of radii to shares of tissue in pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simulate.patient.canvas import Canvas
from simulate.patient.heart import (
    ATRIAL_WALL_MM,
    N_BANDS,
    N_RINGS,
    RINGS,
    SPONGY_EDGE_MM,
    VESSEL_WALL_MM,
    Disc,
    HeartSection,
    Indices,
)
from simulate.patient.left import N_ANGLES, Array
from simulate.patient.parameters import Patient
from simulate.tissues import Tissue


@dataclass(frozen=True)
class PolarGrid:
    """Pixels in polar coordinates about the left ventricle's axis, which do not change as the heart beats."""

    radius: Tensor  # (plane, y, x) mm
    along: Tensor  # (plane, y, x) mm towards the septum
    across: Tensor  # (plane, y, x) mm towards the anterior wall
    index: Tensor  # (plane, y, x) int64 into a table (plane, angle), flattened
    band: Tensor  # (plane, y, x) int64 into the texture (plane, ring, band), flattened, ring 0

    @classmethod
    def of(cls, x: Tensor, y: Tensor, septum_rad: float) -> PolarGrid:
        """Build the grid from coordinates (plane, y, x) in mm from the axis."""
        c, s = float(np.cos(septum_rad)), float(np.sin(septum_rad))
        along, across = c * x + s * y, c * y - s * x
        angle = torch.atan2(across, along)
        column = ((angle + torch.pi) * (N_ANGLES / (2 * torch.pi))).long().clamp_(0, N_ANGLES - 1)
        plane = torch.arange(x.shape[0], device=x.device)[:, None, None]
        band = column // (N_ANGLES // N_BANDS) + plane * (N_RINGS * N_BANDS)
        return cls(torch.hypot(x, y), along, across, column + plane * N_ANGLES, band)

    def planes(self, source: Indices) -> PolarGrid:
        """Return the grid whose planes are these of its own, (plane,), of which some may come more than once."""
        if len(source) == len(self.radius) and (source == np.arange(len(source))).all():
            return self
        which = torch.from_numpy(source).to(self.radius.device)
        moved = (torch.arange(len(source), device=which.device) - which)[:, None, None]
        return PolarGrid(
            self.radius[which], self.along[which], self.across[which], self.index[which] + moved * N_ANGLES,
            self.band[which] + moved * (N_RINGS * N_BANDS),
        )  # fmt: skip

    def part(self, rows: slice, columns: slice) -> PolarGrid:
        """Return some rows and columns of it."""
        return PolarGrid(
            *(
                whole[:, rows, columns].contiguous()
                for whole in (self.radius, self.along, self.across, self.index, self.band)
            )
        )


class _Tables:
    """Looks tables up for pixels."""

    def __init__(self, grid: PolarGrid) -> None:
        self.grid = grid

    def value(self, table: Array) -> Tensor:
        """Return the table's entry for each pixel: (plane, y, x)."""
        flat = torch.from_numpy(np.ascontiguousarray(table, dtype=np.float32)).to(self.grid.radius.device)
        return torch.take(flat, self.grid.index)

    def distance(self, table: Array) -> Tensor:
        """Return signed distance in mm from the outline of these radii, negative inside."""
        slope = (np.roll(table, -1, 1) - np.roll(table, 1, 1)) * (N_ANGLES / (4 * np.pi))
        steep = 1.0 / np.hypot(1.0, np.clip(slope / np.maximum(table, 1.0), -3, 3))
        return (self.grid.radius - self.value(np.where(table > 0, table, -30.0))) * self.value(steep)

    def disc(self, disc: Disc, extra: float = 0.0) -> Tensor:
        """Return signed distance in mm from a disc in each plane."""
        along, across, radius = (
            torch.from_numpy(np.asarray(v, dtype=np.float32)).to(self.grid.radius.device)[:, None, None]
            for v in (disc.along, disc.across, disc.radius + np.where(disc.radius > 0, extra, 0.0))
        )
        return torch.hypot(self.grid.along - along, self.grid.across - across) - radius


def paint_heart(canvas: Canvas, section: HeartSection, grid: PolarGrid, patient: Patient) -> None:
    """Paint the heart onto a canvas, in front of whatever will be painted after it."""
    t, s, texture = _Tables(grid), section, patient.texture
    endo, epi = t.distance(s.endo), t.distance(s.epi)
    noise = _texture(t, s)
    blood, wall = 1 + texture.blood * noise, 1 + texture.myocardium * noise
    if s.ventricle.any():
        inside = canvas.cover(endo)
        if s.rods:
            canvas.paint(Tissue.MYOCARDIUM, _rods(canvas, s, grid) * inside, wall)
        for disc in s.papillary:
            if disc.radius.max() > 0:
                canvas.paint(Tissue.MYOCARDIUM, canvas.cover(t.disc(disc) + 0.9 * noise) * inside, wall)
        if s.spongy.any():  # trabeculae finer than can be drawn one by one, between them blood
            layer = t.value(s.spongy)
            into = ((grid.radius - t.value(s.endo) + layer) / SPONGY_EDGE_MM).clamp_(0.0, 1.0)
            muscle = t.value(s.spongy_share) * into * (1 + 0.2 * noise)
            canvas.paint(Tissue.MYOCARDIUM, muscle.clamp_(0.0, 1.0) * inside, wall)
        share = canvas.cover(t.distance(s.blood))
        if s.slow.any():  # along the wall, and all of what lies among trabeculae, blood is next to rest
            still = ((grid.radius - t.value(s.endo)) / t.value(s.slow).clamp_min(0.5) + 1).clamp_(0.0, 1.0)
            still = still * still * (3 - 2 * still)
            canvas.paint(Tissue.ARTERIAL_BLOOD, share, blood * (1 - patient.left.slow_dark * still), slow=still)
        else:
            canvas.paint(Tissue.ARTERIAL_BLOOD, share, blood)
        present = t.value(s.wall)
        share = canvas.cover(epi) * present
        if s.scar.any():
            canvas.paint_mixed(Tissue.MYOCARDIUM, Tissue.SCAR, share, t.value(s.scar), wall)
        else:
            canvas.paint(Tissue.MYOCARDIUM, share, wall)
        if (s.wall.min(1) < s.ventricle).any():  # the outflow tract, with its thin wall
            open_ = t.value(np.broadcast_to(s.ventricle[:, None], s.wall.shape)) - present
            canvas.paint(Tissue.ARTERIAL_BLOOD, canvas.cover(epi + VESSEL_WALL_MM) * open_, blood)
            canvas.paint(Tissue.MYOCARDIUM, canvas.cover(epi) * open_)
    for disc, tissue in ((s.aorta, Tissue.ARTERIAL_BLOOD), (s.pulmonary, Tissue.VENOUS_BLOOD)):
        if disc.radius.max() > 0:
            canvas.paint(tissue, canvas.cover(t.disc(disc)), blood)
            canvas.paint(Tissue.MYOCARDIUM, canvas.cover(t.disc(disc, VESSEL_WALL_MM)))
    if s.left_atrium.any():
        canvas.paint(Tissue.ARTERIAL_BLOOD, canvas.cover(t.distance(s.left_atrium)), blood)
        canvas.paint(Tissue.MYOCARDIUM, canvas.cover(t.distance(_grown(s.left_atrium, ATRIAL_WALL_MM))))
    outside = 1 - canvas.cover(t.distance(s.inner))
    if s.core.any():  # fibrous body and septum between the atria
        canvas.paint(Tissue.MYOCARDIUM, canvas.cover(t.distance(s.core)))
    if s.right_present.any():
        if s.band.radius.max() > 0:
            slanted = grid.across + 0.3 * (grid.along - 40) - float(s.band.across[0])
            strip = slanted.abs() - t.value(np.broadcast_to(s.band.radius[:, None], s.right.shape))
            inside = canvas.cover(t.distance(s.right)) * (grid.along > 0)
            canvas.paint(Tissue.MYOCARDIUM, canvas.cover(strip + 0.4 * noise) * inside * outside, wall)
        canvas.paint(Tissue.VENOUS_BLOOD, canvas.cover(t.distance(s.right_blood)) * outside, blood)
        there = t.value(s.right_present)
        canvas.paint(Tissue.MYOCARDIUM, canvas.cover(t.distance(s.right_wall)) * outside * there, wall)
    if s.right_atrium.any():
        canvas.paint(Tissue.VENOUS_BLOOD, canvas.cover(t.distance(s.right_atrium)) * outside, blood)
        canvas.paint(Tissue.MYOCARDIUM, canvas.cover(t.distance(_grown(s.right_atrium, ATRIAL_WALL_MM))) * outside)
    if s.coat.any():
        canvas.paint(Tissue.FAT, canvas.cover(t.distance(s.coat)), 0.92 + 0.6 * texture.fat * noise)
        canvas.paint(Tissue.PERICARDIUM, canvas.cover(t.distance(_grown(s.coat, patient.around.pericardium_mm))))


def paint_labels(section: HeartSection, grid: PolarGrid) -> Tensor:
    """Return labels (plane, y, x) uint8: 0 background, 1 LV cavity, 2 myocardium, 3 RV cavity."""
    t, s = _Tables(grid), section
    labels = torch.zeros(grid.radius.shape, dtype=torch.uint8, device=grid.radius.device)
    right = (grid.radius < t.value(s.right)) & (grid.radius >= t.value(s.inner))
    labels[right] = 3
    wall = (grid.radius < t.value(s.epi)) & (t.value(s.wall) >= 0.5)
    labels[wall] = 2
    labels[grid.radius < t.value(s.endo)] = 1
    return labels


def _rods(canvas: Canvas, s: HeartSection, grid: PolarGrid) -> Tensor:
    """Return how much of each pixel strands cover: (plane, y, x)."""
    covered = torch.zeros_like(grid.radius)
    near = (grid.radius < float(s.endo.max())).any(0)
    if not bool(near.any()):
        return covered
    rows, columns = (torch.nonzero(near.any(axis)).flatten() for axis in (1, 0))
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    along, across = (part[:, box[0], box[1]] for part in (grid.along, grid.across))
    for rod in s.rods:
        for plane in np.flatnonzero(rod.share > 0):
            x, y, dx, dy = (
                float(v[plane]) for v in (
                    rod.along[0], rod.across[0], rod.along[1] - rod.along[0], rod.across[1] - rod.across[0],
                )
            )  # fmt: skip
            u, v = along[plane] - x, across[plane] - y
            part = ((u * dx + v * dy) / max(dx * dx + dy * dy, 1e-6)).clamp_(0.0, 1.0)
            rod_here = canvas.cover(torch.hypot(u - part * dx, v - part * dy) - rod.radius) * float(rod.share[plane])
            here = covered[plane][box]
            torch.maximum(here, rod_here, out=here)
    return covered


def _grown(table: Array, by: float) -> Array:
    return np.where(table > 0, table + by, 0.0)


def _texture(t: _Tables, s: HeartSection) -> Tensor:
    """Return the texture that the tissue carries with it: (plane, y, x) of about unit variance."""
    r = t.grid.radius
    edges = np.maximum(np.stack([s.endo, s.epi, s.right_wall]), 1e-3)
    endo, epi, right = (t.value(edge) for edge in edges)
    depth = torch.where(r < endo, r / endo, torch.where(r < epi, 1 + (r - endo) / (epi - endo + 0.5), 2.0))
    below = t.value(np.broadcast_to(s.ventricle[:, None], s.endo.shape)) > 0
    depth = torch.where(below, depth, 2.0 + r / 60.0)  # above the base there is blood
    depth = torch.where(below & (r > epi), 2 + 0.99 * ((r - epi) / (right - epi + 1.0)).clamp_(0, 2), depth)
    ring = (depth * RINGS).long().clamp_(0, N_RINGS - 1)
    flat = torch.from_numpy(np.ascontiguousarray(s.texture, dtype=np.float32)).to(r.device)
    return torch.take(flat, t.grid.band + ring * N_BANDS) * (r / 10.0).clamp_(max=1.0)  # no rays from the axis
