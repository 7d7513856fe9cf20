"""Our own operators and reconstructions, through their public interface alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.speed.problem import FIRST_S, RIDGE, UPDATE_S, Array, Problem, spokes_in
from bench.speed.tool import TARGETS, Case, cg_cases, fewest
from kspace.encoding import Encoding
from kspace.equations import Density, NormalEquations
from kspace.errors import UsageError
from kspace.recon.cg_sense import CgSense
from kspace.recon.method import Reconstruction
from kspace.recon.temporal_tv import TemporalTV

DECISION_TARGET = TARGETS[0]


class Ours:
    """Spokewise itself.

    Parameters
    ----------
    problem
        What to work on.
    threads
        Of torch, and so of everything of ours.
    device
        ``cpu`` or ``cuda``; the data lie there before anything is timed.
    """

    def __init__(self, problem: Problem, threads: int, device: str = "cpu") -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.problem, self.device = problem, torch.device(device)
        self.maps, self.images = self._there(problem.maps), self._there(problem.images)
        self.frames = problem.size.frames

    def cases(self, job: str) -> dict[str, Case]:
        """Return what there is to time for a job."""
        return {
            "forward": self._forward,
            "adjoint": self._adjoint,
            "normal": self._normal,
            "cg-sense": self._cg_sense,
            "cs": self._cs,
            "update": self._update,
            "decision": self._decision,
        }[job]()

    def _there(self, values: Array | Tensor) -> Tensor:
        return torch.as_tensor(values).to(self.device)

    def _done(self, value: Any) -> Any:
        """A GPU works behind our back: wait for it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return value

    def _encoding(self) -> Encoding:
        return Encoding(self._there(self.problem.positions), self.maps)

    def _case(self, run: Any, reference: str | None, **extra: Any) -> Case:
        return Case(lambda frames: self._done(run()), reference, _host, scalable=False, extra=extra)

    def _forward(self) -> dict[str, Case]:
        encoding = self._encoding()
        return {"": self._case(lambda: encoding.forward(self.images), "forward", floor="forward")}

    def _adjoint(self) -> dict[str, Case]:
        encoding, samples = self._encoding(), self._there(self.problem.samples)
        return {"": self._case(lambda: encoding.adjoint(samples), "adjoint", floor="adjoint")}

    def _normal(self) -> dict[str, Case]:
        encoding = self._encoding()
        found = {}
        for form in ("gridded", "toeplitz", "auto"):

            def run(form: Any = form) -> Tensor:
                return encoding.normal(self.images, form=form)

            try:
                run()
            except UsageError:  # no cost model yet
                continue
            found[form] = self._case(run, "normal", floor=form, model_picks=getattr(encoding, "normal_form", None))
        return found

    def _sum(self, density: Density, first: int = 0, stop: int | None = None) -> NormalEquations:
        size = self.problem.size
        equations = NormalEquations(
            (size.matrix, size.matrix), size.frames, size.coils, density=density, device=self.device
        )
        return self._add(equations, first, stop)

    def _add(self, equations: NormalEquations, first: int, stop: int | None) -> NormalEquations:
        samples, positions, frame = self.problem.stream(first, stop)
        equations.add(self._there(samples), self._there(positions), frame)
        return equations

    def _solve(
        self, equations: NormalEquations, iterations: int, start: Reconstruction | None = None
    ) -> Reconstruction:
        method = CgSense(l2=RIDGE, density="none", tolerance=1e-9, max_iterations=iterations)
        return method(equations, self.maps, start=start)

    def _cg_sense(self, targets: tuple[float, ...] = TARGETS) -> dict[str, Case]:
        stream = [self._there(v) for v in self.problem.stream()]
        size = self.problem.size

        def plan(frames: int) -> NormalEquations:
            equations = NormalEquations(
                (size.matrix, size.matrix), size.frames, size.coils, density="none", device=self.device
            )
            equations.add(stream[0], stream[1], stream[2].cpu())
            return equations

        def iterate(equations: NormalEquations, iterations: int) -> Array:
            return _host(self._done(self._solve(equations, iterations).image))

        return cg_cases(self.problem, plan, iterate, note="CgSense", targets=targets, scalable=False)

    def _cs(self) -> dict[str, Case]:
        case = self._case(
            lambda: self._temporal_tv(self._sum("ramp")), "truth", floor="cs", note="TemporalTV, defaults"
        )
        return {"": self._image_of(case)}

    def _temporal_tv(self, equations: NormalEquations, start: Reconstruction | None = None) -> Reconstruction:
        return TemporalTV()(equations, self.maps, noise_std=self.problem.noise_std, start=start)

    def _image_of(self, case: Case) -> Case:
        """Let a case's result be the image of a reconstruction, and keep how many iterations that took."""

        def image(reconstruction: Reconstruction) -> Array:
            case.extra["iterations"] = reconstruction.iterations
            return _host(reconstruction.image)

        case.result = image
        return case

    @property
    def _before(self) -> int:
        """Spokes per frame that were there before the last update."""
        size = self.problem.size
        return max(0, size.spokes - spokes_in(UPDATE_S, size.frames))

    def _update(self) -> dict[str, Case]:
        batch = [self._there(v) for v in self.problem.stream(self._before)]
        equations = self._sum("ramp", 0, self._before)
        kept = (equations.adjoint.clone(), equations.spectrum.clone())

        def back() -> None:
            equations.adjoint.copy_(kept[0])
            equations.spectrum.copy_(kept[1])

        case = self._case(lambda: equations.add(batch[0], batch[1], batch[2].cpu()), None, floor="update")
        case.before = back
        case.extra["new_spokes"] = len(batch[0])
        return {"": case}

    def _decision(self) -> dict[str, Case]:
        cold = self._cg_sense((DECISION_TARGET,))
        found = {"cg-sense cold": next(iter(cold.values()))}
        found["cg-sense cold"].extra["floor"] = "cg-sense"
        older = self._sum("none", 0, self._before)
        start = self._solve(older, found["cg-sense cold"].extra["iterations"]) if self._before else None
        newer = self._sum("none")

        def error_after(iterations: int) -> float:
            image = _host(self._solve(newer, iterations, start).image)
            return self.problem.error("cg-sense", image, self.frames)

        count, reached = fewest(error_after, DECISION_TARGET)
        warm_start = start
        found["cg-sense warm"] = self._warm(
            "none", lambda e: self._solve(e, count, warm_start), "cg-sense", "warm", iterations=count
        )
        if not reached:
            found["cg-sense warm"].extra["miss"] = f"does not reach {DECISION_TARGET:g}"
        found["cs cold"] = self._cs()[""]
        before = self._decided()
        found["cs warm"] = self._warm("ramp", lambda e: self._temporal_tv(e, before), "truth", "warm cs")
        return found

    def _decided(self) -> Reconstruction | None:
        """Return what a scan has before the last update: a cold start after a second, then a decision per update."""
        size = self.problem.size
        step, earliest = (spokes_in(seconds, size.frames) for seconds in (UPDATE_S, FIRST_S))
        stops = range(self._before, 0, -step)[::-1]
        equations, last, first = self._sum("ramp", 0, 0), None, 0
        for stop in stops:
            self._add(equations, first, stop)
            first = stop
            if stop >= earliest or stop == self._before:
                last = self._temporal_tv(equations, last)
        return last

    def _warm(self, density: Density, solve: Any, reference: str, floor: str, **extra: Any) -> Case:
        """Return an update followed by a reconstruction; the sums are put back before each run."""
        older = self._sum(density, 0, self._before)
        batch = [self._there(v) for v in self.problem.stream(self._before)]
        names = ("adjoint", "spectrum", "spokes", "energy", "weight", "squared_weight")
        kept = {name: getattr(older, name).clone() for name in names}

        def back() -> None:
            for name, value in kept.items():
                getattr(older, name).copy_(value)

        def run() -> Reconstruction:
            older.add(batch[0], batch[1], batch[2].cpu())
            reconstruction: Reconstruction = solve(older)
            return reconstruction

        case = self._image_of(self._case(run, reference, floor=floor, **extra))
        case.before = back
        return case


def _host(values: Tensor) -> Array:
    array: Array = values.detach().resolve_conj().cpu().numpy()
    return array
