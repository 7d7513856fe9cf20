from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kspace.segment.networks import member_name
from kspace.segment.segmentation import SlicePosition
from kspace.weights.store import read_card
from simulate.training.dataset import HeartOptions, Split
from simulate.training.exported_hearts import draw_exported, exported_hearts
from simulate.training.heart_bank import StoredHeart, read_heart
from simulate.training.segment import MODELS, SegmentTraining, train_segment
from tests.simulate.training.test_segment import TINY, TRAINING


def test_every_other_slice_of_a_patient_is_drawn_around_the_heart() -> None:
    hearts = draw_exported(Split.TRAIN, 0, HeartOptions(frames=3, size=64, pixel_mm=2.8))
    assert len(hearts) >= 4
    for heart in hearts:
        assert heart.images.shape == heart.labels.shape == (3, 64, 64)
        assert float(heart.images.mean()) == pytest.approx(0, abs=1e-3)
        assert float(heart.images.std()) == pytest.approx(1, abs=1e-3)
    middle = [heart for heart in hearts if heart.position is SlicePosition.MIDDLE]
    assert middle
    for heart in middle:
        there = torch.nonzero(heart.labels == 1)[:, 1:].double().mean(0)
        assert bool(((there - 31.5).abs() < 16).all()), "the cavity is near the middle of its window"
        # Blood is brighter than the wall around it.
        assert float(heart.images[heart.labels == 1].mean()) > float(heart.images[heart.labels == 2].mean())


def tiny_exports(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Split, int]]:
    drawn: list[tuple[Split, int]] = []

    def draw(split: Split, index: int, options: HeartOptions) -> tuple[StoredHeart, ...]:
        drawn.append((split, index))
        labels = torch.zeros(3, 32, 32, dtype=torch.uint8)
        labels[:, 10:20, 10:20] = 1
        return (StoredHeart(torch.randn(3, 32, 32), labels, SlicePosition.MIDDLE),) * 2

    monkeypatch.setattr("simulate.training.exported_hearts.draw_exported", draw)
    return drawn


def test_exports_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = tiny_exports(monkeypatch)
    first = list(exported_hearts(tmp_path, Split.TRAIN, range(5, 7), TINY.hearts_options))
    assert len(first) == 4
    assert drawn == [(Split.TRAIN, 5), (Split.TRAIN, 6)]
    # A patient of whom only a part was written is drawn again.
    (tmp_path / "exported-train-00006.done").unlink()
    first[-1].unlink()
    assert list(exported_hearts(tmp_path, Split.TRAIN, range(5, 7), TINY.hearts_options)) == first
    assert drawn[2:] == [(Split.TRAIN, 6)]


def test_members_end_on_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = tiny_exports(monkeypatch)
    read: list[str] = []

    def spied(path: Path) -> StoredHeart:
        read.append(path.name)
        return read_heart(path)

    monkeypatch.setattr("simulate.training.segment_task.read_heart", spied)
    training = SegmentTraining(
        TINY, TINY, TRAINING.finder, TINY, members=1, exported=2, exported_validation=1, validation=2, minutes=5
    )
    result = train_segment(tmp_path, training, only=member_name(0))
    assert result.steps == 2 * TINY.steps
    assert {split for split, _ in drawn} == {Split.TRAIN, Split.VALIDATION}
    assert any(name.startswith("exported-train") for name in read)
    assert any(name.startswith("exported-validation") for name in read)
    card = read_card(member_name(0), tmp_path / MODELS)
    assert "ended on exports of 2 patients" in card.training_data
    assert card.cost.startswith(f"{2 * TINY.steps} steps")


def test_hearts_that_are_not_drawn_yet_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_exports(monkeypatch)
    training = SegmentTraining(
        TINY, TINY, TRAINING.finder, TINY, members=1, exported=1, exported_validation=1, validation=2, minutes=5
    )
    train_segment(tmp_path, replace(training, exported=0), only=member_name(0))
    for path in (tmp_path / "hearts").glob("train-*.safetensors"):
        path.unlink()  # as if time had been up before
    assert train_segment(tmp_path, training, only=member_name(0)).steps == 2 * TINY.steps
