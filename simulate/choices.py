"""What a user's words on the command line stand for: devices, slices, methods and their options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch

from kspace.errors import UsageError
from kspace.recon.method import Method
from kspace.recon.methods import make_method
from simulate.source import Replay, SpokeSource


def choose_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` stands for.

    Raises
    ------
    UsageError
        For any other name, and for ``cuda`` where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"there is no device {name!r}", expected="auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device here", expected="--device auto or cpu")
    return torch.device("cpu" if name == "cpu" or not torch.cuda.is_available() else "cuda")


def parse_slices(text: str, n_slices: int) -> tuple[int, ...]:
    """Return the ascending indices that ``0,3-5`` stands for.

    Raises
    ------
    UsageError
        When the text is no such list, or names a slice that is not there.
    """
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise UsageError(f"--slices {text!r} is no list of slices", expected="for example 0,3-5")
        if int(last or first) >= n_slices:
            raise UsageError(f"there is no slice {int(last or first)}", expected=f"slices from 0 to {n_slices - 1}")
        chosen.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(chosen))


def choose_slices(source: SpokeSource, text: str | None) -> tuple[int, ...]:
    """Return the slices to scan: those asked for, else all that have something to give.

    Raises
    ------
    UsageError
        When a slice is not there, or has no spokes to replay.
    """
    every = tuple(range(source.geometry.shape[0]))
    if isinstance(source, Replay):
        every = tuple(int(index) for index in torch.unique(source.scan.slices))
    if text is None:
        return every
    chosen = parse_slices(text, source.geometry.shape[0])
    empty = [index for index in chosen if index not in every]
    if empty:
        raise UsageError(f"slice {empty[0]} has no spokes", expected=f"some of {', '.join(map(str, every))}")
    return chosen


def make_tuned_method(name: str, options: Mapping[str, float | int | None]) -> Method:
    """Return a method with some of its options changed; None keeps the default.

    Raises
    ------
    UsageError
        When there is no such method, it has no such option, or the value is no positive number.
    """
    method: Any = make_method(name)
    given = {key: value for key, value in options.items() if value is not None}
    known = {field.name for field in fields(method)}
    for key, value in given.items():
        flag = f"--{key.replace('_', '-')}"
        if key not in known:
            raise UsageError(f"{flag} is no option of {name}", expected="an option that the method has")
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{flag} {value}", expected="a number that is not negative")
    changed: Method = replace(method, **given)
    return changed
