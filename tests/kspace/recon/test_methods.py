from __future__ import annotations

import inspect
import math
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch

from kspace.equations import NormalEquations
from kspace.errors import ShapeError, UsageError
from kspace.recon.cg_sense import CgSense
from kspace.recon.gridding import Gridding
from kspace.recon.locally_low_rank import LocallyLowRank
from kspace.recon.low_rank_sparse import LowRankSparse
from kspace.recon.method import Method, Reconstruction, Status
from kspace.recon.methods import METHODS, make_method
from kspace.recon.proximal import Scaled
from kspace.recon.temporal_tv import TemporalTV

ALL = list(METHODS)
all_methods = pytest.mark.parametrize("name", ALL)
ITERATIVE: list[Any] = [CgSense(), TemporalTV(), LowRankSparse(), LocallyLowRank()]
iterative_methods = pytest.mark.parametrize("method", ITERATIVE, ids=lambda method: method.name)


@all_methods
def test_all_methods_share_one_signature(name: str) -> None:
    method = make_method(name)
    assert method.name == name
    assert method.density == "ramp"
    assert inspect.signature(type(method).__call__) == inspect.signature(Method.__call__)
    with pytest.raises(FrozenInstanceError):
        method.name = "other"  # type: ignore[misc]


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'grasp'; expected gridding, cg-sense, cs"):
        make_method("grasp")


@all_methods
@pytest.mark.parametrize(
    "sizes",
    [
        {"n_frames": 1},
        {"n_frames": 2},
        {"n_coils": 1},
        {"spokes_per_frame": 1},
        {"n_frames": 1, "n_coils": 1, "spokes_per_frame": 1},
        {"matrix": (13, 11)},
        {"matrix": (4, 5)},
    ],
    ids=str,
)
def test_the_smallest_scans_and_odd_grids_work(name: str, sizes: dict[str, Any], make_case: Any) -> None:
    case = make_case(**sizes, noise_std=0.01)
    got = make_method(name)(case.equations(), case.maps, noise_std=0.01)
    assert isinstance(got, Reconstruction)
    assert got.image.shape == case.images.shape
    assert got.image.dtype == torch.complex64
    assert bool(torch.isfinite(got.image.abs()).all())
    assert 0 < float(torch.linalg.vector_norm(got.image)) < 5 * float(torch.linalg.vector_norm(case.images))
    again = make_method(name)(case.equations(), case.maps, noise_std=0.01, start=got)
    assert bool(torch.isfinite(again.image.abs()).all())


@all_methods
def test_a_well_sampled_heart_is_seen(name: str, make_case: Any, check: Any) -> None:
    case = make_case(n_frames=4, matrix=(32, 30), n_coils=4, spokes_per_frame=40, noise_std=0.02)
    got = make_method(name)(case.equations(), case.maps, noise_std=0.02)
    assert check.relative_error(got.image, case.images) < 0.25


@all_methods
def test_frames_without_spokes_stay_finite(name: str, make_case: Any) -> None:
    case = make_case(n_frames=4, noise_std=0.02)
    method, equations = make_method(name), case.equations()
    full = method(equations, case.maps, noise_std=0.02)
    mine = case.frame == 2
    equations.remove(case.samples[mine].to(torch.complex64), case.positions[mine], case.frame[mine])
    got = method(equations, case.maps, noise_std=0.02)
    warm = method(equations, case.maps, noise_std=0.02, start=full)
    limit = 2 * float(case.images.abs().max())
    assert float(got.image.abs().max()) < limit
    assert float(warm.image.abs().max()) < limit
    if name == "cs":
        between = (got.image[1].abs() + got.image[3].abs()) / 2
        assert float((got.image[2].abs() - between).abs().max()) < 0.5 * limit
    elif name in ("gridding", "cg-sense"):
        assert float(got.image[2].abs().sum()) == 0


@all_methods
@pytest.mark.parametrize("noise_std", [None, 1.0])
@pytest.mark.parametrize("what", [{"n_spokes": 0}, {"scale": 0}], ids=["no spokes", "no signal"])
def test_nothing_measured_gives_nothing(
    name: str, what: dict[str, Any], noise_std: float | None, make_case: Any
) -> None:
    case = make_case()
    method, equations = make_method(name), case.equations(**what)
    got = method(equations, case.maps, noise_std=noise_std)
    assert got.image.shape == case.images.shape
    assert float(got.image.abs().sum()) == 0
    earlier = method(case.equations(), case.maps, noise_std=noise_std)
    after = method(equations, case.maps, noise_std=noise_std, start=earlier)
    assert bool(torch.isfinite(after.image.abs()).all())
    assert math.isfinite(after.change)


@all_methods
def test_time_is_a_circle(name: str, make_case: Any, check: Any) -> None:
    case = make_case(n_frames=5, noise_std=0.05)
    method = make_method(name)
    straight = method(case.equations(), case.maps, noise_std=0.05)
    for shift in (1, 3):
        turned = method(case.equations(shift=shift), case.maps, noise_std=0.05)
        check.close(turned.image, torch.roll(straight.image, shift, 0), 1e-4)
        assert turned.iterations == straight.iterations


@all_methods
@pytest.mark.parametrize("scale", [1j, 0.6 - 0.8j, 1e-4, 3e5 + 4e5j], ids=str)
def test_phase_and_scale_of_the_data_are_those_of_the_image(
    name: str, scale: complex, make_case: Any, check: Any
) -> None:
    case = make_case(n_frames=4, noise_std=0.05)
    method = make_method(name)
    plain = method(case.equations(), case.maps, noise_std=0.05)
    scaled = method(case.equations(scale=scale), case.maps, noise_std=0.05 * abs(scale))
    check.close(scaled.image, scale * plain.image, 1e-4)


@all_methods
def test_the_phase_of_the_maps_is_that_of_the_image(name: str, make_case: Any, check: Any) -> None:
    case = make_case(n_frames=4, noise_std=0.05)
    method = make_method(name)
    plain = method(case.equations(), case.maps, noise_std=0.05)
    turned = method(case.equations(), case.maps * 1j, noise_std=0.05)
    check.close(turned.image * 1j, plain.image, 1e-4)


@all_methods
def test_double_precision_is_kept_and_agrees(name: str, make_case: Any, check: Any) -> None:
    case = make_case(noise_std=0.05)
    method = make_method(name)
    single = method(case.equations(), case.maps, noise_std=0.05)
    double = method(case.equations(dtype=torch.complex128), case.maps.to(torch.complex128), noise_std=0.05)
    assert double.image.dtype == torch.complex128
    check.close(single.image, double.image, 1e-3)


@all_methods
def test_equations_and_maps_are_only_read(name: str, make_case: Any) -> None:
    case = make_case(noise_std=0.05)
    equations, untouched, maps = case.equations(), case.equations(), case.maps.clone()
    make_method(name)(equations, case.maps, noise_std=0.05)
    assert torch.equal(equations.adjoint, untouched.adjoint)
    assert torch.equal(equations.spectrum, untouched.spectrum)
    assert torch.equal(case.maps, maps)


@all_methods
def test_maps_that_do_not_fit_are_named(name: str, make_case: Any) -> None:
    case = make_case()
    for maps in (case.maps[:2], case.maps[..., :-1], case.maps[0]):
        with pytest.raises(ShapeError, match="maps has shape"):
            make_method(name)(case.equations(), maps)


@iterative_methods
def test_a_start_that_does_not_fit_is_named(method: Method, make_case: Any) -> None:
    case = make_case()
    start = Reconstruction(torch.zeros(2, *case.matrix, dtype=torch.complex64))
    with pytest.raises(ShapeError, match=r"shape \(2, 16, 14\).* 3 frames"):
        method(case.equations(), case.maps, start=start)


@iterative_methods
def test_other_weights_of_the_data_are_understood(method: Any, make_case: Any, check: Any) -> None:
    case = make_case(spokes_per_frame=30, noise_std=0.01)
    plain = replace(method, density="none", max_iterations=100)
    got = plain(case.equations(density="none"), case.maps, noise_std=0.01)
    assert check.relative_error(got.image, case.images) < 0.25


def test_gridding_is_the_default_scale_of_all_others(make_case: Any) -> None:
    case = make_case(matrix=(32, 30), n_coils=4, spokes_per_frame=60)
    equations: NormalEquations = case.equations()
    levels = [float(make_method(name)(equations, case.maps).image.abs().mean()) for name in ALL]
    assert max(levels) < 1.15 * min(levels)
    assert isinstance(make_method("gridding"), Gridding)


@iterative_methods
def test_the_listener_hears_every_iteration_and_can_stop(method: Any, make_case: Any) -> None:
    case = make_case(noise_std=0.05)
    heard: list[Status] = []

    def stop_at_three(status: Status) -> bool:
        heard.append(status)
        return status.iteration == 3

    endless = replace(method, tolerance=0.0, noise_share=0.0)
    got = endless(case.equations(), case.maps, on_iteration=stop_at_three)
    assert got.iterations == 3
    assert [status.iteration for status in heard] == [1, 2, 3]
    assert {status.n_iterations for status in heard} == {method.max_iterations}
    assert heard[-1].change == got.change


@pytest.mark.parametrize("method", [LowRankSparse(), LocallyLowRank()], ids=lambda method: method.name)
def test_noise_alone_gives_finite_images_smaller_than_the_noise(method: Method, make_case: Any) -> None:
    case = make_case(n_frames=4)
    noise = case.equations(scale=1e-12)
    generator = torch.Generator().manual_seed(5)
    samples = torch.randn(*case.samples.shape, 2, generator=generator)
    noise.add(torch.view_as_complex(samples), case.positions, case.frame)
    gridded = Scaled(noise, case.maps, None).b
    got = method(noise, case.maps, noise_std=math.sqrt(2))
    assert bool(torch.isfinite(got.image.abs()).all())
    assert float(torch.linalg.vector_norm(got.image)) < float(torch.linalg.vector_norm(gridded))
