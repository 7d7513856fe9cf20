"""How different makers' scanners image a heart: sequence, grid and look, as presets to be chosen by name.

They are styles, typical of published protocols, and not any product's settings: a radial scan has a square field of
view where a Cartesian protocol has a rectangular one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.errors import UsageError
from kspace.scan import Geometry
from simulate.signal import BalancedSequence


@dataclass(frozen=True)
class Vendor:
    """One style of imaging.

    Parameters
    ----------
    name
        By which it is chosen.
    field_t
        Field strength in tesla.
    flip_rad
        Flip angle in radians.
    tr_s, te_s
        Repetition and echo time in seconds.
    field_of_view_mm
        Side of the square field of view, in mm.
    matrix
        Pixels along it.
    slice_thickness_mm, slice_gap_mm
        Of the short-axis stack, in mm.
    n_slices
        Of the stack.
    edge_gain
        Gain of the image filter at the edge of k-space, see :func:`sharpness_filter`; 1 for none.
    n_coils
        Receive channels of the usual array.
    source
        Where the numbers are from.

    Raises
    ------
    UsageError
        When a number is out of range.
    """

    name: str
    field_t: float
    flip_rad: float
    tr_s: float
    te_s: float
    field_of_view_mm: float
    matrix: int
    slice_thickness_mm: float
    slice_gap_mm: float
    n_slices: int
    edge_gain: float
    n_coils: int
    source: str = ""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("field_of_view_mm", 100, 600),
            ("matrix", 8, 1024),
            ("slice_thickness_mm", 1, 20),
            ("slice_gap_mm", 0, 20),
            ("n_slices", 1, 64),
            ("edge_gain", 0.05, 3),
            ("n_coils", 1, 64),
        ):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"the preset's {name} is {getattr(self, name)}", expected=f"{low} to {high}")
        _ = self.sequence  # checks itself

    @property
    def sequence(self) -> BalancedSequence:
        """The bSSFP sequence."""
        return BalancedSequence(self.field_t, self.flip_rad, self.tr_s, self.te_s)

    @property
    def pixel_mm(self) -> float:
        """In-plane size of a reconstructed pixel in mm."""
        return self.field_of_view_mm / self.matrix

    @property
    def geometry(self) -> Geometry:
        """The reconstruction grid of the stack, axis-aligned about the origin."""
        return Geometry.from_spacing(
            (self.n_slices, self.matrix, self.matrix),
            (self.slice_thickness_mm + self.slice_gap_mm, self.pixel_mm, self.pixel_mm),
            slice_thickness_mm=self.slice_thickness_mm,
        )


def _degrees(angle: float) -> float:
    return math.radians(angle)


VENDORS: dict[str, Vendor] = {
    preset.name: preset
    for preset in (
        Vendor("siemens", 1.5, _degrees(80), 2.6e-3, 1.1e-3, 380.0, 208, 8.0, 2.0, 10, 1.0, 18,
               "UK Biobank: Petersen et al., JCMR 18:8, 2016"),
        Vendor("siemens-3t", 3.0, _degrees(50), 3.1e-3, 1.5e-3, 360.0, 224, 8.0, 2.0, 10, 1.0, 32,
               "usual at 3 T; flip angle as power deposition allows"),
        Vendor("ge", 1.5, _degrees(45), 3.4e-3, 1.5e-3, 360.0, 192, 8.0, 0.0, 11, 0.7, 8,
               "like Sunnybrook: Radau et al., MIDAS J, 2009, with a Fermi-like filter"),
        Vendor("philips", 1.5, _degrees(60), 2.8e-3, 1.4e-3, 350.0, 192, 8.0, 2.0, 12, 1.15, 16,
               "like M&Ms: Campello et al., IEEE TMI 40:3543, 2021, mildly sharpened"),
        Vendor("philips-3t", 3.0, _degrees(45), 2.9e-3, 1.45e-3, 350.0, 208, 8.0, 2.0, 12, 1.15, 32,
               "as philips, at 3 T"),
    )
}  # fmt: skip
"""Presets by name."""


def vendor(name: str) -> Vendor:
    """Return a preset by its name.

    Raises
    ------
    UsageError
        When there is none of that name.
    """
    if name not in VENDORS:
        raise UsageError(f"there is no vendor style {name!r}", expected=f"one of {', '.join(VENDORS)}")
    return VENDORS[name]


def sharpness_filter(matrix: tuple[int, int], edge_gain: float) -> Tensor:
    """Return the gain of an image filter over k-space: 1 at the centre, ``edge_gain`` at the edge of the disc.

    ``edge_gain^((|k| / 0.5)^2)``, a Gaussian where it smooths; beyond the disc it stays at the edge's gain.

    Parameters
    ----------
    matrix
        (rows, columns); k runs from -0.5 to 0.5 cycles per pixel with its zero at ``N // 2``.
    edge_gain
        Below 1 smooths, above 1 sharpens.

    Returns
    -------
    (rows, columns) float32.
    """
    if not edge_gain > 0:
        raise UsageError(f"a gain of {edge_gain} at the edge", expected="a positive number")
    ky, kx = ((torch.arange(n) - n // 2) / n for n in matrix)
    squared = ((ky[:, None] ** 2 + kx**2) / 0.25).clamp_max(1.0)
    return torch.exp(math.log(edge_gain) * squared)
