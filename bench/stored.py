"""Trajectories of a stored study, by the part of the study that each patient belongs to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kspace.errors import InputError
from kspace.quality.trajectory import Trajectory
from simulate.study.store import Store


@dataclass(frozen=True)
class Parts:
    """Patients of a study.

    Parameters
    ----------
    fit, calibration, test
        They share no patient.
    protocol
        Of the study, and the weights of its networks.
    key
        Of the study in its store.
    """

    fit: list[Trajectory]
    calibration: list[Trajectory]
    test: list[Trajectory]
    protocol: dict[str, Any]
    key: str = ""

    @property
    def cohort(self) -> str:
        """Who they are, in words."""
        everyone = [*self.fit, *self.calibration, *self.test]
        groups = ", ".join(f"{n} {name}" for name, n in Counter(one.group for one in everyone).most_common())
        return f"synthetic patients: {groups}; {len({one.vendor for one in everyone})} styles of scanner"


def parts_of(folder: Path, key: str | None = None) -> Parts:
    """Read a study.

    Parameters
    ----------
    folder
        Of the study.
    key
        Which study in it; the one with most patients by default.

    Raises
    ------
    InputError
        When there is none.
    """
    store = Store(folder)
    studies = store.studies()
    if key is None:
        key = max(studies, key=lambda k: len(store.numbers(k)), default=None)
    if key is None or key not in studies:
        raise InputError(f"{folder} holds no such study", expected=", ".join(studies) or "a study")
    by_part: dict[str, list[Trajectory]] = {}
    for _, one in store.trajectories(key):
        by_part.setdefault(one.facts["part"], []).append(one)
    facts: Any = studies[key]
    return Parts(
        by_part.get("fit", []), by_part.get("calibration", []), by_part.get("test", []),
        {**facts["protocol"], "weights": facts["weights"]}, key,
    )  # fmt: skip
