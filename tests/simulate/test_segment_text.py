from __future__ import annotations

from typing import Any

from kspace.biomarkers import biomarkers
from simulate.segment_text import biomarker_line, segment_text


def answer(found: Any, **more: Any) -> dict[str, Any]:
    files = {name: f"{name}.file" for name in ("labels", "movie", "plot")}
    return {**found.record(), "problems": ["the LV has 2 minima in one beat"], **files, **more}


def test_measures_come_with_their_intervals(make_cine: Any, segment_cine: Any) -> None:
    found = biomarkers(segment_cine(make_cine(slices=5)))
    line = biomarker_line(found)
    low, high = (found.to_dict()["lv_edv_ml"][key] for key in ("low", "high"))  # type: ignore[index]
    assert f"EDV {found.value('lv_edv_ml'):.0f} mL ({low:.0f} to {high:.0f})" in line
    text = segment_text(answer(found))
    assert len([row for row in text.splitlines() if row.startswith(("LV ", "RV "))]) == 8
    assert "Mind: the LV has 2 minima in one beat." in text
    assert text.splitlines()[-1] == "Plot: plot.file"


def test_what_is_missing_says_why(make_cine: Any, segment_cine: Any) -> None:
    found = biomarkers(segment_cine(make_cine(slices=1)))
    assert biomarker_line(found) == "One slice has areas and no volumes."
    assert "-  one slice has areas and no volumes" in segment_text(answer(found))


def test_scores_are_a_table(make_cine: Any, segment_cine: Any) -> None:
    scores = {
        "structures": {
            "lv": {"frames": [0, 12], "dice": [0.95, 0.0], "hd95_mm": [2.5, "inf"], "volume_ml": [150, 0],
                   "truth_ml": [148.04, 70]},
        },
        "flips": {"correct": 0.9, "flipped": 0.06, "missed": 0.04},
        "errors": {"lv_edv_ml": 1.96, "lv_ef_percent": None},
    }  # fmt: skip
    rows = segment_text(answer(biomarkers(segment_cine(make_cine(slices=5))), scores=scores)).splitlines()
    start = next(index for index, row in enumerate(rows) if row.startswith("structure"))
    assert rows[start + 1].split() == ["lv", "0", "0.950", "2.5", "150.0", "148.0"]
    assert rows[start + 2].split() == ["lv", "12", "0.000", "inf", "0.0", "70.0"]
    assert rows[start + 3] == "Of the truth's foreground: 90.0 % correct, 6.0 % flipped, 4.0 % missed"
    assert rows[start + 4] == "Prediction minus truth: lv_edv_ml +2.0"
