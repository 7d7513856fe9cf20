"""A process of one tool: it takes orders as JSON lines, and is alone with its memory and its threads.

``python -m bench.speed.worker``. What libraries print goes to stderr; the answers have a channel of their own.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bench.speed.problem import Problem, Size
from bench.speed.timing import memory_mib, reset_peak, timed
from bench.speed.tool import Case, Tool

OURS = "spokewise"


def make_tool(name: str, problem: Problem, threads: int, device: str) -> Tool:
    """Return a tool by its name."""
    if name == OURS:
        from bench.speed.ours import Ours

        return Ours(problem, threads, device)
    from bench.speed.peers import PEERS

    return PEERS[name][0](problem, threads)


class Bench:
    """What a worker holds between orders; can be used without a process as well."""

    def __init__(self, name: str, size: Size, folder: Path, threads: int, device: str) -> None:
        self.problem = Problem(size, folder)
        self.problem.cached  # noqa: B018 (read before memory is counted)
        self.tool = make_tool(name, self.problem, threads, device)
        self.cases: dict[str, Case] = {}
        self.base: float | None = None

    def prepare(self, job: str) -> dict[str, Any]:
        """Make the cases of a job and return their names."""
        self.cases = {}
        gc.collect()
        reset_peak()
        self.base = memory_mib("VmRSS")
        self.cases, run = timed(lambda: self.tool.cases(job))
        scalable = {name: case.scalable for name, case in self.cases.items()}
        return {"cases": scalable, "prepare_s": run.seconds}

    def run(self, name: str, frames: int, score: bool = False) -> dict[str, Any]:
        """Run a case once; ``score`` compares its result and returns what the row says besides."""
        case = self.cases[name]
        if case.before is not None:
            case.before()
        can_reset = reset_peak()
        result, run = timed(lambda: case.run(frames))
        peak = memory_mib("VmHWM")
        answer: dict[str, Any] = {"seconds": run.seconds, "clean": run.clean, "foreign_s": run.foreign_s}
        if peak is not None and self.base is not None:
            answer |= {"peak_mib": peak - self.base, "peak_reset": can_reset}
        if score:
            if case.reference is not None:
                array = case.result(result)
                answer["error"] = self.problem.error(case.reference, array, frames)
            answer |= {"extra": case.extra, "reference": case.reference}
        return answer

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order; a failure is an answer."""
        try:
            if order["do"] == "prepare":
                return self.prepare(order["job"])
            return self.run(order["case"], order["frames"], order["score"])
        except Exception as error:
            return {"failed": reason(error)}


def reason(error: BaseException) -> str:
    """Return one line that says what went wrong."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


@contextmanager
def _channel() -> Iterator[IO[str]]:
    """Keep stdout for the answers, and send to stderr whatever else is printed."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        yield answers


def main() -> None:
    """Answer orders until there are no more."""
    with _channel() as answers:

        def answer(values: dict[str, Any]) -> None:
            answers.write(json.dumps(values) + "\n")
            answers.flush()

        first = json.loads(sys.stdin.readline())
        try:
            if first["do"] == "floor":
                from bench.speed.floor import measure_floor

                problem = Problem(Size(**first["size"]), Path(first["folder"]))
                answer({"floor": measure_floor(problem, first["threads"], first["device"], first["patience_s"])})
                return
            bench = Bench(
                first["tool"], Size(**first["size"]), Path(first["folder"]), first["threads"], first["device"]
            )
        except Exception as error:
            answer({"failed": reason(error)})
            return
        answer({"ready": True})
        for line in sys.stdin:
            answer(bench.obey(json.loads(line)))


if __name__ == "__main__":
    main()
