"""Learning to reconstruct, block by block and then all blocks together.

Learnt one after another, a block needs no gradient through data consistency, and patches of images are enough for its
prior: the network sees whole scans only to make the next block's images, once, and in the few steps at the end that
fit all blocks to one another. (Greedy learning of unrolled networks is old; it is what makes a CPU suffice.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from kspace.recon.networks.temporal_prior import TemporalPrior
from kspace.recon.networks.unrolled import Block, Reference, UnrolledNetwork
from simulate.training.bank import read_scan
from simulate.training.precision import chosen
from simulate.training.stage import Patch, Stage, heart_weight, log_error, patch_area, read_patch

Wait = Callable[[Path], None]
"""Returns when a file is there."""


def _mean(errors: Iterable[Tensor]) -> float:
    return float(torch.stack(list(errors)).mean())


@dataclass(frozen=True)
class Supply:
    """Files to learn from, of which there are more with every step.

    So a bank can be filled while it is learnt from, with the same result however fast it fills.

    Parameters
    ----------
    files
        In the order in which they come.
    first, growth
        The first step draws from so many of them (None: all), and each from so many more than the one before.
    wait
        Called with a file before it is read.
    """

    files: tuple[Path, ...]
    first: int | None = None
    growth: float = 0.0
    wait: Wait = lambda path: None

    def known(self, step: int) -> int:
        """Return from how many files a step draws."""
        first = len(self.files) if self.first is None else self.first
        return min(len(self.files), first + int(step * self.growth))

    def draw(self, step: int, rng: np.random.Generator) -> Path:
        """Return one of the files that a step draws from, when it is there."""
        path = self.files[int(rng.integers(self.known(step)))]
        self.wait(path)
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
        Convolutions in bfloat16 while training; weights stay in float32. None: where that is quick.
    """

    def __init__(
        self, name: str, prior: TemporalPrior, training: Supply, validation: Sequence[Path], *, patch: int = 64,
        per_step: int = 2, half: bool | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.name, self.model = name, prior
        self._training, self._validation = training, list(validation)
        self._patch, self._per_step, self._half, self._seed = patch, per_step, chosen(half, prior), seed
        self._cache: list[Patch] = []

    def loss(self, step: int) -> Tensor:
        """Return the mean logarithmic error of a few patches."""
        rng = np.random.default_rng([self._seed, step])
        losses = []
        for _ in range(self._per_step):
            losses.append(self._error(read_patch(self._training.draw(step, rng), self._patch, rng)))
        return torch.stack(losses).mean()

    def validate(self) -> float:
        """Return the mean logarithmic error about the hearts of all validation scans."""
        if not self._cache:
            for path in self._validation:
                self._training.wait(path)
            self._cache = [read_patch(path, 96, None) for path in self._validation]
        return _mean(self._error(patch) for patch in self._cache)

    def _error(self, patch: Patch) -> Tensor:
        with torch.autocast(patch.weight.device.type, torch.bfloat16, enabled=self._half):
            correction = self.model(patch.image, patch.gradient, patch.second, patch.average, patch.conditions)
        return log_error(patch.image + correction, patch.target, patch.weight)


class RegularisationTask:
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
        self.name, self.model = name, block.regularisation
        self._block, self._stage = block, stage
        self._training, self._validation = list(training), list(validation)
        self._proposals: dict[Path, Tensor] = {}

    def loss(self, step: int) -> Tensor:
        """Return the logarithmic error of one scan, in the order of the list."""
        return self._error(self._training[step % len(self._training)])

    def validate(self) -> float:
        """Return the mean over the validation scans."""
        return _mean(self._error(path) for path in self._validation)

    def _error(self, path: Path) -> Tensor:
        stored = read_scan(path)
        reference = Reference.of(stored.start, stored.second)
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
        half: bool | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.name = name
        self.model: nn.Module = network
        self._network = network
        self._training, self._validation = list(training), list(validation)
        self._half, self._seed = chosen(half, network), seed

    def loss(self, step: int) -> Tensor:
        """Return the logarithmic error of one scan."""
        rng = np.random.default_rng([self._seed, step])
        return self._error(self._training[int(rng.integers(len(self._training)))])

    def validate(self) -> float:
        """Return the mean over the validation scans."""
        return _mean(self._error(path) for path in self._validation)

    def _error(self, path: Path) -> Tensor:
        stored = read_scan(path)
        with torch.autocast(stored.start.device.type, torch.bfloat16, enabled=self._half):
            images = self._network(stored.problem, stored.start, stored.second, save_memory=True)
        reference = Reference.of(stored.start, stored.second)
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
        self, name: str, network: nn.Module, training: Supply, validation: Sequence[Path], stage: Stage, *,
        patch: int = 64, half: bool | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.name, self.model, self._stage = name, network, stage
        self._training, self._validation = training, list(validation)
        self._patch, self._half, self._seed = patch, chosen(half, network), seed

    def loss(self, step: int) -> Tensor:
        """Return the logarithmic error of one patch."""
        rng = np.random.default_rng([self._seed, step])
        return self._error(self._training.draw(step, rng), rng)

    def validate(self) -> float:
        """Return the mean over the validation scans, about their hearts."""
        for path in self._validation:
            self._training.wait(path)
        return _mean(self._error(path, None) for path in self._validation)

    def _error(self, path: Path, rng: np.random.Generator | None) -> Tensor:
        with safe_open(self._stage.path(path), "pt") as file:
            weight = file.get_tensor("weight")
        area = patch_area(weight, self._patch, rng)
        with safe_open(path, "pt") as file:
            spokes = file.get_tensor("spokes").clamp_min(1e-9).float()[:, None, None]
            gridded, target = (file.get_slice(name)[:, area[0], area[1]] for name in ("right", "target"))
        level = target.abs().square().mean().sqrt().clamp_min(1e-30)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._half):
            image = self.model(gridded / spokes)
        return log_error(image / level, target / level, weight[area])
