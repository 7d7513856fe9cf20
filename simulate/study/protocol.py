"""What a study does: the protocol of its scans, and who is scanned. Typed, checked, and named by a hash."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kspace.errors import InputError, UsageError
from kspace.formats.files import existing_file, one_line
from simulate.patient.parameters import Group
from simulate.training.dataset import Split, patient_seed
from simulate.vendors import VENDORS

FIRST_PATIENT = 100_000
"""Studies take test patients from this index on: none that a network learnt from, was chosen on or was measured on."""
_GOLDEN = (math.sqrt(5) - 1) / 2
PRETEND = "pretend"
"""The method of a study without scans, see :mod:`simulate.study.pretend`."""


class Part(StrEnum):
    """Parts of a study that share no patient."""

    FIT = "fit"
    CALIBRATION = "calibration"
    TEST = "test"


_ORDER = "calibration fit test calibration fit calibration test calibration fit calibration test"
_TURN = tuple(Part(name) for name in _ORDER.split())


def part_of(number: int) -> Part:
    """Return the part of a study's patient: of eleven in a row three fit, five calibrate and three test."""
    return _TURN[number % len(_TURN)]


Share = Annotated[float, Field(ge=0, le=1)]


class Protocol(BaseModel):
    """How the patients of a study are scanned and judged.

    Parameters
    ----------
    n_slices
        Short-axis slices, evenly spread over the left ventricle at end-diastole from the mitral plane to the apex,
        each in the middle of its part (the midpoint rule): their distance follows the patient.
    thickness_mm
        Of a slice.
    field_of_view_mm, matrix
        Of the reconstruction, square. The signal of what lies outside a disc in it is suppressed
        (:mod:`simulate.study.stack`), which lets the field of view be smaller than the body.
    frames
        Cardiac phases.
    n_coils
        Receive channels.
    tr_ms
        Milliseconds from spoke to spoke; None is the vendor's. A study has few frames, as frames cost; the default is
        long to match, so that a second gives a frame as many spokes (8) as 2.6 ms and 50 frames do.
    snr
        Smallest and largest, see :class:`~simulate.scanner.ScannerOptions`; drawn evenly in the logarithm.
    heart_rate_bpm
        Of all patients; None draws it.
    seconds
        Scan time of a slice at each step.
    groups
        Share of each diagnostic group, in the order of :class:`~simulate.patient.parameters.Group`.
    vendors
        Equally likely.
    drifting, ectopic
        Share of patients whose breath-hold drifts, and who have an ectopic beat about every five seconds.
    method
        Reconstruction.
    members
        Segmentation networks; two or more, as their spread is what segmentation quality control looks at. None of them
        is None: a protocol without segmentation has no use here.
    window
        Pixels along the side of what the networks see.
    frames_at_once
        That a network sees at once: few, and what it remembers of them stays in the processor's cache.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_slices: int = Field(5, ge=2, le=20)
    thickness_mm: float = Field(8.0, ge=2, le=20)
    field_of_view_mm: float = Field(208.0, ge=160, le=500)
    matrix: int = Field(96, ge=32, le=320)
    frames: int = Field(10, ge=4, le=60)
    n_coils: int = Field(4, ge=1, le=32)
    tr_ms: float | None = Field(12.5, ge=1, le=20)
    snr: tuple[float, float] = (5.0, 25.0)
    heart_rate_bpm: float | None = Field(None, ge=35, le=150)
    seconds: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0, 7.0, 12.0)
    groups: tuple[Share, Share, Share, Share, Share] = (0.74, 0.065, 0.065, 0.065, 0.065)
    vendors: tuple[str, ...] = tuple(VENDORS)
    drifting: Share = 0.0
    ectopic: Share = 0.0
    method: str = "unrolled"
    members: int = Field(2, ge=2, le=8)
    window: int = Field(128, ge=32, le=256, multiple_of=16)
    frames_at_once: int = Field(2, ge=1, le=60)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.seconds) != sorted(set(self.seconds)) or len(self.seconds) < 2 or self.seconds[0] < 0.3:
            raise ValueError("seconds have to rise, from 0.3 on, and there have to be two or more")
        if not 0 < self.snr[0] <= self.snr[1]:
            raise ValueError("snr is the smallest and the largest, both positive")
        if not abs(sum(self.groups) - 1) < 1e-6:
            raise ValueError("the shares of the groups have to add up to 1")
        unknown = [name for name in self.vendors if name not in VENDORS]
        if unknown or not self.vendors:
            raise ValueError(f"vendors are some of {', '.join(VENDORS)}")
        return self

    @classmethod
    def read(cls, path: Path) -> Protocol:
        """Read a TOML file; what it does not say keeps its default.

        Raises
        ------
        InputError
            When it is no TOML, or not a protocol.
        """
        try:
            values = tomllib.loads(existing_file(path, "a TOML file").read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path} is no TOML ({one_line(error)})", expected="a protocol, see docs/study.md"
            ) from error
        return cls.of(values, str(path))

    @classmethod
    def of(cls, values: dict[str, Any], name: str) -> Protocol:
        """Check values from outside; ``name`` says in the message where they are from."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"{name}: {where or 'protocol'}: {one_line(first['msg'])}", expected="a protocol"
            ) from error

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of all of its values."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def who(self, number: int, seed: int = 0) -> Who:
        """Return a patient of the study; all follows from the number, the study's seed and the protocol.

        Groups follow one another evenly (multiples of the golden ratio), so that each part of a study has its share of
        them however far it has come; all else is chance.
        """
        if number < 0:
            raise UsageError(f"patient {number}", expected="0 or more")
        index = FIRST_PATIENT + 1_000_000 * seed + number
        patient = patient_seed(index, Split.TEST)
        rng = np.random.default_rng([patient, 900])
        place = ((number // len(_TURN) * 5 + number % len(_TURN)) * _GOLDEN + 0.5 / len(_TURN)) % 1.0
        bounds = np.cumsum(self.groups)
        group = list(Group)[min(int(np.searchsorted(bounds, place, side="right")), len(Group) - 1)]
        snr = float(np.exp(rng.uniform(math.log(self.snr[0]), math.log(self.snr[1]))))
        style = str(rng.choice(self.vendors))
        drifting, ectopic = (
            bool(draw < share) for draw, share in zip(rng.random(2), (self.drifting, self.ectopic), strict=True)
        )
        return Who(number, patient, part_of(number), group, style, snr, drifting, ectopic)


@dataclass(frozen=True)
class Who:
    """One patient of a study.

    Parameters
    ----------
    number
        In the study, from 0 on.
    seed
        The virtual patient's.
    part, group, vendor, snr, drifting, ectopic
        See :class:`Protocol`.
    """

    number: int
    seed: int
    part: Part
    group: Group
    vendor: str
    snr: float
    drifting: bool
    ectopic: bool
