"""Do the signs of a wrong image tell? ``python -m bench.trust --out FILE.jsonl [--patients 3] [--methods unrolled]``.

Middle slices of virtual test patients (synthetic), as in ``bench.unrolled``, at 1, 2 and 4 s.

1. Uncertainty: the jackknife over four groups of spokes beside the true error of the magnitude around the heart, pixel
   by pixel and frame by frame: Spearman's correlation; the error of the surer half of the pixels over that of all, and
   of the half that is truly better; the error over the uncertainty (root mean squares), over all pixels and in the
   tenths of lowest and highest uncertainty.
2. Held-out spokes: those of the half second that follows the images, foreseen from the images, from the U-Net's, and
   from images with an invented blob (a Gaussian of 3 pixels, of so many per cent of the brightest) in the heart of
   every fourth frame.

A line per image is added to FILE, and a run that was broken off goes on. ``--table`` only prints.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from bench.compressed_sensing import rows_of
from bench.regularisation import Moment, moments
from bench.unrolled import virtual_stream
from kspace.quality.held_out import held_out_residual
from kspace.recon.methods import make_method
from kspace.recon.uncertainty import jackknife, sums_by_group
from kspace.scan import RadialScan
from simulate.opened import N_FRAMES

SECONDS = (1.0, 2.0, 4.0)
LATER_S = 0.5
BLOBS = (0.05, 0.1, 0.2)


def uncertainty(method: str, moment: Moment, truth: Tensor, region: Tensor) -> tuple[dict[str, Any], Tensor]:
    """Return figures of the uncertainty of a method's images, and the images."""
    maps, made = moment.calibration.maps, make_method(method)
    full = made(moment.equations, maps, noise_std=moment.noise_std)
    parts = sums_by_group(moment.equations, moment.white.samples, moment.white.positions, moment.frame)
    before = time.process_time()
    found = jackknife(made, moment.equations, parts, maps, full=full, noise_std=moment.noise_std)
    took = time.process_time() - before
    shading = moment.calibration.shading
    error = ((full.image.abs() * shading - truth).abs())[:, region].flatten().double()
    std = (found.std * shading)[:, region].flatten().double()
    by_std, by_error = torch.argsort(std), torch.argsort(error)
    half, tenth = len(error) // 2, len(error) // 10

    def rms(values: Tensor) -> float:
        return float(values.square().mean().sqrt())

    def slope(chosen: Tensor) -> float:
        return rms(error[chosen]) / rms(std[chosen])

    return {
        "spearman": float(spearmanr(std, error).statistic),
        "error_of_surer_half": rms(error[by_std[:half]]) / rms(error),
        "error_of_better_half": rms(error[by_error[:half]]) / rms(error),
        "slope": rms(error) / rms(std),
        "slope_lowest_tenth": slope(by_std[:tenth]),
        "slope_highest_tenth": slope(by_std[-tenth:]),
        "cpu_s": took,
    }, full.image


def blob(image: Tensor, region: Tensor, height: float) -> Tensor:
    """Return images with something invented in the middle of a region of every fourth frame."""
    middle = torch.nonzero(region).double().mean(0)
    y, x = torch.meshgrid(*(torch.arange(n) for n in image.shape[1:]), indexing="ij")
    bump = torch.exp(-((y - middle[0]) ** 2 + (x - middle[1]) ** 2) / 2 / 3.0**2)
    changed = image.clone()
    turn = torch.sgn(image[::4])
    changed[::4] += (height * image.abs().max() * bump).float() * turn
    return changed


def residuals(moment: Moment, asked: RadialScan, frame: Tensor, image: Tensor) -> dict[str, float]:
    """Return how well images foresee spokes; over the noise also in every fourth frame, and in the others."""
    found = held_out_residual(image, moment.calibration.maps, asked, frame, noise_std=moment.noise_std)
    fourth = torch.arange(len(found.by_frame)) % 4 == 0
    return {
        "relative": found.relative, "image_error": found.image_error, "over_noise": found.over_noise,
        "over_noise_there": float(found.by_frame[fourth].nanmean()),
        "over_noise_elsewhere": float(found.by_frame[~fourth].nanmean()),
    }  # fmt: skip


def measure(index: int, methods: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a row per time, method and what was done to its images."""
    name, stream, region = virtual_stream(index)
    truth = stream.truth(N_FRAMES)
    assert truth is not None
    for moment, later in pairwise(moments(stream, (*SECONDS, SECONDS[-1] + LATER_S))):
        seconds, time_s = moment.seconds, later.white.time_s
        new = (torch.arange(len(time_s)) >= moment.white.n_spokes) & (time_s < moment.white.time_s[-1] + LATER_S)
        asked, frame = later.white.select(new), later.frame[new]
        residual = partial(residuals, moment, asked, frame)
        for method in methods:
            figures, image = uncertainty(method, moment, truth, region)
            row = {"patient": name, "seconds": seconds, "method": method}
            yield {**row, "images": "as they are", **figures, **residual(image)}
            for height in BLOBS:
                yield {**row, "images": f"with a blob of {height:.0%}", **residual(blob(image, region, height))}
        gridded = make_method("unet")(moment.equations, moment.calibration.maps)
        row = {"patient": name, "seconds": seconds, "method": "unet"}
        yield {**row, "images": "as they are", **residual(gridded.image)}


KEYS = (("spearman", 2), ("error_of_surer_half", 2), ("error_of_better_half", 2), ("slope", 2),
        ("slope_lowest_tenth", 2), ("slope_highest_tenth", 2), ("cpu_s", 1))  # fmt: skip
RESIDUALS = (
    ("relative", 4),
    ("image_error", 4),
    ("over_noise", 3),
    ("over_noise_there", 3),
    ("over_noise_elsewhere", 3),
)


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield Markdown: medians over the patients, lowest and highest in brackets."""
    for keys in (KEYS, RESIDUALS):
        yield "| seconds | method | images | " + " | ".join(key.replace("_", " ") for key, _ in keys) + " |"
        yield "| --- | --- | --- |" + " --- |" * len(keys)
        for seconds, method, images in dict.fromkeys((r["seconds"], r["method"], r["images"]) for r in rows):
            mine = [r for r in rows if (r["seconds"], r["method"], r["images"]) == (seconds, method, images)]
            if keys[0][0] in mine[0]:
                cells = []
                for key, digits in keys:
                    values = sorted(row[key] for row in mine)
                    cells.append(
                        f"{values[len(values) // 2]:.{digits}f} ({values[0]:.{digits}f} to {values[-1]:.{digits}f})"
                    )
                yield f"| {seconds:g} | {method} | {images} | " + " | ".join(cells) + " |"
        yield ""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file that one JSON line per image is added to")
    parser.add_argument("--patients", type=int, default=3)
    parser.add_argument("--methods", default="unrolled")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only print what the file holds")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for index in range(0 if arguments.table else arguments.patients):
        if virtual_stream(index)[0] in {row["patient"] for row in rows_of(arguments.out)}:
            continue
        rows = list(measure(index, arguments.methods.split(",")))
        with arguments.out.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        print(rows[0]["patient"], file=sys.stderr, flush=True)
    print("\n".join(table(rows_of(arguments.out))))


if __name__ == "__main__":
    main()
