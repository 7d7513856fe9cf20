"""Make the best of corrupted spokes: put them where they fit, undo how the body moved, and trust the rest less.

Every change is offered, not forced: it is kept where the spoke then agrees with images that it had no part in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.motion.detector import FLAGGED, Detector, default_detector, distrust
from kspace.motion.evidence import Evidence, gather
from kspace.motion.examine import Examined
from kspace.motion.features import boxed, misfit_by_offset, spoke_features, usual_misfit
from kspace.motion.rigid import Moves, find_moves, undo
from kspace.scan import RadialScan

_SUSPECT = 0.3
_STATE = 64  # spokes that share a place of the body
_BETTER = 0.85  # of the misfit before: a change that gains less is not worth a risk
_MOVED_PX, _MOVED_RAD = 0.05, 0.004  # less than this is not a move


@dataclass(frozen=True)
class Corrected:
    """Spokes to reconstruct from.

    Parameters
    ----------
    spokes
        With the motion undone where that helped.
    frame
        (spoke,) int64, where each fits.
    trust
        (spoke,) float32 in [0, 1]: how much each should count.
    probability
        (spoke,) that it was corrupted as it came.
    rebinned, moved
        (spoke,) bool: put into another frame; brought back to where the body was.
    moves
        Where the body was, in pixels of the scan; zero where nothing was undone.
    examined
        What the spokes said of each other.
    """

    spokes: RadialScan
    frame: Tensor
    trust: Tensor
    probability: Tensor
    rebinned: Tensor
    moved: Tensor
    moves: Moves
    examined: Examined

    @property
    def flagged(self) -> Tensor:
        """(spoke,) bool, those that were corrupted more probably than not."""
        return self.probability >= FLAGGED


def correct(
    spokes: RadialScan, frame: Tensor, n_frames: int, *, noise_std: float, detector: Detector | None = None
) -> Corrected:
    """Find corrupted spokes of one slice and mend what can be mended.

    Parameters
    ----------
    spokes
        Whitened, in the order of time.
    frame, n_frames
        (spoke,) int64, and how many.
    noise_std
        Of one whitened sample.
    detector
        The shipped network by default.
    """
    detector = detector or default_detector()
    found = distrust(spokes, frame, n_frames, noise_std=noise_std, detector=detector)
    examined, before = found.examined, found.probability
    nothing = torch.zeros(spokes.n_spokes, dtype=torch.bool)
    still = Moves(torch.zeros((spokes.n_spokes, 2)), torch.zeros(spokes.n_spokes))
    as_it_is = Corrected(spokes, frame, 1 - before, before, nothing, nothing, still, examined)
    suspects = torch.nonzero(before > _SUSPECT)[:, 0]
    if not len(suspects):
        return as_it_is
    evidence = examined.evidence
    weight = 1 / usual_misfit(evidence, frame, noise_std)
    small = examined.short.cut(spokes)
    image, maps = examined.navigator.image, examined.navigator.maps

    def evidence_of(some: RadialScan, frames: Tensor, which: Tensor) -> Evidence:
        return gather(some, frames, image, maps, n_frames=n_frames, spark=evidence.spark[which])

    # Where the body was, a stretch of time at a time: only stretches of which most is suspect.
    state = torch.div(torch.arange(spokes.n_spokes), _STATE, rounding_mode="floor")
    often = torch.zeros(int(state.max()) + 1).index_add_(0, state, (before > _SUSPECT).float())
    often /= torch.bincount(state)
    candidates = torch.nonzero(often[state] > 0.5)[:, 0]
    moves, moved = still, nothing.clone()
    if len(candidates):
        _, own_state = torch.unique(state[candidates], return_inverse=True)
        part = small.select(candidates)
        places = find_moves(part, frame[candidates], own_state, image, maps, weight[candidates])
        then = evidence_of(undo(part, places), frame[candidates], candidates)
        gain = _by_state((then.own * weight[candidates]).sum(1), own_state)
        gain = gain / _by_state((evidence.own[candidates] * weight[candidates]).sum(1), own_state)
        far = (torch.linalg.vector_norm(places.shift, dim=1) > _MOVED_PX) | (places.turn.abs() > _MOVED_RAD)
        kept = (gain[own_state] < _BETTER) & far
        chosen = candidates[kept]
        shift, turn = still.shift.clone(), still.turn.clone()
        shift[chosen], turn[chosen] = places.shift[kept], places.turn[kept]
        moves, moved[chosen] = Moves(shift, turn), True
        if bool(kept.any()):
            evidence = evidence.replaced(chosen, then.at(kept))
    frame_now, rebinned = _refitted(evidence, frame, weight, before)
    if bool(rebinned.any()):
        which = torch.nonzero(rebinned)[:, 0]
        there = undo(small.select(which), Moves(moves.shift[which], moves.turn[which]))
        evidence = evidence.replaced(which, evidence_of(there, frame_now[which], which))
    features = spoke_features(evidence, frame_now, spokes.time_s, spokes.ecg_s, noise_std=noise_std)
    after = detector(features)
    changed = moved | rebinned
    # What was changed for nothing is put back, and trusted as little as before.
    helped = changed & (after < before)
    full = moves.scaled(examined.short.ratio)
    full = Moves(torch.where(helped[:, None], full.shift, 0.0), torch.where(helped, full.turn, 0.0))
    mended = undo(spokes, full) if bool((moved & helped).any()) else spokes
    return Corrected(
        spokes=mended,
        frame=torch.where(helped, frame_now, frame),
        trust=1 - torch.where(helped, after, before),
        probability=before,
        rebinned=rebinned & helped,
        moved=moved & helped,
        moves=full,
        examined=examined,
    )


def _by_state(values: Tensor, state: Tensor) -> Tensor:
    return torch.zeros(int(state.max()) + 1, dtype=values.dtype).index_add_(0, state, values)


def _refitted(evidence: Evidence, frame: Tensor, weight: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (spoke,) frames where suspect spokes fit best, and which of them are other frames.

    A spoke is offered the frame that it fits best alone, and the one that its neighbours in time fit best together,
    which is less easily misled; that is preferred where the spoke hardly minds.
    """
    n_frames = evidence.misfit.shape[1]
    alone = misfit_by_offset(evidence, frame, weight)
    best, offset = alone.min(1)
    for n in (9, 33):
        together = boxed(alone, n).argmin(1)
        fits = alone.gather(1, together[:, None])[:, 0]
        offset = torch.where(fits < 1.1 * best, together, offset)
    fits = alone.gather(1, offset[:, None])[:, 0]
    better = (probability > _SUSPECT) & (offset > 0) & (fits < _BETTER * alone[:, 0])
    return torch.where(better, (frame + offset) % n_frames, frame), better
