"""The loop over a whole stack: scan, reconstruct, draw, measure, and one policy says where time goes and when to end.

Slices are gone back to: a slice that waits is scanned on when its turn comes, until the policy ends all of them at
once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kspace.delay_estimate import DelayEstimate
from kspace.errors import InputError, UsageError
from kspace.quality.judge import Decision
from kspace.quality.policies.policy import Choice, Policy
from kspace.quality.view import LAGS, View
from kspace.scan import Cine, RadialScan
from simulate.acquisition import LoopOptions, Observation, OnDelays, OnSpokes, OnStep, SliceScan
from simulate.record import SliceRecord
from simulate.source import SpokeSource
from simulate.stack_judge import Drawn, StackDrawer, evidence_scores
from simulate.study.look import dice

_WAITS = "waits: time gains more in other slices"


@dataclass(frozen=True)
class StackResult:
    """A stack that was scanned to its end.

    Parameters
    ----------
    records
        Of the slices.
    drawn
        What was drawn on each at the end: what the policy's last word is about.
    view
        What the policy saw last.
    choice
        That last word.
    """

    records: list[SliceRecord]
    drawn: tuple[Drawn, ...]
    view: View
    choice: Choice


@dataclass(frozen=True)
class _Past:
    """A step of a slice: what was drawn, and all scores."""

    drawn: Drawn
    scores: dict[str, float]


class _Slice:
    """One slice of the stack between its visits."""

    def __init__(self, scan: SliceScan) -> None:
        self.scan = scan
        self.batches: list[RadialScan] = []
        self.past: list[_Past] = []
        self.observed: Observation | None = None
        self.dry = False

    def visit(self) -> bool:
        """Scan one step; return whether there was anything left to measure."""
        raw = self.scan.acquire()
        if not raw.n_spokes:
            self.dry = True
            return False
        self.batches.append(raw)
        self.observed = self.scan.observe(raw)
        return True

    def remember(self, drawn: Drawn) -> None:
        """Keep what was drawn after a visit, with what changed since the one before."""
        assert self.observed is not None
        change = float("nan")
        if self.past:
            change = 1 - float(dice(drawn.labels, self.past[-1].drawn.labels).nanmean())
        scores = {score.name: score.value for score in self.observed.scores}
        if not np.isnan(share := self.scan.distrusted_share):
            scores["distrusted_share"] = share
        self.past.append(
            _Past(drawn, {**scores, **evidence_scores(self.observed.evidence), **drawn.scores, "label_change": change})
        )


def scan_stack_together(
    source: SpokeSource,
    options: LoopOptions,
    policy: Policy,
    draw: StackDrawer,
    *,
    slices: Sequence[int] | None = None,
    on_slice: Callable[[SliceRecord], None] | None = None,
    on_step: OnStep | None = None,
    on_spokes: OnSpokes | None = None,
    on_delays: OnDelays | None = None,
) -> StackResult:
    """Scan a stack until a policy ends it.

    Parameters
    ----------
    source
        What is scanned.
    options
        How; ``times`` are the steps, and the last of them is the cap.
    policy
        Decides after every round.
    draw
        Draws the stack.
    slices
        Which, in the order in which they lie; all by default.
    on_slice, on_step, on_delays
        Hear of finished slices, of every decision, and of the gradient delays that were found.
    on_spokes
        Hears of each slice's batches of spokes when the scan ends, also when it is broken off: slices are visited in
        turn, and a file of spokes holds one after the other.

    Raises
    ------
    UsageError
        When the times of decisions are not given.
    InputError
        When a slice gives no spokes at all.
    """
    if not options.times:
        raise UsageError("a stack without times of decisions", expected="the scan times of a slice at each step")
    chosen = list(range(source.geometry.shape[0]) if slices is None else slices)
    n_frames = source.n_frames or options.n_frames
    stack = [_Slice(SliceScan(source.open_slice(index), index, options, n_frames)) for index in chosen]
    try:
        view, choice = _rounds(source, options, policy, draw, chosen, stack, on_step, on_delays)
    finally:
        if on_spokes is not None:
            for index, one in zip(chosen, stack, strict=True):
                for batch in one.batches:
                    on_spokes(index, batch)
    records = []
    for one in stack:
        one.scan.end(
            f"the source has no more spokes; {choice.reason}" if one.dry else choice.reason, reached=choice.reached
        )
        records.append(one.scan.record())
        if on_slice is not None:
            on_slice(records[-1])
    return StackResult(records, tuple(one.past[-1].drawn for one in stack), view, choice)


def _rounds(
    source: SpokeSource,
    options: LoopOptions,
    policy: Policy,
    draw: StackDrawer,
    chosen: Sequence[int],
    stack: Sequence[_Slice],
    on_step: OnStep | None,
    on_delays: OnDelays | None,
) -> tuple[View, Choice]:
    go_on = np.ones(len(stack), dtype=bool)
    while True:
        visited: list[int] = []
        for number in np.flatnonzero(go_on).tolist():
            one = stack[number]
            first = not one.past
            if one.visit():
                visited.append(number)
            elif first:
                raise InputError(f"slice {chosen[number]} gives no spokes", expected="at least one")
            found: DelayEstimate | None = one.scan.delay_estimate
            if first and found is not None and on_delays is not None:
                on_delays(chosen[number], found)
        started = time.perf_counter()
        if visited:
            drawn = draw(_cine(source, chosen, stack))
            for number in visited:
                stack[number].remember(drawn[number])
        view = view_of_stack(source, options, stack)
        choice = policy(view)
        spent = (time.perf_counter() - started) / max(len(visited), 1)
        can = ~view.at_cap & np.array([not one.dry for one in stack])
        go_on = choice.go_on & can
        if choice.reached and not go_on.any():
            choice = _held_back(choice, chosen, stack, can)
            go_on = choice.go_on & can
        for number in visited:
            observed = stack[number].observed
            assert observed is not None
            reason = choice.reason if go_on[number] or not go_on.any() else f"{_WAITS}; {choice.reason}"
            step = stack[number].scan.conclude(
                Observation(observed.evidence, observed.scores, observed.image, observed.elapsed_s + spent),
                Decision(stop=not go_on.any(), reason=reason, reached=choice.reached),
            )
            if on_step is not None:
                on_step(chosen[number], step)
        if not go_on.any():
            return view, choice


def _held_back(choice: Choice, chosen: Sequence[int], stack: Sequence[_Slice], can: np.ndarray) -> Choice:
    """Take back a stop for slices with a frame that trusted spokes do not carry, as long as more can be measured.

    Scans without corrupted spokes never come here, so that what is promised of them stays as it was calibrated.
    """
    why = {n: one.scan.uncarried for n, one in enumerate(stack) if can[n] and one.scan.uncarried is not None}
    if not why:
        return choice
    told = "; ".join(f"slice {chosen[n]}, {text}" for n, text in why.items())
    return Choice(np.isin(np.arange(len(stack)), list(why)), f"{choice.reason}, but {told}", reached=False)


def _cine(source: SpokeSource, chosen: Sequence[int], stack: Sequence[_Slice]) -> Cine:
    images = []
    for one in stack:
        assert one.observed is not None
        images.append(one.observed.image)
    whole = torch.zeros((source.geometry.shape[0], *images[0].shape), dtype=torch.float32)
    for index, image in zip(chosen, images, strict=True):
        whole[index] = image.detach().cpu()
    return Cine(whole, source.geometry, min(max(source.rr_s, 0.2), 3.0), source.description).select_slices(
        tuple(chosen)
    )


def view_of_stack(source: SpokeSource, options: LoopOptions, stack: Sequence[_Slice]) -> View:
    """Return what is known of a stack: the same that :func:`~kspace.quality.view.view_of` returns of a trajectory."""
    back = [[max(len(one.past) - 1 - lag, 0) for one in stack] for lag in range(LAGS)]
    names = dict.fromkeys(name for one in stack for past in one.past for name in past.scores)
    return View(
        steps=np.array([len(one.past) for one in stack], dtype=np.int64),
        n_steps=len(options.times),
        seconds=np.array([one.scan.seconds for one in stack]),
        spacing_mm=source.geometry.spacing_mm[0],
        areas_mm2=np.array(
            [[one.past[k].drawn.areas_mm2 for one, k in zip(stack, row, strict=True)] for row in back]
        ),
        sample_areas_mm2=np.stack([one.past[-1].drawn.sample_areas_mm2 for one in stack], axis=1),
        scores={
            name: np.array(
                [[one.past[k].scores.get(name, np.nan) for one, k in zip(stack, row, strict=True)] for row in back]
            )
            for name in names
        },
    )  # fmt: skip
