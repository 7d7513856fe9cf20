"""Drawing front to back: each layer takes its share of what nothing in front of it has covered."""

from __future__ import annotations

import torch
from torch import Tensor

from simulate.tissues import N_TISSUES, Tissue


class Canvas:
    """Shares of the tissues in each pixel, averaged over planes through the slice.

    Parameters
    ----------
    shape
        (planes, rows, columns) of what is drawn, all planes at once; the result is their mean.
    edge_mm
        Width over which an edge passes from nothing to full: about one pixel.
    device
        Where the tensors live.
    """

    def __init__(self, shape: tuple[int, ...], edge_mm: float, device: torch.device) -> None:
        self.remaining = torch.ones(shape, device=device)
        self.fractions = torch.zeros((N_TISSUES, *shape[1:]), device=device)
        self.densities = torch.zeros_like(self.fractions)
        self.used: set[Tissue] = set()
        self._edge = 1.0 / edge_mm

    def cover(self, distance: Tensor) -> Tensor:
        """Return the share of each pixel inside, from signed distances in mm that are negative inside."""
        return (0.5 - self._edge * distance).clamp_(0.0, 1.0)

    def paint(self, tissue: Tissue, share: Tensor, texture: Tensor | None = None) -> None:
        """Cover a share (plane, y, x) of what is left with a tissue; ``texture`` multiplies its density."""
        weight = self.remaining * share
        self.remaining = self.remaining - weight
        mean = weight.mean(0)
        self.fractions[tissue] += mean
        self.densities[tissue] += mean if texture is None else (weight * texture).mean(0)
        self.used.add(tissue)

    def paint_mixed(self, first: Tissue, second: Tissue, share: Tensor, mix: Tensor, texture: Tensor | None) -> None:
        """Cover a share with two tissues at once, ``mix`` of it with the second."""
        weight = self.remaining * share
        self.remaining = self.remaining - weight
        for tissue, part in ((first, weight * (1 - mix)), (second, weight * mix)):
            self.fractions[tissue] += part.mean(0)
            self.densities[tissue] += part.mean(0) if texture is None else (part * texture).mean(0)
            self.used.add(tissue)
