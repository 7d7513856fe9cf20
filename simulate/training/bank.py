"""Training scans on disk: each is drawn once, since drawing one costs more than learning from it many times.

One safetensors file per scan and time; a bank that was cut off goes on where it ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kspace.formats.files import written_beside
from kspace.recon.networks.least_squares import LeastSquares
from simulate.training.dataset import Split, patient_seed
from simulate.training.scans import ProtocolRange, TrainingScan, draw_protocol, simulated_scans


@dataclass(frozen=True)
class Bank:
    """A folder of training scans.

    Parameters
    ----------
    folder
        Where they lie; made when missing.
    limits
        What their protocols are drawn from.
    """

    folder: Path
    limits: ProtocolRange = field(default_factory=ProtocolRange)

    def path(self, split: Split | str, index: int, time: int) -> Path:
        """Return where a patient's scan at the ``time``-th of its times lies."""
        return self.folder / f"{Split(split).value}-{index:05d}-{time}.safetensors"

    def fill(
        self, split: Split | str, first: int, last: int, *, on_patient: Callable[[int], None] | None = None
    ) -> None:
        """Draw the patients from ``first`` up to, not including, ``last`` that are not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        n_times = len(self.limits.seconds)
        for index in range(first, last):
            if not all(self.path(split, index, time).exists() for time in range(n_times)):
                protocol = draw_protocol(index, split, self.limits)
                scans = simulated_scans(patient_seed(index, split), protocol)
                for time, scan in enumerate(scans):
                    write_scan(scan, self.path(split, index, time))
            if on_patient is not None:
                on_patient(index)

    def names(self, split: Split | str, patients: int) -> Iterator[str]:
        """Yield the names of the files of the first so many patients, whether they are there or not."""
        for index in range(patients):
            for time in range(len(self.limits.seconds)):
                yield self.path(split, index, time).name


@dataclass(frozen=True)
class StoredScan:
    """What is kept of a :class:`~simulate.training.scans.TrainingScan`, whose names it shares.

    Parameters
    ----------
    problem
        Its normal equations for its maps.
    """

    problem: LeastSquares
    start: Tensor
    second: Tensor
    target: Tensor
    labels: Tensor
    shading: Tensor
    truth: Tensor
    seconds: float
    seed: int


def write_scan(scan: TrainingScan, path: Path) -> None:
    """Write a scan, beside and renamed."""
    e = scan.equations
    # The coils are combined: reconstruction with these maps needs no more, and it is an eighth of the size.
    tensors = {"right": e.right_hand_side(scan.maps), "spectrum": e.spectrum, "spokes": e.spokes}
    tensors |= {
        name: getattr(scan, name) for name in ("maps", "start", "second", "target", "labels", "shading", "truth")
    }
    numbers = [e.scale, e.noise_in_image(scan.noise_std), scan.seconds, scan.seed]
    tensors["numbers"] = torch.tensor(numbers, dtype=torch.float64)
    with written_beside(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)


def read_scan(path: Path) -> StoredScan:
    """Read a scan back."""
    t = load_file(path)
    scale, noise, seconds, seed = t["numbers"].tolist()
    problem = LeastSquares.from_sums(
        t["right"], t["maps"], t["spectrum"], scale, t["spokes"], noise if math.isfinite(noise) else None
    )
    second = t.get("second", t["start"])  # banks that were drawn before there were second images
    return StoredScan(
        problem, t["start"], second, t["target"], t["labels"], t["shading"], t["truth"], seconds, int(seed)
    )
