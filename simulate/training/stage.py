"""What each block of an unrolled network is given of the scans of a bank, ready to be learnt from in patches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import max_pool2d

from kspace.formats.files import written_beside
from kspace.recon.networks.unrolled import Reference
from simulate.training.bank import Bank, StoredScan, read_scan
from simulate.training.dataset import Split

_AROUND = 9  # pixels about the heart that count as much as it does
_ELSEWHERE = 0.15  # of the heart's weight
_COMPLEX = 0.02  # how much the complex error counts beside that of the magnitude


def heart_weight(labels: Tensor) -> Tensor:
    """Return (y, x): 1 in and around the heart of (frame, y, x) labels, little elsewhere."""
    heart = (labels > 0).any(0).float()
    near = max_pool2d(heart[None], 2 * _AROUND + 1, stride=1, padding=_AROUND)[0]
    return _ELSEWHERE + (1 - _ELSEWHERE) * near


def log_error(images: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the logarithm of the weighted mean square error of (frame, y, x) images.

    Mostly of their magnitudes, as these are what is looked at and scored. Its gradient counts a decibel the same in a
    poor scan and in a good one.
    """
    both = torch.view_as_real(images - target).square().sum(-1)
    # The magnitude of an exact nought has no gradient.
    squares = torch.view_as_real(images).square().sum(-1).clamp_min(1e-12).sqrt().sub(target.abs()).square()
    mean = ((squares + _COMPLEX * both) * weight).mean() / weight.mean()
    return torch.log(mean + 1e-12)


@dataclass(frozen=True)
class Stage:
    """What one block is given, for all scans of a bank, as its prior sees it: a folder of half-precision images.

    Parameters
    ----------
    folder
        Where they lie; made when missing.
    """

    folder: Path

    def path(self, scan: Path) -> Path:
        """Return where the images of a scan of the bank lie."""
        return self.folder / scan.name

    def images(self, scan: Path) -> Tensor:
        """Return the (frame, y, x) complex images that the block is given of a scan."""
        with safe_open(self.path(scan), "pt") as file:
            images: Tensor = file.get_tensor("images")
        return images

    def write(self, scan: Path, stored: StoredScan, images: Tensor) -> None:
        """Write what a block sees of images that it is given."""
        self.folder.mkdir(parents=True, exist_ok=True)
        problem, reference = stored.problem, Reference.of(stored.start, stored.second)
        with torch.no_grad():
            planes = [reference.seen(each) for each in (images, problem.gradient(images), stored.second, stored.target)]
        tensors = {
            "images": images,
            "planes": torch.cat([torch.view_as_real(each).movedim(-1, 1) for each in planes], dim=1).half(),
            "average": reference.average,
            "weight": heart_weight(stored.labels),
            "conditions": problem.conditions(reference.level),
        }
        with written_beside(self.path(scan)) as temporary:
            save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)


def fill(bank: Bank, stage: Stage, first: int, patients: int, validation: int) -> None:
    """Draw the patients that a training begins with, those that it is validated on, and the rest; what is there stays.

    Parameters
    ----------
    bank, stage
        Where their scans go, and what the first block is given of them.
    first, patients, validation
        How many patients it begins with, learns from in the end, and is validated on.
    """
    for split, start, stop in (
        (Split.TRAIN, 0, min(first, patients)),
        (Split.VALIDATION, 0, validation),
        (Split.TRAIN, min(first, patients), patients),
    ):
        for index in range(start, stop):
            bank.fill(split, index, index + 1)
            for moment in range(len(bank.limits.seconds)):
                path = bank.path(split, index, moment)
                if not stage.path(path).exists():
                    stored = read_scan(path)
                    stage.write(path, stored, stored.start)


@dataclass(frozen=True)
class Patch:
    """A part of what a block sees; shapes as for :class:`~kspace.recon.networks.temporal_prior.TemporalPrior`."""

    image: Tensor
    gradient: Tensor
    second: Tensor
    target: Tensor
    average: Tensor
    weight: Tensor
    conditions: Tensor


def patch_area(weight: Tensor, size: int, rng: np.random.Generator | None) -> tuple[slice, slice]:
    """Return a square of at most so many pixels: about the heart, or with a generator anywhere near it.

    Parameters
    ----------
    weight
        (y, x), see :func:`heart_weight`.
    """
    rows, columns = weight.shape
    size = min(size, rows, columns)
    near = torch.nonzero(weight > 0.5)
    middle = near.double().mean(0) if len(near) else torch.tensor([rows / 2, columns / 2])
    if rng is not None and len(near) and rng.random() < 0.8:
        middle = near[int(rng.integers(len(near)))].double()
    elif rng is not None:
        middle = torch.tensor(rng.random(2)) * torch.tensor([rows, columns])
    top, left = (
        int(min(max(round(float(m) - size / 2), 0), n - size)) for m, n in zip(middle, (rows, columns), strict=True)
    )
    return slice(top, top + size), slice(left, left + size)


def read_patch(path: Path, size: int, rng: np.random.Generator | None) -> Patch:
    """Read a square of a scan: about the heart, or with a generator anywhere near it, turned and mirrored."""
    with safe_open(path, "pt") as file:
        weight = file.get_tensor("weight")
        area = patch_area(weight, size, rng)
        planes = file.get_slice("planes")[:, :, area[0], area[1]].float()
        average, weight = file.get_tensor("average")[area], weight[area]
        conditions = file.get_tensor("conditions")
    everything = torch.cat((planes.flatten(0, 1), average[None], weight[None]))
    if rng is not None:
        everything = torch.rot90(everything, int(rng.integers(4)), (-2, -1))
        if rng.random() < 0.5:
            everything = everything.flip(-1)
    frames, _, *sides = planes.shape
    planes = everything[:-2].reshape(frames, 8, *sides)
    if rng is not None and rng.random() < 0.5:
        planes, conditions = planes.flip(0), conditions.flip(0)
    image, gradient, second, target = (torch.complex(planes[:, i], planes[:, i + 1]) for i in (0, 2, 4, 6))
    return Patch(image, gradient, second, target, everything[-2], everything[-1], conditions)
