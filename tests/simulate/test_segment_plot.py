from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from kspace.biomarkers import curve_bands
from kspace.scan import Geometry
from kspace.segment.segmentation import Structure
from kspace.volume_curves import VolumeCurves, volume_curves
from simulate.segment_plot import COLOURS, plot_curves

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def paths(svg: str, **attributes: str) -> list[str]:
    found = ElementTree.fromstring(svg).iter(f"{SVG}path")
    return [e.get("d", "") for e in found if all(e.get(key.replace("_", "-")) == v for key, v in attributes.items())]


def numbers(path: str) -> torch.Tensor:
    return torch.tensor([float(n) for n in re.findall(r"-?\d+\.?\d*", path)]).reshape(-1, 2)


@pytest.fixture(scope="module")
def made(make_cine: Any, segment_cine: Any) -> Any:
    return segment_cine(make_cine(slices=5, frames=8))


def test_every_structure_has_its_line_its_band_and_its_name(made: Any) -> None:
    curves, bands = volume_curves(made.labels, made.geometry), curve_bands(made)
    svg = plot_curves(curves, bands, rr_s=0.8, subtitle="EF < 50 % & more")
    for colour in COLOURS.values():
        assert len(paths(svg, stroke=colour)) == 1
        assert len(paths(svg, fill=colour)) == 1
    said = texts(svg)
    assert {"LV cavity", "myocardium", "RV cavity", "ED", "ES", "EF < 50 % & more"} <= set(said)
    assert "ms from the start of the beat" in said
    assert any(text.endswith(" mL") for text in said)


def test_points_are_where_the_volumes_are(made: Any) -> None:
    curves = volume_curves(made.labels, made.geometry)
    svg = plot_curves(curves, {}, rr_s=None)
    points = numbers(paths(svg, stroke=COLOURS[Structure.LV])[0])
    volumes = curves.of(Structure.LV).float()
    zero = float(re.findall(r"V([\d.]+)", paths(svg, **{"stroke-dasharray": "3 4"})[0])[0])
    height = zero - points[:, 1]
    torch.testing.assert_close(height / height.max(), volumes / volumes.max(), atol=2e-3, rtol=0)
    assert points[:, 0].diff().std() < 0.3
    assert "per cent of the beat" in texts(svg)
    assert not any("bands" in text for text in texts(svg))


def test_phases_that_nobody_drew_are_gaps_and_a_phase_alone_is_a_dot(made: Any) -> None:
    labels = made.labels.clone()
    labels[:, [1, 3, 4, 5, 6, 7]] = 0
    svg = plot_curves(volume_curves(labels, made.geometry), {}, rr_s=0.8)
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}circle"))) == 6  # two phases of three structures
    assert paths(svg, stroke=COLOURS[Structure.LV]) == []


def test_nothing_at_all_can_be_drawn() -> None:
    empty = VolumeCurves(torch.full((3, 4, 6), torch.nan, dtype=torch.float64), 8.0)
    assert "Volumes over the beat" in texts(plot_curves(empty, {}, rr_s=0.8))


def test_a_single_slice_has_areas(make_cine: Any, segment_cine: Any) -> None:
    labels = segment_cine(make_cine(frames=5)).labels
    svg = plot_curves(volume_curves(labels, Geometry.from_spacing((1, 48, 48), (8, 3, 3))), {}, rr_s=0.8)
    assert "Areas over the beat" in texts(svg)
    assert any(text.endswith(" cm²") for text in texts(svg))
