"""The loop: scan, reconstruct, judge, decide; slice after slice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from kspace.coils import espirit_maps, whiten, whitening_matrix
from kspace.encoding import Encoding, pad_frames
from kspace.equations import NormalEquations
from kspace.errors import InputError, UsageError
from kspace.gating import assign_frames
from kspace.metrics import body_mask, nrmse, psnr, ssim
from kspace.noise import noise_std
from kspace.quality.change import ChangeJudge
from kspace.quality.judge import Evidence, Judge, Score, StoppingRule, Verdict
from kspace.quality.prediction import PredictionJudge
from kspace.quality.stopping import QualityRule
from kspace.recon.method import Method, Reconstruction
from kspace.recon.temporal_tv import TemporalTV
from kspace.scan import RadialScan, concatenate
from simulate.record import SliceRecord, StepRecord
from simulate.source import SliceStream, SpokeSource


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
        Ends the slice.
    """

    step_s: float = 0.5
    n_frames: int = 25
    method: Method = field(default_factory=TemporalTV)
    judges: Callable[[], Sequence[Judge]] = default_judges
    rule: StoppingRule = field(default_factory=QualityRule)

    def __post_init__(self) -> None:
        if not self.step_s > 0:
            raise UsageError(f"a step of {self.step_s} s", expected="a positive number of seconds")
        if self.n_frames < 1:
            raise UsageError(f"{self.n_frames} frames", expected="at least one")


class GatedEquations:
    """Normal equations of one slice that keep up with its ECG.

    The beat that is still going on is gated with the RR interval of those before it. When its end is known, spokes that
    turn out to belong to another phase are taken out of the sums and put where they belong.
    """

    def __init__(self, n_frames: int, method: Method) -> None:
        self.n_frames = n_frames
        self._method = method
        self._open: tuple[RadialScan, Tensor] | None = None
        self.equations: NormalEquations | None = None

    def foresee(self, batch: RadialScan) -> Tensor:
        """Return the (spoke,) frames to which gating assigns a batch by what is known now."""
        return assign_frames(batch, self.n_frames)

    def add(self, batch: RadialScan, frame: Tensor) -> None:
        """Add whitened spokes that were assigned to frames by :meth:`foresee`."""
        if self.equations is None:
            self.equations = NormalEquations(
                batch.matrix,
                self.n_frames,
                batch.n_coils,
                density=self._method.density,
                device=batch.samples.device,
            )
        if self._open is not None:
            old, frame_old = self._open
            known = replace(old, ecg_s=batch.ecg_s)
            frame_now = assign_frames(known, self.n_frames)
            moved = frame_now != frame_old
            if bool(moved.any()):
                some = known.select(moved)
                self.equations.remove(some.samples, some.positions, frame_old[moved])
                self.equations.add(some.samples, some.positions, frame_now[moved])
            batch_all, frame_all = concatenate([known, batch]), torch.cat((frame_now, frame))
        else:
            batch_all, frame_all = batch, frame
        self.equations.add(batch.samples, batch.positions, frame)
        self._open = None
        if batch.frame is None and batch.ecg_s.numel():
            going_on = batch_all.time_s >= batch.ecg_s[-1]
            if bool(going_on.any()):
                self._open = batch_all.select(going_on), frame_all[going_on]


@dataclass(frozen=True)
class Calibration:
    """Coil maps of a slice, and how to get from their unit of intensity back to that of the received signal.

    Parameters
    ----------
    maps
        (coil, y, x) complex, of unit root sum of squares over the whitened channels: images are in units of noise.
    shading
        (y, x) real; times it, an image is in the unit of the root sum of squares of the channels as received.
    """

    maps: Tensor
    shading: Tensor


def calibrate(equations: NormalEquations, whitening: Tensor | None) -> Calibration:
    """Estimate coil maps from the time-averaged centre of k-space of whitened samples."""
    maps = espirit_maps(equations.time_average())
    if whitening is None:
        return Calibration(maps, torch.ones(maps.shape[1:], device=maps.device))
    received = torch.linalg.solve(whitening.to(maps), maps.reshape(maps.shape[0], -1)).reshape(maps.shape)
    return Calibration(maps, torch.linalg.vector_norm(received, dim=0))


def predict(image: Tensor, maps: Tensor, batch: RadialScan, frame: Tensor) -> Tensor:
    """Return the (spoke, coil, readout) samples that a cine says a batch of spokes should have."""
    positions, counts = pad_frames(batch.positions, frame, image.shape[0], axis_order="positions")
    encoding = Encoding(positions, maps, spokes_per_frame=counts, accuracy="fast")
    samples = encoding.forward(image).transpose(1, 2)
    order = torch.argsort(frame, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.arange(frame.numel()) - starts[frame[order]]
    predicted = torch.empty_like(batch.samples)
    predicted[order] = samples[frame[order], rank]
    return predicted


def turned(previous: Reconstruction, old_maps: Tensor, new_maps: Tensor) -> Reconstruction:
    """Return a reconstruction in the phase reference of new maps, so that it can be gone on from."""
    turn = (new_maps.conj() * old_maps).sum(0)
    turn = turn / turn.abs().clamp_min(1e-12)
    return replace(previous, image=previous.image * turn, state=tuple(dual * turn for dual in previous.state))


OnStep = Callable[[int, StepRecord], None]
OnSpokes = Callable[[int, RadialScan], None]


def scan_slice(
    stream: SliceStream,
    index: int,
    options: LoopOptions,
    *,
    n_frames: int,
    on_step: OnStep | None = None,
    on_spokes: OnSpokes | None = None,
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

    Raises
    ------
    InputError
        When the source has no spokes at all.
    """
    gated = GatedEquations(n_frames, options.method)
    judges = options.judges()
    truth = stream.truth(n_frames)
    body = None if truth is None else body_mask(truth)
    calibration: Calibration | None = None
    level: float | None = None
    previous: Reconstruction | None = None
    steps: list[StepRecord] = []
    history: list[Verdict] = []
    n_spokes = n_calibrated = 0
    while True:
        raw = stream.acquire(options.step_s)
        exhausted = raw.n_spokes == 0
        if exhausted and not steps:
            raise InputError(f"slice {index} gives no spokes", expected="at least one")
        if on_spokes is not None and not exhausted:
            on_spokes(index, raw)
        started = time.perf_counter()
        seconds = (len(steps) + 1) * options.step_s
        if exhausted:
            last = steps[-1]
            steps[-1] = replace(last, stop=True, reason=f"the source has no more spokes; {last.reason}")
            break
        whitening = None if raw.noise_covariance is None else whitening_matrix(raw.noise_covariance)
        batch = whiten(raw)
        level = noise_std(batch) if level is None else level
        frame = gated.foresee(batch)
        predicted = (
            None if previous is None or calibration is None else predict(previous.image, calibration.maps, batch, frame)
        )
        gated.add(batch, frame)
        n_spokes += batch.n_spokes
        equations = gated.equations
        assert equations is not None
        if calibration is None or n_spokes >= 4 * n_calibrated:
            renewed = calibrate(equations, whitening)
            if calibration is not None and previous is not None:
                previous = turned(previous, calibration.maps, renewed.maps)
            calibration, n_calibrated = renewed, n_spokes
        maps = calibration.maps
        current = options.method(equations, maps, noise_std=level, start=previous)
        evidence = Evidence(
            seconds=seconds,
            newest=batch,
            newest_frame=frame,
            predicted=predicted,
            image=current.image,
            previous=None if previous is None else previous.image,
            spokes_per_frame=equations.spokes,
            maps=maps,
            noise_std=level,
            geometry=batch.geometry,
        )
        scores: tuple[Score, ...] = tuple(score for judge in judges for score in judge(evidence))
        history.append(Verdict(seconds, scores))
        decision = options.rule(history)
        elapsed = time.perf_counter() - started
        magnitude = current.image.abs() * calibration.shading
        step = StepRecord(
            seconds=seconds,
            spokes=n_spokes,
            scores=scores,
            stop=decision.stop,
            reason=decision.reason,
            reconstruction_s=elapsed,
            truth={} if truth is None or body is None else quality(magnitude, truth, body),
        )
        steps.append(step)
        previous = current
        if on_step is not None:
            on_step(index, step)
        if decision.stop:
            break
    assert previous is not None
    assert calibration is not None
    assert gated.equations is not None
    return SliceRecord(
        index=index,
        steps=tuple(steps),
        stopped=decision.reached,
        spokes_per_frame=float(gated.equations.spokes.mean()),
        image=previous.image.abs() * calibration.shading,
        truth=truth,
        body=body,
    )


def quality(image: Tensor, truth: Tensor, body: Tensor) -> dict[str, float]:
    """Return PSNR, SSIM and NRMSE of a magnitude cine inside the body."""
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
) -> list[SliceRecord]:
    """Scan slices one after another; ``on_slice`` hears of each as soon as it is finished."""
    records = []
    n_frames = source.n_frames or options.n_frames
    run = partial(scan_slice, options=options, n_frames=n_frames, on_step=on_step, on_spokes=on_spokes)
    for index in range(source.geometry.shape[0]) if slices is None else slices:
        record = run(source.open_slice(index), index)
        records.append(record)
        if on_slice is not None:
            on_slice(record)
    return records
