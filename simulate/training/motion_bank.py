"""What spokes of corrupted scans look like to each other, drawn once and kept: the bank that detection learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from kspace.formats.files import written_beside
from kspace.motion.examine import examine
from simulate.corrupted_scans import PatientSetting, StudyPatient
from simulate.corruption_levels import KINDS, SEVERITIES, Corruption
from simulate.training.dataset import Split, patient_seed


@dataclass(frozen=True)
class MotionBankOptions:
    """What is drawn.

    Parameters
    ----------
    matrix, n_coils, n_frames
        Smallest and largest.
    snr, seconds
        Likewise.
    scans
        Of each patient.
    clean, two
        Share of scans without, and with two kinds of corruption.
    """

    matrix: tuple[int, int] = (96, 112)
    n_coils: tuple[int, int] = (4, 6)
    n_frames: tuple[int, int] = (16, 25)
    snr: tuple[float, float] = (15.0, 50.0)
    seconds: tuple[float, float] = (2.0, 5.0)
    scans: int = 8
    clean: float = 0.25
    two: float = 0.15


@dataclass(frozen=True)
class BankedScan:
    """The features of a scan's spokes, and which are corrupted.

    Parameters
    ----------
    features
        (spoke, feature).
    corrupted
        (spoke,) bool.
    strength
        (spoke,), see :attr:`simulate.corruption.SpokeCorruption.strength`.
    """

    features: Tensor
    corrupted: Tensor
    strength: Tensor


def draw_corruptions(rng: np.random.Generator, options: MotionBankOptions) -> tuple[Corruption, ...]:
    """Draw what goes wrong in a scan."""
    chance = float(rng.random())
    count = 0 if chance < options.clean else 2 if chance > 1 - options.two else 1
    kinds = rng.choice(KINDS, count, replace=False)
    return tuple(Corruption(str(kind), str(rng.choice(SEVERITIES)), int(rng.integers(2**31))) for kind in kinds)


def fill_motion_bank(
    folder: Path, split: Split | str, first: int, last: int, options: MotionBankOptions | None = None, *,
    on_patient: Callable[[int], None] | None = None,
) -> None:  # fmt: skip
    """Draw the scans of patients from ``first`` up to, not including, ``last`` that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    options = options or MotionBankOptions()
    for index in range(first, last):
        missing = [scan for scan in range(options.scans) if not _path(folder, split, index, scan).exists()]
        if missing:
            rng = np.random.default_rng([patient_seed(index, split), 800])
            setting = PatientSetting(
                matrix=2 * int(rng.integers(options.matrix[0] // 2, options.matrix[1] // 2 + 1)),
                n_coils=int(rng.integers(options.n_coils[0], options.n_coils[1] + 1)),
                n_frames=int(rng.integers(options.n_frames[0], options.n_frames[1] + 1)),
                snr=float(np.exp(rng.uniform(*np.log(options.snr)))),
                seconds=float(rng.uniform(*options.seconds)),
            )
            patient = StudyPatient(index, split, setting)
            for scan in missing:
                chance = np.random.default_rng([patient_seed(index, split), 801, scan])
                drawn = patient.scan(draw_corruptions(chance, options))
                found = examine(drawn.spokes, drawn.frame, drawn.n_frames, noise_std=1.0)
                tensors = {
                    "features": found.features.half(), "corrupted": drawn.corruption.corrupted,
                    "strength": drawn.corruption.strength.half(),
                }  # fmt: skip
                with written_beside(_path(folder, split, index, scan)) as temporary:
                    save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)
        if on_patient is not None:
            on_patient(index)


def read_motion_bank(folder: Path, split: Split | str, patients: int, scans: int) -> Iterator[BankedScan]:
    """Yield the scans of the first so many patients that are there."""
    for index in range(patients):
        for scan in range(scans):
            path = _path(folder, split, index, scan)
            if path.exists():
                t = load_file(path)
                yield BankedScan(t["features"].float(), t["corrupted"].bool(), t["strength"].float())


def _path(folder: Path, split: Split | str, index: int, scan: int) -> Path:
    return folder / f"motion-{Split(split).value}-{index:05d}-{scan:02d}.safetensors"
