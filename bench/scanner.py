"""What the virtual scanner costs, and what sharing states between spokes costs: ``python bench/scanner.py``.

Everything is synthetic: one virtual patient, 12 s at a TR of 3 ms, 208 x 208 pixels (4,000 spokes of 416 samples). Each
cost is measured in a process of its own, from drawing the patient to the last sample, so that its peak memory is its
own. Sharing is judged against one body per spoke, on 100 spokes spread evenly over 1.2 s of one slice, without noise.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from simulate.body_scanner import BodyScanner
from simulate.patient.population import draw_patient
from simulate.subject import SubjectOptions, scan_patient

SEED = 3
TR_S = 3e-3
SPARSE_TR_S = 12e-3  # 100 spokes in 1.2 s: a whole beat, at a hundred instants


@dataclass(frozen=True)
class Cost:
    """Slices, seconds, coils and breathing of one measurement."""

    name: str
    slices: int = 1
    seconds: float = 12.0
    coils: int = 8
    breathing: str = "hold"


COSTS = (
    Cost("1 slice, 8 coils, breath held"),
    Cost("the same for 6 s", seconds=6.0),
    Cost("the same for 3 s", seconds=3.0),
    Cost("the same, 16 coils", coils=16),
    Cost("the same, 32 coils", coils=32),
    Cost("the same with a drifting hold", breathing="drift"),
    Cost("the same with free breathing", breathing="free"),
    Cost("5 slices, 8 coils, breath held", slices=5),
    Cost("10 slices, 8 coils, breath held", slices=10),
)


@dataclass(frozen=True)
class Shared:
    """Slices and events of one comparison of shared states with one body per spoke."""

    name: str
    slices: tuple[int, ...]
    breathing: str = "hold"
    events: tuple[str, ...] = ()


SHARED = (
    Shared("breath held, slices 0 to 3, 6 and 9 of 12", (0, 1, 2, 3, 6, 9)),
    Shared("breath-hold that drifts, slice 6", (6,), "drift"),
    Shared("free breathing, slice 6", (6,), "free"),
    Shared("an ectopic beat, slice 6", (6,), events=("ectopic@0.5",)),
    Shared("after a shift of 6, -4, 0 mm, slice 6", (6,), events=("shift@0:6,-4,0",)),
    Shared("after a turn of 4 degrees, slice 6", (6,), events=("rotate@0:4",)),
)


def scanner(breathing: str, events: Sequence[str] = (), **options: float | bool) -> BodyScanner:
    subject = SubjectOptions(breathing=breathing, events=tuple(events))
    return scan_patient(draw_patient(SEED), subject, {"matrix": 208, "n_coils": 8, **options}, seed=0)


def cost(case: Cost) -> dict[str, float]:
    """Return wall and processor seconds and the peak resident memory in GB of one case, in this process."""
    started, used = time.perf_counter(), time.process_time()
    source = scanner(case.breathing, tr_s=TR_S, n_coils=case.coils)
    first = (source.geometry.shape[0] - case.slices) // 2
    spokes = 0
    for index in range(first, first + case.slices):
        stream = source.open_slice(index)
        for _ in range(round(case.seconds / 1.5)):
            spokes += stream.acquire(1.5).n_spokes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - used, "peak_gb": peak, "spokes": spokes
    }  # fmt: skip


def sharing_error(case: Shared, index: int) -> float:
    """Return the relative l2 error of shared states in one slice."""
    given = {"tr_s": SPARSE_TR_S, "snr": math.inf}
    shared, exact = (
        scanner(case.breathing, case.events, exact=exact, **given).open_slice(index).acquire(1.2).samples
        for exact in (False, True)
    )
    return float(torch.linalg.vector_norm(shared - exact) / torch.linalg.vector_norm(exact))


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("costs", "sharing"))
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(cost(COSTS[arguments.case])))
        return
    if arguments.only != "sharing":
        print(f"| case, {os.cpu_count()} cores | s | processor s | peak, GB |\n| --- | --- | --- | --- |")
        for number, case in enumerate(COSTS):
            command = [sys.executable, __file__, "--case", str(number)]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(run.stdout.splitlines()[-1])
            print(
                f"| {case.name} | {found['wall_s']:.1f} | {found['cpu_s']:.1f} | {found['peak_gb']:.2f} |", flush=True
            )
    if arguments.only != "costs":
        print("\n| relative l2 error against one body per spoke | virtual patient |\n| --- | --- |")
        for shared in SHARED:
            errors = ", ".join(f"{sharing_error(shared, index):.1e}" for index in shared.slices)
            print(f"| {shared.name} | {errors} |", flush=True)


if __name__ == "__main__":
    main()
