"""Image quality of learnt reconstruction beside the others: ``python -m bench.unrolled --out FILE.jsonl [--data DIR]``.

The middle slice of virtual patients of the test split (synthetic; all groups, five styles, 160 to 192 pixels, 8
coils, SNR 30) and, with ``--data ../shared/data``, of the two Sunnybrook cines (real magnitudes, spokes simulated), at
1, 2, 4, 8 and 12 s, from a cold start by every method, against the band-limited truth: PSNR, SSIM and NRMSE in the body
and around the heart, and how sharp the heart's edges are. A line per image is added to FILE; a run that was broken off
goes on where it ended. ``--table`` only prints. ``--part I/N`` does every N-th patient: processes can share the work.

``--kspace FILE`` instead foresees every tenth spoke of each frame of measured radial k-space from the others, and
prints the relative error.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.compressed_sensing import HEARTS, real_stream, rows_of, spread
from bench.delays import prediction_error
from bench.regularisation import Moment, around_the_heart, moments, open_patient
from kspace.delays import NO_DELAYS
from kspace.formats.source import open_source
from kspace.metrics import body_mask, nrmse, psnr, ssim
from kspace.recon.method import Method
from kspace.recon.methods import make_method
from kspace.recon.unet import UNet
from kspace.recon.unrolled import Unrolled
from kspace.scan import RadialScan
from simulate.opened import N_FRAMES
from simulate.patient.parameters import Group
from simulate.source import SliceStream
from simulate.training.dataset import Split
from simulate.vendors import VENDORS

SECONDS = (1, 2, 4, 8, 12)
MATRICES, SNR = (160, 176, 192), 30.0
METHODS = ("gridding", "cg-sense", "unet", "cs", "llr", "unrolled")
LEARNT = {"unet": UNet, "unrolled": Unrolled}
"""Methods with weights, which ``--weights`` can name others for."""
KEYS = (("heart_psnr_db", 1), ("heart_ssim", 3), ("heart_nrmse", 4), ("sharpness", 2), ("psnr_db", 1), ("ssim", 3))


def virtual_stream(index: int) -> tuple[str, SliceStream, Tensor]:
    """Return name, stream and (y, x) region of a test patient's middle slice."""
    group, style = list(Group)[index % len(Group)], list(VENDORS)[(index // 2) % len(VENDORS)]
    scanner = open_patient(index, Split.TEST, group.value, style, MATRICES[index % len(MATRICES)], SNR)
    stream = scanner.open_slice(scanner.geometry.shape[0] // 2)
    region = around_the_heart(stream.labels(N_FRAMES), scanner.geometry.spacing_mm[1])
    return scanner.description, stream, region


def sharpness(image: Tensor, truth: Tensor, region: Tensor) -> float:
    """Return how steep an image is where its truth is steepest, over the truth: 1 is as sharp, less is blurred.

    Parameters
    ----------
    image, truth
        (frame, y, x) magnitudes.
    region
        (y, x) bool; the steepest twentieth of its points in all frames counts.
    """
    slopes = [torch.stack(torch.gradient(each, dim=(-2, -1))) for each in (image, truth)]
    steep = slopes[1].square().sum(0)
    inside = steep[:, region]
    chosen = (steep >= torch.quantile(inside.flatten()[::7], 0.95)) & region
    along = (slopes[0] * slopes[1]).sum(0)
    return float(along[chosen].sum() / steep[chosen].sum())


def method_of(name: str, folder: Path | None) -> Method:
    """Return a method; learnt ones take their weights from a folder where one is given."""
    return LEARNT[name](folder=folder) if name in LEARNT else make_method(name)


def measure(
    moment: Moment, truth: Tensor, region: Tensor, names: Sequence[str], folder: Path | None
) -> Iterator[dict[str, Any]]:
    """Yield a row per method."""
    body = body_mask(truth)
    for name in names:
        method = method_of(name, folder)
        wall, cpu = time.perf_counter(), time.process_time()
        found = method(moment.equations, moment.calibration.maps, noise_std=moment.noise_std)
        took = time.perf_counter() - wall, time.process_time() - cpu
        image = found.image.abs() * moment.calibration.shading
        row: dict[str, Any] = {"seconds": moment.seconds, "method": name, "recon_s": took[0], "cpu_s": took[1]}
        for prefix, mask in (("", body), ("heart_", region)):
            row |= {
                f"{prefix}psnr_db": float(psnr(image, truth, mask)), f"{prefix}ssim": float(ssim(image, truth, mask)),
                f"{prefix}nrmse": float(nrmse(image, truth, mask)),
            }  # fmt: skip
        yield row | {"sharpness": sharpness(image, truth, region)}


def run(
    out: Path, jobs: Sequence[Any], names: Sequence[str], folder: Path | None, times: Sequence[int] = SECONDS
) -> None:
    """Measure what the file does not hold yet."""
    for job in jobs:
        name, stream, region = virtual_stream(job) if isinstance(job, int) else real_stream(*job)
        done = {(row["case"], row["seconds"], row["method"]) for row in rows_of(out)}
        missing = [m for m in names if any((name, s, m) not in done for s in times)]
        if not missing:
            continue
        truth = stream.truth(N_FRAMES)
        assert truth is not None
        for moment in moments(stream, times):
            here = [m for m in missing if (name, moment.seconds, m) not in done]
            for row in measure(moment, truth, region, here, folder):
                kind = "virtual" if isinstance(job, int) else "real"
                with out.open("a") as file:
                    file.write(json.dumps({"case": name, "kind": kind, **row}) + "\n")
                print(
                    name, moment.seconds, row["method"], f"{row['heart_psnr_db']:.1f} dB", file=sys.stderr, flush=True
                )


def table(rows: list[dict[str, Any]], title: str) -> Iterator[str]:
    """Yield Markdown: medians and quartiles over the cases that all methods have."""
    names = sorted({row["method"] for row in rows}, key=METHODS.index)
    held: dict[tuple[str, float], set[str]] = {}
    for row in rows:
        held.setdefault((row["case"], row["seconds"]), set()).add(row["method"])
    rows = [row for row in rows if len(held[row["case"], row["seconds"]]) == len(names)]
    yield f"| {title} | method | PSNR heart, dB | SSIM heart | NRMSE heart | sharpness | PSNR body, dB | SSIM body |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for seconds in SECONDS:
        for name in names:
            mine = [row for row in rows if row["seconds"] == seconds and row["method"] == name]
            if mine:
                cells = [spread([row[key] for row in mine], digits) for key, digits in KEYS]
                yield f"| {seconds} s, {len(mine)} slices | {name} | " + " | ".join(cells) + " |"


def gains(rows: list[dict[str, Any]], over: str = "cs") -> Iterator[str]:
    """Yield, for each time, by how many dB the unrolled network beats a method around the heart, case by case."""
    by = {(row["case"], row["seconds"], row["method"]): row["heart_psnr_db"] for row in rows}
    for seconds in SECONDS:
        found = [
            value - by[case, s, over]
            for (case, s, m), value in by.items()
            if m == "unrolled" and s == seconds and (case, s, over) in by
        ]
        if found:
            worst = f"worst {min(found):.2f}, ahead in {sum(v > 0 for v in found)} of {len(found)}"
            yield f"{seconds} s: unrolled over {over} {spread(found, 2)} dB, {worst}"


def foresee(path: Path, names: Sequence[str]) -> None:
    """Print how well each method foresees measured spokes that it was not given."""
    scan = open_source(path)
    if not isinstance(scan, RadialScan) or scan.frame is None:
        raise SystemExit(f"{path} is no radial k-space in frames")
    print("| method | error of left-out spokes |\n| --- | --- |")
    for name in names:
        print(f"| {name} | {prediction_error(scan, NO_DELAYS, name):.4f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kspace", type=Path, help="a radial ISMRMRD file with frames")
    parser.add_argument("--out", type=Path, help="file that one JSON line per image is added to")
    parser.add_argument("--patients", type=int, default=50)
    parser.add_argument("--data", type=Path, help="folder of the real cines")
    parser.add_argument("--weights", type=Path, help="folder of the models (default: the shipped ones)")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seconds", default=",".join(map(str, SECONDS)))
    parser.add_argument("--part", default="0/1", help="I/N: only every N-th patient, from the I-th")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only print what the file holds")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = arguments.methods.split(",")
    if arguments.kspace is not None:
        return foresee(arguments.kspace, names)
    if arguments.out is None:
        parser.error("--out or --kspace is needed")
    first, every = (int(text) for text in arguments.part.split("/"))
    jobs: list[Any] = list(range(first, arguments.patients, every))
    if arguments.data is not None:
        jobs[1:1] = [(arguments.data, name) for name in HEARTS]
    if not arguments.table:
        run(arguments.out, jobs, names, arguments.weights, [int(text) for text in arguments.seconds.split(",")])
    rows = rows_of(arguments.out)
    for kind, title in (("virtual", "virtual patients (synthetic)"), ("real", "real cines, spokes simulated")):
        some = [row for row in rows if row["kind"] == kind]
        print("\n".join([*table(some, title), "", *gains(some), ""]))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB", file=sys.stderr)


if __name__ == "__main__":
    main()
