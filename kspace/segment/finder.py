"""Find the heart in a stack of slices before its contours are drawn."""

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
_LEAST_MM2 = 400.0  # less of a heart in the best slice is none


def find_heart(
    slices: Sequence[Tensor], spacing_mm: tuple[float, float], folder: Path | None = None
) -> tuple[float, float] | None:
    """Return where the heart is.

    The chances of all slices are added up: where one slice has something round and bright beside the heart, its
    neighbours have not.

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
    (y, x) in pixels, or None where no slice shows a heart.
    """
    network, view = stored_network(FINDER, folder, slices[0].device)
    rows, columns = slices[0].shape[-2:]
    window = Window(((rows - 1) / 2, (columns - 1) / 2), view.size, view.pixel_mm, spacing_mm)
    chances = []
    for images in slices:
        seen = network_inputs(normalised(window.cut(images)))
        some = seen[:: max(1, len(seen) // _LOOKS)][:_LOOKS]
        with torch.no_grad():
            logits, _ = network(some)
        chances.append(1 - logits.softmax(1)[:, Structure.BACKGROUND].mean(0))
    area = max(float(chance.sum()) for chance in chances) * view.pixel_mm**2
    if area < _LEAST_MM2:
        return None
    total = torch.stack(chances).sum(0)
    reach = 2 * round(_HEART_MM / view.pixel_mm / 4) + 1
    near = avg_pool2d(total[None, None], reach, 1, reach // 2)[0, 0]
    row, column = divmod(int(near.argmax()), view.size)
    place = torch.arange(view.size, device=total.device)
    away = torch.maximum((place - row).abs()[:, None], (place - column).abs()[None])
    weight = total * (away <= reach)
    y, x = ((weight.sum(axis) * place).sum() / weight.sum() for axis in (1, 0))
    return window.to_slice(float(y), float(x))
