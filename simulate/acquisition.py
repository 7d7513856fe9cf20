"""The loop: scan, reconstruct, judge, decide; slice after slice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Literal

from torch import Tensor

from kspace.coils import whiten, whitening_matrix
from kspace.delay_estimate import DelayEstimate, find_delays
from kspace.delays import NO_DELAYS, GradientDelays, correct
from kspace.errors import InputError, UsageError
from kspace.metrics import body_mask, nrmse, psnr, ssim
from kspace.motion.examine import FEWEST
from kspace.motion.watch import Watch
from kspace.noise import noise_std
from kspace.quality.change import ChangeJudge
from kspace.quality.held_out import foresee
from kspace.quality.judge import Decision, Evidence, Judge, Score, StoppingRule, Verdict
from kspace.quality.prediction import PredictionJudge
from kspace.quality.stopping import QualityRule
from kspace.recon.method import Method, Reconstruction
from kspace.recon.temporal_tv import TemporalTV
from kspace.scan import RadialScan
from simulate.calibration import Calibration, calibrate, turned
from simulate.gated import GatedEquations
from simulate.record import SliceDistrust, SliceRecord, StepRecord
from simulate.source import SLACK_S, SliceStream, SpokeSource

MIN_STEP_S = 1e-3
_CARRIED = 0.5  # of the spokes that a frame is given on average


def default_judges() -> Sequence[Judge]:
    """Return the judges of a slice that need no network."""
    return PredictionJudge(), ChangeJudge()


@dataclass(frozen=True)
class LoopOptions:
    """How a slice is scanned and judged.

    Parameters
    ----------
    step_s
        Seconds between two decisions.
    n_frames
        Cardiac phases, unless the source fixes them.
    method
        Reconstruction method.
    judges
        Makes the judges of a slice.
    rule
        Ends the slice. Where it has a ``max_seconds``, the last step ends there: it is between a half and one and a
        half of the others.
    delays
        Gradient delays to correct; ``auto`` finds those of each slice from the spokes of its first step.
    times
        Scan times of a slice at which decisions are taken, ascending; ``step_s`` where there are none, or none is left.
    watched
        Whether each batch of spokes is held against the images before it (:mod:`kspace.motion`): what seems corrupted
        counts less, and no slice ends, before its time is up, on a frame that trusted spokes do not carry.
    """

    step_s: float = 0.5
    n_frames: int = 25
    method: Method = field(default_factory=TemporalTV)
    judges: Callable[[], Sequence[Judge]] = default_judges
    rule: StoppingRule = field(default_factory=QualityRule)
    delays: GradientDelays | Literal["auto"] = NO_DELAYS
    times: tuple[float, ...] = ()
    watched: bool = False

    def __post_init__(self) -> None:
        if not MIN_STEP_S <= self.step_s < math.inf:
            raise UsageError(f"a step of {self.step_s:g} s", expected=f"at least {MIN_STEP_S:g} s")
        if self.n_frames < 1:
            raise UsageError(f"{self.n_frames} frames", expected="at least one")
        if any(not later - earlier >= MIN_STEP_S for earlier, later in pairwise((0.0, *self.times))):
            raise UsageError(f"decisions at {self.times} s", expected=f"ascending times, {MIN_STEP_S:g} s apart")

    def duration_after(self, seconds: float) -> float:
        """Return how long the step lasts that begins after so many seconds."""
        for time_s in self.times:
            if time_s > seconds + SLACK_S:
                return time_s - seconds
        left = getattr(self.rule, "max_seconds", math.inf) - seconds
        return left if SLACK_S < left < 1.5 * self.step_s - SLACK_S else self.step_s


OnStep = Callable[[int, StepRecord], None]
OnSpokes = Callable[[int, RadialScan], None]
OnDelays = Callable[[int, DelayEstimate], None]


@dataclass(frozen=True)
class Observation:
    """What a step brought, before anything is decided.

    Parameters
    ----------
    evidence
        For judges.
    scores
        What the judges of the slice said.
    image
        (frame, y, x) magnitude, in the unit of the received signal.
    elapsed_s
        Wall-clock seconds that it took.
    """

    evidence: Evidence
    scores: tuple[Score, ...]
    image: Tensor
    elapsed_s: float


class SliceScan:
    """The scan of one slice: all that is known of it so far, one step at a time."""

    def __init__(self, stream: SliceStream, index: int, options: LoopOptions, n_frames: int) -> None:
        self._stream, self._index, self._options = stream, index, options
        self._gated = GatedEquations(n_frames, options.method)
        self._watch = Watch(n_frames) if options.watched else None
        self._watched_s = 0.0
        self._judges = options.judges()
        self._truth = stream.truth(n_frames)
        self._body = None if self._truth is None else body_mask(self._truth)
        self._calibration: Calibration | None = None
        self._n_calibrated = 0
        self._delays: GradientDelays | None = None
        self.delay_estimate: DelayEstimate | None = None
        self._noise_std: float | None = None
        self._latest: Reconstruction | None = None
        self._seconds = 0.0
        self._n_spokes = 0
        self._steps: list[StepRecord] = []
        self._history: list[Verdict] = []
        self._reached = False

    def acquire(self) -> RadialScan:
        """Measure for one step; return its spokes as received, none where the source has no more."""
        duration = self._options.duration_after(self._seconds)
        raw = self._stream.acquire(duration)
        self._seconds += duration
        if raw.n_spokes:
            waited = float(raw.time_s[-1]) + SLACK_S - self._seconds
            self._seconds += duration * max(0, math.floor(waited / duration) + 1)
        elif not self._steps:
            raise InputError(f"slice {self._index} gives no spokes", expected="at least one")
        self._seconds = round(self._seconds, 9)
        return raw

    def decide(self, raw: RadialScan) -> StepRecord:
        """Reconstruct with the spokes of a step, judge, and decide."""
        observed = self.observe(raw)
        self._history.append(Verdict(self._seconds, observed.scores))
        return self.conclude(observed, self._carried(self._options.rule(self._history)))

    def observe(self, raw: RadialScan) -> Observation:
        """Reconstruct with the spokes of a step, and judge."""
        started = time.perf_counter()
        evidence, calibration = self._reconstruct(raw)
        scores: tuple[Score, ...] = tuple(score for judge in self._judges for score in judge(evidence))
        image = evidence.image.abs() * calibration.shading
        return Observation(evidence, scores, image, time.perf_counter() - started)

    def conclude(self, observed: Observation, decision: Decision) -> StepRecord:
        """Keep a step with what was decided."""
        self._reached = decision.reached
        step = StepRecord(
            seconds=self._seconds,
            spokes=self._n_spokes,
            scores=observed.scores,
            stop=decision.stop,
            reason=decision.reason,
            reconstruction_s=observed.elapsed_s,
            truth=self._quality(observed.image),
        )
        self._steps.append(step)
        return step

    def end(self, reason: str, *, reached: bool) -> None:
        """End the slice after its last step, for a reason that was found elsewhere in the stack."""
        self._reached = reached
        self._steps[-1] = replace(self._steps[-1], stop=True, reason=reason)

    @property
    def uncarried(self) -> str | None:
        """Why the slice may not end yet: a frame without enough spokes to trust; None where trusted ones carry all."""
        if self._watch is None or self._gated.equations is None:
            return None
        trusted = self._gated.equations.spokes
        weakest = int(trusted.argmin())
        given = self._n_spokes / len(trusted)
        if float(trusted[weakest]) >= _CARRIED * given:
            return None
        return f"frame {weakest} rests on {float(trusted[weakest]):.0f} trusted spokes of {given:.0f}"

    def _carried(self, decision: Decision) -> Decision:
        """Take back a stop that rests on a frame that is not carried: other spokes have to take their place."""
        why = self.uncarried if decision.reached else None
        return decision if why is None else Decision(False, f"good, but {why}")

    def _reconstruct(self, raw: RadialScan) -> tuple[Evidence, Calibration]:
        whitening = None if raw.noise_covariance is None else whitening_matrix(raw.noise_covariance)
        batch = whiten(raw)
        if self._delays is None:
            # Half a second tells them to a few thousandths of a sample: nothing is gained by a second look, which would
            # need all sums anew.
            self._delays, self.delay_estimate = find_delays(batch, self._options.delays)
        batch = correct(batch, self._delays)
        if self._noise_std is None:
            self._noise_std = noise_std(batch)
        frame = self._gated.foresee(batch)
        before, calibration = self._latest, self._calibration
        predicted = None
        if before is not None and calibration is not None:
            predicted = foresee(before.image, calibration.maps, batch, frame)
        trust = None
        if self._watch is not None and self._noise_std > 0:
            began = time.perf_counter()
            # Images that have not seen a whole beat foresee nothing of the rest of it.
            seen = self._gated.equations is not None and bool((self._gated.equations.spokes > 0).all())
            image, maps = (before.image, calibration.maps) if before and calibration and seen else (None, None)
            trust = 1 - self._watch.judge(batch, image, maps, noise_std=self._noise_std)
            self._watched_s += time.perf_counter() - began
        equations = self._gated.add(batch, frame, trust)
        self._n_spokes += batch.n_spokes
        if calibration is None or self._n_spokes >= 4 * self._n_calibrated:
            renewed = calibrate(equations, whitening)
            if calibration is not None and before is not None:
                before = turned(before, calibration.maps, renewed.maps)
            self._calibration, self._n_calibrated = renewed, self._n_spokes
            calibration = renewed
        self._latest = self._options.method(equations, calibration.maps, noise_std=self._noise_std, start=before)
        evidence = Evidence(
            seconds=self._seconds,
            newest=batch,
            newest_frame=frame,
            predicted=predicted,
            image=self._latest.image,
            previous=None if before is None else before.image,
            spokes_per_frame=equations.spokes,
            maps=calibration.maps,
            noise_std=self._noise_std,
            geometry=batch.geometry,
        )
        return evidence, calibration

    def _quality(self, image: Tensor) -> dict[str, float]:
        return {} if self._truth is None or self._body is None else quality(image, self._truth, self._body)

    @property
    def seconds(self) -> float:
        """Scan time so far."""
        return self._seconds

    @property
    def distrusted_share(self) -> float:
        """Mean probability that a spoke is corrupted; NaN where nobody watches."""
        if self._watch is None or not len(self._watch.probability):
            return math.nan
        return float(self._watch.probability.double().mean())

    def run_dry(self) -> None:
        """End the slice because the source has no more spokes."""
        last = self._steps[-1]
        self._steps[-1] = replace(last, stop=True, reason=f"the source has no more spokes; {last.reason}")

    def record(self) -> SliceRecord:
        """Return what became of the slice, after one step at least."""
        assert self._latest is not None
        assert self._calibration is not None
        assert self._gated.equations is not None
        return SliceRecord(
            index=self._index,
            steps=tuple(self._steps),
            stopped=self._reached,
            spokes_per_frame=float(self._gated.equations.spokes.mean()),
            image=self._latest.image.abs() * self._calibration.shading,
            truth=self._truth,
            body=self._body,
            distrust=self._distrust(),
        )

    def _distrust(self) -> SliceDistrust | None:
        if self._watch is None or len(self._watch.probability) < FEWEST:
            return None
        body_mm, heart_mm = self._watch.navigation_mm()
        return SliceDistrust(
            self._watch.time_s, self._gated.ecg_s, self._watch.probability, body_mm, heart_mm, self._watched_s
        )


def scan_slice(
    stream: SliceStream,
    index: int,
    options: LoopOptions,
    *,
    n_frames: int,
    on_step: OnStep | None = None,
    on_spokes: OnSpokes | None = None,
    on_delays: OnDelays | None = None,
) -> SliceRecord:
    """Scan one slice to its decision.

    Parameters
    ----------
    stream
        The slice under the scanner.
    index
        Its number, for the record.
    options
        Steps, method, judges and rule.
    n_frames
        Cardiac phases.
    on_step, on_spokes
        Hear of every decision, and of every batch of spokes as it was measured (not whitened).
    on_delays
        Hears of the gradient delays that were found.

    Raises
    ------
    InputError
        When the source has no spokes at all.
    """
    scan = SliceScan(stream, index, options, n_frames)
    while True:
        raw = scan.acquire()
        if not raw.n_spokes:
            scan.run_dry()
            break
        if on_spokes is not None:
            on_spokes(index, raw)
        first = scan.delay_estimate is None
        step = scan.decide(raw)
        if on_delays is not None and first and scan.delay_estimate is not None:
            on_delays(index, scan.delay_estimate)
        if on_step is not None:
            on_step(index, step)
        if step.stop:
            break
    return scan.record()


def quality(image: Tensor, truth: Tensor, body: Tensor) -> dict[str, float]:
    """Return PSNR, SSIM and NRMSE of a magnitude cine inside the body; nothing where that holds no signal."""
    if not bool((truth * body > 0).any()):
        return {}
    return {
        "psnr_db": float(psnr(image, truth, body)),
        "ssim": float(ssim(image, truth, body)),
        "nrmse": float(nrmse(image, truth, body)),
    }


def scan_stack(
    source: SpokeSource,
    options: LoopOptions,
    *,
    slices: Sequence[int] | None = None,
    on_slice: Callable[[SliceRecord], None] | None = None,
    on_step: OnStep | None = None,
    on_spokes: OnSpokes | None = None,
    on_delays: OnDelays | None = None,
) -> list[SliceRecord]:
    """Scan slices one after another; ``on_slice`` hears of each as soon as it is finished."""
    records = []
    n_frames = source.n_frames or options.n_frames
    run = partial(
        scan_slice, options=options, n_frames=n_frames, on_step=on_step, on_spokes=on_spokes, on_delays=on_delays
    )
    for index in range(source.geometry.shape[0]) if slices is None else slices:
        record = run(source.open_slice(index), index)
        records.append(record)
        if on_slice is not None:
            on_slice(record)
    return records
