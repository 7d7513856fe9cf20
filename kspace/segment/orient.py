"""Turn the slices of a cine the usual way round: by quarters and mirrors, from the header.

A short-axis image is usually shown with the patient's left and back to the right and the feet below, but scanners store
it in any of the eight ways. What the networks see is turned the usual way; the labels are turned back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kspace.scan import Geometry

# Right-anterior-superior, of usual double-oblique short axes: columns run to left and back, rows to the feet.
_ALONG_COLUMNS = np.array([-0.7, -0.7, 0.0])
_ALONG_ROWS = np.array([0.0, -0.3, -1.0])


@dataclass(frozen=True)
class Turn:
    """A quarter turn or mirror image: first rows and columns swap, then they are flipped.

    Parameters
    ----------
    swapped
        Whether rows and columns swap.
    flipped_rows, flipped_columns
        Which run backwards then.
    """

    swapped: bool = False
    flipped_rows: bool = False
    flipped_columns: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """Turn (..., y, x) images."""
        images = images.mT if self.swapped else images
        return images.flip(self._flips)

    def undo(self, images: Tensor) -> Tensor:
        """Turn (..., y, x) images back."""
        images = images.flip(self._flips)
        return images.mT if self.swapped else images

    @property
    def _flips(self) -> list[int]:
        return [axis for axis, flipped in ((-2, self.flipped_rows), (-1, self.flipped_columns)) if flipped]


def usual_turn(geometry: Geometry) -> Turn:
    """Return the turn after which a geometry's slices are the usual way round."""
    columns, rows = (geometry.affine[:3, k] / np.linalg.norm(geometry.affine[:3, k]) for k in (0, 1))

    def likeness(turn: Turn) -> float:
        c, r = (rows, columns) if turn.swapped else (columns, rows)
        c, r = (-c if turn.flipped_columns else c), (-r if turn.flipped_rows else r)
        return float(c @ _ALONG_COLUMNS + r @ _ALONG_ROWS)

    turns = [Turn(s, y, x) for s in (False, True) for y in (False, True) for x in (False, True)]
    return max(turns, key=likeness)
