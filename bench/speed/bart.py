"""BART through its command line; every time contains the start of its process and its files."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.speed.peers import Peer
from bench.speed.problem import Array, Problem
from bench.speed.tool import Case, cg_cases
from kspace.formats.cfl import read_cfl, write_cfl

NOTE = "its process and files included"
LAMBDAS = (1e-3, 1e-2, 1e-1)
"""Tried for compressed sensing; the one nearest to the phantom is timed, which is more than a user could do."""
CS_ITERATIONS = 30


class Bart(Peer):
    """``nufft`` and ``pics``; all frames in one call, frames along axis 10."""

    def __init__(self, problem: Problem, threads: int) -> None:
        if shutil.which("bart") is None:
            raise ModuleNotFoundError("bart is not installed")
        super().__init__(problem, threads)
        self.environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self._folder = tempfile.TemporaryDirectory(prefix="bench-bart-")
        self.folder = Path(self._folder.name)
        # (x, y, z, coil, map, ..., time): our arrays with their axes reversed.
        self._write("maps", problem.maps.transpose(2, 1, 0)[:, :, None])

    def _write(self, name: str, values: Array) -> None:
        write_cfl(self.folder / name, torch.from_numpy(np.ascontiguousarray(values, np.complex64)))

    def _in_time(self, name: str, values: Array, lead: int) -> None:
        """Write (..., frame) with the frame on axis 10."""
        self._write(name, values.reshape(*values.shape[:lead], *(1,) * (10 - lead), values.shape[-1]))

    def _inputs(self, frames: int) -> None:
        """Write the first so many frames once; files that a user would have already."""
        if (self.folder / f"t{frames}.cfl").exists():
            return
        size = self.problem.size
        k = np.zeros((3, size.readout, size.spokes, frames), np.complex64)
        positions = self.problem.positions[:frames] * size.matrix
        k[0], k[1] = (positions[..., axis].transpose(2, 1, 0) for axis in (1, 0))
        self._in_time(f"t{frames}", k, 3)
        self._in_time(f"s{frames}", self.problem.samples[:frames].transpose(3, 2, 1, 0)[None], 4)
        coil_images = self.problem.images[:frames, None] * self.problem.maps
        self._in_time(f"x{frames}", coil_images.transpose(3, 2, 1, 0)[:, :, None], 4)

    def _bart(self, *arguments: object) -> None:
        done = subprocess.run(
            ["bart", *map(str, arguments)], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout).strip()[-250:])

    def _read(self, name: str, frames: int) -> Array:
        values = np.asarray(read_cfl(self.folder / name))
        return values.reshape(-1, order="F").reshape(frames, -1)

    def forward(self) -> dict[str, Case]:
        def run(frames: int) -> int:
            self._bart("nufft", f"t{frames}", f"x{frames}", "k")
            return frames

        return {"": self._made(run, "k", "forward", "nufft of coil images")}

    def adjoint(self) -> dict[str, Case]:
        n = self.problem.size.matrix

        def run(frames: int) -> int:
            self._bart("nufft", "-a", "-d", f"{n}:{n}:1", f"t{frames}", f"s{frames}", "b")
            return frames

        case = self._made(run, "b", "adjoint", "nufft -a to coil images")
        case.result = lambda frames: (
            self._read("b", frames).reshape(frames, self.coils, n, n) * self.problem.maps.conj()
        ).sum(1)
        return {"": case}

    def _made(self, run: Any, name: str, reference: str, note: str) -> Case:
        self._inputs(1)
        self._inputs(self.frames)
        extra = {"floor": reference, "note": f"{note}; {NOTE}"}
        return Case(self._with_inputs(run), reference, lambda n: self._read(name, n), extra=extra)

    def _with_inputs(self, run: Any) -> Any:
        def ready(frames: int) -> Any:
            self._inputs(frames)
            return run(frames)

        return ready

    def cg_sense(self, targets: tuple[float, ...]) -> dict[str, Case]:
        def solve(frames: int, iterations: int) -> Array:
            self._inputs(frames)
            self._bart(
                "pics", "-l2", "-r", self.damping, "-w1", "-i", iterations,
                "-t", f"t{frames}", f"s{frames}", "maps", "p",
            )  # fmt: skip
            return self._read("p", frames).reshape(frames, *self.grid)

        self._inputs(self.frames)
        note = f"pics -l2, Toeplitz, all frames share their steps; {NOTE}"
        return cg_cases(self.problem, lambda n: n, solve, note=note, targets=targets, split=False)

    def cs(self) -> dict[str, Case]:
        self._inputs(self.frames)

        def solve(weight: float) -> int:
            self._bart(
                "pics", f"-RT:1024:0:{weight:g}", "-w1", "-i", CS_ITERATIONS,
                "-t", f"t{self.frames}", f"s{self.frames}", "maps", "c",
            )  # fmt: skip
            return self.frames

        def image(frames: int) -> Array:
            return self._read("c", frames).reshape(frames, *self.grid)

        errors = {}
        for weight in LAMBDAS:
            errors[weight] = self.problem.error("truth", image(solve(weight)), self.frames)
        best = min(errors, key=lambda weight: errors[weight])
        note = f"pics -R T:1024:0:{best:g}, the best of {len(LAMBDAS)} weights; {NOTE}"
        extra = {"floor": "cs", "note": note, "iterations": CS_ITERATIONS}
        return {"": Case(lambda _: solve(best), "truth", image, scalable=False, extra=extra)}
