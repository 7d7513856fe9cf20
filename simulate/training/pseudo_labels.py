"""Hearts whose labels a network drew itself, where the volumes that they add up to could be a heart's.

Semi-supervised learning by quality control, semiQCSeg (Ruijsink et al., arXiv 2009.00584): unlabelled stacks are
segmented, what is physiologically implausible is left out, and another network learns from the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from kspace.curve_problems import curve_problems
from kspace.errors import InputError
from kspace.formats.files import atomic_json
from kspace.formats.source import open_source
from kspace.scan import Cine
from kspace.segment.orient import usual_turn
from kspace.segment.segmentation import Segmentation
from kspace.segment.window import Window
from kspace.volume_curves import volume_curves
from simulate.scan_heart import CineSegmenter
from simulate.training.dataset import HeartOptions
from simulate.training.heart_bank import StoredHeart, write_heart
from simulate.training.scanned_hearts import OFF_MM, seen_through


def pseudo_hearts(cine: Cine, found: Segmentation, options: HeartOptions, seed: int = 0) -> Iterator[StoredHeart]:
    """Yield every slice of a cine around its heart, the usual way round, with the labels and position found.

    Parameters
    ----------
    cine
        Magnitudes, or complex images.
    found
        Its segmentation, with a heart in it.
    options
        Of the window; the number of frames is the cine's.
    seed
        Of how far each window misses the heart.

    Raises
    ------
    InputError
        When nothing is labelled.
    """
    turn = usual_turn(cine.geometry)
    _, dy, dx = cine.geometry.spacing_mm
    spacing = (dx, dy) if turn.swapped else (dy, dx)
    labels = turn.apply(found.labels)
    there = torch.nonzero((labels > 0).any(1))
    if not len(there):
        raise InputError("a cine has no heart to learn from", expected="labels in at least one slice")
    # One middle for the whole stack, as a segmenter looks at it: slices beyond the heart have none of their own.
    middle = there[:, 1:].double().mean(0).tolist()
    rng = np.random.default_rng([seed, 802])
    for k, position in enumerate(found.positions):
        row, column = (c + m / mm for c, m, mm in zip(middle, rng.uniform(-OFF_MM, OFF_MM, 2), spacing, strict=True))
        window = Window((row, column), options.size, options.pixel_mm, spacing)
        yield StoredHeart(*seen_through(window, turn.apply(cine.images[k].abs()), labels[k]), position)


def pseudo_labelled(cines: Path, segment: CineSegmenter, folder: Path, options: HeartOptions) -> Iterator[Path]:
    """Yield a heart's file for every slice of the unlabelled cines that pass.

    Beside the files of each cine stands ``NAME.json`` with the problems of its curves, empty if it passed, and the
    number of its slices that were written. A cine that has one is not segmented again.

    Parameters
    ----------
    cines
        Folder of nothing but NIfTI files and folders of DICOM files, whole stacks; hidden files are passed over.
    segment
        Draws the labels.
    folder
        Where hearts are written; made when missing.
    options
        Of the window.

    Raises
    ------
    InputError
        When there is no such folder, or something in it is not a cine.
    """
    if not cines.is_dir():
        raise InputError(f"there is no folder {cines}", expected="a folder of unlabelled cines")
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(path for path in cines.iterdir() if not path.name.startswith(".")):
        verdict = folder / f"{source.name}.json"
        if not verdict.exists():
            cine = open_source(source)
            if not isinstance(cine, Cine):
                raise InputError(f"{source.name} holds raw data", expected="a cine, reconstructed before")
            found = segment(cine)
            problems = curve_problems(volume_curves(found.labels, found.geometry, found.positions))
            hearts = [] if problems else list(pseudo_hearts(cine, found, options, crc32(source.name.encode())))
            for k, heart in enumerate(hearts):
                write_heart(heart, _heart_path(folder, source, k))
            atomic_json(verdict, {"problems": problems, "slices": len(hearts)})
        for k in range(json.loads(verdict.read_text())["slices"]):
            yield _heart_path(folder, source, k)


def _heart_path(folder: Path, source: Path, k: int) -> Path:
    return folder / f"pseudo-{source.name}-{k:02d}.safetensors"
