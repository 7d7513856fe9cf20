"""Find the heart in a stack of slices before its contours are drawn.

Noise that a scanner's correction of coil shading has amplified changes from frame to frame as a heart does, and a
network can take it for one. But noise is white in time and a heart is not: what beats has its power in the first
harmonics.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from kspace.segment.inputs import network_inputs, normalised
from kspace.segment.networks import FINDER, stored_network
from kspace.segment.segmentation import Structure
from kspace.segment.window import Window

_LOOKS = 3  # frames of each slice that are looked at
_HEART_MM = 130.0  # across both ventricles
_LEAST_MM2 = 200.0  # less of a heart in the best slice is none: noise leaves 13, the least of 22 virtual hearts 2151
_HARMONICS = 3  # of the beat, in which a heart's motion is
_PLACES = 3  # at most, that may hold a heart
_FAINT = 0.05  # of the likeliest place's chances: less is none
_NEAR = 5  # pixels across, over which powers are averaged


def heart_places(
    slices: Sequence[Tensor], spacing_mm: tuple[float, float], folder: Path | None = None
) -> tuple[tuple[float, float], ...]:
    """Return where the heart may be, the likeliest place first.

    The chances of all slices, times their :func:`coherence`, are added up: where one slice has something round and
    bright beside the heart, its neighbours have not.

    Parameters
    ----------
    slices
        Magnitudes (frame, y, x) of parallel slices, one behind the other.
    spacing_mm
        (y, x) of their pixels.
    folder
        Of the network; the package's own by default.

    Returns
    -------
    Up to three (y, x) in pixels, a heart apart; none where no slice shows a heart.
    """
    network, view = stored_network(FINDER, folder, slices[0].device)
    rows, columns = slices[0].shape[-2:]
    window = Window(((rows - 1) / 2, (columns - 1) / 2), view.size, view.pixel_mm, spacing_mm)
    chances, areas = [], []
    for images in slices:
        cut = normalised(window.cut(images))
        seen, beating = network_inputs(cut), coherence(cut)
        some = seen[:: max(1, len(seen) // _LOOKS)][:_LOOKS]
        with torch.no_grad():
            logits, _ = network(some)
        chance = 1 - logits.softmax(1)[:, Structure.BACKGROUND].mean(0)
        chances.append(chance * beating)
        areas.append(float(((chance > 0.5) * beating).sum()) * view.pixel_mm**2)
    if max(areas) < _LEAST_MM2:
        return ()
    total = torch.stack(chances).sum(0)
    reach = 2 * round(_HEART_MM / view.pixel_mm / 4) + 1
    place = torch.arange(view.size, device=total.device)
    found: list[tuple[float, float]] = []
    least = 0.0
    while len(found) < _PLACES:
        near = avg_pool2d(total[None, None], reach, 1, reach // 2)[0, 0]
        best = float(near.max())
        if best <= least:
            break
        row, column = divmod(int(near.argmax()), view.size)
        away = torch.maximum((place - row).abs()[:, None], (place - column).abs()[None])
        weight = total * (away <= reach)
        y, x = ((weight.sum(axis) * place).sum() / weight.sum() for axis in (1, 0))
        found.append(window.to_slice(float(y), float(x)))
        total, least = total * (away > reach), _FAINT * best if len(found) == 1 else least
    return tuple(found)


def coherence(images: Tensor) -> Tensor:
    """Return how much of what changes over the beat changes slowly: 0 for white noise, 1 for a smooth motion.

    The share of the power over time that lies in the first three harmonics, over a few pixels, less the share that
    white noise has there.

    Parameters
    ----------
    images
        (frame, y, x), real.

    Returns
    -------
    (y, x) float32, 0 to 1; ones where there are too few frames to tell.
    """
    n = len(images)
    if n < 3 * _HARMONICS:
        return torch.ones(images.shape[-2:], device=images.device)
    power = torch.fft.rfft(images.float(), dim=0).abs().square()[1:]
    power[: (n - 1) // 2] *= 2  # all but the Nyquist frequency stand for two
    slow, all_ = (_blurred(part.sum(0)) for part in (power[:_HARMONICS], power))
    white = 2 * _HARMONICS / (n - 1)
    return ((slow / all_.clamp_min(1e-12) - white) / (1 - white)).clamp(0, 1)


def _blurred(values: Tensor) -> Tensor:
    blurred: Tensor = avg_pool2d(values[None, None], _NEAR, 1, _NEAR // 2)[0, 0]
    return blurred
