from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kspace.errors import InputError, UsageError
from kspace.recon.locally_low_rank import LocallyLowRank
from kspace.recon.method import Reconstruction
from kspace.recon.networks.temporal_prior import PriorOptions
from kspace.recon.networks.unrolled import UnrolledNetwork, UnrolledOptions
from kspace.recon.unrolled import Recipe, Unrolled, shipped_network
from kspace.weights.card import ModelCard
from kspace.weights.store import save_model

RECIPE = Recipe(
    blocks=2, iterations=4, consistency="cg", channels=(8, 8), depth=(1, 1), start_iterations=10,
    start_noise_factor=0.2, start_signal_factor=0.005, start_patch=8, warm_iterations=3,
    second_iterations=8, second_noise_factor=1.0, second_signal_factor=0.01,
)  # fmt: skip


def a_card(name: str = "small", **changes: Any) -> ModelCard:
    given = {
        "name": name, "task": "recon", "description": "a", "architecture": "UnrolledNetwork",
        "options": RECIPE.model_dump(mode="json"), "training_data": "none", "seed": 0, "commit": "", "cost": "none",
        "figures": {}, "limits": [],
    }  # fmt: skip
    return ModelCard(**{**given, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = UnrolledNetwork(UnrolledOptions(2, PriorOptions((8, 8), (1, 1), second=True)))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    save_model(network, a_card(), tmp_path)
    return tmp_path


def test_it_reconstructs_with_stored_weights(folder: Path, make_case: Any) -> None:
    case = make_case(spokes_per_frame=12, noise_std=0.01)
    equations, maps = case.equations(), case.maps
    found = Unrolled("small", folder)(equations, maps, noise_std=0.01)
    assert found.image.shape == case.images.shape
    assert found.iterations == 2
    error = torch.linalg.vector_norm(found.image - case.images) / torch.linalg.vector_norm(case.images)
    assert float(error) < 0.3


def test_it_goes_on_from_what_it_returned(folder: Path, make_case: Any) -> None:
    case = make_case(noise_std=0.05)
    equations, maps = case.equations(), case.maps
    method = Unrolled("small", folder)
    first = method(equations, maps, noise_std=0.05)
    again = method(equations, maps, noise_std=0.05, start=first)
    assert len(again.state) == len(first.state) == 3  # images of both kinds, and the dual of one
    # Compressed sensing has come further, so that the network starts from something better.
    error = torch.linalg.vector_norm(again.image - first.image) / torch.linalg.vector_norm(first.image)
    assert 0 < float(error) < 0.2


def test_the_fewer_spokes_are_new_the_shorter_its_start() -> None:
    assert [RECIPE.start(new).max_iterations for new in (1.0, 0.5, 0.3, 0.1, 0.0)] == [10, 5, 3, 3, 3]


def test_a_warm_start_costs_less_and_comes_as_far(folder: Path, make_case: Any, monkeypatch: Any) -> None:
    done: list[int] = []
    plain = LocallyLowRank.__call__

    def counted(self: LocallyLowRank, *arguments: Any, **options: Any) -> Reconstruction:
        found = plain(self, *arguments, **options)
        done.append(found.iterations)
        return found

    monkeypatch.setattr(LocallyLowRank, "__call__", counted)
    case = make_case(spokes_per_frame=20, noise_std=0.01)
    method, some = Unrolled("small", folder), case.equations(n_spokes=50)
    before = method(some, case.maps, noise_std=0.01)
    assert before.spokes == 50
    warm, cold = (method(case.equations(), case.maps, noise_std=0.01, start=start) for start in (before, None))
    # Ten spokes of sixty are new: a sixth of the ten iterations, and no fewer than three.
    assert done == [10, 3, 10]
    errors = [float(torch.linalg.vector_norm(found.image - case.images)) for found in (warm, cold)]
    assert errors[0] < 1.02 * errors[1]
    # What says that it knows few of the spokes, or not how many, is not gone on from.
    for spokes in (0, 30):
        again = method(case.equations(), case.maps, noise_std=0.01, start=replace(before, spokes=spokes))
        assert torch.equal(again.image, cold.image)


def test_who_listens_can_stop_it(folder: Path, make_case: Any) -> None:
    case = make_case()
    found = Unrolled("small", folder)(case.equations(), case.maps, on_iteration=lambda status: status.iteration == 1)
    assert found.iterations == 1


def test_half_precision_is_near(folder: Path, make_case: Any) -> None:
    case = make_case(noise_std=0.05)
    single, half = (Unrolled("small", folder, half=h)(case.equations(), case.maps).image for h in (False, True))
    error = torch.linalg.vector_norm(half - single) / torch.linalg.vector_norm(single)
    assert float(error) < 5e-3


def test_no_spokes_give_nothing(folder: Path, make_case: Any) -> None:
    case = make_case()
    image = Unrolled("small", folder)(case.equations(n_spokes=0), case.maps).image
    assert float(image.abs().max()) == 0


def test_other_models_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="there is no model"):
        shipped_network("absent", folder)
    network = UnrolledNetwork(UnrolledOptions(2, PriorOptions((8, 8), (1, 1), second=True)))
    save_model(network, a_card("foreign", options={"depth": 3}), folder)
    with pytest.raises(InputError, match="does not describe an unrolled network"):
        shipped_network("foreign", folder)
    wider = {**RECIPE.model_dump(mode="json"), "channels": [12, 8]}
    save_model(network, a_card("wider", options=wider), folder)
    with pytest.raises(InputError, match="shape"):
        shipped_network("wider", folder)
