from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from kspace.scan import Cine, Geometry
from kspace.segment.segmentation import Segmentation, SlicePosition, Structure


def _cine(
    *, frames: int = 4, rows: int = 48, columns: int = 48, slices: int = 1, beat: float = 0.1, rr_s: float = 0.8
) -> Cine:
    """A disc that beats inside an ellipse, off centre, so that every flip shows; a different size in every slice."""
    y = torch.linspace(-1, 1, rows)[:, None]
    x = torch.linspace(-1, 1, columns)
    stack = []
    for index in range(slices):
        body = 60 * torch.sigmoid(25 * (0.8 - y**2 - 1.4 * x**2)) * (1 + 0.2 * torch.sin(6 * x) * torch.cos(5 * y))
        for frame in range(frames):
            radius = 0.35 + 0.02 * index + beat * math.cos(2 * math.pi * (frame + 0.5) / frames)
            distance = torch.sqrt((y - 0.1) ** 2 + (x + 0.25) ** 2)
            stack.append(body + 80 * torch.sigmoid(25 * (radius - distance)))
    images = torch.stack(stack).reshape(slices, frames, rows, columns)
    return Cine(images, Geometry.from_spacing((slices, rows, columns), (8.0, 3.0, 3.0)), rr_s, "a tiny heart")


@pytest.fixture(scope="session")
def make_cine() -> Callable[..., Cine]:
    """Make a small beating heart; ``beat=0`` stands still."""
    return _cine


def _segment(cine: Cine, *, samples: int = 5, rv: bool = True) -> Segmentation:
    """Rings where the heart of ``make_cine`` beats: LV in myocardium, RV beside it; samples lack some pixels."""
    n_slices, n_frames, rows, columns = cine.images.shape
    y, x = torch.linspace(-1, 1, rows)[:, None], torch.linspace(-1, 1, columns)
    labels = torch.zeros(cine.images.shape, dtype=torch.uint8)
    for index in range(n_slices):
        part = math.sin(math.pi * (index + 1) / (n_slices + 1)) ** 2 if n_slices > 1 else 1.0
        for frame in range(n_frames):
            radius = part * (0.3 + 0.1 * math.cos(2 * math.pi * (frame + 0.5) / n_frames))
            distance = torch.sqrt((y - 0.1) ** 2 + (x + 0.25) ** 2)
            if rv:
                beside = torch.sqrt((y - 0.1) ** 2 + (x + 0.25 - 0.9 * radius - 0.15) ** 2)
                labels[index, frame][beside < 0.9 * radius] = Structure.RV
            labels[index, frame][distance < radius + 0.12 * part] = Structure.MYOCARDIUM
            labels[index, frame][distance < radius] = Structure.LV
    position = torch.nn.functional.one_hot(torch.full((n_slices,), int(SlicePosition.MIDDLE)), 4).float()
    thinned = []
    for k in range(samples):
        kept = torch.rand(labels.shape, generator=torch.Generator().manual_seed(k)) > 0.02 * k
        thinned.append(labels * kept)
    return Segmentation(
        labels, cine.geometry, (SlicePosition.MIDDLE,) * n_slices, position,
        torch.stack(thinned) if thinned else torch.zeros(0, *labels.shape, dtype=torch.uint8),
        torch.zeros(labels.shape), torch.full((n_slices, n_frames), 0.1),
    )  # fmt: skip


@pytest.fixture(scope="session")
def segment_cine() -> Callable[..., Segmentation]:
    """Segment a cine of ``make_cine`` by knowing where its heart is."""
    return _segment
