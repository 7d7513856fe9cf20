"""Whole stacks of virtual patients that no network has seen, as a scanner would export them (synthetic).

Groups and vendor styles take turns, all else follows from the patient's number. A second scan of the same patient has
other noise, coils, heart rate and style of imaging, and the patient lies a little differently: what a rescan is.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from kspace.formats.files import written_beside
from kspace.scan import Cine, Geometry
from simulate.exported import draw_sequence, draw_style, exported_cine, place_in_scanner, turned
from simulate.magnet import MagnetSignals
from simulate.patient.anatomy import PatientBody
from simulate.patient.parameters import Group, Patient
from simulate.patient.placement import stack_affine
from simulate.patient.population import draw_patient
from simulate.training.dataset import Split, patient_seed
from simulate.vendors import VENDORS

FRAMES = 16
_RATE, _TILT_DEG, _SHIFT_MM = 0.08, 4.0, 3.0  # of a rescan: standard deviations


@dataclass(frozen=True)
class Stack:
    """One scan and its truth.

    Parameters
    ----------
    cine, labels
        As :func:`simulate.exported.exported_cine` gives them.
    patient
        Who it is.
    vendor
        Style of imaging.
    heights
        (slice,) 0 at the mitral plane, 1 at the apex, at end-diastole.
    """

    cine: Cine
    labels: Tensor
    patient: Patient
    vendor: str
    heights: tuple[float, ...]


def group_of(index: int) -> Group:
    return list(Group)[index % len(Group)]


def patient_of(split: Split, index: int, *, rescan: bool = False) -> Patient:
    """Return a patient; on the second day the heart beats at another rate."""
    seed = patient_seed(index, split)
    patient = draw_patient(seed, group=group_of(index))
    if not rescan:
        return patient
    factor = float(np.exp(np.random.default_rng([seed, 77]).normal(0, _RATE)))
    rate = float(np.clip(60 / patient.rr_s * factor, 45, 110))
    return draw_patient(seed, group=group_of(index), heart_rate_bpm=rate)


def draw_stack(split: Split, index: int, *, rescan: bool = False) -> Stack:
    """Scan a patient."""
    patient = patient_of(split, index, rescan=rescan)
    name = list(VENDORS)[(index // len(Group) + index) % len(VENDORS)]
    seed = 2 * index + rescan
    style = replace(draw_style(VENDORS[name], seed), n_frames=FRAMES)
    body = place_in_scanner(patient, VENDORS[name], style, seed=seed)
    if rescan:
        geometry = _moved(body.geometry, np.random.default_rng([patient.seed, 78]))
        signals = MagnetSignals(patient, geometry, draw_sequence(VENDORS[name], seed), seed=seed)
        body = PatientBody(patient, geometry, signals=signals, planes=3, cached_slices=2)
    cine, labels = exported_cine(body, style, seed=seed)
    to_stack = stack_affine(patient, body.geometry)
    heights = to_stack[2, 2] * np.arange(cine.n_slices) + to_stack[2, 3]
    return Stack(cine, labels, patient, name, tuple((heights / patient.left.length_mm).tolist()))


def _moved(geometry: Geometry, rng: np.random.Generator) -> Geometry:
    """Lay the patient down again: turned in the plane of the slices and shifted along all axes."""
    again = turned(geometry, float(np.radians(rng.normal(0, _TILT_DEG))))
    affine = again.affine.copy()
    affine[:3, 3] += rng.normal(0, _SHIFT_MM, 3)
    return Geometry(again.shape, affine, again.slice_thickness_mm)


def stored_stack(folder: Path, split: Split, index: int, *, rescan: bool = False) -> Stack:
    """Return a scan from a folder, into which it is drawn when it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split.value}-{index:04d}{'-again' if rescan else ''}.safetensors"
    if not path.exists():
        drawn = draw_stack(split, index, rescan=rescan)
        g = drawn.cine.geometry
        facts = {
            "affine": g.affine.tolist(), "thickness": g.slice_thickness_mm, "rr_s": drawn.cine.rr_s,
            "vendor": drawn.vendor, "heights": drawn.heights,
        }  # fmt: skip
        with written_beside(path) as temporary:
            # Exported values are whole numbers, as DICOM holds them.
            tensors = {"images": drawn.cine.images.clamp(0, 32767).to(torch.int16), "labels": drawn.labels}
            save_file(tensors, temporary, {"facts": json.dumps(facts)})
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
        images, labels = file.get_tensor("images").float(), file.get_tensor("labels")
    geometry = Geometry((len(images), *images.shape[-2:]), np.array(facts["affine"]), facts["thickness"])
    cine = Cine(images, geometry, tuple(facts["rr_s"]), "a virtual patient")
    return Stack(cine, labels, patient_of(split, index, rescan=rescan), facts["vendor"], tuple(facts["heights"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=list(Split), default=Split.TEST, type=Split)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--patients", type=int, default=50)
    parser.add_argument("--rescan", action="store_true")
    given = parser.parse_args()
    for index in range(given.first, given.first + given.patients):
        one = stored_stack(given.folder, given.split, index, rescan=given.rescan)
        print(index, one.patient.group.value, one.vendor, tuple(one.cine.images.shape), flush=True)


if __name__ == "__main__":
    main()
