"""How far every pixel of a reconstruction hangs on which spokes were measured: the delete-a-group jackknife.

Spokes are dealt into K groups, each group is left out once, and the images are reconstructed again, from where the full
reconstruction ended. From their magnitudes m_k and that of the full reconstruction, m,

    variance = (K - 1) / K  sum_k (m_k - m)^2

(Kott, J. Official Statistics 17:521, 2001; Efron and Stein, Ann. Statist. 9:586, 1981), averaged over a few pixels
about each, as a variance from K numbers is itself uncertain. It sees noise, streaks and what is inconsistent between
spokes. It does not see an error that all groups share, such as the blur of a prior: it is too small (docs/unrolled.md).

Sums over spokes are additive: a scan that sums each group by itself has the rest by one subtraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from kspace.equations import NormalEquations
from kspace.errors import ShapeError, UsageError
from kspace.recon.method import Method, Reconstruction

USUAL_GROUPS = 4
"""Fewer leave a frame of a short scan too poor, more cost more."""


@dataclass(frozen=True)
class Uncertainty:
    """What leaving spokes out did to the images.

    Parameters
    ----------
    std
        (frame, y, x) real, standard deviation of the magnitude, in the unit of the images.
    image
        (frame, y, x) complex, the full reconstruction.
    without
        For each group, the (frame, y, x) complex images that its spokes had no part in.
    """

    std: Tensor
    image: Tensor
    without: tuple[Tensor, ...]


def deal(frame: Tensor, n_groups: int = USUAL_GROUPS) -> Tensor:
    """Return (spoke,) int64, the group of each spoke: in every frame they are dealt out in turn.

    Parameters
    ----------
    frame
        (spoke,) int64.
    n_groups
        How many.

    Raises
    ------
    UsageError
        With fewer than two groups.
    """
    if n_groups < 2:
        raise UsageError(f"{n_groups} groups of spokes", expected="2 or more")
    counts = torch.bincount(frame)
    order = torch.argsort(frame, stable=True)
    group = torch.empty_like(frame)
    starts = torch.cumsum(counts, 0) - counts
    group[order] = (torch.arange(len(frame), device=frame.device) - starts[frame[order]]) % n_groups
    return group


def sums_by_group(
    equations: NormalEquations, samples: Tensor, positions: Tensor, frame: Tensor, n_groups: int = USUAL_GROUPS
) -> list[NormalEquations]:
    """Deal out spokes and return the sums of each group, of the kind of some equations.

    Parameters
    ----------
    equations
        Tell matrix, frames, coils and weights; what they hold does not matter.
    samples, positions, frame
        As for :meth:`~kspace.equations.NormalEquations.add`.
    n_groups
        See :func:`deal`.
    """
    group, parts = deal(frame, n_groups), []
    for number in range(n_groups):
        part, mine = equations.like(equations.n_frames), group == number
        part.add(samples[mine], positions[mine], frame[mine])
        parts.append(part)
    return parts


def jackknife(
    method: Method,
    equations: NormalEquations,
    groups: Sequence[NormalEquations],
    maps: Tensor,
    *,
    full: Reconstruction | None = None,
    noise_std: float | None = None,
    about: int = 5,
) -> Uncertainty:
    """Return the uncertainty of a reconstruction by a method.

    Parameters
    ----------
    method
        Whose uncertainty it is.
    equations
        Sums over all spokes.
    groups
        Sums over each group of them, see :func:`sums_by_group`; two or more.
    maps
        (coil, y, x) complex.
    full
        What the method returned on all spokes; None reconstructs it. What goes on from there costs few iterations.
    noise_std
        Standard deviation of the complex noise of one whitened sample.
    about
        Pixels along the square over which variances are averaged, odd; 1 for none.

    Raises
    ------
    UsageError
        With fewer than two groups, or an even square.
    ShapeError
        When ``full`` does not fit the equations.
    """
    if len(groups) < 2:
        raise UsageError(f"{len(groups)} groups of spokes", expected="2 or more")
    if about < 1 or about % 2 == 0:
        raise UsageError(f"averages over {about} pixels", expected="an odd number of them")
    if full is not None and full.image.shape != equations.spectrum.shape[:1] + equations.matrix:
        raise ShapeError("the full reconstruction", full.image, f"({equations.n_frames}, *{equations.matrix})")
    if full is None:
        full = method(equations, maps, noise_std=noise_std)
    without = tuple(method(equations.less(group), maps, noise_std=noise_std, start=full).image for group in groups)
    squares = torch.stack([(image.abs() - full.image.abs()).square() for image in without])
    variance = squares.mean(0) * (len(groups) - 1)
    near = avg_pool2d(variance[:, None], about, stride=1, padding=about // 2, count_include_pad=False)[:, 0]
    return Uncertainty(near.sqrt(), full.image, without)
