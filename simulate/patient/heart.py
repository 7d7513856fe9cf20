"""The beating heart in a few planes at one instant, as radii over the angle around the left ventricle's axis.

Everything that surrounds the axis (cavities, walls, atria, fat, pericardium) is a table of radii, so that drawing it
costs one look-up per pixel; what does not (papillary muscles, great vessels, moderator band) is a disc or a strip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulate.body import BodyState
from simulate.patient.cardiac_cycle import emptiness, filling, twisting
from simulate.patient.left import N_ANGLES, OUTFLOW_RAD, THETA, Array, LeftShape, Local, smooth, wrap
from simulate.patient.parameters import Patient
from simulate.patient.right import RightShape
from simulate.patient.strands import Rod, Strands
from simulate.patient.texture import lattice

N_HEIGHTS, N_RINGS, N_BANDS = 24, 64, 256
"""Samples of the heart's texture over height, radius and angle."""
RINGS = 16
"""Rings per layer of the texture: blood of the left ventricle, its wall, the right ventricle, what lies around."""
RING_MM = 6.0
"""Depth over which a valve's ring lies: the height of the mitral annulus' saddle, 4 to 8 mm (Levine et al., Circulation
80:589, 1989)."""
ATRIAL_WALL_MM = 1.1
VESSEL_WALL_MM = 0.9
SPONGY_EDGE_MM = 1.5
"""Depth over which muscle's share rises at the inner edge of the trabeculated layer, about the width of a trabecula:
beyond it the layer is a shelf of even share up to the compact wall."""
_ROOT_RAD = 0.28  # half the angle over which a papillary muscle springs from deeper trabeculae
_LATERAL: Array = 0.35 + 0.65 * smooth((np.abs(THETA) - 0.7) / 0.5)  # (angle,) the septum is smooth
_N_PHASES = 400  # samples of the volume curve from which early and late walls are read


Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Disc:
    """A round structure in each plane; coordinates from the left ventricle's axis, septum along the first."""

    along: Array  # (plane,) mm towards the septum
    across: Array  # (plane,) mm towards the anterior wall
    radius: Array  # (plane,) mm, negative where there is none


@dataclass(frozen=True)
class HeartSection:
    """The heart in some planes at one instant; tables are (plane, angle) in mm unless stated."""

    endo: Array
    blood: Array  # inner ends of the trabeculae
    spongy: Array  # depth of the layer of trabeculae and blood inside the endocardium
    spongy_share: Array  # (plane, angle) share of muscle in it, next to the wall
    epi: Array
    wall: Array  # 1 where there is left ventricular wall, 0.5 at the edge of its opening
    scar: Array  # share of it that is infarcted
    inner: Array  # outline that the right ventricle is laid around
    right: Array
    right_present: Array  # (plane, angle) in [0, 1]
    right_blood: Array
    right_wall: Array
    left_atrium: Array
    right_atrium: Array
    core: Array  # what lies between the great vessels just above the ventricles
    coat: Array  # outer edge of the epicardial fat
    ventricle: Array  # (plane,) 1 where the plane cuts the left ventricle, 0 above its base and below its apex
    slow: Array  # depth of the blood along the endocardium that is next to rest
    papillary: tuple[Disc, ...]
    rods: tuple[Rod, ...]  # strands across the cavity
    aorta: Disc
    pulmonary: Disc
    band: Disc  # moderator band: a strip along the first axis, half as thick as ``radius``
    texture: Array  # (plane, ring, band) of unit variance

    def reach_mm(self) -> Array:
        """Return the radius within which everything lies: (plane, angle)."""
        reach = np.maximum(self.coat, 0.0)
        for disc in (self.aorta, self.pulmonary):
            wide = Disc(disc.along, disc.across, disc.radius + np.where(disc.radius > 0, VESSEL_WALL_MM + 2.5, 0.0))
            reach = np.maximum(reach, _outline_of(wide))
        return reach


class Heart:
    """A patient's heart; coordinates of the stack in mm, angles from the middle of the septum."""

    def __init__(self, patient: Patient) -> None:
        self.patient = patient
        self.left = LeftShape(patient.left, patient.scar)
        self.right = RightShape(patient)
        rng = np.random.default_rng([patient.seed, 200])
        self._texture = lattice(rng, N_HEIGHTS, N_RINGS, N_BANDS, (1.2, 2.2, 2.6))
        flow = lattice(rng, N_HEIGHTS, N_RINGS, N_BANDS, (1.2, 3.0, 16.0))
        for layer in (0, 2):  # blood is smoother than muscle
            self._texture[:, layer * RINGS : (layer + 1) * RINGS] = flow[:, layer * RINGS : (layer + 1) * RINGS]
        self._texture[:, :RINGS] *= smooth((np.arange(RINGS) + 0.5) / (0.6 * RINGS))[None, :, None]
        ridges = lattice(rng, N_HEIGHTS, 2, N_ANGLES, (0.8, 0.0, 30.0))[:, 0]
        self._ridges = np.clip(0.3 + 0.6 * ridges, 0.0, 1.7)  # trabeculae of the left ventricle
        coarse = lattice(rng, N_HEIGHTS, 2, N_ANGLES, (1.0, 0.0, 34.0))[:, 0]
        self._right_ridges = np.clip(0.4 + 0.6 * coarse, 0.0, 2.0)
        self._fat = np.clip(0.7 + 0.9 * lattice(rng, N_HEIGHTS, 2, N_ANGLES, (1.5, 0.0, 70.0))[:, 0], 0.0, 2.6)
        self._heads = [  # angle, size and distance from the wall of each head of the two papillary muscles
            (at + rng.normal(0, 0.17), rng.uniform(0.5, 0.85), rng.uniform(-0.1, 0.6))
            for at in (1.95 + 0.12 * rng.normal(), -1.85 + 0.12 * rng.normal())
            for _ in range(3)
        ]
        self._band_at = (rng.uniform(-8, 6), rng.uniform(0.45, 0.65))
        rng = np.random.default_rng([patient.seed, 201])
        strands = lattice(rng, N_HEIGHTS, 2, N_ANGLES, (0.8, 0.0, 20.0))[:, 0]
        self._strands = np.clip(1 + 0.55 * strands, 0.1, 2.2)  # single trabeculae and the clefts between them
        depths = lattice(rng, N_HEIGHTS, 2, N_ANGLES, (1.5, 0.0, 110.0))[:, 0]
        self._depths = np.clip(1 + 0.25 * depths, 0.4, 1.6)
        rng = np.random.default_rng([patient.seed, 203])  # coarse trabeculae in one place, fine ones in another
        coarse = lattice(rng, N_HEIGHTS, 2, N_ANGLES, (1.5, 0.0, 60.0))[:, 0]
        where = lattice(rng, N_HEIGHTS, 2, N_ANGLES, (2.5, 0.0, 220.0))[:, 0]
        share = smooth(0.5 + 0.6 * where)
        self._strands = self._strands + share * (np.clip(1 + 0.65 * coarse, 0.0, 2.4) - self._strands)
        self._depths = self._depths * self._lobes(np.random.default_rng([patient.seed, 204]))
        self._tied = float(np.random.default_rng([patient.seed, 205]).uniform(0.2, 1.0))
        self._rods = Strands(patient.left, patient.seed)
        self._packing = self._most_packed()
        r = patient.rhythm
        self._curve = np.array([filling(r, k / _N_PHASES) for k in range(_N_PHASES)])
        self.in_step = r.late_apex_s == 0 and r.late_wall_s == 0 and (r.late_scar_s == 0 or patient.scar.size == 0)

    def volumes_ml(self, state: BodyState) -> dict[str, float]:
        """Return the exact volumes in mL of ``lv``, ``myocardium`` and ``rv``."""
        c = emptiness(self.patient, state)
        return {"lv": self.left.volume_ml(c), "myocardium": self.left.wall_ml, "rv": self.right.volume_ml(c)}

    def section(self, z_mm: Array, state: BodyState, thickness_mm: float = 2.0) -> HeartSection:
        """Return the heart in planes at a state of the body.

        Parameters
        ----------
        z_mm
            (plane,) in the heart's own coordinates.
        state
            Of the body.
        thickness_mm
            That a plane stands for: strands that are thinner fill a share of it.
        """
        c, twisted = emptiness(self.patient, state), twisting(self.patient.rhythm, state.phase)
        return self.contracted(z_mm, c, twisted, None if self.in_step else self._local(state), thickness_mm)

    def split(self, z_mm: Array, state: BodyState, thickness_mm: float) -> tuple[Indices, Array, Array]:
        """Return planes that stand for these, with a soft edge where ventricles end and atria and arteries begin.

        A valve's ring is no plane: the mitral one is a saddle (:data:`RING_MM`). Within its reach a plane is drawn both
        as what lies above and as what lies below, with weights that change smoothly as the base descends.

        Parameters
        ----------
        z_mm
            (plane,) in the heart's own coordinates.
        state
            Of the body.
        thickness_mm
            That a plane stands for.

        Returns
        -------
        Which plane each one stands for, its own z in mm, and its weight; the weights' sum is 1.
        """
        c, z = emptiness(self.patient, state), np.asarray(z_mm, dtype=np.float64)
        edges = np.sort([self.left.base_mm(c), self.right.base_mm(c), self.right.valve_mm(c)])
        width = max(RING_MM, 2 * thickness_mm)
        above = np.concatenate(
            [np.zeros((1, len(z))), smooth((edges[:, None] - z) / width + 0.5), np.ones((1, len(z)))]
        )
        shares = np.diff(above, axis=0).T  # (plane, piece), pieces from the head towards the apex
        limits = np.concatenate([[-np.inf], edges, [np.inf]])
        source, piece = np.nonzero(shares > 0)
        low, high = limits[piece] + 1e-3, limits[piece + 1] - 1e-3
        inside = np.where(low < high, np.clip(z[source], low, np.maximum(low, high)), 0.5 * (low + high))
        return source.astype(np.intp), np.asarray(inside), np.asarray(shares[source, piece] / len(z))

    def _local(self, state: BodyState) -> Local:
        """Return the contraction of each piece of wall, which follows the volume curve early or late."""
        r, stroke = self.patient.rhythm, float(np.clip(state.stroke, 0.0, 1.5))
        phases = np.arange(_N_PHASES + 1) / _N_PHASES
        emptied = np.maximum(0.0, 1 - stroke * np.append(self._curve, self._curve[0]))

        def local(u: Array, theta: Array) -> Array:
            late = r.late_apex_s * (1.6 * u - 0.6) - 0.5 * r.late_wall_s * np.cos(theta - r.late_rad + np.pi)
            if r.late_scar_s > 0:
                late = late + r.late_scar_s * self.left.scarred(u, theta) ** 0.5
            return np.asarray(np.interp((state.phase - late / self.patient.rr_s) % 1.0, phases, emptied))

        return local

    def contracted(
        self, z_mm: Array, c: float, twisted: float, local: Local | None = None, thickness_mm: float = 2.0
    ) -> HeartSection:
        """Return the heart in the planes ``z_mm`` (plane,), contracted by a share ``c`` and twisted by another.

        ``local`` shares the contraction of the left ventricle out between early and late walls.
        """
        p, z = self.patient, np.asarray(z_mm, dtype=np.float64)
        left = self.left.section(z, c, twisted, local)
        inside = (left.height >= 0) & (left.height <= 1)
        above = (self.left.base_mm(c) - z)[:, None]
        aorta, pulmonary = self._vessels(z, c, left.epi.min(1))
        la = self._left_atrium(z, c)
        # Above the mitral plane the right side is laid around the left atrium and the aorta instead of the ventricle.
        hugged = np.maximum(la + ATRIAL_WALL_MM, _outline_of(aorta) + VESSEL_WALL_MM + 0.6)
        inner = left.epi + (np.maximum(_blur(hugged, 0.12), hugged) - left.epi) * smooth(above / 8.0)
        right = self.right.section(z, c, inner)
        u = np.clip(left.height, 0.0, 1.0)
        level = u * (N_HEIGHTS - 1)
        turn = np.round(left.twist / (2 * np.pi) * N_ANGLES).astype(int)

        def rolled(table: Array) -> Array:
            columns = (np.arange(N_ANGLES)[None] - turn[:, None]) % N_ANGLES
            return np.asarray(np.take_along_axis(_at_level(table, level), columns, 1))

        depth = p.left.trabeculae_mm * (1 + 0.3 * c) * (0.3 + 0.9 * u) * smooth((u - 0.12) / 0.2)
        lateral = _LATERAL
        blood = left.endo - np.minimum(depth[:, None] * lateral * rolled(self._ridges), 0.28 * left.endo)
        # In systole the layer gets thinner and denser: its muscle stays, the blood between is squeezed out.
        packed = 1 - 0.25 * float(np.clip(c, 0.0, 1.0))
        spongy = self._spongy(u, left.endo, packed * rolled(self._depths))
        denser = 1 / (packed * max(0.3, 1 - p.left.ef * float(np.clip(c, 0.0, 1.0))) ** 0.5)
        share = np.minimum(0.95, self._packing * p.left.spongy_share * denser * rolled(self._strands))
        # Stasis: along the wall, deeper towards the apex; less room for it as the cavity empties.
        room = max(0.4, 1 - p.left.ef * float(np.clip(c, 0.0, 1.0))) ** 0.5
        still = p.left.slow_mm * room * (0.6 + 0.8 * u) * smooth((u - 0.02) / 0.2)
        slow = np.minimum(still[:, None] * (0.7 + 0.3 * lateral) + spongy, 0.75 * left.endo) * (still > 0)[:, None]
        gap = right.outer - inner
        free = np.clip(
            p.right.trabeculae_mm * (0.6 + 0.6 * u)[:, None] * _at_level(self._right_ridges, level), 0.0, 0.4 * gap
        )
        ra = self._right_atrium(z, c, inner)
        right_wall = right.outer + p.right.wall_mm * (1 + 0.25 * c) * right.present
        outline = np.where(inside[:, None], left.epi, 0.0)
        outline = np.maximum(outline, np.where(right.present > 0, right_wall, 0.0))
        outline = np.maximum(outline, np.where(la > 0, la + ATRIAL_WALL_MM, 0.0))
        outline = np.maximum(outline, np.where(ra > 0, ra + ATRIAL_WALL_MM, 0.0))
        outline = np.maximum(outline, np.where(_outline_of(aorta) > 0, _outline_of(aorta) + VESSEL_WALL_MM, 0.0))
        core = np.where((above > 0) & (la > 0).any(1, keepdims=True), inner, 0.0)
        return HeartSection(
            core=core, endo=left.endo, blood=blood, spongy=spongy, spongy_share=share, slow=slow, epi=left.epi,
            wall=left.wall, scar=left.scar, inner=inner,
            rods=tuple(
                self._rods.rods(
                    left.height, left.twist, left.endo, p.left.length_mm - self.left.base_mm(c), thickness_mm
                )
            ),
            right=right.outer, right_present=right.present,
            right_blood=right.outer - free, right_wall=right_wall, left_atrium=la, right_atrium=ra,
            coat=self._coat(outline, level, above[:, 0]), ventricle=inside.astype(np.float64),
            papillary=self._papillaries(left.height, left.endo, left.twist, c), aorta=aorta, pulmonary=pulmonary,
            band=self._moderator(right.along, c), texture=self._rolled_texture(level, turn),
        )  # fmt: skip

    def _lobes(self, rng: np.random.Generator) -> Array:
        """Return the trabeculated layer's depth over its mean: (height, angle).

        Trabeculae are ridges along the ventricle with recesses between them, and papillary muscles do not stand on the
        compact wall but spring from a network of them (Axel, J Cardiovasc Magn Reson 6:641, 2004).
        """
        ridges = np.clip(1 + 0.5 * lattice(rng, N_HEIGHTS, 2, N_ANGLES, (2.5, 0.0, 32.0))[:, 0], 0.15, 2.2)
        at = np.array([head[0] for head in self._heads])
        roots = np.exp(-((wrap(THETA[:, None] - at) / _ROOT_RAD) ** 2)).max(1)
        return np.asarray(ridges + 0.5 * smooth((np.linspace(0, 1, N_HEIGHTS) - 0.3) / 0.2)[:, None] * roots)

    def _spongy(self, u: Array, endo: Array, uneven: Array | float) -> Array:
        """Return the depth of the layer of trabeculae and blood: (plane, angle) mm."""
        deep = self.patient.left.spongy_mm * (0.4 + 0.8 * u) * smooth((u - 0.05) / 0.3)
        return np.asarray(np.minimum(deep[:, None] * (0.6 + 0.4 * _LATERAL) * uneven, 0.5 * endo))

    def _most_packed(self) -> float:
        """Return by how much the layer's share of muscle is lowered so that trabeculae do not outweigh what is stated.

        Their mass at end-diastole, of a shelf of even share (:func:`simulate.patient.render.paint_heart`).
        """
        left = self.patient.left
        if left.spongy_mm == 0 or left.spongy_share == 0:
            return 1.0
        u = (np.arange(48) + 0.5) / 48
        level = u * (N_HEIGHTS - 1)
        endo = self.left.section(u * left.length_mm, 0.0, 0.0).endo
        depth = self._spongy(u, endo, _at_level(self._depths, level))
        area = np.maximum(depth - 0.5 * SPONGY_EDGE_MM, 0.5 * depth) * (endo - 0.5 * depth)  # per radian
        area = area * _at_level(self._strands, level)
        muscle_ml = left.spongy_share * float(2 * np.pi * area.mean(1).mean()) * left.length_mm / 1e3
        return min(1.0, left.spongy_mass * self.left.wall_ml / max(muscle_ml, 1e-6))

    def _rolled_texture(self, level: Array, turn: Array) -> Array:
        shift = np.round(turn * (N_BANDS / N_ANGLES)).astype(int)
        columns = (np.arange(N_BANDS)[None] - shift[:, None]) % N_BANDS
        return np.asarray(np.take_along_axis(_at_level(self._texture, level), columns[:, None, :], 2))

    def _left_atrium(self, z: Array, c: float) -> Array:
        """Return the radii of the left atrium: (plane, angle), 0 where there is none."""
        a = self.patient.around
        base, top = self.left.base_mm(c), -1.75 * a.left_atrium_mm
        h = (base - z) / (base - top)
        size = a.left_atrium_mm * (1 + 0.08 * c) * np.sqrt(np.maximum(0.0, 1 - ((h - 0.42) / 0.6) ** 2))
        size = np.where((h > 0) & (h < 1), size, 0.0)[:, None]
        off = np.minimum(0.30 * a.left_atrium_mm, 0.8 * size)
        angle = wrap(THETA + 2.3)[None]  # inferolateral: to the back
        return np.asarray(off * np.cos(angle) + np.sqrt(np.maximum(size**2 - (off * np.sin(angle)) ** 2, 0.0)))

    def _right_atrium(self, z: Array, c: float, inner: Array) -> Array:
        """Return the outer radii of the right atrium, around ``inner``: (plane, angle), 0 where there is none."""
        a = self.patient.around
        base, top = self.right.base_mm(c), -52.0
        h = (base - z) / (base - top)
        area = a.right_atrium_mm2 * (1 + 0.25 * c) * np.sqrt(np.maximum(0.0, 1 - np.clip(h, 0, 1) ** 3))
        area = np.where((h > 0) & (h < 1), area, 0.0)
        q = wrap(THETA + 0.62)[None] / 0.85
        shape = np.where(np.abs(q) < 1, 1 - np.abs(q) ** 2.6, 0.0) * (3.6 / 5.2 / 0.85)
        right = np.sqrt(inner**2 + 2 * area[:, None] * shape)
        return np.where(shape * area[:, None] > 0, right, 0.0)

    def _vessels(self, z: Array, c: float, room: Array) -> tuple[Disc, Disc]:
        """Return the aortic root with the ascending aorta, and the pulmonary artery."""
        a = self.patient.around
        above = self.left.base_mm(c) - z
        far = np.clip(above / 60.0, 0.0, 1.0)
        sinus = 1 + 0.12 * np.exp(-(((above - 12) / 9) ** 2))
        distance = np.maximum(0.0, np.minimum(13.0, room - a.aorta_mm * sinus - 3.0)) + 12.0 * far
        at = OUTFLOW_RAD - 0.35 * far
        radius = np.where(above > 0, a.aorta_mm * sinus, -30.0)
        aorta = Disc(distance * np.cos(at), distance * np.sin(at), radius)
        over = self.right.valve_mm(c) - z
        far = np.clip(over / 40.0, 0.0, 1.0)
        distance, at = room + 8.0 - 10.0 * far, 0.85 + 0.75 * far
        radius = np.where((over > 0) & (over < 60), a.pulmonary_mm, -30.0)
        return aorta, Disc(distance * np.cos(at), distance * np.sin(at), radius)

    def _papillaries(self, height: Array, endo: Array, twist: Array, c: float) -> tuple[Disc, ...]:
        """Return the heads of the anterolateral and the posteromedial papillary muscle."""
        size = self.patient.left.papillary_mm * (1 + 0.15 * c)
        clear = 1 - self._tied * float(np.clip(c, 0.0, 1.0))  # in systole recesses beside them close
        fade = np.minimum(smooth((height - 0.22) / 0.15), smooth((0.86 - height) / 0.15))
        discs = []
        for at, share, off in self._heads:
            column = np.round((wrap(at + twist) + np.pi) / (2 * np.pi) * N_ANGLES).astype(int) % N_ANGLES
            local = endo[np.arange(len(endo)), column]
            distance = local - size * (share * 0.7 + clear * (0.25 + off) * smooth((0.66 - height) / 0.3))
            distance = np.maximum(distance, 0.4 * local)
            radius = share * size * (0.5 + 0.5 * fade) - (share * size * 0.5 + 1.0) * (1 - smooth(fade / 0.3))
            radius = np.where(fade > 0, radius, -30.0)
            discs.append(Disc(distance * np.cos(at + twist), distance * np.sin(at + twist), radius))
        return tuple(discs)

    def _moderator(self, along: Array, c: float) -> Disc:
        across, height = self._band_at
        half = self.patient.right.band_mm * (0.5 + 0.1 * c)
        near = smooth((0.06 - np.abs(along - height)) / 0.02)
        radius = np.where(near > 0, (half + 1.0) * near - 1.0, -30.0)
        return Disc(np.zeros_like(along), np.full_like(along, across), radius)

    def _coat(self, outline: Array, level: Array, above: Array) -> Array:
        """Return the outer edge of the epicardial fat, which fills the grooves between the chambers."""
        a = self.patient.around
        blurred = _blur(outline, 0.20)
        groove = a.groove_mm * np.exp(-(((above - 3) / 13) ** 2))
        right = smooth(np.cos(THETA / 2) ** 2 * 1.6 - 0.35)  # little fat on the lateral wall
        fat = _at_level(self._fat, level) * a.fat_mm * (0.15 + 0.85 * right)
        filled = blurred + (fat + groove[:, None]) * (0.3 + 0.7 * right) - 1.2 * (1 - right)
        coat = np.maximum(outline + np.where(fat > 0.6, fat, 0.0), filled)
        return np.asarray(np.where(outline.max(1, keepdims=True) > 0, coat, 0.0))


def _at_level(table: Array, level: Array) -> Array:
    """Return a table (height, ...) at levels (plane,) between its heights: (plane, ...).

    Tissue that moves through a plane does not change from one height's to the next's at once.
    """
    low = np.minimum(level.astype(int), N_HEIGHTS - 2)
    share = (level - low).reshape(-1, *[1] * (table.ndim - 1))
    return np.asarray(table[low] + share * (table[low + 1] - table[low]))


def _blur(table: Array, width_rad: float) -> Array:
    """Blur a table (plane, angle) along the angle with a Gaussian."""
    spectrum = np.fft.rfft(table, axis=1)
    k = np.arange(spectrum.shape[1])
    return np.asarray(np.fft.irfft(spectrum * np.exp(-((k * width_rad) ** 2) / 2), n=N_ANGLES, axis=1))


def _outline_of(disc: Disc) -> Array:
    """Return the outer radii of a disc as seen from the axis: (plane, angle), 0 where a ray misses it."""
    distance, at = np.hypot(disc.along, disc.across)[:, None], np.arctan2(disc.across, disc.along)[:, None]
    turn = wrap(THETA[None] - at)
    inside = np.maximum(disc.radius, 0.0)[:, None] ** 2 - (distance * np.sin(turn)) ** 2
    far = distance * np.cos(turn) + np.sqrt(np.maximum(inside, 0.0))
    return np.asarray(np.where(inside > 0, np.maximum(far, 0.0), 0.0))
