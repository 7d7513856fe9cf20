"""Hearts without end: slices of virtual patients over the beat, drawn and randomised when they are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kspace.errors import UsageError
from kspace.segment.inputs import normalised
from simulate.body import BodyState
from simulate.patient.cardiac_cycle import emptiness, filling
from simulate.patient.parameters import Group
from simulate.patient.population import draw_patient
from simulate.tissues import Tissue
from simulate.training.degrade import degraded
from simulate.training.draw_slice import Frame, draw_slice
from simulate.training.randomise import Appearance, Randomisation

FIRST_SEED = 1_000_000_000
"""Patients for training have seeds from here on, away from those that people choose and cohorts count."""
_MARGIN = 8  # pixels drawn around the crop, for what wraps around


class Split(StrEnum):
    """Parts of the population that share no patient."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def patient_seed(index: int, split: Split | str = Split.TRAIN) -> int:
    """Return the seed of a patient: its remainder by three tells its split, so that no two splits share one."""
    if index < 0:
        raise UsageError(f"the index of a patient is {index}", expected="0 or more")
    return FIRST_SEED + 3 * index + list(Split).index(Split(split))


@dataclass(frozen=True)
class HeartOptions:
    """What the items are like.

    Parameters
    ----------
    frames
        Phases over the beat.
    size
        Rows and columns.
    pixel_mm
        Nominal pixel; :attr:`Randomisation.scale` varies it.
    planes
        Drawn through the thickness of a slice.
    group
        One group only; None follows the randomisation.
    """

    frames: int = 12
    size: int = 128
    pixel_mm: float = 1.4
    planes: int = 2
    group: Group | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("frames", 1, 200), ("size", 16, 1024), ("pixel_mm", 0.3, 10), ("planes", 1, 16)):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name} is {getattr(self, name)}", expected=f"{low} to {high}")


class SimulatedHearts(Dataset[tuple[Tensor, Tensor, dict[str, Any]]]):
    """One slice of one virtual patient per item, the same for the same index.

    An item is an image (frame, y, x) float32 of mean 0 and standard deviation 1, labels (frame, y, x) uint8 (0
    background, 1 LV cavity, 2 myocardium, 3 RV cavity), and a record: the patient's ``seed``, ``group`` and ``sex``,
    the slice's ``height`` (0 mitral plane, 1 apex), ``pixel_mm``, ``rr_s``, the ``emptiness`` of each frame, and
    whether the image is ``clean``. It holds no state: workers, forked or spawned, need no seeding.

    Parameters
    ----------
    length
        Number of items; every index is a patient of its own.
    split
        Training, validation and test share no patient.
    options
        Size and frames.
    randomisation
        What appearances are drawn from.
    epoch
        Changes appearance and slice of every patient, not the patients.
    clean
        Leaves out all that :mod:`simulate.training.degrade` does.
    device
        Where items are drawn; chance is always drawn on the CPU.

    Raises
    ------
    UsageError
        When the length is none.
    """

    def __init__(
        self, length: int, split: Split | str = Split.TRAIN, options: HeartOptions | None = None,
        randomisation: Randomisation | None = None, *, epoch: int = 0, clean: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        if length < 1:
            raise UsageError(f"{length} items", expected="1 or more")
        self.length, self.split, self.epoch, self.clean = length, Split(split), epoch, clean
        self.options, self.randomisation = options or HeartOptions(), randomisation or Randomisation()
        self.device = torch.device(device)

    def __len__(self) -> int:
        return self.length

    def appearance(self, index: int) -> Appearance:
        """Return how an item looks, without drawing it."""
        seed = patient_seed(index, self.split)
        rng = np.random.default_rng([seed, 500, self.epoch])
        texture = draw_patient(seed).texture
        look = self.randomisation.draw(rng, texture, self.options.pixel_mm)
        return look if self.options.group is None else replace(look, group=self.options.group)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
        if not -self.length <= index < self.length:
            raise IndexError(f"there is no item {index} of {self.length}")
        index %= self.length
        look, options = self.appearance(index), self.options
        patient = draw_patient(patient_seed(index, self.split), group=look.group)
        patient = replace(patient, texture=look.texture)
        phases = (torch.arange(options.frames) / options.frames + look.first_phase) % 1
        margin = 0 if self.clean else _MARGIN
        frame = Frame(
            options.size + 2 * margin, look.pixel_mm, look.height * patient.left.length_mm, look.thickness_mm,
            look.shift_mm, look.rotation_rad, look.mirrored,
        )  # fmt: skip
        signals = torch.tensor(look.signals).repeat(options.frames, 1)
        rates = [abs(filling(patient.rhythm, p + 0.02) - filling(patient.rhythm, p - 0.02)) for p in phases.tolist()]
        flow = torch.tensor(rates) / 0.15
        for tissue in (Tissue.ARTERIAL_BLOOD, Tissue.VENOUS_BLOOD):
            signals[:, tissue] *= 1 + look.flicker * flow.clamp(max=1.5)
        images, labels, blood = draw_slice(
            patient, frame, phases, signals, breath_mm=look.breath_mm, planes=options.planes, device=self.device
        )
        if not self.clean:
            images = degraded(smeared(images, look.window_share), blood, look, margin)
            labels = labels[:, margin : margin + options.size, margin : margin + options.size].contiguous()
        record = {
            "seed": patient.seed,
            "group": patient.group.value,
            "sex": patient.sex.value,
            "height": look.height,
            "pixel_mm": look.pixel_mm,
            "rr_s": patient.rr_s,
            "emptiness": torch.tensor([emptiness(patient, BodyState(p)) for p in phases.tolist()]),
            "clean": self.clean,
        }
        return normalised(images), labels, record


def smeared(images: Tensor, share: float) -> Tensor:
    """Average (frame, y, x) images over a share of the beat by a Gaussian of that full width, around the circle."""
    n = len(images)
    sigma = share * n / 2.355
    if n < 3 or sigma < 0.1:
        return images
    gain = torch.exp(-2 * (math.pi * torch.fft.rfftfreq(n) * sigma) ** 2).to(images.device)
    result: Tensor = torch.fft.irfft(torch.fft.rfft(images, dim=0) * gain[:, None, None], n=n, dim=0)
    return result
