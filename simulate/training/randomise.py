"""How differently a heart may look: ranges to draw from, wide enough to hold real hearts that were never seen.

What is learnt from images that vary far more than real ones takes real ones for one more variation (Tobin et al., IROS
2017; Billot et al., Med Image Anal 86:102789, 2023). Half of the contrasts are those of a balanced sequence, give or
take; the other half any, so long as the wall can be told from blood. No range was fitted to images of real hearts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from kspace.errors import UsageError
from simulate.patient.parameters import Group, Texture
from simulate.signal import TISSUES, BalancedSequence, tissue_signals
from simulate.tissues import N_TISSUES, Tissue

Range = tuple[float, float]
_BLOOD = (Tissue.ARTERIAL_BLOOD, Tissue.VENOUS_BLOOD)


@dataclass(frozen=True)
class Appearance:
    """One draw: how one slice of one patient is seen. Units as in :class:`Randomisation`."""

    seed: int
    group: Group
    signals: tuple[float, ...]
    texture: Texture
    height: float
    thickness_mm: float
    breath_mm: float
    pixel_mm: float
    shift_mm: tuple[float, float]
    rotation_rad: float
    mirrored: bool
    first_phase: float
    window_share: float
    acquired_mm: tuple[float, float]
    edge_gain: float
    taper: float
    snr: float
    shading: float
    shading_mm: float
    coil_rad: float
    coil_pull: float
    band: float
    band_mm: float
    flicker: float
    jet: float
    gamma: float
    negative: bool
    ghost: float
    ghost_period: int
    fold: float
    spokes_share: float
    spike: float
    border_px: tuple[int, int, int, int]
    round_view: bool
    clip: float

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, as JSON can hold them."""
        return {key: value.value if isinstance(value, Group) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Randomisation:
    """Ranges that appearances are drawn from.

    Parameters
    ----------
    groups
        Share of each diagnostic group, in the order of :class:`Group`.
    physical
        Share of contrasts that come from a balanced sequence, at flip angles of ``flip_deg`` and with every tissue's
        signal spread by ``signal_spread`` (standard deviation of its logarithm).
    inverted
        Share of the free contrasts in which the wall is brighter than blood.
    contrast
        Smallest and largest ratio of blood to wall, or of wall to blood, of the free contrasts.
    texture
        Factor of the patient's own textures.
    height
        Slice position, 0 at the mitral plane and 1 at the apex; ``off_heart`` of the slices lie
        beyond either end, by up to a third of its length: stacks go on beyond the heart.
    thickness_mm, breath_mm
        Slice thickness; displacement of the diaphragm.
    scale
        Pixel over the nominal pixel: the field of view that the crop shows.
    shift_mm
        Largest offset of the heart's axis from the middle of the crop, along x and y.
    turned
        Share that is turned by any angle; the rest turns by at most ``tilt_rad``. ``mirrored`` is the share of mirror
        images, which header conventions make.
    acquired_mm
        Resolution; that along the rows is up to 1.6 times as coarse.
    edge_gain, taper
        Of the k-space filter, as in :mod:`simulate.exported`.
    window_share
        Share of the beat over which one phase is acquired.
    snr
        Mean signal of blood over the noise's standard deviation; drawn evenly in the logarithm.
    shading, shading_mm
        Standard deviation of the logarithm of a smooth random bias field, and its wavelength.
    coil_pull
        Logarithm of the brightness across the crop, from a surface coil on one side.
    band, band_mm
        Depth of dark bands from off-resonance, and the distance between them; ``banded`` is how often.
    flicker
        Brightening of blood over the beat by inflow; ``jet`` is its loss where it streams fastest.
    gamma
        Exponent of the magnitudes. ``negative`` is the share of images whose grey scale is turned around.
    artefacts
        Share of images with each of: ghosts, fold-over, streaks of too few spokes, a spike in k-space.
    framed
        Share of images with a blank border, of the cropped ones and of round fields of view alike.
    clip
        Quantile above which the image is clipped.

    Raises
    ------
    UsageError
        When a range runs backwards or a share is none.
    """

    groups: tuple[float, ...] = (0.36, 0.18, 0.18, 0.14, 0.14)
    physical: float = 0.55
    inverted: float = 0.12
    flip_deg: Range = (30.0, 80.0)
    signal_spread: float = 0.28
    contrast: Range = (1.25, 5.0)
    texture: Range = (0.4, 2.2)
    height: Range = (-0.08, 1.0)
    off_heart: float = 0.2
    thickness_mm: Range = (5.0, 10.0)
    breath_mm: Range = (-8.0, 14.0)
    scale: Range = (0.75, 1.35)
    shift_mm: float = 22.0
    turned: float = 0.5
    tilt_rad: float = 0.35
    mirrored: float = 0.15
    acquired_mm: Range = (1.2, 3.2)
    edge_gain: Range = (0.45, 1.7)
    taper: Range = (0.0, 0.5)
    window_share: Range = (0.02, 0.12)
    snr: Range = (5.0, 90.0)
    shading: Range = (0.0, 0.35)
    shading_mm: Range = (70.0, 260.0)
    coil_pull: Range = (0.0, 1.6)
    banded: float = 0.35
    band: Range = (0.3, 1.0)
    band_mm: Range = (50.0, 220.0)
    flicker: Range = (-0.1, 0.35)
    jet: Range = (0.0, 0.6)
    gamma: Range = (0.6, 1.6)
    negative: float = 0.04
    artefacts: float = 0.12
    framed: float = 0.15
    clip: Range = (0.97, 1.0)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name == "groups":
                if len(value) != len(Group) or min(value) < 0 or not math.isclose(sum(value), 1, abs_tol=1e-6):
                    raise UsageError(f"the shares of groups are {value}", expected=f"{len(Group)} numbers of sum 1")
            elif isinstance(value, tuple):
                if len(value) != 2 or not all(map(math.isfinite, value)) or value[0] > value[1]:
                    raise UsageError(f"the range of {entry.name} is {value}", expected="(low, high)")
            elif not math.isfinite(value) or value < 0 or (entry.name in _SHARES and value > 1):
                raise UsageError(f"{entry.name} is {value}", expected="a share from 0 to 1, or a size of 0 or more")

    def draw(self, generator: np.random.Generator, texture: Texture | None = None, pixel_mm: float = 1.4) -> Appearance:
        """Draw an appearance.

        Parameters
        ----------
        generator
            Where chance comes from.
        texture
            The patient's own, to be multiplied.
        pixel_mm
            Nominal pixel.
        """
        rng = generator

        def within(limits: Range) -> float:
            return float(rng.uniform(*limits))

        def log_within(limits: Range) -> float:
            return float(np.exp(rng.uniform(math.log(limits[0]), math.log(limits[1]))))

        def chance(share: float) -> bool:
            return bool(rng.random() < share)

        fine = log_within(self.acquired_mm)
        height = within(self.height)
        if chance(self.off_heart):
            height = float(rng.choice([-0.08 - 0.25 * rng.random(), 1.0 + 0.33 * rng.random()]))
        turned = within((-math.pi, math.pi)) if chance(self.turned) else within((-self.tilt_rad, self.tilt_rad))
        sides = rng.integers(0, 28, 4) * (rng.random(4) < 0.5) if chance(self.framed) else np.zeros(4, dtype=int)
        ghost, fold, streaks, spike = (chance(self.artefacts) for _ in range(4))
        return Appearance(
            seed=int(rng.integers(2**62)),
            group=list(Group)[int(rng.choice(len(Group), p=self.groups))],
            signals=self._signals(rng),
            texture=_scaled(texture, lambda: log_within(self.texture)),
            height=height,
            thickness_mm=within(self.thickness_mm),
            breath_mm=within(self.breath_mm),
            pixel_mm=pixel_mm * log_within(self.scale),
            shift_mm=(within((-self.shift_mm, self.shift_mm)), within((-self.shift_mm, self.shift_mm))),
            rotation_rad=turned,
            mirrored=chance(self.mirrored),
            first_phase=float(rng.random()) if chance(0.3) else within((-0.06, 0.1)),
            window_share=within(self.window_share),
            acquired_mm=(fine * within((1.0, 1.6)), fine),
            edge_gain=log_within(self.edge_gain),
            taper=within(self.taper),
            snr=log_within(self.snr),
            shading=within(self.shading),
            shading_mm=log_within(self.shading_mm),
            coil_rad=within((-math.pi, math.pi)),
            coil_pull=within(self.coil_pull),
            band=within(self.band) if chance(self.banded) else 0.0,
            band_mm=log_within(self.band_mm),
            flicker=within(self.flicker),
            jet=within(self.jet) if chance(0.3) else 0.0,
            gamma=log_within(self.gamma),
            negative=chance(self.negative),
            ghost=within((0.03, 0.25)) if ghost else 0.0,
            ghost_period=int(rng.integers(2, 6)),
            fold=within((0.2, 0.9)) if fold else 0.0,
            spokes_share=log_within((0.1, 0.6)) if streaks else 1.0,
            spike=within((0.02, 0.12)) if spike else 0.0,
            border_px=(int(sides[0]), int(sides[1]), int(sides[2]), int(sides[3])),
            round_view=chance(0.3 * self.framed),
            clip=within(self.clip),
        )

    def _signals(self, rng: np.random.Generator) -> tuple[float, ...]:
        """Return the signal of every tissue, arterial blood or wall, whichever is brighter, about 1."""
        signals = self._balanced(rng) if rng.random() < self.physical else self._free(rng)
        return tuple(float(max(0.0, value)) for value in signals)

    def _balanced(self, rng: np.random.Generator) -> np.ndarray:
        field = float(rng.choice(list(TISSUES)))
        sequence = BalancedSequence(
            field, math.radians(rng.uniform(*self.flip_deg)), float(rng.uniform(2.4e-3, 4.0e-3))
        )
        signals = tissue_signals(sequence).abs().double().numpy()
        spread = np.exp(self.signal_spread * np.clip(rng.normal(size=N_TISSUES), -2, 2))
        shared = spread[Tissue.ARTERIAL_BLOOD]
        spread[Tissue.VENOUS_BLOOD] = shared * math.exp(0.08 * float(np.clip(rng.normal(), -2, 2)))
        spread[Tissue.SCAR] = spread[Tissue.MYOCARDIUM] * rng.uniform(0.85, 1.3)
        signals = signals * spread
        signals[Tissue.MYOCARDIUM] = min(signals[Tissue.MYOCARDIUM], signals[Tissue.ARTERIAL_BLOOD] / self.contrast[0])
        return np.asarray(signals / signals[Tissue.ARTERIAL_BLOOD])

    def _free(self, rng: np.random.Generator) -> np.ndarray:
        signals = rng.uniform(0.0, 1.3, N_TISSUES)
        ratio = math.exp(rng.uniform(math.log(self.contrast[0]), math.log(self.contrast[1])))
        blood, wall = (1 / ratio, 1.0) if rng.random() < self.inverted else (1.0, 1 / ratio)
        for tissue in _BLOOD:
            signals[tissue] = blood * math.exp(0.12 * float(np.clip(rng.normal(), -2, 2)))
        signals[Tissue.MYOCARDIUM] = wall
        signals[Tissue.SCAR] = wall * rng.uniform(0.7, 1.4)
        signals[Tissue.AIR] = 0.0 if rng.random() < 0.8 else rng.uniform(0, 0.15)
        signals[Tissue.LUNG] = rng.uniform(0.0, 0.35) if rng.random() < 0.8 else rng.uniform(0, 1)
        signals[Tissue.FAT] = rng.uniform(0.05, 2.2)
        return signals


_SHARES = frozenset(
    ("physical", "inverted", "off_heart", "turned", "mirrored", "banded", "negative", "artefacts", "framed")
)


def _scaled(texture: Texture | None, factor: Callable[[], float]) -> Texture:
    own = texture or Texture(0.05, 0.09, 0.16, 0.13, 0.06, 0.3)

    def scaled(name: str, low: float, high: float) -> float:
        return float(np.clip(getattr(own, name) * factor(), low, high))

    return Texture(**{e.name: scaled(e.name, e.metadata["low"], e.metadata["high"]) for e in fields(own)})
