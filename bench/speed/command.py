"""What ``spokewise bench`` does with what it was told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.speed.run import BenchOptions, Say, run_bench
from kspace.errors import UsageError
from simulate.choices import choose_device

QUICK = {"matrices": (32,), "frames": 3, "coils": (2,), "spokes": (8,), "repeats": 1, "patience_s": 0.0}


def bench_command(
    out: Path,
    say: Say,
    *,
    matrix: str,
    frames: int,
    coils: str,
    spokes: str,
    jobs: str,
    peers: str,
    repeats: int,
    patience_s: float,
    threads: int | None,
    quick: bool,
    device: str,
) -> dict[str, Any]:
    """Run the benchmark and return its record."""
    given: dict[str, Any] = {
        "matrices": _numbers("--matrix", matrix),
        "frames": frames,
        "coils": _numbers("--coils", coils),
        "spokes": _numbers("--spokes", spokes),
        "repeats": repeats,
        "patience_s": patience_s,
    }
    options = BenchOptions(
        **(QUICK if quick else given),
        jobs=tuple(job.strip() for job in jobs.split(",")),
        peers=peers,
        threads=threads,
        device=choose_device(device).type,
    )
    return run_bench(options, out, say)


def _numbers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{name} {text!r}", expected="whole numbers separated by commas") from None
