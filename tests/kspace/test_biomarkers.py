from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from kspace.biomarkers import BIOMARKERS, FURTHER, Measure, Missing, biomarkers, curve_bands, interval, measure
from kspace.errors import InputError
from kspace.scan import Geometry
from kspace.segment.segmentation import Segmentation, SlicePosition, Structure
from kspace.volume_curves import volume_curves

N_SLICES, N_FRAMES, SIZE = 6, 16, 48
GEOMETRY = Geometry.from_spacing((N_SLICES, SIZE, SIZE), (10.0, 2.0, 2.0))


def heart(shift: float = 0.0, rv: bool = True, ends: bool = False) -> Tensor:
    """(slice, frame, y, x) labels: rings that shrink at half the beat, smaller towards both ends of the stack."""
    y, x = torch.meshgrid(torch.arange(SIZE) - 24.0, torch.arange(SIZE) - 28.0, indexing="ij")
    labels = torch.zeros(N_SLICES, N_FRAMES, SIZE, SIZE, dtype=torch.uint8)
    for index in range(N_SLICES):
        part = 1.0 if ends else math.sqrt(max(0.0, 1 - ((index - 2.5) / 2.5) ** 2))
        for frame in range(N_FRAMES):
            inner = part * (10 - 3 * (0.5 - 0.5 * math.cos(2 * math.pi * frame / N_FRAMES)) + shift)
            if inner <= 0:
                continue
            outer = math.sqrt(inner**2 + part * 60)
            if rv:
                labels[index, frame][y**2 + (x + 16) ** 2 < (0.9 * inner) ** 2] = Structure.RV
            labels[index, frame][y**2 + x**2 < outer**2] = Structure.MYOCARDIUM
            labels[index, frame][y**2 + x**2 < inner**2] = Structure.LV
    return labels


def segmentation(labels: Tensor, samples: Tensor | None = None, geometry: Geometry = GEOMETRY) -> Segmentation:
    n_slices, n_frames = labels.shape[:2]
    return Segmentation(
        labels,
        geometry,
        (SlicePosition.MIDDLE,) * n_slices,
        torch.zeros(n_slices, 4),
        torch.zeros(0, *labels.shape, dtype=torch.uint8) if samples is None else samples,
        torch.zeros(labels.shape),
        torch.zeros(n_slices, n_frames),
    )


def test_a_heart_is_measured_by_its_own_pixels() -> None:
    labels = heart()
    found = biomarkers(segmentation(labels), 0.8)
    voxel_ml = 10 * 2 * 2 / 1000
    edv, esv = (float((labels[:, frame] == Structure.LV).sum()) * voxel_ml for frame in (0, 8))
    assert (found.ed_frame, found.es_frame) == (0, 8)
    assert found.value("lv_edv_ml") == pytest.approx(edv)
    assert found.value("lv_esv_ml") == pytest.approx(esv)
    assert found.value("lv_sv_ml") == pytest.approx(edv - esv)
    assert found.value("lv_ef_percent") == pytest.approx(100 * (edv - esv) / edv)
    assert found.value("lv_mass_g") == pytest.approx(
        float((labels[:, 0] == Structure.MYOCARDIUM).sum()) * voxel_ml * 1.05
    )
    assert found.value("rv_edv_ml") == pytest.approx(float((labels[:, 0] == Structure.RV).sum()) * voxel_ml)
    assert found.value("rv_sv_ml") == pytest.approx(found.value("rv_edv_ml") - found.value("rv_esv_ml"))
    # A raised cosine of so much stroke volume, once per 0.8 s, has this steepest slope.
    steepest = math.pi * (edv - esv) / 0.8
    assert found.value("lv_peak_filling_ml_s") == pytest.approx(steepest, rel=0.15)
    assert found.value("lv_peak_emptying_ml_s") == pytest.approx(steepest, rel=0.15)
    assert found.warnings == ()


def test_the_record_has_the_keys_that_others_read() -> None:
    record = biomarkers(segmentation(heart(rv=False))).record()
    json.dumps(record, allow_nan=False)
    assert tuple(record["biomarkers"]) == BIOMARKERS
    assert set(record["biomarkers"]["lv_edv_ml"]) == {"value", "low", "high"}
    assert record["biomarkers"]["rv_edv_ml"] is None
    assert set(record["biomarkers_missing"]) == {"rv_edv_ml", "rv_esv_ml", "rv_ef_percent"}
    assert record["beat"]["missing"].keys() == set(FURTHER)
    assert record["beat"]["ed_frame"] == 0


def test_samples_give_intervals_and_a_scale_widens_them() -> None:
    samples = torch.stack([heart(shift) for shift in (-0.6, -0.3, 0.0, 0.3, 0.6)])
    narrow, wide = (biomarkers(segmentation(heart(), samples), scale=scale).measures for scale in (1.0, 2.0))
    for name in ("lv_edv_ml", "lv_esv_ml", "rv_edv_ml"):
        a, b = narrow[name], wide[name]
        assert isinstance(a, Measure)
        assert isinstance(b, Measure)
        assert a.low is not None
        assert a.high is not None
        assert a.low < a.value < a.high
        assert b.low == pytest.approx(a.value - 2 * (a.value - a.low))
        assert b.high == pytest.approx(a.value + 2 * (a.high - a.value))
    volumes = [biomarkers(segmentation(sample)).value("lv_edv_ml") for sample in samples]
    assert narrow["lv_edv_ml"].low == pytest.approx(volumes[0] + 0.2 * (volumes[1] - volumes[0]))  # type: ignore[union-attr]


def test_intervals_stay_within_what_is_possible() -> None:
    samples = torch.stack([heart(shift) for shift in (-4.0, 0.0, 2.0)])
    found = biomarkers(segmentation(heart(), samples), scale=50.0).measures
    for name in ("lv_esv_ml", "lv_mass_g", "lv_ef_percent"):
        one = found[name]
        assert isinstance(one, Measure)
        assert one.low is not None
        assert one.high is not None
        assert 0 <= one.low <= one.value <= one.high
        assert one.high <= 100 or name != "lv_ef_percent"


def test_two_samples_give_no_interval() -> None:
    labels = heart()
    found = biomarkers(segmentation(labels, labels.expand(2, -1, -1, -1, -1).clone()))
    assert found.measures["lv_edv_ml"] == Measure(found.value("lv_edv_ml"))
    assert curve_bands(segmentation(labels, labels[None].clone())) == {}


def test_an_interval_holds_its_value_even_where_no_sample_does() -> None:
    low, high = interval(torch.tensor(10.0), torch.tensor([1.0, 2.0, 3.0]))
    assert low is not None
    assert high is not None
    assert 1 <= float(low) < 2
    assert float(high) == 10


def test_bands_follow_the_curve() -> None:
    samples = torch.stack([heart(shift) for shift in (-0.5, 0.0, 0.5)])
    made = segmentation(heart(), samples)
    low, high = curve_bands(made)[Structure.LV]
    curve = volume_curves(made.labels, GEOMETRY).of(Structure.LV)
    assert low.shape == high.shape == (N_FRAMES,)
    assert bool((low < curve).all())
    assert bool((curve < high).all())


@pytest.mark.parametrize("scale", [-1.0, math.inf, math.nan])
def test_a_scale_that_makes_no_sense_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match="scale"):
        biomarkers(segmentation(heart()), scale=scale)


def missing(labels: Tensor, name: str, geometry: Geometry = GEOMETRY, rr_s: float | None = 0.8) -> str:
    found = biomarkers(segmentation(labels, geometry=geometry), rr_s).measures[name]
    assert isinstance(found, Missing)
    return found.reason


def test_what_is_missing_says_why() -> None:
    one = Geometry.from_spacing((1, SIZE, SIZE), (10.0, 2.0, 2.0))
    assert "one slice" in missing(heart()[2:3], "lv_edv_ml", one)
    assert "no LV" in missing(heart() * 0, "lv_ef_percent")
    assert "both ends" in missing(heart(ends=True), "lv_edv_ml")
    assert "no RV" in missing(heart(rv=False), "rv_ef_percent")
    assert "second phase" in missing(heart()[:, :1], "lv_ef_percent")
    assert "too few phases" in missing(heart()[:, :9], "lv_peak_filling_ml_s")
    assert "length of the beat" in missing(heart(), "lv_peak_emptying_ml_s", rr_s=None)
    labels = heart()
    labels[labels == Structure.MYOCARDIUM] = 0
    assert "no myocardium" in missing(labels, "lv_mass_g")


def test_a_stack_that_ends_in_the_ventricle_is_told() -> None:
    cut = Geometry.from_spacing((4, SIZE, SIZE), (10.0, 2.0, 2.0))
    found = biomarkers(segmentation(heart()[2:6], geometry=cut))
    assert found.value("lv_edv_ml") > 0
    assert len(found.warnings) == 1
    assert "slice 0" in found.warnings[0]
    assert "lower bound" in found.warnings[0]


def test_an_lv_that_vanishes_is_told() -> None:
    labels = heart()
    labels[:, 8][labels[:, 8] == Structure.LV] = 0
    found = measure(volume_curves(labels, GEOMETRY))
    assert found.value("lv_ef_percent") == 100
    assert "vanishes in frame 8" in found.warnings[0]
