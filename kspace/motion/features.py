"""Numbers about each spoke that should be unremarkable: physics that needs no training.

What is usual is read off the scan itself: the lower third of its own misfits, ring by ring and frame by frame, so that
a scan of which half is spoilt does not take the spoilt half for usual. Motion lasts longer than a spoke, and evidence
is additive: the same questions are asked of a spoke alone and of its neighbours in time together.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kspace.errors import InputError
from kspace.gating import beat_of
from kspace.motion.evidence import MOVES, N_RINGS, Evidence

WINDOWS = (1, 9, 33, 99)
"""Spokes whose evidence is taken together."""
_MOVE_WINDOWS = WINDOWS[1:]
_LINEAR_RINGS = 4  # inside them a move by a pixel is still small
_USUAL = 0.35  # quantile
_BEGINNING = 360  # spokes: about a second
_SAME_PHASE = 0.06  # of a beat
_ALIKE = 8  # neighbours in angle on either side
_FEW = 8.0  # spokes of a frame weigh as much as the scan's own mean

NAMES = (
    "misfit_low", "misfit_middle", "misfit_high", "misfit_coil", "peak", "spark", "energy", "centre_size",
    "centre_phase", *(f"misfit_{n}" for n in _MOVE_WINDOWS), *(f"frame_gain_{n}" for n in WINDOWS),
    *(f"frame_offset_{n}" for n in WINDOWS), *(f"{name}_{n}" for n in _MOVE_WINDOWS for name in
    ("shift", "turn", "heart", "body_gain", "heart_gain")), "beat", "beat_before", "spokes", "known",
)  # fmt: skip


def spoke_features(evidence: Evidence, frame: Tensor, time_s: Tensor, ecg_s: Tensor, *, noise_std: float) -> Tensor:
    """Return the (spoke, feature) float32 of :data:`NAMES`, each about 0 where nothing is wrong and within 8 of it.

    Parameters
    ----------
    evidence
        Of all spokes of a slice so far, in the order of time.
    frame
        (spoke,) int64, their frames.
    time_s
        (spoke,) instants in seconds.
    ecg_s
        (beat,) R waves; may be empty.
    noise_std
        Of one sample.
    """
    if len(evidence) == 0 or frame.shape != (len(evidence),):
        raise InputError(f"frames of {tuple(frame.shape)} for {len(evidence)} spokes", expected="one frame a spoke")
    known = evidence.known
    usual = usual_misfit(evidence, frame, noise_std)  # (spoke, ring)
    weight = torch.where(known[:, None], 1 / usual, torch.zeros_like(usual))
    ratio = torch.where(known[:, None], evidence.own / (usual * evidence.counts.clamp_min(1)), torch.ones_like(usual))
    columns: list[Tensor] = []
    for first, last in ((0, 2), (2, 4), (4, N_RINGS)):
        counts = evidence.counts[:, first:last]
        columns.append(4 * ((ratio[:, first:last] * counts).sum(1) / counts.sum(1)).log())
    coil = evidence.by_coil / _low(evidence.by_coil[known] if bool(known.any()) else evidence.by_coil).clamp_min(1e-30)
    columns.append(torch.where(known, 2 * coil.amax(1).log(), torch.zeros_like(time_s)).float())
    peak = evidence.peak / evidence.peak.median().clamp_min(1e-30)
    columns.append(torch.where(known, peak.log(), torch.zeros_like(peak)))
    columns.append((evidence.spark / evidence.spark.median().clamp_min(1e-30)).log())
    energy = evidence.energy.sum(1)
    expected = torch.where(known, evidence.foreseen.sum(1) + noise_std**2 * evidence.counts.sum(1), energy.median())
    columns.append(3 * (energy / expected.clamp_min(1e-30)).clamp_min(1e-6).log())
    size = evidence.centre.abs().clamp_min(1e-6).log()
    turn = (evidence.centre * torch.exp(-1j * evidence.centre.sum().angle())).angle()
    columns += [20 * (size - size.median()), 10 * (turn - turn.median())]
    total = (ratio * evidence.counts).sum(1) / evidence.counts.sum(1)
    columns += [6 * boxed(total[:, None], n)[:, 0].log() for n in _MOVE_WINDOWS]

    offsets = misfit_by_offset(evidence, frame, weight)
    n_frames = offsets.shape[1]
    gains, moved = [], []
    # A spoke that belongs next door is where it should be: phases are known to a few hundredths of a beat.
    within = int(_SAME_PHASE * n_frames)
    near = torch.arange(-within, within + 1) % n_frames
    for n in WINDOWS:
        mean = boxed(offsets, n)
        best, which = mean.min(1)
        gain = (mean[:, near].amin(1) - best) / evidence.counts.sum(1)
        gains.append((gain * min(n, 33) * 8).log1p())
        distance = torch.minimum(which, n_frames - which) / n_frames
        moved.append(8 * distance * gain / (gain + 0.5 / (8 * min(n, 33))))
    columns += gains + moved

    curvature, score = move_equations(evidence, weight)
    first = max(1, min(len(evidence) // 4, _BEGINNING))
    for n in _MOVE_WINDOWS:
        body, body_gain = moves(curvature, score, n, slice(0, 3))
        heart, heart_gain = moves(curvature, score, n, slice(3, 5))
        # The scan began where its images are wanted.
        body, heart = (found - found[:first].median(0).values for found in (body, heart))
        scale = evidence.counts.sum(1)
        columns += [
            1.5 * (40 * torch.linalg.vector_norm(body[:, :2], dim=1)).log1p(), 1.5 * (200 * body[:, 2].abs()).log1p(),
            1.5 * (20 * torch.linalg.vector_norm(heart, dim=1)).log1p(), (body_gain / scale * 200).log1p(),
            (heart_gain / scale * 200).log1p(),
        ]  # fmt: skip
    columns += beat_lengths(time_s, ecg_s)
    columns.append(torch.full((len(evidence),), math.log(max(len(evidence) / max(n_frames, 1), 1.0)) - 3))
    columns.append(known.float())
    features = torch.stack([column.float() for column in columns], dim=1)
    # Evidence that there was not yet says nothing.
    return torch.nan_to_num(features).clamp(-8, 8)


def usual_misfit(evidence: Evidence, frame: Tensor, noise_std: float) -> Tensor:
    """Return the (spoke, ring) squared deviation of one sample that is usual in a spoke's frame and direction."""
    known = evidence.known
    floor = max(noise_std**2, 1e-30)
    per_sample = evidence.own / evidence.counts.clamp_min(1)
    if not bool(known.any()):
        return torch.full_like(per_sample, floor)
    overall = _low(per_sample[known]).clamp_min(floor)
    usual = overall.expand_as(per_sample).clone()
    for number in torch.unique(frame).tolist():
        mine = frame == number
        seen = per_sample[mine & known]
        if len(seen):
            n = float(len(seen))
            usual[mine] = ((n * _low(seen) + _FEW * overall) / (n + _FEW)).clamp_min(floor)
    return usual * by_angle(per_sample / usual, evidence.angle, known)


def by_angle(ratio: Tensor, angle: Tensor, known: Tensor) -> Tensor:
    """Return (spoke, ring), at least 1: how much larger misfits usually are in the direction of each spoke.

    A body that is cut by the field of view leaves a ray in k-space that no image explains, at the same angle all along.

    Parameters
    ----------
    ratio
        (spoke, ring), misfits in units of what is usual.
    angle, known
        (spoke,).
    """
    factor = torch.ones_like(ratio)
    seen = torch.nonzero(known)[:, 0]
    if len(seen) < 2 * _ALIKE + 1:
        return factor
    order = seen[torch.argsort(torch.remainder(angle[seen], math.pi))]
    around = torch.cat((order[-_ALIKE:], order, order[:_ALIKE]))
    windows = ratio[around].unfold(0, 2 * _ALIKE + 1, 1)  # (spoke, ring, neighbour in angle)
    factor[order] = _low(windows, -1).clamp_min(1.0)
    return factor


def _low(values: Tensor, dim: int = 0) -> Tensor:
    return quantile_along(values, _USUAL, dim)


def quantile_along(values: Tensor, share: float, dim: int) -> Tensor:
    """Return a quantile along a dimension, between neighbours by their distance, as ``torch.quantile`` does.

    By a sort of numpy's, which takes a fifth of the time for many short rows. Values are finite.
    """
    ordered = np.moveaxis(np.sort(values.detach().cpu().numpy(), axis=dim), dim, 0)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    below, above = ordered[low], ordered[min(low + 1, len(ordered) - 1)]
    return torch.from_numpy(np.asarray(below + (above - below) * np.float32(place - low))).to(values)


def boxed(values: Tensor, n: int) -> Tensor:
    """Return the mean over (up to) n neighbours along the first axis of (spoke, ...) values."""
    if n == 1:
        return values
    flat = values.reshape(len(values), -1)
    sums = torch.cat((torch.zeros((1, flat.shape[1]), dtype=torch.float64), flat.double().cumsum(0)))
    index = torch.arange(len(flat))
    first, last = (index - n // 2).clamp_min(0), (index + n // 2 + 1).clamp_max(len(flat))
    return ((sums[last] - sums[first]) / (last - first)[:, None]).to(values.dtype).reshape(values.shape)


def misfit_by_offset(evidence: Evidence, frame: Tensor, weight: Tensor) -> Tensor:
    """Return (spoke, offset): the weighted misfit in the frame that lies so many after the spoke's own, around."""
    n_frames = evidence.misfit.shape[1]
    by_frame = torch.einsum("sfb,sb->sf", evidence.misfit, weight)
    index = (frame[:, None] + torch.arange(n_frames)) % n_frames
    return by_frame.gather(1, index)


def move_equations(evidence: Evidence, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return (spoke, move, move) and (spoke, move) of :data:`~kspace.motion.evidence.MOVES`, innermost rings only."""
    inner = weight.clone()
    inner[:, _LINEAR_RINGS:] = 0
    curvature = torch.einsum("sbij,sb->sij", evidence.curvature, inner)
    return curvature, torch.einsum("sbi,sb->si", evidence.score, inner)


_PRIOR = torch.tensor([1.0, 1.0, 0.1, 2.0, 2.0])  # pixels and radians
assert len(_PRIOR) == len(MOVES)


def moves(curvature: Tensor, score: Tensor, n: int, which: slice) -> tuple[Tensor, Tensor]:
    """Return the (spoke, move) least-squares moves of n neighbours, and the (spoke,) misfit that they explain."""
    a, b = boxed(curvature[:, which, which], n), boxed(score[:, which], n)
    ridge = torch.diag(1 / _PRIOR[which].square()) / n + 1e-12 * torch.eye(b.shape[1])
    found = torch.linalg.solve((a + ridge).double(), b[..., None].double())[..., 0].to(b.dtype)
    return found, (found * b).sum(1).clamp_min(0)


def beat_lengths(time_s: Tensor, ecg_s: Tensor) -> list[Tensor]:
    """Return (spoke,) deviations of the length of the spoke's beat, and of the one before, from the median beat."""
    nothing = torch.zeros(len(time_s))
    waves = torch.unique(ecg_s)
    if len(waves) < 3:
        return [nothing, nothing]
    beat = beat_of(time_s, waves)
    lengths = waves.diff()
    deviation = 8 * (lengths / lengths.quantile(0.5)).log().float()
    padded = torch.cat((torch.zeros(2), deviation, torch.zeros(1)))  # unknown: before the first, and the open beat
    return [padded[beat + 2].abs(), padded[beat + 1].abs()]


def self_navigation(evidence: Evidence, frame: Tensor, *, noise_std: float, n: int = 33) -> Tensor:
    """Return (spoke, move): where body and heart seem to be, by n neighbours in time together.

    In the order and unit of :data:`~kspace.motion.evidence.MOVES`, from where they were in the first second; zero
    where nothing foresaw the spokes.
    """
    weight = 1 / usual_misfit(evidence, frame, noise_std) * evidence.known[:, None]
    curvature, score = move_equations(evidence, weight)
    found = torch.cat([moves(curvature, score, n, part)[0] for part in (slice(0, 3), slice(3, 5))], dim=1)
    first = max(1, min(len(evidence) // 4, _BEGINNING))
    return (found - found[:first].median(0).values) * evidence.known[:, None]
