"""Train the networks that find mis-triggered lines: ``spokewise train motion-cartesian``.

Two are trained: one on the evidence of the Gaussian model, whose scans are fitted once and kept, and then calibrated by
one temperature on validation patients; one of the published kind on k-space itself. Each sees scans of many kinds:
every third line, random shares up to 55 %, and clean ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from kspace.errors import UsageError
from kspace.formats.files import written_beside
from kspace.motion.cartesian import Mistriggering
from kspace.motion.line_detector import LineEvidenceNetwork, LineSequenceNetwork, evidence
from kspace.motion.line_model import fit_lines
from kspace.motion.line_networks import EVIDENCE_WEIGHTS, SEQUENCE_WEIGHTS
from kspace.weights.card import ModelCard
from kspace.weights.store import save_model
from simulate.training.checkpoint import load_tensors
from simulate.training.dataset import Split
from simulate.training.line_scans import LineBank, LineScan, line_bank
from simulate.training.options import TrainingOptions
from simulate.training.trainer import OnStep, TrainingResult, train


@dataclass(frozen=True)
class LineTraining:
    """How to train.

    Parameters
    ----------
    minutes
        For the steps of both networks together; drawing and fitting come before, 3 s a scan.
    patients, validation_patients
        Whose cines are drawn.
    scans
        Of them, to learn from: each of another patient as far as there are any.
    frames, size
        Of the cines.
    evidence_steps, sequence_steps
        Of each network; None follows the clock.
    seed
        Of weights and order.
    """

    minutes: float = 20.0
    patients: int = 96
    validation_patients: int = 12
    scans: int = 72
    frames: int = 25
    size: int = 128
    evidence_steps: int | None = None
    sequence_steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("patients", "validation_patients", "scans"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", expected="1 or more")


def training_scan(bank: LineBank, number: int) -> LineScan:
    """Return a scan of many kinds, the same for the same number: patient, orientation, noise and corruption."""
    generator = torch.Generator().manual_seed(7_000_000 + number)
    which, share, snr = torch.rand(3, generator=generator).tolist()
    if which < 0.3:
        kind = Mistriggering(every=3)
    elif which < 0.45:
        kind = Mistriggering(every=3, same_lines=True)
    elif which < 0.6:
        kind = Mistriggering()
    else:
        kind = Mistriggering(0.55 * share)
    level = math.exp(math.log(20) + snr * math.log(50 / 20))
    return bank.scan(number % len(bank), kind, generator, snr=level, turned=True)


@dataclass(frozen=True)
class Evidence:
    """Fitted scans: ``seen`` (scan, channel, frame, line), ``wrong`` (scan, frame, line) float32."""

    seen: Tensor
    wrong: Tensor


def fitted(folder: Path, bank: LineBank, split: Split, scans: int) -> Evidence:
    """Return the evidence of a split's first scans, each fitted once and kept in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    seen, wrong = [], []
    for number in range(scans):
        path = folder / f"evidence-{split.value}-{number}.safetensors"
        if not path.exists():
            scan = training_scan(bank, number)
            model = fit_lines(scan.measured, scan.noise_std)
            found = evidence(scan.measured, scan.noise_std, model)
            with written_beside(path) as temporary:
                save_file({"seen": found.contiguous(), "wrong": scan.wrong.float()}, temporary)
        stored = load_file(path)
        seen.append(stored["seen"])
        wrong.append(stored["wrong"])
    return Evidence(torch.stack(seen), torch.stack(wrong))


class EvidenceTask:
    """Learns from the evidence of fitted scans, four at a time, mirrored and turned in time."""

    name = "motion-line-evidence"

    def __init__(self, learnt: Evidence, held_out: Evidence, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = LineEvidenceNetwork()
        self.learnt, self.held_out, self.seed = learnt, held_out, seed

    def loss(self, step: int) -> Tensor:
        """Return the cross-entropy of four scans."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + step)
        chosen = torch.randint(len(self.learnt.seen), (4,), generator=generator)
        start, mirrored, backwards = torch.randint(1000, (3,), generator=generator).tolist()
        seen, wrong = (values[chosen].roll(start, -2) for values in (self.learnt.seen, self.learnt.wrong))
        turned = [axis for axis, chance in ((-1, mirrored), (-2, backwards)) if chance % 2]
        return binary_cross_entropy_with_logits(self.model(seen.flip(turned)), wrong.flip(turned))

    def validate(self) -> float:
        """Return the cross-entropy of the validation scans."""
        return float(binary_cross_entropy_with_logits(self.model(self.held_out.seen), self.held_out.wrong))


class SequenceTask:
    """Learns from k-space, a scan a step."""

    name = "motion-line-sequence"

    def __init__(self, bank: LineBank, held_out: list[LineScan], seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = LineSequenceNetwork()
        self.bank, self.held_out = bank, held_out

    def _of(self, scan: LineScan) -> Tensor:
        logits = self.model(scan.measured[None], torch.tensor([scan.noise_std]))[0]
        return binary_cross_entropy_with_logits(logits, scan.wrong.float())

    def loss(self, step: int) -> Tensor:
        """Return the cross-entropy of a scan."""
        return self._of(training_scan(self.bank, step))

    def validate(self) -> float:
        """Return the cross-entropy of the validation scans."""
        return sum(float(self._of(scan)) for scan in self.held_out) / len(self.held_out)


def calibrate(model: LineEvidenceNetwork, held_out: Evidence) -> float:
    """Set and return the temperature under which probabilities fit validation scans best (Guo et al., ICML 2017)."""
    with torch.no_grad():
        logits = model(held_out.seen) * model.temperature
        choices = torch.logspace(-0.6, 0.6, 61)
        losses = [binary_cross_entropy_with_logits(logits / t, held_out.wrong) for t in choices]
        model.temperature.fill_(float(choices[int(torch.stack(losses).argmin())]))
    return float(model.temperature)


def train_lines(
    out: Path, training: LineTraining, *, on_part: Callable[[str], None] | None = None, on_step: OnStep | None = None
) -> TrainingResult:
    """Train both networks, or go on with a training that was broken off.

    Parameters
    ----------
    out
        Folder of all that it makes; the models with their cards lie in ``out / "models"``.
    training
        How.
    on_part, on_step
        Hear which part begins, and of each of its steps.

    Returns
    -------
    The result of the network on the evidence.
    """
    say = on_part or (lambda _: None)
    say("draw")
    banks = {
        split: line_bank(out / "bank", split, number, frames=training.frames, size=training.size)
        for split, number in ((Split.TRAIN, training.patients), (Split.VALIDATION, training.validation_patients))
    }
    validation = banks[Split.VALIDATION]
    say("fit")
    learnt = fitted(out / "fitted", banks[Split.TRAIN], Split.TRAIN, training.scans)
    held_out = fitted(out / "fitted", validation, Split.VALIDATION, len(validation))
    say("evidence")
    first = EvidenceTask(learnt, held_out, training.seed)
    half = training.minutes / 2
    result = train(first, _options(half, training.evidence_steps, training.seed), out / "evidence", on_step=on_step)
    if result.weights is not None:
        first.model.load_state_dict(load_tensors(result.weights)[0], strict=False)
        temperature = calibrate(first.model, held_out)
        text = (
            "Tells mis-triggered Cartesian lines from the evidence of a Gaussian model; calibrated on validation scans."
        )
        _keep(out, first.model, training, EVIDENCE_WEIGHTS, text, result, {"temperature": temperature})
    if result.reason == "interrupted":
        return result
    say("sequence")
    scans = [training_scan(validation, number) for number in range(min(4, len(validation)))]
    second = SequenceTask(banks[Split.TRAIN], scans, training.seed)
    other = train(second, _options(half, training.sequence_steps, training.seed), out / "sequence", on_step=on_step)
    if other.weights is not None:
        second.model.load_state_dict(load_tensors(other.weights)[0], strict=False)
        text = "Tells mis-triggered Cartesian lines from k-space by 3D convolutions: the published kind."
        _keep(out, second.model, training, SEQUENCE_WEIGHTS, text, other, {})
    return result


def _options(minutes: float, steps: int | None, seed: int) -> TrainingOptions:
    return TrainingOptions(
        minutes, learning_rate=3e-3, warmup_steps=20, max_steps=steps, final_share=0.02, validate_every=50, ema=0.98,
        seed=seed,
    )  # fmt: skip


def _keep(
    out: Path, model: torch.nn.Module, training: LineTraining, name: str, description: str, result: TrainingResult,
    figures: dict[str, float],
) -> None:  # fmt: skip
    folder = out / "models"
    folder.mkdir(exist_ok=True)
    card = ModelCard(
        name=name, task="motion", description=description, architecture=type(model).__name__, options={},
        training_data=f"{training.scans} scans of {min(training.scans, training.patients)} virtual patients "
        f"(synthetic), one coil, {training.size} x {training.size}, "
        f"{training.frames} frames, SNR 20 to 50; every third line, random shares to 55 %, and clean",
        seed=training.seed, commit="", cost=f"{result.steps} steps, {result.seconds:.0f} s on a CPU",
        figures={"validation_cross_entropy": result.best, **figures},
        limits=["Trained on simulated hearts only.", "One coil; the noise has to be known."],
    )  # fmt: skip
    save_model(model, card, folder, dtype=torch.float16)
