"""Events as a person types them: ``shift@3:5,0,0``, ``free:12``, ``ectopic@4``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kspace.errors import UsageError
from simulate.events import (
    BreathHold,
    BreathHoldFails,
    Breathing,
    BulkRotation,
    BulkShift,
    DroppedSpokes,
    EctopicBeat,
    Event,
    FalseTrigger,
    FreeBreathing,
    MissedTrigger,
    Mistriggering,
    Spike,
)

EVENT_HELP = (
    "shift@S:X,Y,Z (mm), rotate@S:DEGREES, ectopic@S, missed@S, false@S, mistrigger@S, spike@S[:SIZE], "
    "dropped@S:SECONDS; S is seconds from a slice's first spoke"
)
BREATHING_HELP = "hold, drift[:MM_PER_S], free[:MM] or fails:SECONDS"

DRIFT_MM_S, FREE_MM = -0.15, 12.0  # a held breath lets the diaphragm rise


@dataclass(frozen=True)
class _Words:
    """``kind@at:numbers``, taken apart."""

    text: str
    kind: str
    at_s: float | None
    numbers: tuple[float, ...]

    @classmethod
    def of(cls, text: str) -> _Words:
        head, _, tail = text.partition(":")
        kind, at, when = head.partition("@")
        try:
            at_s = float(when) if at else None
            numbers = tuple(float(part) for part in tail.split(",")) if tail else ()
        except ValueError:
            raise UsageError(f"cannot read {text!r}", expected=f"{EVENT_HELP}; or {BREATHING_HELP}") from None
        return cls(text, kind.strip(), at_s, numbers)

    def take(self, *allowed: int) -> tuple[float, ...]:
        """Return the numbers, of which there must be as many as one of ``allowed``."""
        if len(self.numbers) not in allowed:
            counts = " or ".join(map(str, allowed))
            raise UsageError(f"{self.text!r} has {len(self.numbers)} number(s) after the colon", expected=counts)
        return self.numbers


def parse_event(text: str) -> Event:
    """Return the event that a text stands for; see :data:`EVENT_HELP`.

    Raises
    ------
    UsageError
        When it stands for none, or its numbers make no sense.
    """
    words = _Words.of(text)
    if words.at_s is None:
        raise UsageError(f"{text!r} does not say when it happens", expected="KIND@SECONDS", hint=EVENT_HELP)
    at = words.at_s
    if words.kind == "shift":
        x, y, z = words.take(3)
        return BulkShift(at, (x, y, z))
    if words.kind == "rotate":
        return BulkRotation(at, math.radians(words.take(1)[0]))
    if words.kind == "spike":
        return Spike(at, *words.take(0, 1))
    if words.kind == "dropped":
        return DroppedSpokes(at, at + words.take(1)[0])
    plain: dict[str, type[Event]] = {
        "ectopic": EctopicBeat,
        "missed": MissedTrigger,
        "false": FalseTrigger,
        "mistrigger": Mistriggering,
    }
    if words.kind in plain:
        words.take(0)
        return plain[words.kind](at)
    raise UsageError(f"there is no event {words.kind!r}", expected=EVENT_HELP)


def parse_breathing(text: str) -> tuple[Breathing, ...]:
    """Return how the patient breathes; see :data:`BREATHING_HELP`.

    Raises
    ------
    UsageError
        When the text does not say.
    """
    words = _Words.of(text)
    if words.at_s is None:
        if words.kind == "hold":
            words.take(0)
            return (BreathHold(),)
        if words.kind == "drift":
            return (BreathHold(drift_mm_s=(words.take(0, 1) or (DRIFT_MM_S,))[0]),)
        if words.kind == "free":
            return (FreeBreathing(amplitude_mm=(words.take(0, 1) or (FREE_MM,))[0]),)
        if words.kind == "fails":
            return BreathHold(), BreathHoldFails(words.take(1)[0])
    raise UsageError(f"there is no way to breathe {text!r}", expected=BREATHING_HELP)


def parse_events(breathing: str, events: Sequence[str]) -> tuple[Event, ...]:
    """Return the breathing and all events."""
    return (*parse_breathing(breathing), *(parse_event(text) for text in events))
