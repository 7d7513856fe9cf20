"""Image quality against scan time of all methods, from a cold start: ``python bench/quality.py SOURCE [SOURCE ...]``.

SOURCE is what ``spokewise scan`` takes and can be simulated from: a 4D NIfTI, a DICOM folder, ``phantom:SEED``. Every
slice is scanned for 12 s with the default scanner and reconstructed at 1, 2, 4, 8 and 12 s; PSNR and SSIM are those
inside the body against the band-limited truth. Prints the table of docs/reconstruction.md; ``--json FILE`` gets a line
per image.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from kspace.coils import whiten, whitening_matrix
from kspace.metrics import body_mask
from kspace.recon.methods import METHODS, make_method
from simulate.acquisition import quality
from simulate.calibration import calibrate
from simulate.gated import GatedEquations
from simulate.opened import N_FRAMES, open_spokes
from simulate.source import SpokeSource

SECONDS = (1, 2, 4, 8, 12)


def measure(source: SpokeSource, index: int) -> Iterator[dict[str, float | str]]:
    """Yield a row per time and method of one slice."""
    stream = source.open_slice(index)
    truth = stream.truth(N_FRAMES)
    if truth is None:
        raise SystemExit("the source has no truth to compare with")
    body = body_mask(truth)
    gated = GatedEquations(N_FRAMES, make_method("cs"))
    now = 0
    for seconds in SECONDS:
        raw = stream.acquire(seconds - now)
        now = seconds
        batch = whiten(raw)
        gated.add(batch, gated.foresee(batch))
        equations = gated.equations
        assert equations is not None
        assert raw.noise_covariance is not None
        calibration = calibrate(equations, whitening_matrix(raw.noise_covariance))
        for name in METHODS:
            started = time.perf_counter()
            found = make_method(name)(equations, calibration.maps, noise_std=1.0)
            row: dict[str, float | str] = {"slice": index, "seconds": seconds, "method": name}
            row |= {"recon_s": time.perf_counter() - started, "iterations": found.iterations}
            yield row | quality(found.image.abs() * calibration.shading, truth, body)


def table(rows: list[dict[str, float | str]], name: str) -> list[str]:
    """Return Markdown rows: the median over slices and, in brackets, the worst slice."""
    lines = []
    for method in METHODS:
        cells = []
        for seconds in SECONDS:
            chosen = [r for r in rows if r["method"] == method and r["seconds"] == seconds]
            psnr, ssim = ([float(r[key]) for r in chosen] for key in ("psnr_db", "ssim"))
            cells.append(
                f"{statistics.median(psnr):.1f} ({min(psnr):.1f}), {statistics.median(ssim):.3f} ({min(ssim):.3f})"
            )
        lines.append(f"| {name} | {method} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--json", type=Path, help="file that one JSON line per image is appended to")
    arguments = parser.parse_args()
    lines = ["| heart | method | " + " | ".join(f"{s} s" for s in SECONDS) + " |", "| --- | --- |" + " --- |" * 5]
    for name in arguments.sources:
        source = open_spokes(name, {})
        rows = []
        for index in range(source.geometry.shape[0]):
            for row in measure(source, index):
                rows.append(row)
                if arguments.json is not None:
                    with arguments.json.open("a") as stream:
                        stream.write(json.dumps({"source": name, **row}) + "\n")
        lines += table(rows, f"{source.description}, {source.geometry.shape[0]} slices")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
