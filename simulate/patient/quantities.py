"""Fields of dataclasses that know their unit, range and source, and are checked on entry."""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, field, fields, is_dataclass
from enum import Enum
from typing import Any

from kspace.errors import InputError


def quantity(
    unit: str, low: float, high: float, meaning: str, source: str = "this simulator's choice", default: Any = MISSING
) -> Any:
    """Return a dataclass field of a number in ``unit`` that must lie from ``low`` to ``high``."""
    metadata = {"unit": unit, "low": low, "high": high, "meaning": meaning, "source": source}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def check_quantities(record: Any) -> None:
    """Refuse a dataclass of quantities when one is not finite or outside its range.

    Raises
    ------
    InputError
        With the name, the value, the unit and the range.
    """
    for entry in fields(record):
        if "unit" not in entry.metadata:
            continue
        low, high, value = entry.metadata["low"], entry.metadata["high"], getattr(record, entry.name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not low <= value <= high:
            raise InputError(
                f"the patient's {type(record).__name__}.{entry.name} is {value}",
                expected=f"a number from {low:g} to {high:g} {entry.metadata['unit']}".rstrip(),
            )


def describe(record: Any, prefix: str = "") -> list[dict[str, Any]]:
    """Return one row per parameter of a (nested) dataclass: name, value, unit, low, high, meaning and source."""
    rows: list[dict[str, Any]] = []
    for entry in fields(record):
        value, name = getattr(record, entry.name), prefix + entry.name
        if is_dataclass(value):
            rows += describe(value, name + ".")
        else:
            plain = value.value if isinstance(value, Enum) else value
            rows.append({"name": name, "value": plain, **entry.metadata})
    return rows


def plain(record: Any) -> dict[str, Any]:
    """Return a (nested) dataclass as a dictionary that JSON can hold; enums by value."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        return value.value if isinstance(value, Enum) else value

    return {key: convert(value) for key, value in asdict(record).items()}
