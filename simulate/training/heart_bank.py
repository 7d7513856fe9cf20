"""Drawn hearts on disk: one slice of one virtual patient per file, since drawing costs as much as learning from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kspace.formats.files import written_beside
from kspace.segment.segmentation import SlicePosition
from simulate.training.dataset import HeartOptions, SimulatedHearts, Split
from simulate.training.randomise import Randomisation

_THIRDS = (1 / 3, 2 / 3)  # of the ventricle's length, from the mitral plane


@dataclass(frozen=True)
class StoredHeart:
    """One slice over the beat.

    Parameters
    ----------
    images
        (frame, y, x) float32, of mean 0 and standard deviation 1.
    labels
        (frame, y, x) uint8.
    position
        Where it lies.
    """

    images: Tensor
    labels: Tensor
    position: SlicePosition


def position_of(height: float, labels: Tensor) -> SlicePosition:
    """Return where a slice lies: its third of the ventricle, or no heart where no frame has a label."""
    if not bool(labels.any()):
        return SlicePosition.NO_HEART
    if height < _THIRDS[0]:
        return SlicePosition.BASE
    return SlicePosition.MIDDLE if height < _THIRDS[1] else SlicePosition.APEX


@dataclass(frozen=True)
class HeartBank:
    """A folder of drawn hearts.

    Parameters
    ----------
    folder
        Where they lie; made when missing.
    options, randomisation
        What they are drawn from.
    """

    folder: Path
    options: HeartOptions = field(default_factory=HeartOptions)
    randomisation: Randomisation = field(default_factory=Randomisation)

    def path(self, split: Split, index: int) -> Path:
        """Return where a patient's slice lies."""
        return self.folder / f"{split.value}-{index:06d}.safetensors"

    def fill(self, split: Split, indices: Iterable[int], *, on_heart: Callable[[int], None] | None = None) -> None:
        """Draw those that are not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        hearts = SimulatedHearts(1 << 40, split, self.options, self.randomisation)
        for index in indices:
            path = self.path(split, index)
            if not path.exists():
                images, labels, record = hearts[index]
                write_heart(StoredHeart(images, labels, position_of(record["height"], labels)), path)
            if on_heart is not None:
                on_heart(index)


def write_heart(heart: StoredHeart, path: Path) -> None:
    """Write a slice, beside and renamed, its images in half precision."""
    tensors = {
        "images": heart.images.half().contiguous(),
        "labels": heart.labels.contiguous(),
        "position": torch.tensor(int(heart.position)),
    }
    with written_beside(path) as temporary:
        save_file(tensors, temporary)


def read_heart(path: Path) -> StoredHeart:
    """Read a slice back."""
    t = load_file(path)
    return StoredHeart(t["images"].float(), t["labels"], SlicePosition(int(t["position"])))
