"""What a training leaves on disk: all of its state in one file, tensors and numbers, renamed into place.

A safetensors file holds the tensors, and in its header one string of JSON the numbers: both or neither are there.
Nothing in it can be run, unlike a pickle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from kspace.errors import InputError
from kspace.formats.files import existing_file, one_line, written_beside

_KEY = "spokewise"
_MODEL, _AVERAGE, _OPTIMISER = "model/", "average/", "optimiser/"


@dataclass(frozen=True)
class CurvePoint:
    """One row of the learning curve.

    Parameters
    ----------
    step
        Steps done.
    seconds
        Wall-clock seconds of training until then, over all sittings.
    train_loss
        Mean loss of the steps since the row before.
    validation
        What the task's validation gave.
    """

    step: int
    seconds: float
    train_loss: float
    validation: float


@dataclass
class Progress:
    """The numbers of a training; together with the tensors, all that there is to go on from.

    Parameters
    ----------
    task
        Its name.
    options
        Those on which the weights depend.
    step
        Steps done.
    seconds
        Wall-clock seconds over all sittings.
    n_steps
        Steps over which the learning rate decays; None until it is planned.
    best, best_step
        Lowest validation and when it was; infinite and 0 before the first.
    stale
        Validations since then.
    loss_sum, loss_count
        Of the steps since the last row of the curve.
    curve
        Its rows.
    reason
        Why training ended, empty while it has not.
    """

    task: str
    options: dict[str, Any]
    step: int = 0
    seconds: float = 0.0
    n_steps: int | None = None
    best: float = math.inf
    best_step: int = 0
    stale: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    curve: list[CurvePoint] = field(default_factory=list)
    reason: str = ""

    def to_json(self) -> str:
        """Return the numbers as JSON, exact to the last bit (Python writes the shortest text that reads back)."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """Read what :meth:`to_json` wrote; raises ValueError, TypeError or KeyError for anything else."""
        values = json.loads(text)
        curve = [CurvePoint(**row) for row in values.pop("curve")]
        return cls(**values, curve=curve)


def write_checkpoint(
    path: Path, progress: Progress, model: nn.Module, average: Mapping[str, Tensor], optimiser: torch.optim.Optimizer
) -> None:
    """Write all of a training's state in one atomically renamed file.

    Parameters
    ----------
    path
        Where to.
    progress
        The numbers.
    model
        Its parameters and persistent buffers.
    average
        Averaged parameters by name; empty where none is kept.
    optimiser
        One whose state is tensors per parameter (the Adam family), over ``model.parameters()``.

    Raises
    ------
    InputError
        When the folder does not exist or the disk refuses.
    """
    tensors = {_MODEL + name: value for name, value in model.state_dict().items()}
    tensors |= {_AVERAGE + name: value for name, value in average.items()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{_OPTIMISER}{key}/{name}"] = value
    save_tensors(path, tensors, progress.to_json())


def save_tensors(path: Path, tensors: Mapping[str, Tensor], text: str) -> None:
    """Write tensors and one string into one file; raises as :func:`kspace.formats.files.written_beside`."""
    # Copies, as two names for one storage are refused.
    apart = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    with written_beside(path) as temporary:
        # Through bytes: the library's own files could be read by their owner only.
        temporary.write_bytes(save(apart, metadata={_KEY: text}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read what :func:`save_tensors` wrote, on the CPU.

    Raises
    ------
    InputError
        When there is no such file, or it is truncated or foreign.
    """
    existing_file(path, "a checkpoint of a training")
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            text = (stream.metadata() or {}).get(_KEY)
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)})", expected="a checkpoint of a training") from error
    if text is None:
        raise InputError(f"{path} holds tensors but no training", expected="a checkpoint of a training")
    return tensors, text


def read_checkpoint(
    path: Path, expected: Progress, model: nn.Module, average: Mapping[str, Tensor], optimiser: torch.optim.Optimizer
) -> Progress:
    """Put a checkpoint's state into model, average and optimiser, and return its numbers.

    Parameters
    ----------
    path
        The file.
    expected
        Task and options of the training that is to go on.
    model, average, optimiser
        As in :func:`write_checkpoint`; filled in place.

    Raises
    ------
    InputError
        When the file cannot be read, or is of another task, other options or another architecture.
    """
    tensors, text = load_tensors(path)
    hint = "Train into an empty folder, or start with the options of before"
    try:
        progress = Progress.from_json(text)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is not a checkpoint of this version ({one_line(error)})", hint=hint) from error
    if progress.task != expected.task:
        raise InputError(f"{path} is of the task {one_line(progress.task)}", expected=expected.task, hint=hint)
    for key in sorted(expected.options.keys() | progress.options.keys()):
        now, before = expected.options.get(key), progress.options.get(key)
        if now != before:
            raise InputError(f"{path} was made with {key} = {one_line(before)}", expected=f"{now}", hint=hint)
    wanted = {_MODEL + name: value for name, value in model.state_dict().items()}
    wanted |= {_AVERAGE + name: value for name, value in average.items()}
    for name, value in wanted.items():
        found = tensors.get(name)
        if found is None or found.shape != value.shape or found.dtype != value.dtype:
            raise InputError(f"{path} is of another model: {name} differs or is missing", hint=hint)
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(tensors[name])
    for name, parameter in model.named_parameters():
        keys = [key for key in tensors if key.startswith(_OPTIMISER) and key.split("/", 2)[2] == name]
        if keys:
            # Step counts live on the CPU, moments with their parameters.
            optimiser.state[parameter] = {
                kind: tensors[key] if kind == "step" else tensors[key].to(parameter.device)
                for kind, key in ((key.split("/")[1], key) for key in keys)
            }
    return progress
