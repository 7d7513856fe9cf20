"""The shipped segmentation networks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kspace.errors import InputError
from kspace.segment.network import NetworkOptions, SegmentationNetwork
from kspace.weights.store import FOLDER, load_model, read_card

FINDER = "segment-finder"
"""Finds the heart in a coarse view of the whole body."""


def member_name(number: int) -> str:
    """Return the name of a member of the ensemble that draws contours."""
    return f"segment-cine-{number}"


def members(folder: Path | None = None) -> tuple[str, ...]:
    """Return the names of the ensemble's members that are stored."""
    return tuple(sorted(path.stem for path in (folder or FOLDER).glob("segment-cine-*.json")))


class View(BaseModel):
    """What the card of a segmentation network says: its size, and what it wants to see.

    Parameters
    ----------
    features, dropout
        See :class:`~kspace.segment.network.NetworkOptions`.
    pixel_mm, size
        Of the square window that it was trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: tuple[int, ...]
    dropout: float
    pixel_mm: float = Field(gt=0.1, lt=20)
    size: int = Field(ge=16, le=1024)


@lru_cache(maxsize=16)
def stored_network(
    name: str, folder: Path | None = None, device: torch.device | None = None
) -> tuple[SegmentationNetwork, View]:
    """Return a stored network, ready to be used on a device, and its view; read once.

    Raises
    ------
    UsageError, InputError
        As :func:`kspace.weights.store.load_model`.
    """
    try:
        view = View.model_validate(dict(read_card(name, folder).options))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InputError(
            f"the card of {name} does not describe a segmentation network ({first['msg']})",
            expected="features, dropout, pixel_mm and size",
        ) from error
    network = SegmentationNetwork(NetworkOptions(view.features, view.dropout))
    load_model(name, network, folder)
    return network.requires_grad_(False).to(device), view
