"""Deep unrolled reconstruction with shipped weights; the networks are in :mod:`kspace.recon.networks.unrolled`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from kspace.equations import Density, NormalEquations
from kspace.errors import InputError
from kspace.recon.locally_low_rank import LocallyLowRank
from kspace.recon.method import OnIteration, Reconstruction, Status
from kspace.recon.networks.least_squares import LeastSquares
from kspace.recon.networks.temporal_prior import PriorOptions
from kspace.recon.networks.unrolled import Consistency, Reference, UnrolledNetwork, UnrolledOptions
from kspace.recon.temporal_tv import TemporalTV
from kspace.weights.store import load_model, read_card

SHIPPED = "unrolled-cine"
"""The weights that are used unless others are named."""
_MOSTLY_NEW = 0.45
"""Where more of the spokes are new, earlier images save no iterations, and beginning from nothing is better."""


class Recipe(BaseModel):
    """What the card of an unrolled network says of how it is built and what it starts from.

    Parameters
    ----------
    blocks, iterations, consistency
        See :class:`~kspace.recon.networks.unrolled.UnrolledOptions`.
    channels, depth
        See :class:`~kspace.recon.networks.temporal_prior.PriorOptions`.
    start_iterations, start_noise_factor, start_signal_factor, start_patch
        Of :class:`~kspace.recon.locally_low_rank.LocallyLowRank` before the network, as it was when the network learnt.
    warm_iterations
        Of the same, at least, when it goes on from earlier images, see :meth:`start`.
    second_iterations, second_noise_factor, second_signal_factor
        Of :class:`~kspace.recon.temporal_tv.TemporalTV`, whose images the network sees beside those;
        0 iterations: none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: int
    iterations: int
    consistency: Consistency
    channels: tuple[int, int]
    depth: tuple[int, int]
    start_iterations: int
    start_noise_factor: float
    start_signal_factor: float
    start_patch: int
    warm_iterations: PositiveInt
    second_iterations: NonNegativeInt = 0
    second_noise_factor: float = 0.0
    second_signal_factor: float = 0.0

    def start(self, new: float = 1.0) -> LocallyLowRank:
        """Return what the network starts from.

        Parameters
        ----------
        new
            Share of the spokes that the images which it goes on from do not know; 1 where it begins from nothing. So
            large a share of the iterations is done. In the two patients that were tried, more were worse
            (docs/unrolled.md).
        """
        iterations = max(self.warm_iterations, round(new * self.start_iterations))
        return LocallyLowRank(
            noise_factor=self.start_noise_factor,
            signal_factor=self.start_signal_factor,
            patch=self.start_patch,
            max_iterations=min(self.start_iterations, iterations),
        )

    @property
    def second(self) -> TemporalTV | None:
        """What the network sees beside its start, if anything; from earlier images it ends by itself."""
        if self.second_iterations == 0:
            return None
        return TemporalTV(
            noise_factor=self.second_noise_factor,
            signal_factor=self.second_signal_factor,
            max_iterations=self.second_iterations,
        )

    @property
    def options(self) -> UnrolledOptions:
        """The network's architecture."""
        prior = PriorOptions(self.channels, self.depth, self.second_iterations > 0)
        return UnrolledOptions(self.blocks, prior, self.consistency, self.iterations)

    @classmethod
    def read(cls, options: Mapping[str, object], name: str) -> Recipe:
        """Read a card's options.

        Raises
        ------
        InputError
            When they are not those of an unrolled network.
        """
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"the card of {name} does not describe an unrolled network ({where}: {first['msg']})",
                expected="the options of an unrolled network",
            ) from error


@lru_cache(maxsize=4)
def shipped_network(
    name: str = SHIPPED,
    folder: Path | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[UnrolledNetwork, Recipe]:
    """Return a stored network, ready to be used on a device in a type, and its recipe; read once.

    Raises
    ------
    UsageError, InputError
        As :func:`kspace.weights.store.load_model`.
    """
    recipe = Recipe.read(read_card(name, folder).options, name)
    network = UnrolledNetwork(recipe.options)
    load_model(name, network, folder)
    network.requires_grad_(False)
    return network.to(device, dtype), recipe


@dataclass(frozen=True)
class Unrolled:
    """Compressed sensing, of one kind or two, for a start, then learnt priors and data consistency in turn.

    Parameters
    ----------
    weights
        Name of the stored model.
    folder
        Where it lies; the package's own by default.
    half
        Convolutions in bfloat16: about twice as fast on CPUs and GPUs that have it, at an error of some 1e-3.
    """

    weights: str = SHIPPED
    folder: Path | None = None
    half: bool = False
    density: Density = "ramp"
    name: str = "unrolled"

    def __call__(
        self,
        equations: NormalEquations,
        maps: Tensor,
        *,
        noise_std: float | None = None,
        start: Reconstruction | None = None,
        on_iteration: OnIteration | None = None,
    ) -> Reconstruction:
        """Reconstruct; see :class:`kspace.recon.method.Method`.

        The state that a later call goes on from is that of compressed sensing, which then needs the fewer iterations
        the fewer spokes are new (:meth:`Recipe.start`). The network itself starts anew, at a price that does not depend
        on the scan's length.
        """
        network, recipe = shipped_network(self.weights, self.folder, maps.device, maps.real.dtype)
        before, other, new, spokes = None, None, 1.0, float(equations.spokes.sum())
        if start is not None and len(start.state) == (1 if recipe.second is None else 3):
            new = abs(spokes - start.spokes) / max(spokes, start.spokes, 1.0)
            before = Reconstruction(start.state[0])
            if recipe.second is not None:
                other = replace(start, image=start.state[1], state=start.state[2:])
        if new > _MOSTLY_NEW:
            before, other, new = None, None, 1.0
        found = recipe.start(new)(equations, maps, noise_std=noise_std, start=before)
        state: tuple[Tensor, ...] = (found.image,)
        second: Tensor | None = None
        steepness, cold = 0.0, 0
        if recipe.second is not None:
            beside = recipe.second(equations, maps, noise_std=noise_std, start=other)
            state, second = (found.image, beside.image, *beside.state), beside.image
            steepness, cold = beside.steepness, beside.cold_iterations
        if equations.scale <= 0:
            return Reconstruction(found.image, state=state, spokes=spokes)
        problem, images = LeastSquares.of(equations, maps, noise_std), found.image
        change, blocks = 0.0, 0
        with torch.no_grad(), torch.autocast(maps.device.type, torch.bfloat16, enabled=self.half):
            reference = Reference.of(images, second)
            for blocks, block in enumerate(network.blocks, start=1):
                previous, images = images, block(problem, images, reference)
                change = float(torch.linalg.vector_norm(images - previous) / torch.linalg.vector_norm(images))
                if on_iteration is not None and on_iteration(Status(blocks, len(network.blocks), change)):
                    break
        return Reconstruction(images, blocks, change, state, spokes, steepness, cold)
