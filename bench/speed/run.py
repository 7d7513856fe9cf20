"""The whole benchmark: problems, tools beside each other, rounds A B C A B C, and what is written of it."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.speed.floor import floor_seconds
from bench.speed.peers import KEEP_MEMORY, PEERS
from bench.speed.problem import Problem, Size, spokes_in
from bench.speed.process import FailedError, Worker
from bench.speed.table import make_table
from bench.speed.timing import summary, wait_idle
from bench.speed.worker import OURS
from kspace.errors import UsageError
from kspace.formats.files import written_beside

JOBS = ("forward", "adjoint", "normal", "cg-sense", "cs", "update", "decision")
DECISIONS_S = (2.0, 12.0)
SCHEMA = 1
SLACK = 1.1
"""By how much an error may be over its target before the row says that it missed."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class BenchOptions:
    """What to run.

    Parameters
    ----------
    matrices, coils, spokes
        Problems: every combination; decisions have the spokes that their scan time gives.
    frames
        Of every problem.
    jobs
        Some of :data:`JOBS`.
    peers
        ``all``, ``none`` or names separated by commas.
    repeats
        Clean runs of each case.
    device
        ``cpu`` or ``cuda``, of ours; the peers run on the CPU.
    threads
        Of every tool; None for as many as there are processors for us.
    limit_s
        Longest time of all runs of one case; frames are left out, and the time scaled, where a tool is slower.
    patience_s
        Longest wait for a quiet machine, for each case.
    """

    matrices: tuple[int, ...] = (192,)
    frames: int = 25
    coils: tuple[int, ...] = (8,)
    spokes: tuple[int, ...] = (13, 34, 100)
    jobs: tuple[str, ...] = JOBS
    peers: str = "all"
    repeats: int = 5
    device: str = "cpu"
    threads: int | None = None
    limit_s: float = 60.0
    patience_s: float = 30.0

    def __post_init__(self) -> None:
        if unknown := [job for job in self.jobs if job not in JOBS]:
            raise UsageError(f"there is no job {unknown[0]!r}", expected=", ".join(JOBS))
        if min(*self.matrices, *self.coils, *self.spokes, self.frames, self.repeats, self.threads or 1) < 1:
            raise UsageError("a size or count below one", expected="positive whole numbers")
        if any(n < 16 or n % 2 for n in self.matrices):
            raise UsageError("the matrix is odd or below 16", expected="an even number of at least 16")
        self.peer_names  # noqa: B018 (refused here rather than later)

    @property
    def peer_names(self) -> tuple[str, ...]:
        if self.peers in ("all", "none"):
            return tuple(PEERS) if self.peers == "all" else ()
        names = tuple(name.strip() for name in self.peers.split(","))
        if unknown := [name for name in names if name not in PEERS]:
            raise UsageError(f"there is no peer {unknown[0]!r}", expected=f"all, none or some of {', '.join(PEERS)}")
        return names

    def problems(self) -> list[tuple[Size, list[str], float | None]]:
        """Return sizes with their jobs, and the seconds of scan where the job is a decision."""
        found: list[tuple[Size, list[str], float | None]] = []
        plain = [job for job in self.jobs if job != "decision"]
        for matrix in self.matrices:
            for coils in self.coils:
                if plain:
                    found += [(Size(matrix, self.frames, coils, s), plain, None) for s in self.spokes]
                if "decision" in self.jobs:
                    found += [
                        (Size(matrix, self.frames, coils, spokes_in(t, self.frames)), ["decision"], t)
                        for t in DECISIONS_S
                    ]
        return found


def run_bench(options: BenchOptions, out: Path, say: Say = lambda line: None) -> dict[str, Any]:
    """Run everything and write ``bench.json``, ``bench.md`` and, where matplotlib is installed, ``bench.png``.

    The JSON is written again after every problem, so that an interrupted run keeps what it had.
    """
    out.mkdir(parents=True, exist_ok=True)
    threads = options.threads or _processors()
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": asdict(options) | {"threads": threads},
        "hardware": hardware(options.device),
        "versions": versions(),
        "data": "synthetic: moving ellipses, smooth coils, golden-angle spokes, 2 % noise",
        "floors": {},
        "rows": [],
    }
    for size, jobs, scan_s in options.problems():
        say(f"{size.name}: data and float64 references")
        problem = Problem(size, out / "cache")
        selfcheck = float(problem.cached["selfcheck"])
        order = {"size": asdict(size), "folder": str(out / "cache"), "threads": threads, "device": options.device}
        parts = _floor(order, options, threads)
        record["floors"][size.name] = parts | {"reference_selfcheck": selfcheck}
        rows = _race(size, jobs, order, options, threads, say)
        for row in rows:
            row |= {"scan_s": scan_s} if scan_s is not None else {}
            _relate(row, rows, parts, size)
        record["rows"] += rows
        _write(record, out, say)
    return record


def _floor(order: dict[str, Any], options: BenchOptions, threads: int) -> dict[str, Any]:
    with ExitStack() as stack:
        try:
            worker = Worker(order | {"do": "floor", "patience_s": options.patience_s}, threads)
            stack.callback(worker.close)
            floor: dict[str, Any] = worker.answer(10 * options.limit_s)["floor"]
        except FailedError as error:
            return {"failed": str(error)}
    return floor


def _race(
    size: Size, jobs: Sequence[str], order: dict[str, Any], options: BenchOptions, threads: int, say: Say
) -> list[dict[str, Any]]:
    """Start all tools on one problem and run job after job, the tools taking turns."""
    rows: list[dict[str, Any]] = []
    base = asdict(size) | {"problem": size.name}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for tool in (OURS, *options.peer_names):
            try:
                environment = KEEP_MEMORY if tool == "mrpro" else None
                worker = Worker(order | {"do": "start", "tool": tool}, threads, environment)
                stack.callback(worker.close)
                worker.answer(300)
                workers[tool] = worker
            except FailedError as error:
                rows += [base | {"job": job, "tool": tool, "case": "", "failed": str(error)} for job in jobs]
        for job in jobs:
            racers: list[_Racer] = []
            for tool, worker in workers.items():
                try:
                    prepared = worker.ask({"do": "prepare", "job": job}, 10 * options.limit_s)
                except FailedError as error:
                    rows.append(base | {"job": job, "tool": tool, "case": "", "failed": str(error)})
                    continue
                for case, scalable in prepared["cases"].items():
                    row = base | {"job": job, "tool": tool, "case": case}
                    racers.append(_Racer(row, worker, scalable, size.frames, options))
            say(f"{size.name} {job}: {len(racers)} cases")
            for racer in racers:
                racer.warm()
            while any(racer.wants_more for racer in racers):
                for racer in racers:
                    if racer.wants_more:
                        racer.once()
            rows += [racer.finish() for racer in racers]
            for row in rows:
                if row["job"] == job and row["problem"] == size.name:
                    say("  " + _line(row))
    return rows


class _Racer:
    """One case on its way through the rounds."""

    def __init__(self, row: dict[str, Any], worker: Worker, scalable: bool, frames: int, options: BenchOptions) -> None:
        self.row, self.worker, self.scalable, self.frames, self.options = row, worker, scalable, frames, options
        self.run_frames = frames
        self.clean: list[float] = []
        self.contended: list[float] = []
        self.patience = options.patience_s
        self.repeats = options.repeats
        self.peaks: list[float] = []

    def warm(self) -> None:
        """Run once untimed, to find how many frames and repeats there is time for."""
        budget = self.options.limit_s / self.repeats
        if self.scalable and self.frames > 1:
            answer = self._run(1)
            each = answer["seconds"] if answer else 0.0
            if each * self.frames > 2 * budget:
                self.run_frames = max(1, min(self.frames, int(budget / each)))
        answer = self._run(self.run_frames)
        if answer and answer["seconds"] > budget:
            self.repeats = max(1, int(self.options.limit_s / answer["seconds"]))

    @property
    def wants_more(self) -> bool:
        if "failed" in self.row or len(self.clean) >= self.repeats:
            return False
        # Patience is for a machine that is busy now; one that stays so gets what it would have got anyway.
        return self.patience > 0 or len(self.clean) + len(self.contended) < self.repeats

    def once(self) -> None:
        """One timed run."""
        last = len(self.clean) + 1 >= self.repeats or self.patience <= 0
        answer = self._run(self.run_frames, score=last or not (self.clean or self.contended))
        if not answer:
            return
        seconds = answer["seconds"] * self.frames / self.run_frames
        if answer["clean"]:
            self.clean.append(seconds)
        else:
            self.contended.append(seconds)
            self.patience -= answer["seconds"] + wait_idle(max(0.0, self.patience))

    def _run(self, frames: int, score: bool = False) -> dict[str, Any] | None:
        if "failed" in self.row:
            return None
        order = {"do": "run", "case": self.row["case"], "frames": frames, "score": score}
        try:
            answer = self.worker.ask(order, 10 * self.options.limit_s)
        except FailedError as error:
            self.row["failed"] = str(error)
            return None
        if "peak_mib" in answer:
            self.peaks.append(answer["peak_mib"])
        if score:
            self.row |= answer.get("extra", {})
            self.row |= {name: answer[name] for name in ("error", "reference") if name in answer}
        return answer

    def finish(self) -> dict[str, Any]:
        """Return the finished row."""
        if "failed" not in self.row:
            few = len(self.clean) < min(3, self.repeats)
            used = self.clean + self.contended if few else self.clean
            self.row |= summary(used) | {
                "seconds": used,
                "contended": few and bool(self.contended),
                "dropped": 0 if few else len(self.contended),
                "frames_run": self.run_frames,
                "peak_mib": max(self.peaks, default=None),
            }
            # The count of iterations was found on one frame of tools that do frame by frame.
            target = self.row.get("target")
            if target is not None and self.row.get("error", 0.0) > SLACK * target:
                self.row.setdefault("miss", f"error is {self.row['error'] / target:.2f} times its target")
        return self.row


def _relate(row: dict[str, Any], rows: list[dict[str, Any]], parts: dict[str, Any], size: Size) -> None:
    """Add the ratios: to ours (our fastest of the same job and goal) and to the floor."""
    if "median_s" not in row:
        return
    goal = _goal(row)
    ours = [r for r in rows if r["tool"] == OURS and r["job"] == row["job"] and "median_s" in r and _goal(r) == goal]
    if ours:
        best = min(ours, key=lambda r: r["median_s"])
        row["ratio_to_ours"] = row["median_s"] / best["median_s"]
        row["fastest_of_ours"] = row is best
    if "failed" not in parts:
        found = floor_seconds(row.get("floor", ""), parts, size, row)
        if found is not None and found[0] > 0:
            row |= {"floor_s": found[0], "floor_is": found[1], "ratio_to_floor": row["median_s"] / found[0]}


def _goal(row: dict[str, Any]) -> str:
    """What cases are compared with each other: the forms of the normal operator are, two accuracies are not."""
    if row["job"] == "normal":
        return ""
    return str(row["case"]).replace(" warm", "").replace(" cold", "")


def _line(row: dict[str, Any]) -> str:
    head = f"{row['tool']} {row['case']}".strip()
    if "failed" in row:
        return f"{head}: {row['failed']}"
    error = f", error {row['error']:.1e}" if "error" in row else ""
    return f"{head}: {row['median_s']:.3g} s{' (busy machine)' if row['contended'] else ''}{error}"


def _write(record: dict[str, Any], out: Path, say: Say) -> None:
    with written_beside(out / "bench.json") as beside:
        beside.write_text(json.dumps(record, indent=1) + "\n")
    with written_beside(out / "bench.md") as beside:
        beside.write_text(make_table(record))
    try:
        from bench.speed.plot import draw
    except ImportError:
        say("no plot: matplotlib is not installed (pip install 'spokewise[bench]')")
        return
    with written_beside(out / "bench.png") as beside:
        draw(record, beside)


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def hardware(device: str) -> dict[str, Any]:
    """Return what this runs on, without a name of the machine."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    found: dict[str, Any] = {"cpu": model, "processors": _processors(), "system": platform.system()}
    if device == "cuda":
        import torch

        found["gpu"] = torch.cuda.get_device_name()
    return found


def versions() -> dict[str, str | None]:
    """Return the versions of what was timed; None for what is not installed."""
    names = ["spokewise", "torch", "numpy", "scipy", *{d: None for _, d in PEERS.values() if d is not None}]
    found: dict[str, str | None] = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
