"""Do all groups of patients fare alike? Scan time, error and violations by group, with the spread between groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kspace.quality.family import Outcome
from kspace.quality.trajectory import Trajectory
from simulate.study.evaluate import biomarker_errors, exact_interval


@dataclass(frozen=True)
class GroupRow:
    """One group under one policy: patients, seconds per slice, EF error in points, share that misses, its interval."""

    group: str
    patients: int
    seconds: float
    ef_error: float
    violation: float
    violation_interval: tuple[float, float]


@dataclass(frozen=True)
class Audit:
    """All groups of one kind.

    Parameters
    ----------
    kind
        What groups patients.
    rows
        One a group.
    seconds_sd, ef_error_sd
        Standard deviation between the groups' means.
    ser
        Largest over smallest mean EF error (skewed error ratio, Puyol-Antón et al., 2021, there of 1 - Dice).
    """

    kind: str
    rows: tuple[GroupRow, ...]
    seconds_sd: float
    ef_error_sd: float
    ser: float


def _thirds(name: str, unit: str) -> Callable[[Sequence[Trajectory]], list[str]]:
    def groups(patients: Sequence[Trajectory]) -> list[str]:
        values = np.array([float(one.facts.get(name, "nan")) for one in patients])
        if not np.isfinite(values).all():
            return ["not known"] * len(patients)
        low, high = np.quantile(values, (1 / 3, 2 / 3))
        words = (f"below {low:.3g} {unit}", f"{low:.3g} to {high:.3g} {unit}", f"above {high:.3g} {unit}")
        return [words[int(value > low) + int(value > high)] for value in values]

    return groups


def _rank(name: str) -> tuple[int, str]:
    """Thirds rise from the lowest to the highest; other groups follow the alphabet."""
    return (2 if name.startswith("above ") else int(" to " in name), name)


KINDS: dict[str, Callable[[Sequence[Trajectory]], list[str]]] = {
    "disease group": lambda patients: [one.group.replace("_", " ") for one in patients],
    "sex": lambda patients: [one.sex for one in patients],
    "vendor style": lambda patients: [one.vendor for one in patients],
    "SNR": _thirds("snr", ""),
    "heart rate": _thirds("heart_rate_bpm", "/min"),
    "body surface": _thirds("bsa_m2", "m²"),
}
"""Ways to group patients."""


def audit(rows: Sequence[Outcome], patients: Sequence[Trajectory]) -> list[Audit]:
    """Return the audit of one policy by every kind of group of which there are two or more."""
    found = []
    for kind, group in KINDS.items():
        names = group(patients)
        table = []
        for name in sorted(set(names), key=_rank):
            mine = [row for row, own in zip(rows, names, strict=True) if own == name]
            missed = sum(row.missed for row in mine)
            table.append(
                GroupRow(
                    name, len(mine), float(np.mean([row.stopped.mean_seconds for row in mine])),
                    float(np.nanmean([biomarker_errors(row)["lv_ef_percent"] for row in mine])),
                    missed / len(mine), exact_interval(missed, len(mine)),
                )
            )  # fmt: skip
        if len(table) > 1:
            errors = np.array([row.ef_error for row in table])
            found.append(
                Audit(
                    kind, tuple(table), float(np.std([row.seconds for row in table])), float(errors.std()),
                    float(errors.max() / max(errors.min(), 1e-9)),
                )
            )  # fmt: skip
    return found
