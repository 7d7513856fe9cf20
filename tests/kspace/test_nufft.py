from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.errors import InputError, ShapeError, UsageError
from kspace.formats.cfl import bart_trajectory, read_cfl, write_cfl
from kspace.nufft import ACCURACIES, Accuracy, AccuracyName, Nufft, as_numpy, exact_adjoint, exact_transform
from kspace.trajectory import golden_angles, radial_positions

# The bounds behind the table in kspace/nufft.py: forward and adjoint, with a margin for other machines.
BOUNDS: dict[AccuracyName, tuple[float, float]] = {
    "fast": (2e-3, 2e-3),
    "standard": (3e-5, 1e-4),
    "reference": (1e-7, 1e-7),  # the values themselves are complex64
}


# torchkbnufft is imported where it is first used, and its import uses what torch 2.11 deprecates.
with_table = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


# At the size of a real scan


@pytest.mark.parametrize("accuracy", list(ACCURACIES))
def test_presets_keep_their_errors_at_the_real_size(accuracy: AccuracyName, real_size: Any, check: Any) -> None:
    plan = Nufft(real_size.positions[0].reshape(-1, 2), (192, 192), n_transforms=8, accuracy=accuracy)
    forward, adjoint = BOUNDS[accuracy]
    coil_images, samples = real_size.coil_images[0], real_size.samples[0].reshape(8, -1)
    check.close(plan.forward(coil_images), real_size.exact_forward[0].reshape(8, -1), forward)
    check.close(plan.adjoint(samples), real_size.exact_coil_adjoint[0], adjoint)
    check.adjoint(plan.forward, plan.adjoint, coil_images, samples)


@with_table
def test_torchkbnufft_has_the_accuracy_of_its_table(real_size: Any, check: Any) -> None:
    plan = Nufft(real_size.positions[0].reshape(-1, 2), (192, 192), n_transforms=8, engine="torchkbnufft")
    check.close(plan.forward(real_size.coil_images[0]), real_size.exact_forward[0].reshape(8, -1), 1e-4)
    check.close(plan.adjoint(real_size.samples[0].reshape(8, -1)), real_size.exact_coil_adjoint[0], 1e-4)


# At any size


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 24),
    columns=st.integers(1, 24),
    n_samples=st.integers(0, 40),
    n_transforms=st.integers(1, 4),
    double=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_transform_is_the_direct_sum_at_any_size(
    rows: int, columns: int, n_samples: int, n_transforms: int, double: bool, seed: int, make_noise: Any, check: Any
) -> None:
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(n_samples, 2, generator=generator, dtype=torch.float64) - 0.5
    dtype = torch.complex128 if double else torch.complex64
    plan = Nufft(positions, (rows, columns), n_transforms=n_transforms, dtype=dtype)
    x = make_noise(n_transforms, rows, columns, seed=seed, dtype=dtype)
    s = make_noise(n_transforms, n_samples, seed=seed + 1, dtype=dtype)
    # A sum of few random terms may cancel to nothing; the size of its terms, |x| |F|, does not.
    norm = math.sqrt(n_samples / min(rows * columns, max(n_samples, 1)))
    error = torch.linalg.vector_norm(plan.forward(x) - exact_transform(x, positions))
    assert float(error) <= 1e-4 * norm * float(torch.linalg.vector_norm(x))
    error = torch.linalg.vector_norm(plan.adjoint(s) - exact_adjoint(s, positions, (rows, columns)))
    assert float(error) <= 1e-4 * norm * float(torch.linalg.vector_norm(s))
    assert plan.forward(x).dtype == plan.adjoint(s).dtype == dtype


def test_double_precision_with_the_reference_preset_reaches_its_tolerance(
    small: Any, make_noise: Any, check: Any
) -> None:
    positions = small.positions[0].reshape(-1, 2)
    plan = Nufft(positions, small.matrix, n_transforms=2, accuracy="reference", dtype=torch.complex128)
    x = make_noise(2, *small.matrix, dtype=torch.complex128)
    s = make_noise(2, positions.shape[0], dtype=torch.complex128)
    check.close(plan.forward(x), exact_transform(x, positions), 1e-8)
    check.close(plan.adjoint(s), exact_adjoint(s, positions, small.matrix), 1e-8)
    check.adjoint(plan.forward, plan.adjoint, x, s, 1e-12)


@with_table
def test_all_engines_agree(small: Any, make_noise: Any, check: Any) -> None:
    positions = small.positions[-1].reshape(-1, 2)
    x, s = make_noise(3, *small.matrix), make_noise(3, positions.shape[0])
    ours = Nufft(positions, small.matrix, n_transforms=3, engine="finufft")
    table = Nufft(positions, small.matrix, n_transforms=3, engine="torchkbnufft")
    check.close(table.forward(x), ours.forward(x), 3e-4)
    check.close(table.adjoint(s), ours.adjoint(s), 3e-4)
    check.adjoint(table.forward, table.adjoint, x, s)


def test_exact_adjoint_is_the_adjoint_of_the_exact_transform(small: Any, make_noise: Any, check: Any) -> None:
    positions = small.positions[0].reshape(-1, 2)
    check.adjoint(
        lambda x: exact_transform(x, positions),
        lambda s: exact_adjoint(s, positions, small.matrix),
        make_noise(2, *small.matrix),
        make_noise(2, positions.shape[0]),
        1e-13,
    )


def test_sign_origin_and_scale_are_as_documented() -> None:
    # One pixel at row 3 of 6 and column 5 of 8 lies at r = (0, 1).
    x = torch.zeros(1, 6, 8, dtype=torch.complex64)
    x[0, 3, 5] = 1
    value = Nufft(torch.tensor([[0.3, 0.1]]), (6, 8)).forward(x)[0, 0]
    expected = np.exp(-2j * np.pi * 0.1) / math.sqrt(48)
    assert complex(value) == pytest.approx(expected, abs=1e-5)


# In agreement with others


def test_agrees_with_sigpy(make_noise: Any, check: Any) -> None:
    import sigpy

    matrix = (48, 40)
    positions = radial_positions(golden_angles(11), 96)
    x, s = make_noise(2, *matrix), make_noise(2, 11, 96)
    coordinates = positions.numpy() * np.array(matrix)
    plan = Nufft(positions.reshape(-1, 2), matrix, n_transforms=2)
    theirs = sigpy.nufft(x.numpy(), coordinates, oversamp=2.0, width=6)
    check.close(plan.forward(x).reshape(2, 11, 96), torch.from_numpy(theirs), 1e-4)
    theirs = sigpy.nufft_adjoint(s.numpy(), coordinates, oshape=(2, *matrix), oversamp=2.0, width=6)
    check.close(plan.adjoint(s.reshape(2, -1)), torch.from_numpy(theirs), 1e-4)


@with_table
def test_agrees_with_torchkbnufft(make_noise: Any, check: Any) -> None:
    import torchkbnufft

    matrix = (48, 40)
    positions = radial_positions(golden_angles(11), 96).reshape(-1, 2)
    x, s = make_noise(2, *matrix), make_noise(2, 11 * 96)
    omega = (2 * math.pi * positions.T).contiguous()
    plan = Nufft(positions, matrix, n_transforms=2)
    scale = 1 / math.sqrt(48 * 40)
    check.close(plan.forward(x), torchkbnufft.KbNufft(matrix)(x[None], omega)[0] * scale, 2e-3)
    check.close(plan.adjoint(s), torchkbnufft.KbNufftAdjoint(matrix)(s[None], omega)[0] * scale, 2e-3)


def test_agrees_with_bart_on_even_grids(tmp_path: Path, make_noise: Any, check: Any) -> None:
    if shutil.which("bart") is None:
        pytest.skip("bart is not installed")
    matrix = (48, 40)
    positions = radial_positions(golden_angles(11), 96)
    # BART does not wrap its kernel around the edge of the band; we compare inside it.
    inside = torch.linalg.vector_norm(positions, dim=-1) < 0.46
    x, s = make_noise(1, *matrix), make_noise(11, 96) * inside
    write_cfl(tmp_path / "trajectory", bart_trajectory(positions, matrix))
    write_cfl(tmp_path / "image", x[0].T)
    write_cfl(tmp_path / "samples", s.T[None])
    for command in (["trajectory", "image", "k"], ["-a", "-d", "40:48:1", "trajectory", "samples", "back"]):
        subprocess.run(["bart", "nufft", *command], cwd=tmp_path, check=True, capture_output=True)
    plan = Nufft(positions.reshape(-1, 2), matrix)
    theirs = torch.from_numpy(read_cfl(tmp_path / "k").reshape(96, 11).T.copy())
    ours = plan.forward(x).reshape(11, 96)
    # BART's own kernel is 0.13 % too large.
    check.close(ours[inside] * 1.0013, theirs[inside], 5e-4)
    theirs = torch.from_numpy(read_cfl(tmp_path / "back").reshape(40, 48).T.copy())
    check.close(plan.adjoint(s.reshape(1, -1))[0] * 1.0013, theirs, 5e-4)


# Use


def test_a_plan_writes_where_it_is_told(make_noise: Any) -> None:
    positions = radial_positions(golden_angles(3), 16).reshape(-1, 2)
    x = make_noise(2, 8, 9)
    for accuracy in ("standard", "reference"):
        plan = Nufft(positions, (8, 9), n_transforms=2, accuracy=accuracy)  # type: ignore[arg-type]
        out = torch.empty(2, 48, dtype=torch.complex64)
        assert plan.forward(x, out=out) is out
        torch.testing.assert_close(out, plan.forward(x))
        scattered = torch.empty(48, 2, dtype=torch.complex64).T
        assert plan.forward(x, out=scattered) is scattered
        torch.testing.assert_close(scattered, plan.forward(x))


def test_lazily_conjugated_and_strided_images_are_understood(make_noise: Any) -> None:
    plan = Nufft(radial_positions(golden_angles(3), 16).reshape(-1, 2), (8, 9))
    x = make_noise(1, 9, 8).transpose(1, 2)
    torch.testing.assert_close(plan.forward(x.conj()), plan.forward(x.conj().resolve_conj().contiguous()))
    np.testing.assert_allclose(as_numpy(x.conj()), x.numpy().conj())


def test_no_samples_transform_to_nothing_and_back_to_zero() -> None:
    plan = Nufft(torch.zeros(0, 2), (4, 5), n_transforms=3)
    assert plan.forward(torch.ones(3, 4, 5, dtype=torch.complex64)).shape == (3, 0)
    assert float(plan.adjoint(torch.zeros(3, 0, dtype=torch.complex64)).abs().sum()) == 0


def test_an_accuracy_of_ones_own_is_taken() -> None:
    plan = Nufft(torch.zeros(1, 2), (4, 4), accuracy=Accuracy(1e-5, 2.0))
    assert float(plan.forward(torch.ones(1, 4, 4, dtype=torch.complex64)).real) == pytest.approx(4, abs=1e-4)


def test_what_does_not_fit_is_named() -> None:
    points = torch.zeros(3, 2)
    with pytest.raises(ShapeError, match="positions has shape"):
        Nufft(torch.zeros(3, 3), (4, 4))
    with pytest.raises(InputError, match="complex64 or complex128"):
        Nufft(points, (4, 4), dtype=torch.float32)
    with pytest.raises(InputError, match="positive sizes"):
        Nufft(points, (0, 4))
    with pytest.raises(ShapeError, match="transform's input"):
        Nufft(points, (4, 4)).forward(torch.zeros(4, 4, dtype=torch.complex64))
    with pytest.raises(UsageError, match="cufinufft cannot run on cpu"):
        Nufft(points, (4, 4), engine="cufinufft")
    with pytest.raises(UsageError, match="unknown engine"):
        Nufft(points, (4, 4), engine="fft")  # type: ignore[arg-type]
