"""Compressed sensing against BART: ``python bench/compressed_sensing.py --out FILE.jsonl [--data ../shared/data]``.

The middle slice of virtual patients of the test split (synthetic; all groups, five styles, 144 to 192 pixels, 8 coils,
SNR 15 to 40) and, with ``--data``, of the two Sunnybrook cines (real magnitudes, spokes simulated), at 1, 2, 4 and 8 s,
by every method and by ``bart pics`` with temporal total variation on the same whitened samples and maps, one thread
each. A line per image is added to FILE; a run that was broken off goes on where it ended. ``--table`` only prints.
``--choose FOLDER`` runs the grid from which BART's weights were taken, on the validation patients of
``bench/regularisation.py`` kept in FOLDER.

Ours are timed from the sums over spokes; ``sums_s`` is what the sums take from the samples. BART is timed with its
process and its reading of files, not with their writing. ``cpu_s`` is processor time, which a busy machine changes
least; all have one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.regularisation import SECONDS, Compared, Moment, around_the_heart, moments, open_patient, validation
from kspace.equations import NormalEquations
from kspace.formats.cfl import bart_trajectory, read_cfl, write_cfl
from kspace.formats.nifti import read_labels
from kspace.metrics import body_mask, nrmse
from kspace.recon.methods import METHODS, make_method
from simulate.acquisition import quality
from simulate.body_scanner import vote
from simulate.opened import N_FRAMES, open_spokes
from simulate.patient.parameters import Group
from simulate.source import SliceStream
from simulate.training.dataset import Split
from simulate.vendors import VENDORS

HEARTS = {"SC-HF-I-1": "dicom", "SC-HF-I-4": "cine.nii.gz"}
MATRICES, SNRS = (144, 160, 176, 192), (30.0, 20.0, 40.0, 15.0, 25.0, 35.0)
"""Of the patients in turn, as groups and styles are."""

BART_WEIGHTS = {1: 4e-3, 2: 3e-3, 4: 2e-3, 8: 1.2e-3}
"""lambda of ``-R T`` after BART's own scaling of the data: for each duration the best on validation patients."""
BART_GRID = (3e-4, 1e-3, 3e-3, 1e-2)
BART_ITERATIONS = 30
TIME = 10  # BART's axis for it
TRIM = 2
"""Samples left out at either end of a spoke: the kernel of BART 0.8 does not wrap around the edge of k-space."""
NAMES = (*(name for name in METHODS if name not in ("unet", "unrolled")), "bart")


def virtual_stream(index: int) -> tuple[str, SliceStream, Tensor]:
    """Return name, stream and (y, x) region of a test patient's middle slice."""
    group, style = list(Group)[index % len(Group)], list(VENDORS)[(index // 2) % len(VENDORS)]
    matrix, snr = MATRICES[index % len(MATRICES)], SNRS[index % len(SNRS)]
    scanner = open_patient(index, Split.TEST, group.value, style, matrix, snr)
    stream = scanner.open_slice(scanner.geometry.shape[0] // 2)
    region = around_the_heart(stream.labels(N_FRAMES), scanner.geometry.spacing_mm[1])
    return scanner.description, stream, region


def real_stream(data: Path, name: str) -> tuple[str, SliceStream, Tensor]:
    """Return the same of a real cine; its labels know neither the RV nor most phases, so the region is LV and wall."""
    folder = data / "sunnybrook" / name
    source = open_spokes(str(folder / HEARTS[name]), {})
    index = source.geometry.shape[0] // 2
    labels = read_labels(folder / "labels.nii.gz")[index]
    matrix = (source.geometry.shape[1], source.geometry.shape[2])
    coarse = torch.stack([vote(one, matrix) for one in labels])
    return name, source.open_slice(index), around_the_heart(coarse, source.geometry.spacing_mm[1])


def write_inputs(folder: Path, moment: Moment) -> None:
    """Write trajectory, samples, pattern and maps, frames padded to equal numbers of spokes that count nothing."""
    white, inner = moment.white, slice(TRIM, -TRIM)
    n_spokes, n_coils, n_readout = int(torch.bincount(moment.frame).max()), white.n_coils, white.n_readout - 2 * TRIM
    between = (1,) * (TIME - 3)
    where = np.zeros((3, n_readout, n_spokes, *between, N_FRAMES), np.complex64)
    pattern = np.zeros((1, n_readout, n_spokes, *between, N_FRAMES), np.complex64)
    samples = np.zeros((1, n_readout, n_spokes, n_coils, *between[1:], N_FRAMES), np.complex64)
    for frame in range(N_FRAMES):
        mine = torch.nonzero(moment.frame == frame)[:, 0]
        n = len(mine)
        where[:, :, :n, ..., frame] = bart_trajectory(white.positions[mine][:, inner], white.matrix).reshape(
            3, n_readout, n, *between
        )
        values = white.samples[mine][:, :, inner].permute(2, 0, 1).numpy()
        samples[0, :, :n, ..., frame] = values.reshape(n_readout, n, n_coils, *between[1:])
        pattern[:, :, :n, ..., frame] = 1
    maps = moment.calibration.maps.numpy().transpose(2, 1, 0)[:, :, None]
    for name, array in (("t", where), ("s", samples), ("p", pattern), ("m", maps)):
        write_cfl(folder / name, array)


class Clock:
    """Wall and processor seconds from its making to its reading, those of processes that ended meanwhile included."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), self._processor()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._wall, self._processor() - self._cpu

    @staticmethod
    def _processor() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)


def by_bart(folder: Path, moment: Moment, weight: float) -> tuple[Tensor, tuple[float, float]]:
    """Return (frame, y, x) images of what was written, in the samples' unit (-S), and wall and processor seconds."""
    call = ["bart", "pics", f"-RT:{1 << TIME}:0:{weight:g}", "-i", str(BART_ITERATIONS), "-S", "-t", "t", "-p", "p"]
    clock = Clock()
    done = subprocess.run(
        [*call, "s", "m", "x"], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    took = clock.read()
    if done.returncode:
        raise SystemExit(f"bart: {(done.stderr or done.stdout)[-300:]}")
    rows, columns = moment.white.matrix
    image = read_cfl(folder / "x").reshape(columns, rows, N_FRAMES, order="F")
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 1, 0))), took


def measure(one: Compared, moment: Moment, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield a row per method."""
    body, shading = body_mask(one.truth), moment.calibration.shading
    white, sums = moment.white, moment.equations
    clock = Clock()
    NormalEquations(white.matrix, N_FRAMES, white.n_coils).add(white.samples, white.positions, moment.frame)
    sums_s = clock.read()
    for name in names:
        row = {"case": one.name, "seconds": moment.seconds, "method": name, "spokes": white.n_spokes}
        if name == "bart":
            with tempfile.TemporaryDirectory(prefix="bench-bart-") as folder:
                write_inputs(Path(folder), moment)
                image, took = by_bart(Path(folder), moment, BART_WEIGHTS[int(moment.seconds)])
        else:
            clock = Clock()
            found = make_method(name)(sums, moment.calibration.maps, noise_std=moment.noise_std)
            image, took = found.image, clock.read()
            row |= {"iterations": found.iterations, "sums_s": sums_s[0], "sums_cpu_s": sums_s[1]}
        image = image.abs() * shading
        row |= {"matrix": list(white.matrix), "recon_s": took[0], "cpu_s": took[1], **quality(image, one.truth, body)}
        yield row | {"heart_nrmse": float(nrmse(image, one.truth, one.region))}


def run(out: Path, patients: range, data: Path | None, names: tuple[str, ...]) -> None:
    """Measure what the file does not hold yet, patient by patient; the real hearts after the first five patients."""
    hearts = [] if data is None else [(data, name) for name in HEARTS]
    jobs: list[Any] = [*patients[:5], *hearts, *patients[5:]]
    for job in jobs:
        done = {(row["case"], row["seconds"], row["method"]) for row in rows_of(out)}
        name, stream, region = virtual_stream(job) if isinstance(job, int) else real_stream(*job)
        wanted = {(name, seconds, method) for seconds in SECONDS for method in names}
        if wanted <= done:
            continue
        truth = stream.truth(N_FRAMES)
        assert truth is not None
        one = Compared(name, truth, region, ())
        for moment in moments(stream):
            missing = [method for method in names if (name, moment.seconds, method) not in done]
            for row in measure(one, moment, missing):
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                told = f"{row['recon_s']:.1f} s ({row['cpu_s']:.1f}), heart NRMSE {row['heart_nrmse']:.4f}"
                print(name, moment.seconds, row["method"], told, file=sys.stderr, flush=True)


def choose(folder: Path, patients: list[int]) -> None:
    """Print the NRMSE around the heart of every weight of BART's grid on validation patients."""
    for index in patients:
        one = validation(folder, index)
        for moment in one.moments:
            with tempfile.TemporaryDirectory(prefix="bench-bart-") as name:
                write_inputs(Path(name), moment)
                for weight in BART_GRID:
                    image, took = by_bart(Path(name), moment, weight)
                    error = float(nrmse(image.abs() * moment.calibration.shading, one.truth, one.region))
                    print(one.name, moment.seconds, f"{weight:g} {error:.4f} {took[1]:.1f} s", flush=True)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return what a file of lines holds."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: list[dict[str, Any]], title: str) -> Iterator[str]:
    """Yield Markdown: medians and quartiles over cases for which all methods are done."""
    complete: dict[tuple[str, float], set[str]] = {}
    for row in rows:
        complete.setdefault((row["case"], row["seconds"]), set()).add(row["method"])
    rows = [row for row in rows if complete[row["case"], row["seconds"]] >= set(NAMES)]
    yield f"| {title} | method | PSNR, dB | SSIM | NRMSE around the heart, % | from samples, s (processor) |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for seconds in SECONDS:
        for name in NAMES:
            mine = [row for row in rows if row["seconds"] == seconds and row["method"] == name]
            if not mine:
                continue
            took = [row["recon_s"] + row.get("sums_s", 0.0) for row in mine]
            cpu = [row["cpu_s"] + row.get("sums_cpu_s", 0.0) for row in mine]
            times = f"{statistics.median(took):.1f} ({statistics.median(cpu):.1f})"
            cells = [
                spread([row["psnr_db"] for row in mine], 1), spread([row["ssim"] for row in mine], 3),
                spread([100 * row["heart_nrmse"] for row in mine], 2), times,
            ]  # fmt: skip
            yield f"| {seconds} s, {len(mine)} slices | {name} | " + " | ".join(cells) + " |"


def spread(values: list[float], digits: int) -> str:
    """Return median and quartiles as text."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="file that one JSON line per image is added to")
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="leave out the patients before this one")
    parser.add_argument("--methods", default=",".join(NAMES), help="only these; the table holds cases that have all")
    parser.add_argument("--data", type=Path, help="folder of the real cines")
    parser.add_argument("--table", action="store_true", help="only print what the file holds")
    parser.add_argument("--choose", type=Path, help="folder of the validation patients: only try BART's weights there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.choose is not None:
        return choose(arguments.choose, [0, 3, 4])
    if arguments.out is None:
        parser.error("--out is needed")
    if not arguments.table:
        patients = range(arguments.first, arguments.patients)
        if arguments.first < 0 or not patients:
            parser.error("--first is not one of the patients")
        run(arguments.out, patients, arguments.data, tuple(arguments.methods.split(",")))
    rows = rows_of(arguments.out)
    print("\n".join(table([row for row in rows if row["case"] not in HEARTS], "virtual patients (synthetic)")))
    print()
    print("\n".join(table([row for row in rows if row["case"] in HEARTS], "real cines, spokes simulated")))


if __name__ == "__main__":
    main()
