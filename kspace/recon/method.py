"""The signature that all reconstruction methods share.

A method takes the normal equations and the coil maps and returns images. It never sees the spokes, so that its price
does not grow with the scan, and it can start from what it returned the last time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from kspace.equations import Density, NormalEquations
from kspace.errors import ShapeError


@dataclass(frozen=True)
class Status:
    """What an iterative method reports after each iteration.

    Parameters
    ----------
    iteration
        Counted from 1.
    n_iterations
        At most how many there will be.
    change
        What the method watches to stop: the relative residual (CG) or the relative change of the image.
    """

    iteration: int
    n_iterations: int
    change: float


OnIteration = Callable[[Status], bool | None]
"""Called after each iteration; returning True stops the method there."""


@dataclass(frozen=True)
class Reconstruction:
    """Images, and what a method needs to go on from them.

    Parameters
    ----------
    image
        (frame, y, x) complex.
    iterations
        How many were done; 0 for a direct method.
    change
        The last :attr:`Status.change`; 0 for a direct method.
    state
        What only this method understands; empty for most. Each (frame, y, x) complex and in the phase of the images, so
        that it can be turned with them when the maps' phase changes.
    spokes
        How many it was made from; 0 where the method does not need to know it again.
    steepness
        Largest eigenvalue of the normal operator over the peak of its spectra; 0 where it was not sought.
    cold_iterations
        How many the cold start took that this goes back to, over however many decisions; 0 where none is known.
    """

    image: Tensor
    iterations: int = 0
    change: float = 0.0
    state: tuple[Tensor, ...] = field(default=(), repr=False)
    spokes: float = 0.0
    steepness: float = 0.0
    cold_iterations: int = 0


def require_same_shape(start: Tensor, right: Tensor) -> None:
    """Refuse a start whose (frame, y, x) shape is not that of the right-hand side.

    Raises
    ------
    ShapeError
        When the shapes differ.
    """
    if start.shape != right.shape:
        frames = right.shape[0]
        raise ShapeError("the start", start, f"(frame, y, x) = {tuple(right.shape)}, {frames} frames")


class Method(Protocol):
    """A reconstruction method with its options: a frozen dataclass that is called."""

    @property
    def name(self) -> str:
        """The name on the command line."""
        ...

    @property
    def density(self) -> Density:
        """The weights with which the normal equations are to be summed for it."""
        ...

    def __call__(
        self,
        equations: NormalEquations,
        maps: Tensor,
        *,
        noise_std: float | None = None,
        start: Reconstruction | None = None,
        on_iteration: OnIteration | None = None,
    ) -> Reconstruction:
        """Reconstruct.

        Parameters
        ----------
        equations
            Sums over the spokes so far.
        maps
            (coil, y, x) complex.
        noise_std
            Standard deviation of the complex noise of one whitened sample, from which regularisation follows; None
            where it is not known.
        start
            What the same method returned on fewer spokes.
        on_iteration
            Hears of every iteration and may stop the method.
        """
        ...
