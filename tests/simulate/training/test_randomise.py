from __future__ import annotations

import numpy as np
import pytest

from kspace.errors import UsageError
from simulate.patient.parameters import Group
from simulate.tissues import N_TISSUES, Tissue
from simulate.training.randomise import Randomisation

LOOKS = [Randomisation().draw(np.random.default_rng([7, i])) for i in range(150)]


def test_the_same_chance_gives_the_same_look() -> None:
    assert Randomisation().draw(np.random.default_rng([7, 3])) == LOOKS[3]
    assert len({look.seed for look in LOOKS}) == len(LOOKS)


def test_draws_stay_within_their_ranges_and_fill_them() -> None:
    ranges = Randomisation()
    for name in ("thickness_mm", "gamma", "snr", "window_share", "shading"):
        values = np.array([getattr(look, name) for look in LOOKS])
        low, high = getattr(ranges, name)
        assert low <= values.min() < low + 0.15 * (high - low)
        assert high - 0.25 * (high - low) < values.max() <= high
    assert {look.group for look in LOOKS} == set(Group)


def test_the_wall_can_be_told_from_blood_and_is_sometimes_brighter() -> None:
    signals = np.array([look.signals for look in LOOKS])
    assert signals.shape == (150, N_TISSUES)
    assert np.isfinite(signals).all()
    assert (signals >= 0).all()
    ratio = signals[:, Tissue.MYOCARDIUM] / signals[:, Tissue.ARTERIAL_BLOOD]
    assert (np.abs(np.log(ratio)) > np.log(1.25) - 0.25).all()
    assert 0.01 < (ratio > 1).mean() < 0.2
    assert np.ptp(np.log(signals[:, Tissue.FAT])) > 1


def test_artefacts_are_some_and_not_most() -> None:
    for name, absent in (("ghost", 0.0), ("fold", 0.0), ("spokes_share", 1.0), ("spike", 0.0), ("band", 0.0)):
        share = np.mean([getattr(look, name) != absent for look in LOOKS])
        assert 0.03 < share < 0.5
    none = Randomisation(artefacts=0.0, framed=0.0, negative=0.0)
    plain = [none.draw(np.random.default_rng(i)) for i in range(30)]
    assert all(look.ghost == look.fold == look.spike == 0 and look.spokes_share == 1 for look in plain)
    assert not any(look.negative or any(look.border_px) for look in plain)


def test_ranges_are_checked() -> None:
    with pytest.raises(UsageError, match="gamma"):
        Randomisation(gamma=(2.0, 1.0))
    with pytest.raises(UsageError, match="inverted"):
        Randomisation(inverted=1.5)
    with pytest.raises(UsageError, match="groups"):
        Randomisation(groups=(0.5, 0.5))


def test_a_look_can_be_written_down() -> None:
    written = LOOKS[0].to_dict()
    assert written["group"] == LOOKS[0].group.value
    assert written["texture"]["blood"] == LOOKS[0].texture.blood
