"""Fourier transforms of one small image at a time, in a thread's own buffers.

FFTW's plans are made once per thread and shape and run in the calling thread; without pyfftw, scipy's transforms do the
same at about half the speed. Torch's own would start a team of threads for each small transform and wait for it.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable
from functools import cache, partial
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


_PLANNINGS = 4
_planning = threading.Lock()
_planned: set[tuple[Any, ...]] = set()


class PaddedTransform:
    """The transforms that a convolution with a kernel of twice the image's size needs, one half of the rows at a time.

    Of an image x of R x C, padded with zeros to 2R x 2C, the even rows of the spectrum are those of x itself and the
    odd ones those of x exp(-i pi y / R): both are transforms of R rows. In the same way the even and the odd columns of
    each are transforms of C columns. So no padding is ever transformed, or set to nought, and all stays in a core's
    own cache.

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
    """

    def __init__(self, matrix: tuple[int, int], dtype: np.dtype[Any]) -> None:
        rows, columns = matrix
        shape = rows, columns + PAD
        self.image, self.source, self.scratch, self.total, self._even = (_zeros(shape, dtype) for _ in range(5))
        inner = [padded[:, :columns] for padded in (self.image, self._even)]
        # Torch's product of complex and real numbers takes half of numpy's time.
        self._odd_spectrum, self._even_spectrum = (torch.from_numpy(values) for values in inner)
        self._turn = np.ones(shape[1], dtype)
        self._turn[:columns] = np.exp(-1j * np.pi / columns * np.arange(columns))
        self._back = self._turn.conj()
        self._run = _fftw(*inner) if fftw_available() else _scipy(*inner)

    def convolve(self, even: torch.Tensor, odd: torch.Tensor) -> None:
        """Multiply one half of the rows of the spectrum of :attr:`image`, and transform back without normalising.

        Parameters
        ----------
        even, odd
            (R, C) real, factors of the even and of the odd columns.
        """
        run = self._run
        run["rows"]()
        run["even columns"]()
        self._even_spectrum.mul_(even)
        run["even columns back"]()
        np.multiply(self.image, self._turn, out=self.image)
        run["columns"]()
        self._odd_spectrum.mul_(odd)
        run["columns back"]()
        np.multiply(self.image, self._back, out=self.image)
        np.add(self.image, self._even, out=self.image)
        run["rows back"]()

    def filter(self, factors: torch.Tensor) -> None:
        """Multiply the spectrum of :attr:`image` itself, without padding, and transform back without normalising.

        Parameters
        ----------
        factors
            (R, C) real, zero frequency first.
        """
        run = self._run
        run["rows"]()
        run["columns"]()
        self._odd_spectrum.mul_(factors)
        run["columns back"]()
        run["rows back"]()

    def transform(self) -> None:
        """Only the transforms of :meth:`convolve`, for a measurement of what they take; the results mean nothing."""
        for run in self._run.values():
            run()


def _zeros(shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray:
    if not fftw_available():
        return np.zeros(shape, dtype)
    import pyfftw

    values: np.ndarray = pyfftw.zeros_aligned(shape, dtype)
    return values


def _steps(image: np.ndarray, even: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray, int, bool]]:
    """Return what is transformed into what, along which axis and whether back, by name."""
    return {
        "rows": (image, image, 0, False),
        "even columns": (image, even, 1, False),
        "even columns back": (even, even, 1, True),
        "columns": (image, image, 1, False),
        "columns back": (image, image, 1, True),
        "rows back": (image, image, 0, True),
    }


def _fftw(image: np.ndarray, even: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return FFTW's transforms, the fastest of a few plannings.

    FFTW plans by the clock. What else the machine does at that moment can make it choose badly, by half as much time
    again, and it would keep to that choice for as long as the process lives.
    """
    import pyfftw

    def plan() -> dict[str, Callable[[], Any]]:
        return {
            name: pyfftw.FFTW(
                source,
                target,
                axes=(axis,),
                direction="FFTW_BACKWARD" if back else "FFTW_FORWARD",
                flags=("FFTW_MEASURE",),  # estimated plans are half as fast
            ).execute
            for name, (source, target, axis, back) in _steps(image, even).items()
        }

    key = (image.shape, image.strides, image.dtype.char)
    with _planning:
        if key not in _planned:
            before = pyfftw.export_wisdom()
            found: list[tuple[float, Any]] = []
            for _ in range(_PLANNINGS):
                pyfftw.forget_wisdom()
                pyfftw.import_wisdom(before)
                found.append((_seconds(plan()), pyfftw.export_wisdom()))
                quickest = sorted(seconds for seconds, _ in found)[:2]
                # Two that agree have not been disturbed.
                if len(found) > 1 and quickest[1] < 1.1 * quickest[0]:
                    break
            pyfftw.forget_wisdom()
            pyfftw.import_wisdom(min(found, key=lambda one: one[0])[1])
            _planned.add(key)
        return plan()


def _seconds(steps: dict[str, Callable[[], Any]]) -> float:
    """Return how long the steps take together where nothing disturbs them."""

    def once(step: Callable[[], Any]) -> float:
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    return sum(min(once(step) for _ in range(20)) for step in steps.values())


def _scipy(image: np.ndarray, even: np.ndarray) -> dict[str, Callable[[], Any]]:
    def run(source: np.ndarray, target: np.ndarray, axis: int, back: bool) -> None:
        if back:
            target[...] = scipy.fft.ifft(source, axis=axis, norm="forward", workers=1)
        else:
            target[...] = scipy.fft.fft(source, axis=axis, workers=1)

    return {name: partial(run, *step) for name, step in _steps(image, even).items()}


_workspaces = threading.local()


def workspace(matrix: tuple[int, int], dtype: np.dtype[Any]) -> PaddedTransform:
    """Return this thread's transform for a shape; the last one is kept, as fresh pages cost more than arithmetic."""
    key = (*matrix, dtype)
    if getattr(_workspaces, "key", None) != key:
        _workspaces.transform = PaddedTransform(matrix, dtype)
        _workspaces.key = key
    transform: PaddedTransform = _workspaces.transform
    return transform
