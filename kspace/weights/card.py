"""The card of a model: what it is, what it was trained on, what it can do and what it cannot."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,63}$"
"""Of a model's name, which is also its files' name: it can lead to no other folder."""

_Text = Annotated[str, Field(min_length=1, max_length=4000)]


class ModelCard(BaseModel):
    """What there is to know of a model; checked where it is made and where it is read.

    Parameters
    ----------
    name
        Lower-case letters, digits and dashes; the name of its two files.
    task
        What it is for: ``recon``, ``segment``.
    description
        What it is, in a sentence or two.
    architecture
        Name of its class.
    options
        Keyword arguments of that class.
    training_data
        In words, with how much of it is synthetic.
    seed
        That its training was made with.
    commit
        Of the code that trained it.
    cost
        Of the training: time and machine.
    figures
        Test figures, by name.
    limits
        What it cannot do, or was never tried on.
    sha256, bytes
        Of the file of weights; :func:`kspace.weights.store.save_model` fills them in.
    n_parameters
        Trained numbers; filled in likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    task: _Text
    description: _Text
    architecture: _Text
    options: dict[str, JsonValue]
    training_data: _Text
    seed: int
    commit: str
    cost: _Text
    figures: dict[str, JsonValue]
    limits: list[_Text]
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    n_parameters: Annotated[int, Field(ge=0)] = 0
    bytes: Annotated[int, Field(ge=0)] = 0
