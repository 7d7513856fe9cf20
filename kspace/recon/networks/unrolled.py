"""The unrolled network: a learnt prior and data consistency in turn, on the additive normal equations.

Each block corrects the images by its prior, then makes them agree with the data (after Schlemper et al., IEEE TMI
37:491, 2018, and MoDL). All it knows of the scan are sums over spokes, so that its price does not grow with the scan.
Global phase and scale of the data are taken out before the networks and put back after.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from kspace.errors import ShapeError, UsageError
from kspace.recon.networks.consistency import consistent, gradient_step
from kspace.recon.networks.least_squares import LeastSquares
from kspace.recon.networks.temporal_prior import PriorOptions, TemporalPrior

Consistency = Literal["cg", "gradient"]


@dataclass(frozen=True)
class UnrolledOptions:
    """Architecture.

    Parameters
    ----------
    blocks
        Prior and data consistency, so many times, each with weights of its own.
    prior
        Size of each prior.
    consistency
        ``cg``: :func:`~kspace.recon.networks.consistency.consistent`; ``gradient``: one step.
    iterations
        Of conjugate gradients.
    """

    blocks: int = 3
    prior: PriorOptions = field(default_factory=PriorOptions)
    consistency: Consistency = "cg"
    iterations: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.blocks <= 32 or not 1 <= self.iterations <= 100:
            raise UsageError(
                f"{self.blocks} blocks of {self.iterations} iterations", expected="1 to 32 blocks, 1 to 100 iterations"
            )
        if self.consistency not in ("cg", "gradient"):
            raise UsageError(f"unknown data consistency {self.consistency!r}", expected="cg or gradient")


@dataclass(frozen=True)
class Reference:
    """What the images of a scan are divided by before a network sees them, and what it sees beside them in every block.

    Parameters
    ----------
    phase
        (y, x) complex of modulus 1: that of the average over time, and with it that of coils and field.
    level
        Mean magnitude, weighted by the squared magnitude: the brightness of what is bright, whatever the field of view.
    average
        (y, x) real, magnitude of the average over time, over the level.
    second
        (frame, y, x) complex, as a network sees them: images of the same scan by another method.
    """

    phase: Tensor
    level: Tensor
    average: Tensor
    second: Tensor

    @classmethod
    def of(cls, images: Tensor, second: Tensor | None = None) -> Reference:
        """Return the reference of (frame, y, x) images, and of the same by another method (None: they are the same)."""
        average = images.mean(0)
        magnitude = average.abs()
        tiny = torch.finfo(magnitude.dtype).tiny
        phase = torch.where(magnitude > 0, average / magnitude.clamp_min(tiny), torch.ones_like(average))
        highest = images.abs().amax()
        relative = images.abs() / torch.where(highest > 0, highest, 1.0)  # cubes of what is small would vanish
        level = relative.pow(3).sum() / relative.square().sum().clamp_min(tiny) * highest
        divisor = level.clamp_min(tiny)
        beside = (images if second is None else second) * phase.conj() / divisor
        return cls(phase, level, magnitude / divisor, beside)

    def seen(self, images: Tensor) -> Tensor:
        """Return images as a network sees them."""
        return images * self.phase.conj() / self.level.clamp_min(torch.finfo(self.level.dtype).tiny)

    def unseen(self, images: Tensor) -> Tensor:
        """Return what a network gives in the units and phase of the scan."""
        return images * self.phase * self.level


class Block(nn.Module):
    """One prior and the data consistency after it.

    Parameters
    ----------
    options
        Architecture.
    """

    def __init__(self, options: UnrolledOptions) -> None:
        super().__init__()
        self.options = options
        self.prior = TemporalPrior(options.prior)
        # Weight of the proposal beside the data: softplus of a line in the conditions.
        self.regularisation = nn.Linear(2, 1)
        nn.init.zeros_(self.regularisation.weight)
        nn.init.zeros_(self.regularisation.bias)

    def propose(self, problem: LeastSquares, images: Tensor, reference: Reference) -> Tensor:
        """Return images corrected by the prior, (frame, y, x) complex."""
        gradient = reference.seen(problem.gradient(images))
        conditions = problem.conditions(reference.level)
        correction = self.prior(reference.seen(images), gradient, reference.second, reference.average, conditions)
        return images + reference.unseen(correction)

    def weight(self, problem: LeastSquares, reference: Reference) -> Tensor:
        """Return (frame,) how much a proposal counts beside the data."""
        lines: Tensor = self.regularisation(problem.conditions(reference.level))[:, 0]
        return softplus(lines) + 1e-3

    def forward(self, problem: LeastSquares, images: Tensor, reference: Reference) -> Tensor:
        """Return images that the prior has corrected and that agree with the data."""
        proposal = self.propose(problem, images, reference)
        return self.agree(problem, proposal, reference)

    def agree(self, problem: LeastSquares, proposal: Tensor, reference: Reference) -> Tensor:
        """Return a proposal made to agree with the data."""
        weight = self.weight(problem, reference)
        if self.options.consistency == "gradient":
            return gradient_step(problem, proposal, weight)
        return consistent(problem, proposal, weight, iterations=self.options.iterations)


class UnrolledNetwork(nn.Module):
    """Blocks one after another.

    Parameters
    ----------
    options
        Architecture.
    """

    def __init__(self, options: UnrolledOptions | None = None) -> None:
        super().__init__()
        self.options = options or UnrolledOptions()
        self.blocks = nn.ModuleList(Block(self.options) for _ in range(self.options.blocks))

    def forward(
        self, problem: LeastSquares, start: Tensor, second: Tensor | None = None, *, save_memory: bool = False
    ) -> Tensor:
        """Reconstruct.

        Parameters
        ----------
        problem
            The data.
        start
            (frame, y, x) complex; any number of frames, which are a circle, any size.
        second
            The same by another method, if there is one.
        save_memory
            While training: keep only the images between blocks and compute the rest again for the gradient.

        Returns
        -------
        (frame, y, x) complex.
        """
        for name, images in (("the start", start), ("the second start", start if second is None else second)):
            if images.shape != problem.right.shape:
                raise ShapeError(name, images, f"(frame, y, x) = {tuple(problem.right.shape)}")
        reference = Reference.of(start.detach(), None if second is None else second.detach())
        images = start
        for block in self.blocks:
            if save_memory and torch.is_grad_enabled():
                # Images that need no gradient would hide from the checkpoint that weights do.
                images = checkpoint(block, problem, images, reference, use_reentrant=False)
            else:
                images = block(problem, images, reference)
        return images
