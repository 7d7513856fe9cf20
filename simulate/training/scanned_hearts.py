"""Hearts as they are reconstructed from too few spokes, from the bank of scans that reconstruction is learnt from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kspace.errors import InputError
from kspace.segment.inputs import normalised
from kspace.segment.window import Window
from simulate.patient.placement import short_axis_like, stack_affine
from simulate.patient.population import draw_patient
from simulate.training.bank import Bank, read_scan
from simulate.training.dataset import HeartOptions, Split, patient_seed
from simulate.training.heart_bank import StoredHeart, position_of, write_heart
from simulate.training.scans import draw_protocol
from simulate.vendors import vendor

OFF_MM = 15.0
"""By which the middle of the window misses the heart's, as a search for it may."""


def scanned_heart(path: Path, bank: Bank, options: HeartOptions) -> StoredHeart:
    """Return a stored scan's compressed-sensing images around the heart, with its labels.

    Parameters
    ----------
    path
        Of one scan of the bank.
    bank
        Whose limits its protocol was drawn from.
    options
        Of the window; the number of frames is the scan's.

    Raises
    ------
    InputError
        When it is not one of the bank's files.
    """
    named = re.fullmatch(r"(train|validation|test)-(\d+)-(\d+)\.safetensors", path.name)
    if named is None:
        raise InputError(f"{path.name} is no scan of a bank", expected="for example train-00003-1.safetensors")
    split, index = Split(named[1]), int(named[2])
    stored, protocol = read_scan(path), draw_protocol(index, split, bank.limits)
    style = vendor(protocol.vendor)
    patient = draw_patient(patient_seed(index, split), group=protocol.group)
    affine = stack_affine(patient, short_axis_like(patient, style.geometry))
    height = float((affine[2, 2] * protocol.slice_index + affine[2, 3]) / patient.left.length_mm)
    there = torch.nonzero((stored.labels > 0).any(0)).double()
    rows, columns = stored.labels.shape[-2:]
    centre = there.mean(0).tolist() if len(there) else [rows / 2, columns / 2]
    pixel = style.field_of_view_mm / protocol.matrix
    miss = np.random.default_rng([patient.seed, 801, int(named[3])]).uniform(-OFF_MM, OFF_MM, 2) / pixel
    window = Window((centre[0] + miss[0], centre[1] + miss[1]), options.size, options.pixel_mm, (pixel, pixel))
    images, labels = seen_through(window, stored.start.abs() * stored.shading, stored.labels)
    return StoredHeart(images, labels, position_of(height, labels))


def seen_through(window: Window, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a network is given of a slice, and the labels there.

    Parameters
    ----------
    window
        On the slice.
    images, labels
        (frame, y, x) magnitudes, and uint8.

    Returns
    -------
    Both (frame, size, size): images of mean 0 and standard deviation 1, and the label with the largest share of each
    pixel.
    """
    shares = torch.stack([window.cut((labels == label).float()) for label in range(4)], dim=1)
    shares[:, 0] += 1 - shares.sum(1)  # beyond the image there is background
    return normalised(window.cut(images)), shares.argmax(1).to(torch.uint8)


def scanned_hearts(bank: Bank, folder: Path, split: Split, options: HeartOptions) -> Iterator[Path]:
    """Yield a heart's file for every scan of a split that the bank holds, written where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for scan in sorted(bank.folder.glob(f"{split.value}-*.safetensors")):
        path = folder / f"scanned-{scan.name}"
        if not path.exists():
            write_heart(scanned_heart(scan, bank, options), path)
        yield path
