from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kspace.errors import UsageError
from simulate.vendors import VENDORS, sharpness_filter, vendor


def test_presets_are_what_cardiac_protocols_are():
    assert len(VENDORS) >= 4
    assert {preset.field_t for preset in VENDORS.values()} == {1.5, 3.0}
    for name, preset in VENDORS.items():
        assert vendor(name) is preset
        assert preset.name == name
        assert preset.source
        assert 1.3 < preset.pixel_mm < 2.2
        assert preset.sequence.tr_s == preset.tr_s
        assert 0.3 < preset.sequence.echo_s / preset.tr_s < 0.6
        assert 0.5 < preset.flip_rad < 1.5


def test_geometry_has_the_field_of_view_and_the_gap():
    preset = vendor("siemens")
    geometry = preset.geometry
    assert geometry.shape == (10, 208, 208)
    assert geometry.spacing_mm == pytest.approx((10.0, 380 / 208, 380 / 208))
    assert geometry.slice_thickness_mm == 8
    assert geometry.field_of_view_mm == pytest.approx((380.0, 380.0))


def test_sharpness_filter_has_the_gain_that_is_stated_at_the_edge():
    for gain in (0.6, 1.0, 1.3):
        values = sharpness_filter((32, 24), gain)
        assert values.shape == (32, 24)
        assert float(values[16, 12]) == 1
        assert float(values[0, 12]) == pytest.approx(gain)
        assert float(values[16, 0]) == pytest.approx(gain)
        assert float(values[0, 0]) == pytest.approx(gain)
    torch.testing.assert_close(sharpness_filter((32, 24), 1.0), torch.ones(32, 24))
    with pytest.raises(UsageError):
        sharpness_filter((8, 8), 0.0)


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="siemens"):
        vendor("acme")


@pytest.mark.parametrize(
    "wrong",
    [{"field_t": 7.0}, {"tr_s": 1.0}, {"te_s": 0.1}, {"matrix": 2}, {"edge_gain": 0.0}, {"n_coils": 0},
     {"slice_gap_mm": -1.0}, {"field_of_view_mm": float("nan")}],
)  # fmt: skip
def test_presets_that_make_no_sense_are_refused(wrong: dict[str, Any]):
    with pytest.raises(UsageError):
        replace(vendor("ge"), **wrong)
