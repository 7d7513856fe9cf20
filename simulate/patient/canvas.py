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
        (planes, rows, columns) of what is drawn, all planes at once; the result is their weighted mean.
    edge_mm
        Width over which an edge passes from nothing to full: about one pixel.
    device
        Where the tensors live.
    weights
        (planes,) of sum 1; even ones by default.
    """

    def __init__(
        self, shape: tuple[int, ...], edge_mm: float, device: torch.device, weights: Tensor | None = None
    ) -> None:
        self.remaining = torch.ones(shape, device=device)
        self.slow = torch.zeros(shape[1:], device=device)
        """Share of each pixel that is arterial blood next to rest, times its texture."""
        self._weights = None if weights is None else weights.to(device)
        self.fractions = torch.zeros((N_TISSUES, *shape[1:]), device=device)
        self.densities = torch.zeros_like(self.fractions)
        self.used: set[Tissue] = set()
        self._edge = 1.0 / edge_mm

    def cover(self, distance: Tensor) -> Tensor:
        """Return the share of each pixel inside, from signed distances in mm that are negative inside."""
        return (0.5 - self._edge * distance).clamp_(0.0, 1.0)

    def mean(self, planes: Tensor) -> Tensor:
        """Return the weighted mean (y, x) over planes."""
        if self._weights is None:
            return planes.mean(0)
        return torch.einsum("p,pyx->yx", self._weights, planes)

    def rest(self) -> Tensor:
        """Return the share (y, x) that nothing has covered yet."""
        return self.mean(self.remaining)

    def paint(
        self, tissue: Tissue, share: Tensor, texture: Tensor | None = None, *, slow: Tensor | None = None
    ) -> None:
        """Cover a share (plane, y, x) of what is left with a tissue.

        ``texture`` multiplies its density; ``slow`` is how much of it does not flow.
        """
        weight = self.remaining * share
        self.remaining = self.remaining - weight
        mean = self.mean(weight)
        self.fractions[tissue] += mean
        textured = weight if texture is None else weight * texture
        self.densities[tissue] += mean if texture is None else self.mean(textured)
        if slow is not None:
            self.slow += self.mean(textured * slow)
        self.used.add(tissue)

    def paint_mixed(self, first: Tissue, second: Tissue, share: Tensor, mix: Tensor, texture: Tensor | None) -> None:
        """Cover a share with two tissues at once, ``mix`` of it with the second."""
        weight = self.remaining * share
        self.remaining = self.remaining - weight
        for tissue, part in ((first, weight * (1 - mix)), (second, weight * mix)):
            mean = self.mean(part)
            self.fractions[tissue] += mean
            self.densities[tissue] += mean if texture is None else self.mean(part * texture)
            self.used.add(tissue)
