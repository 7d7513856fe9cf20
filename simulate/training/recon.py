"""Train the unrolled network: scans are drawn, blocks learn one after another, then together.

Everything lies in one folder and is gone on from: a bank of scans, what each block is given of them, and a training per
part. After each block the network of the blocks so far is written as a model that works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from kspace.errors import UsageError
from kspace.recon.networks.temporal_prior import PriorOptions
from kspace.recon.networks.unrolled import Block, Reference, UnrolledNetwork, UnrolledOptions
from kspace.recon.unrolled import SHIPPED, Recipe, shipped_network
from kspace.weights.card import ModelCard
from kspace.weights.store import save_model
from simulate.training.bank import Bank, read_scan
from simulate.training.checkpoint import load_tensors
from simulate.training.dataset import Split
from simulate.training.filler import Filler
from simulate.training.options import TrainingOptions
from simulate.training.recon_task import PriorTask, RegularisationTask, Supply, UnrolledTask
from simulate.training.scans import SECOND, START, WARM_ITERATIONS, ProtocolRange
from simulate.training.stage import Stage, fill
from simulate.training.trainer import OnStep, Task, TrainingResult, train

MODEL = "model"
"""Folder of the network that came of it, as a stored model."""


def _usual() -> UnrolledOptions:
    return UnrolledOptions(prior=PriorOptions(second=True))


@dataclass(frozen=True)
class ReconTraining:
    """How the unrolled network is trained.

    Parameters
    ----------
    minutes
        For all of it; the parts share it.
    patients, validation_patients
        Virtual patients to learn from, and to choose the weights on.
    network
        Architecture.
    prior_steps, next_steps
        Steps of the first block's prior, and of each later one, which begins with the weights of the one before.
    regularisation_steps, joint_steps
        Steps of each block's weight beside the data, and of all blocks together.
    first_patients, steps_per_patient
        The first prior begins with so many patients, and one more after every so many steps, while the rest is drawn.
    learning_rate
        Of the priors; what is learnt later takes a share of it.
    patch, per_step
        See :class:`~simulate.training.recon_task.PriorTask`.
    seed
        Of weights and order. Which patients there are follows from their numbers.
    limits
        What their scans are drawn from.
    go_on
        Begin with the weights of the shipped network, whose architecture ``network`` must be.
    """

    minutes: float = 120.0
    patients: int = 100
    validation_patients: int = 6
    network: UnrolledOptions = field(default_factory=_usual)
    prior_steps: int = 3000
    next_steps: int = 1500
    regularisation_steps: int = 48
    joint_steps: int = 100
    first_patients: int = 11
    steps_per_patient: int = 40
    learning_rate: float = 1.5e-3
    patch: int = 64
    per_step: int = 2
    seed: int = 0
    limits: ProtocolRange = field(default_factory=ProtocolRange)
    go_on: bool = False

    def __post_init__(self) -> None:
        for name in ("patients", "validation_patients", "prior_steps", "next_steps", "first_patients"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", expected="1 or more")
        if not self.minutes > 0:
            raise UsageError(f"{self.minutes} minutes", expected="more than 0")

    @classmethod
    def within(cls, minutes: float, *, patients: int, seed: int, go_on: bool = False) -> ReconTraining:
        """Return a training that fits into so many minutes of two cores: the steps follow the time."""
        network = shipped_network()[1].options if go_on else _usual()
        usual = cls(minutes=minutes, patients=patients, network=network, seed=seed, go_on=go_on)
        share = minutes / 120
        steps = {
            name: max(10, round(getattr(usual, name) * share))
            for name in ("prior_steps", "next_steps", "joint_steps", "steps_per_patient")
        }
        return replace(usual, first_patients=min(usual.first_patients, patients), **steps)

    @property
    def recipe(self) -> Recipe:
        """What the card says of the network."""
        n = self.network
        return Recipe(
            blocks=n.blocks, iterations=n.iterations, consistency=n.consistency, channels=n.prior.channels,
            depth=n.prior.depth, start_iterations=START.max_iterations, start_noise_factor=START.noise_factor,
            start_signal_factor=START.signal_factor, start_patch=START.patch, warm_iterations=WARM_ITERATIONS,
            second_iterations=SECOND.max_iterations if n.prior.second else 0, second_noise_factor=SECOND.noise_factor,
            second_signal_factor=SECOND.signal_factor,
        )  # fmt: skip

    def minutes_for(self, kind: str) -> float:
        """Return how many minutes one part may take: ``prior``, ``regularisation`` or ``joint``."""
        blocks = self.network.blocks
        shares = {"prior": 0.7 / blocks, "regularisation": 0.1 / blocks, "joint": 0.2}
        return self.minutes * shares[kind]


OnPart = Callable[[str], None]


def train_recon(
    out: Path,
    training: ReconTraining,
    *,
    commit: str = "",
    on_part: OnPart | None = None,
    on_step: OnStep | None = None,
) -> TrainingResult:
    """Train, or go on with a training that was broken off.

    Parameters
    ----------
    out
        Folder of all that it makes; about 150 MB a patient.
    training
        How.
    commit
        Of the code, for the card.
    on_part, on_step
        Hear which part begins, and of each of its steps.

    Returns
    -------
    The result of the last part. The model is ``out / MODEL``.
    """
    torch.manual_seed(training.seed)
    network = UnrolledNetwork(training.network)
    if training.go_on:
        network.load_state_dict(shipped_network()[0].state_dict())
    bank = Bank(out / "bank", training.limits)
    learnt_from, chosen_on = (
        [bank.folder / name for name in bank.names(split, number)]
        for split, number in ((Split.TRAIN, training.patients), (Split.VALIDATION, training.validation_patients))
    )
    per_patient = len(training.limits.seconds)
    say = on_part or (lambda part: None)
    result: TrainingResult | None = None

    def learn(name: str, task: Task, kind: str, **options: Any) -> TrainingResult:
        nonlocal result
        say(name)
        chosen = TrainingOptions(minutes=training.minutes_for(kind), seed=training.seed, final_share=0.02, **options)
        result = train(task, chosen, out / name, on_step=on_step)
        if result.reason == "interrupted":
            raise KeyboardInterrupt
        if result.weights is not None:
            task.model.load_state_dict(load_tensors(result.weights)[0])
        return result

    first_stage = Stage(out / "given-0")
    numbers = training.first_patients, training.patients, training.validation_patients
    with Filler(fill, bank, first_stage, *numbers) as filler:
        for number, block in enumerate(network.blocks):
            assert isinstance(block, Block)
            stage = Stage(out / f"given-{number}")
            if number > 0:
                if not training.go_on:
                    block.load_state_dict(network.blocks[number - 1].state_dict())
                say(f"what block {number} is given")
                _give(network.blocks[number - 1], Stage(out / f"given-{number - 1}"), stage, learnt_from + chosen_on)
            supply = Supply(
                tuple(stage.path(path) for path in learnt_from),
                per_patient * training.first_patients if number == 0 else None,
                per_patient / training.steps_per_patient,
                filler.wait,
            )
            prior = PriorTask(
                f"prior-{number}", block.prior, supply, [stage.path(path) for path in chosen_on], patch=training.patch,
                per_step=training.per_step, seed=training.seed,
            )  # fmt: skip
            done = learn(
                f"prior-{number}", prior, "prior", learning_rate=training.learning_rate * (1.0 if number == 0 else 0.5),
                weight_decay=1e-4, ema=0.998, validate_every=250, warmup_steps=100,
                max_steps=training.prior_steps if number == 0 else training.next_steps,
            )  # fmt: skip
            if number == 0:
                # What comes after learns from the patients that were come to before time was up.
                learnt_from = learnt_from[: supply.known(done.steps)]
                for path in learnt_from + chosen_on:
                    filler.wait(first_stage.path(path))
            name, some = f"regularisation-{number}", learnt_from[: training.regularisation_steps // 3]
            learn(
                name, RegularisationTask(name, block, some, chosen_on, stage), "regularisation", learning_rate=0.1,
                ema=0.8, validate_every=24, warmup_steps=1, max_steps=training.regularisation_steps,
            )  # fmt: skip
            _write(network, number + 1, training, out, commit)
    if training.joint_steps > 0:
        joint = UnrolledTask("joint", network, learnt_from, chosen_on, seed=training.seed)
        learn(
            "joint", joint, "joint", learning_rate=0.1 * training.learning_rate, ema=0.95, validate_every=25,
            warmup_steps=10, max_steps=training.joint_steps,
        )  # fmt: skip
        _write(network, training.network.blocks, training, out, commit)
    assert result is not None
    return result


def _give(block: Any, before: Stage, after: Stage, scans: list[Path]) -> None:
    for path in scans:
        if after.path(path).exists():
            continue
        stored = read_scan(path)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            images = block(stored.problem, before.images(path), Reference.of(stored.start, stored.second))
        after.write(path, stored, images)


def _write(network: UnrolledNetwork, blocks: int, training: ReconTraining, out: Path, commit: str) -> None:
    """Write the first so many blocks as a model, without figures: those are for a test to give."""
    recipe = training.recipe.model_copy(update={"blocks": blocks})
    some = UnrolledNetwork(recipe.options)
    kept = some.state_dict().keys()
    some.load_state_dict({name: value for name, value in network.state_dict().items() if name in kept})
    card = scan_card(
        patients=training.patients,
        validation_patients=training.validation_patients,
        times=len(training.limits.seconds),
        minutes=training.minutes,
        seed=training.seed,
        name=SHIPPED,
        description="Unrolled network for golden-angle radial cine: learnt 2D+t priors and data consistency in turn.",
        architecture="UnrolledNetwork",
        options=recipe.model_dump(mode="json"),
        commit=commit,
        limits=["Trained on simulated hearts only."],
    )
    (out / MODEL).mkdir(exist_ok=True)
    save_model(some, card, out / MODEL, dtype=torch.float16)


def scan_card(
    *, patients: int, validation_patients: int, times: int, minutes: float, seed: int, **facts: Any
) -> ModelCard:
    """Return the card of a network that learnt from the bank of scans; ``facts`` are the fields that are its own."""
    return ModelCard(
        task="recon",
        training_data=(
            f"{patients} virtual patients, one slice each at {times} times, all synthetic; chosen on "
            f"{validation_patients} others. Protocols as simulate.training.scans draws them."
        ),
        seed=seed,
        cost=f"at most {minutes:g} minutes on a CPU",
        figures={},
        **facts,
    )
