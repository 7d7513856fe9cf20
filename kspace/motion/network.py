"""A small network that turns what was noticed of a spoke and its neighbours in time into a probability."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kspace.errors import InputError, ShapeError
from kspace.motion.features import NAMES
from kspace.weights.card import ModelCard
from kspace.weights.store import load_model, read_card

MODEL = "motion-spokes"


@dataclass(frozen=True)
class SpokeNetworkOptions:
    """Size of the network.

    Parameters
    ----------
    features, channels
        That go in, and of its layers.
    kernel
        Spokes under a convolution; odd.
    dilations
        One residual block each.
    """

    features: int = len(NAMES)
    channels: int = 32
    kernel: int = 5
    dilations: tuple[int, ...] = (1, 4, 16)

    @property
    def record(self) -> dict[str, object]:
        """As a card holds it."""
        return {**asdict(self), "dilations": list(self.dilations)}


class SpokeNetwork(nn.Module):
    """Residual dilated convolutions along the spokes, and a calibrated logistic at the end.

    ``scale`` and ``offset`` of the logit are fitted on patients that the rest was not trained on (Platt, Advances in
    Large Margin Classifiers, 1999), so that 0.8 means 80 %.

    Parameters
    ----------
    options
        Its size.
    """

    mean: Tensor
    deviation: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(self, options: SpokeNetworkOptions | None = None) -> None:
        super().__init__()
        self.options = options or SpokeNetworkOptions()
        o = self.options
        self.enter = nn.Conv1d(o.features, o.channels, 1)
        self.along = nn.ModuleList(
            nn.Conv1d(o.channels, o.channels, o.kernel, dilation=d, padding=d * (o.kernel // 2)) for d in o.dilations
        )
        self.mix = nn.ModuleList(nn.Conv1d(o.channels, o.channels, 1) for _ in o.dilations)
        self.leave = nn.Conv1d(o.channels, 1, 1)
        self.register_buffer("mean", torch.zeros(o.features))
        self.register_buffer("deviation", torch.ones(o.features))
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("offset", torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the (batch, spoke) logits of (batch, spoke, feature), calibrated."""
        if features.ndim != 3 or features.shape[2] != self.options.features:
            raise ShapeError("features", features, f"(batch, spoke, {self.options.features})")
        x = self.enter(((features - self.mean) / self.deviation).transpose(1, 2))
        for along, mix in zip(self.along, self.mix, strict=True):
            x = x + mix(torch.nn.functional.gelu(along(torch.nn.functional.gelu(x))))
        logit: Tensor = self.leave(torch.nn.functional.gelu(x))[:, 0]
        return logit * self.scale + self.offset


def shipped_detector(folder: Path | None = None) -> tuple[SpokeNetwork, ModelCard]:
    """Return the stored network and its card.

    Raises
    ------
    UsageError, InputError
        As :func:`kspace.weights.store.load_model`, and when the card describes another network.
    """
    card = read_card(MODEL, folder)
    try:
        options = SpokeNetworkOptions(**{**card.options, "dilations": tuple(card.options["dilations"])})  # type: ignore[arg-type]
    except (TypeError, KeyError) as error:
        raise InputError(f"the card of {MODEL} describes no such network", expected="options of SpokeNetwork") from (
            error
        )
    if options.features != len(NAMES):
        raise InputError(
            f"{MODEL} was trained on {options.features} features", expected=f"the {len(NAMES)} that are computed",
            hint="Train it again: spokewise train motion",
        )  # fmt: skip
    network = SpokeNetwork(options)
    load_model(MODEL, network, folder)
    return network, card
