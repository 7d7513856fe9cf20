"""The floor: the transforms and bytes that a job cannot do without, timed here and now with the fastest library.

One frame after another in warm buffers, frames side by side in as many threads as ours uses. On a GPU the same
transforms go through cuFFT; that path has not been run on one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
import torch

from bench.speed.problem import Array, Problem
from bench.speed.timing import timed, wait_idle
from bench.speed.tool import Frames
from kspace.fft import fftw_available, workspace

REPEATS = 5


def measure_floor(problem: Problem, threads: int, device: str, patience_s: float) -> dict[str, Any]:
    """Return seconds of each part for all frames, with what it was measured by.

    ``fft_gridded``: one 2D transform per coil and frame on the grid upsampled by 1.25. ``fft_padded``: the same on the
    grid doubled for Toeplitz, where lines that hold only padding are left out. ``fft_wide``: one per frame on the
    doubled grid upsampled by 1.25, and ``fft_double``: one on the doubled grid, which a point-spread spectrum takes.
    """
    size = problem.size
    even = 2 * scipy.fft.next_fast_len(round(1.25 * size.matrix / 2))
    wide, double = 2 * scipy.fft.next_fast_len(round(1.25 * size.matrix)), 2 * size.matrix
    wait_idle(patience_s)
    bandwidth = _copy_bandwidth(device)
    parts: dict[str, Any] = {"copy_GBps": bandwidth}
    for name, grid, coils, pruned in (
        ("fft_gridded", even, size.coils, False),
        ("fft_padded", double, size.coils, True),
        ("fft_wide", wide, 1, False),
        ("fft_double", double, 1, False),
    ):
        trials = _transforms(grid, coils, size.frames, threads, pruned, device)
        seconds = {library: min(timed(run)[1].seconds for _ in range(REPEATS)) for library, run in trials.items()}
        best = min(seconds, key=lambda library: seconds[library])
        parts[name] = {"grid": grid, "library": best, "seconds": seconds[best], "all": seconds}
    return parts


def floor_seconds(kind: str, parts: dict[str, Any], problem_size: Any, row: dict[str, Any]) -> tuple[float, str] | None:
    """Return the floor of a row and its name."""
    size = problem_size
    gridded, padded = parts["fft_gridded"]["seconds"], parts["fft_padded"]["seconds"]
    samples = 8 * size.frames * size.coils * size.spokes * size.readout
    images = 8 * size.frames * size.matrix**2
    transfer = (samples + images) / (parts["copy_GBps"] * 1e9)
    spectrum = parts["fft_wide"]["seconds"] + parts["fft_double"]["seconds"]
    normal, which = min((2 * gridded, "gridded"), (2 * padded, "Toeplitz"))
    iterations = int(row.get("iterations") or 0)
    set_up = gridded + transfer
    new = row.get("new_spokes", 0) / max(1, size.frames * size.spokes)
    floors = {
        "forward": (set_up, "FFT of the upsampled grid + bytes"),
        "adjoint": (set_up, "FFT of the upsampled grid + bytes"),
        "gridded": (2 * gridded, "2 FFTs of the upsampled grid"),
        "toeplitz": (2 * padded, "2 pruned FFTs of the doubled grid"),
        "auto": (normal, f"the lower of both forms' FFTs ({which})"),
        "cg-sense": (set_up + iterations * normal, f"adjoint + own iterations x {which} FFTs"),
        "iterations": (iterations * normal, f"own iterations x {which} FFTs"),
        "cs": (set_up + iterations * normal, f"adjoint + own iterations x {which} FFTs"),
        "update": (gridded + spectrum + new * transfer, "adjoint's FFTs + point spread's FFTs + bytes"),
        "warm": (gridded + spectrum + iterations * normal, f"update + own iterations x {which} FFTs"),
        "warm cs": (gridded + spectrum + iterations * normal, f"update + own iterations x {which} FFTs"),
    }
    return floors.get(kind)


def _transforms(
    grid: int, coils: int, frames: int, threads: int, pruned: bool, device: str
) -> dict[str, Callable[[], Any]]:
    pool = Frames(threads)
    half = grid // 2 if pruned else grid
    if device == "cuda":
        there = torch.randn((coils, grid, grid), dtype=torch.complex64, device=device)

        def cufft() -> None:
            for _ in range(frames):
                torch.fft.fft2(there)
            torch.cuda.synchronize()

        cufft()
        return {"cuFFT": cufft}
    buffers: dict[int, tuple[Array, Array]] = {
        f: (np.ones((grid, half), np.complex64), np.ones((grid, grid), np.complex64)) for f in range(threads)
    }

    def each(transform: Callable[[Array, int], Any]) -> Callable[[], Any]:
        def frame(number: int) -> None:
            for thread in range(number, frames, threads):
                del thread
                tall, square = buffers[number]
                for _ in range(coils):
                    transform(tall, 0)
                    transform(square, 1)

        return lambda: pool.map(frame, threads)

    found = {"scipy": each(lambda a, axis: scipy.fft.fft(a, axis=axis, norm="ortho", overwrite_x=True, workers=1))}
    try:
        import ducc0
    except ImportError:
        pass
    else:
        found["ducc0"] = each(lambda a, axis: ducc0.fft.c2c(a, axes=(axis,), out=a, nthreads=1, inorm=1))
    if pruned and fftw_available():

        def with_fftw(number: int) -> None:
            own = workspace((half, half), np.dtype(np.complex64))
            for thread in range(number, frames, threads):
                del thread
                own.image.fill(0)  # what is transformed again and again would overflow
                for _ in range(coils):
                    own.transform()  # one half of the rows there and back is as much as both halves there

        found["fftw"] = lambda: pool.map(with_fftw, threads)
    torch.set_num_threads(threads)
    tall, square = (
        torch.ones(coils, grid, half, dtype=torch.complex64),
        torch.ones(coils, grid, grid, dtype=torch.complex64),
    )
    out_tall, out_square = torch.empty_like(tall), torch.empty_like(square)

    def with_torch() -> None:
        for _ in range(frames):
            torch.fft.fft(tall, dim=-2, out=out_tall)
            torch.fft.fft(square, dim=-1, out=out_square)

    found["torch"] = with_torch
    for run in found.values():
        run()
    return found


def _copy_bandwidth(device: str) -> float:
    """Return GB/s read and written by copying an array far larger than the caches."""
    source = torch.ones(1 << 25, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()

    copy()
    return 2 * 4 * (1 << 25) / 1e9 / min(timed(copy)[1].seconds for _ in range(REPEATS))
