from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kspace.errors import InputError
from kspace.formats.nifti import write_cine
from kspace.scan import Cine, Geometry
from kspace.segment.orient import Turn, usual_turn
from kspace.segment.segmentation import Segmentation, SlicePosition, Structure
from simulate.training.dataset import HeartOptions
from simulate.training.heart_bank import read_heart
from simulate.training.pseudo_labels import pseudo_hearts, pseudo_labelled

OPTIONS = HeartOptions(size=64, pixel_mm=2.0)
FRAMES, ROWS = 16, 80
SPACING_MM = 2.5
PLACES = (SlicePosition.BASE, SlicePosition.MIDDLE, SlicePosition.MIDDLE, SlicePosition.APEX, SlicePosition.NO_HEART)
# Rows to the feet and columns to the left: the usual way round.
AFFINE = np.array([[-2.5, 0, 0, 100.0], [0, 0, -10.0, 60], [0, -2.5, 0, 100], [0, 0, 0, 1]])


def beating(*, dips: int = 1, off: int = 0) -> Tensor:
    """Return (slice, frame, y, x) labels of a heart of ``dips`` beats, off the middle; the last slice is empty."""
    y, x = torch.arange(ROWS)[:, None] - 44.0, torch.arange(ROWS) - 34.0 - off
    phase = torch.arange(FRAMES) / FRAMES
    cavity = 10 - 3.5 * (0.5 - 0.5 * torch.cos(2 * math.pi * dips * phase))
    labels = torch.zeros(len(PLACES), FRAMES, ROWS, ROWS, dtype=torch.uint8)
    for k, size in enumerate((0.8, 1.0, 0.9, 0.6)):
        for f, inner in enumerate((cavity * size).tolist()):
            outer = math.sqrt(inner**2 + 80 * size)
            radius = torch.hypot(y, x)
            labels[k, f][torch.hypot(y + 2, x + outer) < inner + 1.5] = Structure.RV
            labels[k, f][radius < outer] = Structure.MYOCARDIUM
            labels[k, f][radius < inner] = Structure.LV
    return labels


def imaged(labels: Tensor) -> Cine:
    images = torch.tensor([0.3, 1.0, 0.2, 0.9])[labels.long()]
    images = images + 0.02 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    return Cine(images, Geometry((len(labels), ROWS, ROWS), AFFINE))


@dataclass
class Teacher:
    """Draws what it was told for each stack, in the order of their names, and counts."""

    drawn: list[Tensor]
    seen: list[Cine] = field(default_factory=list)

    def __call__(self, cine: Cine) -> Segmentation:
        self.seen.append(cine)
        return segmented(self.drawn[len(self.seen) - 1], cine)


def segmented(labels: Tensor, cine: Cine) -> Segmentation:
    certain = torch.eye(len(SlicePosition))[[int(place) for place in PLACES]]
    return Segmentation(
        labels, cine.geometry, PLACES, certain, labels[None], torch.zeros(labels.shape), torch.zeros(labels.shape[:2])
    )


@pytest.fixture
def cines(tmp_path: Path) -> Path:
    folder = tmp_path / "cines"
    folder.mkdir()
    for name in ("a.nii", "b.nii.gz", "c.nii"):
        write_cine(folder / name, imaged(beating()))
    (folder / ".hidden").write_text("no cine")
    return folder


def test_only_what_is_plausible_is_learnt_from(cines: Path, tmp_path: Path) -> None:
    teacher = Teacher([beating(), beating(dips=2), torch.zeros_like(beating())])
    paths = list(pseudo_labelled(cines, teacher, tmp_path / "hearts", OPTIONS))
    assert [path.name for path in paths] == [f"pseudo-a.nii-{k:02d}.safetensors" for k in range(len(PLACES))]
    verdicts = [
        json.loads((tmp_path / "hearts" / f"{name}.json").read_text()) for name in ("a.nii", "b.nii.gz", "c.nii")
    ]
    assert verdicts[0] == {"problems": [], "slices": len(PLACES)}
    assert "minima" in " ".join(verdicts[1]["problems"])
    assert verdicts[2] == {"problems": ["there is no LV in any frame"], "slices": 0}
    for path, place, truth in zip(paths, PLACES, beating(), strict=True):
        heart = read_heart(path)
        assert heart.position is place
        assert heart.images.shape == heart.labels.shape == (FRAMES, 64, 64)
        # The same areas in square millimetres, frame by frame, and all of the heart in the window.
        for structure in (Structure.LV, Structure.MYOCARDIUM, Structure.RV):
            drawn = (heart.labels == structure).sum((1, 2)).double() * OPTIONS.pixel_mm**2
            expected = (truth == structure).sum((1, 2)).double() * SPACING_MM**2
            torch.testing.assert_close(drawn, expected, rtol=0.12, atol=30.0)
        if place is not SlicePosition.NO_HEART:
            assert float(heart.images[heart.labels == 1].mean()) > float(heart.images[heart.labels == 2].mean()) + 1


def test_windows_miss_the_heart_each_by_its_own_distance() -> None:
    labels = beating(off=5)
    cine = imaged(labels)
    found = segmented(labels, cine)
    middle = torch.nonzero((labels > 0).any(1))[:, 1:].double().mean(0)
    missed = []
    for heart, truth in list(zip(pseudo_hearts(cine, found, OPTIONS), labels, strict=True))[:-1]:
        seen, there = (torch.nonzero(part == Structure.LV)[:, 1:].double().mean(0) for part in (heart.labels, truth))
        missed.append((there - middle) * SPACING_MM - (seen - (OPTIONS.size - 1) / 2) * OPTIONS.pixel_mm)
    assert float(torch.stack(missed).abs().max()) < 15.5
    assert float((missed[0] - missed[1]).abs().max()) > 1
    again = list(pseudo_hearts(cine, found, OPTIONS))
    other = list(pseudo_hearts(cine, found, OPTIONS, seed=1))
    assert torch.equal(again[0].images, next(pseudo_hearts(cine, found, OPTIONS)).images)
    assert not torch.equal(again[0].images, other[0].images)


def test_hearts_are_turned_the_usual_way_round() -> None:
    """However a scanner stores a cine, the network learns from the same images as it will be given."""
    labels = beating()
    cine = imaged(labels)
    assert usual_turn(cine.geometry) == Turn()
    stored = Turn(True, False, True)
    affine = cine.geometry.affine.copy()
    # Turn: swap, then flip columns. Stored row r is usual column n - 1 - r; stored column c is usual row c.
    affine[:, 0], affine[:, 1] = AFFINE[:, 1], -AFFINE[:, 0]
    affine[:, 3] = AFFINE @ np.array([ROWS - 1, 0, 0, 1.0])
    turned = replace(cine, images=stored.undo(cine.images), geometry=Geometry(cine.geometry.shape, affine))
    assert usual_turn(turned.geometry) == stored
    for one, other in zip(
        pseudo_hearts(cine, segmented(labels, cine), OPTIONS),
        pseudo_hearts(turned, segmented(stored.undo(labels), turned), OPTIONS),
        strict=True,
    ):
        torch.testing.assert_close(one.images, other.images, rtol=0, atol=1e-3)
        assert float((one.labels != other.labels).float().mean()) < 1e-3


def test_what_has_a_verdict_is_not_segmented_again(cines: Path, tmp_path: Path) -> None:
    teacher = Teacher([beating(), beating(dips=2), beating(), beating()])
    first = list(pseudo_labelled(cines, teacher, tmp_path / "hearts", OPTIONS))
    assert len(first) == 2 * len(PLACES)
    # Broken off before its last verdict: that one is done again, and comes out the same.
    before = first[-1].read_bytes()
    (tmp_path / "hearts" / "c.nii.json").unlink()
    assert list(pseudo_labelled(cines, teacher, tmp_path / "hearts", OPTIONS)) == first
    assert len(teacher.seen) == 4
    assert first[-1].read_bytes() == before


@pytest.mark.parametrize("spoilt", [lambda folder: folder / "none", lambda folder: _with_text(folder)])
def test_folders_of_other_things_are_refused(cines: Path, tmp_path: Path, spoilt: Callable[[Path], Path]) -> None:
    with pytest.raises(InputError, match=r"no folder|no known format"):
        list(pseudo_labelled(spoilt(cines), Teacher([beating()] * 4), tmp_path / "hearts", OPTIONS))


def _with_text(folder: Path) -> Path:
    (folder / "notes.txt").write_text("no cine")
    return folder


def test_nothing_is_no_heart() -> None:
    labels = torch.zeros_like(beating())
    cine = imaged(beating())
    with pytest.raises(InputError, match="no heart"):
        next(pseudo_hearts(cine, segmented(labels, cine), OPTIONS))
