from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kspace.equations import NormalEquations
from kspace.errors import ShapeError, UsageError
from kspace.recon.cg_sense import CgSense
from kspace.recon.gridding import Gridding
from kspace.recon.locally_low_rank import LocallyLowRank
from kspace.recon.method import Reconstruction
from kspace.recon.uncertainty import deal, jackknife, sums_by_group


def groups_of(case: Any, equations: NormalEquations, n_groups: int = 4) -> list[NormalEquations]:
    samples = case.samples.to(equations.adjoint.dtype)
    return sums_by_group(equations, samples, case.positions, case.frame, n_groups)


def test_every_frame_gives_to_every_group_in_turn() -> None:
    frame = torch.tensor([2, 0, 0, 2, 2, 0, 0, 2, 2, 0])
    assert deal(frame, 2).tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
    generator = torch.Generator().manual_seed(0)
    frame = torch.randint(7, (300,), generator=generator)
    group = deal(frame, 4)
    for number in range(7):
        counts = torch.bincount(group[frame == number], minlength=4)
        assert int(counts.max() - counts.min()) <= 1
    with pytest.raises(UsageError, match="1 groups"):
        deal(frame, 1)


def test_of_a_linear_method_it_is_the_formula(make_case: Any, check: Any) -> None:
    case = make_case(spokes_per_frame=8, noise_std=0.05)
    equations = case.equations(dtype=torch.complex128)
    maps = case.maps.to(torch.complex128)
    found = jackknife(Gridding(), equations, groups_of(case, equations), maps, about=1)
    group = deal(case.frame, 4)
    assert len(found.without) == 4
    for number, image in enumerate(found.without):
        rest = case.equations(dtype=torch.complex128).like(3)
        kept = group != number
        rest.add(case.samples[kept], case.positions[kept], case.frame[kept])
        check.close(image, Gridding()(rest, maps).image, 1e-8)
    full = Gridding()(equations, maps).image.abs()
    squares = torch.stack([(image.abs() - full).square() for image in found.without])
    check.close(found.std, (3 / 4 * squares.sum(0)).sqrt(), 1e-10)
    wide = jackknife(Gridding(), equations, groups_of(case, equations), maps, about=3).std
    check.close(wide[1, 4, 7].square(), found.std[1, 3:6, 6:9].square().mean(), 1e-10)
    check.close(wide[2, 0, 0].square(), found.std[2, :2, :2].square().mean(), 1e-10)


def test_it_is_as_large_as_the_noise_makes_the_error(make_case: Any, make_noise: Any) -> None:
    # Well sampled, so that the error is noise alone, whose size the jackknife should tell over many pixels.
    case = make_case(n_frames=4, matrix=(24, 24), n_coils=3, spokes_per_frame=64)
    clean = CgSense()(case.equations(), case.maps).image.abs()
    sigma = 0.4
    noisy = case.samples + sigma * make_noise(*case.samples.shape, dtype=torch.complex128)
    equations = case.equations().like(4)
    equations.add(noisy.to(torch.complex64), case.positions, case.frame)
    sums = sums_by_group(equations, noisy.to(torch.complex64), case.positions, case.frame, 8)
    full = CgSense()(equations, case.maps)
    found = jackknife(CgSense(), equations, sums, case.maps)
    bright = clean > 0.3 * clean.max()
    error = (full.image.abs() - clean)[bright].square().mean().sqrt()
    assert 0.75 < float(found.std[bright].square().mean().sqrt() / error) < 1.35


def spearman(a: Tensor, b: Tensor) -> float:
    ranks = [torch.argsort(torch.argsort(values)).double() for values in (a, b)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def test_it_is_large_where_the_error_is(make_case: Any) -> None:
    case = make_case(n_frames=4, matrix=(24, 24), n_coils=3, spokes_per_frame=8, noise_std=0.05)
    equations, method = case.equations(), LocallyLowRank()
    full = method(equations, case.maps, noise_std=0.05)
    sums = groups_of(case, equations)
    given, made = (
        jackknife(method, equations, sums, case.maps, full=start, noise_std=0.05).std for start in (full, None)
    )
    assert torch.equal(given, made)
    error = (full.image.abs() - case.images.abs()).abs()
    assert spearman(given.flatten(), error.flatten()) > 0.3


def test_frames_of_few_spokes_stay_finite(make_case: Any) -> None:
    case = make_case(spokes_per_frame=1)
    equations = case.equations()
    found = jackknife(Gridding(), equations, groups_of(case, equations, 2), case.maps)
    assert bool(torch.isfinite(found.std).all())


def test_what_does_not_fit_is_refused(make_case: Any) -> None:
    case = make_case()
    equations = case.equations()
    sums = groups_of(case, equations, 2)
    with pytest.raises(UsageError, match="1 groups"):
        jackknife(Gridding(), equations, sums[:1], case.maps)
    with pytest.raises(UsageError, match="2 pixels"):
        jackknife(Gridding(), equations, sums, case.maps, about=2)
    start = Reconstruction(torch.zeros(2, 4, 4, dtype=torch.complex64))
    with pytest.raises(ShapeError, match="full reconstruction"):
        jackknife(Gridding(), equations, sums, case.maps, full=start)
