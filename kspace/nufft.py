"""The non-uniform Fourier transform of one set of points: plan once, run many times.

:class:`Nufft` computes, for images x on a grid and points k in cycles per pixel,

    forward   s(k) = 1 / sqrt(Ny Nx)  sum_r  x(r) exp(-2 pi i k.r)        r from -(N // 2)
    adjoint   x(r) = 1 / sqrt(Ny Nx)  sum_k  s(k) exp(+2 pi i k.r)

with one of three engines: FINUFFT on the CPU, cuFINUFFT on a GPU where it is installed, torchkbnufft anywhere.

Accuracy, relative L2 error against an exact float64 transform (192 x 192, 13 golden-angle spokes of 384 samples,
complex64; ``tests/kspace/test_nufft.py`` checks the bounds):

===========  =========  ==========  =========  =========
preset       tolerance  upsampling  forward    adjoint
===========  =========  ==========  =========  =========
fast         1e-3       1.25        1.4e-3     1.5e-3
standard     3e-5       1.35        2.3e-5     2.3e-5
reference    1e-9       2, float64  2.5e-8     2.5e-8
===========  =========  ==========  =========  =========

The torchkbnufft engine has one accuracy, that of its interpolation table, whatever the preset.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError, UsageError

AccuracyName = Literal["fast", "standard", "reference"]
EngineName = Literal["auto", "finufft", "cufinufft", "torchkbnufft"]


@dataclass(frozen=True)
class Accuracy:
    """What the transform is asked for.

    Parameters
    ----------
    tolerance
        Relative error asked of FINUFFT.
    upsampling
        Fine grid over image grid; a low one halves the FFT's cost and memory, 2 reaches full accuracy.
    double
        Whether to compute in float64 whatever the data's type.
    """

    tolerance: float
    upsampling: float
    double: bool = False


ACCURACIES: dict[AccuracyName, Accuracy] = {
    "fast": Accuracy(1e-3, 1.25),
    "standard": Accuracy(3e-5, 1.35),
    "reference": Accuracy(1e-9, 2.0, double=True),
}


@cache
def cufinufft_available() -> bool:
    """Whether cuFINUFFT is installed."""
    return importlib.util.find_spec("cufinufft") is not None


def choose_engine(engine: EngineName, device: torch.device) -> EngineName:
    """Return the engine that ``auto`` stands for on a device, or the one asked for if it can run there."""
    if engine == "auto":
        if device.type == "cpu":
            return "finufft"
        return "cufinufft" if device.type == "cuda" and cufinufft_available() else "torchkbnufft"
    if engine == "finufft" and device.type != "cpu":
        raise UsageError(f"finufft cannot run on {device}", expected="the CPU", hint="Use cufinufft or torchkbnufft")
    if engine == "cufinufft" and (device.type != "cuda" or not cufinufft_available()):
        raise UsageError(
            f"cufinufft cannot run on {device}",
            expected="a CUDA device and an installed cufinufft",
            hint="Install the extra: pip install 'spokewise[gpu]'",
        )
    if engine not in ("finufft", "cufinufft", "torchkbnufft"):
        raise UsageError(f"unknown engine {engine!r}", expected="auto, finufft, cufinufft or torchkbnufft")
    return engine


class Nufft:
    """Planned transform between a grid and one set of points.

    Parameters
    ----------
    positions
        (sample, 2), order (ky, kx), cycles per pixel in [-0.5, 0.5]. Its device is where the transform runs.
    matrix
        (rows, columns) of the image grid.
    n_transforms
        How many images go through in one call; it must be known to plan.
    accuracy
        ``fast``, ``standard`` or ``reference``, or an :class:`Accuracy`.
    engine
        ``auto`` picks by device.
    dtype
        complex64 or complex128, of what goes in and comes out.
    n_threads
        CPU threads of one call; callers that run several plans at a time give each one.
    """

    def __init__(
        self,
        positions: Tensor,
        matrix: tuple[int, int],
        *,
        n_transforms: int = 1,
        accuracy: AccuracyName | Accuracy = "standard",
        engine: EngineName = "auto",
        dtype: torch.dtype = torch.complex64,
        n_threads: int | None = None,
    ) -> None:
        if positions.ndim != 2 or positions.shape[-1] != 2:
            raise ShapeError("positions", positions, "(sample, 2)")
        if dtype not in (torch.complex64, torch.complex128):
            raise InputError(f"the transform's type is {dtype}", expected="complex64 or complex128")
        if min(matrix) < 1 or n_transforms < 1:
            raise InputError(f"matrix {matrix} with {n_transforms} transforms", expected="positive sizes")
        self.matrix = (int(matrix[0]), int(matrix[1]))
        self.n_samples = int(positions.shape[0])
        self.n_transforms = n_transforms
        self.accuracy = ACCURACIES[accuracy] if isinstance(accuracy, str) else accuracy
        self.device = positions.device
        self.dtype = dtype
        self.engine = choose_engine(engine, positions.device)
        self._work_dtype = torch.complex128 if self.accuracy.double else dtype
        self._scale = 1.0 / math.sqrt(self.matrix[0] * self.matrix[1])
        radians = (2 * math.pi * positions.detach().double()).contiguous()
        real = torch.float64 if self._work_dtype == torch.complex128 else torch.float32
        self._radians = radians.T.contiguous().to(real)
        if self.n_samples == 0:
            return
        if self.engine == "finufft":
            self._plan_finufft(n_threads)
        elif self.engine == "cufinufft":
            self._plan_cufinufft()
        else:
            self._plan_torchkbnufft()

    def forward(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Transform (transform, y, x) images to (transform, sample) values; not recorded by autograd."""
        expected = (self.n_transforms, *self.matrix)
        return self._run(images, expected, (self.n_transforms, self.n_samples), adjoint=False, out=out)

    def adjoint(self, samples: Tensor, out: Tensor | None = None) -> Tensor:
        """Transform (transform, sample) values to (transform, y, x) images; not recorded by autograd."""
        expected = (self.n_transforms, self.n_samples)
        return self._run(samples, expected, (self.n_transforms, *self.matrix), adjoint=True, out=out)

    @torch.no_grad()
    def _run(
        self, data: Tensor, expected: tuple[int, ...], result: tuple[int, ...], *, adjoint: bool, out: Tensor | None
    ) -> Tensor:
        if tuple(data.shape) != expected:
            raise ShapeError("the transform's input", data, f"{expected}")
        if data.device != self.device:
            raise InputError(f"the input lies on {data.device}", expected=f"{self.device}, where the plan is")
        if self.n_samples == 0:
            return torch.zeros(result, dtype=self.dtype, device=self.device)
        work = data.detach().to(self._work_dtype).contiguous()
        direct = out if out is not None and out.dtype == self._work_dtype and out.is_contiguous() else None
        if self.engine == "finufft":
            computed = self._run_finufft(work, result, adjoint, direct)
        elif self.engine == "cufinufft":
            computed = self._run_cufinufft(work, result, adjoint, direct)
        else:
            computed = self._run_torchkbnufft(work, adjoint)
        computed *= self._scale
        if out is None:
            return computed.to(self.dtype)
        if computed is not out:
            out.copy_(computed)
        return out

    def _plan_finufft(self, n_threads: int | None) -> None:
        import finufft

        options: dict[str, Any] = {"nthreads": n_threads or torch.get_num_threads(), "fftw": 64}
        name = "complex128" if self._work_dtype == torch.complex128 else "complex64"
        self._plan = finufft.Plan(
            2,
            self.matrix,
            n_trans=self.n_transforms,
            eps=self.accuracy.tolerance,
            isign=-1,
            dtype=name,
            upsampfac=self.accuracy.upsampling,
            **options,
        )
        ky, kx = self._radians.numpy()
        self._plan.setpts(ky, kx)

    def _run_finufft(self, work: Tensor, result: tuple[int, ...], adjoint: bool, out: Tensor | None) -> Tensor:
        target = torch.empty(result, dtype=self._work_dtype) if out is None else out
        # One transform has no leading axis in FINUFFT.
        lead = slice(None) if self.n_transforms > 1 else 0
        run = self._plan.execute_adjoint if adjoint else self._plan.execute
        run(_resolved(work[lead]).numpy(), out=target[lead].numpy())
        return target

    def _plan_cufinufft(self) -> None:
        import cufinufft

        name = "complex128" if self._work_dtype == torch.complex128 else "complex64"
        # cuFINUFFT keeps low upsampling for its 3D kernels; on a GPU the spreading, not the FFT, is what costs.
        self._plans = {
            kind: cufinufft.Plan(
                kind,
                self.matrix,
                n_trans=self.n_transforms,
                eps=self.accuracy.tolerance,
                isign=-1 if kind == 2 else 1,
                dtype=name,
                gpu_device_id=self.device.index or 0,
            )
            for kind in (1, 2)
        }
        for plan in self._plans.values():
            plan.setpts(self._radians[0], self._radians[1])

    def _run_cufinufft(self, work: Tensor, result: tuple[int, ...], adjoint: bool, out: Tensor | None) -> Tensor:
        target = torch.empty(result, dtype=self._work_dtype, device=self.device) if out is None else out
        lead = slice(None) if self.n_transforms > 1 else 0
        self._plans[1 if adjoint else 2].execute(work[lead], out=target[lead])
        return target

    def _plan_torchkbnufft(self) -> None:
        import torchkbnufft

        options: dict[str, Any] = {
            "im_size": self.matrix,
            "grid_size": tuple(2 * n for n in self.matrix),
            "table_oversamp": 2**14,
            "dtype": self._work_dtype,
            "device": self.device,
        }
        self._kb_forward = torchkbnufft.KbNufft(**options)
        self._kb_adjoint = torchkbnufft.KbNufftAdjoint(**options)

    def _run_torchkbnufft(self, work: Tensor, adjoint: bool) -> Tensor:
        operator = self._kb_adjoint if adjoint else self._kb_forward
        computed: Tensor = operator(work[None], self._radians)[0]
        return computed


def _resolved(values: Tensor) -> Tensor:
    """Return values whose lazy conjugation, if any, has been carried out, contiguous in memory."""
    return values.resolve_conj().contiguous()


def exact_transform(images: Tensor, positions: Tensor) -> Tensor:
    """Compute the forward transform as a direct sum in float64; slow, for checking.

    Parameters
    ----------
    images
        (..., y, x).
    positions
        (sample, 2), cycles per pixel.

    Returns
    -------
    (..., sample) complex128.
    """
    rows, columns = images.shape[-2:]
    along = []
    for axis, size in enumerate((rows, columns)):
        r = torch.arange(size, dtype=torch.float64, device=images.device) - size // 2
        along.append(torch.exp(-2j * math.pi * positions[:, axis].double()[:, None] * r))
    partial = torch.einsum("...yx,sx->...sy", images.to(torch.complex128), along[1])
    return torch.einsum("...sy,sy->...s", partial, along[0]) / math.sqrt(rows * columns)


def exact_adjoint(samples: Tensor, positions: Tensor, matrix: tuple[int, int]) -> Tensor:
    """Compute the adjoint of :func:`exact_transform` as a direct sum in float64: (..., sample) to (..., y, x)."""
    along = []
    for axis, size in enumerate(matrix):
        r = torch.arange(size, dtype=torch.float64, device=samples.device) - size // 2
        along.append(torch.exp(2j * math.pi * positions[:, axis].double()[:, None] * r))
    weighted = samples.to(torch.complex128)[..., None] * along[1]
    return torch.einsum("sy,...sx->...yx", along[0], weighted) / math.sqrt(matrix[0] * matrix[1])


def as_numpy(values: Tensor) -> np.ndarray:
    """Return a tensor's values as a numpy array on the host, lazy conjugation carried out."""
    return values.detach().resolve_conj().cpu().numpy()
