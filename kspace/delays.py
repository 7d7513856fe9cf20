"""Gradient delays: where radial spokes truly lie.

A spoke of unit direction n is displaced by S n samples of its readout, S = [[dx, dxy], [dxy, dy]] (Block and Uecker,
ISMRM 2011; Rosenzweig, Holme and Uecker, MRM 81:1898, 2019). A readout whose centre is off by a common amount is the
case dx = dy. :mod:`kspace.delay_estimate` finds them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError, UsageError
from kspace.scan import RadialScan

LARGEST = 8.0
"""Samples beyond which a displacement is no gradient delay."""


@dataclass(frozen=True)
class GradientDelays:
    """Displacement of spokes along both axes and its cross term, in samples of the readout.

    Parameters
    ----------
    x, y, xy
        The entries of S: a spoke of direction (nx, ny) lies (x nx + xy ny, xy nx + y ny) samples beyond where it is
        reported to be, as :func:`simulate.lines.spoke_lines` has it.

    Raises
    ------
    UsageError
        When one is not finite or larger than :data:`LARGEST`.
    """

    x: float = 0.0
    y: float = 0.0
    xy: float = 0.0

    def __post_init__(self) -> None:
        if not all(abs(value) <= LARGEST for value in (self.x, self.y, self.xy)):
            raise UsageError(
                f"gradient delays of {self.x:g}, {self.y:g}, {self.xy:g} samples", expected=f"within {LARGEST:g}"
            )

    def __bool__(self) -> bool:
        return any((self.x, self.y, self.xy))

    def __str__(self) -> str:
        return f"{self.x:.3g},{self.y:.3g},{self.xy:.3g}"

    @property
    def largest(self) -> float:
        """Largest displacement of any spoke, in samples."""
        matrix = torch.tensor([[self.x, self.xy], [self.xy, self.y]], dtype=torch.float64)
        return float(torch.linalg.matrix_norm(matrix, ord=2))

    def apply(self, positions: Tensor) -> Tensor:
        """Return where spokes reported at (spoke, readout, 2) positions truly lie; order (ky, kx), any unit."""
        direction, step = spoke_steps(positions)
        moved = positions.double() + displacement(self._vector(positions), direction, step)[:, None]
        return moved.to(positions.dtype)

    def _vector(self, like: Tensor) -> Tensor:
        return torch.tensor([self.x, self.y, self.xy], dtype=torch.float64, device=like.device)


NO_DELAYS = GradientDelays()


def parse_delays(text: str) -> GradientDelays | Literal["auto"]:
    """Return what ``auto``, ``off`` or ``dx,dy,dxy`` stands for.

    Raises
    ------
    UsageError
        When the text is none of these.
    """
    if text == "auto":
        return "auto"
    if text == "off":
        return NO_DELAYS
    try:
        x, y, xy = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--delays {text!r}", expected="auto, off, or three numbers of samples: dx,dy,dxy") from None
    return GradientDelays(x, y, xy)


def correct(scan: RadialScan, delays: GradientDelays) -> RadialScan:
    """Put spokes where they truly lie.

    What a displacement pushes out of the band of the grid would wrap around: as many samples as the largest
    displacement are left out at either end of every readout, whatever its direction, so that batches stay alike.

    Raises
    ------
    InputError
        When the readout is shorter than that.
    """
    if not delays or not scan.n_spokes:
        return scan
    lost = math.ceil(delays.largest - 1e-9)
    if scan.n_readout - 2 * lost < 2:
        raise InputError(f"delays of {delays} samples on readouts of {scan.n_readout}", expected="longer readouts")
    kept = slice(lost, scan.n_readout - lost)
    return replace(scan, samples=scan.samples[..., kept], positions=delays.apply(scan.positions)[:, kept])


def spoke_steps(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return (spoke, 2) unit directions and (spoke,) distances of neighbouring samples of (spoke, readout, 2)."""
    if positions.ndim != 3 or positions.shape[-1] != 2 or positions.shape[-2] < 2:
        raise ShapeError("positions", positions, "(spoke, readout, 2) with at least two samples on a spoke")
    span = (positions[:, -1] - positions[:, 0]).double()
    length = torch.linalg.vector_norm(span, dim=-1)
    if not bool((length > 0).all()):
        raise InputError("a spoke has no length", expected="samples at different positions")
    return span / length[:, None], length / (positions.shape[1] - 1)


def displacements_by(direction: Tensor, step: Tensor) -> Tensor:
    """Return (3, spoke, 2), order (ky, kx): how a spoke moves with x, y and xy."""
    ny, nx = direction[:, 0], direction[:, 1]
    none = torch.zeros_like(nx)
    along = torch.stack((none, nx, ny, none, nx, ny)).reshape(3, 2, -1)
    return along.transpose(1, 2) * step[:, None]


def displacement(delays: Tensor, direction: Tensor, step: Tensor) -> Tensor:
    """Return (spoke, 2), order (ky, kx): how far (3,) delays x, y, xy move spokes, in the unit of the steps."""
    return torch.einsum("d,dsk->sk", delays, displacements_by(direction, step))
