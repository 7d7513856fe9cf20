"""What the networks were shown of a patient, and what they drew: kept beside a study for judges that look at images.

A trajectory holds numbers. Classifiers of images and reverse classification accuracy need the images themselves; with
them kept, another such judge costs no scan. A patient is one compressed NumPy archive of bytes, about 5 MB.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kspace.errors import InputError
from kspace.formats.files import existing_file, written_beside

IMAGES = "images"
"""Folder of images in a study's folder; below it one for each key."""
Bytes = NDArray[np.uint8]
_TOP_SHARE = 0.995
_MAX_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class Seen:
    """Images and labels in the window about the heart, pixels as the networks see them.

    Parameters
    ----------
    images, labels
        (step, slice, frame, y, x): magnitudes as :func:`as_bytes` scales them, and what was drawn.
    truth, reference, exact
        (slice, frame, y, x): the fully sampled image, what the same networks draw on it, and the exact labels.
    """

    images: Bytes
    labels: Bytes
    truth: Bytes
    reference: Bytes
    exact: Bytes

    def __post_init__(self) -> None:
        shape = self.images.shape
        for field in fields(self):
            value = getattr(self, field.name)
            expected = shape if field.name in ("images", "labels") else shape[1:]
            if value.dtype != np.uint8 or value.shape != expected or len(shape) != 5:
                raise InputError(
                    f"{field.name} are {value.dtype} of shape {value.shape}", expected=f"uint8 of {expected}"
                )

    @staticmethod
    def of_slices(slices: Sequence[Seen]) -> Seen:
        """Join slices that were seen one by one."""
        axis = {"images": 1, "labels": 1}
        return Seen(
            **{f.name: np.concatenate([getattr(s, f.name) for s in slices], axis.get(f.name, 0)) for f in fields(Seen)}
        )

    def write(self, path: Path) -> None:
        """Write it, whole or not at all; the folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        with written_beside(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @staticmethod
    def read(path: Path) -> Seen:
        """Read what :meth:`write` wrote.

        Raises
        ------
        InputError
            When it is missing, too large or something else. Nothing in it can run.
        """
        try:
            with zipfile.ZipFile(existing_file(path, "images of a study's patient")) as parts:
                if sum(part.file_size for part in parts.infolist()) > _MAX_BYTES:
                    raise ValueError("it is too large unpacked")
            with np.load(path, allow_pickle=False) as archive:
                return Seen(**{field.name: archive[field.name] for field in fields(Seen)})
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} holds no images of a patient ({error})", expected="what a study kept") from error


def path_of(folder: Path, number: int) -> Path:
    """Return where a patient's images lie."""
    return folder / f"{number:05d}.npz"


def as_bytes(images: Tensor) -> Bytes:
    """Return (..., y, x) magnitudes over their 99.5th percentile, clipped, as 0 to 255."""
    top = max(float(torch.quantile(images.float().flatten()[::4], _TOP_SHARE)), 1e-30)
    scaled: Bytes = (images.float() / top).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    return scaled
