from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kspace.equations import NormalEquations
from kspace.errors import ShapeError
from kspace.nufft import exact_transform
from kspace.quality.held_out import HeldOutResidual, every_nth, foresee, held_out_residual
from kspace.recon.locally_low_rank import LocallyLowRank
from kspace.scan import Geometry, RadialScan
from kspace.trajectory import golden_angles, radial_positions

N_FRAMES, SIZE, SIGMA = 4, 32, 0.05


def test_every_nth_of_each_frame() -> None:
    frame = torch.tensor([0, 1, 0, 0, 1, 0, 1, 0])
    assert every_nth(frame, 2).tolist() == [True, True, False, True, False, False, True, True]
    assert every_nth(frame, 3, first=1).nonzero()[:, 0].tolist() == [2, 4, 7]
    assert not every_nth(frame, 2, first=9).any()


@pytest.fixture(scope="module")
def scan(make_heart: Any, make_maps: Any, make_noise: Any) -> tuple[Tensor, Tensor, RadialScan, Tensor]:
    """Images, maps, noisy spokes of them and their frames."""
    images, maps = make_heart(N_FRAMES, SIZE, SIZE, dtype=torch.complex128), make_maps(3, SIZE, SIZE)
    n_spokes = N_FRAMES * 30
    positions, frame = radial_positions(golden_angles(n_spokes), 2 * SIZE), torch.arange(n_spokes) % N_FRAMES
    samples = torch.stack(
        [exact_transform(images[f] * maps, p) for p, f in zip(positions, frame.tolist(), strict=True)]
    )
    samples = samples + SIGMA * make_noise(*samples.shape, dtype=torch.complex128)
    spokes = RadialScan(
        samples=samples.to(torch.complex64), positions=positions.float(), time_s=torch.arange(n_spokes).double() * 3e-3,
        geometry=Geometry((1, SIZE, SIZE)), frame=frame,
    )  # fmt: skip
    return images.to(torch.complex64), maps.to(torch.complex64), spokes, frame


def test_what_is_foreseen_is_the_transform_of_each_spoke_of_its_frame(scan: Any, check: Any) -> None:
    images, maps, spokes, frame = scan
    chosen = torch.tensor([70, 3, 4, 99, 8])
    expected = torch.stack(
        [exact_transform(images[int(frame[k])] * maps, spokes.positions[int(k)]).to(torch.complex64) for k in chosen]
    )
    some = RadialScan(
        spokes.samples[chosen], spokes.positions[chosen], torch.zeros(5, dtype=torch.float64), spokes.geometry
    )
    check.close(foresee(images, maps, some, frame[chosen]), expected, 3e-3)


def test_true_images_leave_the_noise(scan: Any) -> None:
    images, maps, spokes, frame = scan
    found = held_out_residual(images, maps, spokes, frame, noise_std=SIGMA)
    assert found.over_noise == pytest.approx(1, abs=0.03)
    assert found.by_frame.tolist() == pytest.approx([1] * N_FRAMES, abs=0.06)
    assert found.image_error < 0.03
    size = float(spokes.samples.abs().double().square().mean().sqrt())
    assert found.relative == pytest.approx(SIGMA / size, rel=0.03)
    unknown = held_out_residual(images, maps, spokes, frame)
    assert math.isnan(unknown.over_noise)
    assert unknown.relative == found.relative


def residual(scan: Any, change: Tensor | None = None) -> HeldOutResidual:
    """Of a reconstruction without every fifth spoke, with something put into it, at those spokes."""
    _, maps, spokes, frame = scan
    held_out = every_nth(frame, 5)
    kept, asked = spokes.select(~held_out), spokes.select(held_out)
    equations = NormalEquations((SIZE, SIZE), N_FRAMES, len(maps))
    equations.add(kept.samples, kept.positions, frame[~held_out])
    image = LocallyLowRank()(equations, maps, noise_std=SIGMA).image
    image = image if change is None else image + change * float(image.abs().max())
    return held_out_residual(image, maps, asked, frame[held_out], noise_std=SIGMA)


@pytest.mark.parametrize("height", [0.3, 0.6])
def test_what_is_invented_shows_in_its_frame(scan: Any, height: float) -> None:
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    blob = torch.zeros(N_FRAMES, SIZE, SIZE)
    blob[2] = height * torch.exp(-((y - 18) ** 2 + (x - 12) ** 2) / 2 / 1.5**2)
    honest, invented = residual(scan), residual(scan, blob)
    assert invented.relative > 1.02 * honest.relative
    assert invented.image_error > honest.image_error
    risen = invented.by_frame / honest.by_frame
    assert int(risen.argmax()) == 2
    assert float(risen[2]) > 1.05
    assert risen[[0, 1, 3]].tolist() == pytest.approx([1] * 3, abs=1e-3)


def test_frames_that_nothing_was_held_out_of_are_nan(scan: Any) -> None:
    images, maps, spokes, frame = scan
    mine = frame != 1
    found = held_out_residual(images, maps, spokes.select(mine), frame[mine], noise_std=SIGMA)
    assert torch.isnan(found.by_frame).tolist() == [False, True, False, False]


def test_no_spokes_and_frames_that_do_not_fit_are_refused(scan: Any) -> None:
    images, maps, spokes, frame = scan
    none = torch.zeros(len(frame), dtype=torch.bool)
    with pytest.raises(ShapeError, match="1 or more"):
        held_out_residual(images, maps, spokes.select(none), frame[none])
    with pytest.raises(ShapeError, match="held-out spokes"):
        held_out_residual(images, maps, spokes, frame[:-1])
