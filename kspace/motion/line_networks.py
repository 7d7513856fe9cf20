"""The shipped network that finds mis-triggered lines, and the whole way from k-space to probabilities."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from kspace.motion.line_detector import LineEvidenceNetwork, evidence
from kspace.motion.line_model import LineModel, fit_lines
from kspace.weights.store import load_model

EVIDENCE_WEIGHTS, SEQUENCE_WEIGHTS = "motion-line-evidence", "motion-line-sequence"


@lru_cache(maxsize=4)
def evidence_network(folder: Path | None = None) -> LineEvidenceNetwork:
    """Return the stored network, read once.

    Raises
    ------
    UsageError, InputError
        As :func:`kspace.weights.store.load_model`.
    """
    network = LineEvidenceNetwork()
    load_model(EVIDENCE_WEIGHTS, network, folder)
    return network.requires_grad_(False).eval()


def wrong_lines(
    kspace: Tensor, noise_std: float, *, model: LineModel | None = None, folder: Path | None = None
) -> Tensor:
    """Return the calibrated probability of each line to be of another phase, (frame, line) float32.

    Parameters
    ----------
    kspace
        (frame, line, readout) complex.
    noise_std
        Of a complex sample.
    model
        If it is fitted already.
    folder
        Of the weights; the package's own by default.

    Raises
    ------
    ShapeError, UsageError
        As :func:`~kspace.motion.line_model.fit_lines`.
    """
    model = fit_lines(kspace, noise_std) if model is None else model
    with torch.no_grad():
        logits = evidence_network(folder).to(kspace.device)(evidence(kspace, noise_std, model)[None])
    found: Tensor = logits[0].sigmoid()
    return found
