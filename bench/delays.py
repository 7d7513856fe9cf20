"""Gradient delays found and corrected: ``python bench/delays.py [simulated] [real] [--data ../shared/data]``.

``simulated``: ten virtual patients (``phantom:SEED``, 8 coils, SNR 30, middle slice) whose spokes are displaced by
known delays, from 0.5, 1 and 4 s of a beating heart. ``real``: measured perfusion spokes, as they are and with a known
delay put into their reported positions; every tenth spoke of each frame is left out and foreseen from the others, with
and without correction, and as ``recon --drift`` corrects. Prints Markdown.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace
from pathlib import Path

from kspace.coils import whiten
from kspace.delay_estimate import DelayEstimate, estimate_delays, find_delays
from kspace.delays import NO_DELAYS, GradientDelays, correct
from kspace.drift import describe_drift, drift_of_slices
from kspace.equations import NormalEquations
from kspace.formats.source import open_source
from kspace.noise import noise_std
from kspace.quality.held_out import every_nth, held_out_residual
from kspace.recon.methods import make_method
from kspace.scan import RadialScan
from simulate.calibration import calibrate
from simulate.opened import open_spokes
from simulate.subject import SubjectOptions

SECONDS = (0.5, 1.0, 4.0)
LOST = 3  # samples left out at either end in all comparisons, so that all predict the same ones
IMPOSED = GradientDelays(1.5, -1.0, 0.5)


def simulated(seeds: range) -> None:
    """Print the largest error of the three parameters by patient and scan time."""
    draw = random.Random(5)
    print("| patient | dx, dy, dxy | " + " | ".join(f"{s:g} s" for s in SECONDS) + " | seconds taken |")
    print("| --- | --- |" + " --- |" * (len(SECONDS) + 1))
    for seed in seeds:
        true = tuple(round(draw.uniform(-2, 2), 2) for _ in range(3))
        subject = SubjectOptions(gradient_delays=true)
        source = open_spokes(f"phantom:{seed}", {}, seed=seed, n_frames=25, subject=subject)
        scan = whiten(source.open_slice(source.geometry.shape[0] // 2).acquire(max(SECONDS)))
        cells, started = [], time.perf_counter()
        for seconds in SECONDS:
            found = estimate_delays(scan.select(scan.time_s < seconds))
            errors = [abs(a - b) for a, b in zip(_entries(found), true, strict=True)]
            cells.append(f"{max(errors):.3f} ± {max(found.error):.3f}" + ("" if found.significant else " (left alone)"))
        taken = (time.perf_counter() - started) / len(SECONDS)
        print(f"| phantom:{seed} | {', '.join(map(str, true))} | {' | '.join(cells)} | {taken:.1f} |", flush=True)


def _entries(found: DelayEstimate) -> tuple[float, float, float]:
    return found.delays.x, found.delays.y, found.delays.xy


def displaced(scan: RadialScan, imposed: GradientDelays) -> RadialScan:
    """Return spokes whose reported positions miss the true ones by delays; a few samples shorter."""
    reported = GradientDelays(-imposed.x, -imposed.y, -imposed.xy).apply(scan.positions)
    return replace(scan, samples=scan.samples[..., LOST:-LOST], positions=reported[:, LOST:-LOST])


def prediction_error(scan: RadialScan, delays: GradientDelays, method: str) -> float:
    """Return the relative error of foreseeing every tenth spoke of each frame from the others."""
    positions = delays.apply(scan.positions)[:, LOST:-LOST]
    scan = replace(scan, samples=scan.samples[..., LOST:-LOST], positions=positions)
    assert scan.frame is not None
    n_frames = int(scan.frame.max()) + 1
    left_out = every_nth(scan.frame, 10, first=5)
    kept, asked = scan.select(~left_out), scan.select(left_out)
    equations = NormalEquations(kept.matrix, n_frames, kept.n_coils)
    assert kept.frame is not None
    assert asked.frame is not None
    equations.add(kept.samples, kept.positions, kept.frame)
    maps = calibrate(equations, None).maps
    image = make_method(method)(equations, maps, noise_std=noise_std(kept)).image
    return held_out_residual(image, maps, asked, asked.frame).relative


def real(data: Path) -> None:
    """Print what is found in measured spokes, and the error of foreseeing some with and without correction."""
    scan = open_source(data / "radial/perfusion_golden_angle.h5")
    assert isinstance(scan, RadialScan)
    print("| spokes | dx, dy, dxy found | method | as reported | delays | recon --drift |\n|" + " --- |" * 6)
    for name, given in (("as measured", scan), (f"{IMPOSED} put in", displaced(scan, IMPOSED))):
        found = estimate_delays(given)
        entries = ", ".join(f"{v:.3f} ± {e:.3f}" for v, e in zip(_entries(found), found.error, strict=True))
        decision = "significant" if found.significant else "left alone by auto"
        applied, _ = find_delays(whiten(given), "auto")
        still, drifts = drift_of_slices(correct(given, applied))
        decision += ", " + describe_drift(drifts)
        ways = ((given, NO_DELAYS), (given, found.delays), (still, NO_DELAYS))
        for method in ("cg-sense", "cs"):
            errors = " | ".join(f"{prediction_error(*way, method):.4f}" for way in ways)
            print(f"| {name} | {entries} ({decision}) | {method} | {errors} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", choices=["simulated", "real", []])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    arguments = parser.parse_args()
    for what in arguments.what or ("simulated", "real"):
        if what == "simulated":
            simulated(range(1, arguments.seeds + 1))
        else:
            real(arguments.data)


if __name__ == "__main__":
    main()
