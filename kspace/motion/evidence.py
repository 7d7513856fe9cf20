"""What small images that a spoke had no part in say of it: how well it fits, in which frame, and moved how far.

All that is asked later follows from a few sums per spoke and ring of k-space, so that evidence of a batch is gathered
once, added to that of earlier batches, and weighed again whenever more is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from kspace.errors import ShapeError
from kspace.nufft import Nufft
from kspace.scan import RadialScan
from kspace.trajectory import spoke_angles

RINGS = (0.0, 0.03, 0.07, 0.12, 0.18, 0.25, 0.34, 0.51)
"""Edges in cycles per pixel of the small images."""
N_RINGS = len(RINGS) - 1
MOVES = ("shift_y", "shift_x", "turn", "heart_y", "heart_x")
"""Small moves in the plane: of the body (pixels of the small images, radians) and of the heart alone."""
_RANK = 6
_AT_ONCE = 400  # spokes, to spare memory


@dataclass(frozen=True)
class Evidence:
    """Sums over the samples of each spoke, in rings of k-space.

    Parameters
    ----------
    misfit
        (spoke, frame, ring): squared distance from what the images foresee in each frame, over all coils.
    by_coil
        (spoke, coil): the same in the spoke's own frame, over all rings.
    own
        (spoke, ring): the same over all coils.
    curvature, score
        (spoke, ring, move, move) and (spoke, ring, move): the normal equations of :data:`MOVES` in the own frame.
    foreseen
        (spoke, ring): energy of what is foreseen in the own frame.
    energy
        (spoke, ring): energy of the samples.
    peak
        (spoke,): the largest squared deviation of one sample, over all coils, from the own frame.
    centre
        (spoke,) complex: the sample next to the centre of k-space over what is foreseen there.
    counts
        (spoke, ring): number of samples, coils included.
    spark
        (spoke,): see :func:`sparks`.
    angle
        (spoke,): direction in radians.
    known
        (spoke,) bool: whether images that the spoke had no part in were there to foresee it.
    """

    misfit: Tensor
    by_coil: Tensor
    own: Tensor
    curvature: Tensor
    score: Tensor
    foreseen: Tensor
    energy: Tensor
    peak: Tensor
    centre: Tensor
    counts: Tensor
    spark: Tensor
    angle: Tensor
    known: Tensor

    def __len__(self) -> int:
        return len(self.peak)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Join the evidence of batches in the order given."""
        return cls(**{e.name: torch.cat([getattr(part, e.name) for part in parts]) for e in fields(cls)})

    def at(self, spokes: Tensor) -> Self:
        """Return the evidence of some spokes."""
        return type(self)(**{e.name: getattr(self, e.name)[spokes] for e in fields(self)})

    def replaced(self, spokes: Tensor, by: Self) -> Self:
        """Return the evidence with that of some spokes (indices) exchanged."""
        values = {}
        for entry in fields(self):
            whole = getattr(self, entry.name).clone()
            whole[spokes] = getattr(by, entry.name)
            values[entry.name] = whole
        return type(self)(**values)


def sparks(spokes: RadialScan) -> Tensor:
    """Return (spoke,), by how much the largest sample of a whole spoke exceeds what is usual at its place on a spoke.

    A ratio of powers, over all coils. The usual is the median over these spokes, at least that of the quietest tenth
    of places; half a batch of them tells it well enough.
    """
    power = spokes.samples.abs().square().sum(1)
    usual = power.median(0).values
    usual = usual.clamp_min(float(usual.quantile(0.1).clamp_min(1e-30)))
    return (power / usual).amax(1)


def gather(
    spokes: RadialScan, frame: Tensor, image: Tensor | None, maps: Tensor, *, n_frames: int, spark: Tensor
) -> Evidence:
    """Gather the evidence of spokes.

    Parameters
    ----------
    spokes
        Short ones (:mod:`kspace.motion.navigator`).
    frame
        (spoke,) int64, the cardiac phase of each.
    image
        (frame, y, x) complex, small images that these spokes had no part in; None where there are none yet.
    maps
        (coil, y, x) complex.
    n_frames
        Number of frames.
    spark
        (spoke,) :func:`sparks` of the whole spokes.
    """
    if frame.shape != (spokes.n_spokes,):
        raise ShapeError("the frames of spokes", frame, f"({spokes.n_spokes},)")
    known = image is not None
    images = torch.zeros((n_frames, *spokes.matrix), dtype=maps.dtype) if image is None else image
    shown = _Shown(images, maps)
    parts = [
        _gather(spokes.select(slice(i, i + _AT_ONCE)), frame[i : i + _AT_ONCE], spark[i : i + _AT_ONCE], shown, known)
        for i in range(0, spokes.n_spokes, _AT_ONCE)
    ]
    return Evidence.join(parts)


class _Shown:
    """Images as a few spatial components, and what moves of them look like."""

    def __init__(self, images: Tensor, maps: Tensor) -> None:
        flat = images.reshape(len(images), -1)
        _, vectors = torch.linalg.eigh(flat @ flat.mH)
        rank = min(_RANK, len(images))
        self.mixing = vectors[:, -rank:]  # (frame, component)
        components = (self.mixing.mH @ flat).reshape(rank, *images.shape[1:])
        mean = images.mean(0)
        beating = images - mean
        strength = beating.abs().square().mean(0).sqrt()
        heart = _smooth((_smooth(strength) > 0.35 * _smooth(strength).amax().clamp_min(1e-30)).float())
        rows, columns = mean.shape
        y = (torch.arange(rows) - rows // 2).float()[:, None]
        x = (torch.arange(columns) - columns // 2).float()[None]
        dy, dx = _gradient(mean)
        # A turn from +x to +y about the origin moves what is at r to R r.
        turn = y * dx - x * dy
        stack = torch.cat((components, turn[None], (mean * heart)[None]))
        self.rank = rank
        self.coil_images = (stack[:, None] * maps).reshape(-1, rows, columns)
        self.n_coils = len(maps)


def _gather(spokes: RadialScan, frame: Tensor, spark: Tensor, shown: _Shown, known: bool) -> Evidence:
    n_spokes, n_coils, n_readout = spokes.samples.shape
    rank = shown.rank
    plan = Nufft(
        spokes.positions.reshape(-1, 2), spokes.matrix, n_transforms=len(shown.coil_images), accuracy="fast",
        dtype=torch.complex64, n_threads=1,
    )  # fmt: skip
    values = plan.forward(shown.coil_images).reshape(rank + 2, n_coils, n_spokes, n_readout).permute(2, 0, 1, 3)
    parts, turn, heart = values[:, :rank], values[:, rank], values[:, rank + 1]
    mixing = shown.mixing.to(parts)
    own = torch.einsum("sr,srck->sck", mixing[frame], parts)
    radius = torch.linalg.vector_norm(spokes.positions, dim=-1)
    # Delays move spokes by less than rings are wide: a ring is the same samples of every spoke.
    ring = torch.bucketize(radius.median(0).values, torch.tensor(RINGS[1:-1]))
    members = [torch.nonzero(ring == number)[:, 0] for number in range(N_RINGS)]
    residual = spokes.samples - own

    def rings(power: Tensor) -> Tensor:
        """Sum (spoke, coil, readout) over coils and within rings."""
        return torch.zeros((n_spokes, N_RINGS)).index_add_(1, ring, power.sum(1))

    ky, kx = (2 * math.pi * spokes.positions[..., axis][:, None] for axis in (0, 1))
    moves = torch.stack((-1j * ky * own, -1j * kx * own, turn, -1j * ky * heart, -1j * kx * heart), 1)
    grams, rights, curvature, score = [], [], [], []
    for inside in members:
        # |s - V p|^2 = |s|^2 - 2 Re <V p, s> + <V p, V p>, for all frames from a small Gram matrix.
        flat = parts[..., inside].reshape(n_spokes, rank, -1)
        grams.append(flat.conj() @ flat.transpose(1, 2))
        rights.append((flat.conj() @ spokes.samples[..., inside].reshape(n_spokes, -1, 1))[..., 0])
        moved = moves[..., inside].reshape(n_spokes, len(MOVES), -1)
        curvature.append((moved.conj() @ moved.transpose(1, 2)).real)
        score.append((moved.conj() @ residual[..., inside].reshape(n_spokes, -1, 1))[..., 0].real)
    gram, right = torch.stack(grams, 1), torch.stack(rights, 1)  # (spoke, ring, r, r), (spoke, ring, r)
    energy = rings(spokes.samples.abs().square())
    pairs = (mixing.conj()[:, :, None] * mixing[:, None]).reshape(len(mixing), -1)
    quadratic = (pairs @ gram.reshape(n_spokes * N_RINGS, -1).T).real.reshape(-1, n_spokes, N_RINGS).permute(1, 0, 2)
    linear = (mixing.conj() @ right.reshape(n_spokes * N_RINGS, -1).T).real
    linear = linear.reshape(-1, n_spokes, N_RINGS).permute(1, 0, 2)
    misfit = (energy[:, None] - 2 * linear + quadratic).clamp_min(0)
    squares = residual.abs().square()
    middle = radius.argmin(1)
    at = middle[:, None, None].expand(-1, n_coils, 1)
    measured, said = spokes.samples.gather(2, at)[..., 0], own.gather(2, at)[..., 0]
    centre = (said.conj() * measured).sum(1) / said.abs().square().sum(1).clamp_min(1e-30)
    if not known:
        centre = torch.ones_like(centre)
    counts = torch.tensor([float(len(inside) * n_coils) for inside in members])
    return Evidence(
        misfit=misfit,
        by_coil=squares.sum(2),
        own=rings(squares),
        curvature=torch.stack(curvature, 1),
        score=torch.stack(score, 1),
        foreseen=rings(own.abs().square()),
        energy=energy,
        peak=squares.sum(1).amax(1),
        centre=centre,
        counts=counts.expand(n_spokes, N_RINGS),
        spark=spark,
        angle=spoke_angles(spokes.positions),
        known=torch.full((n_spokes,), known),
    )


def _smooth(values: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(max_pool2d(values[None], 3, 1, 1), 3, 1, 1, count_include_pad=False)[0]


def _gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives along y and x by the spectrum."""
    rows, columns = image.shape
    spectrum = torch.fft.fft2(image)
    ky = 2j * math.pi * torch.fft.fftfreq(rows)[:, None]
    kx = 2j * math.pi * torch.fft.fftfreq(columns)[None]
    return torch.fft.ifft2(ky * spectrum), torch.fft.ifft2(kx * spectrum)
