from __future__ import annotations

import pytest
import torch

from kspace.errors import ShapeError
from kspace.recon.networks.automap import Automap


@pytest.mark.parametrize(("n", "expected"), [(64, 50_447_105), (128, 805_446_401)])
def test_parameters_are_those_of_the_paper(n: int, expected: int) -> None:
    with torch.device("meta"):
        network = Automap(n)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_it_can_be_trained() -> None:
    torch.manual_seed(0)  # of 200 seeds one gives three features that are all nought, and no gradient
    network = Automap(8, features=3)
    image = network(torch.randn(2, 8, 8, dtype=torch.complex64))
    assert image.shape == (2, 8, 8)
    image.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(batch, 8, 8\) and complex"):
        Automap(8, features=2)(torch.zeros(8, 8, dtype=torch.complex64))
