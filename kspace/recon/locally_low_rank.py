"""Compressed sensing with patches of low rank (LLR).

Minimise  1/2 |W^(1/2) (E x - s)|^2 + lambda sum over patches |P x|_*  over cines x, where P x is the pixel x frame
matrix of a patch and |.|_* the sum of its singular values (Trzasko and Manduca, ISMRM 2011, 4371; Zhang, Pauly and
Levesque, MRM 73:655, 2015). The patches tile the image; every iteration moves the tiling, so that its seams leave no
trace. The moves are those of a fixed sequence, not of chance: the same data give the same images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import pad

from kspace.equations import Density, NormalEquations
from kspace.parallel import map_frames
from kspace.recon.method import OnIteration, Reconstruction
from kspace.recon.proximal import Scaled, descend, shrinkage

# Successive multiples of these, modulo one, fill the square evenly from the first few on (Roberts's R2 sequence): they
# are the powers of one over the plastic number.
_TURNS = (0.7548776662466927, 0.5698402909980532)


@dataclass(frozen=True)
class LocallyLowRank:
    """Options of the method.

    Parameters
    ----------
    noise_factor, signal_factor
        Of lambda over sqrt(patch^2) + sqrt(frames), the largest singular value that a patch of unit noise has: this
        many standard deviations of the noise in the gridded image, and this share of the image's level, scaled by the
        undersampling (:attr:`~kspace.recon.proximal.Scaled.streaks`).
    patch
        Pixels along the side of a patch.
    max_iterations, tolerance, noise_share
        When to stop, as for :class:`~kspace.recon.temporal_tv.TemporalTV`.
    """

    noise_factor: float = 0.2
    signal_factor: float = 0.005
    patch: int = 8
    max_iterations: int = 40
    tolerance: float = 2e-3
    noise_share: float = 0.01
    density: Density = "ramp"
    name: str = "llr"

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
        first = scaled.first(start)
        weight = scaled.threshold(self.noise_factor, self.signal_factor) * (self.patch + math.sqrt(first.shape[0]))

        def shrink(components: Tensor, step: float, iteration: int) -> None:
            shift = tuple(int(self.patch * (iteration * turn % 1)) for turn in _TURNS)
            shrink_patches(components[0], weight * step, self.patch, (shift[0], shift[1]))

        found = descend(
            scaled,
            first[None],
            shrink,
            max_iterations=self.max_iterations,
            goal=scaled.goal(self.tolerance, self.noise_share),
            on_iteration=on_iteration,
        )
        return Reconstruction(found.image, found.iterations, found.change)


def shrink_patches(images: Tensor, threshold: float, patch: int, shift: tuple[int, int] = (0, 0)) -> None:
    """Take a threshold off the singular values of every patch, in place.

    Parameters
    ----------
    images
        (frame, y, x) complex.
    threshold
        What is taken off.
    patch
        Pixels along the side.
    shift
        (rows, columns), each from 0 to ``patch - 1``: how far the first patches reach beyond the image's first row and
        column. Patches on the edge are smaller.
    """
    rows, columns = images.shape[1:]
    sides = -(columns + shift[1]) % patch
    n_across = (columns + shift[1] + sides) // patch

    def run(strip: tuple[int, int]) -> None:
        """Shrink the patches that begin in rows from one, outside the image perhaps, to another."""
        start, stop = strip
        inside = images[:, max(start, 0) : min(stop, rows)]
        padded = pad(inside, (shift[1], sides, max(-start, 0), max(stop - rows, 0)))
        n_down = (stop - start) // patch
        cut = padded.reshape(images.shape[0], n_down, patch, n_across, patch)
        patches = cut.permute(1, 3, 0, 2, 4).reshape(n_down * n_across, images.shape[0], patch * patch)
        kept = shrinkage(patches @ patches.mH, threshold) @ patches
        back = kept.reshape(n_down, n_across, images.shape[0], patch, patch).permute(2, 0, 3, 1, 4)
        whole = back.reshape(images.shape[0], stop - start, n_across * patch)
        inside.copy_(whole[:, max(-start, 0) :, shift[1] :][:, : inside.shape[1], :columns])

    size = patch if images.device.type == "cpu" else patch * math.ceil((rows + shift[0]) / patch)
    map_frames(run, [(start, start + size) for start in range(-shift[0], rows, size)])
