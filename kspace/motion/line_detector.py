"""Networks that tell which (frame, line) of Cartesian cine k-space was measured at another phase.

:class:`LineSequenceNetwork` is of the published kind (Oksuz et al., MICCAI 2019): convolutions over frames, lines and
readout of k-space itself, one logit per (frame, line). :class:`LineEvidenceNetwork` is small and sees, line by line,
what the Gaussian model of :mod:`kspace.motion.line_model` says; it learns what the model cannot know: how far to
believe it, what lines nearby say, and what share of a scan is wrong. Time is a circle for both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from kspace.errors import ShapeError
from kspace.motion.line_model import LineModel

EVIDENCE = 7
"""Channels of :func:`evidence`."""


def evidence(kspace: Tensor, noise_std: float, model: LineModel) -> Tensor:
    """Return what a network sees of every line, (channel, frame, line) float32.

    Parameters
    ----------
    kspace
        (frame, line, readout) complex.
    noise_std
        Of a complex sample.
    model
        Fitted to it.
    """
    frames, lines, readout = kspace.shape
    energy = kspace.abs().square().sum(-1) / (readout * noise_std**2)
    step = (kspace - kspace.roll(1, 0)).abs().square().sum(-1) / (2 * readout * noise_std**2)
    away = (torch.arange(lines, device=kspace.device) - lines // 2).abs() / (lines / 2)
    channels = (
        torch.asinh(model.log_ratio / 5) / 2,
        model.log_ratio / (model.information + 20),
        torch.log1p(model.information) / 5,
        torch.log(energy.clamp_min(1e-6)) / 5,
        torch.log(step.clamp_min(1e-6)) / 5,
        away.expand(frames, lines),
        torch.full((frames, lines), model.share, device=kspace.device),
    )
    return torch.stack([channel.float() for channel in channels])


class LineEvidenceNetwork(nn.Module):
    """From :func:`evidence` to logits of being wrong.

    Parameters
    ----------
    features
        Channels.
    depth
        Residual blocks.
    """

    def __init__(self, features: int = 24, depth: int = 3) -> None:
        super().__init__()
        self.head = nn.Conv2d(2 * EVIDENCE, features, (3, 5))
        self.blocks = nn.ModuleList(nn.Conv2d(features, features, (3, 5)) for _ in range(depth))
        self.context = nn.ModuleList(nn.Linear(features, features) for _ in range(depth))
        self.tail = nn.Conv2d(features, 1, 1)
        self.register_buffer("temperature", torch.ones(()))
        self.temperature: Tensor

    def forward(self, seen: Tensor) -> Tensor:
        """Return logits (scan, frame, line) of (scan, channel, frame, line), over the temperature of calibration."""
        if seen.ndim != 4 or seen.shape[1] != EVIDENCE:
            raise ShapeError("the evidence", seen, f"(scan, {EVIDENCE}, frame, line)")
        other = (seen - seen.mean(2, keepdim=True)) * 2  # against the same line in other frames
        x = silu(self.head(_padded(torch.cat((seen, other), 1))))
        for block, context in zip(self.blocks, self.context, strict=True):
            of_scan = context(x.mean((2, 3)))[:, :, None, None]
            x = x + silu(block(_padded(x)) + of_scan)
        logits: Tensor = self.tail(x)[:, 0]
        return logits / self.temperature


class LineSequenceNetwork(nn.Module):
    """From k-space to logits of being wrong, by 3D convolutions.

    Parameters
    ----------
    features
        Channels, before and after the readout is averaged.
    """

    def __init__(self, features: tuple[int, int] = (8, 16)) -> None:
        super().__init__()
        thin, wide = features
        self.first = nn.Conv3d(5, thin, (3, 3, 5), stride=(1, 1, 4))
        self.second = nn.Conv3d(thin, wide, 3, stride=(1, 1, 2))
        self.third = nn.Conv2d(2 * wide, 2 * wide, (3, 5))
        self.fourth = nn.Conv2d(2 * wide, 2 * wide, (3, 5))
        self.tail = nn.Conv2d(2 * wide, 1, 1)

    def forward(self, kspace: Tensor, noise_std: Tensor) -> Tensor:
        """Return logits (scan, frame, line) for k-space (scan, frame, line, readout) and (scan,) noise."""
        relative = kspace / noise_std[:, None, None, None]
        scale = relative.abs().square().mean((1, 3), keepdim=True).sqrt().clamp_min(1e-6)
        before, after = relative.roll(1, 1), relative.roll(-1, 1)
        change, bend = (relative - before) / scale, (2 * relative - before - after) / scale
        level = torch.log1p(relative.abs().square()) / 5
        x = torch.stack((level, change.real, change.imag, bend.real, bend.imag), 1).float()
        x = silu(self.first(_padded(x)))
        x = silu(self.second(_padded(x)))
        x = torch.cat((x.mean(-1), x.amax(-1)), 1)
        x = silu(self.third(_padded(x)))
        x = x + silu(self.fourth(_padded(x)))
        logits: Tensor = self.tail(x)[:, 0]
        return logits


def _padded(x: Tensor) -> Tensor:
    """Pad (scan, channel, frame, line[, readout]) for a kernel of 3 in time, on a circle, and 5 or 3 elsewhere."""
    x = torch.cat((x[:, :, -1:], x, x[:, :, :1]), 2)
    if x.ndim == 4:
        return pad(x, (2, 2))
    return pad(x, (2, 2, 1, 1))
