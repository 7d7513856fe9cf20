from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kspace.errors import InputError
from kspace.recon.gridding import Gridding
from kspace.recon.networks.unet import CineUNet
from kspace.recon.unet import UNet, shipped_unet
from kspace.weights.card import ModelCard
from kspace.weights.store import save_model

OPTIONS = {"neighbours": 3, "features": 4, "levels": 1}


def a_card(name: str, options: dict[str, Any]) -> ModelCard:
    return ModelCard(
        name=name, task="recon", description="a", architecture="CineUNet", options=options, training_data="none",
        seed=0, commit="", cost="none", figures={}, limits=[],
    )  # fmt: skip


def test_untrained_it_is_gridding(make_case: Any, check: Any, tmp_path: Path) -> None:
    save_model(CineUNet(**OPTIONS), a_card("plain", OPTIONS), tmp_path)
    case = make_case()
    equations = case.equations()
    check.close(UNet("plain", tmp_path)(equations, case.maps).image, Gridding()(equations, case.maps).image, 1e-5)
    double = case.equations(dtype=torch.complex128)
    assert UNet("plain", tmp_path)(double, case.maps.to(torch.complex128)).image.dtype == torch.complex128


def test_other_models_are_refused(tmp_path: Path) -> None:
    save_model(CineUNet(**OPTIONS), a_card("foreign", {"width": 3}), tmp_path)
    with pytest.raises(InputError, match="does not describe a U-Net"):
        shipped_unet("foreign", tmp_path)
