"""Which form of the normal operator costs less: a model with measured constants.

Per coil and frame, in seconds of one core, fitted to 42 problems of 128 to 256 pixels and 3 to 100 spokes with 4 coils,
with and without readout oversampling, on two cores of an AMD EPYC. With FFTW's transforms in a core's own cache, the
Toeplitz form won all 42, by a factor of 1.4 to 7.5. With scipy's it takes about twice as long, and gridding wins at few
spokes. The constants are of one machine; only their ratio matters.
"""

from __future__ import annotations

import math
from typing import Literal

from kspace.fft import fftw_available

NormalForm = Literal["toeplitz", "gridded"]

_GRIDDED = 5.16e-9, 9.26e-8, 1.56e-4  # s per N^2 log2 N, per sample, and per call
_TOEPLITZ = 3.63e-9, 1.04e-5  # s per N^2 log2 N, and per call
_SCIPY = 1.9  # the Toeplitz form's time with scipy's transforms over that with FFTW's


def seconds_of(form: NormalForm, matrix: tuple[int, int], n_samples: int) -> float:
    """Return about how long one application takes one core, per coil and frame.

    Parameters
    ----------
    form
        ``toeplitz`` or ``gridded``.
    matrix
        (rows, columns) of the image.
    n_samples
        Samples of one frame.
    """
    pixels = math.prod(matrix)
    transform = pixels * math.log2(max(pixels, 2)) / 2
    if form == "toeplitz":
        factor = 1.0 if fftw_available() else _SCIPY
        return factor * (_TOEPLITZ[0] * transform + _TOEPLITZ[1])
    return _GRIDDED[0] * transform + _GRIDDED[1] * n_samples + _GRIDDED[2]


def cheaper_form(matrix: tuple[int, int], n_samples: int) -> NormalForm:
    """Return the form that the model holds for the faster one; for arguments see :func:`seconds_of`."""
    toeplitz, gridded = (seconds_of(form, matrix, n_samples) for form in ("toeplitz", "gridded"))
    return "toeplitz" if toeplitz <= gridded else "gridded"
