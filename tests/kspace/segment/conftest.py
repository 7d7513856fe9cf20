"""A drawn heart, and segmentation networks without training, stored as the real ones are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kspace.segment.network import NetworkOptions, SegmentationNetwork
from kspace.segment.networks import FINDER, View, member_name
from kspace.segment.segmentation import Structure
from kspace.weights.card import ModelCard
from kspace.weights.store import save_model


def store(name: str, folder: Path, seed: int, size: int, pixel_mm: float, bias: float = 0.0) -> None:
    """Write an untrained network that leans towards foreground by ``bias``."""
    torch.manual_seed(seed)
    options = NetworkOptions((4, 8, 8), dropout=0.5)
    network = SegmentationNetwork(options)
    with torch.no_grad():
        network.labels.conv.conv.weight.mul_(8)  # or hardly a pixel would be drawn
        network.labels.conv.conv.bias[1:] += bias
        network.position.bias[2] += 5.0  # a middle slice, or nothing would be kept
    card = ModelCard(
        name=name, task="segment", description="untrained", architecture="SegmentationNetwork",
        options=View(**asdict(options), pixel_mm=pixel_mm, size=size).model_dump(mode="json"),
        training_data="none", seed=seed, commit="",
        cost="none", figures={}, limits=["untrained"],
    )  # fmt: skip
    save_model(network, card, folder)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return a folder with a finder and so many members."""

    def make(members: int) -> Path:
        folder = tmp_path_factory.mktemp("networks")
        store(FINDER, folder, 0, 32, 9.0, bias=1.0)
        for k in range(members):
            store(member_name(k), folder, k + 1, 32, 4.0)
        return folder

    return make


@pytest.fixture
def heart() -> Tensor:
    """(40, 52) uint8: a cavity in a ring three to four pixels thick, and a crescent that lies against it."""
    y, x = torch.arange(40)[:, None] - 20, torch.arange(52) - 30
    radius = torch.hypot(y.float(), x.float())
    labels = torch.zeros(40, 52, dtype=torch.uint8)
    labels[torch.hypot(y.float(), x.float() + 9) < 12] = Structure.RV
    labels[radius < 11] = Structure.MYOCARDIUM
    labels[radius < 7.5] = Structure.LV
    return labels
