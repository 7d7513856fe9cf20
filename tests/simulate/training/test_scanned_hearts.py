from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kspace.errors import InputError
from kspace.segment.segmentation import SlicePosition
from simulate.training.bank import Bank, read_scan
from simulate.training.dataset import HeartOptions, Split
from simulate.training.heart_bank import read_heart
from simulate.training.scanned_hearts import scanned_heart, scanned_hearts
from simulate.training.scans import ProtocolRange
from simulate.vendors import vendor

LIMITS = ProtocolRange(
    matrix=(64, 64), n_coils=(3, 3), n_frames=(4, 4), seconds=((0.4, 0.5), (0.6, 0.7)), vendors=("ge",)
)
OPTIONS = HeartOptions(size=64, pixel_mm=3.0)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    bank = Bank(tmp_path_factory.mktemp("bank"), LIMITS)
    bank.fill(Split.TRAIN, 0, 1)
    yield bank
    torch.set_num_threads(before)


def test_hearts_come_with_their_labels(bank: Bank, tmp_path: Path) -> None:
    paths = list(scanned_hearts(bank, tmp_path / "hearts", Split.TRAIN, OPTIONS))
    assert len(paths) == 2
    for path, scan in zip(paths, sorted(bank.folder.iterdir()), strict=True):
        heart, stored = read_heart(path), read_scan(scan)
        assert heart.images.shape == heart.labels.shape == (4, 64, 64)
        assert heart.position is not SlicePosition.NO_HEART
        # The same areas in square millimetres, and blood that is brighter than the wall.
        pixel = vendor("ge").field_of_view_mm / 64
        area = float((stored.labels == 1).sum()) * pixel**2
        assert float((heart.labels == 1).sum()) * 9 == pytest.approx(area, rel=0.1)
        assert float(heart.images[heart.labels == 1].mean()) > float(heart.images[heart.labels == 2].mean())
    # The window of each time misses the heart by another distance.
    first, second = (torch.nonzero(read_heart(path).labels > 0).double().mean(0)[1:] for path in paths)
    assert float((first - second).abs().max()) > 0.5


def test_what_is_there_is_not_made_again(bank: Bank, tmp_path: Path) -> None:
    (path, _) = scanned_hearts(bank, tmp_path, Split.TRAIN, OPTIONS)
    before = path.stat().st_mtime_ns
    list(scanned_hearts(bank, tmp_path, Split.TRAIN, OPTIONS))
    assert path.stat().st_mtime_ns == before


def test_other_files_are_refused(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no scan of a bank"):
        scanned_heart(tmp_path / "cine.nii.gz", bank, OPTIONS)
