import json
from dataclasses import replace

import pytest

from kspace.errors import InputError
from simulate.patient.parameters import Group, Patient, Sex
from simulate.patient.population import draw_patient
from simulate.patient.quantities import describe


def test_a_record_holds_every_parameter_and_gives_the_patient_back() -> None:
    patient = draw_patient(5, group=Group.INFARCT, sex=Sex.FEMALE)
    record = json.loads(json.dumps(patient.to_dict()))
    assert Patient.from_dict(record) == patient
    rows = describe(patient)
    assert {row["name"].split(".")[0] for row in rows} == set(record)
    for row in rows:
        if row["name"] not in ("sex", "group"):
            assert row["meaning"]
            assert row["source"]
            assert row["low"] <= row["value"] <= row["high"]


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("left", "ef", 1.2),
        ("left", "edv_ml", -5.0),
        ("left", "mass_g", float("nan")),
        ("right", "ef", float("inf")),
        ("thorax", "fat_mm", 500.0),
        ("thorax", "lung_density", 3.0),
        ("left", "spongy_mm", 20.0),
        ("rhythm", "systole_offset_s", 0.3),
        ("rhythm", "heart_rate_bpm", 0.0),
        ("placement", "azimuth_rad", "left"),
    ],
)
def test_nonsense_is_refused_with_name_and_range(part: str, name: str, value: object) -> None:
    whole = draw_patient(1)
    with pytest.raises(InputError, match=name):
        replace(getattr(whole, part), **{name: value})


def test_a_record_with_parts_missing_or_unknown_is_refused() -> None:
    record = draw_patient(1).to_dict()
    with pytest.raises(InputError, match="thorax"):
        Patient.from_dict({key: value for key, value in record.items() if key != "thorax"})
    with pytest.raises(InputError, match="cannot be read"):
        Patient.from_dict(record | {"sex": "unknown"})
    with pytest.raises(InputError, match="cannot be read"):
        Patient.from_dict(record | {"left": {"edv": 3}})


def test_body_surface_area_follows_mosteller() -> None:
    patient = replace(draw_patient(1), height_cm=180.0, weight_kg=80.0)
    assert patient.bsa_m2 == pytest.approx(2.0)
