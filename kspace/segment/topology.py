"""What shape a heart is, counted: pieces and holes of each structure and of each pair, against what anatomy allows.

In the middle of the left ventricle a short-axis slice shows two cavities and a closed ring around one of them. Betti
numbers say so without a reference segmentation: b0 counts pieces, b1 counts holes. Foreground pixels are neighbours
along sides and corners (8), background pixels along sides only (4), which is the homology of the union of closed
pixels, and of gudhi's cubical complex over top-dimensional cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError
from kspace.segment.segmentation import Structure

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Part:
    """Structures taken together, and the Betti numbers of their union in a middle slice.

    Parameters
    ----------
    structures
        One structure or a pair.
    pieces, holes
        b0 and b1.
    """

    structures: tuple[Structure, ...]
    pieces: int
    holes: int

    @property
    def name(self) -> str:
        """For people: ``RV``, ``LV+MYOCARDIUM``."""
        return "+".join(structure.name for structure in self.structures)


PARTS = (
    Part((Structure.RV,), 1, 0),
    Part((Structure.MYOCARDIUM,), 1, 1),
    Part((Structure.LV,), 1, 0),
    Part((Structure.RV, Structure.MYOCARDIUM), 1, 1),
    Part((Structure.RV, Structure.LV), 2, 0),
    Part((Structure.MYOCARDIUM, Structure.LV), 1, 0),
)
"""A middle slice, as Byrne et al. (arXiv 2107.12689) have it. At the base the ring may be open, at the apex there may
be no cavity: there, these numbers are wrong for a right segmentation."""

_MEMBERS = np.zeros((len(PARTS), len(Structure)), dtype=bool)
for _row, _part in enumerate(PARTS):
    _MEMBERS[_row, list(_part.structures)] = True


def _quad_table() -> NDArray[np.int64]:
    """Return (256, part): four times what a 2 x 2 block of labels adds to the Euler number of each part.

    The block's labels a b / c d have the code a + 4 b + 16 c + 64 d. Of a foreground with 8 neighbours, blocks with one
    pixel add 1, blocks with three take 1, diagonal ones take 2 (Gray, IEEE Trans Comput 1971;C-20:551-561).
    """
    code = np.arange(256)
    inside = _MEMBERS[:, np.stack([code >> shift & 3 for shift in (0, 2, 4, 6)])]  # (part, corner, code)
    count = inside.sum(1)
    diagonal = (count == 2) & (inside[:, 0] == inside[:, 3])
    table: NDArray[np.int64] = ((count == 1).astype(np.int64) - (count == 3) - 2 * diagonal).T
    return table


_QUADS = _quad_table()


def betti_numbers(labels: Tensor) -> Tensor:
    """Count pieces and holes of each of :data:`PARTS`, exactly, in any number of images at once.

    Pieces are connected components; holes follow from the Euler number, which 2 x 2 blocks of pixels add up to.

    Parameters
    ----------
    labels
        (..., y, x), of integers: see :class:`~kspace.segment.segmentation.Structure`. What lies beyond the image is
        background.

    Returns
    -------
    Tensor
        (..., part, 2) int64, b0 and b1 in the order of :data:`PARTS`, on the labels' device. Counted on the CPU.

    Raises
    ------
    ShapeError, InputError
        When there is no image, or labels are no labels.
    """
    if labels.ndim < 2:
        raise ShapeError("the labels", labels, "(..., y, x)")
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(f"the labels are {labels.dtype}", expected="integers")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < len(Structure):
        raise InputError("the labels hold other values", expected=f"0 to {len(Structure) - 1}")
    lead = labels.shape[:-2]
    stack = _cropped(labels.detach().reshape(lead.numel(), *labels.shape[-2:]).cpu().numpy().astype(np.uint8))
    pieces = np.stack([_pieces(members[stack]) for members in _MEMBERS], 1)
    codes = stack[:, :-1, :-1] + 4 * stack[:, :-1, 1:] + 16 * stack[:, 1:, :-1] + 64 * stack[:, 1:, 1:]
    offset = 256 * np.arange(len(stack))[:, None, None]
    blocks = np.bincount((codes + offset).ravel(), minlength=256 * len(stack)).reshape(-1, 256)
    numbers = np.stack([pieces, pieces - blocks @ _QUADS // 4], -1)
    return torch.from_numpy(numbers).reshape(*lead, len(PARTS), 2).to(labels.device)


def betti_errors(labels: Tensor, *, each: bool = False) -> Tensor:
    """Count pieces and holes too many or too few, over all of :data:`PARTS`; 0 is a heart's topology.

    Only for slices in the middle of the left ventricle: see :data:`PARTS`.

    Parameters
    ----------
    labels
        (..., y, x), as in :func:`betti_numbers`.
    each
        Keep the parts apart.

    Returns
    -------
    Tensor
        (...) int64, sum of |b - expected| over b0 and b1 of all parts; or (..., part).

    Raises
    ------
    ShapeError, InputError
        As :func:`betti_numbers`.
    """
    expected = torch.tensor([(part.pieces, part.holes) for part in PARTS], device=labels.device)
    errors = (betti_numbers(labels) - expected).abs().sum(-1)
    return errors if each else errors.sum(-1)


def _cropped(stack: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut (image, y, x) labels to what holds any foreground, with a border of background."""
    rows, columns = np.flatnonzero(stack.any((0, 2))), np.flatnonzero(stack.any((0, 1)))
    if not len(rows):
        return np.zeros((len(stack), 2, 2), dtype=np.uint8)
    return np.pad(stack[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], ((0, 0), (1, 1), (1, 1)))


def _pieces(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the components of each of (image, y, x) masks."""
    from scipy import ndimage

    within: Any = np.zeros((3, 3, 3), dtype=bool)
    within[1] = True  # neighbours in the plane, corners too, and none in the image before or after
    names, n_pieces = ndimage.label(masks, within)
    image_of = np.zeros(n_pieces + 1, dtype=np.int64)
    image_of[names[masks]] = np.nonzero(masks)[0]
    return np.bincount(image_of[1:], minlength=len(masks))
