"""The body around the heart, in body axes: everything that does not beat, and how it moves with the breath.

Coordinates (left, back, feet) are mm from the middle of the chest at the height of the mitral plane; the short-axis
stack cuts them obliquely. Shapes are analytic surfaces whose proportions follow anatomy atlases; no image was used.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from simulate.patient.abdomen import Abdomen
from simulate.patient.canvas import Canvas
from simulate.patient.parameters import Patient
from simulate.patient.shapes import Points, ellipse, ellipsoid, smooth
from simulate.patient.texture import Tubes, Waves
from simulate.tissues import Tissue

_SKIN_MM = 2.2
FORWARD = 0.18
"""Displacement of the front chest wall over the diaphragm's (De Groote et al., J Appl Physiol 83:1531, 1997)."""
SETTLED = 0.35
"""Rise of the lung's density from the middle to the back of the chest: 33 % of water in the posterior half and 20 % in
the anterior one of healthy people who lie on their backs (dynamic lung water, Magn Reson Med, 2023, doi
10.1002/mrm.29716), which is a factor of two from front to back."""
PRESSED = 0.3
"""Rise of the lung's density behind the heart, under whose weight it lies: 7 to 42 % of the left lung (Albert and
Hubmayr, Am J Respir Crit Care Med 161:1660, 2000), and 0.11 g/mL less when the heart's weight is taken off by lying
prone (Prisk et al., J Appl Physiol 103:883, 2007)."""
BASAL = 0.25
"""Rise of the lung's density next to the diaphragm when the breath is held after breathing out, where the bases are
least inflated. This simulator's choice, of the size of the difference along the lung in Prisk et al., 2007."""
MOST_OVER_MEAN = 1.5
"""Densest lung over the patient's mean: what the gradients together may reach."""


class Thorax:
    """A patient's chest and upper belly."""

    def __init__(self, patient: Patient) -> None:
        self.patient = patient
        t, seed = patient.thorax, patient.seed
        rng = np.random.default_rng([seed, 300])
        self.spine_back = t.half_depth_mm - 58.0 - 0.8 * t.fat_mm
        self.abdomen = Abdomen(patient, self.spine_back)
        self._outline = Waves((seed, 301), 130.0, 8)
        self._coarse = Waves((seed, 302), 45.0, 12)
        self._fine = Waves((seed, 303), 9.0, 32)
        self._strands = Waves((seed, 304), 16.0, 14, (1.0, 1.0, 2.5))
        self._large = Tubes((seed, 305), 52.0)
        self._small = Tubes((seed, 306), 24.0, 12)
        self._tiny = Tubes((seed, 307), 11.0, 8)
        self._rib_phase = float(rng.uniform(0, 1))
        self._offsets = rng.normal(0, 1, 8)

    def displaced(self, points: Points, breath_mm: float) -> Points:
        """Return where the tissue that is seen at ``points`` lies in the breath-hold position."""
        if breath_mm == 0:
            return points
        t = self.patient.thorax
        depth = self._depth(points)
        inside = smooth((depth - t.fat_mm - 0.5 * t.muscle_mm) / 28.0)
        spine = 1 - torch.exp(-((points.left / 38.0) ** 2) - ((points.back - self.spine_back - 8) / 36.0) ** 2)
        height = 0.35 + 0.65 * smooth((points.feet + 110.0) / 130.0)
        front = smooth(-points.back / (0.8 * t.half_depth_mm))
        down, forward = breath_mm * inside * spine * height, FORWARD * breath_mm * front
        return Points(points.left, points.back + forward, points.feet - down)

    def paint(self, canvas: Canvas, points: Points, middle: Points) -> None:
        """Paint the body onto a canvas.

        Parameters
        ----------
        canvas
            What to paint on.
        points
            (plane, y, x) coordinates in mm of every plane through the slice, in the breath-hold position.
        middle
            The same of the middle plane alone, (1, y, x), where textures and vessels are evaluated.
        """
        p, texture = self.patient, self.patient.texture
        t = p.thorax
        xyz = middle.stacked()
        coarse, fine, strands = self._coarse(xyz), self._fine(xyz), self._strands(xyz)
        mixed = 0.5 * fine + 0.7 * coarse
        depth = self._depth(points) + 1.5 * self._outline(xyz)
        canvas.paint(Tissue.AIR, 1 - canvas.cover(-depth))
        self._paint_spine(canvas, points, 1 + 0.1 * mixed)
        septa = 1 - 1.4 * texture.fat * torch.exp(-((strands / 0.15) ** 2))
        fat = (septa * (1 + 0.5 * texture.fat * mixed)).clamp_(min=0.2)
        meat = 1 + texture.muscle * mixed
        front = smooth(-points.back / t.half_depth_mm + 0.3)
        layer = t.fat_mm * (0.75 + 0.25 * front + 0.12 * coarse)
        muscle = t.muscle_mm * (1 + 0.12 * coarse) * (1 + 0.35 * torch.exp(-(((points.left.abs() - 75) / 45) ** 2)))
        muscle = muscle + 26 * torch.exp(-((points.left / 48) ** 4)) * smooth(points.back / 60 - 0.4)
        outer = _SKIN_MM + layer + self._breast(points)
        inner = outer + muscle
        canvas.paint(Tissue.SKIN, canvas.cover(depth - _SKIN_MM))
        gland = canvas.cover((0.35 - coarse) * 9.0 + 100.0 * (self._breast(points) < 8.0))
        canvas.paint(Tissue.MUSCLE, canvas.cover(depth - outer + 4.0) * gland * 0.5, meat)
        canvas.paint(Tissue.FAT, canvas.cover(depth - outer), fat)
        self._paint_ribs(canvas, points, depth - inner, 1 + 0.1 * mixed)
        plane = (depth - inner + 0.5 * muscle + 2.0 * coarse).abs() - (0.3 + 1.8 * t.visceral_fat + 0.7 * coarse)
        canvas.paint(Tissue.FAT, canvas.cover(plane) * canvas.cover(depth - inner), fat)
        canvas.paint(Tissue.MUSCLE, canvas.cover(depth - inner), meat)
        self._paint_vessels(canvas, points)
        below = self.abdomen.below_mm(points) + 2.0 * coarse
        self.abdomen.paint(canvas, points, middle, below, fine, coarse, fat)
        self._paint_mediastinum(canvas, points, middle, depth - inner, coarse, fat)
        self._paint_lungs(canvas, middle, fine, coarse)

    def _depth(self, points: Points) -> Tensor:
        """Return depth in mm below the skin, positive inside."""
        t = self.patient.thorax
        taper = 1 - 0.10 * smooth((-points.feet - 20) / 160)
        q = t.squareness
        sloped = t.half_depth_mm * taper  # the breastbone leans back towards the neck
        sloped = torch.where(points.back < 0, sloped - 0.33 * (25 - points.feet).clamp(0, 150), sloped)
        u, v = points.left.abs() / (t.half_width_mm * taper), points.back.abs() / sloped
        k = (u.pow(q) + v.pow(q)).pow(1 / q).clamp_(min=1e-3)
        radius = torch.hypot(points.left, points.back)
        steep = torch.hypot((u / k).pow(q - 1) / t.half_width_mm, taper * (v / k).pow(q - 1) / sloped) / taper
        return torch.minimum((1 - k) / steep, radius / k - radius) + self._breast(points)

    def _breast(self, points: Points) -> Tensor:
        """Return how far the breasts stand out, in mm."""
        size = self.patient.thorax.breast_mm
        if size == 0:
            return torch.zeros((1, 1, 1), device=points.left.device)
        bump = torch.exp(-(((points.left.abs() - 82) / 50) ** 2) - ((points.feet - 5) / 52) ** 2)
        return size * bump * (points.back < 0)

    def _paint_spine(self, canvas: Canvas, points: Points, texture: Tensor) -> None:
        """Vertebrae with their discs and processes, the cord in its canal."""
        back = self.spine_back + 6.0 * torch.cos(points.feet / 90.0)
        at = Points(points.left, points.back - back, points.feet)
        canal = ellipse(at, (0, 25), (8.8, 7.5))
        canvas.paint(Tissue.CORD, canvas.cover(ellipse(at, (0, 25.5), (4.8, 3.6))))
        canvas.paint(Tissue.CSF, canvas.cover(canal))
        canvas.paint(Tissue.FAT, canvas.cover(canal - 1.3))
        level = torch.remainder(points.feet / 27.0 + self._rib_phase, 1.0) - 0.5
        disc = (level.abs() - 0.40) * 27.0
        body = ellipse(at, (0, 0), (19.0, 15.0))
        canvas.paint(Tissue.CORD, canvas.cover(body) * canvas.cover(-disc) * 0.55)
        canvas.paint(Tissue.MARROW, canvas.cover(body + 1.2) * canvas.cover(disc), texture)
        canvas.paint(Tissue.BONE, canvas.cover(body))
        side = Points(at.left.abs(), at.back, at.feet)
        arch = torch.minimum(ellipse(side, (22, 24), (17, 4.5)), ellipse(side, (0, 46), (3.8, 13)))
        canvas.paint(Tissue.MARROW, canvas.cover(arch + 1.4), texture)
        canvas.paint(Tissue.BONE, canvas.cover(torch.minimum(arch, canal - 2.8)))
        canvas.paint(Tissue.FAT, canvas.cover(ellipse(side, (0, 60), (2.5, 20))))

    def _paint_ribs(self, canvas: Canvas, points: Points, depth: Tensor, texture: Tensor) -> None:
        """Ribs that descend towards the front, and the breastbone; ``depth`` is counted from the inner wall."""
        pitch = self.patient.thorax.rib_pitch_mm
        along = torch.remainder((points.feet + 0.5 * points.back) / pitch + self._rib_phase, 1.0) - 0.5
        rib = (torch.hypot((depth + 5.0) / 3.8, along * pitch / 6.5) - 1) * 4.0
        gap = smooth((points.left.abs() - 22) / 6)
        bony = gap * smooth((points.left.abs() - 55 + 40 * (points.back > 0)) / 12)
        canvas.paint(Tissue.MARROW, canvas.cover(rib + 1.4) * bony, texture)
        canvas.paint(Tissue.BONE, canvas.cover(rib) * bony)
        canvas.paint(Tissue.CORD, canvas.cover(rib) * gap * 0.6 * (points.back < 0))  # cartilage
        front = (points.back < 0) * smooth((75 - points.feet) / 10)
        sternum = torch.maximum(points.left.abs() - 17.0, (depth + 7.0).abs() - 5.5)
        canvas.paint(Tissue.MARROW, canvas.cover(sternum + 1.3) * front, texture)
        canvas.paint(Tissue.BONE, canvas.cover(sternum) * front)

    def _paint_vessels(self, canvas: Canvas, points: Points) -> None:
        """Descending aorta, azygos vein, inferior vena cava and oesophagus."""
        t, o = self.patient.thorax, self._offsets
        low = smooth((points.feet + 20) / 150)
        at = Points(points.left - (22 + 2 * o[0]) + 16 * low, points.back - self.spine_back + 14 + 8 * low, points.feet)
        aorta = ellipse(at, (0, 0), (t.aorta_mm, t.aorta_mm))
        canvas.paint(Tissue.ARTERIAL_BLOOD, canvas.cover(aorta))
        canvas.paint(Tissue.MUSCLE, canvas.cover(aorta - 1.4))
        canvas.paint(Tissue.VENOUS_BLOOD, canvas.cover(ellipse(points, (-6, self.spine_back - 20), (3, 3))))
        wide = 11.0 + o[1]
        cava = ellipse(points, (-28 + 2 * o[2], self.spine_back - 34 + 2 * o[3]), (wide, 0.75 * wide))
        present = canvas.cover(4.0 - points.feet)
        canvas.paint(Tissue.VENOUS_BLOOD, canvas.cover(cava) * present)
        canvas.paint(Tissue.MUSCLE, canvas.cover(cava - 1.0) * present)
        gullet = ellipse(points, (6 + 2 * o[4], self.spine_back - 29 + o[5]), (8.0, 5.0))
        above = canvas.cover(points.feet - 60.0)
        canvas.paint(Tissue.AIR, canvas.cover(gullet + 3.6) * above)
        canvas.paint(Tissue.MUSCLE, canvas.cover(gullet) * above)

    def _paint_mediastinum(
        self, canvas: Canvas, points: Points, middle: Points, depth: Tensor, coarse: Tensor, fat: Tensor
    ) -> None:
        """Fat around the vessels, behind the breastbone and on the diaphragm beside the heart."""
        t = self.patient.thorax
        v = t.visceral_fat
        back = ellipse(points, (4, self.spine_back - 26), (34.0, 30.0)) + 4 * coarse
        wall = t.half_depth_mm - _SKIN_MM - t.fat_mm - t.muscle_mm
        front = depth - (3 + 20 * v + 5 * coarse) * torch.exp(-(((points.left - 6) / (30 + 20 * v)) ** 2))
        front = front + 60.0 * (points.back > 0)
        pad = ellipsoid(points, (32, -0.55 * wall, 52), (46 + 26 * v, 26 + 20 * v, 10 + 18 * v)) + 5 * coarse
        core = ellipsoid(points, (0, 0.05 * wall, -50), (34, 30, 40)) + 4 * coarse
        vessels = self._large.distance_mm(middle.stacked()) - 6.5
        canvas.paint(Tissue.VENOUS_BLOOD, canvas.cover(torch.maximum(vessels, core)))
        canvas.paint(Tissue.FAT, canvas.cover(torch.minimum(torch.minimum(back, front), torch.minimum(pad, core))), fat)

    def _paint_lungs(self, canvas: Canvas, middle: Points, fine: Tensor, coarse: Tensor) -> None:
        """Lung with vessels that are wide near its root; denser at the back, where blood settles."""
        p = self.patient
        t = p.thorax
        root = torch.exp(-(((middle.left.abs() - 45) / 50) ** 2) - ((middle.back - 10) / 60) ** 2)
        size = t.lung_vessels * (0.18 + 1.1 * root)
        xyz = middle.stacked()
        large = self._large.distance_mm(xyz) - 3.0 * size
        small = self._small.distance_mm(xyz) - 1.5 * size
        canvas.paint(Tissue.VENOUS_BLOOD, canvas.cover(torch.minimum(large, small)) * 0.8)
        tiny = canvas.cover(self._tiny.distance_mm(xyz) - 0.6 * size)
        canvas.paint(Tissue.VENOUS_BLOOD, (0.5 * t.lung_vessels * tiny).clamp_(max=1.0))
        density = self._lung_density(middle) * (1 + p.texture.lung * (0.6 * fine + 0.6 * coarse))
        grain = t.lung_density * t.lung_water * density.clamp_(0.1, MOST_OVER_MEAN)
        canvas.paint(Tissue.LUNG, torch.ones_like(canvas.remaining), grain)

    def _lung_density(self, points: Points) -> Tensor:
        """Return the lung's density over its mean: more at the back, behind the heart and, breathed out, at the base.

        ``points`` are those of one plane.
        """
        t, place = self.patient.thorax, self.patient.placement
        settled = 1 + SETTLED * (points.back / t.half_depth_mm)
        left, back = points.left - place.mitral_left_mm - 25, points.back - place.mitral_back_mm - 35
        behind = torch.exp(-((left / 38) ** 2) - ((back / 32) ** 2) - ((points.feet - 15) / 50) ** 2)
        out = min(1.0, max(0.0, (t.lung_density - 0.8) / 0.4))  # 0 after breathing in, 1 after breathing out
        base = torch.exp(self.abdomen.below_mm(points).clamp(-200.0, 0.0) / 28.0)
        # Over the whole lung the base takes 0.3 of its own rise, which is not to change the mean.
        return settled * (1 + PRESSED * behind) * ((1 + BASAL * out * base) / (1 + 0.3 * BASAL * out))
