"""Papillary muscles and trabeculae belong to the cavity, as experts draw it: a cavity without dents.

The convention of ACDC, M&Ms, UK Biobank and the Sunnybrook contours alike. In the middle and at the apex of the left
ventricle the cavity so drawn is convex; what a network takes for wall within its convex hull is a papillary muscle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kspace.errors import ShapeError
from kspace.segment.maps import bounding_box
from kspace.segment.segmentation import Structure

_LEAST_PX = 10  # a hull needs a body


def with_papillary_muscles(labels: Tensor) -> Tensor:
    """Count the myocardium within the cavity's convex hull to the cavity.

    Not for basal slices: the outflow tract makes a dent of its own there.

    Parameters
    ----------
    labels
        (..., y, x) uint8: see :class:`~kspace.segment.segmentation.Structure`.

    Returns
    -------
    (..., y, x) uint8, on the labels' device.

    Raises
    ------
    ShapeError
        When there is no image, or labels are not uint8.
    """
    if labels.ndim < 2 or labels.dtype != torch.uint8:
        raise ShapeError("the labels", labels, "(..., y, x) uint8")
    from skimage.morphology import convex_hull_image  # takes a second to import

    images = labels.detach().reshape(-1, *labels.shape[-2:]).cpu().clone()
    for whole in images:
        box = bounding_box(whole == Structure.LV, 0)
        image = whole[box]
        cavity = image == Structure.LV
        if int(cavity.sum()) >= _LEAST_PX:
            # Of the pixels' centres: of their corners it would be larger than a disc that has no dent.
            hull = convex_hull_image(cavity.numpy(), offset_coordinates=False)  # type: ignore[no-untyped-call]
            image[torch.from_numpy(hull) & (image == Structure.MYOCARDIUM)] = int(Structure.LV)
    return images.reshape(labels.shape).to(labels.device)
