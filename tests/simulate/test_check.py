from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kspace.errors import InputError, UsageError
from kspace.formats.nifti import write_cine
from kspace.recon.methods import make_method
from kspace.scan import Cine, Geometry
from kspace.segment.segmentation import Segmentation, SlicePosition
from simulate.check import CheckOptions, check_source, judge_slice
from simulate.study.protocol import Protocol
from simulate.study.stack import scan_who


def rings(cine: Cine, *, open_ring: bool = False) -> Segmentation:
    """A cavity in a ring beside another cavity, larger in the first half of the beat."""
    slices, frames, rows, columns = cine.images.shape
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    labels = torch.zeros((slices, frames, rows, columns), dtype=torch.uint8)
    for frame in range(frames):
        inner = 6 - 2 * (frame >= frames // 2)
        radius = torch.hypot(y - rows / 2.0, x - columns / 2.0)
        labels[:, frame, radius < 9] = 2
        labels[:, frame, radius < inner] = 1
        labels[:, frame, (radius >= 9) & (radius < 14) & (x > columns / 2 + 3)] = 3
    if open_ring:
        labels[:, :, rows // 2, : columns // 2][labels[:, :, rows // 2, : columns // 2] == 2] = 0
    probabilities = torch.zeros(slices, 4)
    probabilities[:, SlicePosition.MIDDLE] = 1
    return Segmentation(
        labels, cine.geometry, (SlicePosition.MIDDLE,) * slices, probabilities, labels[None].repeat(2, 1, 1, 1, 1),
        torch.zeros(labels.shape), torch.zeros(slices, frames),
    )  # fmt: skip


@pytest.fixture
def cine(tmp_path: Path) -> Path:
    images = torch.rand(3, 6, 40, 40) + 1
    geometry = Geometry.from_spacing((3, 40, 40), (10.0, 2.0, 2.0))
    write_cine(tmp_path / "cine.nii.gz", Cine(images, geometry, 0.9, "noise"))
    return tmp_path / "cine.nii.gz"


def test_a_cine_is_judged_by_its_labels(cine: Path) -> None:
    answer = check_source(str(cine), CheckOptions(), segment=lambda cine, on_slice=None: rings(cine))
    assert answer["kind"] == "cine"
    assert [row["index"] for row in answer["slices"]] == [0, 1, 2]
    assert all(row["betti_errors"] == 0 for row in answer["slices"])
    assert all(row["disagreement"] == pytest.approx(0) for row in answer["slices"])
    assert answer["biomarkers"]["lv_ef_percent"] is not None or "lv_ef_percent" in answer["biomarkers_missing"]
    assert answer["calibrated"] is False


def test_an_open_ring_is_worth_a_second_look(cine: Path) -> None:
    answer = check_source(str(cine), CheckOptions(), segment=lambda cine, on_slice=None: rings(cine, open_ring=True))
    assert any("pieces and holes" in doubt for doubt in answer["worth_a_second_look"])
    assert "second look" in answer["text"]


def test_slices_can_be_chosen(cine: Path) -> None:
    options = CheckOptions(slices="1-2")
    answer = check_source(str(cine), options, segment=lambda cine, on_slice=None: rings(cine))
    assert [row["index"] for row in answer["slices"]] == [1, 2]


def test_held_out_spokes_tell_good_images_from_poor_ones() -> None:
    protocol = Protocol(n_slices=3, matrix=48, n_coils=3, snr=(25, 25), frames=4)
    errors = []
    for seconds in (0.8, 6.0):
        stream = scan_who(protocol, protocol.who(0)).open_slice(1)
        image, scores = judge_slice(stream.acquire(seconds), make_method("cg-sense"), 4)
        assert image.shape == (4, 48, 48)
        errors.append(scores["held_out_error"])
    assert errors[1] < 0.6 * errors[0]


def test_what_cannot_be_judged_is_refused(tmp_path: Path, cine: Path) -> None:
    with pytest.raises(InputError):
        check_source(str(tmp_path / "nothing.nii"), CheckOptions())
    with pytest.raises(UsageError, match="rr-s"):
        check_source(str(cine), CheckOptions(rr_s=9.0))
    zero = tmp_path / "zero.nii.gz"
    write_cine(zero, Cine(torch.zeros(2, 4, 16, 16), Geometry.from_spacing((2, 16, 16), (8.0, 2.0, 2.0)), 1.0, "zero"))
    with pytest.raises(InputError, match="zero"):
        check_source(str(zero), CheckOptions())
