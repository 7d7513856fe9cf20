"""How to train: the numbers that a training is made with, and its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kspace.errors import UsageError


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Parameters
    ----------
    minutes
        Time for it, over all sittings; the step in progress is finished and validated. A longer time given later lets
        a training go on that time had ended, to the steps that were planned.
    learning_rate, weight_decay
        Of AdamW; without decay it is Adam.
    warmup_steps
        Over which the learning rate rises in a straight line.
    max_steps
        Steps over which the learning rate falls along a cosine to ``final_share`` of itself. None plans them when the
        warm-up ends, from the speed until then and the time that is left, once: the plan goes into the checkpoint, and
        a clock never enters the learning rate of a step again, or no run could be repeated.
    final_share
        Share of the learning rate at the end.
    validate_every
        Steps between validations.
    checkpoint_every_s
        Seconds between checkpoints: what a power cut costs at most.
    patience
        Ends after so many validations without gain; None never does.
    clip_norm
        Largest norm of the gradient; None does not clip.
    ema
        Decay per step of the weights' exponential moving average, 0 for none. The average is validated and shipped.
    seed
        Of torch's global generator, with the step.
    amp
        bfloat16 where it is safe, on a GPU only.
    """

    minutes: float
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 100
    max_steps: int | None = None
    final_share: float = 0.0
    validate_every: int = 200
    checkpoint_every_s: float = 60.0
    patience: int | None = None
    clip_norm: float | None = 1.0
    ema: float = 0.0
    seed: int = 0
    amp: bool = False

    def __post_init__(self) -> None:
        checks = (
            ("minutes", self.minutes > 0, "more than 0"),
            ("learning_rate", self.learning_rate > 0, "more than 0"),
            ("warmup_steps", self.warmup_steps >= 0, "0 or more"),
            ("max_steps", self.max_steps is None or self.max_steps >= 1, "1 or more"),
            ("final_share", 0 <= self.final_share <= 1, "0 to 1"),
            ("validate_every", self.validate_every >= 1, "1 or more"),
            ("patience", self.patience is None or self.patience >= 1, "1 or more"),
            ("clip_norm", self.clip_norm is None or self.clip_norm > 0, "more than 0"),
            ("ema", 0 <= self.ema < 1, "0 to less than 1"),
        )
        for name, fine, expected in checks:
            if not fine:
                raise UsageError(f"{name} is {getattr(self, name)}", expected=expected)

    def rate(self, step: int, n_steps: int | None) -> float:
        """Return the learning rate of a step, counted from 0, of so many."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if n_steps is None:
            return self.learning_rate * warm
        done = min(1.0, max(0.0, (step - self.warmup_steps) / max(1, n_steps - self.warmup_steps)))
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * warm * (self.final_share + (1 - self.final_share) * cosine)
