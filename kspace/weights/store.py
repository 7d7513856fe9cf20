"""Keep models and read them back: only what its card vouches for, and nothing that could run.

A file of weights is read once; the same bytes are measured, hashed and taken apart, so that nothing can be swapped in
between. Whatever is wrong comes as one line.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from kspace.errors import InputError, ShapeError, UsageError
from kspace.formats.files import atomic_text, existing_file, one_line, written_beside
from kspace.weights.card import NAME_PATTERN, ModelCard

FOLDER = Path(__file__).parent
"""Where the shipped models lie."""
MAX_CARD_BYTES, MAX_BYTES = 256 * 1024, 256 * 1024 * 1024
_STORED = (torch.float32, torch.float16, torch.bfloat16, torch.int64)  # integers: counters of batch normalisation
_OURS = frozenset((".py", ".pyc", ".md"))
_HINT = "Reinstall Spokewise, or fetch the model again from where it came"


@dataclass(frozen=True)
class Verdict:
    """What :func:`verify` found.

    Parameters
    ----------
    name
        Of the model, or of a file that belongs to none.
    problem
        What is wrong in one line, empty if nothing is.
    """

    name: str
    problem: str = ""


def list_models(folder: Path | None = None) -> tuple[ModelCard, ...]:
    """Return the cards of all models in a folder (the shipped ones), by name; raises as :func:`read_card`."""
    folder = FOLDER if folder is None else folder
    return tuple(read_card(path.stem, folder) for path in sorted(folder.glob("*.json")))


def read_card(name: str, folder: Path | None = None) -> ModelCard:
    """Read the card of a model.

    Raises
    ------
    UsageError
        When there is no such model.
    InputError
        When its card is not one.
    """
    folder = FOLDER if folder is None else folder
    path = folder / f"{name}.json"
    if re.fullmatch(NAME_PATTERN, name) is None or not path.is_file():
        known = ", ".join(p.stem for p in sorted(folder.glob("*.json"))) or "none: there are no models here"
        raise UsageError(f"there is no model {one_line(name, 64)!r}", expected=known)
    expected = "the card of a model"
    existing_file(path, expected)
    if path.stat().st_size > MAX_CARD_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes", expected=f"at most {MAX_CARD_BYTES}", hint=_HINT)
    try:
        card = ModelCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = one_line(f"{where}: {first['msg']}" if where else first["msg"])
        raise InputError(f"{path} cannot be read ({reason})", expected=expected, hint=_HINT) from error
    if card.name != name:
        raise InputError(f"{path} is the card of {card.name}", expected=name, hint=_HINT)
    if not card.sha256:
        raise InputError(f"{path} names no SHA-256", expected="a card that save_model has written", hint=_HINT)
    return card


def load_weights(name: str, folder: Path | None = None) -> tuple[ModelCard, dict[str, Tensor]]:
    """Read a model's card and weights.

    Parameters
    ----------
    name
        Of the model.
    folder
        Where it lies; the package's own by default.

    Returns
    -------
    The card, and float32 tensors by name (half-precision ones widened, integers as they are), on the CPU.

    Raises
    ------
    UsageError
        When there is no such model.
    InputError
        When card or weights are missing, truncated, tampered with, foreign, too large, of a type that is not stored or
        not finite.
    """
    folder = FOLDER if folder is None else folder
    card = read_card(name, folder)
    path = existing_file(folder / f"{name}.safetensors", "the weights of a model")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path} has {size} bytes", expected=f"at most {MAX_BYTES}", hint=_HINT)
    if size != card.bytes:
        raise InputError(f"{path} has {size} bytes", expected=f"{card.bytes}, by its card", hint=_HINT)
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    digest = hashlib.sha256(content).hexdigest()
    if digest != card.sha256:
        raise InputError(f"{path} has the SHA-256 {digest[:12]}...", expected=f"{card.sha256[:12]}...", hint=_HINT)
    try:
        stored = load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)})", expected="a safetensors file", hint=_HINT) from (
            error
        )
    return card, {key: _checked(value, f"{path}: {one_line(key)}") for key, value in stored.items()}


def _checked(value: Tensor, what: str) -> Tensor:
    if value.dtype not in _STORED:
        raise InputError(f"{what} is {value.dtype}", expected="float32, float16, bfloat16 or int64", hint=_HINT)
    value = value.float() if value.is_floating_point() else value
    if not bool(torch.isfinite(value).all()):
        raise InputError(f"{what} is not finite", expected="finite numbers", hint=_HINT)
    return value


def load_model(name: str, model: nn.Module, folder: Path | None = None) -> ModelCard:
    """Fill a model with stored weights and put it into eval mode.

    Parameters
    ----------
    name
        Of the stored model.
    model
        Of the class and options that the card names; stays on its device and in its type.
    folder
        As in :func:`load_weights`.

    Raises
    ------
    UsageError, InputError
        As :func:`load_weights`, and when a tensor is missing, is too many or has another shape than the model's.
    """
    card, tensors = load_weights(name, folder)
    own = model.state_dict()
    for key in sorted(own.keys() | tensors.keys()):
        if key not in tensors or key not in own:
            state = "lacks" if key not in tensors else "has, and the network has not,"
            raise InputError(f"the model {name} {state} {one_line(key)}", expected=f"a {card.architecture}", hint=_HINT)
        if own[key].shape != tensors[key].shape:
            raise ShapeError(
                f"{key} of the model {name}", tensors[key], f"the network's {tuple(own[key].shape)}", hint=_HINT
            )
    model.load_state_dict(tensors)
    model.eval()
    return card


def save_model(
    model: nn.Module, card: ModelCard, folder: Path | None = None, *, dtype: torch.dtype = torch.float32
) -> ModelCard:
    """Write a model and its card.

    Parameters
    ----------
    model
        Whose parameters and persistent buffers are written.
    card
        What there is to know; size, hash and number of parameters are filled in.
    folder
        Where to; the package's own by default.
    dtype
        In which floating-point tensors are stored: float32, float16 or bfloat16.

    Returns
    -------
    The card as written.

    Raises
    ------
    UsageError
        When the type is not stored.
    InputError
        When the weights are not finite in it or too large, or the folder cannot be written.
    """
    folder = FOLDER if folder is None else folder
    if dtype not in _STORED or not dtype.is_floating_point:
        raise UsageError(f"weights cannot be stored as {dtype}", expected="float32, float16 or bfloat16")
    tensors = {key: _stored(value, dtype) for key, value in model.state_dict().items()}
    for key, value in tensors.items():
        _checked(value, f"{card.name}: {key}")
    content = save(tensors)
    if len(content) > MAX_BYTES:
        raise InputError(f"{card.name} has {len(content)} bytes", expected=f"at most {MAX_BYTES}")
    facts: Mapping[str, object] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "n_parameters": sum(math.prod(p.shape) for p in model.parameters()),
    }
    written = ModelCard.model_validate({**card.model_dump(), **facts})
    with written_beside(folder / f"{card.name}.safetensors") as temporary:
        temporary.write_bytes(content)
    atomic_text(folder / f"{card.name}.json", written.model_dump_json(indent=2) + "\n")
    return written


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype, copy=True)
    return value.contiguous()


def verify(folder: Path | None = None) -> tuple[Verdict, ...]:
    """Read every model in a folder (the shipped ones) to the last byte, and name files that belong to none."""
    folder = FOLDER if folder is None else folder
    verdicts = []
    names = {path.stem for path in folder.glob("*.json")}
    for name in sorted(names):
        try:
            load_weights(name, folder)
            verdicts.append(Verdict(name))
        except (UsageError, InputError) as error:
            verdicts.append(Verdict(name, str(error)))
    for path in sorted(folder.iterdir()):
        theirs = path.suffix in (".json", ".safetensors") and path.stem in names
        if path.is_file() and not theirs and path.suffix not in _OURS:
            what = "weights without a card" if path.suffix == ".safetensors" else "not part of a model"
            verdicts.append(Verdict(path.name, f"{path} is {what}. Delete it."))
    return tuple(verdicts)
