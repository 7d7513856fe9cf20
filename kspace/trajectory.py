"""Where spokes and lines lie in k-space, and how much of it each sample stands for.

Positions are in cycles per pixel, order (ky, kx), within [-0.5, 0.5]. A spoke at angle 0 runs along +kx, at pi/2 along
+ky. A sample's density compensation is the area of k-space, in (cycles per pixel) squared, that it stands for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError
from kspace.nufft import Nufft

GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2
"""111.246 degrees in radians: half a turn divided by the golden ratio (Winkelmann et al., IEEE TMI 26:68, 2007)."""


def golden_angles(n_spokes: int, *, start: int = 0, order: int = 1) -> Tensor:
    """Return the angles of successive golden-angle spokes.

    Parameters
    ----------
    n_spokes
        Number of spokes.
    start
        Index of the first spoke, so that a stream can be made piece by piece.
    order
        1 for the golden angle (111.246 degrees), higher for the tiny golden angles pi / (phi + order - 1) of Wundrak et
        al., IEEE TMI 34:1262, 2015 (order 7: 23.628 degrees), whose small steps spare bSSFP eddy-current artefacts.

    Returns
    -------
    (spoke,) float64, radians in [0, 2 pi). A full turn is kept because a spoke has a direction.
    """
    if n_spokes < 0 or start < 0:
        raise InputError(f"{n_spokes} spokes from number {start}", expected="counts that are not negative")
    if order < 1:
        raise InputError(f"the golden angle's order is {order}", expected="1 (golden) or more (tiny golden)")
    golden_ratio = (1 + math.sqrt(5)) / 2
    step = math.pi / (golden_ratio + order - 1)
    return torch.remainder(torch.arange(start, start + n_spokes, dtype=torch.float64) * step, 2 * math.pi)


def uniform_angles(n_spokes: int) -> Tensor:
    """Return (spoke,) float64 angles in radians that divide half a turn evenly."""
    if n_spokes < 1:
        raise InputError(f"{n_spokes} spokes", expected="at least one")
    return torch.arange(n_spokes, dtype=torch.float64) * (math.pi / n_spokes)


def readout_radii(n_readout: int) -> Tensor:
    """Return the (readout,) signed distances from the centre in cycles per pixel: -0.5 up to 0.5 - 1 / n_readout."""
    if n_readout < 1:
        raise InputError(f"a readout of {n_readout} samples", expected="at least one")
    return (torch.arange(n_readout, dtype=torch.float64) - n_readout // 2) / n_readout


def radial_positions(angles: Tensor, n_readout: int) -> Tensor:
    """Place samples on spokes.

    Parameters
    ----------
    angles
        (..., spoke) in radians.
    n_readout
        Samples on a spoke: the reconstruction matrix times the readout oversampling. A spoke always spans the whole
        band of the grid, and oversampling makes its steps finer.

    Returns
    -------
    (..., spoke, readout, 2) float32, order (ky, kx), cycles per pixel.
    """
    directions = torch.stack((torch.sin(angles.double()), torch.cos(angles.double())), dim=-1)
    radii = readout_radii(n_readout).to(angles.device)
    return (directions[..., None, :] * radii[:, None]).float()


def cartesian_positions(lines: Tensor, n_lines: int, n_readout: int) -> Tensor:
    """Place samples on Cartesian lines.

    Parameters
    ----------
    lines
        (..., line) integers from 0 to ``n_lines - 1``; the line through the centre is ``n_lines // 2``.
    n_lines, n_readout
        Rows of the full k-space, and samples on a line.

    Returns
    -------
    (..., line, readout, 2) float32, order (ky, kx), cycles per pixel.
    """
    if lines.numel() and not 0 <= int(lines.min()) <= int(lines.max()) < n_lines:
        raise InputError(f"lines run from {int(lines.min())} to {int(lines.max())}", expected=f"0 to {n_lines - 1}")
    ky = (lines.double() - n_lines // 2) / n_lines
    kx = readout_radii(n_readout).to(lines.device)
    shape = (*lines.shape, n_readout)
    return torch.stack((ky[..., None].expand(shape), kx.expand(shape)), dim=-1).float()


def spoke_angles(positions: Tensor) -> Tensor:
    """Return the (..., spoke) direction of each spoke in radians, in (-pi, pi], from its first to its last sample."""
    if positions.ndim < 3 or positions.shape[-1] != 2 or positions.shape[-2] < 2:
        raise ShapeError("positions", positions, "(..., spoke, readout, 2) with at least two samples on a spoke")
    span = (positions[..., -1, :] - positions[..., 0, :]).double()
    return torch.atan2(span[..., 0], span[..., 1])


def ramp_weights(positions: Tensor, *, n_spokes: int | None = None) -> Tensor:
    """Return the area of k-space that each sample of evenly spread spokes stands for.

    A spoke's samples own rings of width dk, and each of the ``n_spokes`` spokes a wedge of pi / n_spokes on both of
    its arms. The area of the cell around a sample at signed radius r is (pi / n_spokes) times the integral of |r'| from
    r - dk/2 to r + dk/2: the ramp |r| dk away from the centre, and at it a small disc rather than nothing. Readouts
    that miss the centre by a gradient delay are weighted by where they really were.

    Parameters
    ----------
    positions
        (..., spoke, readout, 2), cycles per pixel.
    n_spokes
        How many spokes share the plane; by default those given. With 1, each spoke is weighted as if it were alone:
        such weights add up over batches of a stream, and a division by the count comes last.

    Returns
    -------
    (..., spoke, readout) float32, (cycles per pixel)^2. All spokes together sum to the area of the disc, pi / 4 at full
    resolution.
    """
    if positions.ndim < 3 or positions.shape[-1] != 2:
        raise ShapeError("positions", positions, "(..., spoke, readout, 2)")
    n_readout = positions.shape[-2]
    if n_readout < 2:
        raise ShapeError("positions", positions, "at least two samples on a spoke")
    shared = positions.shape[-3] if n_spokes is None else n_spokes
    k = positions.double()
    span = k[..., -1, :] - k[..., 0, :]
    length = torch.linalg.vector_norm(span, dim=-1, keepdim=True)
    if k.numel() and not bool((length > 0).all()):
        raise InputError("a spoke has no length", expected="samples at different positions")
    step = length / (n_readout - 1)
    # The signed radius along the spoke's own direction, and the distance at which it passes the centre.
    radius = (k * (span / length)[..., None, :]).sum(-1)
    distance = torch.linalg.vector_norm(k, dim=-1)
    cell = torch.where(radius.abs() >= step / 2, distance * step, radius**2 + step**2 / 4)
    return (math.pi / max(shared, 1) * cell).to(positions.dtype)


def pipe_menon_weights(positions: Tensor, matrix: tuple[int, int], *, n_iterations: int = 20) -> Tensor:
    """Return the area of each sample, found by iteration; for trajectories of any shape.

    The fixed point of w <- w / (K w), where K spreads every sample with the transform of the autocorrelation of the
    field of view: a kernel that is positive, integrates to one, and ends where samples stop interfering in the image
    (Pipe and Menon, MRM 41:179, 1999; kernel after Johnson and Pipe, MRM 61:439, 2009).

    Parameters
    ----------
    positions
        (spoke, readout, 2), cycles per pixel; one frame.
    matrix
        (rows, columns) of the reconstruction grid.
    n_iterations
        Number of iterations.

    Returns
    -------
    (spoke, readout) float32, (cycles per pixel)^2.
    """
    if positions.ndim != 3 or positions.shape[-1] != 2:
        raise ShapeError("positions", positions, "(spoke, readout, 2)")
    rows, columns = matrix
    wide = (2 * rows, 2 * columns)
    nufft = Nufft(positions.reshape(-1, 2), wide, accuracy="standard", dtype=torch.complex64)
    triangle = [
        1 - (torch.arange(2 * n, dtype=torch.float32, device=positions.device) - n).abs() / n for n in (rows, columns)
    ]
    window = triangle[0][:, None] * triangle[1] * (4 * rows * columns)
    weights = torch.full((1, positions.shape[0] * positions.shape[1]), 1.0, device=positions.device)
    weights /= weights.sum()
    for _ in range(n_iterations):
        spread = nufft.forward(window * nufft.adjoint(weights.to(torch.complex64))).real
        weights = weights / spread.clamp_min(1e-12)
    return weights.reshape(positions.shape[:-1])
