"""Fourier transforms of one small image at a time, in a thread's own buffers.

FFTW's plans are made once per thread and shape and run in the calling thread; without pyfftw, scipy's transforms do the
same at about half the speed. Torch's own would start a team of threads for each small transform and wait for it.
"""

from __future__ import annotations

import importlib.util
import threading
from functools import cache
from typing import Any

import numpy as np
import scipy.fft
import torch

PAD = 8
"""So many more elements lie between rows: rows that are a power of two apart share a few lines of the cache."""


@cache
def fftw_available() -> bool:
    """Whether pyfftw is installed."""
    return importlib.util.find_spec("pyfftw") is not None


class PaddedTransform:
    """The transforms that a convolution with a kernel of twice the image's size needs, one half of the rows at a time.

    Of an image x of R x C, padded with zeros to 2R x 2C, the even rows of the spectrum are those of x itself and the
    odd ones those of x exp(-i pi y / R): both are transforms of R rows. Columns are padded in earnest, which costs as
    much as to split them too, and saves the products.

    Parameters
    ----------
    matrix
        (R, C) of the image.
    dtype
        complex64 or complex128.

    Attributes
    ----------
    image
        (R, C + PAD), goes in and comes out; what the last columns hold does not matter.
    source, scratch, total
        (R, C + PAD), for the caller.
    spectrum
        (R, 2C), half of the rows of the padded image's spectrum. It is torch's, whose product of complex and real
        numbers takes half of numpy's time.
    """

    def __init__(self, matrix: tuple[int, int], dtype: np.dtype[Any]) -> None:
        rows, columns = matrix
        self.image, self.source, self.scratch, self.total = (_zeros(rows, columns + PAD, dtype) for _ in range(4))
        wide = _zeros(rows, 2 * columns + PAD, dtype)[:, : 2 * columns]
        self.spectrum = torch.from_numpy(wide)
        self._wide, self._left, self._right = wide, wide[:, :columns], wide[:, columns:]
        self._inner = self.image[:, :columns]
        self._plans = _plan(self._inner, self._wide, self._left) if fftw_available() else None

    def forward(self) -> None:
        """Transform :attr:`image` to :attr:`spectrum`."""
        if self._plans is None:
            self._left[...] = scipy.fft.fft(self._inner, axis=0, workers=1)
            self._right[...] = 0
            self._wide[...] = scipy.fft.fft(self._wide, axis=1, overwrite_x=True, workers=1)
            return
        self._plans[0].execute()
        self._right[...] = 0
        self._plans[1].execute()

    def backward(self) -> None:
        """Transform :attr:`spectrum` to :attr:`image` without normalising, dropping what lies in the padded columns."""
        if self._plans is None:
            back = scipy.fft.ifft(self._wide, axis=1, norm="forward", overwrite_x=True, workers=1)
            self._inner[...] = scipy.fft.ifft(back[:, : self._inner.shape[1]], axis=0, norm="forward", workers=1)
            return
        self._plans[2].execute()
        self._plans[3].execute()


def _zeros(rows: int, columns: int, dtype: np.dtype[Any]) -> np.ndarray:
    if not fftw_available():
        return np.zeros((rows, columns), dtype)
    import pyfftw

    values: np.ndarray = pyfftw.zeros_aligned((rows, columns), dtype)
    return values


def _plan(image: np.ndarray, wide: np.ndarray, left: np.ndarray) -> tuple[Any, ...]:
    import pyfftw

    # Estimated plans are half as fast; measuring takes a third of a second, once per shape.
    flags = ("FFTW_MEASURE", "FFTW_DESTROY_INPUT")
    return (
        pyfftw.FFTW(image, left, axes=(0,), flags=flags),
        pyfftw.FFTW(wide, wide, axes=(1,), flags=flags),
        pyfftw.FFTW(wide, wide, axes=(1,), direction="FFTW_BACKWARD", flags=flags),
        pyfftw.FFTW(left, image, axes=(0,), direction="FFTW_BACKWARD", flags=flags),
    )


_workspaces = threading.local()


def workspace(matrix: tuple[int, int], dtype: np.dtype[Any]) -> PaddedTransform:
    """Return this thread's transform for a shape; the last one is kept, as fresh pages cost more than arithmetic."""
    key = (*matrix, dtype)
    if getattr(_workspaces, "key", None) != key:
        _workspaces.transform = PaddedTransform(matrix, dtype)
        _workspaces.key = key
    transform: PaddedTransform = _workspaces.transform
    return transform
