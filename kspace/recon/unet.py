"""A U-Net after gridding, with no say for the data: the baseline that everyone knows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from kspace.equations import Density, NormalEquations
from kspace.errors import InputError
from kspace.recon.gridding import Gridding
from kspace.recon.method import OnIteration, Reconstruction
from kspace.recon.networks.unet import CineUNet
from kspace.weights.store import load_model, read_card

SHIPPED_UNET = "unet-cine"
"""The weights that are used unless others are named."""


class UNetRecipe(BaseModel):
    """What the card says of the network, see :class:`~kspace.recon.networks.unet.CineUNet`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbours: int
    features: int
    levels: int


@lru_cache(maxsize=4)
def shipped_unet(
    name: str = SHIPPED_UNET,
    folder: Path | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> CineUNet:
    """Return a stored network on a device, in a type; read once.

    Raises
    ------
    UsageError, InputError
        As :func:`kspace.weights.store.load_model`.
    """
    try:
        recipe = UNetRecipe.model_validate(dict(read_card(name, folder).options))
    except ValidationError as error:
        what = f"the card of {name} does not describe a U-Net"
        raise InputError(what, expected="neighbours, features and levels") from error
    network = CineUNet(recipe.neighbours, recipe.features, recipe.levels)
    load_model(name, network, folder)
    return network.requires_grad_(False).to(device, dtype)


@dataclass(frozen=True)
class UNet:
    """Gridding, then a network that was trained to take its streaks away.

    Parameters
    ----------
    weights
        Name of the stored model.
    folder
        Where it lies; the package's own by default.
    """

    weights: str = SHIPPED_UNET
    folder: Path | None = None
    density: Density = "ramp"
    name: str = "unet"

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
        gridded = Gridding()(equations, maps).image
        with torch.no_grad():
            image: Tensor = shipped_unet(self.weights, self.folder, maps.device, maps.real.dtype)(gridded)
        return Reconstruction(image)
