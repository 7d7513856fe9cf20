"""How bright tissues are: the balanced steady state (bSSFP) of every tissue, flow in it, and shading across it.

RF pulses alternate in sign, so that the pass band is centred on resonance and signal vanishes at ±1 / (2 TR), with a
period of 1 / TR. Phases are those of a receiver that follows the pulses; the signal on resonance is real and positive,
and positive off-resonance turns it forwards, as ``exp(+2 pi i f t)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError, UsageError
from simulate.tissues import N_TISSUES, Tissue

HYDROGEN_HZ_PER_T = 42.577478e6
"""Gyromagnetic ratio of hydrogen over 2 pi (CODATA 2018)."""

FAT_SHIFT_PPM = -3.4
"""The main (methylene) peak of fat from water (Hamilton et al., NMR Biomed 24:784, 2011)."""


@dataclass(frozen=True)
class BalancedSequence:
    """A balanced steady-state sequence.

    Parameters
    ----------
    field_t
        Field strength in tesla, 1.5 or 3: the tissue table knows no other.
    flip_rad
        Flip angle in radians; by default 55 degrees.
    tr_s
        Repetition time in seconds.
    te_s
        Echo time in seconds; by default half of TR, where off-resonance refocuses like a spin echo.

    Raises
    ------
    UsageError
        When a number is out of range or the echo lies outside TR.
    """

    field_t: float = 1.5
    flip_rad: float = math.radians(55)
    tr_s: float = 3.0e-3
    te_s: float | None = None

    def __post_init__(self) -> None:
        if self.field_t not in TISSUES:
            raise UsageError(f"a field of {self.field_t} T", expected=f"one of {sorted(TISSUES)} T")
        if not 0 < self.flip_rad <= math.pi:
            raise UsageError(f"a flip angle of {self.flip_rad} rad", expected="more than 0, at most pi")
        if not 1e-3 <= self.tr_s <= 0.1:
            raise UsageError(f"a TR of {self.tr_s} s", expected="0.001 to 0.1 s")
        if self.te_s is not None and not 0 <= self.te_s <= self.tr_s:
            raise UsageError(f"an echo at {self.te_s} s", expected=f"0 to TR, {self.tr_s} s")

    @property
    def echo_s(self) -> float:
        """Echo time in seconds."""
        return self.tr_s / 2 if self.te_s is None else self.te_s

    @property
    def fat_hz(self) -> float:
        """Frequency of fat from that of water, in Hz."""
        return FAT_SHIFT_PPM * 1e-6 * HYDROGEN_HZ_PER_T * self.field_t


@dataclass(frozen=True)
class TissueProperties:
    """What a tissue's signal depends on.

    Parameters
    ----------
    t1_s, t2_s
        Relaxation times in seconds, T2 at most T1. Those of the water where there is fat as well.
    density
        Density of visible hydrogen, that of water being 1.
    fat_share
        Share of the density that is fat, at fat's frequency.
    source
        Where the relaxation times are from.
    """

    t1_s: float
    t2_s: float
    density: float
    fat_share: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.t2_s <= self.t1_s:
            raise InputError(f"T1 is {self.t1_s} s and T2 {self.t2_s} s", expected="0 < T2 <= T1")
        if not (0 <= self.density <= 1.2 and 0 <= self.fat_share <= 1):
            raise InputError(
                f"the density is {self.density} and the share of fat {self.fat_share}", expected="shares from 0 to 1"
            )


_STANISZ = "Stanisz et al., MRM 54:507, 2005"
_BAZELAIRE = "de Bazelaire et al., Radiology 230:652, 2004"
_GOLD = "Gold et al., AJR 183:343, 2004; long T2 as short echo spacing decouples (Henkelman et al., MRM 32:592, 1994)"
_KNOBELSDORFF = "von Knobelsdorff-Brenkenhoff et al., JCMR 15:53, 2013"
_BLOOD = "T1: Stanisz 2005, Zhang et al., MRM 70:1082, 2013; T2 by oxygenation: Wright et al., JMRI 1:275, 1991"
_SCAR = "native T1 and T2 raised in scar: Kali et al., Circ Cardiovasc Imaging 8:e003092, 2015"
_CHOICE = "this simulator's choice"

_COMMON = {
    Tissue.AIR: TissueProperties(1.0, 1.0, 0.0, source="no hydrogen"),
    Tissue.BONE: TissueProperties(0.2, 0.4e-3, 0.2, source="cortical bone: Reichert et al., MRI 23:611, 2005"),
    Tissue.CSF: TissueProperties(4.0, 1.8, 1.0, source="Condon et al., JCAT 11:203, 1987"),
    Tissue.STOMACH: TissueProperties(1.4, 0.15, 0.8, source=_CHOICE + ": between tissue and water"),
}

TISSUES: dict[float, dict[Tissue, TissueProperties]] = {
    1.5: {
        **_COMMON,
        Tissue.LUNG: TissueProperties(1.2, 0.04, 0.12, source="T1: Stadler et al., JMRI 21:759, 2005; density reduced "
                                      "for dephasing at alveoli"),
        Tissue.FAT: TissueProperties(0.288, 0.165, 0.9, 1.0, _GOLD),
        Tissue.MUSCLE: TissueProperties(1.008, 0.044, 0.78, source=_STANISZ),
        Tissue.SKIN: TissueProperties(0.9, 0.035, 0.6, source="Song et al., MRM 37:185, 1997"),
        Tissue.MARROW: TissueProperties(0.9, 0.05, 0.75, 0.45, _BAZELAIRE + "; fat: " + _CHOICE),
        Tissue.MYOCARDIUM: TissueProperties(1.03, 0.052, 0.78, source=_STANISZ + "; T2: " + _KNOBELSDORFF),
        Tissue.ARTERIAL_BLOOD: TissueProperties(1.5, 0.25, 0.83, source=_BLOOD),
        Tissue.VENOUS_BLOOD: TissueProperties(1.5, 0.18, 0.83, source=_BLOOD),
        Tissue.PERICARDIUM: TissueProperties(0.9, 0.012, 0.5, source=_CHOICE + ": fibrous, dark"),
        Tissue.LIVER: TissueProperties(0.586, 0.046, 0.71, source=_BAZELAIRE),
        Tissue.SPLEEN: TissueProperties(1.057, 0.079, 0.79, source=_BAZELAIRE),
        Tissue.CORD: TissueProperties(0.745, 0.074, 0.75, source=_STANISZ),
        Tissue.SCAR: TissueProperties(1.15, 0.06, 0.8, source=_SCAR),
    },
    3.0: {
        **_COMMON,
        Tissue.LUNG: TissueProperties(1.35, 0.03, 0.08, source="as at 1.5 T, with more dephasing"),
        Tissue.FAT: TissueProperties(0.371, 0.133, 0.9, 1.0, _GOLD),
        Tissue.MUSCLE: TissueProperties(1.412, 0.05, 0.78, source=_STANISZ),
        Tissue.SKIN: TissueProperties(1.1, 0.03, 0.6, source=_CHOICE + ": from 1.5 T"),
        Tissue.MARROW: TissueProperties(1.1, 0.045, 0.75, 0.45, _BAZELAIRE),
        Tissue.MYOCARDIUM: TissueProperties(1.16, 0.045, 0.78, source=_KNOBELSDORFF),
        Tissue.ARTERIAL_BLOOD: TissueProperties(1.75, 0.2, 0.83, source=_BLOOD),
        Tissue.VENOUS_BLOOD: TissueProperties(1.7, 0.12, 0.83, source=_BLOOD),
        Tissue.PERICARDIUM: TissueProperties(1.0, 0.01, 0.5, source=_CHOICE + ": fibrous, dark"),
        Tissue.LIVER: TissueProperties(0.809, 0.034, 0.71, source=_BAZELAIRE),
        Tissue.SPLEEN: TissueProperties(1.328, 0.061, 0.79, source=_BAZELAIRE),
        Tissue.CORD: TissueProperties(0.993, 0.078, 0.75, source=_STANISZ),
        Tissue.SCAR: TissueProperties(1.42, 0.055, 0.8, source=_SCAR),
    },
}  # fmt: skip
"""Properties of each tissue by field strength in tesla. Densities: water content of tissues, ICRP Publication 89, 2002;
of fat, lipids weighed by their hydrogen. Values differ between studies by 10 % and more."""


def steady_state(
    t1_s: Tensor,
    t2_s: Tensor,
    density: Tensor,
    flip_rad: Tensor | float,
    tr_s: float,
    off_resonance_hz: Tensor | float = 0.0,
    *,
    te_s: float | None = None,
) -> Tensor:
    """Return the transverse magnetisation at the echo of a balanced sequence with alternating pulses.

    Freeman and Hill, J Magn Reson 4:366, 1971; Scheffler and Lehnhardt, Eur Radiol 13:2409, 2003. All tensors
    broadcast; the arithmetic is in float64.

    Parameters
    ----------
    t1_s, t2_s
        Relaxation times in seconds.
    density
        Equilibrium magnetisation.
    flip_rad
        Flip angle in radians.
    tr_s
        Repetition time in seconds.
    off_resonance_hz
        Frequency from that of the pulses, in Hz.
    te_s
        Echo time in seconds; half of TR by default.

    Returns
    -------
    complex128, in the unit of the density.
    """
    te_s = tr_s / 2 if te_s is None else te_s
    t1, t2, density = t1_s.double(), t2_s.double(), density.double()
    flip = torch.as_tensor(flip_rad, dtype=torch.float64, device=t1.device)
    turn = 2 * math.pi * torch.as_tensor(off_resonance_hz, dtype=torch.float64, device=t1.device)
    e1, e2 = torch.exp(-tr_s / t1), torch.exp(-tr_s / t2)
    cosine = torch.cos(flip)
    theta = turn * tr_s + math.pi  # the pulses' alternation is half a turn a TR
    cos_theta, sin_theta = torch.cos(theta), torch.sin(theta)
    below = (1 - e1 * cosine) * (1 - e2 * cos_theta) - e2 * (e1 - cosine) * (e2 - cos_theta)
    size = density * -torch.expm1(-tr_s / t1) * torch.sin(flip) / below * torch.exp(-te_s / t2)
    after_pulse = torch.complex(size * (1 - e2 * cos_theta), size * e2 * sin_theta)
    return after_pulse * torch.exp(1j * (turn * te_s))


def tissue_signals(
    sequence: BalancedSequence,
    off_resonance_hz: Tensor | None = None,
    b1: Tensor | None = None,
    *,
    tissues: dict[Tissue, TissueProperties] | None = None,
) -> Tensor:
    """Return the signal of a pixel full of each tissue, at rest.

    Parameters
    ----------
    sequence
        Flip angle, TR, TE and field strength.
    off_resonance_hz
        (...) in Hz, of water; fat is at its chemical shift from it. On resonance by default.
    b1
        (...) transmit field over its nominal value; 1 by default.
    tissues
        Properties to use instead of :data:`TISSUES` at the sequence's field strength, for a patient of other values.

    Returns
    -------
    (N_TISSUES, ...) complex64; (N_TISSUES,) without maps.
    """
    if off_resonance_hz is not None and b1 is not None and off_resonance_hz.shape != b1.shape:
        raise ShapeError("b1", b1, f"that of the off-resonance, {tuple(off_resonance_hz.shape)}")
    like = off_resonance_hz if off_resonance_hz is not None else b1
    device = torch.device("cpu") if like is None else like.device
    shape = () if like is None else tuple(like.shape)
    frequency = torch.zeros(shape, device=device) if off_resonance_hz is None else off_resonance_hz
    flip = sequence.flip_rad * (torch.ones(shape, device=device) if b1 is None else b1)
    table = tissues or TISSUES[sequence.field_t]
    fat = table[Tissue.FAT]
    signals = torch.zeros((N_TISSUES, *shape), dtype=torch.complex64, device=device)

    def signal(t1_s: float, t2_s: float, shift_hz: float) -> Tensor:
        t1, t2, one = (torch.tensor(value, dtype=torch.float64, device=device) for value in (t1_s, t2_s, 1.0))
        return steady_state(t1, t2, one, flip, sequence.tr_s, frequency + shift_hz, te_s=sequence.echo_s)

    fatty = signal(fat.t1_s, fat.t2_s, sequence.fat_hz)
    for tissue, properties in table.items():
        total = properties.density * properties.fat_share * fatty
        if properties.density > 0 and properties.fat_share < 1:
            watery = signal(properties.t1_s, properties.t2_s, 0.0)
            total = total + properties.density * (1 - properties.fat_share) * watery
        signals[tissue] = total.to(torch.complex64)
    return signals


def on_resonance_signals(sequence: BalancedSequence | None = None) -> Tensor:
    """Return (N_TISSUES,) complex64 signals on resonance, arterial blood 1; by default of a usual sequence at 1.5 T."""
    signals = tissue_signals(sequence or BalancedSequence())
    return signals / signals[Tissue.ARTERIAL_BLOOD]


def inflow_factor(
    sequence: BalancedSequence,
    speed_mm_s: Tensor,
    thickness_mm: float,
    *,
    tissue: Tissue = Tissue.ARTERIAL_BLOOD,
    fresh: float = 0.3,
) -> Tensor:
    """Return how much brighter blood is that flows through the slice than blood at rest. Phenomenological.

    Blood that enters unsaturated starts from sin(flip / 2) of its equilibrium and decays to the steady state by
    E1 cos^2(flip / 2) + E2 sin^2(flip / 2) a pulse (Scheffler, MRM 49:781, 2003); it stays for thickness over speed.
    The mean over its stay counts for a share ``fresh`` of the blood: the rest was excited before, in neighbouring
    slices' profiles or while it circled in the chamber. The share is a free parameter, not a measured one.

    Parameters
    ----------
    sequence
        Flip angle, TR and field strength.
    speed_mm_s
        (...) speed through the slice, in mm/s; its sign does not matter.
    thickness_mm
        Slice thickness in mm.
    tissue
        Which blood.
    fresh
        Share of the inflowing blood that has seen no pulse, from 0 to 1.

    Returns
    -------
    (...) float32, at least 1; 1 at rest.
    """
    if not thickness_mm > 0 or not 0 <= fresh <= 1:
        raise InputError(f"a slice of {thickness_mm} mm with a fresh share of {fresh}", expected="positive; 0 to 1")
    properties = TISSUES[sequence.field_t][tissue]
    t1, t2, one = (torch.tensor(v, dtype=torch.float64) for v in (properties.t1_s, properties.t2_s, 1.0))
    rest = float(steady_state(t1, t2, one, sequence.flip_rad, sequence.tr_s, te_s=0.0).abs())
    half = sequence.flip_rad / 2
    e1, e2 = math.exp(-sequence.tr_s / properties.t1_s), math.exp(-sequence.tr_s / properties.t2_s)
    rate = -math.log(e1 * math.cos(half) ** 2 + e2 * math.sin(half) ** 2)
    pulses = thickness_mm / (speed_mm_s.double().abs().clamp_min(1e-3) * sequence.tr_s)
    # The mean of exp(-rate n) over the stay; never below the steady state, where large flips start lower than it.
    mean = -torch.expm1(-rate * pulses) / (rate * pulses)
    return (1 + fresh * max(math.sin(half) / rest - 1, 0.0) * mean).float()


def jet_factor(speed_mm_s: Tensor, *, dark_mm_s: float = 2000.0) -> Tensor:
    """Return what is left of the signal of blood in a jet: ``exp(-(speed / dark)^2)``. Phenomenological.

    Turbulence and acceleration in a jet dephase the spins of a voxel; the higher moments of the gradients that would
    say by how much are not modelled.

    Parameters
    ----------
    speed_mm_s
        (...) speed of the blood in mm/s.
    dark_mm_s
        Speed at which 1/e is left, in mm/s.

    Returns
    -------
    (...) float32 in [0, 1].
    """
    if not dark_mm_s > 0:
        raise InputError(f"jets go dark at {dark_mm_s} mm/s", expected="a positive speed")
    return torch.exp(-((speed_mm_s.float() / dark_mm_s) ** 2))


def transmit_map(
    x_mm: Tensor, y_mm: Tensor, *, field_t: float = 1.5, wavelength_mm: float | None = None, tilt: float = 0.0
) -> Tensor:
    """Return a relative transmit field: a broad standing wave in the chest. Phenomenological.

    ``cos(2 pi r / wavelength)`` about the middle, softened to a third of its depth as the body is a poor resonator, and
    a gradient from right to left. With wavelengths of tissue (0.6 m at 1.5 T, 0.3 m at 3 T; Collins and Smith, MRM
    45:684, 2001) it varies by some 10 % and 30 % over a chest, in the range of Sung and Nayak, JMRI 27:643, 2008.

    Parameters
    ----------
    x_mm, y_mm
        Position from the middle of the field of view, in mm; they broadcast.
    field_t
        Field strength in tesla, for the wavelength.
    wavelength_mm
        In mm, instead of the field strength's own.
    tilt
        Change from the middle to 100 mm to the left, as a share.

    Returns
    -------
    Their broadcast shape, float32; 1 in the middle.
    """
    length = wavelength_mm if wavelength_mm is not None else 900.0 / field_t
    if not length > 0:
        raise InputError(f"a wavelength of {length} mm", expected="a positive number")
    r = torch.sqrt(x_mm.float() ** 2 + y_mm.float() ** 2)
    wave = 1 - (1 - torch.cos((2 * math.pi / length * r).clamp_max(math.pi))) / 6
    return wave * (1 + tilt * x_mm.float() / 100)
