from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kspace.errors import SpokewiseError, UsageError
from kspace.metrics import nrmse
from kspace.recon.gridding import Gridding
from kspace.recon.networks.unet import CineUNet
from kspace.recon.networks.unrolled import UnrolledNetwork
from kspace.recon.unet import SHIPPED_UNET, UNet
from kspace.recon.unrolled import SHIPPED, Unrolled, shipped_network
from kspace.weights.store import FOLDER
from simulate.patient.parameters import Group
from simulate.training.bank import Bank, read_scan, write_scan
from simulate.training.command import TrainOptions, models_command, tiny, train_command
from simulate.training.dataset import Split, patient_seed
from simulate.training.recon import MODEL, ReconTraining, train_recon
from simulate.training.recon_task import Supply, UNetTask
from simulate.training.scans import Protocol, ProtocolRange, TrainingScan, draw_protocol, simulated_scans
from simulate.training.stage import Stage, heart_weight, log_error, read_patch

PROTOCOL = Protocol("philips", Group.DILATED, 4, 64, 3, 40.0, 1, 6, (1.0, 3.0))


@pytest.fixture(scope="module")
def scans() -> list[TrainingScan]:
    return list(simulated_scans(patient_seed(0), PROTOCOL))


def test_scans_come_nearer_to_their_target_with_time(scans: list[TrainingScan]) -> None:
    errors = []
    for scan in scans:
        body = (scan.truth > 0.1 * scan.truth.max()).any(0)
        # What a perfect scan shows through these maps is, in magnitude, the truth.
        assert float(nrmse(scan.target.abs() * scan.shading, scan.truth, body)) < 0.03
        gridded = Gridding()(scan.equations, scan.maps).image
        errors.append(float(nrmse(gridded, scan.target, body)))
        complex_error = torch.linalg.vector_norm((scan.start - scan.target)[:, body])
        assert float(complex_error / torch.linalg.vector_norm(scan.target[:, body])) < 0.25
    assert errors[1] < errors[0]
    assert [scan.seconds for scan in scans] == [1.0, 3.0]


def test_protocols_follow_the_patient() -> None:
    assert draw_protocol(3, Split.TRAIN) == draw_protocol(3, Split.TRAIN)
    assert draw_protocol(3, Split.TRAIN) != draw_protocol(3, Split.TEST)
    assert draw_protocol(3, Split.TRAIN) != draw_protocol(3, Split.TRAIN, epoch=1)
    with pytest.raises(UsageError, match="rising"):
        next(iter(simulated_scans(0, replace(PROTOCOL, seconds=(2.0, 1.0)))))


def test_a_stored_scan_is_the_scan(scans: list[TrainingScan], tmp_path: Path) -> None:
    write_scan(scans[0], tmp_path / "a.safetensors")
    stored = read_scan(tmp_path / "a.safetensors")
    torch.testing.assert_close(stored.start, scans[0].start)
    equations, maps, problem = scans[0].equations, scans[0].maps, stored.problem
    torch.testing.assert_close(problem.right * problem.scale, equations.right_hand_side(maps))
    torch.testing.assert_close(problem.normal(stored.start) * problem.scale, equations.normal(stored.start, maps))
    assert stored.seed == patient_seed(0)


def test_patches_are_parts_of_what_a_block_is_given(scans: list[TrainingScan], tmp_path: Path) -> None:
    write_scan(scans[1], tmp_path / "a.safetensors")
    stage = Stage(tmp_path / "given")
    stored = read_scan(tmp_path / "a.safetensors")
    stage.write(tmp_path / "a.safetensors", stored, stored.start)
    patch = read_patch(stage.path(tmp_path / "a.safetensors"), 32, None)
    assert patch.image.shape == (6, 32, 32)
    assert float(patch.weight.max()) == 1
    before = float(log_error(patch.image, patch.target, patch.weight))
    assert float(log_error(patch.target, patch.target, patch.weight)) < before
    assert abs(float(patch.average.max()) - 1) < 1


def test_a_post_processor_learns_from_the_same_scans(scans: list[TrainingScan], tmp_path: Path) -> None:
    path, stage = tmp_path / "a.safetensors", Stage(tmp_path / "given")
    write_scan(scans[0], path)
    stored = read_scan(path)
    stage.write(path, stored, stored.start)
    torch.manual_seed(0)
    network = CineUNet(3, 8, 2)
    task = UNetTask("unet", network, Supply((path,)), [path], stage, patch=48, half=False)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    with torch.no_grad():
        before = task.validate()
    for step in range(80):
        optimiser.zero_grad()
        task.loss(step).backward()
        optimiser.step()
    with torch.no_grad():
        assert task.validate() < before - 0.02


def test_the_heart_weighs_most() -> None:
    labels = torch.zeros(2, 40, 40, dtype=torch.uint8)
    labels[1, 20, 20] = 2
    weight = heart_weight(labels)
    assert float(weight[20, 28]) == 1
    assert float(weight[0, 0]) < 0.2


def test_a_bank_goes_on_where_it_ended(tmp_path: Path) -> None:
    limits = ProtocolRange(matrix=(32, 32), n_frames=(3, 3), n_coils=(2, 2), seconds=((0.4, 0.5), (0.5, 0.6)))
    bank = Bank(tmp_path, limits)
    bank.fill("train", 0, 1)
    path = bank.path("train", 0, 1)
    before = path.stat().st_mtime_ns
    bank.path("train", 0, 0).unlink()
    heard: list[int] = []
    bank.fill("train", 0, 1, on_patient=heard.append)
    assert heard == [0]
    assert path.stat().st_mtime_ns > before
    bank.fill("train", 0, 1)
    assert [p.name for p in sorted(tmp_path.iterdir())] == list(bank.names("train", 1))


def test_a_tiny_training_draws_its_patients_and_leaves_a_model(scans: list[TrainingScan], tmp_path: Path) -> None:
    parts: list[str] = []
    record = train_command("recon", tmp_path, parts.append, TrainOptions(1, 1, quick=True))
    assert record["reason"] == "steps"
    steps = [part for part in parts if not part.startswith(" ")]
    assert steps == ["prior-0", "regularisation-0", "what block 1 is given", "prior-1", "regularisation-1", "joint"]
    found = Unrolled(SHIPPED, tmp_path / MODEL)(scans[0].equations, scans[0].maps, noise_std=scans[0].noise_std)
    body = (scans[0].truth > 0.1 * scans[0].truth.max()).any(0)
    assert float(nrmse(found.image, scans[0].target, body)) < 1.2 * float(nrmse(scans[0].start, scans[0].target, body))
    weights = (tmp_path / MODEL / f"{SHIPPED}.safetensors").read_bytes()

    # One that is broken off in its second part and gone on with comes to the same weights.
    other = tmp_path / "other"
    other.mkdir()
    for folder in ("bank", "given-0"):
        shutil.copytree(tmp_path / folder, other / folder)

    def on_part(part: str) -> None:
        if part == "prior-1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_recon(other, tiny(0), on_part=on_part)
    train_recon(other, tiny(0))
    assert (other / MODEL / f"{SHIPPED}.safetensors").read_bytes() == weights


def test_a_tiny_training_of_the_post_processor_leaves_a_model_of_it(scans: list[TrainingScan], tmp_path: Path) -> None:
    parts: list[str] = []
    record = train_command("unet", tmp_path, parts.append, TrainOptions(1, 1, quick=True))
    assert (record["reason"], record["steps"]) == ("steps", 4)
    assert parts[0] == "unet"
    weights = (tmp_path / MODEL / f"{SHIPPED_UNET}.safetensors").read_bytes()
    found = UNet(folder=tmp_path / MODEL)(scans[0].equations, scans[0].maps)
    gridded = Gridding()(scans[0].equations, scans[0].maps)
    assert 0 < float(nrmse(found.image, gridded.image)) < 0.1
    train_command("unet", tmp_path, parts.append, TrainOptions(1, 1, quick=True))
    assert (tmp_path / MODEL / f"{SHIPPED_UNET}.safetensors").read_bytes() == weights


def test_more_files_are_drawn_from_with_every_step() -> None:
    waited: list[Path] = []
    files = tuple(Path(str(number)) for number in range(10))
    supply = Supply(files, first=2, growth=0.5, wait=waited.append)
    assert [supply.known(step) for step in (0, 1, 2, 15, 16, 100)] == [2, 2, 3, 9, 10, 10]
    assert Supply(files).known(0) == 10
    rng = np.random.default_rng(0)
    drawn = {supply.draw(2, rng) for _ in range(50)}
    assert drawn == set(waited) == set(files[:3])


def test_a_bank_that_cannot_be_filled_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "bank").write_text("in the way")
    with pytest.raises(SpokewiseError, match=r"ended before .* was there \(exit code 1\)"):
        train_recon(tmp_path, tiny(0))


def test_models_are_listed_beside_broken_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        models_command(tmp_path / "absent")
    shipped = models_command(None)
    assert {SHIPPED, SHIPPED_UNET} <= {model["name"] for model in shipped["models"]}
    assert not any(model["problem"] for model in shipped["models"])
    assert not shipped["other_problems"]
    for suffix in ("json", "safetensors"):
        shutil.copy(FOLDER / f"{SHIPPED}.{suffix}", tmp_path)
    (tmp_path / "torn.json").write_text("{")
    found = models_command(tmp_path)
    assert [model["name"] for model in found["models"]] == [SHIPPED]
    assert "torn.json cannot be read" in found["other_problems"]["torn"]


def test_more_time_is_more_steps() -> None:
    short, long = (ReconTraining.within(minutes, patients=20, seed=1) for minutes in (30.0, 240.0))
    assert short.prior_steps * 8 == long.prior_steps
    with pytest.raises(UsageError, match="no training"):
        train_command("telepathy", Path(), print, TrainOptions(1, 1, quick=True))
    for wrong in ({"minutes": 0.0}, {"patients": 0}):
        with pytest.raises(UsageError):
            ReconTraining(**wrong)  # type: ignore[arg-type]


def test_a_training_goes_on_from_the_shipped_network(
    scans: list[TrainingScan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ReconTraining.within(1, patients=1, seed=0, go_on=True).network == shipped_network()[1].options
    usual = tiny(0)
    torch.manual_seed(3)
    shipped = UnrolledNetwork(usual.network)
    for parameter in shipped.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    monkeypatch.setattr("simulate.training.recon.shipped_network", lambda: (shipped, usual.recipe))
    train_recon(tmp_path, replace(usual, go_on=True, learning_rate=1e-9, joint_steps=0))
    found, _ = shipped_network(SHIPPED, tmp_path / MODEL)
    for name, value in found.blocks.state_dict().items():
        if "prior" in name:
            torch.testing.assert_close(value, shipped.blocks.state_dict()[name], rtol=2e-3, atol=1e-5)
