from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kspace.errors import SpokewiseError, UsageError
from kspace.formats.nifti import write_cine
from kspace.scan import Cine, Geometry
from kspace.segment.network import NetworkOptions, SegmentationNetwork
from kspace.segment.networks import FINDER, member_name, stored_network
from kspace.segment.segmentation import Segmentation, SlicePosition
from kspace.weights.store import read_card, verify
from simulate.training.command import TrainOptions, train_command
from simulate.training.dataset import HeartOptions, Split
from simulate.training.heart_bank import HeartBank, StoredHeart, position_of, read_heart
from simulate.training.randomise import Randomisation
from simulate.training.segment import MODELS, WHOLE_BODY, NetworkTraining, SegmentTraining, train_segment
from simulate.training.segment_task import SegmentTask, bent

TINY = NetworkTraining(
    3, 4, 2, HeartOptions(frames=3, size=32, pixel_mm=5.0, planes=1), Randomisation(), NetworkOptions((4, 8))
)
TRAINING = SegmentTraining(
    TINY, TINY, replace(TINY, randomisation=WHOLE_BODY), members=2, exported=0, validation=2, minutes=5
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> HeartBank:
    bank = HeartBank(
        tmp_path_factory.mktemp("bank"), TINY.hearts_options, replace(Randomisation(), off_heart=0.0, height=(0.4, 0.6))
    )
    bank.fill(Split.TRAIN, range(4))
    return bank


def test_everything_is_trained_and_stored(tmp_path: Path) -> None:
    parts: list[str] = []
    result = train_segment(tmp_path, TRAINING, on_part=parts.append)
    assert parts == [FINDER, member_name(0), member_name(1)]
    assert result.steps == 3
    assert [v.problem for v in verify(tmp_path / MODELS)] == ["", "", ""]
    one, view = stored_network(member_name(0), tmp_path / MODELS)
    other, _ = stored_network(member_name(1), tmp_path / MODELS)
    assert (view.size, view.pixel_mm) == (32, 5.0)
    assert not torch.equal(one.labels.conv.conv.weight, other.labels.conv.conv.weight)
    # Done already: a second call draws and learns nothing, and writes the same.
    before = (tmp_path / MODELS / f"{FINDER}.safetensors").read_bytes()
    train_segment(tmp_path, TRAINING, only=FINDER)
    assert (tmp_path / MODELS / f"{FINDER}.safetensors").read_bytes() == before


def test_branches_learn_from_cines_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cine, found = drawn_cine()
    (tmp_path / "cines").mkdir()
    write_cine(tmp_path / "cines" / "one.nii", cine)
    made: list[Path | None] = []
    read: list[str] = []

    def teacher(uncertainty: str, folder: Path) -> Callable[[Cine], Segmentation]:
        made.append(folder)
        return lambda given: found

    def spied(path: Path) -> StoredHeart:
        read.append(path.name)
        return read_heart(path)

    monkeypatch.setattr("simulate.training.segment.Segmenter", teacher)
    monkeypatch.setattr("simulate.training.segment_task.read_heart", spied)
    for name in (member_name(0), member_name(1)):
        train_segment(tmp_path, TRAINING, only=name, unlabelled=tmp_path / "cines")
        pseudo = [path for path in read if path.startswith("pseudo-one.nii")]
        assert bool(pseudo) == (name == member_name(1)), "the first member has no teacher"
    assert made == [tmp_path / MODELS]
    told = [read_card(member_name(k), tmp_path / MODELS) for k in (0, 1)]
    assert ["3 slices of unlabelled cines" in card.training_data for card in told] == [False, True]
    assert ["Trained on simulated hearts only." in card.limits for card in told] == [True, False]


def drawn_cine() -> tuple[Cine, Segmentation]:
    """Return three slices of a beating ring beside a disc, with their labels."""
    y, x = torch.arange(48)[:, None] - 24.0, torch.arange(48) - 24.0
    labels = torch.zeros(3, 16, 48, 48, dtype=torch.uint8)
    for f in range(16):
        inner = 6 - 2.0 * (0.5 - 0.5 * math.cos(2 * math.pi * f / 16))
        outer = math.sqrt(inner**2 + 40)
        labels[:, f][:, torch.hypot(y, x + outer) < 1.3 * inner] = 3
        labels[:, f][:, torch.hypot(y, x) < outer] = 2
        labels[:, f][:, torch.hypot(y, x) < inner] = 1
    cine = Cine(labels.float(), Geometry.from_spacing((3, 48, 48), (10.0, 4.0, 4.0)))
    places = (SlicePosition.BASE, SlicePosition.MIDDLE, SlicePosition.APEX)
    nothing = torch.zeros(labels.shape)
    return cine, Segmentation(
        labels, cine.geometry, places, torch.eye(4)[1:], labels[None], nothing, nothing[..., 0, 0].clone()
    )


def test_a_training_goes_on_from_the_shipped_weights(tmp_path: Path) -> None:
    still = replace(TINY, steps=1, network=NetworkOptions(), learning_rate=1e-9)
    train_segment(tmp_path, replace(TRAINING, contours=still, go_on=True), only=member_name(0))
    shipped, learnt = stored_network(member_name(0))[0], stored_network(member_name(0), tmp_path / MODELS)[0]
    for name, weight in shipped.state_dict().items():
        torch.testing.assert_close(learnt.state_dict()[name], weight, atol=1e-3, rtol=1e-3)


def test_there_is_no_such_network(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="segment-cine-0"):
        train_segment(tmp_path, TRAINING, only="segment-cine-9")


def test_a_stored_heart_is_the_drawn_one(bank: HeartBank) -> None:
    heart = read_heart(bank.path(Split.TRAIN, 1))
    before = bank.path(Split.TRAIN, 1).stat().st_mtime_ns
    bank.fill(Split.TRAIN, [1])
    assert bank.path(Split.TRAIN, 1).stat().st_mtime_ns == before
    assert heart.images.shape == heart.labels.shape == (3, 32, 32)
    assert float(heart.images.mean()) == pytest.approx(0, abs=1e-2)
    assert heart.position is SlicePosition.MIDDLE


@pytest.mark.parametrize(
    ("height", "there", "expected"),
    [(0.1, 1, "base"), (0.5, 1, "middle"), (0.9, 1, "apex"), (0.5, 0, "no heart"), (-0.1, 1, "base")],
)
def test_thirds_of_the_ventricle(height: float, there: int, expected: str) -> None:
    assert position_of(height, torch.full((2, 3, 3), there, dtype=torch.uint8)).word == expected


def test_a_loss_depends_on_its_step_alone(bank: HeartBank) -> None:
    files = [bank.path(Split.TRAIN, k) for k in range(4)]
    torch.manual_seed(1)
    network = SegmentationNetwork(NetworkOptions((4, 8), dropout=0.0))
    task = SegmentTask(network, files, files[:1], slices=2, frames=2, first=2, growth=0.5, half=False)
    assert [task.known(k) for k in (0, 1, 2, 9)] == [2, 2, 3, 4]
    first, again, other = (float(task.loss(k).detach()) for k in (3, 3, 4))
    assert first == again
    assert first != other


def test_learning_hearts_by_heart(bank: HeartBank) -> None:
    """A few steps on two slices must bring down what is validated on them, or nothing is learnt."""
    files = [bank.path(Split.TRAIN, k) for k in range(2)]
    torch.manual_seed(0)
    network = SegmentationNetwork(NetworkOptions((8, 16), dropout=0.0))
    task = SegmentTask(network, files, files, slices=2, frames=3, half=False)
    before = task.validate()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(60):
        optimiser.zero_grad()
        task.loss(step).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    network.eval()
    assert task.validate() < 0.5 * before


def test_bending_moves_image_and_labels_alike() -> None:
    labels = torch.zeros(1, 64, 64, dtype=torch.uint8)
    labels[0, 20:40, 24:48] = 3
    inputs = labels[:, None].float().expand(1, 3, 64, 64)
    for seed in range(5):
        moved, drawn = bent(inputs, labels, np.random.default_rng(seed))
        assert set(drawn.unique().tolist()) == {0, 3}
        assert float(((moved[0, 0] > 1.5) != (drawn[0] == 3)).float().mean()) < 0.01
        assert not torch.equal(drawn, labels)
        assert math.isclose(float(drawn.count_nonzero()), 480, rel_tol=0.5)


def test_senseless_trainings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        replace(TINY, first=9)
    with pytest.raises(UsageError):
        replace(TRAINING, members=0)
    task = SegmentTask(SegmentationNetwork(NetworkOptions((4, 8))), [tmp_path / "none"], [], wait=_gone)
    with pytest.raises(SpokewiseError, match="not there"):
        task.loss(0)


def _gone(path: Path) -> None:
    raise SpokewiseError(f"{path.name} is not there")


def test_the_command_trains_and_refuses(tmp_path: Path) -> None:
    record = train_command("segment", tmp_path / "out", lambda line: None, TrainOptions(quick=True))
    assert record["steps"] == 3
    assert {v.name for v in verify(Path(record["model"]))} == {FINDER, member_name(0), member_name(1)}
    with pytest.raises(UsageError, match="not for recon"):
        train_command("recon", tmp_path, lambda line: None, TrainOptions(scans=tmp_path))
    with pytest.raises(UsageError, match="no folder"):
        train_command("segment", tmp_path, lambda line: None, TrainOptions(scans=tmp_path / "none"))


def test_steps_follow_the_time() -> None:
    usual, short = SegmentTraining(), SegmentTraining.within(11, seed=3)
    assert short.contours.steps == round(0.1 * usual.contours.steps)
    assert short.branch.offset >= short.contours.hearts
    assert SegmentTraining.within(110, patients=50).contours.hearts == 50
