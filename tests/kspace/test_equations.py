from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kspace.encoding import Encoding, pad_frames
from kspace.equations import Density, NormalEquations
from kspace.errors import InputError, ShapeError, UsageError
from kspace.nufft import exact_adjoint, exact_transform
from kspace.trajectory import golden_angles, radial_positions, ramp_weights

DENSITIES: tuple[Density, ...] = get_args(Density)
SUMS = ("adjoint", "spectrum", "spokes", "energy", "weight", "squared_weight")
Spokes = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="session")
def make_spokes(make_noise: Any) -> Any:
    def make(n_spokes: int, n_coils: int, n_readout: int, n_frames: int, *, start: int = 0) -> Spokes:
        """Samples, positions and frames: noise on golden-angle spokes, dealt out at random."""
        frame = torch.randint(n_frames, (n_spokes,), generator=torch.Generator().manual_seed(start + 1))
        positions = radial_positions(golden_angles(n_spokes, start=start), n_readout)
        return make_noise(n_spokes, n_coils, n_readout, seed=start), positions, frame

    return make


def part(spokes: Spokes, chosen: Tensor | slice) -> Spokes:
    return spokes[0][chosen], spokes[1][chosen], spokes[2][chosen]


def state(equations: NormalEquations) -> dict[str, Tensor]:
    return {name: getattr(equations, name).clone() for name in SUMS}


def same(got: dict[str, Tensor], expected: dict[str, Tensor], bound: float, size: dict[str, Tensor]) -> None:
    """Each frame's sums agree to a bound relative to the norm of what ``size`` holds of them."""
    for name in SUMS:
        error = (got[name] - expected[name]).flatten(1) if got[name].ndim > 1 else (got[name] - expected[name])[:, None]
        norm = torch.linalg.vector_norm(size[name].reshape(len(error), -1), dim=1)
        assert bool((torch.linalg.vector_norm(error, dim=1) <= bound * norm).all()), name


def exact_weights(positions: Tensor, matrix: tuple[int, int], density: Density) -> Tensor:
    if density == "none":
        return torch.ones(positions.shape[:-1], dtype=torch.float64)
    return ramp_weights(positions, n_spokes=1).double() * matrix[0] * matrix[1]


# Sums over spokes


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_split_in_any_order_gives_the_same_sums(data: st.DataObject, make_spokes: Any) -> None:
    matrix = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    n_spokes, n_coils, n_readout = data.draw(st.tuples(st.integers(1, 15), st.integers(1, 3), st.integers(2, 30)))
    n_frames = data.draw(st.integers(1, 4))
    density = data.draw(st.sampled_from(DENSITIES))
    dtype = data.draw(st.sampled_from([torch.complex64, torch.complex128]))
    batch = torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=n_spokes, max_size=n_spokes)))
    order = torch.tensor(data.draw(st.permutations(range(n_spokes))))
    spokes = make_spokes(n_spokes, n_coils, n_readout, n_frames)
    trust = torch.linspace(0.1, 1, n_spokes) if data.draw(st.booleans()) else None

    whole = NormalEquations(matrix, n_frames, n_coils, density=density, dtype=dtype)
    pieces = NormalEquations(matrix, n_frames, n_coils, density=density, dtype=dtype)
    whole.add(*spokes, trust)
    for number in range(5):
        chosen = order[batch[order] == number]
        pieces.add(*part(spokes, chosen), None if trust is None else trust[chosen])
    same(state(pieces), state(whole), 1e-5, state(whole))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_batch_that_was_added_and_removed_leaves_no_trace(data: st.DataObject, make_spokes: Any) -> None:
    matrix = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    n_before, n_batch = data.draw(st.integers(0, 6)), data.draw(st.integers(1, 12))
    n_coils, n_readout, n_frames = data.draw(st.tuples(st.integers(1, 3), st.integers(2, 30), st.integers(1, 4)))
    density = data.draw(st.sampled_from(DENSITIES))
    equations = NormalEquations(matrix, n_frames, n_coils, density=density)
    equations.add(*make_spokes(n_before, n_coils, n_readout, n_frames, start=50))
    before = state(equations)
    batch = make_spokes(n_batch, n_coils, n_readout, n_frames)
    trust = torch.linspace(0, 1, n_batch) if data.draw(st.booleans()) else None
    equations.add(*batch, trust)
    during = state(equations)
    for chosen in torch.arange(n_batch).tensor_split(data.draw(st.integers(1, 3))):
        equations.remove(*part(batch, chosen), None if trust is None else trust[chosen])
    same(state(equations), before, 1e-5, during)


def test_a_frame_that_lost_all_its_spokes_is_exactly_empty(make_spokes: Any, make_maps: Any) -> None:
    equations = NormalEquations((12, 13), 3, 2)
    samples, positions, _ = make_spokes(9, 2, 24, 3)
    frame = torch.arange(9) % 3
    equations.add(samples, positions, frame)
    for chosen in ([1], [7, 4]):
        equations.remove(samples[chosen], positions[chosen], frame[chosen])
    assert all(float(getattr(equations, name)[1].abs().sum()) == 0 for name in SUMS)
    assert float(equations.gridded()[1].abs().sum()) == 0
    ones = torch.ones(3, 12, 13, dtype=torch.complex64)
    assert float(equations.normal(ones, make_maps(2, 12, 13))[1].abs().sum()) == 0
    assert math.isfinite(equations.noise_in_image(1.0))
    assert equations.spokes.tolist() == [3, 0, 3]


@pytest.mark.parametrize("density", DENSITIES)
def test_the_sums_of_a_stream_do_not_depend_on_the_time_at_which_a_spoke_is_moved(
    density: Density, make_spokes: Any
) -> None:
    spokes = make_spokes(20, 2, 24, 3)
    elsewhere = (spokes[2] + 1) % 3
    moved, right = NormalEquations((12, 13), 3, 2, density=density), NormalEquations((12, 13), 3, 2, density=density)
    moved.add(*spokes)
    moved.remove(*part(spokes, slice(0, 10)))
    moved.add(spokes[0][:10], spokes[1][:10], elsewhere[:10])
    right.add(spokes[0], spokes[1], torch.cat((elsewhere[:10], spokes[2][10:])))
    same(state(moved), state(right), 1e-5, state(right))


def test_no_spokes_are_no_change(make_spokes: Any) -> None:
    equations = NormalEquations((8, 9), 2, 3)
    equations.add(*make_spokes(4, 3, 12, 2))
    before = state(equations)
    equations.add(*make_spokes(0, 3, 12, 2))
    equations.remove(*make_spokes(0, 3, 12, 2), torch.zeros(0))
    assert all(torch.equal(getattr(equations, name), before[name]) for name in SUMS)


# Trust


@pytest.mark.parametrize("density", DENSITIES)
def test_trust_scales_what_a_spoke_counts(density: Density, make_spokes: Any) -> None:
    spokes = make_spokes(6, 2, 24, 1)
    plain, trusted, halves, none = (NormalEquations((12, 10), 1, 2, density=density) for _ in range(4))
    plain.add(*spokes)
    trusted.add(*spokes, torch.ones(6))
    same(state(trusted), state(plain), 1e-7, state(plain))
    halves.add(*spokes, torch.full((6,), 0.5))
    for name in SUMS:
        power = 4 if name == "squared_weight" else 2
        torch.testing.assert_close(getattr(halves, name) * power, getattr(plain, name), rtol=1e-5, atol=1e-5)
    none.add(*spokes, torch.zeros(6))
    assert all(float(getattr(none, name).abs().sum()) == 0 for name in SUMS)


def test_a_distrusted_spoke_counts_as_if_it_were_not_there(make_spokes: Any) -> None:
    spokes = make_spokes(6, 2, 24, 2)
    kept = torch.tensor([1.0, 0, 1, 1, 0, 1])
    without, distrusted = NormalEquations((12, 10), 2, 2), NormalEquations((12, 10), 2, 2)
    without.add(*part(spokes, kept > 0))
    distrusted.add(*spokes, kept)
    same(state(distrusted), state(without), 1e-5, state(without))


# What the sums are


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_sums_and_misfit_are_those_of_a_direct_computation(
    data: st.DataObject, make_spokes: Any, make_noise: Any, make_maps: Any
) -> None:
    matrix = data.draw(st.tuples(st.integers(2, 14), st.integers(2, 14)))
    n_spokes, n_coils, n_readout = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(2, 24)))
    n_frames, density = data.draw(st.integers(1, 3)), data.draw(st.sampled_from(DENSITIES))
    double = data.draw(st.booleans())
    dtype, bound = (torch.complex128, 1e-7) if double else (torch.complex64, 1e-4)
    samples, positions, frame = make_spokes(n_spokes, n_coils, n_readout, n_frames)
    maps, x = make_maps(n_coils, *matrix, dtype=dtype), make_noise(n_frames, *matrix, seed=5, dtype=dtype)
    equations = NormalEquations(
        matrix, n_frames, n_coils, density=density, dtype=dtype, accuracy="reference" if double else "standard"
    )
    equations.add(samples.to(dtype), positions, frame)
    misfit = equations.data_misfit(x, maps)
    normal, right = equations.normal(x, maps), equations.right_hand_side(maps)
    wide = maps.to(torch.complex128)
    for f in range(n_frames):
        mine = frame == f
        points, w = positions[mine].reshape(-1, 2), exact_weights(positions[mine], matrix, density).reshape(-1)
        s = samples[mine].transpose(0, 1).reshape(n_coils, -1).to(torch.complex128)
        forward = exact_transform(x[f] * wide, points)
        energy = float((w * s.abs() ** 2).sum())
        size = energy + float((w * forward.abs() ** 2).sum())
        assert float(equations.energy[f]) == pytest.approx(energy, rel=1e-5)
        assert float(misfit[f]) == pytest.approx(float((w * (forward - s).abs() ** 2).sum()), abs=bound * size)
        assert float(equations.weight[f]) == pytest.approx(float(w.sum()) / math.prod(matrix), rel=1e-5)
        assert float(equations.squared_weight[f]) == pytest.approx(float((w**2).sum()) / math.prod(matrix), rel=1e-5)
        # An error is measured by |F| and not by |F^H W s|, which may cancel.
        scale = math.sqrt(float(w.sum()) * size)
        adjoint = (exact_adjoint(w * s, points, matrix) * wide.conj()).sum(0)
        assert float(torch.linalg.vector_norm(right[f] - adjoint)) <= bound * scale
        product = (exact_adjoint(w * forward, points, matrix) * wide.conj()).sum(0)
        assert float(torch.linalg.vector_norm(normal[f] - product)) <= 2 * bound * scale


@pytest.mark.parametrize("density", DENSITIES)
def test_the_normal_operator_is_the_adjoint_of_the_forward(
    density: Density, make_spokes: Any, make_noise: Any, make_maps: Any, check: Any
) -> None:
    matrix = (30, 27)
    samples, positions, frame = make_spokes(25, 3, 60, 3)
    maps, x = make_maps(3, *matrix), make_noise(2, 3, *matrix)
    equations = NormalEquations(matrix, 3, 3, density=density)
    equations.add(samples, positions, frame)
    padded, counts = pad_frames(positions, frame, 3, axis_order="positions")
    values, _ = pad_frames(samples, frame, 3, axis_order="samples")
    weights = torch.ones(padded.shape[:-1])
    if density == "ramp":
        for f in range(3):
            weights[f, : counts[f]] = ramp_weights(padded[f, : counts[f]], n_spokes=1) * math.prod(matrix)
    encoding = Encoding(padded, maps, spokes_per_frame=counts, accuracy="reference")
    check.close(equations.normal(x, maps), encoding.adjoint(encoding.forward(x) * weights[:, None]), 1e-4)
    check.close(equations.right_hand_side(maps), encoding.adjoint(values * weights[:, None]), 1e-4)
    residual = encoding.forward(x[0]) - values
    expected = (weights[:, None] * residual.abs() ** 2).double().sum((1, 2, 3))
    torch.testing.assert_close(equations.data_misfit(x[0], maps), expected, rtol=1e-4, atol=0)


def test_a_perfect_image_leaves_no_misfit(make_spokes: Any, make_heart: Any, make_maps: Any) -> None:
    matrix, maps, x = (24, 20), make_maps(2, 24, 20), make_heart(2, 24, 20)
    _, positions, frame = make_spokes(14, 2, 48, 2)
    samples = torch.stack([exact_transform(x[f] * maps, p) for p, f in zip(positions, frame, strict=True)])
    equations = NormalEquations(matrix, 2, 2)
    equations.add(samples.to(torch.complex64), positions, frame)
    assert bool((equations.data_misfit(x, maps).abs() < 1e-5 * equations.energy).all())


@pytest.mark.parametrize("density", DENSITIES)
def test_weight_is_the_mean_of_the_diagonal(density: Density, make_spokes: Any, make_maps: Any) -> None:
    matrix = (6, 5)
    equations = NormalEquations(matrix, 2, 3, density=density, accuracy="reference", dtype=torch.complex128)
    equations.add(*make_spokes(8, 3, 12, 2))
    maps = make_maps(3, *matrix, dtype=torch.complex128)
    pixels = torch.eye(30, dtype=torch.complex128).reshape(30, 1, *matrix).expand(30, 2, *matrix)
    diagonal = (pixels * equations.normal(pixels, maps)).sum((-2, -1)).real
    torch.testing.assert_close(diagonal.mean(0), equations.weight)
    assert equations.scale == pytest.approx(float(diagonal.mean()))


@pytest.mark.parametrize("density", DENSITIES)
def test_noise_in_the_image_is_as_foretold(density: Density, make_noise: Any, make_maps: Any) -> None:
    # Every pixel of every channel is a draw, correlated in space: the spread of the estimates is below 1 %.
    matrix, n_coils, sigma = (12, 10), 400, 3.0
    angles = golden_angles(14)
    positions, frame = radial_positions(angles, 24), torch.tensor([0] * 10 + [1] * 4)
    trust = torch.linspace(0.3, 1, 14)
    equations = NormalEquations(matrix, 3, n_coils, density=density)
    equations.add(sigma * make_noise(14, n_coils, 24), positions, frame, trust)
    variance = equations.adjoint.abs().square().mean((1, 2, 3)).double()
    torch.testing.assert_close(variance, sigma**2 * equations.squared_weight, rtol=0.03, atol=0)
    relative = variance[:2].sqrt() / equations.weight[:2]
    assert equations.noise_in_image(sigma) == pytest.approx(float(relative.mean()), rel=0.02)

    several = [NormalEquations(matrix, 3, 4, density=density) for _ in range(150)]
    maps = make_maps(4, *matrix)
    images = []
    for seed, one in enumerate(several):
        one.add(sigma * make_noise(14, 4, 24, seed=seed), positions, frame, trust)
        images.append(one.right_hand_side(maps)[:2] / one.weight[:2, None, None])
    spread = torch.stack(images).abs().square().mean((0, 2, 3)).sqrt().mean()
    assert several[0].noise_in_image(sigma) == pytest.approx(float(spread), rel=0.03)


def test_without_spokes_the_noise_has_no_bound() -> None:
    assert NormalEquations((4, 5), 2, 1).noise_in_image(1.0) == math.inf


def test_time_average_and_gridded_are_means_over_spokes(make_spokes: Any, check: Any) -> None:
    spokes = make_spokes(12, 2, 24, 3)
    equations, together = NormalEquations((12, 10), 4, 2), NormalEquations((12, 10), 1, 2)
    equations.add(*spokes)
    together.add(spokes[0], spokes[1], torch.zeros(12, dtype=torch.int64))
    check.close(equations.time_average(), together.gridded()[0], 1e-5)
    assert equations.gridded().shape == (4, 2, 12, 10)
    assert float(equations.gridded()[3].abs().sum()) == 0
    alone = NormalEquations((12, 10), 1, 2)
    alone.add(*part(spokes, spokes[2] == 1)[:2], torch.zeros(int((spokes[2] == 1).sum()), dtype=torch.int64))
    check.close(equations.gridded()[1], alone.gridded()[0], 1e-5)


def test_sums_are_kept_in_the_type_asked_for(make_spokes: Any) -> None:
    for dtype, real in ((torch.complex64, torch.float32), (torch.complex128, torch.float64)):
        equations = NormalEquations((8, 9), 2, 3, dtype=dtype)
        equations.add(*make_spokes(4, 3, 12, 2))
        assert equations.adjoint.dtype == dtype
        assert equations.spectrum.dtype == real
        assert (equations.n_frames, equations.n_coils) == (2, 3)


# Errors


def test_what_does_not_fit_is_named(make_spokes: Any, make_maps: Any) -> None:
    equations = NormalEquations((8, 9), 2, 3)
    samples, positions, frame = make_spokes(4, 3, 12, 2)
    for change in (equations.add, equations.remove):
        with pytest.raises(ShapeError, match=r"samples has shape .*3 coils"):
            change(samples[:, :2], positions, frame)
        with pytest.raises(ShapeError, match="samples has shape"):
            change(samples[0], positions, frame)
        with pytest.raises(ShapeError, match="positions has shape"):
            change(samples, positions[:, :11], frame)
        with pytest.raises(ShapeError, match="frame has shape"):
            change(samples, positions, frame[:3])
        with pytest.raises(ShapeError, match="trust has shape"):
            change(samples, positions, frame, torch.ones(3))
        with pytest.raises(InputError, match="lie on meta; expected cpu"):
            change(samples.to("meta"), positions, frame)
        with pytest.raises(InputError, match="lie on meta; expected cpu"):
            change(samples, positions.to("meta"), frame)
        for bad in (-1, 2):
            with pytest.raises(InputError, match=r"frames run from .* expected 0 to 1"):
                change(samples, positions, torch.tensor([0, 1, bad, 0]))
        for doubt in (-0.1, 1.5, math.nan):
            with pytest.raises(InputError, match="trust"):
                change(samples, positions, frame, torch.tensor([1, doubt, 1, 1]))
    maps = make_maps(3, 8, 9)
    with pytest.raises(ShapeError, match="maps has shape"):
        equations.right_hand_side(maps[:2])
    with pytest.raises(ShapeError, match="with 2 frames"):
        equations.normal(torch.zeros(3, 8, 9, dtype=torch.complex64), maps)
    with pytest.raises(ShapeError, match="maps has shape"):
        equations.normal(torch.zeros(2, 8, 9, dtype=torch.complex64), maps[..., :8])


def test_a_refused_batch_changes_nothing(make_spokes: Any) -> None:
    equations = NormalEquations((8, 9), 2, 3)
    samples, positions, _ = make_spokes(4, 3, 12, 2)
    positions[3] = 0
    with pytest.raises(InputError, match="a spoke has no length"):
        equations.add(samples, positions, torch.tensor([0, 0, 1, 1]))
    assert all(float(getattr(equations, name).abs().sum()) == 0 for name in SUMS)


@pytest.mark.parametrize(("matrix", "n_frames", "n_coils"), [((0, 4), 1, 1), ((4, 4), 0, 1), ((4, 4), 1, 0)])
def test_sizes_are_positive(matrix: tuple[int, int], n_frames: int, n_coils: int) -> None:
    with pytest.raises(InputError, match="positive sizes"):
        NormalEquations(matrix, n_frames, n_coils)


def test_an_unknown_density_is_refused() -> None:
    with pytest.raises(UsageError, match="ramp or none"):
        NormalEquations((4, 4), 1, 1, density="hann")  # type: ignore[arg-type]


def test_gridding_needs_density_weights_and_spokes(make_spokes: Any) -> None:
    plain = NormalEquations((8, 9), 2, 3, density="none")
    for call in (plain.gridded, plain.time_average):
        with pytest.raises(UsageError, match="density='ramp'"):
            call()
    with pytest.raises(InputError, match="no spokes have been added"):
        NormalEquations((8, 9), 2, 3).time_average()


def test_sums_less_a_part_are_the_sums_of_the_rest(make_spokes: Any) -> None:
    spokes = make_spokes(40, 2, 24, 3)
    mine = torch.arange(40) % 4 == 1
    mine |= spokes[2] == 2  # all of a frame
    everything, part_of_it, rest = (NormalEquations((12, 10), 3, 2) for _ in range(3))
    everything.add(*spokes)
    part_of_it.add(*part(spokes, mine))
    rest.add(*part(spokes, ~mine))
    before = state(everything)
    found = everything.less(part_of_it)
    same(state(found), state(rest), 1e-5, before)
    assert float(found.adjoint[2].abs().max()) == 0
    same(state(everything), before, 0, before)
    with pytest.raises(ShapeError, match="the part"):
        everything.less(NormalEquations((12, 10), 2, 2))
    with pytest.raises(UsageError, match="'none'"):
        everything.less(NormalEquations((12, 10), 3, 2, density="none"))
