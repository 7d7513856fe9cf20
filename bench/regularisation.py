"""Choose the weights of compressed sensing: ``python bench/regularisation.py FOLDER [--methods cs,l+s,llr]``.

Virtual patients of the validation split (synthetic; all groups, five styles, 144 to 192 pixels, 8 coils, SNR 15 to 40),
the middle slice of each, at 1, 2, 4 and 8 s. Their scans are kept in FOLDER, and so is every result, so that a run that
was broken off goes on. Each method is run over a grid of weights, in units of the noise in the gridded image, from a
cold start; the error is the NRMSE of the magnitude around the heart. From the curves of all cases follows the pair
(noise factor, signal factor) with the smallest mean of log NRMSE. No real heart is looked at.
``bench/compressed_sensing.py`` shares the scans.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from kspace.coils import whiten, whitening_matrix
from kspace.equations import NormalEquations
from kspace.gating import assign_frames
from kspace.metrics import nrmse
from kspace.noise import noise_std
from kspace.recon.methods import make_method
from kspace.recon.proximal import Scaled
from kspace.scan import RadialScan, concatenate
from simulate.body_scanner import BodyScanner
from simulate.calibration import Calibration, calibrate
from simulate.opened import N_FRAMES
from simulate.patient.parameters import Group
from simulate.patient.population import draw_patient
from simulate.source import SliceStream
from simulate.subject import SubjectOptions, scan_patient
from simulate.training.dataset import Split, patient_seed

SECONDS = (1, 2, 4, 8)
N_COILS = 8
HEART_MARGIN_MM = 8.0
"""The region that is scored is this much wider than all that LV, myocardium and RV cover in any phase."""

VALIDATION = (
    ("normal", "siemens", 144, 30.0),
    ("dilated", "ge", 160, 20.0),
    ("hypertrophic", "philips", 176, 40.0),
    ("infarct", "siemens-3t", 144, 15.0),
    ("abnormal_rv", "philips-3t", 160, 25.0),
    ("normal", "ge", 192, 35.0),
)
"""Group, style, matrix and SNR of the patients with the first indices of the validation split."""


@dataclass(frozen=True)
class Moment:
    """What is known of a slice after some seconds.

    Parameters
    ----------
    seconds
        Since the scan began.
    white, frame
        Whitened spokes (spoke, coil, readout) and the (spoke,) cardiac phase of each.
    equations
        Their sums.
    calibration
        Coil maps, and the way back to the received signal's unit.
    """

    seconds: float
    white: RadialScan
    frame: Tensor
    equations: NormalEquations
    calibration: Calibration

    @property
    def noise_std(self) -> float:
        """Of a whitened sample."""
        return noise_std(self.white)


@dataclass(frozen=True)
class Compared:
    """A slice with its truth.

    Parameters
    ----------
    name
        Who it is.
    truth
        (frame, y, x) magnitude.
    region
        (y, x) bool, around the heart.
    moments
        After each of :data:`SECONDS`.
    """

    name: str
    truth: Tensor
    region: Tensor
    moments: tuple[Moment, ...]


def open_patient(index: int, split: Split, group: str, style: str, matrix: int | None, snr: float) -> BodyScanner:
    """Put a patient of a split into the scanner; without a matrix, that of the style."""
    seed = patient_seed(index, split)
    given: dict[str, Any] = {"n_coils": N_COILS, "snr": snr} | ({} if matrix is None else {"matrix": matrix})
    patient = draw_patient(seed, group=Group(group))
    return scan_patient(patient, SubjectOptions(group=group, vendor=style), given, seed=index)


def moments(stream: SliceStream, seconds: Iterable[float] = SECONDS, n_frames: int = N_FRAMES) -> Iterator[Moment]:
    """Scan a slice from its beginning; yield what is known after each duration."""
    batches: list[RadialScan] = []
    now = 0.0
    for end in seconds:
        raw = stream.acquire(end - now)
        now = end
        assert raw.noise_covariance is not None
        batches.append(whiten(raw))
        # All that the ECG has told by now, for early spokes as well.
        white = concatenate([replace(batch, ecg_s=raw.ecg_s) for batch in batches])
        frame = assign_frames(white, n_frames)
        equations = NormalEquations(white.matrix, n_frames, white.n_coils)
        equations.add(white.samples, white.positions, frame)
        yield Moment(end, white, frame, equations, calibrate(equations, whitening_matrix(raw.noise_covariance)))


def around_the_heart(labels: Tensor, pixel_mm: float) -> Tensor:
    """Return (y, x) bool, all that (frame, y, x) labels cover in any phase and :data:`HEART_MARGIN_MM` more."""
    reach = math.ceil(HEART_MARGIN_MM / pixel_mm)
    heart = (labels > 0).any(0)[None].float()
    return max_pool2d(heart, 2 * reach + 1, stride=1, padding=reach)[0] > 0


def compared(scanner: BodyScanner) -> Compared:
    """Scan the middle slice of a virtual patient."""
    stream = scanner.open_slice(scanner.geometry.shape[0] // 2)
    truth = stream.truth(N_FRAMES)
    region = around_the_heart(stream.labels(N_FRAMES), scanner.geometry.spacing_mm[1])
    return Compared(scanner.description, truth, region, tuple(moments(stream)))


def validation(folder: Path, index: int) -> Compared:
    """Return a validation patient, kept in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"validation{index}.pt"
    if not path.exists():
        group, style, matrix, snr = VALIDATION[index]
        found = compared(open_patient(index, Split.VALIDATION, group, style, matrix, snr))
        part = path.with_suffix(".part")
        # Plain dictionaries: classes of a script that is run do not unpickle in another.
        torch.save(vars(found) | {"moments": [vars(moment) for moment in found.moments]}, part)
        part.rename(path)
    kept = torch.load(path, weights_only=False)
    return Compared(**kept | {"moments": tuple(Moment(**moment) for moment in kept["moments"])})


@dataclass(frozen=True)
class Curve:
    """What is tried of a method: all weights, in standard deviations of the noise, with each set of options."""

    weights: tuple[float, ...]
    options: tuple[dict[str, float], ...] = ({},)


CURVES = {
    "cs": Curve((0.7, 1.4, 2.8)),
    "llr": Curve((0.2, 0.35, 0.7, 1.0)),
    "l+s": Curve((0.3, 0.5, 1.0, 2.0), tuple({"rank_factor": factor} for factor in (0.3, 0.5, 1.0))),
}


def search(one: Compared, moment: Moment, name: str, done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row per weight that is not done: the error around the heart, and the units of the weight."""
    maps, sums = moment.calibration.maps, moment.equations
    units = Scaled(sums, maps, moment.noise_std)
    for options in CURVES[name].options:
        for weight in CURVES[name].weights:
            key = {"patient": one.name, "seconds": moment.seconds, "method": name, "weight": weight, **options}
            if any(key.items() <= row.items() for row in done):
                continue
            method: Any = replace(make_method(name), noise_factor=weight, signal_factor=0.0, **options)  # type: ignore
            found = method(sums, maps, noise_std=moment.noise_std)
            image = found.image.abs() * moment.calibration.shading
            row = key | {"noise": units.noise, "streaks": units.streaks, "iterations": found.iterations}
            yield row | {"nrmse": float(nrmse(image, one.truth, one.region))}


Cases = dict[tuple[str, float], list[dict[str, Any]]]


def errors(cases: Cases, noise_factor: float, signal_factor: float) -> dict[tuple[str, float], float]:
    """Return log NRMSE of each case at a pair of factors, off the parabola through its curve in log weight."""
    found = {}
    for key, rows in cases.items():
        x, y = np.log([row["weight"] for row in rows]), np.log([row["nrmse"] for row in rows])
        weight = noise_factor + signal_factor * rows[0]["streaks"] / rows[0]["noise"]
        at = np.clip(math.log(max(weight, 1e-9)), x.min(), x.max())
        found[key] = float(np.polyval(np.polyfit(x, y, min(2, len(x) - 1)), at))
    return found


def report(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield Markdown: NRMSE at each weight and duration, and the best pair of factors."""
    yield "| method | weight over noise | " + " | ".join(f"{s} s" for s in SECONDS) + " | mean log, dB |"
    yield "| --- | --- |" + " --- |" * (len(SECONDS) + 1)
    for name, curve in CURVES.items():
        for options in curve.options:
            mine = [row for row in rows if row["method"] == name and options.items() <= row.items()]
            for weight in curve.weights:
                cells = []
                some = [row for row in mine if row["weight"] == weight]
                for seconds in SECONDS:
                    values = [row["nrmse"] for row in some if row["seconds"] == seconds]
                    cells.append(f"{100 * np.exp(np.mean(np.log(values))):.2f} %" if values else "")
                mean = 20 * np.mean(np.log10([row["nrmse"] for row in some])) if some else math.nan
                title = " ".join([f"{weight:g}", *(f"{key} {value:g}" for key, value in options.items())])
                yield f"| {name} | {title} | " + " | ".join(cells) + f" | {mean:.2f} |"
            yield from _best(mine, f"{name} {options or ''}")


def _best(rows: list[dict[str, Any]], title: str) -> Iterator[str]:
    cases: Cases = {}
    for row in rows:
        cases.setdefault((row["patient"], row["seconds"]), []).append(row)
    if not cases:
        return
    pairs = list(product(np.arange(0, 3.01, 0.1), np.arange(0, 0.0401, 0.0025)))
    means = [float(np.mean(list(errors(cases, *pair).values()))) for pair in pairs]
    noise_factor, signal_factor = pairs[int(np.argmin(means))]
    default: Any = make_method(rows[0]["method"])
    chosen = errors(cases, default.noise_factor, default.signal_factor)
    yield (
        f"| {title}, {len(cases)} cases | best pair {noise_factor:.2f}, {signal_factor:.4f}: "
        f"{min(means) * 20 / math.log(10):.2f} dB; default pair: "
        f"{float(np.mean(list(chosen.values()))) * 20 / math.log(10):.2f} dB |"
    )


def main() -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", default=",".join(CURVES))
    parser.add_argument("--patients", default=",".join(str(k) for k in range(len(VALIDATION))), help="indices")
    parser.add_argument("--seconds", default=",".join(map(str, SECONDS)))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.folder / "search.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for index in (int(k) for k in arguments.patients.split(",") if k):
        one = validation(arguments.folder, index)
        for moment in one.moments:
            if str(moment.seconds) not in arguments.seconds.split(","):
                continue
            for name in arguments.methods.split(","):
                for row in search(one, moment, name, done):
                    done.append(row)
                    with path.open("a") as stream:
                        stream.write(json.dumps(row) + "\n")
                    print(index, moment.seconds, name, f"{row['nrmse']:.4f}", file=sys.stderr)
    print("\n".join(report(done)))


if __name__ == "__main__":
    main()
