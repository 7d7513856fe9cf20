"""Train the U-Net that cleans gridded images: the baseline, from the same scans as the unrolled network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from kspace.errors import UsageError
from kspace.recon.networks.unet import CineUNet
from kspace.recon.unet import SHIPPED_UNET, UNetRecipe
from kspace.weights.store import save_model
from simulate.training.bank import Bank
from simulate.training.checkpoint import load_tensors
from simulate.training.dataset import Split
from simulate.training.filler import Filler
from simulate.training.options import TrainingOptions
from simulate.training.recon import MODEL, OnPart, scan_card
from simulate.training.recon_task import Supply, UNetTask
from simulate.training.scans import ProtocolRange
from simulate.training.stage import Stage, fill
from simulate.training.trainer import OnStep, TrainingResult, train


@dataclass(frozen=True)
class UNetTraining:
    """How the post-processor is trained.

    Parameters
    ----------
    minutes
        For all of it.
    patients, validation_patients
        Virtual patients to learn from, and to choose the weights on.
    network
        Architecture.
    steps
        None follows from the time.
    first_patients, steps_per_patient
        It begins with so many patients, and one more after every so many steps, while the rest is drawn.
    learning_rate, warmup_steps
        See :class:`~simulate.training.options.TrainingOptions`.
    patch
        Pixels along a patch's sides.
    seed
        Of weights and order. Which patients there are follows from their numbers.
    limits
        What their scans are drawn from.
    """

    minutes: float = 120.0
    patients: int = 100
    validation_patients: int = 6
    network: UNetRecipe = field(default_factory=lambda: UNetRecipe(neighbours=5, features=20, levels=3))
    steps: int | None = None
    first_patients: int = 11
    steps_per_patient: int = 40
    learning_rate: float = 1.5e-3
    warmup_steps: int = 60
    patch: int = 64
    seed: int = 0
    limits: ProtocolRange = field(default_factory=ProtocolRange)

    def __post_init__(self) -> None:
        for name in ("patients", "validation_patients", "first_patients", "steps_per_patient"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", expected="1 or more")


def train_unet(
    out: Path,
    training: UNetTraining,
    *,
    commit: str = "",
    on_part: OnPart | None = None,
    on_step: OnStep | None = None,
) -> TrainingResult:
    """Train, or go on with a training that was broken off.

    Parameters
    ----------
    out
        Folder of all that it makes; about 150 MB a patient. The bank in it may be that of the unrolled network.
    training
        How.
    commit
        Of the code, for the card.
    on_part, on_step
        Hear which part begins, and of each of its steps.

    Returns
    -------
    The result. The model is ``out / MODEL``, without figures: those are for a test to give.
    """
    torch.manual_seed(training.seed)
    recipe = training.network
    network = CineUNet(recipe.neighbours, recipe.features, recipe.levels)
    bank, stage = Bank(out / "bank", training.limits), Stage(out / "given-0")
    learnt_from, chosen_on = (
        tuple(bank.folder / name for name in bank.names(split, number))
        for split, number in ((Split.TRAIN, training.patients), (Split.VALIDATION, training.validation_patients))
    )
    per_patient = len(training.limits.seconds)
    first = min(training.first_patients, training.patients)
    with Filler(fill, bank, stage, first, training.patients, training.validation_patients) as filler:

        def wait(path: Path) -> None:
            filler.wait(stage.path(path))

        supply = Supply(learnt_from, per_patient * first, per_patient / training.steps_per_patient, wait)
        task = UNetTask("unet", network, supply, chosen_on, stage, patch=training.patch, seed=training.seed)
        options = TrainingOptions(
            minutes=training.minutes, learning_rate=training.learning_rate, weight_decay=1e-4,
            warmup_steps=training.warmup_steps, max_steps=training.steps, final_share=0.02, validate_every=150,
            ema=0.99, seed=training.seed,
        )  # fmt: skip
        if on_part is not None:
            on_part("unet")
        result = train(task, options, out / "unet", on_step=on_step)
    if result.weights is not None:
        network.load_state_dict(load_tensors(result.weights)[0])
        card = scan_card(
            patients=training.patients,
            validation_patients=training.validation_patients,
            times=len(training.limits.seconds),
            minutes=training.minutes,
            seed=training.seed,
            name=SHIPPED_UNET,
            description="U-Net that cleans gridded golden-angle radial cines; nothing holds it to the data.",
            architecture="CineUNet",
            options=recipe.model_dump(mode="json"),
            commit=commit,
            limits=["Trained on simulated hearts only.", "It can invent what was not measured."],
        )
        (out / MODEL).mkdir(exist_ok=True)
        save_model(network, card, out / MODEL, dtype=torch.float16)
    return result
