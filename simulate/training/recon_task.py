"""Learning to reconstruct, block by block and then all blocks together.

Learnt one after another, a block needs no gradient through data consistency, and patches of images are enough for its
prior: the network sees whole scans only to make the next block's images, once, and in the few steps at the end that
fit all blocks to one another. (Greedy learning of unrolled networks is old; it is what makes a CPU suffice.)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from kspace.errors import InputError
from kspace.recon.networks.temporal_prior import TemporalPrior
from kspace.recon.networks.unrolled import Block, Reference, UnrolledNetwork
from simulate.training.bank import StoredScan, read_scan

_AROUND = 9  # pixels about the heart that count as much as it does
_ELSEWHERE = 0.15  # of the heart's weight
_PATIENCE_S = 1800.0


def heart_weight(labels: Tensor) -> Tensor:
    """Return (y, x): 1 in and around the heart of (frame, y, x) labels, little elsewhere."""
    heart = (labels > 0).any(0).float()
    near = max_pool2d(heart[None], 2 * _AROUND + 1, stride=1, padding=_AROUND)[0]
    return _ELSEWHERE + (1 - _ELSEWHERE) * near


def log_error(images: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the logarithm of the weighted mean square error of (frame, y, x) images.

    Its gradient counts a decibel the same in a poor scan and in a good one.
    """
    squares = torch.view_as_real(images - target).square().sum(-1)
    mean = (squares * weight).mean() / weight.mean()
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
        problem, reference = stored.problem, Reference.of(stored.start)
        with torch.no_grad():
            planes = [reference.seen(each) for each in (images, problem.gradient(images), stored.target)]
        tensors = {
            "images": images,
            "planes": torch.cat([torch.view_as_real(each).movedim(-1, 1) for each in planes], dim=1).half(),
            "average": reference.average,
            "weight": heart_weight(stored.labels),
            "conditions": problem.conditions(reference.level),
        }
        part = self.path(scan).with_suffix(".part")
        save_file({name: value.contiguous() for name, value in tensors.items()}, part)
        part.replace(self.path(scan))


@dataclass(frozen=True)
class Patch:
    """A part of what a block sees; shapes as for :class:`~kspace.recon.networks.temporal_prior.TemporalPrior`."""

    image: Tensor
    gradient: Tensor
    target: Tensor
    average: Tensor
    weight: Tensor
    conditions: Tensor


def square(weight: Tensor, size: int, rng: np.random.Generator | None) -> tuple[slice, slice]:
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
        area = square(weight, size, rng)
        planes = file.get_slice("planes")[:, :, area[0], area[1]].float()
        average, weight = file.get_tensor("average")[area], weight[area]
        conditions = file.get_tensor("conditions")
    everything = torch.cat((planes.flatten(0, 1), average[None], weight[None]))
    if rng is not None:
        everything = torch.rot90(everything, int(rng.integers(4)), (-2, -1))
        if rng.random() < 0.5:
            everything = everything.flip(-1)
    frames, _, *sides = planes.shape
    planes = everything[:-2].reshape(frames, 6, *sides)
    if rng is not None and rng.random() < 0.5:
        planes, conditions = planes.flip(0), conditions.flip(0)
    image, gradient, target = (torch.complex(planes[:, i], planes[:, i + 1]) for i in (0, 2, 4))
    return Patch(image, gradient, target, everything[-2], everything[-1], conditions)


def _waited_for(path: Path) -> Path:
    deadline = time.monotonic() + _PATIENCE_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise InputError(f"{path.name} has not come in {_PATIENCE_S / 60:g} minutes", expected="a bank that fills")
        time.sleep(0.5)
    return path


class PriorTask:
    """Learns the prior of one block from patches of what the block is given.

    Parameters
    ----------
    prior
        To be trained.
    training, validation
        Files of a :class:`Stage`.
    patch
        Pixels along a patch's sides.
    per_step
        Patches to a step.
    half
        Convolutions in bfloat16 while training, which many CPUs do twice as fast; weights stay in float32.
    first, growth
        A step draws from so many files, and from so many more with every step before it: a bank can be filled while it
        is learnt from, with the same result however fast it fills. A file that is not there yet is waited for.
    """

    def __init__(
        self, name: str, prior: TemporalPrior, training: Sequence[Path], validation: Sequence[Path], *,
        patch: int = 64, per_step: int = 2, half: bool = True, seed: int = 0, first: int | None = None,
        growth: float = 0.0,
    ) -> None:  # fmt: skip
        self.name, self.model = name, prior
        self._first, self._growth = len(training) if first is None else first, growth
        self._training, self._validation = list(training), list(validation)
        self._patch, self._per_step, self._half, self._seed = patch, per_step, half, seed
        self._cache: list[Patch] = []

    def loss(self, step: int) -> Tensor:
        """Return the mean logarithmic error of a few patches."""
        rng = np.random.default_rng([self._seed, step])
        losses = []
        for _ in range(self._per_step):
            known = min(len(self._training), self._first + int(step * self._growth))
            path = _waited_for(self._training[int(rng.integers(known))])
            losses.append(self._error(read_patch(path, self._patch, rng)))
        return torch.stack(losses).mean()

    def validate(self) -> float:
        """Return the mean logarithmic error about the hearts of all validation scans."""
        if not self._cache:
            self._cache = [read_patch(path, 96, None) for path in self._validation]
        return float(torch.stack([self._error(patch) for patch in self._cache]).mean())

    def _error(self, patch: Patch) -> Tensor:
        with torch.autocast(patch.weight.device.type, torch.bfloat16, enabled=self._half):
            correction = self.model(patch.image, patch.gradient, patch.average, patch.conditions)
        return log_error(patch.image + correction, patch.target, patch.weight)


class TrustTask:
    """Learns how much a block's proposals count beside the data.

    Parameters
    ----------
    block
        Whose prior has been trained; it is not changed.
    training, validation
        Scans of the bank.
    stage
        What the block is given of them.
    """

    def __init__(
        self, name: str, block: Block, training: Sequence[Path], validation: Sequence[Path], stage: Stage
    ) -> None:
        self.name, self.model = name, block.trust
        self._block, self._stage = block, stage
        self._training, self._validation = list(training), list(validation)
        self._proposals: dict[Path, Tensor] = {}

    def loss(self, step: int) -> Tensor:
        """Return the logarithmic error of one scan, in the order of the list."""
        return self._error(self._training[step % len(self._training)])

    def validate(self) -> float:
        """Return the mean over the validation scans."""
        return float(torch.stack([self._error(path) for path in self._validation]).mean())

    def _error(self, path: Path) -> Tensor:
        stored = read_scan(path)
        reference = Reference.of(stored.start)
        if path not in self._proposals:
            with torch.no_grad(), torch.autocast(stored.start.device.type, torch.bfloat16):
                images = self._stage.images(path)
                self._proposals[path] = self._block.propose(stored.problem, images, reference)
        agreed = self._block.agree(stored.problem, self._proposals[path], reference)
        return log_error(reference.seen(agreed), reference.seen(stored.target), heart_weight(stored.labels))


class UnrolledTask:
    """Learns all blocks together on whole scans.

    Parameters
    ----------
    network
        To be trained.
    training, validation
        Scans of the bank.
    half
        As for :class:`PriorTask`.
    """

    def __init__(
        self, name: str, network: UnrolledNetwork, training: Sequence[Path], validation: Sequence[Path], *,
        half: bool = True, seed: int = 0,
    ) -> None:  # fmt: skip
        self.name = name
        self.model: nn.Module = network
        self._network = network
        self._training, self._validation = list(training), list(validation)
        self._half, self._seed = half, seed

    def loss(self, step: int) -> Tensor:
        """Return the logarithmic error of one scan."""
        rng = np.random.default_rng([self._seed, step])
        return self._error(self._training[int(rng.integers(len(self._training)))])

    def validate(self) -> float:
        """Return the mean over the validation scans."""
        return float(torch.stack([self._error(path) for path in self._validation]).mean())

    def _error(self, path: Path) -> Tensor:
        stored = read_scan(path)
        with torch.autocast(stored.start.device.type, torch.bfloat16, enabled=self._half):
            images = self._network(stored.problem, stored.start, save_memory=True)
        reference = Reference.of(stored.start)
        return log_error(reference.seen(images), reference.seen(stored.target), heart_weight(stored.labels))


class UNetTask:
    """Learns a post-processor from patches of gridded images.

    Parameters
    ----------
    network
        To be trained.
    training, validation
        Scans of the bank.
    stage
        Tells where the heart is.
    patch, half, seed
        As for :class:`PriorTask`.
    """

    def __init__(
        self, name: str, network: nn.Module, training: Sequence[Path], validation: Sequence[Path], stage: Stage, *,
        patch: int = 96, half: bool = True, seed: int = 0,
    ) -> None:  # fmt: skip
        self.name, self.model, self._stage = name, network, stage
        self._training, self._validation = list(training), list(validation)
        self._patch, self._half, self._seed = patch, half, seed

    def loss(self, step: int) -> Tensor:
        """Return the logarithmic error of one patch."""
        rng = np.random.default_rng([self._seed, step])
        return self._error(self._training[int(rng.integers(len(self._training)))], rng)

    def validate(self) -> float:
        """Return the mean over the validation scans, about their hearts."""
        return float(torch.stack([self._error(path, None) for path in self._validation]).mean())

    def _error(self, path: Path, rng: np.random.Generator | None) -> Tensor:
        with safe_open(self._stage.path(path), "pt") as file:
            weight = file.get_tensor("weight")
        area = square(weight, self._patch, rng)
        with safe_open(path, "pt") as file:
            spokes = file.get_tensor("spokes").clamp_min(1e-9).float()[:, None, None]
            gridded, target = (file.get_slice(name)[:, area[0], area[1]] for name in ("right", "target"))
        level = target.abs().square().mean().sqrt().clamp_min(1e-30)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._half):
            image = self.model(gridded / spokes)
        return log_error(image / level, target / level, weight[area])
