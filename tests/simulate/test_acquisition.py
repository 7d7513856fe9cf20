from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kspace.coils import whiten
from kspace.encoding import Encoding
from kspace.equations import NormalEquations
from kspace.errors import InputError, UsageError
from kspace.gating import assign_frames
from kspace.quality.change import ChangeJudge
from kspace.quality.held_out import foresee
from kspace.quality.judge import Decision, Evidence, Score, Verdict
from kspace.quality.prediction import PredictionJudge
from kspace.quality.stopping import FixedRule, QualityRule
from kspace.recon.cg_sense import CgSense
from kspace.recon.gridding import Gridding
from kspace.recon.method import Reconstruction
from kspace.recon.methods import METHODS, make_method
from kspace.scan import RadialScan, concatenate
from simulate.acquisition import LoopOptions, scan_slice, scan_stack
from simulate.calibration import calibrate, turned
from simulate.gated import GatedEquations
from simulate.scanner import ScannerOptions, SimulatedScanner
from simulate.source import Replay, SliceStream

QUICK = LoopOptions(step_s=0.3, n_frames=3, method=CgSense(max_iterations=4), rule=FixedRule(0.9))


@pytest.fixture(scope="module")
def scanner(make_cine: Any) -> SimulatedScanner:
    return SimulatedScanner(make_cine(rows=40, columns=40), ScannerOptions(n_coils=3, snr=40, rr_variability=0.1))


@dataclass(frozen=True)
class OtherTruth:
    """A stream that tells a lie about the truth, or nothing."""

    stream: SliceStream
    image: Tensor | None

    def acquire(self, seconds: float) -> RadialScan:
        return self.stream.acquire(seconds)

    def truth(self, n_frames: int) -> Tensor | None:
        return self.image


def close(got: Tensor, expected: Tensor, bound: float = 1e-5) -> None:
    error = float(torch.linalg.vector_norm(got - expected) / torch.linalg.vector_norm(expected).clamp_min(1e-30))
    assert error <= bound, f"{error:.2e} > {bound:.0e}"


def equal_to_a_batch_sum(gated: GatedEquations, everything: RadialScan, n_frames: int) -> None:
    batch = NormalEquations(everything.matrix, n_frames, everything.n_coils)
    batch.add(everything.samples, everything.positions, assign_frames(everything, n_frames))
    assert gated.equations is not None
    assert gated.equations.spokes.tolist() == batch.spokes.tolist()
    close(gated.equations.adjoint, batch.adjoint)
    close(gated.equations.spectrum, batch.spectrum)
    close(gated.equations.energy, batch.energy)
    close(gated.equations.weight, batch.weight)


@settings(deadline=None, max_examples=8)
@given(steps=st.lists(st.floats(0.02, 0.9), min_size=2, max_size=8), seed=st.integers(0, 100))
def test_streamed_sums_equal_those_of_the_final_gating(make_cine: Any, steps: list[float], seed: int) -> None:
    options = ScannerOptions(n_coils=2, snr=20, tr_s=0.02, rr_variability=0.25, seed=seed, matrix=16)
    stream = SimulatedScanner(make_cine(rows=24, columns=24), options).open_slice(0)
    gated = GatedEquations(6, Gridding())
    batches = []
    for step in steps:
        batch = whiten(stream.acquire(step))
        batches.append(batch)
        gated.add(batch, gated.foresee(batch))
    equal_to_a_batch_sum(gated, concatenate(batches), 6)


@pytest.mark.parametrize("first_wave", [-0.3, 0.25, 0.9, 1.6])
def test_spokes_before_the_first_r_wave_are_gated_again_too(scanner: SimulatedScanner, first_wave: float) -> None:
    scan = scanner.open_slice(0).acquire(3.0)
    waves = first_wave + torch.tensor([0.0, 0.7, 1.2, 1.3, 2.1], dtype=torch.float64)
    stream = Replay(replace(scan, ecg_s=waves[waves < 2.9])).open_slice(0)
    gated = GatedEquations(5, Gridding())
    batches: list[RadialScan] = []
    while (batch := stream.acquire(0.4)).n_spokes:
        batches.append(batch)
        gated.add(batch, gated.foresee(batch))
    equal_to_a_batch_sum(gated, concatenate(batches), 5)


def test_fixed_frames_are_kept(scanner: SimulatedScanner) -> None:
    scan = scanner.open_slice(0).acquire(0.5)
    scan = replace(scan, frame=torch.arange(scan.n_spokes) % 3, ecg_s=torch.zeros(0))
    gated = GatedEquations(3, Gridding())
    for part in (slice(0, 50), slice(50, None)):
        batch = scan.select(part)
        gated.add(batch, gated.foresee(batch))
    equal_to_a_batch_sum(gated, scan, 3)


def test_spokes_come_in_steps(scanner: SimulatedScanner) -> None:
    heard: list[tuple[int, int]] = []
    record = scan_slice(
        scanner.open_slice(0), 5, QUICK, n_frames=3, on_spokes=lambda i, scan: heard.append((i, scan.n_spokes))
    )
    assert [step.seconds for step in record.steps] == [0.3, 0.6, 0.9]
    assert [step.spokes for step in record.steps] == [108, 215, 322]
    assert heard == [(5, 108), (5, 107), (5, 107)]
    assert record.index == 5
    assert record.spokes_per_frame == pytest.approx(322 / 3)
    assert record.image.shape == (3, 30, 30)
    assert record.truth is not None
    assert record.truth.shape == record.image.shape
    assert record.steps[-1].truth["psnr_db"] > record.steps[0].truth["psnr_db"]


def always(value: float) -> Any:
    return lambda: [lambda evidence: (Score("always", value, 1.0, "the same at every step"),)]


@settings(deadline=None, max_examples=8)
@given(step=st.floats(0.1, 0.5), floor=st.floats(0, 0.8), more=st.floats(0.05, 0.8))
def test_floor_and_cap_hold(make_cine: Any, step: float, floor: float, more: float) -> None:
    cap = floor + more
    source = SimulatedScanner(make_cine(rows=24, columns=24), ScannerOptions(n_coils=2, matrix=16, tr_s=0.01))
    options = replace(QUICK, step_s=step, method=Gridding(), rule=QualityRule(floor, cap), n_frames=1)
    good, bad = (
        scan_slice(source.open_slice(0), 0, replace(options, judges=always(value)), n_frames=1) for value in (0.5, 2.0)
    )
    assert good.seconds >= min(floor, cap) - 1e-6
    assert good.seconds <= cap + 1e-6
    assert bad.seconds == pytest.approx(cap, abs=1e-6)
    assert not bad.stopped
    durations = torch.tensor([0.0, *(s.seconds for s in bad.steps)]).double().diff()
    assert float((durations[:-1] - step).abs().max() if len(durations) > 1 else 0) < 1e-6
    assert float(durations[-1]) <= 1.5 * step + 1e-6


def test_a_slice_ends_when_the_source_has_no_more(scanner: SimulatedScanner) -> None:
    scan = scanner.open_slice(0).acquire(0.75)
    record = scan_slice(Replay(scan).open_slice(0), 0, replace(QUICK, rule=FixedRule(9)), n_frames=3)
    assert record.seconds == pytest.approx(0.9)
    assert record.spokes == scan.n_spokes
    assert record.steps[-1].stop
    assert record.reason.startswith("the source has no more spokes; a fixed time")
    assert not record.stopped


def test_a_source_without_spokes_is_refused(scanner: SimulatedScanner) -> None:
    stream = Replay(scanner.open_slice(0).acquire(0.1)).open_slice(0)
    stream.acquire(1.0)
    with pytest.raises(InputError, match="slice 0 gives no spokes"):
        scan_slice(stream, 0, QUICK, n_frames=3)


def test_time_goes_on_while_a_file_has_no_spokes(scanner: SimulatedScanner) -> None:
    scan = scanner.open_slice(0).acquire(2.0)
    scan = scan.select((scan.time_s < 0.3) | (scan.time_s > 1.31))
    record = scan_slice(Replay(scan).open_slice(0), 0, replace(QUICK, rule=FixedRule(1.8)), n_frames=3)
    assert [step.seconds for step in record.steps] == pytest.approx([0.3, 1.5, 1.8])


def test_steps_shorter_than_tr_take_one_spoke_each(scanner: SimulatedScanner) -> None:
    options = replace(QUICK, step_s=0.002, method=Gridding(), rule=FixedRule(0.012), n_frames=1)
    record = scan_slice(scanner.open_slice(0), 0, options, n_frames=1)
    assert [step.spokes for step in record.steps] == [1, 2, 3, 4, 5]
    assert record.seconds == pytest.approx(0.012, abs=1e-6)


@dataclass
class Recorder:
    """A judge that keeps what it was shown."""

    seen: list[Evidence] = field(default_factory=list)

    def __call__(self, evidence: Evidence) -> Sequence[Score]:
        self.seen.append(evidence)
        return ()


def test_judges_see_what_was_measured_and_no_truth(scanner: SimulatedScanner) -> None:
    recorders: list[Recorder] = []
    records = []
    lie = torch.rand(3, 30, 30, generator=torch.Generator().manual_seed(0))
    for truth in (None, lie, scanner.open_slice(0).truth(3)):
        recorders.append(Recorder())
        options = replace(QUICK, judges=lambda: (recorders[-1], PredictionJudge(), ChangeJudge()))
        records.append(scan_slice(OtherTruth(scanner.open_slice(0), truth), 0, options, n_frames=3))
    for record, recorder in zip(records[1:], recorders[1:], strict=True):
        assert torch.equal(record.image, records[0].image)
        assert repr([s.scores for s in record.steps]) == repr([s.scores for s in records[0].steps])
        assert all(torch.equal(a.image, b.image) for a, b in zip(recorder.seen, recorders[0].seen, strict=True))
    assert records[0].steps[-1].truth == {}
    assert records[1].steps[-1].truth["psnr_db"] < 15

    first, *rest = recorders[0].seen
    assert first.predicted is None
    assert first.previous is None
    for before, evidence in zip(recorders[0].seen, rest, strict=False):
        assert evidence.previous is not None
        close(evidence.previous.abs(), before.image.abs(), 1e-4)
        assert evidence.predicted is not None
        assert evidence.predicted.shape == evidence.newest.samples.shape
    assert sum(e.newest.n_spokes for e in recorders[0].seen) == float(rest[-1].spokes_per_frame.sum())
    assert first.noise_std == pytest.approx(1, rel=1e-3)


def test_judges_are_made_anew_for_each_slice(make_cine: Any) -> None:
    source = SimulatedScanner(make_cine(slices=2, rows=24, columns=24), ScannerOptions(n_coils=2))
    made: list[Recorder] = []

    def judges() -> Sequence[Any]:
        made.append(Recorder())
        return made[-1:]

    scan_stack(source, replace(QUICK, judges=judges, method=Gridding(), rule=FixedRule(0.6)))
    assert [len(judge.seen) for judge in made] == [2, 2]


def test_a_judge_and_a_rule_of_ones_own_plug_in(scanner: SimulatedScanner) -> None:
    class Sharpness:
        def __call__(self, evidence: Evidence) -> Sequence[Score]:
            edges = float(evidence.image.abs().diff(dim=-1).abs().mean())
            return (Score("sharpness", edges, math.inf, "Mean edge"), Score("seconds", evidence.seconds, 0.8, "Time"))

    class WhenTwoFail:
        def __call__(self, history: Sequence[Verdict]) -> Decision:
            failed = sum(bool(verdict.held_back_by) for verdict in history)
            return Decision(failed == 2, f"{failed} failed", reached=failed == 2)

    options = replace(QUICK, judges=lambda: [Sharpness()], rule=WhenTwoFail())
    record = scan_slice(scanner.open_slice(0), 0, options, n_frames=3)
    assert [step.reason for step in record.steps] == ["0 failed", "0 failed", "1 failed", "2 failed"]
    assert [score.name for score in record.steps[0].scores] == ["sharpness", "seconds"]
    assert record.stopped
    assert record.seconds == pytest.approx(1.2)


def test_everything_is_heard_in_order(make_cine: Any) -> None:
    source = SimulatedScanner(make_cine(slices=3, rows=24, columns=24), ScannerOptions(n_coils=2))
    heard: list[tuple[str, int]] = []
    records = scan_stack(
        source,
        replace(QUICK, method=Gridding(), rule=FixedRule(0.6)),
        slices=[2, 0],
        on_spokes=lambda index, scan: heard.append(("spokes", index)),
        on_step=lambda index, step: heard.append(("step", index)),
        on_slice=lambda record: heard.append(("slice", record.index)),
    )
    one = [("spokes", 2), ("step", 2), ("spokes", 2), ("step", 2), ("slice", 2)]
    assert heard == one + [(name, 0) for name, _ in one]
    assert [record.index for record in records] == [2, 0]


def test_spokes_are_heard_as_they_were_measured(scanner: SimulatedScanner) -> None:
    heard: list[RadialScan] = []
    scan_slice(scanner.open_slice(0), 0, QUICK, n_frames=3, on_spokes=lambda _, scan: heard.append(scan))
    assert torch.equal(concatenate(heard).samples, scanner.open_slice(0).acquire(0.9).samples)


@pytest.mark.parametrize("n_frames", [1, 4])
def test_prediction_is_the_encoding_of_the_image(scanner: SimulatedScanner, n_frames: int) -> None:
    scan = scanner.open_slice(0).acquire(0.2)
    generator = torch.Generator().manual_seed(0)
    frame = torch.randint(0, n_frames, (scan.n_spokes,), generator=generator)
    frame[frame == 2] = 0  # a frame without spokes
    image = torch.randn(n_frames, 30, 30, dtype=torch.complex64, generator=generator)
    maps = torch.randn(3, 30, 30, dtype=torch.complex64, generator=generator)
    each = Encoding(scan.positions[:, None], maps, accuracy="reference").forward(image[frame])
    close(foresee(image, maps, scan, frame), each[:, :, 0], 3e-3)


def test_turning_to_new_maps_changes_no_prediction(scanner: SimulatedScanner) -> None:
    scan = scanner.open_slice(0).acquire(0.2)
    generator = torch.Generator().manual_seed(1)
    frame = torch.randint(0, 2, (scan.n_spokes,), generator=generator)
    image = torch.randn(2, 30, 30, dtype=torch.complex64, generator=generator)
    equations = NormalEquations(scan.matrix, 1, 3)
    equations.add(scan.samples, scan.positions, torch.zeros_like(frame))
    old = calibrate(equations, None).maps
    new = old * torch.exp(1j * torch.rand(30, 30, generator=generator) * 6)
    result = turned(Reconstruction(image, state=(2 * image,)), old, new)
    close(foresee(result.image, new, scan, frame), foresee(image, old, scan, frame), 1e-5)
    close(result.state[0], 2 * result.image, 1e-6)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("unet", "unrolled")])
def test_every_method_goes_on_from_what_was_turned(name: str, make_cine: Any) -> None:
    """With turned maps and a turned start there is the same image, turned: what else it keeps has turned with it."""
    scan = whiten(
        SimulatedScanner(make_cine(rows=32, columns=32), ScannerOptions(n_coils=4)).open_slice(0).acquire(2.0)
    )
    some = scan.n_spokes * 3 // 4
    frame = torch.arange(scan.n_spokes) % 4
    method, equations = make_method(name), NormalEquations((32, 32), 4, scan.n_coils, density=make_method(name).density)
    equations.add(scan.samples[:some], scan.positions[:some], frame[:some])
    old = calibrate(equations, None).maps
    # Whole cycles across the image, so that the preconditioner is the same but for the phase too.
    cycles = torch.arange(32) / 32
    turn = torch.exp(1j * (0.7 + 2 * math.pi * (2 * cycles[:, None] - cycles)))
    before = method(equations, old, noise_std=1.0)
    equations.add(scan.samples[some:], scan.positions[some:], frame[some:])
    straight = method(equations, old, noise_std=1.0, start=before)
    result = method(equations, old / turn, noise_std=1.0, start=turned(before, old, old / turn))
    close(result.image, straight.image * turn, 1e-3)
    assert result.iterations == straight.iterations


def test_the_loop_goes_on_with_cs_after_the_maps_were_made_anew(scanner: SimulatedScanner) -> None:
    options = replace(QUICK, method=make_method("cs"), rule=FixedRule(1.5))
    result = scan_slice(scanner.open_slice(0), 0, options, n_frames=3)
    assert bool(torch.isfinite(result.image).all())


def test_shading_gives_back_the_loudness_that_whitening_took(make_cine: Any) -> None:
    cine = make_cine(rows=40, columns=40, beat=0.0)
    quiet, clean = (
        scan_slice(
            SimulatedScanner(cine, ScannerOptions(n_coils=4, snr=snr)).open_slice(0),
            0,
            replace(QUICK, method=CgSense(l2=1e-3), n_frames=1),
            n_frames=1,
        )
        for snr in (500.0, math.inf)
    )
    assert quiet.body is not None
    inside = quiet.body.expand_as(quiet.image)
    assert float((quiet.image[inside] / clean.image[inside]).mean()) == pytest.approx(1, abs=0.01)


def test_a_slice_without_signal_is_scanned_like_the_others(make_cine: Any) -> None:
    cine = make_cine(slices=2, rows=24, columns=24)
    images = cine.images.clone()
    images[1] = 0
    source = SimulatedScanner(replace(cine, images=images), ScannerOptions(n_coils=2))
    records = scan_stack(source, QUICK)
    assert records[0].steps[-1].truth
    assert records[1].steps[-1].truth == {}
    assert records[1].image.max() < 0.5 * records[0].image.max()


@pytest.mark.parametrize("matrix", [8, 11])
def test_a_grid_too_small_for_coil_maps_is_refused(make_cine: Any, matrix: int) -> None:
    source = SimulatedScanner(make_cine(rows=24, columns=24), ScannerOptions(n_coils=2, matrix=matrix))
    with pytest.raises(InputError, match="at least 12 x 12"):
        scan_stack(source, QUICK)


@pytest.mark.parametrize("wrong", [{"step_s": 0.0}, {"step_s": math.nan}, {"step_s": math.inf}, {"n_frames": 0}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        replace(QUICK, **wrong)
