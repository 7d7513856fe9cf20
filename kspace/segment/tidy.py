"""The cheap way to a heart's topology: the largest piece of each structure, without holes in the heart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError
from kspace.segment.maps import bounding_box
from kspace.segment.segmentation import FOREGROUND


def tidy(labels: Tensor) -> Tensor:
    """Keep the largest piece of each structure, and fill holes of the whole heart with the label of the nearest pixel.

    What it cannot do is close an open ring, or part what touches. Neighbours as in :mod:`kspace.segment.topology`.

    Parameters
    ----------
    labels
        (..., y, x) uint8: see :class:`~kspace.segment.segmentation.Structure`.

    Returns
    -------
    Tensor
        (..., y, x) uint8, on the labels' device.

    Raises
    ------
    ShapeError, InputError
        When there is no image, or labels are not uint8.
    """
    from scipy import ndimage

    if labels.ndim < 2:
        raise ShapeError("the labels", labels, "(..., y, x)")
    if labels.dtype != torch.uint8:
        raise InputError(f"the labels are {labels.dtype}", expected="uint8")
    images = labels.detach().reshape(-1, *labels.shape[-2:]).cpu().clone()
    box = bounding_box((images > 0).any(0), 0)  # beyond it there is background alone
    for image in images[:, box[0], box[1]].numpy():
        for structure in FOREGROUND:
            names, n_pieces = ndimage.label(image == structure, np.ones((3, 3)))
            if n_pieces > 1:
                largest = 1 + np.bincount(names.ravel())[1:].argmax()
                image[(names > 0) & (names != largest)] = 0
        heart = image > 0
        holes = ndimage.binary_fill_holes(heart) & ~heart
        if holes.any():
            rows, columns = ndimage.distance_transform_edt(~heart, return_distances=False, return_indices=True)
            image[holes] = image[rows[holes], columns[holes]]
    return images.reshape(labels.shape).to(labels.device)
