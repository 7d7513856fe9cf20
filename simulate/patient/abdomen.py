"""What lies below the diaphragm: liver with its vessels, stomach, spleen, kidneys, bowel and fat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from simulate.patient.canvas import Canvas
from simulate.patient.parameters import Patient
from simulate.patient.shapes import Points, ellipsoid, smooth
from simulate.patient.texture import Tubes, Waves
from simulate.tissues import Tissue


class Abdomen:
    """A patient's upper belly; ``spine_back`` is where the vertebrae lie behind the middle of the chest, in mm."""

    def __init__(self, patient: Patient, spine_back: float) -> None:
        self.patient, self._spine = patient, spine_back
        rng = np.random.default_rng([patient.seed, 320])
        self._vessels = Tubes((patient.seed, 321), 62.0)
        self._bowel = Waves((patient.seed, 322), 42.0, 14)
        o = rng.normal(0, 1, 16)
        t = patient.thorax
        self._stomach_at = (58 + 5 * o[0], 2 + 5 * o[1], t.dome_left_mm + 0.95 * t.stomach_mm + 6 + 3 * o[2])
        self._spleen_at = (0.62 * t.half_width_mm + 3 * o[3], 0.42 * t.half_depth_mm + 4 * o[4], t.dome_left_mm + 42.0)
        self._kidneys = tuple(
            (side * (58 + 4 * abs(o[6])), spine_back - 2 + 3 * o[7], t.dome_left_mm + down + 6 * o[8])
            for side, down in ((1, 92.0), (-1, 108.0))
        )
        self._tendon = 44.0 + 3 * o[9]

    def below_mm(self, points: Points) -> Tensor:
        """Return about the distance in mm below (positive) or above the diaphragm."""
        t = self.patient.thorax
        depth, width = t.half_depth_mm, t.half_width_mm

        def dome(top: float, left: float, back: float, wide: float, deep: float) -> Tensor:
            u, v = (points.left - left) / wide, (points.back - back) / deep
            return top + 62 * (u * u + v * v)

        right = dome(t.dome_right_mm, -0.44 * width, 0.02 * depth, 0.52 * width, 0.85 * depth)
        left = dome(t.dome_left_mm, 0.50 * width, 0.16 * depth, 0.46 * width, 0.75 * depth)
        tendon = dome(self._tendon, 24.0, -0.15 * depth, 0.55 * width, 0.80 * depth)
        k = 7.0
        height = -k * torch.logsumexp(torch.stack([-right / k, -left / k, -tendon / k]), 0)
        return (points.feet - height) * 0.85

    def paint(
        self, canvas: Canvas, points: Points, middle: Points, below: Tensor, fine: Tensor, coarse: Tensor, fat: Tensor
    ) -> None:
        """Paint what is below the diaphragm, and the diaphragm; arguments as in :meth:`Thorax.paint`."""
        p = self.patient
        t = p.thorax
        canvas.paint(Tissue.MUSCLE, canvas.cover((below + 0.5).abs() - 1.2))
        under = canvas.cover(-below)
        grain = 1 + p.texture.liver * (0.8 * fine + 0.5 * coarse)
        r = t.stomach_mm
        stomach = ellipsoid(points, self._stomach_at, (0.95 * r, 1.05 * r, 1.25 * r)) + 3 * coarse
        level = self._stomach_at[1] + (2 * t.stomach_gas - 1) * 0.8 * r  # gas rises to the front of one who lies
        gas = canvas.cover(points.back - level) if t.stomach_gas > 0 else torch.zeros_like(stomach)
        hollow = canvas.cover(stomach + 4.0 + 1.2 * fine) * under
        canvas.paint(Tissue.AIR, hollow * gas)
        canvas.paint(Tissue.STOMACH, hollow, 1 + 0.25 * coarse)
        canvas.paint(Tissue.MUSCLE, canvas.cover(stomach) * under)
        spleen = ellipsoid(points, self._spleen_at, (0.42 * t.spleen_mm, 0.85 * t.spleen_mm, t.spleen_mm)) + 2 * coarse
        canvas.paint(Tissue.SPLEEN, canvas.cover(spleen) * under, grain)
        for at in self._kidneys:
            kidney = ellipsoid(points, at, (26.0, 27.0, 50.0)) + 1.5 * coarse
            sinus = ellipsoid(points, (at[0] * 0.7, at[1] - 6, at[2]), (7.0, 9.0, 20.0)) + 4 * coarse
            canvas.paint(Tissue.FAT, canvas.cover(sinus) * under, fat)
            canvas.paint(Tissue.SPLEEN, canvas.cover(kidney) * under, grain)
            canvas.paint(Tissue.FAT, canvas.cover(kidney - 4 - 8 * t.visceral_fat - 6 * coarse) * under, fat)
        thick = 165.0 * smooth((t.liver_left_mm + 15 - points.left) / 140.0) + 6 * coarse
        liver = torch.maximum(below - thick, points.left - t.liver_left_mm + 0.35 * (points.back + 20))
        liver = torch.maximum(liver, points.back - self._spine - 16)
        share = canvas.cover(liver) * under
        vessel = self._vessels.distance_mm(middle.stacked()) - 2.4
        canvas.paint(Tissue.VENOUS_BLOOD, share * canvas.cover(vessel) * 0.85)
        canvas.paint(Tissue.LIVER, share, grain)
        bowel = self._bowel(middle.stacked())
        low = smooth((below - 12) / 25)
        canvas.paint(Tissue.STOMACH, canvas.cover((0.75 - bowel) * 8) * under * low, 1 + 0.3 * fine)
        canvas.paint(Tissue.MUSCLE, canvas.cover((-0.15 - bowel) * 8 + 0.6 * fine) * under * low)
        canvas.paint(Tissue.FAT, under, fat)
