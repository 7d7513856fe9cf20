from __future__ import annotations

import math

import pytest

from kspace.errors import UsageError
from simulate.event_text import BREATHING_HELP, EVENT_HELP, parse_breathing, parse_event, parse_events
from simulate.events import (
    BreathHold,
    BreathHoldFails,
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


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ("shift@3:5,0,-1.5", BulkShift(3.0, (5.0, 0.0, -1.5))),
        ("rotate@0.5:-4", BulkRotation(0.5, math.radians(-4))),
        ("ectopic@2", EctopicBeat(2.0)),
        ("missed@2.5", MissedTrigger(2.5)),
        ("false@1", FalseTrigger(1.0)),
        ("mistrigger@0", Mistriggering(0.0)),
        ("spike@1", Spike(1.0)),
        ("spike@1:7", Spike(1.0, 7.0)),
        ("dropped@2:0.3", DroppedSpokes(2.0, 2.3)),
    ],
)
def test_events_are_read_as_they_are_typed(text: str, event: Event) -> None:
    assert parse_event(text) == event


def test_breathing_is_read_as_it_is_typed() -> None:
    assert parse_breathing("hold") == (BreathHold(),)
    assert parse_breathing("drift") == (BreathHold(drift_mm_s=-0.15),)
    assert parse_breathing("drift:0.4") == (BreathHold(drift_mm_s=0.4),)
    assert parse_breathing("free:20") == (FreeBreathing(amplitude_mm=20.0),)
    assert parse_breathing("fails:6") == (BreathHold(), BreathHoldFails(6.0))
    assert parse_events("hold", ["missed@1"]) == (BreathHold(), MissedTrigger(1.0))


@pytest.mark.parametrize(
    "text",
    ["", "shift", "shift@3", "shift@3:1,2", "shift@x:1,2,3", "jump@3", "ectopic@2:5", "shift@-1:1,2,3", "rotate@1:"],
)
def test_what_stands_for_no_event_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_event(text)


@pytest.mark.parametrize("text", ["", "holding", "fails", "free:1,2", "hold:3", "free@2", "drift:fast"])
def test_what_is_no_way_to_breathe_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_breathing(text)


def test_the_command_line_names_every_event_and_way_to_breathe_that_is_read() -> None:
    import cli

    helps = [next(part.help for part in hint.__metadata__) for hint in (cli.Events, cli.Breathing)]
    for text, shown in zip((EVENT_HELP, BREATHING_HELP), helps, strict=True):
        for word in text.replace(" or ", ", ").split("; ")[0].split(", "):
            assert word in shown, word
