from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage

from kspace.errors import InputError, ShapeError
from kspace.scan import Geometry
from simulate.body import Body, BodyState
from simulate.magnet import MagnetSignals
from simulate.patient.anatomy import PatientBody
from simulate.patient.cardiac_cycle import timing
from simulate.patient.parameters import Group, Patient
from simulate.patient.placement import short_axis_geometry, short_axis_like
from simulate.patient.population import draw_patient
from simulate.patient.shapes import Points
from simulate.patient.thorax import Thorax
from simulate.signal import BalancedSequence, on_resonance_signals
from simulate.tissues import N_TISSUES, Tissue


def _body(seed: int = 1, group: Group = Group.NORMAL, **options: object) -> PatientBody:
    patient = draw_patient(seed, group=group)
    planned = {"rows": 200, "columns": 200, "pixel_mm": 1.6, "n_slices": 3, "first_mm": 10.0, "gap_mm": 12.0}
    return PatientBody(patient, short_axis_geometry(patient, **(planned | options)))  # type: ignore[arg-type]


def _betti(mask: np.ndarray) -> tuple[int, int]:
    """Components (with corners touching) and holes (without)."""
    _, parts = ndimage.label(mask, np.ones((3, 3)))
    _, outside = ndimage.label(~np.pad(mask, 1))
    return parts, outside - 1


def _fine_stack(patient: Patient, spacing: float) -> PatientBody:
    count = int((patient.left.length_mm + 48) / spacing)
    grid = {"rows": 128, "columns": 128, "pixel_mm": 1.4, "n_slices": count, "first_mm": -42.0}
    patient = replace(patient, placement=replace(patient.placement, view_x_mm=0.0, view_y_mm=0.0))
    geometry = short_axis_geometry(patient, thickness_mm=spacing, gap_mm=0.0, **grid)  # type: ignore[arg-type]
    return PatientBody(patient, geometry, planes=1)


def _counted_ml(body: PatientBody, state: BodyState) -> dict[str, float]:
    spacing, dy, dx = body.geometry.spacing_mm
    labels = torch.stack([body.labels(k, state) for k in range(body.geometry.shape[0])])
    voxel = spacing * dy * dx / 1e3
    return {name: float((labels == v).sum()) * voxel for name, v in (("lv", 1), ("myocardium", 2), ("rv", 3))}


@pytest.mark.parametrize(
    ("seed", "group"), [(0, Group.NORMAL), (3, Group.INFARCT), (5, Group.ABNORMAL_RV), (4, Group.DILATED)]
)
def test_volumes_counted_from_labels_agree_with_the_exact_ones(seed: int, group: Group) -> None:
    patient = draw_patient(seed, group=group)
    body = _fine_stack(patient, 1.4)
    myocardium = []
    for phase in (0.0, timing(patient.rhythm).end_systole, 0.75):
        counted, exact = _counted_ml(body, BodyState(phase=phase)), body.volumes_ml(BodyState(phase=phase))
        for name, value in exact.items():
            assert counted[name] == pytest.approx(value, rel=0.015), (name, phase)
        myocardium.append(counted["myocardium"])
    assert max(myocardium) / min(myocardium) - 1 < 0.03


def test_simpson_at_ten_millimetres_stays_within_one_slice_at_the_base() -> None:
    patient = draw_patient(0, group=Group.NORMAL)
    body = _fine_stack(patient, 10.0)
    for phase in (0.0, 0.4):
        counted, exact = _counted_ml(body, BodyState(phase=phase)), body.volumes_ml(BodyState(phase=phase))
        largest = body.heart.left.area_mm2(np.linspace(0, 80, 81), 0.0).max()
        assert abs(counted["lv"] - exact["lv"]) < 0.6 * largest * 10 / 1e3


@pytest.mark.parametrize("group", list(Group))
def test_topology_of_middle_slices_is_right_in_every_phase(group: Group) -> None:
    patient = draw_patient(21, group=group)
    geometry = short_axis_geometry(
        patient, n_slices=3, first_mm=0.4 * patient.left.length_mm, thickness_mm=8, gap_mm=0, rows=192, columns=192,
        pixel_mm=1.4,
    )  # fmt: skip
    body = PatientBody(patient, geometry)
    for phase in np.linspace(0, 1, 9)[:-1]:
        for k in range(3):
            labels = body.labels(k, BodyState(phase=float(phase))).numpy()
            lv, myo, rv = (labels == v for v in (1, 2, 3))
            found = [_betti(m) for m in (rv, myo, lv, rv | myo, rv | lv, myo | lv)]
            assert found == [(1, 0), (1, 1), (1, 0), (1, 1), (2, 0), (1, 0)], (group, phase, k)


def test_the_body_can_be_scanned_and_is_complex() -> None:
    drawn = _body()
    signals = on_resonance_signals()
    signals = signals / signals.abs().clamp_min(1.0)  # none brighter than blood: what is beyond one is texture
    body: Body = PatientBody(drawn.patient, drawn.geometry, signals=signals)
    image = body.image(1, BodyState())
    assert image.shape == body.geometry.shape[1:]
    assert image.dtype == torch.complex64
    assert float(image.abs().max()) < 2
    assert float(image.real.min()) < -0.4  # fat opposes water
    window = body.heart_window
    part = body.image(1, BodyState(phase=0.3), window)
    whole = body.image(1, BodyState(phase=0.3))
    assert torch.equal(part, whole[slice(*window.rows), slice(*window.columns)])


@pytest.mark.parametrize(
    "place",
    [
        BodyState(),
        BodyState(breath_mm=25.0),
        BodyState(shift_mm=(10.0, -10.0, 6.0), rotation_rad=-0.1),
        BodyState(breath_mm=-10.0, shift_mm=(-11.0, 11.0, -6.0), rotation_rad=0.1),
    ],
)
@pytest.mark.parametrize("group", [Group.ABNORMAL_RV, Group.DILATED])
def test_nothing_outside_the_heart_window_depends_on_the_phase(place: BodyState, group: Group) -> None:
    body = _body(2, group, first_mm=-12.0, gap_mm=24.0)
    for k in range(3):
        images = [body.image(k, replace(place, phase=p, stroke=s)) for p, s in ((0.0, 1.0), (0.37, 1.0), (0.6, 0.7))]
        for image in images[1:]:
            changed = torch.nonzero((image - images[0]).abs() > 1e-6)
            for window in (body.heart_window, body.window_of(k, place)):
                assert bool((changed >= torch.tensor([window.rows[0], window.columns[0]])).all())
                assert bool((changed < torch.tensor([window.rows[1], window.columns[1]])).all())


def test_fractions_sum_to_one_and_with_the_signals_give_the_image() -> None:
    body = _body()
    state = BodyState(phase=0.2)
    fractions = body.fractions(1, state)
    assert fractions.shape == (N_TISSUES, *body.geometry.shape[1:])
    assert float((fractions.sum(0) - 1).abs().max()) < 1e-4
    assert float(fractions.min()) >= -1e-6
    textured = body.fractions(1, state, textured=True)
    image = torch.einsum("t,tyx->yx", on_resonance_signals(), textured.to(torch.complex64))
    assert torch.allclose(image, body.image(1, state), atol=1e-5)
    window = body.heart_window
    part = body.fractions(1, state, window)
    assert torch.allclose(part, fractions[:, slice(*window.rows), slice(*window.columns)], atol=1e-6)


def test_labels_lie_where_the_tissue_is() -> None:
    body = _body()
    state = BodyState(phase=0.1)
    fractions, labels = body.fractions(1, state), body.labels(1, state)
    assert float(fractions[Tissue.ARTERIAL_BLOOD][labels == 1].mean()) > 0.7
    assert float(fractions[[Tissue.MYOCARDIUM, Tissue.SCAR]].sum(0)[labels == 2].mean()) > 0.8
    assert float(fractions[Tissue.VENOUS_BLOOD][labels == 3].mean()) > 0.6


def _muscle_by_depth(body: PatientBody, state: BodyState) -> list[float]:
    """Share of muscle in the cavity within 2 mm of the wall, from 2 to 4, 4 to 6 and further than 12 mm from it."""
    share = body.fractions(0, state)[[Tissue.MYOCARDIUM, Tissue.SCAR]].sum(0)
    depth = ndimage.distance_transform_edt((body.labels(0, state) == 1).numpy()) * body.geometry.spacing_mm[1]
    bounds = ((0, 2), (2, 4), (4, 6), (12, 99))
    return [float(share.numpy()[(depth > low) & (depth <= high)].mean()) for low, high in bounds]


def _near_the_apex(patient: Patient) -> PatientBody:
    planned = {"n_slices": 1, "first_mm": 0.66 * patient.left.length_mm, "rows": 200, "columns": 200, "pixel_mm": 1.2}
    return PatientBody(patient, short_axis_geometry(patient, **planned))  # type: ignore[arg-type]


def test_trabeculae_are_a_mixture_that_thins_out_towards_the_lumen() -> None:
    patient = draw_patient(8, group=Group.DILATED)
    patient = replace(patient, left=replace(patient.left, spongy_mm=8.0, spongy_share=0.7))
    edge, middle, deep, lumen = _muscle_by_depth(_near_the_apex(patient), BodyState())
    assert edge > middle > deep > lumen
    assert 0.15 < middle < 0.85
    assert lumen < 0.1
    compact = replace(patient, left=replace(patient.left, spongy_mm=0.0))
    assert _muscle_by_depth(_near_the_apex(compact), BodyState())[2] < 0.6 * deep


def test_trabeculae_belong_to_the_cavity_in_labels_and_volumes() -> None:
    patient = draw_patient(8, group=Group.DILATED)
    compact = replace(patient, left=replace(patient.left, spongy_mm=0.0))
    state = BodyState(phase=0.3)
    assert torch.equal(_near_the_apex(patient).labels(0, state), _near_the_apex(compact).labels(0, state))
    assert _near_the_apex(patient).volumes_ml(state) == _near_the_apex(compact).volumes_ml(state)


def test_the_water_of_the_lung_scales_its_signal() -> None:
    patient = draw_patient(1)
    images = []
    for water in (0.8, 1.6):
        dense = replace(patient, thorax=replace(patient.thorax, lung_water=water))
        body = PatientBody(dense, short_axis_geometry(dense, n_slices=1, first_mm=30.0, rows=96, columns=96))
        images.append(body.image(0, BodyState()).real[body.fractions(0, BodyState())[Tissue.LUNG] > 0.999])
    torch.testing.assert_close(images[1], 2 * images[0], atol=1e-3, rtol=0.01)


def test_lung_is_denser_at_the_back_behind_the_heart_and_breathed_out_at_the_base() -> None:
    patient = draw_patient(1)
    lungs = [Thorax(replace(patient, thorax=replace(patient.thorax, lung_density=d))) for d in (0.8, 1.2)]

    def at(thorax: Thorax, left: float, back: float, feet: float) -> float:
        points = Points(*(torch.full((1, 1, 1), v) for v in (left, back, feet)))
        return float(thorax._lung_density(points))

    depth = patient.thorax.half_depth_mm
    front, rear = (at(lungs[0], -90.0, share * depth, -80.0) for share in (-0.6, 0.6))
    assert 1.4 < rear / front < 2.1
    heart = patient.placement.mitral_left_mm + 25
    assert at(lungs[0], heart, 45.0, 10.0) > 1.1 * at(lungs[0], -90.0, 45.0, 10.0)
    points = Points(*(torch.full((1, 1, 1), v) for v in (-70.0, 0.0, 0.0)))
    base = -float(lungs[0].abdomen.below_mm(points)) / 0.85 - 4.0
    assert at(lungs[1], -70.0, 0.0, base) > 1.1 * at(lungs[0], -70.0, 0.0, base)


def test_blood_along_the_wall_lacks_the_brightness_of_inflow() -> None:
    patient = draw_patient(2, group=Group.DILATED)
    left = replace(patient.left, slow_mm=9.0, slow_dark=0.0, spongy_mm=0.0, strands=0, tendons=0, trabeculae_mm=0.0)
    patient = replace(patient, left=left, texture=replace(patient.texture, blood=0.0))
    geometry = short_axis_geometry(patient, n_slices=1, first_mm=45.0, rows=160, columns=160, pixel_mm=1.3)
    signals = MagnetSignals(patient, geometry, BalancedSequence(), fresh=0.4)
    state = BodyState(phase=0.9)
    body = PatientBody(patient, geometry, signals=signals)
    share, image = body.fractions(0, state)[Tissue.ARTERIAL_BLOOD], body.image(0, state).abs()
    cavity = body.labels(0, state) == 1
    depth = torch.from_numpy(ndimage.distance_transform_edt(cavity.numpy())) * 1.3
    level = image / signals(0, state)[Tissue.ARTERIAL_BLOOD].abs()
    gain = signals.brightening(0, state)
    places = depth > 14, (depth > 1.5) & (depth < 3)
    core, layer = (level[cavity & (share > 0.999) & here].median() for here in places)
    assert float(core) == pytest.approx(1.0, abs=0.01)
    assert 1 / gain < float(layer) < 0.5 * (1 + 1 / gain)
    flowing = replace(patient, left=replace(left, slow_mm=0.0))
    bright = PatientBody(flowing, geometry, signals=signals).image(0, state).abs()
    assert float((bright / image)[depth > 14].max()) < 1.01


def test_the_base_passes_a_plane_without_a_jump() -> None:
    body = _body(1, first_mm=6.0, n_slices=1, rows=160, columns=160)
    phases = np.linspace(0.05, 0.35, 61)
    images = [body.image(0, BodyState(float(p))).real for p in phases]
    steps = np.array([float((b - a).square().mean()) for a, b in pairwise(images)])
    beside = np.maximum(steps[:-2], steps[2:])
    assert (steps[1:-1] < 1.5 * beside + 1e-6).all()
    for z in (np.array([5.0]), np.linspace(-30.0, 90.0, 40)):
        source, planes, weights = body.heart.split(z, BodyState(0.2), 2.0)
        assert weights.sum() == pytest.approx(1.0)
        assert set(source) == set(range(len(z)))
        assert np.abs(planes - z[source]).max() <= 3.0 + 1e-9  # no further than half the ring's depth


def test_the_same_body_gives_the_same_image() -> None:
    state = BodyState(phase=0.3, breath_mm=2.0)
    assert torch.equal(_body(4).image(0, state), _body(4).image(0, state))


def test_signals_may_be_a_vector_a_map_or_a_function() -> None:
    patient = draw_patient(1)
    geometry = short_axis_geometry(patient, n_slices=1, first_mm=30.0, rows=96, columns=96, pixel_mm=2.0)
    vector = on_resonance_signals()
    maps = vector[:, None, None].expand(-1, 96, 96).contiguous()
    state = BodyState(phase=0.2)
    images = [
        PatientBody(patient, geometry, signals=signals).image(0, state)
        for signals in (vector, maps, lambda slice_index, state: maps)
    ]
    assert torch.allclose(images[0], images[1], atol=1e-5)
    assert torch.allclose(images[0], images[2], atol=1e-5)
    with pytest.raises(ShapeError, match="signals"):
        PatientBody(patient, geometry, signals=vector[:4]).image(0, state)


def test_breathing_moves_the_liver_most_the_heart_less_and_the_spine_not() -> None:
    body = _body(1, first_mm=30.0)
    still, deep = (body.fractions(0, BodyState(breath_mm=b)) for b in (0.0, 15.0))
    spine = still[Tissue.CSF] > 0.9
    assert spine.any()
    assert float((deep[Tissue.CSF] - still[Tissue.CSF])[spine].abs().max()) < 0.15
    rows = torch.arange(still.shape[1], dtype=torch.float32)[:, None]
    labels = [body.labels(0, BodyState(breath_mm=b)) == 1 for b in (0.0, 15.0)]
    moved = [float((rows * mask).sum() / mask.sum()) for mask in labels]
    assert 3.0 < (moved[1] - moved[0]) * 1.6 < 12.0  # mm, towards the feet


def test_bulk_motion_is_rigid() -> None:
    body = _body(1, first_mm=30.0)
    moved = body.image(0, BodyState(shift_mm=(16.0, -8.0, 0.0)))  # 10 columns, -5 rows of 1.6 mm
    assert torch.allclose(moved[20:150, 30:160], body.image(0, BodyState())[25:155, 20:150], atol=2e-3)


def test_a_stack_that_is_not_short_axis_is_refused() -> None:
    patient = draw_patient(1)
    with pytest.raises(InputError, match="perpendicular"):
        PatientBody(patient, Geometry.from_spacing((4, 64, 64), (8.0, 4.0, 4.0)))
    with pytest.raises(InputError, match="slice"):
        _body().image(9, BodyState())
    with pytest.raises(InputError, match="planes"):
        PatientBody(patient, short_axis_geometry(patient), planes=0)
    with pytest.raises(InputError, match="positive"):
        short_axis_geometry(patient, pixel_mm=0.0)
    with pytest.raises(InputError, match="stack"):
        short_axis_geometry(patient, n_slices=0)


def test_a_stack_like_another_keeps_its_grid_and_covers_the_heart() -> None:
    patient = draw_patient(1)
    model = Geometry.from_spacing((5, 128, 112), (10.0, 1.5, 1.5), slice_thickness_mm=8.0)
    planned = short_axis_like(patient, model)
    assert planned.shape[1:] == (128, 112)
    assert planned.spacing_mm == pytest.approx(model.spacing_mm)
    assert planned.slice_thickness_mm == 8.0
    body = PatientBody(patient, planned)
    labels = torch.stack([body.labels(k, BodyState()) for k in range(planned.shape[0])])
    assert not bool((labels[0] == 1).any())
    assert not bool((labels[-1] == 1).any())
    assert bool((labels[1] == 1).any())
    with pytest.raises(InputError, match="square"):
        short_axis_like(patient, Geometry.from_spacing((5, 128, 112), (10.0, 1.5, 1.4)))
