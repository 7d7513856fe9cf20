"""Compressed sensing with temporal total variation.

Minimise  1/2 |W^(1/2) (E x - s)|^2 + lambda sum |x_(f+1) - x_f|  over cine images x, circular in time (the model of
GRASP, Feng et al., MRM 72:707, 2014), by an accelerated proximal gradient method. The proximal operator of the
penalty couples only the frames of one pixel: a few steps on its dual variables, which are kept from one iteration to
the next (Beck and Teboulle, IEEE Trans. Image Process. 18:2419, 2009) and from one decision to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kspace.equations import Density, NormalEquations
from kspace.parallel import map_frames
from kspace.recon.method import OnIteration, Reconstruction, require_same_shape
from kspace.recon.proximal import Scaled, descend
from kspace.recon.proximal import largest_eigenvalue as largest_eigenvalue
from kspace.recon.start import average_over_time

_L2 = 0.02  # of the average over time, as in CG-SENSE

_DUAL_STEPS = 5
"""Per iteration; twice as many change no more than the third digit."""

_MOSTLY_NEW = 0.4
"""Share of new spokes from which on an earlier image is of no use: it is of too few spokes, with other streaks."""

_FORGOTTEN, _WELL_SAMPLED = 0.3, 0.5
"""Share of what moves that a decision forgets, where there is more than a spoke per frame and two columns; less of it
before (docs/compressed_sensing.md)."""

_FEWEST = 2  # iterations of a warm start

_ROWS = 4  # their frames and dual variables stay in a core's own cache


@dataclass(frozen=True)
class TemporalTV:
    """Options of the method.

    The state of what it returns is the dual variable over its bound, (frame, y, x) complex.

    Parameters
    ----------
    noise_factor
        The part of lambda that follows the noise: this many standard deviations of the noise in the gridded image.
    signal_factor
        The part that follows the streaks of undersampling: this share of the image's level, divided by the square root
        of the spokes per frame. Both were chosen on the simulated phantom (docs/reconstruction.md), not on real hearts.
    max_iterations
        At most so many.
    tolerance
        Stop when an iteration changes the images by less than this, relative to their norm,
    noise_share
        or, where the noise is known, by less than this share of the noise in the gridded images.
    warm_share
        From what it returned on fewer spokes at most this share of the iterations that the cold start took, decision
        after decision. On a heart more bring the images no nearer to the truth (docs/compressed_sensing.md).
    """

    noise_factor: float = 1.0
    signal_factor: float = 0.01
    max_iterations: int = 30
    tolerance: float = 3e-3
    noise_share: float = 0.02
    warm_share: float = 1 / 3
    density: Density = "ramp"
    name: str = "cs"

    def __call__(
        self,
        equations: NormalEquations,
        maps: Tensor,
        *,
        noise_std: float | None = None,
        start: Reconstruction | None = None,
        on_iteration: OnIteration | None = None,
    ) -> Reconstruction:
        """Reconstruct; see :class:`kspace.recon.method.Method`."""
        scaled = Scaled(equations, maps, noise_std)
        if scaled.scale <= 0:
            return scaled.unmeasured(start)
        weight = scaled.threshold(self.noise_factor, self.signal_factor)
        spokes, most, steepness, cold = float(equations.spokes.sum()), self.max_iterations, 0.0, 0
        if start is not None:
            require_same_shape(start.image, scaled.b)
        if start is not None and start.cold_iterations > 0:  # what this method returned, and no other
            if abs(spokes - start.spokes) > _MOSTLY_NEW * max(spokes, start.spokes):
                start = None
            else:
                steepness, cold = start.steepness, start.cold_iterations
                most = min(most, max(_FEWEST, math.floor(self.warm_share * cold)))
        if start is None or cold:
            average = average_over_time(equations, maps, scaled.b * scaled.scale, _L2)
            start = Reconstruction(average) if start is None else _less_moving(start, average, equations)
        x = start.image.clone()
        dual = x.real.new_zeros((2, *x.shape))
        if cold:
            dual[0], dual[1] = start.state[0].real, start.state[0].imag

        def shrink(components: Tensor, step: float, iteration: int) -> None:
            shrink_differences(components[0], dual, weight * step, _DUAL_STEPS)

        found = descend(
            scaled,
            x[None],
            shrink,
            max_iterations=most,
            goal=scaled.goal(self.tolerance, self.noise_share),
            on_iteration=on_iteration,
            steepness=steepness,
        )
        return replace(
            found, state=(torch.complex(dual[0], dual[1]),), spokes=spokes, cold_iterations=cold or found.iterations
        )


def _less_moving(start: Reconstruction, average: Tensor, equations: NormalEquations) -> Reconstruction:
    """Return a start whose part that moves is smaller, about the average over time of all spokes.

    Few iterations find again what of it the spokes tell, the more of it the more spokes there are, and not the noise
    and the streaks of earlier decisions, which the penalty alone would be long in taking out. A cold start, which moves
    not at all, profits from the same.
    """
    sampled = float(equations.spokes.mean()) / (_WELL_SAMPLED * average.shape[-1])
    kept = 1 - _FORGOTTEN * min(1.0, sampled) ** 2
    moving = start.image - start.image.mean(0)
    return replace(start, image=average + kept * moving, state=tuple(one * kept for one in start.state))


def shrink_differences(images: Tensor, dual: Tensor, threshold: float, n_steps: int) -> None:
    """Change images u to about argmin_x |x - u|^2 / 2 + threshold sum |x_(f+1) - x_f|, in place.

    Accelerated projected gradients on the dual problem: x = u - D^H y, where D are the differences in time and the
    magnitude of y is bounded by the threshold.

    Parameters
    ----------
    images
        (frame, y, x) complex.
    dual
        (2, frame, y, x) real, real and imaginary parts of y over the threshold: where to start, and where it ended.
    threshold
        What bounds y.
    n_steps
        How many.
    """
    if threshold <= 0:
        return

    def run(rows: slice) -> None:
        u = torch.view_as_real(images[:, rows]).permute(3, 0, 1, 2).contiguous()
        # Real and imaginary parts apart, as a complex magnitude takes several times as long; with the last frame
        # before the first and the first after the last.
        before = dual[:, :, rows] * threshold
        y = torch.cat((before[:, -1:], before, before[:, :1]), dim=1)
        slopes = (u.roll(-1, 1) - u) / 4
        moment, new = 1.0, before
        for step in range(n_steps):
            old = new
            # The largest eigenvalue of D D^H is 4.
            new = (y[:, :-2] + y[:, 2:]).mul_(0.25).add_(y[:, 1:-1], alpha=0.5).add_(slopes)
            squared = (new[0] * new[0]).addcmul_(new[1], new[1])
            new *= squared.clamp_min_(threshold**2).rsqrt_().mul_(threshold)
            if step == n_steps - 1:
                break
            following = (1 + math.sqrt(1 + 4 * moment**2)) / 2
            torch.lerp(old, new, 1 + (moment - 1) / following, out=y[:, 1:-1])
            moment = following
            y[:, 0], y[:, -1] = y[:, -2], y[:, 1]
        dual[:, :, rows] = new / threshold
        images[:, rows] = torch.view_as_complex((u + new - new.roll(1, 1)).permute(1, 2, 3, 0).contiguous())

    size = _ROWS if images.device.type == "cpu" else images.shape[1]
    map_frames(run, [slice(row, row + size) for row in range(0, images.shape[1], size)])
