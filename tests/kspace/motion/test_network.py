"""The network: its size, its calibration, and what is shipped."""

import pytest
import torch

from kspace.errors import ShapeError
from kspace.motion.features import NAMES
from kspace.motion.network import SpokeNetwork, SpokeNetworkOptions, shipped_detector
from simulate.training.motion import calibrate
from simulate.training.motion_bank import BankedScan


def test_a_spoke_out_per_spoke_in():
    network = SpokeNetwork(SpokeNetworkOptions(channels=4))
    assert network(torch.zeros(2, 50, len(NAMES))).shape == (2, 50)
    with pytest.raises(ShapeError):
        network(torch.zeros(2, 50, 3))


def test_what_is_shipped_is_small_and_calls_nothing_unusual_sound():
    network, card = shipped_detector()
    assert card.n_parameters < 100_000
    with torch.no_grad():
        usual = torch.zeros(1, 400, len(NAMES))
        usual[..., NAMES.index("known")] = 1
        assert float(torch.sigmoid(network(usual)).max()) < 0.5


def test_calibration_makes_overconfidence_modest():
    network = SpokeNetwork(SpokeNetworkOptions(features=1, channels=2, dilations=()))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.enter.weight[0] = 10.0
        network.leave.weight[0, 0] = 1.0
    generator = torch.Generator().manual_seed(0)
    # Where the feature is 1 the logit is 10, and half of the spokes are corrupted.
    features = (torch.arange(4000) % 2).float()[:, None]
    corrupted = (features[:, 0] > 0) & (torch.rand(4000, generator=generator) < 0.5)
    calibrate(network, [BankedScan(features, corrupted, corrupted.float())])
    with torch.no_grad():
        chance = torch.sigmoid(network(features[None])[0])
    assert float(chance[1]) == pytest.approx(0.5, abs=0.05)
    assert float(chance[0]) < 0.1
