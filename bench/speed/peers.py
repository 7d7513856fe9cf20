"""The field's other tools, each driven at the best settings known; none is needed to install or run the project.

Every tool keeps its own scaling, which is a known constant times the unitary transform of this project: samples, ridge
and results are converted with it outside the timed runs. A tool that has no solver is given a plain loop of conjugate
gradients. What a tool cannot be told is said in its rows' notes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.speed.problem import RIDGE, Array, Problem
from bench.speed.tool import TARGETS, Case, Frames, Tool, cg_cases, numpy_dot, plain_cg

KEEP_MEMORY = {
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
}
"""glibc keeps large temporaries instead of returning them, which makes tools that allocate afresh 2.5 times faster."""


class Peer:
    """What the peers share: jobs by name, and the scale of their forward transform over the unitary one."""

    scale = 1.0

    def __init__(self, problem: Problem, threads: int) -> None:
        self.problem, self.threads, size = problem, threads, problem.size
        self.frames, self.coils = size.frames, size.coils
        self.grid = (size.matrix, size.matrix)
        self.points = problem.positions.reshape(self.frames, -1, 2)
        self.samples = problem.samples.reshape(self.frames, self.coils, -1)
        self.damping = RIDGE * size.diagonal

    def cases(self, job: str) -> dict[str, Case]:
        """Return what there is to time for a job; nothing where the tool has no such thing."""
        if job == "decision":
            whole = self.cg_sense(TARGETS[:1])
            return {"cg-sense cold": next(iter(whole.values()))} if whole else {}
        if job == "cg-sense":
            return self.cg_sense(TARGETS)
        jobs: dict[str, Callable[[], dict[str, Case]]] = {
            "forward": self.forward, "adjoint": self.adjoint, "normal": self.normal, "cs": self.cs,
        }  # fmt: skip
        return jobs[job]() if job in jobs else {}

    def forward(self) -> dict[str, Case]:
        return {}

    def adjoint(self) -> dict[str, Case]:
        return {}

    def normal(self) -> dict[str, Case]:
        return {}

    def cg_sense(self, targets: tuple[float, ...]) -> dict[str, Case]:
        return {}

    def cs(self) -> dict[str, Case]:
        return {}

    def _case(self, run: Callable[[int], Any], job: str, floor: str, power: int, note: str = "") -> Case:
        return Case(run, job, lambda out: np.asarray(out) / self.scale**power, extra={"floor": floor, "note": note})


class CoilWise(Peer):
    """A tool with one planned transform of all coils of one frame: frames side by side, one thread each."""

    def __init__(self, problem: Problem, threads: int) -> None:
        super().__init__(problem, threads)
        self.scale = float(problem.size.matrix)  # none of them divides by anything
        self.pool = Frames(threads)
        self.conjugates = problem.maps.conj()

    def plan(self, frame: int) -> tuple[Callable[[Array, Array], Any], Callable[[Array, Array], Any]]:
        """Return forward and adjoint of a frame, both (coils in, coils out)."""
        raise NotImplementedError

    def _plans(self, frames: int) -> list[Any]:
        return self.pool.map(self.plan, frames)

    def _combine(self, adjoint: Any, samples: Array) -> Array:
        coil_images = np.empty((self.coils, *self.grid), np.complex64)
        adjoint(samples, coil_images)
        coil_images *= self.conjugates
        combined: Array = coil_images.sum(0)
        return combined

    def _expand(self, forward: Any, image: Array, out: Array) -> Array:
        forward(image * self.problem.maps, out)
        return out

    def _normal_of(self, plan: Any) -> Callable[[Array], Array]:
        between = np.empty((self.coils, self.points.shape[1]), np.complex64)
        return lambda image: self._combine(plan[1], self._expand(plan[0], image, between))

    def forward(self) -> dict[str, Case]:
        plans, images = self._plans(self.frames), self.problem.images

        def run(frames: int) -> Array:
            out = np.empty((frames, self.coils, self.points.shape[1]), np.complex64)
            self.pool.map(lambda f: self._expand(plans[f][0], images[f], out[f]), frames)
            return out

        return {"": self._case(run, "forward", "forward", 1)}

    def adjoint(self) -> dict[str, Case]:
        plans = self._plans(self.frames)
        return {
            "": self._case(
                lambda n: np.stack(self.pool.map(lambda f: self._combine(plans[f][1], self.samples[f]), n)),
                "adjoint", "adjoint", 1,
            )
        }  # fmt: skip

    def normal(self) -> dict[str, Case]:
        operators, images = [self._normal_of(p) for p in self._plans(self.frames)], self.problem.images
        run = lambda n: np.stack(self.pool.map(lambda f: operators[f](images[f]), n))  # noqa: E731
        return {"gridded": self._case(run, "normal", "gridded", 2)}

    def cg_sense(self, targets: tuple[float, ...]) -> dict[str, Case]:
        scale = np.float32(self.scale)

        def plan(frames: int) -> list[tuple[Any, Array]]:
            def one(frame: int) -> tuple[Any, Array]:
                made = self.plan(frame)
                return self._normal_of(made), self._combine(made[1], self.samples[frame]) * scale

            return self.pool.map(one, frames)

        def iterate(state: list[tuple[Any, Array]], iterations: int) -> Array:
            damping = np.float32(self.damping * self.scale**2)
            solve = lambda f: plain_cg(state[f][0], state[f][1], damping, iterations, numpy_dot)  # noqa: E731
            return np.stack(self.pool.map(solve, len(state)))

        return cg_cases(self.problem, plan, iterate, note="plain CG loop, gridded", targets=targets)


class Finufft(CoilWise):
    """FINUFFT at tolerance 1e-4."""

    upsampling = 1.25

    def plan(self, frame: int) -> tuple[Callable[[Array, Array], Any], Callable[[Array, Array], Any]]:
        import finufft

        pair = []
        for kind, sign in ((2, -1), (1, 1)):
            plan = finufft.Plan(
                kind, self.grid, self.coils, eps=1e-4, isign=sign, dtype="complex64", nthreads=1,
                upsampfac=self.upsampling,
            )  # fmt: skip
            radians = np.float32(2 * math.pi) * self.points[frame]
            plan.setpts(np.ascontiguousarray(radians[:, 0]), np.ascontiguousarray(radians[:, 1]))
            pair.append(_finufft_run(plan, self.coils))
        return pair[0], pair[1]


def _finufft_run(plan: Any, coils: int) -> Callable[[Array, Array], Any]:
    # One transform has no leading axis in FINUFFT.
    return lambda data, out: plan.execute(data if coils > 1 else data[0], out=out if coils > 1 else out[0])


class Finufft2(Finufft):
    """FINUFFT with the customary upsampling."""

    upsampling = 2.0


class Ducc0(CoilWise):
    """ducc0 at tolerance 1e-4, which chooses its own upsampling."""

    def plan(self, frame: int) -> tuple[Callable[[Array, Array], Any], Callable[[Array, Array], Any]]:
        import ducc0

        options = {"epsilon": 1e-4, "nthreads": 1, "fft_order": False, "periodicity": 1.0, "grid_shape": self.grid}
        forth, back = (ducc0.nufft.plan(nu2u=kind, coord=self.points[frame], **options) for kind in (False, True))

        def forward(data: Array, out: Array) -> None:
            for image, samples in zip(data, out, strict=True):
                forth.u2nu(grid=image, forward=True, out=samples)

        def adjoint(data: Array, out: Array) -> None:
            for samples, image in zip(data, out, strict=True):
                back.nu2u(points=samples, forward=False, out=image)

        return forward, adjoint


class MriNufft(CoilWise):
    """mri-nufft's FINUFFT back end, all coils in one call, tolerance 1e-4."""

    def __init__(self, problem: Problem, threads: int) -> None:
        super().__init__(problem, threads)
        self.scale = 0.5  # it divides by the square root of twice the matrix along each axis

    def plan(self, frame: int) -> tuple[Callable[[Array, Array], Any], Callable[[Array, Array], Any]]:
        import mrinufft

        operator = mrinufft.get_operator("finufft")(
            self.points[frame], shape=self.grid, n_coils=self.coils, n_trans=self.coils, eps=1e-4, nthreads=1
        )
        shape = (self.coils, *self.grid)

        def forward(data: Array, out: Array) -> None:
            out[...] = operator.op(data).reshape(out.shape)

        def adjoint(data: Array, out: Array) -> None:
            out[...] = operator.adj_op(data if self.coils > 1 else data[None]).reshape(shape)

        return forward, adjoint


class TorchKbNufft(Peer):
    """torchkbnufft, by its interpolation table or by Toeplitz embedding."""

    def __init__(self, problem: Problem, threads: int) -> None:
        super().__init__(problem, threads)
        import torch
        import torchkbnufft

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.scale = float(problem.size.matrix)
        self.torch, self.library = torch, torchkbnufft
        wide = tuple(2 * n for n in self.grid)
        self._forward = torchkbnufft.KbNufft(im_size=self.grid, grid_size=wide)
        self._adjoint = torchkbnufft.KbNufftAdjoint(im_size=self.grid, grid_size=wide)
        self.omega = torch.from_numpy(2 * np.float32(math.pi) * self.points).permute(0, 2, 1).contiguous()
        self.maps = torch.from_numpy(problem.maps)[None]
        self.images = torch.from_numpy(problem.images)[:, None]
        self.spokes = torch.from_numpy(self.samples)

    def _there(self, images: Any) -> Any:
        return self._forward(images, self.omega[: len(images)], smaps=self.maps)

    def _back(self, samples: Any) -> Any:
        return self._adjoint(samples, self.omega[: len(samples)], smaps=self.maps)

    def _kernel(self, frames: int) -> Any:
        return self.library.calc_toeplitz_kernel(self.omega[:frames], self.grid)

    def forward(self) -> dict[str, Case]:
        return {"": self._case(lambda n: self._there(self.images[:n]), "forward", "forward", 1)}

    def adjoint(self) -> dict[str, Case]:
        return {"": self._case(lambda n: self._back(self.spokes[:n]), "adjoint", "adjoint", 1)}

    def normal(self) -> dict[str, Case]:
        kernel, toeplitz = self._kernel(self.frames), self.library.ToepNufft()
        gridded = lambda n: self._back(self._there(self.images[:n]))  # noqa: E731
        embedded = lambda n: toeplitz(self.images[:n], kernel[:n], smaps=self.maps)  # noqa: E731
        return {
            "gridded": self._case(gridded, "normal", "gridded", 2),
            "toeplitz": self._case(embedded, "normal", "toeplitz", 2),
        }

    def cg_sense(self, targets: tuple[float, ...]) -> dict[str, Case]:
        toeplitz, scale = self.library.ToepNufft(), self.scale
        dot = lambda a, b: (a.conj() * b).real.sum((-2, -1), keepdim=True)  # noqa: E731

        def plan(frames: int) -> tuple[Any, Any]:
            return self._kernel(frames), self._back(self.spokes[:frames]) * scale

        def iterate(state: tuple[Any, Any], iterations: int) -> Array:
            kernel, b = state
            normal = lambda x: toeplitz(x, kernel, smaps=self.maps)  # noqa: E731
            image: Array = plain_cg(normal, b, self.damping * scale**2, iterations, dot)[:, 0].numpy()
            return image

        return cg_cases(self.problem, plan, iterate, note="plain CG loop, Toeplitz", targets=targets)


class SigPy(Peer):
    """SigPy with the settings it comes with: upsampling 1.25, kernel width 4."""

    def __init__(self, problem: Problem, threads: int) -> None:
        super().__init__(problem, threads)
        import sigpy
        import sigpy.mri.app

        self.library, self.app = sigpy, sigpy.mri.app
        self.coordinates = (self.points * np.float32(problem.size.matrix)).astype(np.float32)

    def _operator(self, frame: int, toeplitz: bool = False) -> tuple[Any, Any]:
        maps = self.library.linop.Multiply(self.grid, self.problem.maps)
        return maps, self.library.linop.NUFFT(maps.oshape, self.coordinates[frame], toeplitz=toeplitz)

    def forward(self) -> dict[str, Case]:
        pairs = [self._operator(f) for f in range(self.frames)]
        images = self.problem.images
        run = lambda n: np.stack([pairs[f][1] * (pairs[f][0] * images[f]) for f in range(n)])  # noqa: E731
        return {"": self._case(run, "forward", "forward", 1)}

    def adjoint(self) -> dict[str, Case]:
        pairs = [self._operator(f) for f in range(self.frames)]
        run = lambda n: np.stack([pairs[f][0].H * (pairs[f][1].H * self.samples[f]) for f in range(n)])  # noqa: E731
        return {"": self._case(run, "adjoint", "adjoint", 1)}

    def normal(self) -> dict[str, Case]:
        found = {}
        for name, toeplitz in (("gridded", False), ("toeplitz", True)):
            pairs = [self._operator(f, toeplitz) for f in range(self.frames)]
            operators = [maps.H * transform.N * maps for maps, transform in pairs]

            def run(frames: int, operators: list[Any] = operators) -> Array:
                return np.stack([operators[f] * self.problem.images[f] for f in range(frames)])

            found[name] = self._case(run, "normal", name, 2)
        return found

    def cg_sense(self, targets: tuple[float, ...]) -> dict[str, Case]:
        def solve(frames: int, iterations: int) -> Array:
            return np.stack(
                [
                    self.app.SenseRecon(
                        self.samples[f], self.problem.maps, lamda=self.damping, coord=self.coordinates[f],
                        max_iter=iterations, show_pbar=False,
                    ).run()
                    for f in range(frames)
                ]
            )  # fmt: skip

        note = "mri.app.SenseRecon, which has no Toeplitz option"
        return cg_cases(self.problem, lambda n: n, solve, note=note, targets=targets, split=False)


class MrPro(Peer):
    """MRpro's FourierOp and its gram, with memory kept by the allocator."""

    def __init__(self, problem: Problem, threads: int) -> None:
        super().__init__(problem, threads)
        import torch

        _let_torchvision_in()
        from mrpro.data import KTrajectory, SpatialDimension
        from mrpro.operators import FourierOp, SensitivityOp

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        size = problem.size
        shape = (self.frames, 1, 1, size.spokes, size.readout)
        k = torch.from_numpy(self.points * np.float32(size.matrix))
        ky, kx = (k[..., i].reshape(shape).contiguous() for i in (0, 1))
        self.maps = SensitivityOp(torch.from_numpy(problem.maps)[None, :, None])
        self.images = torch.from_numpy(problem.images)[:, None, None]
        self.spokes = torch.from_numpy(problem.samples)[:, :, None]

        def fourier(frames: int) -> Any:
            dim = SpatialDimension(1, size.matrix, size.matrix)
            trajectory = KTrajectory(kz=torch.zeros(1, 1, 1, 1, 1), ky=ky[:frames], kx=kx[:frames])
            return FourierOp(recon_matrix=dim, encoding_matrix=dim, traj=trajectory)

        self.fourier = fourier

    def _kept(self, make: Callable[[int], Any]) -> Callable[[int], Any]:
        kept = {self.frames: make(self.frames)}
        return lambda n: kept[n] if n in kept else kept.setdefault(n, make(n))

    def forward(self) -> dict[str, Case]:
        operators = self._kept(self.fourier)
        return {"": self._case(lambda n: operators(n)(*self.maps(self.images[:n]))[0], "forward", "forward", 1)}

    def adjoint(self) -> dict[str, Case]:
        operators = self._kept(self.fourier)
        run = lambda n: self.maps.adjoint(*operators(n).adjoint(self.spokes[:n]))[0]  # noqa: E731
        return {"": self._case(run, "adjoint", "adjoint", 1)}

    def normal(self) -> dict[str, Case]:
        operators = self._kept(lambda n: self.fourier(n) @ self.maps)
        grams = self._kept(lambda n: (self.fourier(n) @ self.maps).gram)
        gridded = lambda n: operators(n).adjoint(*operators(n)(self.images[:n]))[0]  # noqa: E731
        return {
            "gridded": self._case(gridded, "normal", "gridded", 2),
            "toeplitz": self._case(lambda n: grams(n)(self.images[:n])[0], "normal", "toeplitz", 2),
        }

    def cg_sense(self, targets: tuple[float, ...]) -> dict[str, Case]:
        from mrpro.algorithms.optimizers import cg
        from mrpro.operators import IdentityOp

        def plan(frames: int) -> tuple[Any, Any]:
            fourier = self.fourier(frames)
            gram = (fourier @ self.maps).gram + self.damping * IdentityOp()
            return gram, self.maps.adjoint(*fourier.adjoint(self.spokes[:frames]))[0]

        def iterate(state: tuple[Any, Any], iterations: int) -> Array:
            image: Array = cg(state[0], state[1], max_iterations=iterations, tolerance=0.0)[0][:, 0, 0].numpy()
            return image

        note = "optimizers.cg on the gram, all frames share their steps"
        return cg_cases(self.problem, plan, iterate, note=note, targets=targets)


def _let_torchvision_in() -> None:
    """Import torchvision, of which MRpro needs an import only, where it was built for another build of torch.

    The torchvision on PyPI is for CUDA, and beside a CPU torch it stops at describing operators that are not there.
    """
    import torch

    original = torch.library.register_fake

    def lenient(op: Any, *args: Any, **options: Any) -> Any:
        if str(op).startswith("torchvision::"):
            return lambda function: function
        return original(op, *args, **options)

    torch.library.register_fake = lenient
    try:
        import torchvision
        import torchvision.transforms.functional  # noqa: F401
    finally:
        torch.library.register_fake = original


def make_bart(problem: Problem, threads: int) -> Tool:
    """Return BART, whose file keeps what it takes to talk to a command line."""
    from bench.speed.bart import Bart

    return Bart(problem, threads)


PEERS: dict[str, tuple[Callable[[Problem, int], Tool], str | None]] = {
    "finufft-1.25": (Finufft, "finufft"),
    "finufft-2.0": (Finufft2, "finufft"),
    "ducc0": (Ducc0, "ducc0"),
    "mri-nufft": (MriNufft, "mri-nufft"),
    "torchkbnufft": (TorchKbNufft, "torchkbnufft"),
    "mrpro": (MrPro, "mrpro"),
    "sigpy": (SigPy, "sigpy"),
    "bart": (make_bart, None),
}
"""How each is made, and the distribution whose version it has."""
