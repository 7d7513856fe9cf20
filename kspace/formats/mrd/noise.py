"""Noise covariance, to and from noise readouts."""

from __future__ import annotations

import numpy as np

from kspace.errors import InputError


def covariance(samples: np.ndarray, noise_dwell_us: float, dwell_us: float) -> np.ndarray:
    """Return the expectation of ``n n^H`` of one sample of an imaging readout, (coil, coil) complex64.

    Parameters
    ----------
    samples
        (readout, coil, sample) of the noise readouts.
    noise_dwell_us, dwell_us
        Sampling times of noise and imaging readouts. The variance goes with the bandwidth, the inverse of the
        sampling time, and is scaled so; 0 means that a time is not known, and nothing is scaled.
    """
    noise = samples.transpose(1, 0, 2).reshape(samples.shape[1], -1).astype(np.complex128)
    known = noise_dwell_us > 0 and dwell_us > 0
    scale = noise_dwell_us / dwell_us if known else 1.0
    with np.errstate(over="ignore"):  # RadialScan refuses what overflows
        return np.asarray((noise @ noise.conj().T * (scale / noise.shape[1])).astype(np.complex64))


def readouts_with(covariance: np.ndarray, n_samples: int) -> np.ndarray:
    """Return readouts (readout, coil, sample) complex64 whose sample covariance is the given one.

    They are a root of the covariance times rows of a Fourier matrix, which are orthogonal: nothing is drawn by chance,
    and nothing lost but rounding.

    Raises
    ------
    InputError
        When the matrix is not Hermitian or has a negative eigenvalue.
    """
    matrix = covariance.astype(np.complex128)
    size = float(np.abs(matrix).max(initial=0.0))
    values, vectors = np.linalg.eigh((matrix + matrix.conj().T) / 2)
    if np.abs(matrix - matrix.conj().T).max() > 1e-5 * size or values.min() < -1e-5 * size:
        raise InputError(
            "the noise covariance is no covariance", expected="a Hermitian matrix without negative eigenvalues"
        )
    n_coils = len(matrix)
    n_readouts = -(-n_coils // n_samples)
    total = n_readouts * n_samples
    waves = np.exp(2j * np.pi * np.outer(np.arange(n_coils), np.arange(total)) / total)
    noise = (vectors * np.sqrt(np.maximum(values, 0.0))) @ waves
    return np.asarray(noise.reshape(n_coils, n_readouts, n_samples).transpose(1, 0, 2).astype(np.complex64))
