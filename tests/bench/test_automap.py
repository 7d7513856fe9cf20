"""The scans of bench/automap.py, and a training of seconds from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from bench import automap
from bench.automap_data import DRAWN, Scan, frames_of, to_image, to_kspace, turned
from simulate.training.dataset import Split


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def discs(count: int = 4) -> Tensor:
    """Bright discs (count, 256, 256) on grey, in [0, 1]."""
    place = torch.arange(DRAWN) - DRAWN // 2
    radius = torch.hypot(place[:, None].float(), place[None].float())
    return torch.stack([0.3 * (radius < 110) + 0.6 * (radius < 30 + 8 * k) for k in range(count)])


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_cartesian_input_is_half_of_the_truths_kspace() -> None:
    scan = Scan(32, snr=(1e6, 1e6))
    batch = scan.batch(scan.fine(discs()), chance())
    assert int(scan.mask.sum()) == 16
    assert bool(scan.mask[15:18].all())
    assert torch.allclose(batch.kspace, to_kspace(batch.truth) * scan.mask * scan.gain, atol=1e-4)
    assert torch.allclose(to_image(batch.kspace / scan.gain), batch.zero_filled, atol=1e-5)
    assert torch.allclose(batch.zero_filled.abs().amax((1, 2)), torch.ones(4))


def test_many_spokes_come_close_to_the_truth() -> None:
    few, many = (Scan(32, spokes, (1e6, 1e6)) for spokes in (8, 100))
    errors = []
    for scan in (few, many):
        batch = scan.batch(scan.fine(discs()), chance())
        errors.append(
            float((batch.zero_filled - batch.truth).abs().square().mean() / batch.truth.abs().square().mean())
        )
    assert errors[1] < 0.02 < errors[0]


def test_noise_is_what_is_asked_for() -> None:
    quiet, noisy = Scan(32, snr=(1e6, 1e6)), Scan(32, snr=(10, 10))
    frames = quiet.fine(discs(1)).expand(20, -1, -1)
    clean, loud = quiet.batch(frames, chance()), noisy.batch(frames, chance())
    level = float(clean.truth.abs().mean())
    lines = noisy.mask[:, 0].bool()
    noise = ((loud.kspace / loud.truth.norm() - clean.kspace / clean.truth.norm()) * clean.truth.norm() / noisy.gain)[
        :, lines
    ]
    assert float(noise.abs().square().mean().sqrt()) == pytest.approx(level / 10, rel=0.1)


def test_every_orientation_comes_up() -> None:
    image = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).expand(200, -1, -1)
    assert len({tuple(one.flatten().tolist()) for one in turned(image, chance())}) == 8


def test_splits_are_kept_apart_and_drawn_once(tmp_path: Path) -> None:
    drawn = frames_of(tmp_path, Split.TEST, 1, 1)
    assert drawn.shape == (1, DRAWN, DRAWN)
    assert (float(drawn.min()), float(drawn.max())) == (0, 1)
    path = tmp_path / "test-1x1.safetensors"
    before = path.stat().st_mtime_ns
    assert torch.equal(frames_of(tmp_path, Split.TEST, 1, 1), drawn)
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("network", ["dautomap", "dautomap-fourier", "automap"])
def test_a_short_training_ends_in_a_table(network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automap, "frames_of", lambda *_: discs())
    monkeypatch.setitem(automap.SPOKES, 16, 8)
    run = automap.Run(network, 16, network == "dautomap", (0 if "fourier" in network else 0.005, 0.005), batches=(4, 4))
    model, cost = automap.learn(run, tmp_path, tmp_path, 1.0, Console(quiet=True))
    figures = automap.judge(run, model, tmp_path)
    assert figures["zero_psnr"] > 10
    row = {"network": run.network, "n": run.n, "kspace": "8 spokes", "parameters": 1234.0, **cost, **figures}
    assert "| 1,234 |" in automap.table([row])
