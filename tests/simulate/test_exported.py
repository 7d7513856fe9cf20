from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from kspace.errors import InputError, UsageError
from kspace.scan import Geometry
from simulate.body import BodyState
from simulate.exported import (
    ExportStyle,
    acquired_spectrum,
    circular_weights,
    draw_style,
    exported_cine,
    labels_on,
    place_in_scanner,
    turned,
    zero_filled,
)
from simulate.magnet import ChestArray, MagnetSignals, patient_tissues, through_plane_mm_s
from simulate.patient.anatomy import PatientBody
from simulate.patient.placement import short_axis_geometry
from simulate.patient.population import draw_patient
from simulate.signal import TISSUES, BalancedSequence
from simulate.tissues import Tissue
from simulate.vendors import VENDORS

STYLE = ExportStyle(n_frames=6, matrix=128, acquired_mm=2.6, window_s=0.12, peak=800.0)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and lose much on a machine that is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def body() -> PatientBody:
    patient = draw_patient(3)
    geometry = short_axis_geometry(patient, n_slices=3, rows=144, columns=144, pixel_mm=2.4, first_mm=25.0)
    signals = MagnetSignals(patient, geometry, BalancedSequence())
    return PatientBody(patient, geometry, signals=signals, planes=2)


def test_an_export_is_whole_numbers_with_labels_on_its_grid_and_repeats_itself(body: PatientBody) -> None:
    cine, labels = exported_cine(body, STYLE, slices=[1], seed=4)
    again, _ = exported_cine(body, STYLE, slices=[1], seed=4)
    other, _ = exported_cine(body, STYLE, slices=[1], seed=5)

    assert cine.images.shape == labels.shape == (1, 6, 128, 128)
    assert labels.dtype == torch.uint8
    assert set(labels.unique().tolist()) == {0, 1, 2, 3}
    assert torch.equal(cine.images, cine.images.round())
    assert float(cine.images.min()) >= 0
    assert float(torch.quantile(cine.images.flatten(), 0.995)) == pytest.approx(800, abs=1)
    assert torch.equal(cine.images, again.images)
    assert not torch.equal(cine.images, other.images)
    assert cine.rr_s == (body.patient.rr_s,)
    assert cine.geometry.field_of_view_mm == pytest.approx(body.geometry.field_of_view_mm)


def test_labels_keep_the_cavity_where_it_is_and_as_large_as_it_is(body: PatientBody) -> None:
    fine = body.labels(1, BodyState())[None]
    coarse = labels_on(fine, (97, 110))
    pixel = (144 / 97) * (144 / 110)
    for label in (1, 2, 3):
        whole = int((fine == label).sum())
        assert int((coarse == label).sum()) * pixel == pytest.approx(whole, rel=0.06)
        here = torch.nonzero(fine[0] == label).double().mean(0) - 72
        there = (torch.nonzero(coarse[0] == label).double().mean(0) - torch.tensor([48, 55])) * torch.tensor(
            [144 / 97, 144 / 110]
        )
        assert float((here - there).abs().max()) < (0.9 if label == 2 else 0.35)  # the wall is two pixels thin here


def test_noise_follows_the_signal_to_noise_ratio(body: PatientBody) -> None:
    plain = replace(STYLE, unrest=0.0, taper=0.0, normalised=1.0, phase_share=1.0, window_s=0.2)
    quiet, labels = exported_cine(body, replace(plain, snr=math.inf), slices=[1])
    blood = float(quiet.images[labels == 1].median())
    spread = []
    for snr in (20.0, 10.0):
        noisy, _ = exported_cine(body, replace(plain, snr=snr), slices=[1])
        change = (noisy.images - quiet.images * (noisy.images[labels == 1].median() / blood))[labels == 1]
        spread.append(float(change.std()) / blood)

    assert spread[1] / spread[0] == pytest.approx(2, rel=0.25)
    assert 0.3 / 20 < spread[0] < 1.5 / 20


def test_an_image_survives_the_trip_to_k_space_and_back() -> None:
    geometry = Geometry.from_spacing((1, 60, 60), (8.0, 2.0, 2.0))
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(60.0), indexing="ij")
    image = torch.exp(-((y - 28) ** 2 + (x - 33) ** 2) / 60).to(torch.complex64)
    spectrum = acquired_spectrum(image, ExportStyle(acquired_mm=3.0, phase_share=1.0), geometry)
    back = zero_filled(spectrum, (60, 60))

    assert spectrum.shape == (40, 40)
    torch.testing.assert_close(back.real, image.real, atol=2e-4, rtol=0)
    assert float(zero_filled(spectrum, (120, 120)).real[56, 66]) == pytest.approx(1, abs=1e-3)


def test_phases_are_interpolated_around_the_circle() -> None:
    weights = circular_weights(torch.tensor([0.0, 0.125, 0.25]), 4)
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    torch.testing.assert_close(weights[0], torch.tensor([0.5, 0, 0, 0.5]))
    torch.testing.assert_close(weights[1], torch.tensor([1.0, 0, 0, 0]))


def test_styles_and_bodies_follow_the_vendor_and_the_seed() -> None:
    patient = draw_patient(5)
    for name, preset in VENDORS.items():
        style = draw_style(preset, 1)
        assert style == draw_style(preset, 1)
        assert style != draw_style(preset, 2)
        if name == "ge":
            placed = place_in_scanner(patient, preset, style, planes=1)
            assert placed.geometry.field_of_view_mm == pytest.approx((360, 360), rel=0.01)
            assert placed.geometry.slice_thickness_mm == style.thickness_mm
            assert placed.geometry.spacing_mm[0] == pytest.approx(max(8.0, style.thickness_mm))
            assert 6 <= style.thickness_mm <= 10
            assert place_in_scanner(patient, preset, planes=1).geometry.slice_thickness_mm == 8


def test_a_turned_geometry_keeps_its_middle() -> None:
    geometry = Geometry.from_spacing((2, 20, 30), (8.0, 1.5, 1.5))
    around = turned(geometry, 0.7)
    middle = np.array([15, 10, 1, 1.0])
    np.testing.assert_allclose(geometry.affine @ middle, around.affine @ middle, atol=1e-9)
    np.testing.assert_allclose(turned(around, -0.7).affine, geometry.affine, atol=1e-9)


def test_the_chest_array_sees_the_skin_better_than_the_heart_and_the_heart_as_one(body: PatientBody) -> None:
    shading = ChestArray(12).shading(body.patient, body.geometry, 1)
    cavity = body.labels(1, BodyState()) == 1
    assert shading.shape == body.geometry.shape[1:]
    assert 0.6 < float(shading[cavity].mean()) < 1.7
    seen = body.image(1, BodyState()).abs() > 0.02
    assert float(shading[seen].max()) > 1.8


def test_signals_differ_between_patients_and_blood_brightens_as_it_flows(body: PatientBody) -> None:
    one, other = (patient_tissues(draw_patient(seed), 1.5) for seed in (1, 2))
    assert one != other
    assert set(one) == set(TISSUES[1.5])
    source = MagnetSignals(body.patient, body.geometry, BalancedSequence())
    still, moving = (source(1, BodyState(phase))[Tissue.ARTERIAL_BLOOD].abs().mean() for phase in (0.999, 0.15))
    assert float(moving) > float(still)
    assert through_plane_mm_s(body.patient, BodyState(0.15), 5.0) > through_plane_mm_s(
        body.patient, BodyState(0.15), 60.0
    )


def test_what_cannot_be_exported_is_refused(body: PatientBody) -> None:
    with pytest.raises(InputError, match="finer"):
        exported_cine(body, ExportStyle(acquired_mm=1.5), slices=[0])
    with pytest.raises(UsageError, match="snr"):
        ExportStyle(snr=0.0)
    with pytest.raises(InputError):
        exported_cine(body, STYLE, slices=[9])


def test_squared_channels_raise_what_is_dark_by_their_noise(body: PatientBody) -> None:
    style = replace(STYLE, snr=8.0, normalised=0.0, unrest=0.0, peak=60000.0)
    alone, _ = exported_cine(body, style, slices=[1], seed=4)
    eight, _ = exported_cine(body, replace(style, n_squared=8), slices=[1], seed=4)
    bright = alone.images[0] > torch.quantile(alone.images[0], 0.97)
    scale = float((eight.images[0][bright] / alone.images[0][bright]).median())
    silent = exported_cine(body, replace(style, snr=1e6), slices=[1], seed=4)[0].images[0].mean(0)
    air = silent < torch.quantile(silent, 0.1)
    floors = [float(c.images[0][:, air].square().mean()) for c in (alone, eight)]
    assert floors[1] / floors[0] == pytest.approx(8 * scale**2, rel=0.35)  # the air of one channel is noise alone
    with pytest.raises(UsageError):
        ExportStyle(n_squared=0)
