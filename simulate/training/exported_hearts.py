"""Slices of whole virtual patients as scanners would export them, for a segmentation network to end its training on.

What :mod:`simulate.training.dataset` draws varies more than real images do; what it leaves out is what only a scanner
knows of: slow blood along the wall, coils, banding from the field, the filters of vendors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kspace.segment.orient import usual_turn
from kspace.segment.window import Window
from simulate.exported import draw_style, exported_cine, place_in_scanner
from simulate.patient.parameters import Group
from simulate.patient.placement import stack_affine
from simulate.patient.population import draw_patient
from simulate.training.dataset import HeartOptions, Split, patient_seed
from simulate.training.heart_bank import StoredHeart, position_of, write_heart
from simulate.training.scanned_hearts import OFF_MM, seen_through
from simulate.vendors import VENDORS

_ZOOM = 0.12  # standard deviation of the logarithm of the window's pixel


def draw_exported(split: Split | str, index: int, options: HeartOptions) -> tuple[StoredHeart, ...]:
    """Return every other slice of one patient's export, each in a window around the heart.

    Parameters
    ----------
    split, index
        Which patient; diagnostic groups take turns, the vendor's style follows from the number.
    options
        Of the window, and the number of frames.
    """
    seed = patient_seed(index, split)
    rng = np.random.default_rng([seed, 803])
    patient = draw_patient(seed, group=list(Group)[index % len(Group)])
    vendor = list(VENDORS.values())[int(rng.integers(len(VENDORS)))]
    style = replace(draw_style(vendor, seed), n_frames=options.frames)
    body = place_in_scanner(patient, vendor, style, seed=seed)
    chosen = range(int(rng.integers(2)), body.geometry.shape[0], 2)
    cine, labels = exported_cine(body, style, slices=chosen, seed=seed)
    to_stack = stack_affine(patient, body.geometry)
    heights = (to_stack[2, 2] * np.array(chosen) + to_stack[2, 3]) / patient.left.length_mm
    turn = usual_turn(cine.geometry)
    _, dy, dx = cine.geometry.spacing_mm
    spacing = (dx, dy) if turn.swapped else (dy, dx)
    images, labels = turn.apply(cine.images), turn.apply(labels)
    middle = torch.nonzero((labels > 0).any(1))[:, 1:].double().mean(0).tolist()
    hearts = []
    for image, drawn, height in zip(images, labels, heights, strict=True):
        off = rng.uniform(-OFF_MM, OFF_MM, 2)
        centre = (middle[0] + off[0] / spacing[0], middle[1] + off[1] / spacing[1])
        pixel = options.pixel_mm * float(np.exp(_ZOOM * np.clip(rng.normal(), -2, 2)))
        shown, seen = seen_through(Window(centre, options.size, pixel, spacing), image, drawn)
        hearts.append(StoredHeart(shown, seen, position_of(float(height), seen)))
    return tuple(hearts)


def exported_hearts(folder: Path, split: Split | str, patients: Iterable[int], options: HeartOptions) -> Iterator[Path]:
    """Yield a heart's file for every slice of the patients, drawn where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in patients:
        name = f"exported-{Split(split).value}-{index:05d}"
        done = folder / f"{name}.done"
        if not done.exists():
            for k, heart in enumerate(draw_exported(split, index, options)):
                write_heart(heart, folder / f"{name}-{k:02d}.safetensors")
            done.touch()
        yield from sorted(folder.glob(f"{name}-*.safetensors"))
