"""Which number means what in label files of other tools and data sets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kspace.errors import InputError, UsageError
from kspace.segment.segmentation import Structure

_LV, _MYOCARDIUM, _RV = Structure.LV, Structure.MYOCARDIUM, Structure.RV

CONVENTIONS: Mapping[str, Mapping[int, Structure]] = {
    "spokewise": {1: _LV, 2: _MYOCARDIUM, 3: _RV},
    "acdc": {1: _RV, 2: _MYOCARDIUM, 3: _LV},  # Bernard et al., IEEE TMI 37:2514, 2018
    "mnms": {1: _LV, 2: _MYOCARDIUM, 3: _RV},  # Campello et al., IEEE TMI 40:3543, 2021
    # The networks of ukbb_cardiac (Bai et al., JCMR 20:65, 2018) write RV 3; in files drawn by hand it may be 4.
    "ukbb": {1: _LV, 2: _MYOCARDIUM, 3: _RV, 4: _RV},
    "sunnybrook": {1: _LV, 2: _MYOCARDIUM},  # nobody drew the RV
}
"""What each value stands for, by the name of the convention; 0 is background everywhere. Where two values stand for one
structure both are read and the first is written."""


def to_spokewise(labels: Tensor, convention: str) -> Tensor:
    """Return labels of another convention as uint8 :class:`~kspace.segment.segmentation.Structure`, in any shape.

    Raises
    ------
    UsageError
        When there is no such convention.
    InputError
        When the labels hold values that it does not know; the message lists them.
    """
    meanings = _meanings(convention)
    return _map(labels, {value: int(structure) for value, structure in meanings.items()}, convention)


def from_spokewise(labels: Tensor, convention: str) -> Tensor:
    """Return :class:`~kspace.segment.segmentation.Structure` labels as uint8 of another convention, in any shape.

    Raises
    ------
    UsageError
        When there is no such convention.
    InputError
        When the labels hold values that are no structure, or one that the convention has no value for.
    """
    values: dict[int, int] = {}
    for value, structure in _meanings(convention).items():
        values.setdefault(int(structure), value)
    return _map(labels, values, convention)


def _meanings(convention: str) -> Mapping[int, Structure]:
    if convention not in CONVENTIONS:
        raise UsageError(f"there is no label convention {convention!r}", expected=", ".join(CONVENTIONS))
    return CONVENTIONS[convention]


def _map(labels: Tensor, values: Mapping[int, int], convention: str) -> Tensor:
    found = [value for value in torch.unique(labels).tolist() if value != 0]
    unknown = [value for value in found if value not in values]
    if unknown:
        shown = ", ".join(f"{value:g}" for value in unknown[:12]) + (", ..." if len(unknown) > 12 else "")
        raise InputError(
            f"the labels hold {shown}, which {convention} has no meaning for",
            expected=f"0 and {', '.join(map(str, values))}",
            hint="Name the convention that the labels follow",
        )
    mapped = torch.zeros(labels.shape, dtype=torch.uint8, device=labels.device)
    for value in found:
        mapped[labels == value] = values[int(value)]
    return mapped
