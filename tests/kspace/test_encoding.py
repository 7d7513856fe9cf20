from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.encoding import Encoding, NormalForm, image_norm, pad_frames
from kspace.errors import InputError, ShapeError, UsageError
from kspace.nufft import exact_adjoint, exact_transform
from kspace.trajectory import golden_angles, radial_positions, ramp_weights

FORMS: tuple[NormalForm, ...] = get_args(NormalForm)


@pytest.mark.parametrize(
    ("accuracy", "forward", "adjoint"), [("fast", 2e-3, 2e-3), ("standard", 3e-5, 1e-4), ("reference", 2e-7, 2e-7)]
)
def test_transforms_are_exact_and_adjoint_at_the_real_size(
    accuracy: Any, forward: float, adjoint: float, real_size: Any, check: Any
) -> None:
    encoding = Encoding(real_size.positions, real_size.maps, accuracy=accuracy)
    check.close(encoding.forward(real_size.images), real_size.exact_forward, forward)
    combined = (real_size.exact_coil_adjoint * real_size.maps.conj()).sum(1)
    check.close(encoding.adjoint(real_size.samples), combined, adjoint)
    check.adjoint(encoding.forward, encoding.adjoint, real_size.images, real_size.samples)


@pytest.mark.parametrize("weighted", [False, True])
def test_both_normal_operators_are_the_adjoint_of_the_forward_at_the_real_size(
    weighted: bool, real_size: Any, check: Any
) -> None:
    weights = ramp_weights(real_size.positions) * 192**2 if weighted else None
    encoding = Encoding(real_size.positions, real_size.maps, weights=weights)
    samples = real_size.exact_forward if weights is None else real_size.exact_forward * weights[:, None]
    exact = torch.stack(
        [
            (exact_adjoint(s.reshape(8, -1), p.reshape(-1, 2), (192, 192)) * real_size.maps.conj()).sum(0)
            for s, p in zip(samples, real_size.positions, strict=True)
        ]
    )
    for form in FORMS:
        check.close(encoding.normal(real_size.images, form), exact, 1e-4)
        check.adjoint(
            lambda x, form=form: encoding.normal(x, form),
            lambda x, form=form: encoding.normal(x, form),
            real_size.images,
            real_size.samples[:, 0, :, :].new_ones(real_size.images.shape),
            1e-5 if form == "toeplitz" else 1e-6,
        )


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_operators_at_any_shape(data: st.DataObject, make_noise: Any, make_maps: Any, check: Any) -> None:
    rows, columns = data.draw(st.integers(2, 15)), data.draw(st.integers(2, 15))
    n_frames, n_coils = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    n_spokes, n_readout = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 20))
    counts = torch.tensor(data.draw(st.lists(st.integers(0, n_spokes), min_size=n_frames, max_size=n_frames)))
    batch = data.draw(st.sampled_from([(), (2,), (1, 2)]))
    dtype = data.draw(st.sampled_from([torch.complex64, torch.complex128]))
    zero_weights = data.draw(st.booleans())

    positions = radial_positions(golden_angles(n_frames * n_spokes).reshape(n_frames, n_spokes), n_readout)
    maps = make_maps(n_coils, rows, columns, dtype=dtype)
    weights = make_noise(n_frames, n_spokes, n_readout, dtype=maps.real.dtype).abs()
    if zero_weights:
        weights[:, ::2] = 0
    encoding = Encoding(positions, maps, spokes_per_frame=counts, weights=weights)
    x = make_noise(*batch, n_frames, rows, columns, dtype=dtype)
    s = make_noise(*batch, *encoding.sample_shape, seed=1, dtype=dtype)
    real = torch.arange(n_spokes) < counts[:, None]

    exact = torch.zeros(*batch, *encoding.sample_shape, dtype=torch.complex128)
    back, normal = torch.zeros(x.shape, dtype=torch.complex128), torch.zeros(x.shape, dtype=torch.complex128)
    for f in range(n_frames):
        n, points = int(counts[f]), positions[f, : int(counts[f])].reshape(-1, 2)
        values = exact_transform(x[..., f, None, :, :] * maps, points)
        exact[..., f, :, :n, :] = values.reshape(*batch, n_coils, n, n_readout)
        mine = s[..., f, :, :n, :].reshape(*batch, n_coils, n * n_readout)
        back[..., f, :, :] = (exact_adjoint(mine, points, (rows, columns)) * maps.conj()).sum(-3)
        heavy = values * weights[f, :n].reshape(-1)
        normal[..., f, :, :] = (exact_adjoint(heavy, points, (rows, columns)) * maps.conj()).sum(-3)

    # As in the tests of the transform: |F| and not |F x|, which may cancel, is what an error is measured by.
    n_samples = n_spokes * n_readout
    size = max(1.0, n_samples / (rows * columns)) ** 0.5
    got = encoding.forward(x)
    assert got.shape == exact.shape
    assert got.dtype == dtype
    assert image_norm(got - exact) <= 2e-4 * size * image_norm(x)
    padding = ~real[:, None, :, None].expand(encoding.sample_shape)
    assert float((got.abs() * padding).sum()) == 0
    assert image_norm(encoding.adjoint(s) - back) <= 2e-4 * size * image_norm(s)
    for form in FORMS:
        bound = 4e-4 * size**2 * float(weights.max()) * image_norm(x)
        assert image_norm(encoding.normal(x, form) - normal) <= max(bound, 1e-30)
    check.adjoint(encoding.forward, encoding.adjoint, x, s * real[:, None, :, None], 1e-6)


def test_padding_is_not_read(make_noise: Any, make_maps: Any) -> None:
    positions = radial_positions(golden_angles(6).reshape(2, 3), 16)
    counts = torch.tensor([3, 1])
    maps, s = make_maps(2, 8, 9), make_noise(2, 2, 3, 16)
    clean = Encoding(positions, maps, spokes_per_frame=counts)
    spoilt_positions, spoilt = positions.clone(), s.clone()
    spoilt_positions[1, 1:] = torch.nan
    spoilt[1, :, 1:] = torch.nan
    encoding = Encoding(spoilt_positions, maps, spokes_per_frame=counts)
    torch.testing.assert_close(encoding.adjoint(spoilt), clean.adjoint(s), rtol=0, atol=0)
    x = make_noise(2, 8, 9)
    for form in FORMS:
        torch.testing.assert_close(encoding.normal(x, form), clean.normal(x, form), rtol=0, atol=0)


def test_lazily_conjugated_images_and_maps_are_understood(make_noise: Any, make_maps: Any) -> None:
    positions = radial_positions(golden_angles(6).reshape(2, 3), 16)
    maps, x, s = make_maps(2, 8, 9), make_noise(2, 8, 9), make_noise(2, 2, 3, 16)
    lazy, plain = Encoding(positions, maps.conj()), Encoding(positions, maps.conj().resolve_conj())
    torch.testing.assert_close(lazy.forward(x.conj()), plain.forward(x.conj().resolve_conj()))
    torch.testing.assert_close(lazy.adjoint(s.conj()), plain.adjoint(s.conj().resolve_conj()))


# Gradients


def test_gradients_are_the_adjoint_at_the_real_size(real_size: Any, check: Any) -> None:
    encoding = Encoding(real_size.positions, real_size.maps, weights=ramp_weights(real_size.positions) * 192**2)
    check.gradient(encoding.forward, encoding.adjoint, real_size.images, real_size.samples)
    check.gradient(encoding.adjoint, encoding.forward, real_size.samples, real_size.images)
    check.gradient(encoding.normal, encoding.normal, real_size.images, real_size.images.flip(-1))


def test_gradient_with_respect_to_maps_is_the_adjoint(small: Any, make_noise: Any, make_maps: Any, check: Any) -> None:
    n_frames = small.positions.shape[0]
    maps = make_maps(2, *small.matrix, dtype=torch.complex128).requires_grad_()
    encoding = Encoding(small.positions, maps, accuracy="reference")
    x = make_noise(n_frames, *small.matrix, dtype=torch.complex128)
    target = make_noise(*encoding.sample_shape, dtype=torch.complex128)
    residual = encoding.forward(x) - target
    (0.5 * residual.abs().square().sum()).backward()  # type: ignore[no-untyped-call]
    expected = torch.zeros_like(maps)
    for f in range(n_frames):
        flat = residual.detach()[f].reshape(2, -1)
        expected = expected + x[f].conj() * exact_adjoint(flat, small.positions[f].reshape(-1, 2), small.matrix)
    check.close(maps.grad, expected, 1e-7)


@pytest.mark.parametrize("what", ["forward", "adjoint", "toeplitz", "gridded"])
def test_gradcheck_to_second_order(what: str, make_noise: Any, make_maps: Any) -> None:
    positions = radial_positions(golden_angles(4).reshape(2, 2), 4)
    maps = make_maps(2, 3, 2, dtype=torch.complex128)
    weights = make_noise(2, 2, 4, dtype=torch.float64).abs()
    encoding = Encoding(positions, maps, weights=weights, spokes_per_frame=torch.tensor([2, 1]), accuracy="reference")
    shape = encoding.sample_shape if what == "adjoint" else (2, 3, 2)
    values = make_noise(*shape, dtype=torch.complex128).requires_grad_()

    def run(values: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        encoding.maps = maps
        if what in FORMS:
            return encoding.normal(values, what)  # type: ignore[arg-type]
        return encoding.forward(values) if what == "forward" else encoding.adjoint(values)

    inputs = (values, maps.clone().requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_recorded_and_quick_paths_agree_and_no_grad_is_kept(make_noise: Any, make_maps: Any, check: Any) -> None:
    positions = radial_positions(golden_angles(12).reshape(3, 4), 20)
    encoding = Encoding(positions, make_maps(2, 10, 11).requires_grad_())
    x, s = make_noise(2, 3, 10, 11).requires_grad_(), make_noise(2, *encoding.sample_shape).requires_grad_()
    for operator, value in ((encoding.forward, x), (encoding.adjoint, s), (encoding.normal, x)):
        recorded = operator(value)
        with torch.no_grad():
            quick = operator(value)
        assert recorded.requires_grad
        assert not quick.requires_grad
        check.close(recorded, quick, 1e-6)


# The rest


def test_the_spectrum_is_made_once(make_noise: Any, make_maps: Any) -> None:
    encoding = Encoding(radial_positions(golden_angles(4).reshape(2, 2), 8), make_maps(1, 5, 6))
    first = encoding.spectrum
    encoding.normal(make_noise(2, 5, 6))
    assert encoding.spectrum is first


@given(frame=st.lists(st.integers(0, 4), max_size=20))
def test_a_stream_is_sorted_into_frames_in_its_own_order(frame: list[int]) -> None:
    index = torch.tensor(frame, dtype=torch.int64)
    n = len(frame)
    samples = torch.arange(1.0, n + 1)[:, None, None].expand(n, 2, 3)
    padded, counts = pad_frames(samples, index, 5, axis_order="samples")
    positions, same = pad_frames(samples.transpose(1, 2), index, 5, axis_order="positions")
    assert counts.tolist() == same.tolist() == [frame.count(f) for f in range(5)]
    assert padded.shape == (5, 2, max(counts.tolist()), 3)
    assert positions.shape == (5, max(counts.tolist()), 3, 2)
    for f in range(5):
        expected = [i + 1.0 for i in range(n) if frame[i] == f]
        assert padded[f, 1, : len(expected), 2].tolist() == expected
        assert positions[f, : len(expected), 2, 1].tolist() == expected
        assert float(padded[f, :, len(expected) :].sum()) == 0


def test_image_norm_is_the_l2_norm_of_everything() -> None:
    assert image_norm(torch.full((2, 2, 3), 1 + 1j)) == pytest.approx(24**0.5)


def test_what_does_not_fit_is_named(make_maps: Any) -> None:
    positions, maps = torch.zeros(2, 3, 4, 2), make_maps(2, 6, 5)
    encoding = Encoding(positions, maps)
    with pytest.raises(ShapeError, match="positions has shape"):
        Encoding(positions[0], maps)
    with pytest.raises(ShapeError, match="maps has shape"):
        Encoding(positions, maps.real)
    with pytest.raises(ShapeError, match="spokes_per_frame"):
        Encoding(positions, maps, spokes_per_frame=torch.tensor([3, 4]))
    with pytest.raises(ShapeError, match="weights has shape"):
        Encoding(positions, maps, weights=torch.ones(2, 3))
    with pytest.raises(InputError, match="maps lie on meta"):
        Encoding(positions, maps.to("meta"))
    with pytest.raises(ShapeError, match="images has shape"):
        encoding.forward(torch.zeros(3, 6, 5, dtype=torch.complex64))
    with pytest.raises(ShapeError, match="images has shape"):
        encoding.normal(torch.zeros(2, 6, 5))
    with pytest.raises(ShapeError, match="samples has shape"):
        encoding.adjoint(torch.zeros(2, 2, 3, 5, dtype=torch.complex64))
    with pytest.raises(UsageError, match="toeplitz or gridded"):
        encoding.normal(torch.zeros(2, 6, 5, dtype=torch.complex64), "fft")  # type: ignore[arg-type]
