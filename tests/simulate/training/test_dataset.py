from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader

from kspace.errors import UsageError
from kspace.segment.inputs import normalised
from simulate.body import BodyState
from simulate.patient.anatomy import PatientBody
from simulate.patient.parameters import Group
from simulate.patient.placement import short_axis_geometry
from simulate.patient.population import draw_patient
from simulate.signal import on_resonance_signals
from simulate.training.dataset import FIRST_SEED, HeartOptions, SimulatedHearts, Split, patient_seed, smeared
from simulate.training.draw_slice import Frame, draw_slice
from simulate.training.randomise import Randomisation

SMALL = HeartOptions(frames=3, size=48, pixel_mm=3.2, planes=1)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and lose much on a machine that is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_an_item_is_what_it_says() -> None:
    hearts = SimulatedHearts(4, options=HeartOptions(frames=4, size=96, pixel_mm=1.8))
    image, labels, record = hearts[1]
    assert image.shape == labels.shape == (4, 96, 96)
    assert image.dtype == torch.float32
    assert labels.dtype == torch.uint8
    assert bool(torch.isfinite(image).all())
    assert float(image.mean()) == pytest.approx(0, abs=1e-3)
    assert float(image.std()) == pytest.approx(1, abs=1e-3)
    assert int(labels.max()) <= 3
    assert record["seed"] == patient_seed(1)
    assert record["group"] in set(Group)
    assert record["emptiness"].shape == (4,)
    assert record["pixel_mm"] == pytest.approx(hearts.appearance(1).pixel_mm)


def test_the_same_index_is_the_same_item() -> None:
    first, again = SimulatedHearts(3, options=SMALL)[2], SimulatedHearts(9, options=SMALL)[2]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    other = SimulatedHearts(3, options=SMALL, epoch=1)[2]
    assert other[2]["seed"] == first[2]["seed"]
    assert not torch.equal(other[0], first[0])


def test_splits_share_no_patient_and_leave_the_shown_ones_alone() -> None:
    seeds = {split: {patient_seed(i, split) for i in range(500)} for split in Split}
    assert not seeds[Split.TRAIN] & seeds[Split.VALIDATION]
    assert not seeds[Split.TRAIN] & seeds[Split.TEST]
    assert not seeds[Split.VALIDATION] & seeds[Split.TEST]
    assert min(min(s) for s in seeds.values()) >= FIRST_SEED
    assert SimulatedHearts(2, "test", SMALL)[0][2]["seed"] == patient_seed(0, Split.TEST)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_what_the_main_process_gives(method: str) -> None:
    hearts = SimulatedHearts(2, options=SMALL)
    loader = DataLoader(hearts, batch_size=1, num_workers=2, multiprocessing_context=method, timeout=60)
    batches = list(loader)
    assert len(batches) == 2
    for number, (images, labels, record) in enumerate(batches):
        image, label, _ = hearts[number]
        torch.testing.assert_close(images[0], image, atol=2e-3, rtol=0)
        assert torch.equal(labels[0], label)
        assert len(record["group"]) == 1


def test_a_slice_is_that_of_the_whole_body() -> None:
    """The window's drawing and that of PatientBody are the same picture, not turned."""
    patient = draw_patient(11)
    geometry = short_axis_geometry(patient, n_slices=1, rows=64, columns=64, pixel_mm=2.0, first_mm=30.0)
    body = PatientBody(patient, geometry, planes=2)
    at = patient.placement
    middle = -at.view_x_mm - at.drift_x * 30.0, -at.view_y_mm - at.drift_y * 30.0
    frame = Frame(64, 2.0, 30.0, 8.0, centre_mm=middle)
    images, labels, blood = draw_slice(
        patient, frame, torch.tensor([0.0, 0.3]), on_resonance_signals().real.repeat(2, 1)
    )
    for number, phase in enumerate((0.0, 0.3)):
        torch.testing.assert_close(images[number], body.image(0, BodyState(phase)).real, atol=5e-3, rtol=0)
        assert float((labels[number] != body.labels(0, BodyState(phase))).float().mean()) < 2e-3
    assert 0 < float(blood.mean()) < 1


def test_mirrors_and_turns_move_image_and_labels_together() -> None:
    patient = draw_patient(12)
    signals, phases = on_resonance_signals().real.repeat(1, 1), torch.zeros(1)
    plain = draw_slice(patient, Frame(49, 3.0, 40.0), phases, signals, planes=1)
    mirror = draw_slice(patient, Frame(49, 3.0, 40.0, mirrored=True), phases, signals, planes=1)
    turned = draw_slice(patient, Frame(49, 3.0, 40.0, rotation_rad=torch.pi / 2), phases, signals, planes=1)
    for number in (0, 1):
        torch.testing.assert_close(mirror[number], plain[number].flip(-1), atol=2e-3, rtol=0)
        torch.testing.assert_close(
            turned[number].float(), torch.rot90(plain[number], 1, (1, 2)).float(), atol=5e-3, rtol=0
        )


def test_clean_items_are_of_one_grey_a_tissue_and_a_group_can_be_asked_for() -> None:
    hearts = SimulatedHearts(2, options=HeartOptions(3, 48, 3.2, 1, Group.DILATED), clean=True)
    image, labels, record = hearts[0]
    assert record["group"] == "dilated"
    assert image.shape == labels.shape == (3, 48, 48)


def test_every_artefact_at_once_stays_finite() -> None:
    hard = Randomisation(artefacts=1.0, framed=1.0, banded=1.0, negative=0.5, turned=1.0, off_heart=0.5)
    hearts = SimulatedHearts(3, options=SMALL, randomisation=hard)
    for index in range(2):
        assert bool(torch.isfinite(hearts[index][0]).all())


def test_small_things() -> None:
    assert torch.equal(normalised(torch.ones(2, 4, 4)), torch.zeros(2, 4, 4))
    frames = torch.rand(8, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(smeared(frames, 0.4).mean(0), frames.mean(0))
    assert float(smeared(frames, 0.4).std(0).mean()) < float(frames.std(0).mean())
    with pytest.raises(UsageError):
        SimulatedHearts(0)
    with pytest.raises(UsageError):
        HeartOptions(frames=0)
    with pytest.raises(UsageError):
        patient_seed(-1)
    with pytest.raises(IndexError):
        SimulatedHearts(2)[2]
