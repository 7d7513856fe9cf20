"""Topology of middle slices before and after it is mended: ``python -m bench.topology [--slices N] [--source M:F]``.

Slices of virtual patients of the validation split (synthetic, all groups), a quarter to two thirds of the way from the
mitral plane to the apex, two phases each. ``--source`` names who segments, as ``module:function``, a :data:`Source`.
The one that is used without it, :func:`degraded`, is no network: it spoils the true labels so that about half of the
images have a wrong topology. ``tidy`` keeps the largest pieces and fills holes; ``refine`` moves the logits. Times are
of the CPU, since others may use it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from kspace.segment.refine import RefineOptions, refine
from kspace.segment.segmentation import FOREGROUND, Structure
from kspace.segment.tidy import tidy
from kspace.segment.topology import betti_errors
from simulate.training.dataset import HeartOptions, SimulatedHearts, Split

Source = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""From images (frame, y, x), true labels (frame, y, x) and chance to probabilities (frame, 4, y, x). A network looks at
the images alone."""

MIDDLE = (0.25, 0.65)
"""Heights of middle slices: 0 at the mitral plane, 1 at the apex."""


@dataclass(frozen=True)
class Row:
    """What is found of one way to mend.

    Parameters
    ----------
    name
        Of the way.
    errors
        Betti errors per 100 images.
    wrong
        Images per 100 with any.
    dice_lv, dice_myocardium, dice_rv
        Means over images.
    cpu_ms
        Mean time to mend an image.
    """

    name: str
    errors: float
    wrong: float
    dice_lv: float
    dice_myocardium: float
    dice_rv: float
    cpu_ms: float


def middle_slices(count: int, frames: int = 2) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels (frame, y, x) of middle slices whose true labels have the topology of the prior."""
    hearts = SimulatedHearts(100 * count, Split.VALIDATION, HeartOptions(frames=frames))
    found = 0
    for index in range(len(hearts)):
        if not MIDDLE[0] < hearts.appearance(index).height < MIDDLE[1]:
            continue
        images, labels, _ = hearts[index]
        if int(betti_errors(labels).sum()):
            continue
        yield images, labels
        found += 1
        if found == count:
            return


def degraded(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Blur the truth, add smooth noise to its logits, and up to two sure islands or gaps around the heart."""
    truth = functional.one_hot(labels.long(), len(Structure)).movedim(-1, 1).float()
    logits = 6 * _blur(truth, 1.0)
    for sigma, size in ((1.5, 0.4), (4.0, 0.72)):
        noise = _blur(torch.randn(truth.shape, generator=generator), sigma)
        logits += size * noise / noise.std()
    logits[:, Structure.BACKGROUND] += 0.7  # far from the heart a network is sure
    near = _blur((labels > 0).float()[:, None], 6.0)[:, 0] > 0.05
    y, x = (torch.arange(n, dtype=torch.float32) for n in labels.shape[1:])

    def below(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    for frame, places in enumerate(near):
        for _ in range(below(3)):
            centre = places.nonzero()[below(int(places.sum()))]
            radius = 1 + 2.5 * float(torch.rand((), generator=generator))
            distance = torch.hypot((y - centre[0])[:, None], x - centre[1])
            logits[frame, below(len(Structure))] += 7 * torch.sigmoid(2 * (radius - distance))
    return logits.softmax(1)


def _blur(maps: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(gaussian_filter(maps.numpy(), sigma, axes=(-2, -1)))


def dice(labels: Tensor, truth: Tensor) -> Tensor:
    """Return (3,) Dice of (y, x) labels, in the order of FOREGROUND."""
    pairs = [(labels == structure, truth == structure) for structure in FOREGROUND]
    return torch.stack([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])


def ways(options: RefineOptions) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return ways from probabilities (4, y, x) to labels (y, x) uint8."""

    def plain(probabilities: Tensor) -> Tensor:
        return probabilities.argmax(0).to(torch.uint8)

    def refined(probabilities: Tensor) -> Tensor:
        return plain(refine(probabilities.clamp_min(1e-6).log(), options))

    return {
        "as it is": plain,
        "tidy": lambda probabilities: tidy(plain(probabilities)),
        "refine": refined,
        "refine, tidy": lambda probabilities: tidy(refined(probabilities)),
    }


def measure(source: Source, count: int, options: RefineOptions | None = None, seed: int = 0) -> list[Row]:
    """Mend the segmentations of a number of slices in every way."""
    generator = torch.Generator().manual_seed(seed)
    cases = [
        pair
        for images, labels in middle_slices(count)
        for pair in zip(source(images, labels, generator), labels, strict=True)
    ]
    rows = []
    for name, way in ways(options or RefineOptions()).items():
        start = time.process_time()
        found = [way(probabilities) for probabilities, _ in cases]
        cpu_ms = 1e3 * (time.process_time() - start) / len(cases)
        errors = betti_errors(torch.stack(found)).float()
        scores = torch.stack([dice(labels, truth) for labels, (_, truth) in zip(found, cases, strict=True)]).mean(0)
        numbers = (100 * errors.mean(), 100 * (errors > 0).float().mean(), *scores)
        rows.append(Row(name, *map(float, numbers), cpu_ms))
    return rows


def report(rows: list[Row]) -> Iterator[str]:
    """Yield Markdown."""
    yield "| | Betti errors per 100 | images wrong, % | Dice LV | Dice myocardium | Dice RV | ms |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        scores = f"{row.dice_lv:.4f} | {row.dice_myocardium:.4f} | {row.dice_rv:.4f}"
        yield f"| {row.name} | {row.errors:.1f} | {row.wrong:.1f} | {scores} | {row.cpu_ms:.1f} |"


def named(source: str) -> Source:
    """Find a source by its name, ``module:function``."""
    module, _, function = source.partition(":")
    found: Source = getattr(importlib.import_module(module), function)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=50)
    parser.add_argument("--source", default="bench.topology:degraded")
    parser.add_argument("--steps", type=int, default=RefineOptions.steps)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(named(given.source), given.slices, RefineOptions(steps=given.steps))
    print("\n".join(report(rows)))
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
