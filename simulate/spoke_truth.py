"""What every spoke suffered, as only a simulation can know: recorded beside the data."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError
from kspace.formats.files import atomic_text, written_beside


@dataclass(frozen=True)
class Truth:
    """The state of the body and of the scanner at each spoke.

    Parameters
    ----------
    time_s
        (spoke,) seconds from the first spoke of its slice.
    slice_index
        (spoke,) int64.
    beat
        (spoke,) int64, counted by the true R waves of the slice.
    phase
        (spoke,) mechanical phase in [0, 1), 0 at end-diastole.
    gated_phase
        (spoke,) phase in [0, 1) that gating finds from the recorded R waves. It differs from ``phase`` also where
        nothing went wrong, as beats do not stretch linearly.
    stroke
        (spoke,) stroke volume relative to a regular beat.
    breath_mm
        (spoke,) diaphragm from the breath-hold position, towards the feet.
    shift_mm
        (spoke, 3) bulk shift along (x, y, z).
    rotation_rad
        (spoke,) bulk rotation from +x to +y.
    dropped, spiked
        (spoke,) bool: noise alone; a sample that is far too large.
    r_waves
        (beat, 2) float64, slice and instant in seconds of the true R waves.
    """

    time_s: Tensor
    slice_index: Tensor
    beat: Tensor
    phase: Tensor
    gated_phase: Tensor
    stroke: Tensor
    breath_mm: Tensor
    shift_mm: Tensor
    rotation_rad: Tensor
    dropped: Tensor
    spiked: Tensor
    r_waves: Tensor

    def __post_init__(self) -> None:
        n = len(self.time_s)
        for entry in fields(self):
            values = getattr(self, entry.name)
            expected = {"shift_mm": (n, 3), "r_waves": (len(self.r_waves), 2)}.get(entry.name, (n,))
            if tuple(values.shape) != expected:
                raise ShapeError(entry.name, values, f"{expected}")

    def __len__(self) -> int:
        return len(self.time_s)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join the truths of several slices in the order given."""
        if not parts:
            raise InputError("there are no truths to join", expected="at least one")
        return cls(**{e.name: torch.cat([getattr(part, e.name) for part in parts]) for e in fields(cls)})

    def write_npz(self, path: str | os.PathLike[str]) -> None:
        """Write all arrays under their names; the file appears whole or not at all."""
        with written_beside(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **{entry.name: getattr(self, entry.name).numpy() for entry in fields(self)})

    @classmethod
    def read_npz(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`write_npz` wrote.

        Raises
        ------
        InputError
            When the file is no such record.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(**{entry.name: torch.from_numpy(stored[entry.name]) for entry in fields(cls)})
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise InputError(f"{path} cannot be read as the truth of spokes", expected="a file of write_npz") from error

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row per spoke; the R waves are left out."""
        table: dict[str, Tensor] = {e.name: getattr(self, e.name) for e in fields(self) if e.name != "r_waves"}
        shift = table.pop("shift_mm")
        table |= {f"shift_{axis}_mm": shift[:, number] for number, axis in enumerate("xyz")}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table)
        columns = [values.int() if values.dtype == torch.bool else values for values in table.values()]
        for row in zip(*(values.tolist() for values in columns), strict=True):
            writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row])
        atomic_text(path, text.getvalue())
