from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kspace.errors import InputError
from kspace.segment.segmentation import FOREGROUND
from simulate.study.compute import patient_trajectory
from simulate.study.protocol import Protocol
from simulate.study.run import run_study
from simulate.study.seen import Seen, as_bytes, path_of
from simulate.study.store import Store

TINY = Protocol(n_slices=2, matrix=48, frames=4, n_coils=2, seconds=(0.5, 1.0), method="gridding", window=64)


def test_the_labels_that_are_kept_have_the_areas_of_the_trajectory(tmp_path: Path) -> None:
    kept: list[Seen] = []
    one = patient_trajectory(TINY, TINY.who(3), kept.append)
    seen = kept[0]
    assert seen.images.shape == (2, 2, 4, 64, 64)
    assert seen.truth.max() == 255
    pixel = 1.4**2
    for labels, areas in ((seen.labels, one.areas_mm2), (seen.reference, one.reference_areas_mm2)):
        counted = np.stack([(labels == s).sum((-2, -1)) for s in FOREGROUND], axis=-2) * pixel
        np.testing.assert_allclose(counted, areas, rtol=1e-5)
    seen.write(tmp_path / "images" / "1.npz")
    again = Seen.read(tmp_path / "images" / "1.npz")
    assert all((getattr(again, name) == getattr(seen, name)).all() for name in vars(seen))


def test_a_study_keeps_images_when_asked_and_the_table_is_the_same(tmp_path: Path) -> None:
    with_images, without = Store(tmp_path / "a"), Store(tmp_path / "b")
    key = run_study(with_images, TINY, 2, workers=2, images=tmp_path / "kept").key
    run_study(without, TINY, 1, workers=2)  # as many threads
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["00000.npz", "00001.npz"]
    assert Seen.read(path_of(tmp_path / "kept", 1)).labels.shape == (2, 2, 4, 64, 64)
    first, again = with_images.trajectories(key)[0], without.trajectories(key)[0]
    assert first[1].to_bytes() == again[1].to_bytes()


def test_what_is_no_archive_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Seen.read(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match="holds no images"):
        Seen.read(tmp_path / "text.npz")
    five, four = np.zeros((1, 1, 2, 4, 4), np.uint8), np.zeros((1, 2, 4, 4), np.uint8)
    np.savez(tmp_path / "part.npz", images=five, labels=five, truth=four, reference=four)
    with pytest.raises(InputError, match="holds no images"):
        Seen.read(tmp_path / "part.npz")
    with pytest.raises(InputError, match="exact are float64"):
        Seen(five, five, four, four, four.astype(np.float64))  # type: ignore[arg-type]


def test_bytes_reach_from_nothing_to_the_brightest() -> None:
    images = torch.linspace(0, 3, 100).reshape(1, 10, 10)
    scaled = as_bytes(images)
    assert (scaled.min(), scaled.max()) == (0, 255)
    assert (np.diff(scaled.reshape(-1).astype(int)) >= 0).all()
    assert (as_bytes(torch.zeros(1, 4, 4)) == 0).all()
