"""Train the network that finds corrupted spokes, and calibrate what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from kspace.errors import InputError, UsageError
from kspace.motion.network import MODEL, SpokeNetwork, SpokeNetworkOptions
from kspace.weights.card import ModelCard
from kspace.weights.store import save_model
from simulate.training.checkpoint import load_tensors
from simulate.training.dataset import Split
from simulate.training.motion_bank import BankedScan, MotionBankOptions, fill_motion_bank, read_motion_bank
from simulate.training.options import TrainingOptions
from simulate.training.recon import MODEL as FOLDER
from simulate.training.trainer import OnStep, TrainingResult, train

_SCANS_A_STEP = 6
_FEWEST_SPOKES = 400  # of a scan that is cut


@dataclass(frozen=True)
class MotionTraining:
    """How it is trained.

    Parameters
    ----------
    minutes
        For the steps; drawing the bank comes before and takes about half a minute of one core a patient.
    patients, validation_patients
        Virtual patients to learn from, and to choose and calibrate the weights on.
    network, bank
        Size, and what scans are drawn from.
    steps
        None follows from the time.
    learning_rate
        Of Adam with decay.
    seed
        Of weights and order.
    """

    minutes: float = 10.0
    patients: int = 12
    validation_patients: int = 5
    network: SpokeNetworkOptions = field(default_factory=SpokeNetworkOptions)
    bank: MotionBankOptions = field(default_factory=MotionBankOptions)
    steps: int | None = 1500
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.patients, self.validation_patients) < 1:
            raise UsageError("a training without patients", expected="at least one to learn from and one to choose on")


class MotionTask:
    """A :class:`~simulate.training.trainer.Task`: cross-entropy over the spokes of whole scans."""

    name = "motion"

    def __init__(self, network: SpokeNetwork, learn: Sequence[BankedScan], choose: Sequence[BankedScan], seed: int):
        self.model: nn.Module = network
        self._learn, self._choose, self._seed = learn, choose, seed

    def loss(self, step: int) -> Tensor:
        """Return the mean over a few scans, each cut at random, as scans have not come to their end when judged."""
        rng = np.random.default_rng([self._seed, step])
        losses = []
        for number in rng.choice(len(self._learn), _SCANS_A_STEP):
            scan = self._learn[int(number)]
            length = int(rng.integers(min(_FEWEST_SPOKES, len(scan.corrupted)), len(scan.corrupted) + 1))
            first = int(rng.integers(0, len(scan.corrupted) - length + 1))
            part = slice(first, first + length)
            noise = 0.05 * torch.randn((length, scan.features.shape[1]))
            losses.append(_loss(self.model, scan.features[part] + noise, scan.corrupted[part]))
        return torch.stack(losses).mean()

    def validate(self) -> float:
        """Return the mean cross-entropy of the validation scans."""
        return float(torch.stack([_loss(self.model, s.features, s.corrupted) for s in self._choose]).mean())


def train_motion(
    out: Path, training: MotionTraining, *, commit: str = "", on_part: Callable[[str], None] | None = None,
    on_step: OnStep | None = None,
) -> TrainingResult:  # fmt: skip
    """Draw a bank, train on it, calibrate on its validation patients and write the model to ``out / "model"``.

    Parameters
    ----------
    out
        Folder of all that it makes; a bank and a training in it are gone on from.
    training
        How.
    commit
        Of the code, for the card.
    on_part, on_step
        Hear of each patient, and of each step.
    """
    bank = out / "bank"
    for split, number in ((Split.TRAIN, training.patients), (Split.VALIDATION, training.validation_patients)):

        def told(index: int, split: Split = split) -> None:
            if on_part is not None:
                on_part(f"{split.value} patient {index}")

        fill_motion_bank(bank, split, 0, number, training.bank, on_patient=told)
    learn = list(read_motion_bank(bank, Split.TRAIN, training.patients, training.bank.scans))
    choose = list(read_motion_bank(bank, Split.VALIDATION, training.validation_patients, training.bank.scans))
    if not learn or not choose:
        raise InputError(f"the bank in {bank} is empty", expected="scans of both splits")
    torch.manual_seed(training.seed)
    network = SpokeNetwork(training.network)
    every = torch.cat([scan.features for scan in learn])
    network.mean.copy_(every.mean(0))
    network.deviation.copy_(every.std(0).clamp_min(0.05))
    options = TrainingOptions(
        minutes=training.minutes, learning_rate=training.learning_rate, weight_decay=1e-3, warmup_steps=50,
        max_steps=training.steps, final_share=0.02, validate_every=100, ema=0.99, seed=training.seed,
    )  # fmt: skip
    result = train(MotionTask(network, learn, choose, training.seed), options, out / "steps", on_step=on_step)
    if result.weights is not None:
        network.load_state_dict(load_tensors(result.weights)[0])
        calibrate(network, choose)
        (out / FOLDER).mkdir(exist_ok=True)
        save_model(network, _card(network, training, len(learn), len(choose), commit), out / FOLDER)
    return result


def calibrate(network: SpokeNetwork, scans: Sequence[BankedScan]) -> None:
    """Fit scale and offset of the network's logit to scans, by Newton's method."""
    network.eval()
    network.scale.fill_(1.0)
    network.offset.fill_(0.0)
    with torch.no_grad():
        logit = torch.cat([network(s.features[None])[0] for s in scans]).double()
    wanted = torch.cat([s.corrupted for s in scans]).double()
    inputs = torch.stack((logit, torch.ones_like(logit)), dim=1)
    found = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for _ in range(50):
        chance = torch.sigmoid(inputs @ found)
        spread = (chance * (1 - chance)).clamp_min(1e-9)
        hessian = (inputs * spread[:, None]).T @ inputs + 1e-3 * torch.eye(2, dtype=torch.float64)
        step = torch.linalg.solve(hessian, inputs.T @ (wanted - chance) - 1e-3 * (found - torch.tensor([1.0, 0.0])))
        found = found + step.clamp(-1, 1)
    network.scale.fill_(float(found[0]))
    network.offset.fill_(float(found[1]))


def _loss(network: nn.Module, features: Tensor, corrupted: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(network(features[None])[0], corrupted.float())


def _card(network: SpokeNetwork, training: MotionTraining, learnt: int, chosen: int, commit: str) -> ModelCard:
    return ModelCard(
        name=MODEL,
        task="motion",
        description="Probability that a radial spoke does not show what its frame should, from physics checks of it "
        "and its neighbours in time.",
        architecture="SpokeNetwork",
        options=dict(network.options.record),  # type: ignore[arg-type]
        training_data=f"Simulated scans only (synthetic): {learnt} of {training.patients} virtual patients, chosen and "
        f"calibrated on {chosen} of {training.validation_patients} others.",
        seed=training.seed,
        commit=commit,
        cost=f"{training.steps or 'as many as there was time for'} steps on one core of a CPU, a few minutes, beside "
        "drawing the scans.",
        figures={},
        limits=[
            "Trained on simulated hearts, corruptions and coils only.",
            "What the first quarter of a second of a scan shows can hardly be judged: nothing foresees it.",
            "A wrong phase in which the ventricle is as full as it should be counts as sound.",
        ],
    )
