"""Learning to draw contours on slices of virtual patients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, grid_sample

from kspace.segment.inputs import network_inputs
from kspace.segment.network import SegmentationNetwork
from kspace.segment.segmentation import FOREGROUND
from simulate.training.heart_bank import StoredHeart, read_heart
from simulate.training.precision import chosen
from simulate.training.warp import warp

_POSITION_SHARE = 0.2  # of the loss
_STILL_SHARE = 0.1  # of the slices are learnt without knowing what moves, as a single frame has to be read
_TILT_RAD, _STRETCH, _SHIFT = 0.3, 0.18, 0.12


class SegmentTask:
    """Learns from a growing list of slices.

    The loss is that of nnU-Net, Dice and cross-entropy in equal parts (MONAI's), on a few frames of a few slices, and a
    fifth of the cross-entropy of the slice's position.

    Parameters
    ----------
    network
        To be trained.
    training, validation
        Files of a :class:`~simulate.training.heart_bank.HeartBank`.
    slices, frames
        Per step, and of each slice: frames of one slice are much alike. Every slice is warped, turned and stretched a
        little.
    first, growth
        A step draws from so many files, and from so many more with every step before it.
    half
        Convolutions in bfloat16 while training; weights stay in float32. None: where that is quick.
    seed
        Of what a step draws.
    wait
        Called with a file before it is read.
    """

    def __init__(
        self, network: SegmentationNetwork, training: Sequence[Path], validation: Sequence[Path], *,
        slices: int = 8, frames: int = 2, first: int | None = None, growth: float = 0.0, half: bool | None = None,
        seed: int = 0, wait: Callable[[Path], None] = lambda path: None, name: str = "segment",
    ) -> None:  # fmt: skip
        from monai.losses.dice import DiceCELoss

        self.name, self.model = name, network
        self._training, self._validation = list(training), list(validation)
        self._slices, self._frames = slices, frames
        self._first, self._growth = len(self._training) if first is None else first, growth
        self._half = chosen(half, network)
        self._seed, self._wait = seed, wait
        self._dice_and_entropy = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, include_background=False)
        self._cache: list[tuple[Tensor, Tensor, int]] = []

    def known(self, step: int) -> int:
        """Return from how many files a step draws."""
        return min(len(self._training), self._first + int(step * self._growth))

    def loss(self, step: int) -> Tensor:
        """Return the loss of a few frames of a few slices."""
        rng = np.random.default_rng([self._seed, step])
        inputs, labels, positions = [], [], []
        for _ in range(self._slices):
            path = self._training[int(rng.integers(self.known(step)))]
            self._wait(path)
            given, truth, position = _some_frames(read_heart(path), self._frames, rng)
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            given, truth, _ = warp(given, truth, generator)
            given, truth = bent(given, truth, rng)
            inputs.append(given)
            labels.append(truth)
            positions += [position] * len(given)
        given = torch.cat(inputs)
        with torch.autocast(given.device.type, torch.bfloat16, enabled=self._half):
            drawn, places = self.model(given)
        drawing: Tensor = self._dice_and_entropy(drawn.float(), torch.cat(labels)[:, None])
        return drawing + _POSITION_SHARE * cross_entropy(places.float(), torch.tensor(positions))

    def validate(self) -> float:
        """Return one minus the mean Dice coefficient of the structures over all validation slices."""
        if not self._cache:
            for path in self._validation:
                self._wait(path)
                heart = read_heart(path)
                some = slice(0, None, max(1, len(heart.images) // 2))
                self._cache.append((network_inputs(heart.images)[some], heart.labels[some], int(heart.position)))
        shared, sizes = torch.zeros(len(FOREGROUND)), torch.zeros(len(FOREGROUND))
        for inputs, labels, _ in self._cache:
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self._half):
                drawn = self.model(inputs)[0].argmax(1)
            for k, structure in enumerate(FOREGROUND):
                shared[k] += 2 * ((drawn == structure) & (labels == structure)).sum()
                sizes[k] += (drawn == structure).sum() + (labels == structure).sum()
        return float(1 - (shared / sizes.clamp_min(1)).mean())


def _some_frames(heart: StoredHeart, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, int]:
    """Return inputs (frame, 3, y, x), labels (frame, y, x) and position of a few frames."""
    chosen = torch.as_tensor(rng.choice(len(heart.images), min(n, len(heart.images)), replace=False))
    if rng.random() < _STILL_SHARE:
        inputs = torch.cat([network_inputs(heart.images[k : k + 1]) for k in chosen.tolist()])
    else:
        inputs = network_inputs(heart.images)[chosen]
    return inputs, heart.labels[chosen], int(heart.position)


def bent(inputs: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Turn, stretch and shift a slice a little, so that one that is read again is not the same.

    Parameters
    ----------
    inputs, labels
        (frame, channel, y, x) and (frame, y, x), treated alike.
    rng
        Where chance comes from.
    """
    angle = rng.uniform(-_TILT_RAD, _TILT_RAD)
    tall, wide = np.exp(rng.uniform(-_STRETCH, _STRETCH, 2))
    down, right = rng.uniform(-_SHIFT, _SHIFT, 2)
    c, s = math.cos(angle), math.sin(angle)
    matrix = torch.tensor([[c * wide, -s * wide, right], [s * tall, c * tall, down]], dtype=torch.float32)
    grid = torch.nn.functional.affine_grid(matrix[None], [1, 1, *labels.shape[-2:]], align_corners=False)
    grid = grid.expand(len(labels), -1, -1, -1)
    moved = grid_sample(inputs, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    # Labels beyond the border are not known to be background, but at the border there is hardly ever a heart.
    drawn = grid_sample(labels[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return moved, drawn[:, 0].round().to(labels.dtype)
