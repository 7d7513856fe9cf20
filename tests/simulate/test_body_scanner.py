from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kspace.encoding import Encoding
from kspace.equations import NormalEquations
from kspace.errors import InputError, ShapeError, SpokewiseError, UsageError
from kspace.gating import cardiac_phase
from kspace.nufft import exact_transform
from kspace.recon.cg_sense import CgSense
from kspace.scan import Geometry, RadialScan, concatenate
from kspace.trajectory import radial_positions, readout_radii
from simulate.body import BodyState, Window
from simulate.body_sampling import breath_weights, moved
from simulate.body_scanner import BodyScanner, BodyScannerOptions, BodySlice, vote
from simulate.body_states import Cache, Sharing
from simulate.calibration import calibrate
from simulate.events import (
    BreathHold,
    BulkRotation,
    BulkShift,
    DroppedSpokes,
    EctopicBeat,
    Event,
    FalseTrigger,
    FreeBreathing,
    Spike,
)
from simulate.lines import line_weights, spoke_lines
from simulate.spoke_truth import Truth
from simulate.timeline import Timeline

EDGE_MM = 2.5
SMALL = BodyScannerOptions(
    matrix=36, n_coils=3, snr=math.inf, tr_s=0.05, rr_variability=0.05, breath_step_mm=0.25, seed=2
)


class SoftBody:
    """Ellipses with soft edges: a chest with a liver, and a heart that beats, sinks with the breath and is thinner
    lower down. Everything is a smooth function of the state, drawn on whatever grid is asked for."""

    def __init__(
        self, rows: int = 72, columns: int = 64, slices: int = 2, *, beat: float = 5.0, window: bool = True
    ) -> None:
        self._geometry = Geometry.from_spacing((slices, rows, columns), (8.0, 3.0, 3.2), slice_thickness_mm=8.0)
        self._beat, self._windowed = beat, window
        self.drawn = 0

    @property
    def geometry(self) -> Geometry:
        return self._geometry

    @property
    def heart_window(self) -> Window:
        _, rows, columns = self._geometry.shape
        return Window((14, 61), (4, 46)) if self._windowed else Window((0, rows), (0, columns))

    def volumes_ml(self, state: BodyState) -> dict[str, float]:
        return {"lv": 100 * state.stroke * (1 + math.cos(2 * math.pi * state.phase))}

    def image(self, slice_index: int, state: BodyState, window: Window | None = None) -> Tensor:
        self.drawn += 1
        x, y, z = self._points(slice_index, state)
        chest = self._disc(x, y, (0, 0), (80, 92)) * (1 + 0.2 * torch.sin(x / 15) * torch.cos(y / 13))
        liver = 0.5 * self._disc(x, y - 0.8 * state.breath_mm, (10, 55), (35, 18))
        inner, outer, centre = self._heart(state, z)
        heart = 1.5 * self._disc(x, y, centre, (inner, inner)) - 0.7 * self._disc(x, y, centre, (outer, outer))
        image = (chest + liver + heart) * torch.exp(1j * (0.01 * x + 0.006 * y + 0.4))
        if window is not None:
            image = image[slice(*window.rows), slice(*window.columns)]
        return image.to(torch.complex64)

    def labels(self, slice_index: int, state: BodyState) -> Tensor:
        x, y, z = self._points(slice_index, state)
        inner, outer, centre = self._heart(state, z)
        distance = torch.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2)
        return ((distance < outer).to(torch.uint8) * 2 - (distance < inner).to(torch.uint8)).to(torch.uint8)

    def _heart(self, state: BodyState, z: float) -> tuple[float, float, tuple[float, float]]:
        """Radii, and the centre: the heart takes part in 0.6 of the breath."""
        pulse = self._beat * math.cos(2 * math.pi * state.phase)
        inner = 17 + state.stroke * pulse - 0.1 * z
        return inner, 29.0 - 0.1 * z, (-22.0, 4 + 0.6 * state.breath_mm + 0.4 * pulse)

    def _points(self, slice_index: int, state: BodyState) -> tuple[Tensor, Tensor, float]:
        n_slices, rows, columns = self._geometry.shape
        dz, dy, dx = self._geometry.spacing_mm
        y = ((torch.arange(rows, dtype=torch.float64) - rows // 2) * dy - state.shift_mm[1])[:, None]
        x = ((torch.arange(columns, dtype=torch.float64) - columns // 2) * dx - state.shift_mm[0])[None]
        c, s = math.cos(state.rotation_rad), math.sin(state.rotation_rad)
        return c * x + s * y, c * y - s * x, (slice_index - n_slices // 2) * dz - state.shift_mm[2]

    @staticmethod
    def _disc(x: Tensor, y: Tensor, centre: tuple[float, float], radii: tuple[float, float]) -> Tensor:
        a, b = radii
        distance = torch.sqrt(((x - centre[0]) / a) ** 2 + ((y - centre[1]) / b) ** 2)
        return torch.sigmoid((1 - distance) * min(a, b) / EDGE_MM)


def error(got: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(got - expected) / torch.linalg.vector_norm(expected))


def direct(scanner: BodyScanner, stream: BodySlice, scan: RadialScan, index: int, positions: Tensor | None = None):
    """(spoke, coil, readout) direct float64 transforms of each spoke's own body; maps stay in the room."""
    truth, matrix, fine = stream.spoke_truth(), scan.matrix, scanner.body.geometry.shape[1:]
    ratio = torch.tensor([matrix[0] / fine[0], matrix[1] / fine[1]], dtype=torch.float64)
    positions = scan.positions.double() if positions is None else positions
    maps = scanner.coil_maps(index) * scanner.shading(index)
    result = []
    for spoke in range(scan.n_spokes):
        x, y, z = truth.shift_mm[spoke].tolist()
        state = BodyState(
            float(truth.phase[spoke]), float(truth.stroke[spoke]), float(truth.breath_mm[spoke]), (x, y, z),
            float(truth.rotation_rad[spoke]),
        )  # fmt: skip
        image = scanner.body.image(index, state) * maps
        result.append(exact_transform(image, positions[spoke] * ratio))
    return torch.stack(result) * math.sqrt(math.prod(matrix) / math.prod(fine))


def measured(events: Sequence[Event], seconds: float = 4.0, **changes: Any) -> tuple[Tensor, Tensor]:
    """What the scanner measures of the soft body's slice 1, and what it should."""
    scanner = BodyScanner(SoftBody(), replace(SMALL, **changes), events=events)
    stream = scanner.open_slice(1)
    scan = stream.acquire(seconds)
    return scan.samples, direct(scanner, stream, scan, 1)


@pytest.mark.parametrize(
    ("events", "limit"),
    [
        ((), 2e-5),
        ((BreathHold(drift_mm_s=0.5),), 2e-5),
        ((FreeBreathing(amplitude_mm=8),), 2e-5),
        ((EctopicBeat(1.5, stroke=0.5),), 2e-5),
        ((BulkShift(1.0, (6.3, -4.1, 0.0), 0.0), BulkRotation(2.0, 0.07, 0.0)), 5e-4),
        ((BulkShift(1.0, (6.3, -4.1, 3.0), 0.5), BulkRotation(2.0, 0.07, 0.5)), 2e-3),
    ],
)
def test_every_spoke_sees_its_own_body(events: Sequence[Event], limit: float):
    samples, expected = measured(events)
    assert samples.shape == (80, 3, 72)
    assert error(samples, expected) < limit
    # Not only on average.
    worst = (samples - expected).abs().square().sum((1, 2)) / expected.abs().square().sum((1, 2))
    assert math.sqrt(float(worst.max())) < 5 * limit


def test_one_state_per_spoke_is_exact():
    events = (FreeBreathing(amplitude_mm=8), BulkShift(0.5, (6.3, -4.1, 3.0), 0.5), BulkRotation(1.0, 0.07, 0.5))
    samples, expected = measured(events, 2.0, exact=True)
    assert error(samples, expected) < 1e-6


def test_more_states_come_closer():
    errors = [error(*measured((), 2.0, n_phases=n)) for n in (8, 12, 48)]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


@pytest.mark.parametrize(("accuracy", "limit"), [("reference", 1e-5), ("standard", 1e-4)])
@pytest.mark.parametrize("window", [True, False])
def test_a_body_at_rest_agrees_with_the_ordinary_operator(accuracy: Any, limit: float, window: bool):
    body = SoftBody(beat=0.0, window=window)
    scanner = BodyScanner(body, replace(SMALL, accuracy=accuracy))
    scan = scanner.open_slice(0).acquire(2.0)
    ratio = torch.tensor([scan.matrix[0] / 72, scan.matrix[1] / 64], dtype=torch.float64)
    operator = Encoding(
        (scan.positions.double() * ratio)[None], scanner.coil_maps(0) * scanner.shading(0), accuracy="reference"
    )
    expected = operator.forward(body.image(0, BodyState())[None])[0].transpose(0, 1)
    assert error(scan.samples, expected * math.sqrt(math.prod(scan.matrix) / (72 * 64))) < limit


def test_gradient_delays_move_the_spokes_and_not_what_is_reported():
    scanner = BodyScanner(SoftBody(), replace(SMALL, gradient_delays=(0.6, -0.3, 0.1)))
    stream = scanner.open_slice(1)
    scan = stream.acquire(1.0)
    nominal = BodyScanner(SoftBody(), SMALL).open_slice(1).acquire(1.0)
    assert torch.equal(scan.positions, nominal.positions)
    assert error(scan.samples, nominal.samples) > 0.02
    n = (scan.positions[:, 0] - scan.positions[:, -1]).double()
    ny, nx = -n.T / torch.linalg.vector_norm(n, dim=-1)
    shift = torch.stack((0.1 * nx - 0.3 * ny, 0.6 * nx + 0.1 * ny), dim=-1) / 72
    true = scan.positions.double() + shift[:, None]
    assert error(scan.samples, direct(scanner, stream, scan, 1, true)) < 1e-3


def test_only_states_that_are_visited_are_drawn():
    body = SoftBody()
    stream = BodyScanner(body, SMALL).open_slice(0)
    before = body.drawn
    stream.acquire(3.0)
    assert body.drawn - before == SMALL.n_phases  # the breath is held: one body at rest, drawn on opening
    stream.acquire(3.0)
    assert body.drawn - before == SMALL.n_phases


@settings(deadline=None, max_examples=8)
@given(steps=st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=5), n_coils=st.integers(1, 3))
def test_any_steps_give_the_same_spokes(steps: list[float], n_coils: int):
    options = replace(SMALL, n_coils=n_coils, snr=20, n_phases=8, breath_step_mm=2.0, matrix=19)
    events = (FreeBreathing(), BulkShift(0.3, (4.0, 1.0, 0.0), 0.4))
    scanner = BodyScanner(SoftBody(), options, events=events)
    stream = scanner.open_slice(1)
    pieces = [stream.acquire(step) for step in steps]
    assert all(piece.n_spokes for piece in pieces)
    pieced, whole = concatenate(pieces), scanner.open_slice(1).acquire(6.0)
    whole = whole.select(slice(0, pieced.n_spokes))
    assert torch.equal(pieced.time_s, whole.time_s)
    assert torch.equal(pieced.positions, whole.positions)
    assert torch.equal(pieced.ecg_s, whole.ecg_s[: len(pieced.ecg_s)])
    assert error(pieced.samples, whole.samples) < 1e-5
    assert len(stream.spoke_truth()) == pieced.n_spokes


def test_slices_in_any_order_are_the_same_and_seeds_differ():
    options = replace(SMALL, snr=20, n_phases=8)
    one, other = (BodyScanner(SoftBody(), options) for _ in range(2))
    forth = [one.open_slice(index).acquire(0.5) for index in (0, 1)]
    back = [other.open_slice(index).acquire(0.5) for index in (1, 0)][::-1]
    for a, b in zip(forth, back, strict=True):
        assert torch.equal(a.samples, b.samples)
        assert torch.equal(a.ecg_s, b.ecg_s)
    assert not torch.equal(forth[0].ecg_s, forth[1].ecg_s)
    third = BodyScanner(SoftBody(), replace(options, seed=9)).open_slice(0).acquire(0.5)
    assert not torch.equal(third.samples, forth[0].samples)


def test_noise_has_the_covariance_that_is_stated():
    noisy, clean = (BodyScanner(SoftBody(), replace(SMALL, snr=snr, tr_s=4e-3, n_phases=4)) for snr in (30, math.inf))
    scan, without = (scanner.open_slice(1).acquire(4.0) for scanner in (noisy, clean))
    noise = (scan.samples - without.samples).transpose(0, 1).reshape(3, -1)
    assert scan.noise_covariance is not None
    assert error(noise @ noise.mH / noise.shape[1], scan.noise_covariance) < 0.03
    assert without.noise_covariance is None
    assert noisy.noise_std == pytest.approx(float(noisy.covariance.diagonal().real.mean() / 2) ** 0.5, rel=1e-5)


def test_dropped_spokes_hold_noise_alone_and_a_spike_is_one_sample():
    events = (DroppedSpokes(0.5, stop_s=0.99), Spike(1.5, size=3.0, readout=0.25))
    scanner = BodyScanner(SoftBody(), SMALL, events=events)
    stream = scanner.open_slice(0)
    scan = stream.acquire(2.0)
    clean = BodyScanner(SoftBody(), SMALL).open_slice(0).acquire(2.0)
    truth = stream.spoke_truth()
    assert torch.nonzero(truth.dropped).flatten().tolist() == list(range(10, 20))
    assert torch.nonzero(truth.spiked).flatten().tolist() == [30]
    assert scan.samples[10:20].abs().max() == 0
    differs = torch.nonzero((scan.samples - clean.samples).abs()[20:].amax(1)).tolist()
    assert differs == [[10, 36 + 18]]
    assert float((scan.samples - clean.samples)[30, 0, 54].abs() / clean.samples[30].abs().max()) == pytest.approx(3)


def test_the_scanner_sees_the_recorded_ecg_and_the_heart_follows_the_true_one():
    events = (FalseTrigger(1.0),)
    stream = BodyScanner(SoftBody(), SMALL, events=events).open_slice(0)
    calm = BodyScanner(SoftBody(), SMALL).open_slice(0)
    scan, other = stream.acquire(3.0), calm.acquire(3.0)
    assert torch.equal(scan.samples, other.samples)
    assert set(scan.ecg_s.tolist()) - set(other.ecg_s.tolist()) == {1.0}
    assert float(scan.ecg_s[-1]) <= 3.0
    truth = stream.spoke_truth()
    inside = truth.time_s < scan.ecg_s[-1]
    torch.testing.assert_close(truth.gated_phase[inside], cardiac_phase(scan.time_s, scan.ecg_s)[inside])
    assert error(truth.gated_phase, calm.spoke_truth().gated_phase) > 0.1
    jitter = other.ecg_s - calm.spoke_truth().r_waves[: len(other.ecg_s), 1]
    assert 1e-4 < float(jitter.abs().max()) < 8e-3


def test_truth_is_what_many_spokes_of_that_phase_converge_to():
    options = replace(SMALL, tr_s=3e-3, rr_variability=0.0, ecg_jitter_s=0.0, receive_shading=0.4)
    still = BodyScanner(SoftBody(beat=0.0), options)
    stream = still.open_slice(1)
    truth = stream.truth(2)
    assert truth.shape == (2, 36, 32)
    scan = stream.acquire(1.5)
    equations = NormalEquations(scan.matrix, 1, 3)
    equations.add(scan.samples, scan.positions, torch.zeros(scan.n_spokes, dtype=torch.int64))
    image = CgSense(l2=1e-4, tolerance=1e-4)(equations, calibrate(equations, None).maps).image.abs()
    assert error(image, truth[:1]) < 0.02
    assert error(image.flip(-1), truth[:1]) > 0.1
    beating = BodyScanner(SoftBody(), options).open_slice(1).truth(8)
    assert error(beating[0], beating[4]) > 0.05
    torch.testing.assert_close(beating[0], beating[7], atol=1e-5, rtol=1e-4)  # the heart's beat is symmetric


def test_labels_and_volumes_go_with_the_truth():
    body = SoftBody()
    stream = BodyScanner(body, SMALL).open_slice(1)
    labels = stream.labels(4)
    assert labels.shape == (4, 36, 32)
    assert labels.dtype == torch.uint8
    area = (labels[0] == 1).sum() * 6.0 * 6.4
    radius = body._heart(BodyState(0.125), 0.0)[0]
    assert float(area) == pytest.approx(math.pi * radius**2, rel=0.06)
    volumes = stream.volumes_ml(4)
    assert volumes is not None
    assert volumes[0]["lv"] == pytest.approx(100 * (1 + math.cos(math.pi / 4)))


def test_spoke_truth_is_recorded_beside_the_data(tmp_path: Path):
    events = (FreeBreathing(), BulkShift(0.5, (3.0, 2.0, 1.0)), EctopicBeat(1.0))
    scanner = BodyScanner(SoftBody(), replace(SMALL, n_phases=4, breath_step_mm=3.0), events=events)
    streams = [scanner.open_slice(index) for index in (0, 1)]
    for stream in streams:
        stream.acquire(2.0)
    truth = Truth.concatenate([stream.spoke_truth() for stream in streams])
    assert truth.slice_index.bincount().tolist() == [40, 40]
    states = streams[1].timeline.at(truth.time_s[40:])
    torch.testing.assert_close(truth.phase[40:], states.phase)
    torch.testing.assert_close(truth.breath_mm[40:], states.breath_mm)
    assert float(truth.stroke.min()) == 0.5
    truth.write_npz(tmp_path / "truth.npz")
    again = Truth.read_npz(tmp_path / "truth.npz")
    assert all(torch.equal(getattr(again, name), getattr(truth, name)) for name in Truth.__annotations__)
    truth.write_csv(tmp_path / "truth.csv")
    with (tmp_path / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    assert float(rows[50]["shift_x_mm"]) == pytest.approx(float(truth.shift_mm[50, 0]), rel=1e-5)
    assert rows[3]["dropped"] == "0"
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="truth of spokes"):
        Truth.read_npz(tmp_path / "no.npz")
    with pytest.raises(ShapeError, match="phase"):
        replace(truth, phase=truth.phase[1:])


def test_a_slice_may_have_a_timeline_of_its_own():
    def timeline(index: int) -> Timeline:
        return Timeline(events=(BulkShift(0.0, (float(index), 0.0, 0.0), 0.0),))

    scanner = BodyScanner(SoftBody(), replace(SMALL, n_phases=4), timeline=timeline)
    streams = [scanner.open_slice(index) for index in (0, 1)]
    for stream in streams:
        stream.acquire(0.2)
    assert [float(stream.spoke_truth().shift_mm[0, 0]) for stream in streams] == [0, 1]


def test_vote_takes_what_most_of_a_pixel_is():
    labels = torch.zeros(12, 12, dtype=torch.uint8)
    labels[4:8, 6:] = 3
    small = vote(labels, (6, 6))
    assert small.shape == (6, 6)
    assert small[2:4, 3:].unique().tolist() == [3]
    assert int((small == 3).sum()) in (6, 9)
    assert torch.equal(vote(labels, (12, 12)), labels)


def test_line_weights_fill_in_what_is_band_limited():
    radii = readout_radii(256)
    few, fill = line_weights(256, 30.0)
    assert len(few) < 130
    r = torch.linspace(-30, 30, 61, dtype=torch.float64)
    got = torch.exp(2j * math.pi * few[:, None] * r).T @ fill.to(torch.complex128)
    assert error(got, torch.exp(2j * math.pi * radii[:, None] * r).T) < 1e-5
    few, fill = line_weights(32, 30.0)  # nothing to gain
    assert torch.equal(few, readout_radii(32))
    assert torch.equal(fill, torch.eye(32))
    with pytest.raises(InputError):
        line_weights(32, -1.0)


def test_lines_are_the_ordinary_spokes_where_nothing_moves():
    angles = torch.tensor([0.3, 2.0, 4.4])
    lines = spoke_lines(angles, (2.0, 3.0), 40)
    positions = lines.positions(readout_radii(40)) * torch.tensor([2.0, 3.0])
    torch.testing.assert_close(positions, radial_positions(angles, 40).double(), atol=1e-7, rtol=0)
    turned = lines.turned(torch.full((3,), 0.2, dtype=torch.float64)).turned(torch.full((3,), -0.2).double())
    torch.testing.assert_close(turned.direction, lines.direction)


def test_breath_weights_and_moved_maps():
    nodes, weights = breath_weights(torch.tensor([0.0, 0.3, -0.7, 2.0]), 1.0)
    assert nodes.tolist() == [[0, 1], [0, 1], [-1, 0], [2, 3]]
    assert weights.flatten().tolist() == pytest.approx([1, 0, 0.7, 0.3, 0.7, 0.3, 1, 0])
    y, x = torch.meshgrid(torch.arange(40.0) - 20, torch.arange(30.0) - 15, indexing="ij")

    def wave(x_mm: Tensor, y_mm: Tensor) -> Tensor:
        return torch.exp(1j * (x_mm / 40 + y_mm / 55))[None].to(torch.complex64)

    got = moved(wave(x * 3, y * 2), (2.0, 3.0), (5.0, -3.0), 0.1)
    c, s = math.cos(0.1), math.sin(0.1)
    expected = wave(c * x * 3 - s * y * 2 + 5, s * x * 3 + c * y * 2 - 3)
    assert error(got[:, 8:-8, 6:-6], expected[:, 8:-8, 6:-6]) < 1e-3


def test_the_cache_forgets_the_oldest():
    cache: Cache[int, Tensor] = Cache(1000)
    for key in range(5):
        cache.get_or(key, lambda: (torch.zeros(100), torch.zeros(100)))
    assert list(cache) == [3, 4]


@pytest.mark.parametrize(
    "wrong",
    [
        {"matrix": 72},
        {"matrix": 0},
        {"n_coils": 0},
        {"snr": 0.0},
        {"gradient_delays": (1.0, 2.0)},
        {"gradient_delays": (1.0, 2.0, math.nan)},
        {"receive_shading": -1.0},
        {"ecg_jitter_s": 1.0},
        {"n_phases": 2},
        {"breath_step_mm": 0.0},
        {"accuracy": "perfect"},
        {"seed": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]):
    with pytest.raises(SpokewiseError):
        BodyScanner(SoftBody(), replace(SMALL, **wrong))


def test_bodies_and_requests_that_make_no_sense_are_refused():
    class Empty(SoftBody):
        def image(self, slice_index: int, state: BodyState, window: Window | None = None) -> Tensor:
            return super().image(slice_index, state, window) * 0

    class Crooked(SoftBody):
        def image(self, slice_index: int, state: BodyState, window: Window | None = None) -> Tensor:
            image = super().image(slice_index, state, window)
            return image if window is None else image[1:]

    with pytest.raises(InputError, match="no signal"):
        BodyScanner(Empty(), SMALL)
    with pytest.raises(ShapeError, match="the body's image"):
        BodyScanner(Crooked(), SMALL).open_slice(0).acquire(0.1)
    scanner = BodyScanner(SoftBody(), SMALL)
    for index in (-1, 2):
        with pytest.raises(InputError, match="no slice"):
            scanner.open_slice(index)
    with pytest.raises(UsageError):
        scanner.open_slice(0).truth(0)
    with pytest.raises(UsageError):
        Sharing(n_phases=1)
