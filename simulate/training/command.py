"""What ``spokewise train`` and ``spokewise models`` do with what they were told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kspace.errors import SpokewiseError, UsageError
from kspace.motion.network import SpokeNetworkOptions
from kspace.recon.networks.temporal_prior import PriorOptions
from kspace.recon.networks.unrolled import UnrolledOptions
from kspace.recon.unet import UNetRecipe
from kspace.segment.network import NetworkOptions
from kspace.weights.store import read_card, verify
from simulate.training.bank import Bank
from simulate.training.dataset import HeartOptions
from simulate.training.lines import LineTraining, train_lines
from simulate.training.motion import MotionTraining, train_motion
from simulate.training.motion_bank import MotionBankOptions
from simulate.training.post_processor import UNetTraining, train_unet
from simulate.training.randomise import Randomisation
from simulate.training.recon import MODEL, ReconTraining, train_recon
from simulate.training.scans import ProtocolRange
from simulate.training.segment import MODELS, WHOLE_BODY, NetworkTraining, SegmentTraining, train_segment
from simulate.training.trainer import TrainingStatus

TASKS = ("recon", "unet", "segment", "motion", "motion-cartesian")
_SCANS = 100  # drawn for recon and unet, unless told
_CINES = 96  # drawn for motion-cartesian
_LINE_S = 15.0
_TINY_SCANS = ProtocolRange(
    matrix=(32, 32), n_coils=(3, 3), n_frames=(4, 4), seconds=((0.4, 0.5), (0.5, 0.6), (0.6, 0.7))
)


@dataclass(frozen=True)
class TrainOptions:
    """What the user asked for.

    Parameters
    ----------
    minutes
        For all of it.
    patients
        To learn from; None is what the task takes.
    seed
        Of weights and order.
    scans, unlabelled
        For ``segment``: a bank of scans and a folder of cines, see :func:`simulate.training.segment.train_segment`.
    go_on
        For ``segment`` and ``recon``: begin with the shipped networks.
    quick
        A tiny training that shows that all works.
    """

    minutes: float = 120.0
    patients: int | None = None
    seed: int = 0
    scans: Path | None = None
    unlabelled: Path | None = None
    go_on: bool = False
    quick: bool = False


def train_command(task: str, out: Path, say: Callable[[str], None], options: TrainOptions) -> dict[str, Any]:
    """Train and return what a machine wants to know of it.

    Raises
    ------
    UsageError
        When there is no such task, or an option is not for it.
    """
    if task not in TASKS:
        raise UsageError(f"there is no training {task!r}", expected=", ".join(TASKS))
    for name in ("scans", "unlabelled"):
        folder = getattr(options, name)
        if folder is not None and task != "segment":
            raise UsageError(f"--{name} is not for {task}", expected="it with segment")
        if folder is not None and not folder.is_dir():
            raise UsageError(f"there is no folder {folder}", expected=f"one for --{name}")
    if options.go_on and task not in ("segment", "recon"):
        raise UsageError(f"--go-on is not for {task}", expected="it with segment or recon")
    minutes, patients, seed, quick = options.minutes, options.patients, options.seed, options.quick
    heard = [0.0]

    def on_step(status: TrainingStatus) -> None:
        now = time.monotonic()
        if status.point is not None:
            say(f"  step {status.step} of {status.n_steps}: validation {status.point.validation:.4f}")
        elif now - heard[0] > _LINE_S:
            say(f"  step {status.step} of {status.n_steps}, {status.seconds:.0f} s: loss {float(status.loss):.4f}")
        else:
            return
        heard[0] = now

    if task == "motion":
        motion = tiny_motion(seed) if quick else MotionTraining(minutes, patients or MotionTraining.patients, seed=seed)
        result = train_motion(out, motion, on_part=say, on_step=on_step)
    elif task == "unet":
        unet = tiny_unet(seed) if quick else UNetTraining(minutes=minutes, patients=patients or _SCANS, seed=seed)
        result = train_unet(out, unet, on_part=say, on_step=on_step)
    elif task == "segment":
        hearts = tiny_segment(seed) if quick else SegmentTraining.within(
            minutes, patients=patients, seed=seed, go_on=options.go_on
        )  # fmt: skip
        scans = None if options.scans is None else Bank(options.scans)
        result = train_segment(out, hearts, scans=scans, unlabelled=options.unlabelled, on_part=say, on_step=on_step)
    elif task == "motion-cartesian":
        lines = tiny_lines(seed) if quick else LineTraining(minutes, patients=patients or _CINES, seed=seed)
        result = train_lines(out, lines, on_part=say, on_step=on_step)
    else:
        recon = tiny(seed) if quick else ReconTraining.within(
            minutes, patients=patients or _SCANS, seed=seed, go_on=options.go_on
        )  # fmt: skip
        result = train_recon(out, recon, on_part=say, on_step=on_step)
    models = MODELS if task in ("segment", "motion-cartesian") else MODEL
    return {
        "task": task, "model": str(out / models), "reason": result.reason,
        "steps": result.steps, "seconds": result.seconds, "validation": result.best, "note": result.note,
    }  # fmt: skip


def tiny(seed: int) -> ReconTraining:
    """Return a training that shows that all works, and learns nothing to speak of."""
    network = UnrolledOptions(blocks=2, prior=PriorOptions((8, 8), (1, 1), second=True), iterations=2)
    return ReconTraining(
        minutes=10, patients=1, validation_patients=1, network=network, prior_steps=4, next_steps=2,
        regularisation_steps=3, joint_steps=1, first_patients=1, patch=32, per_step=1, seed=seed, limits=_TINY_SCANS,
    )  # fmt: skip


def tiny_unet(seed: int) -> UNetTraining:
    """Return the like of :func:`tiny` for the post-processor."""
    network = UNetRecipe(neighbours=3, features=4, levels=1)
    return UNetTraining(
        minutes=10, patients=1, validation_patients=1, network=network, steps=4, warmup_steps=1, patch=32, seed=seed,
        limits=_TINY_SCANS,
    )  # fmt: skip


def tiny_segment(seed: int) -> SegmentTraining:
    """Return the like of :func:`tiny` for segmentation."""
    small = HeartOptions(frames=3, size=32, pixel_mm=5.0, planes=1)
    part = NetworkTraining(3, 4, 2, small, Randomisation(), NetworkOptions((4, 8)))
    return SegmentTraining(
        part, replace(part, offset=4), replace(part, randomisation=WHOLE_BODY), members=2, exported=0, validation=2,
        minutes=10, seed=seed,
    )  # fmt: skip


def tiny_lines(seed: int) -> LineTraining:
    """Return the like of :func:`tiny` for mis-triggered lines."""
    return LineTraining(10, 2, 1, scans=2, frames=6, size=32, evidence_steps=3, sequence_steps=2, seed=seed)


def tiny_motion(seed: int) -> MotionTraining:
    """Return the like of :func:`tiny` for the detection of corrupted spokes."""
    bank = MotionBankOptions((24, 24), (2, 2), (4, 4), seconds=(0.6, 0.6), scans=2)
    return MotionTraining(10, 1, 1, SpokeNetworkOptions(channels=4, dilations=(1,)), bank, steps=4, seed=seed)


def models_command(folder: Path | None) -> dict[str, Any]:
    """Read every stored model to the last byte and return what they are and what is wrong with them.

    Raises
    ------
    UsageError
        When there is no such folder.
    """
    if folder is not None and not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", expected="a folder of models")
    models, others = [], {}
    for verdict in verify(folder):
        try:
            card = read_card(verdict.name, folder)
        except SpokewiseError:
            others[verdict.name] = verdict.problem
        else:
            models.append({**card.model_dump(mode="json"), "problem": verdict.problem})
    return {"models": models, "other_problems": others}
