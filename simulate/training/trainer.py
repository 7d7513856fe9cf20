"""Train a model against the clock, so that it can be broken off anywhere and go on as if nothing had happened.

All randomness of a step follows from its number and the seed, so that a checkpoint holds weights, their average, the
optimiser's moments and a handful of numbers, and a resumed run gives on the CPU, bit for bit, the weights of one that
was never interrupted. Under ``torchrun`` the ranks share each step: every one takes a loss of its own, and gradients
are averaged.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kspace.errors import InputError, SpokewiseError
from kspace.formats.files import one_line
from simulate.training.checkpoint import CurvePoint, Progress, read_checkpoint, save_tensors, write_checkpoint
from simulate.training.learning_curve import draw_curve, write_curve
from simulate.training.options import TrainingOptions
from simulate.training.ranks import average_gradients, highest, join, place, share_tensors

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"
_PLAN_SHARE = 0.95  # of the time that is left: a machine that slows down should still see the decay's end
_REASONS = ("", "time", "patience", "interrupted", "steps")
_NOT_OF_THE_RESULT = ("minutes", "checkpoint_every_s", "patience")


class Task(Protocol):
    """What is learnt."""

    @property
    def name(self) -> str:
        """On checkpoints and pictures."""
        ...

    @property
    def model(self) -> nn.Module:
        """What is trained, on the device where it is to be trained."""
        ...

    def loss(self, step: int) -> Tensor:
        """Return a differentiable, zero-dimensional loss.

        Parameters
        ----------
        step
            Number of the batch, from 0. What is random must follow from it and the task's own seed; torch's global
            generator is seeded from it too, for dropout.
        """
        ...

    def validate(self) -> float:
        """Return a figure on a fixed cohort, lower being better; called in eval mode, without gradients."""
        ...


@dataclass(frozen=True)
class TrainingStatus:
    """What listeners hear after each step.

    Parameters
    ----------
    step, n_steps
        Steps done, and of how many (None until planned).
    seconds
        Of training so far, over all sittings.
    loss
        Of this step and rank, zero-dimensional; left on its device, as reading it would wait for the GPU.
    point
        The row of the learning curve, when this step was validated.
    best
        Lowest validation so far.
    """

    step: int
    n_steps: int | None
    seconds: float
    loss: Tensor
    point: CurvePoint | None
    best: float


OnStep = Callable[[TrainingStatus], bool | None]
"""Called after each step; returning True ends the training there with a checkpoint, as an interrupt does."""


@dataclass(frozen=True)
class TrainingResult:
    """How it ended.

    Parameters
    ----------
    reason
        ``steps``, ``time``, ``patience`` or ``interrupted``. The last goes on with the same options, ``time`` and
        ``patience`` with more of them.
    steps, seconds
        Done, over all sittings.
    best, best_step
        Lowest validation, and when it was.
    weights
        File of the weights then (their average, if one is kept); None when nothing was validated.
    note
        Why there is no picture of the learning curve, empty if there is.
    """

    reason: str
    steps: int
    seconds: float
    best: float
    best_step: int
    weights: Path | None
    note: str = ""


def train(task: Task, options: TrainingOptions, out: Path, *, on_step: OnStep | None = None) -> TrainingResult:
    """Train, or go on with a training that was broken off.

    Parameters
    ----------
    task
        Model, loss and validation.
    options
        How.
    out
        Folder, made if it is missing, for ``checkpoint.safetensors``, ``best.safetensors``, ``curve.csv`` and
        ``curve.png``. A checkpoint in it is gone on from.
    on_step
        Hears of every step, on every rank.

    Returns
    -------
    TrainingResult
        SIGINT and SIGTERM end the step in progress, write a checkpoint and return; a second SIGINT does not wait.

    Raises
    ------
    InputError
        When the checkpoint is of another task, model or options, or the folder cannot be written.
    SpokewiseError
        When the loss is no longer finite; the last good checkpoint stays.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{out} cannot be made ({one_line(error.strerror)})", expected="a folder to write to"
        ) from error
    generator_state = torch.get_rng_state()
    started_here = join()
    try:
        with _signals() as stop:
            return _Training(task, options, out, stop).run(on_step)
    finally:
        torch.set_rng_state(generator_state)
        if started_here:
            dist.destroy_process_group()


class _Training:
    def __init__(self, task: Task, options: TrainingOptions, out: Path, stop: threading.Event) -> None:
        self.task, self.options, self.out, self.stop = task, options, out, stop
        self.model = task.model
        self.device = next(self.model.parameters()).device
        self.rank, self.world = place()
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), options.learning_rate, weight_decay=options.weight_decay
        )
        kept = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.average = kept if options.ema > 0 else {}
        settings = {k: v for k, v in asdict(options).items() if k not in _NOT_OF_THE_RESULT}
        self.progress = Progress(task.name, {**settings, "world": self.world}, n_steps=options.max_steps)
        checkpoint = out / CHECKPOINT
        if self.rank == 0:
            for name in (CHECKPOINT, BEST):
                for leftover in out.glob(f".????????.{name}"):  # of a run that was killed while it wrote
                    leftover.unlink()
        if checkpoint.exists():
            self.progress = read_checkpoint(checkpoint, self.progress, self.model, self.average, self.optimiser)
        elif self.world > 1:
            share_tensors([*self.model.state_dict().values(), *self.average.values()])
        self._loss_sum = torch.tensor(self.progress.loss_sum, dtype=torch.float64, device=self.device)
        self._before = self.progress.seconds
        self._began = self._saved = time.monotonic()

    def run(self, on_step: OnStep | None) -> TrainingResult:
        progress = self.progress
        progress.reason = ""
        reason = self._ending()
        while not reason:
            loss = self._step()
            point = None
            if self._due():
                point = self._validate()
            status = TrainingStatus(progress.step, progress.n_steps, self._seconds(), loss, point, progress.best)
            if on_step is not None and on_step(status):
                self.stop.set()
            reason = self._ending()
            if not reason and time.monotonic() - self._saved >= self.options.checkpoint_every_s:
                self._save()
        last = progress.curve[-1].step if progress.curve else 0
        if reason != "interrupted" and last < progress.step:
            self._validate()
        progress.reason = reason
        self._save()
        note = draw_curve(self.out, progress.curve, self.task.name) if self.rank == 0 else ""
        if self.world > 1:
            # Only the first rank validates and writes; the others return when its files are there.
            best = torch.tensor([progress.best, progress.best_step], dtype=torch.float64, device=self.device)
            share_tensors([best])
            progress.best, progress.best_step = float(best[0]), int(best[1])
        weights = self.out / BEST if math.isfinite(progress.best) else None
        return TrainingResult(reason, progress.step, progress.seconds, progress.best, progress.best_step, weights, note)

    def _step(self) -> Tensor:
        progress, options = self.progress, self.options
        for group in self.optimiser.param_groups:
            group["lr"] = options.rate(progress.step, progress.n_steps)
        batch = progress.step * self.world + self.rank
        torch.manual_seed((options.seed * 1_000_003 + batch) % 2**63)
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        amp = options.amp and self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=amp):
            loss = self.task.loss(batch)
        torch.autograd.backward(loss)
        if self.world > 1:
            average_gradients(self.model)
        if options.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), options.clip_norm)
        self.optimiser.step()
        progress.step += 1
        if self.average:
            # An average over the first steps would hold on to the random start: it begins short and grows.
            decay = min(options.ema, progress.step / (progress.step + 9))
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    self.average[name].lerp_(parameter, 1 - decay)
        self._loss_sum += loss.detach()
        progress.loss_count += 1
        return loss.detach()

    def _due(self) -> bool:
        """Whether this step is validated; the one that ends the warm-up is, as its cost goes into the plan."""
        step = self.progress.step
        planning = self.options.max_steps is None and step == self._plan_at
        return step % self.options.validate_every == 0 or planning

    @property
    def _plan_at(self) -> int:
        return max(self.options.warmup_steps, 10)

    def _validate(self) -> CurvePoint | None:
        progress, options = self.progress, self.options
        point = None
        before = time.monotonic()
        trained_s = self._seconds()
        if self.rank == 0:
            with self._averaged():
                value = self.task.validate()
            point = CurvePoint(progress.step, self._seconds(), self._mean_loss(), float(value))
            progress.curve.append(point)
            progress.stale += 1
            if value < progress.best:
                progress.best, progress.best_step, progress.stale = float(value), progress.step, 0
                shipped = {**self.model.state_dict(), **self.average}
                save_tensors(self.out / BEST, shipped, progress.to_json())
            write_curve(self.out, progress.curve)
        self._loss_sum.zero_()
        progress.loss_count = 0
        if progress.n_steps is None and progress.step >= self._plan_at:
            per_step = trained_s / progress.step + (time.monotonic() - before) / options.validate_every
            left = _PLAN_SHARE * (60 * options.minutes - self._seconds())
            planned = progress.step + max(1, int(left / per_step))
            # A rank other than the first does not validate, and knows less of the cost.
            progress.n_steps = highest(planned if self.rank == 0 else 0, self.device)
        return point

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the averaged weights in the model's place for a while, in eval mode without gradients."""
        kept = {name: p.detach().clone() for name, p in self.model.named_parameters()} if self.average else {}
        self.model.eval()
        with torch.no_grad():
            try:
                for name, parameter in self.model.named_parameters():
                    if self.average:
                        parameter.copy_(self.average[name])
                yield
            finally:
                for name, parameter in self.model.named_parameters():
                    if kept:
                        parameter.copy_(kept[name])

    def _mean_loss(self) -> float:
        mean = float(self._loss_sum) / max(1, self.progress.loss_count)
        if not math.isfinite(mean):
            raise SpokewiseError(
                f"the training loss is {mean} near step {self.progress.step}",
                expected="a finite one",
                hint="Lower the learning rate; the last good checkpoint was kept",
            )
        return mean

    def _ending(self) -> str:
        """Return why to end now, or nothing; if the ranks have several reasons, the last of :data:`_REASONS`."""
        progress, options, reason = self.progress, self.options, ""
        if self._seconds() >= 60 * options.minutes:
            reason = "time"
        if options.patience is not None and progress.stale >= options.patience:
            reason = "patience"
        if progress.n_steps is not None and progress.step >= progress.n_steps:
            reason = "steps"
        if self.stop.is_set() and reason != "steps":
            reason = "interrupted"
        return _REASONS[highest(_REASONS.index(reason), self.device)]

    def _seconds(self) -> float:
        self.progress.seconds = self._before + time.monotonic() - self._began
        return self.progress.seconds

    def _save(self) -> None:
        if self.rank == 0:
            self._mean_loss()
            self._seconds()
            self.progress.loss_sum = float(self._loss_sum)
            write_checkpoint(self.out / CHECKPOINT, self.progress, self.model, self.average, self.optimiser)
        self._saved = time.monotonic()


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set instead of breaking in; only the main thread can listen."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def asked(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
