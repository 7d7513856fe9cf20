"""Square windows of a slice at a network's own pixel size, and the way back to the slice's grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from kspace.errors import UsageError


@dataclass(frozen=True)
class Window:
    """A square on a slice.

    Parameters
    ----------
    centre
        (y, x) of its middle, in pixels of the slice.
    size
        Its rows and columns.
    pixel_mm
        Its pixels.
    spacing_mm
        (y, x) of the slice's pixels.

    Raises
    ------
    UsageError
        When a size is not positive.
    """

    centre: tuple[float, float]
    size: int
    pixel_mm: float
    spacing_mm: tuple[float, float]

    def __post_init__(self) -> None:
        if self.size < 1 or not self.pixel_mm > 0 or not min(self.spacing_mm) > 0:
            raise UsageError(
                f"a window of {self.size} pixels of {self.pixel_mm} mm on pixels of {self.spacing_mm} mm",
                expected="positive numbers",
            )

    def cut(self, images: Tensor) -> Tensor:
        """Return what (frame, y, x) images show there: (frame, size, size), zero outside the images.

        Images finer than the window are averaged first, so that nothing aliases.
        """
        rows, columns = images.shape[-2:]
        shape = [
            max(1, min(n, round(n * mm / self.pixel_mm)))
            for n, mm in zip((rows, columns), self.spacing_mm, strict=True)
        ]
        small = interpolate(images.float()[:, None], shape, mode="bilinear", antialias=True, align_corners=False)
        offset = (torch.arange(self.size) - (self.size - 1) / 2) * self.pixel_mm
        y, x = ((c + 0.5 + offset / mm) / n for c, mm, n in self._axes(rows, columns))
        grid = torch.stack(torch.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij"), -1).flip(-1).to(small)
        cut = grid_sample(small, grid.expand(len(small), -1, -1, -1), padding_mode="zeros", align_corners=False)
        return cut[:, 0]

    def put_back(self, values: Tensor, shape: tuple[int, int], outside: Tensor) -> Tensor:
        """Return (frame, channel, size, size) values on the slice's grid.

        Parameters
        ----------
        values
            In the window.
        shape
            Rows and columns of the slice.
        outside
            (channel,) what stands outside the window.

        Returns
        -------
        (frame, channel, y, x) by linear interpolation.
        """
        y, x = (
            ((torch.arange(n) - c) * mm / self.pixel_mm + self.size / 2) / self.size for c, mm, n in self._axes(*shape)
        )
        grid = torch.stack(torch.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij"), -1).flip(-1).to(values)
        level = outside.to(values)[None, :, None, None]
        return level + grid_sample(
            values - level, grid.expand(len(values), -1, -1, -1), padding_mode="zeros", align_corners=False
        )

    def to_slice(self, row: float, column: float) -> tuple[float, float]:
        """Return (y, x) on the slice, in pixels, of a point of the window in its pixels."""
        middle = (self.size - 1) / 2
        return (
            self.centre[0] + (row - middle) * self.pixel_mm / self.spacing_mm[0],
            self.centre[1] + (column - middle) * self.pixel_mm / self.spacing_mm[1],
        )

    def _axes(self, rows: int, columns: int) -> tuple[tuple[float, float, int], tuple[float, float, int]]:
        return (self.centre[0], self.spacing_mm[0], rows), (self.centre[1], self.spacing_mm[1], columns)
