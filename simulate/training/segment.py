"""Train what segments: a network that finds the heart in a coarse image, and an ensemble that draws its contours.

Everything lies in one folder and is gone on from: two banks of drawn hearts and a training per network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from kspace.errors import UsageError
from kspace.segment.network import NetworkOptions, SegmentationNetwork
from kspace.segment.networks import FINDER, View, member_name, stored_network
from kspace.segment.segmenter import Segmenter
from kspace.weights.card import ModelCard
from kspace.weights.store import save_model
from simulate.training.bank import Bank
from simulate.training.checkpoint import load_tensors
from simulate.training.dataset import HeartOptions, Split
from simulate.training.exported_hearts import exported_hearts
from simulate.training.filler import Filler
from simulate.training.heart_bank import HeartBank
from simulate.training.options import TrainingOptions
from simulate.training.pseudo_labels import pseudo_labelled
from simulate.training.randomise import Randomisation
from simulate.training.scanned_hearts import scanned_hearts
from simulate.training.segment_task import SegmentTask
from simulate.training.trainer import BEST, OnStep, TrainingResult, train

MODELS = "models"
"""Folder of the networks that came of it, as stored models."""
_AVERAGED_SHARE = 10.0  # the average of the weights reaches back over a tenth of the steps
_FIRST_EXPORTED = 30_000  # patient
_USUAL_MINUTES = 110.0  # what the usual steps take, one network after the other
WHOLE_BODY = Randomisation(shift_mm=75.0, scale=(0.8, 1.25), framed=0.6, acquired_mm=(2.0, 6.0))
"""What the finder learns from: hearts anywhere in a field of view of some 400 mm, often with blank borders."""


@dataclass(frozen=True)
class NetworkTraining:
    """How one network is trained.

    Parameters
    ----------
    steps
        Of the optimiser.
    hearts, first
        Virtual patients to learn from, one slice each; it begins with ``first`` of them, and the rest comes in evenly.
    offset
        Number of the first patient.
    hearts_options, randomisation
        What they are drawn from.
    network
        Its size.
    learning_rate
        At its height.
    """

    steps: int
    hearts: int
    first: int
    hearts_options: HeartOptions
    randomisation: Randomisation
    network: NetworkOptions
    learning_rate: float = 2e-3
    offset: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 1 <= self.first <= self.hearts:
            raise UsageError(
                f"{self.steps} steps on {self.hearts} hearts, {self.first} of them at first",
                expected="1 or more steps, and no more hearts at first than in the end",
            )


@dataclass(frozen=True)
class SegmentTraining:
    """How all of it is trained.

    Parameters
    ----------
    contours, finder
        The first member of the ensemble that draws contours, and the network that finds the heart.
    branch
        How every other member is trained: it begins with the first one's weights, at a learning rate that is high
        again, and goes on with patients of its own (Huang et al., ICLR 2017, make ensembles of one training so).
    finish
        How every member ends: on the slices of ``exported`` patients as scanners export them, beside so many of the
        hearts that it learnt from.
    members
        Networks of the ensemble.
    exported, exported_validation
        Whole patients that training ends on, and more to choose the weights on; 0 leaves that out.
    balance
        Added to a member's logits of background, LV, myocardium and RV in the end. Before, exports of validation
        patients had cavities drawn too small and walls too thick (docs/segmentation.md).
    validation
        Virtual patients to choose the weights on.
    minutes
        For each network, at most.
    seed
        Of weights and order. Which patients there are follows from their numbers.
    go_on
        Every network begins with the weights of the shipped one of its name.
    """

    contours: NetworkTraining = field(
        default_factory=lambda: NetworkTraining(
            5000, 4800, 300, HeartOptions(), Randomisation(), NetworkOptions()
        )
    )  # fmt: skip
    branch: NetworkTraining = field(
        default_factory=lambda: NetworkTraining(
            1000, 1000, 200, HeartOptions(), Randomisation(artefacts=0.3), NetworkOptions(), 1.5e-3, offset=4800
        )
    )  # fmt: skip
    finder: NetworkTraining = field(
        default_factory=lambda: NetworkTraining(
            2000, 2400, 300, HeartOptions(frames=6, size=112, pixel_mm=3.6, planes=1), WHOLE_BODY,
            NetworkOptions((16, 32, 64, 96)),
        )
    )  # fmt: skip
    finish: NetworkTraining = field(
        default_factory=lambda: NetworkTraining(
            400, 600, 600, HeartOptions(), Randomisation(), NetworkOptions(), 5e-4
        )
    )  # fmt: skip
    members: int = 3
    exported: int = 60
    exported_validation: int = 8
    balance: tuple[float, float, float, float] = (0.4, 0.6, 0.0, 0.4)
    validation: int = 96
    minutes: float = 120.0
    seed: int = 0
    go_on: bool = False

    def __post_init__(self) -> None:
        if self.members < 1 or self.validation < 1 or not self.minutes > 0:
            raise UsageError(
                f"{self.members} members, {self.validation} hearts for validation, {self.minutes} minutes",
                expected="more than 0 of each",
            )

    @classmethod
    def within(
        cls, minutes: float, *, patients: int | None = None, seed: int = 0, go_on: bool = False
    ) -> SegmentTraining:
        """Return a training that fits into so many minutes of two cores: steps follow the time, patients the steps."""
        usual = cls(seed=seed, go_on=go_on)
        share = minutes / _USUAL_MINUTES
        number = usual.contours.hearts if patients is None else patients

        def scaled(how: NetworkTraining) -> NetworkTraining:
            hearts = max(1, round(how.hearts * number / usual.contours.hearts * (share if patients is None else 1)))
            offset = number if how.offset else 0
            return replace(
                how, steps=max(10, round(how.steps * share)), hearts=hearts, first=min(how.first, hearts), offset=offset
            )

        return replace(
            usual, contours=scaled(usual.contours), branch=scaled(usual.branch), finder=scaled(usual.finder),
            finish=scaled(usual.finish), exported=max(1, round(usual.exported * share)), minutes=minutes,
        )  # fmt: skip


def train_segment(
    out: Path, training: SegmentTraining, *, commit: str = "", only: str | None = None,
    scans: Bank | None = None, unlabelled: Path | None = None, on_part: Callable[[str], None] | None = None,
    on_step: OnStep | None = None,
) -> TrainingResult:  # fmt: skip
    """Train, or go on with a training that was broken off.

    Parameters
    ----------
    out
        Folder of all that it makes; half a megabyte a heart.
    training
        How.
    commit
        Of the code, for the cards.
    only
        Name of one network; all by default, one after another.
    scans
        Bank of ``spokewise train recon``: the branches learn from its reconstructions too.
    unlabelled
        Folder of cines, see :func:`~simulate.training.pseudo_labels.pseudo_labelled`: the branches learn too from what
        the first member draws on them, where it is plausible. It needs finder and first member to be trained.
    on_part, on_step
        Hear which network's turn it is, and of each of its steps.

    Returns
    -------
    The result of the last network. The models are in ``out / MODELS``.

    Raises
    ------
    UsageError
        When there is no network of that name.
    """
    names = [FINDER, *(member_name(k) for k in range(training.members))]
    if only is not None and only not in names:
        raise UsageError(f"there is no network {only!r} to train", expected=", ".join(names))
    result: TrainingResult | None = None
    for name in names if only is None else [only]:
        if on_part is not None:
            on_part(name)
        part = _part(name, training, scans, unlabelled, out)
        result = _learn(part, training, out, on_step)
        if result.reason != "interrupted" and name != FINDER and training.exported:
            result = _finish(part, training, result, out, on_step)
        if result.reason == "interrupted":
            raise KeyboardInterrupt
        _write(part, training, result, out, commit)
    assert result is not None
    return result


@dataclass(frozen=True)
class _Part:
    """One network's training: how, on what, from which weights on (a file's, or the shipped ones), and its seed."""

    name: str
    how: NetworkTraining
    bank: HeartBank
    scanned: tuple[Path, ...]
    pseudo: tuple[Path, ...]
    begins_with: Path | None
    shipped: bool
    seed: int


def _part(
    name: str, training: SegmentTraining, scans: Bank | None, unlabelled: Path | None, out: Path
) -> _Part:  # fmt: skip
    members = [member_name(k) for k in range(training.members)]
    number = members.index(name) if name in members else 0
    seed = 1000 * training.seed + number
    if name == FINDER:
        how, folder = training.finder, out / "bodies"
    elif number == 0:
        how, folder = training.contours, out / "hearts"
    else:
        how, folder = training.branch, out / "hearts-branches"
        how = replace(how, offset=how.offset + (number - 1) * how.hearts)
    bank = HeartBank(folder, how.hearts_options, how.randomisation)
    if number == 0:
        return _Part(name, how, bank, (), (), None, training.go_on, seed)
    first = out / members[0] / BEST
    if not (first.exists() or training.go_on):
        raise UsageError(
            f"{name} begins with the weights of {members[0]}", expected=f"{members[0]} to be trained before"
        )
    scanned = scanned_hearts(scans, out / "scanned", Split.TRAIN, how.hearts_options) if scans is not None else ()
    pseudo: Iterator[Path] = iter(())
    if unlabelled is not None:
        # One network looked at in four ways: the same labels whichever other members there are.
        teacher = Segmenter("augmentation", folder=out / MODELS)
        pseudo = pseudo_labelled(unlabelled, teacher, out / "pseudo", how.hearts_options)
    return _Part(
        name, how, bank, tuple(scanned), tuple(pseudo), None if training.go_on else first, training.go_on, seed
    )


def _learn(part: _Part, training: SegmentTraining, out: Path, on_step: OnStep | None) -> TrainingResult:
    how, bank = part.how, part.bank
    torch.manual_seed(part.seed)
    network = SegmentationNetwork(how.network)
    if part.begins_with is not None:
        network.load_state_dict(load_tensors(part.begins_with)[0])
    elif part.shipped:
        network.load_state_dict(stored_network(part.name)[0].state_dict())
        if part.name != FINDER:
            _shift(network, training.balance, -1)
    files = [bank.path(Split.TRAIN, how.offset + index) for index in range(how.hearts)]
    given = [*part.scanned, *part.pseudo]
    chosen_on = [bank.path(Split.VALIDATION, index) for index in range(training.validation)]
    with Filler(_fill, bank, how, training.validation) as filler:
        task = SegmentTask(
            network, [*given, *files], chosen_on, first=len(given) + how.first,
            growth=(how.hearts - how.first) / how.steps, seed=part.seed, wait=filler.wait, name=part.name,
        )  # fmt: skip
        return train(task, _options(how, training.minutes, part.seed), out / part.name, on_step=on_step)


def _options(how: NetworkTraining, minutes: float, seed: int) -> TrainingOptions:
    return TrainingOptions(
        minutes=minutes, learning_rate=how.learning_rate, weight_decay=1e-4,
        ema=max(0.5, 1 - _AVERAGED_SHARE / how.steps), warmup_steps=min(100, how.steps // 5),
        max_steps=how.steps, validate_every=250, final_share=0.01, seed=seed,
    )  # fmt: skip


def _shift(network: SegmentationNetwork, balance: tuple[float, ...], sign: int) -> None:
    """Put the balance on the logits, or take it off, as before a training that goes on from what has it."""
    network.labels.conv.conv.bias.data += sign * torch.tensor(balance)


def _finish(
    part: _Part, training: SegmentTraining, learnt: TrainingResult, out: Path, on_step: OnStep | None
) -> TrainingResult:  # fmt: skip
    """Go on with a member that has been trained, on exported slices."""
    if learnt.weights is None:
        return learnt
    how, sizes = training.finish, part.how.hearts_options
    network = SegmentationNetwork(part.how.network)
    network.load_state_dict(load_tensors(learnt.weights)[0])
    drawn = [part.bank.path(Split.TRAIN, part.how.offset + k) for k in range(min(how.hearts, part.how.hearts))]
    chosen_on = [part.bank.path(Split.VALIDATION, index) for index in range(training.validation)]
    patients = range(_FIRST_EXPORTED, _FIRST_EXPORTED + training.exported)
    others = range(_FIRST_EXPORTED, _FIRST_EXPORTED + training.exported_validation)
    given = exported_hearts(out / "exported", Split.TRAIN, patients, sizes)
    seen = exported_hearts(out / "exported", Split.VALIDATION, others, sizes)
    files = [*given, *drawn], [*chosen_on, *seen]
    options, folder = _options(how, training.minutes, part.seed + 500), out / f"{part.name}-exported"
    # Time may have been up before all of them were drawn.
    with Filler(_fill, part.bank, part.how, training.validation) as filler:
        task = SegmentTask(network, *files, seed=part.seed + 500, wait=filler.wait, name=part.name)
        done = train(task, options, folder, on_step=on_step)
    return replace(done, steps=learnt.steps + done.steps, seconds=learnt.seconds + done.seconds)


def _fill(bank: HeartBank, how: NetworkTraining, validation: int) -> None:
    """Draw the hearts that a training begins with, those that it is validated on, and the rest."""
    first, last = how.offset + how.first, how.offset + how.hearts
    bank.fill(Split.TRAIN, range(how.offset, first))
    bank.fill(Split.VALIDATION, range(validation))
    bank.fill(Split.TRAIN, range(first, last))


def _write(part: _Part, training: SegmentTraining, result: TrainingResult, out: Path, commit: str) -> None:
    """Write a network as a model, without figures: those are for a test to give."""
    name, how = part.name, part.how
    network = SegmentationNetwork(how.network)
    if result.weights is None:
        return
    network.load_state_dict(load_tensors(result.weights)[0])
    if name != FINDER:
        _shift(network, training.balance, 1)
    seen = "a coarse view of the whole body" if name == FINDER else "a close view of the heart"
    hearts = how.hearts_options
    view = View(**asdict(how.network), pixel_mm=hearts.pixel_mm, size=hearts.size)
    card = ModelCard(
        name=name,
        task="segment",
        description=f"LV cavity, myocardium and RV cavity of short-axis cines, in {seen}; and where the slice lies.",
        architecture="SegmentationNetwork",
        options=view.model_dump(mode="json"),
        training_data=_training_data(part, training),
        seed=part.seed,
        commit=commit,
        cost=f"{result.steps} steps, {result.seconds / 60:.0f} minutes on a CPU",
        figures={"validation_1_minus_dice": round(result.best, 4)},
        limits=[
            "No expert drew what it learnt from." if part.pseudo else "Trained on simulated hearts only.",
            "Short axis only.",
        ],
    )
    (out / MODELS).mkdir(exist_ok=True)
    save_model(network, card, out / MODELS, dtype=torch.float16)


def _training_data(part: _Part, training: SegmentTraining) -> str:
    told = (
        f"{part.how.hearts} virtual patients, one randomised slice each, and {len(part.scanned)} compressed-sensing "
        f"reconstructions of simulated scans, all synthetic; chosen on {training.validation} others. Drawn by "
        "simulate.training.dataset."
    )
    if training.exported:
        told += f" It ended on exports of {training.exported} patients."
    if part.pseudo:
        told += f" {len(part.pseudo)} slices of unlabelled cines as {member_name(0)} draws them, of plausible volumes."
    if part.shipped:
        told += " Began with the weights that were shipped before."
    return told + (f" Began with {member_name(0)}." if part.begins_with is not None else "")
