"""Draw twelve virtual patients beside the real hearts: ``python docs/make_population.py --data ../shared/data``.

Every row is a heart at base, middle and apex, at end-diastole and end-systole.
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image
from scipy import ndimage
from torch import Tensor

from kspace.formats.nifti import read_labels
from kspace.formats.source import open_source
from simulate.exported import draw_style, exported_cine, place_in_scanner
from simulate.patient.parameters import Group
from simulate.patient.population import draw_patient
from simulate.vendors import VENDORS

mpl.use("Agg")
PICTURES = Path(__file__).parent / "pictures"
CROP_MM, SIDE, FIRST_SEED = 170.0, 96, 4100
LEVELS = (0.16, 0.45, 0.76)  # heights of base, middle and apex

Tile = np.ndarray


def virtual(number: int) -> tuple[str, list[Tile]]:
    """Return a name and six tiles: base, middle and apex at end-diastole, then at end-systole."""
    seed, group = FIRST_SEED + number, list(Group)[number % len(Group)]
    patient = draw_patient(seed, group=group)
    name = list(VENDORS)[number % len(VENDORS)]
    style = replace(draw_style(VENDORS[name], seed), n_frames=20)
    body = place_in_scanner(patient, VENDORS[name], style, seed=seed)
    height = (np.arange(body.geometry.shape[0]) - 0.5) * body.geometry.spacing_mm[0] / patient.left.length_mm
    early, late = [], []
    for level in LEVELS:
        index = int(np.argmin(np.abs(height - level)))
        cine, labels = exported_cine(body, style, slices=[index], seed=seed)
        areas = (labels[0] == 1).sum((1, 2))
        centre = _centre(labels[0, int(areas.argmax())] > 0)
        tiles = [
            _tile(cine.images[0, int(f)], centre, cine.geometry.spacing_mm[1]) for f in (areas.argmax(), areas.argmin())
        ]
        early.append(tiles[0])
        late.append(tiles[1])
    return f"{group.value.replace('_', ' ')}\n{patient.sex.value}\n{name}", early + late


def real(data: Path, name: str, file: str) -> tuple[str, list[Tile]]:
    """Return a name and six tiles of a Sunnybrook cine."""
    folder = data / "sunnybrook" / name
    cine, labels = open_source(folder / file), read_labels(folder / "labels.nii.gz")
    expert = json.loads((folder / "expert.json").read_text())
    found = [k for k in range(cine.n_slices) if bool((labels[k, expert["ed_phase"]] == 2).any())]
    chosen = [found[round(level * (len(found) - 1))] for level in LEVELS]
    tiles = []
    for phase in (expert["ed_phase"], expert["es_phase"]):
        for k in chosen:
            centre = _centre(labels[k, expert["ed_phase"]] > 0)
            tiles.append(_tile(cine.images[k, phase].abs(), centre, cine.geometry.spacing_mm[1]))
    return f"REAL\n{name}", tiles


def _centre(mask: Tensor) -> tuple[float, float]:
    row, column = ndimage.center_of_mass(mask.numpy())
    return float(row), float(column)


def _tile(image: Tensor, centre: tuple[float, float], mm: float) -> Tile:
    """Return a square about the heart, (SIDE, SIDE) from 0 to 1."""
    offsets = (np.arange(SIDE) - SIDE / 2) * CROP_MM / SIDE / mm
    at = np.meshgrid(centre[0] + offsets, centre[1] + offsets, indexing="ij")
    tile = ndimage.map_coordinates(image.numpy(), at, order=1)
    inner = slice(SIDE // 4, 3 * SIDE // 4)  # grey levels are set where the heart is
    return np.clip(tile / np.quantile(tile[inner, inner], 0.98), 0, 1.15)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    hearts = [real(arguments.data, "SC-HF-I-1", "dicom"), real(arguments.data, "SC-HF-I-4", "cine.nii.gz")]
    hearts += [virtual(number) for number in range(12)]
    figure, axes = plt.subplots(7, 2, figsize=(12.6, 7 * 0.96 + 0.5), facecolor="white")
    for axis, (name, tiles) in zip(axes.flat, hearts, strict=True):
        axis.imshow(np.concatenate(tiles, 1), cmap="gray", vmin=0, vmax=1.15, interpolation="bilinear", aspect="auto")
        axis.set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center", labelpad=4)
        axis.set_yticks([])
        axis.set_xticks([])
        if name.startswith("REAL"):
            for spine in axis.spines.values():
                spine.set(color="#b3541e", linewidth=2)
    for axis in axes[0]:
        axis.set_title("base, middle, apex at end-diastole   |   base, middle, apex at end-systole", fontsize=8)
    figure.suptitle("Top row: real hearts (Sunnybrook). Below: virtual patients, synthetic", fontsize=9, y=0.995)
    figure.subplots_adjust(left=0.075, right=0.998, top=0.945, bottom=0.004, wspace=0.2, hspace=0.03)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    Image.open(drawn).convert("RGB").quantize(96).save(PICTURES / "population.png", optimize=True)


if __name__ == "__main__":
    main()
