"""How like real cines the virtual ones are: ``python bench/realism.py --data ../shared/data``.

The same measures, on the same heart-centred crop, of the two Sunnybrook cines and of exported cines of virtual
patients (synthetic; groups and vendor styles mixed, one to three slices of each). Prints a Markdown table and draws
docs/pictures/realism.png. The real hearts' labels say where the left ventricle is, and nothing else: no parameter of
the simulation is fitted to them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from skimage.filters import threshold_multiotsu
from torch import Tensor

from kspace.formats.nifti import read_labels
from kspace.formats.source import open_source
from kspace.metrics import body_mask
from simulate.exported import draw_style, exported_cine, place_in_scanner
from simulate.patient.parameters import Group
from simulate.patient.population import draw_patient
from simulate.vendors import VENDORS

FIRST_SEED = 700_000
CROP_MM = 180.0
RING_MM = (28.0, 75.0)  # beyond the left ventricle's epicardium, where lung and fat are looked for
BANDS = ((0.02, 0.05), (0.05, 0.10), (0.10, 0.18), (0.18, 0.28))  # cycles per mm
HEARTS = (("SC-HF-I-1", "dicom"), ("SC-HF-I-4", "cine.nii.gz"))
MEASURES = {
    "blood_to_wall": "blood to myocardium, ratio",
    "lung_to_blood": "darkest class (lung) to blood, ratio",
    "fat_to_blood": "brightest class (fat) to blood, ratio",
    "edge_per_mm": "endocardial sharpness, steepest slope over the step, 1/mm",
    "edge_mm": "endocardial edge, 20 to 80 %, mm",
    "noise_to_blood": "noise over blood, from the change between phases",
    "power_mid_db": "power at 0.05 to 0.10 over 0.02 to 0.05 cycles/mm, dB",
    "power_high_db": "power at 0.10 to 0.18 over 0.02 to 0.05 cycles/mm, dB",
    "power_top_db": "power at 0.18 to 0.28 over 0.02 to 0.05 cycles/mm, dB",
    "spectral_slope": "slope of log power over log frequency, 0.03 to 0.20 cycles/mm",
    "area_ratio": "smallest over largest LV area",
    "systole_ms": "time of the smallest LV area after the first frame, ms",
}
"""Measures and what they are."""
SUNNYBROOK = (Group.INFARCT, Group.DILATED, Group.HYPERTROPHIC, Group.NORMAL) * 3 + (
    Group.INFARCT, Group.DILATED, Group.HYPERTROPHIC
)  # fmt: skip
"""Groups in the shares of the collection that the real hearts come from: of 45 people 12 with failure after infarction,
12 with failure of another kind, 12 with hypertrophy and 9 healthy ones (Radau et al., MIDAS J, 2009)."""


@dataclass(frozen=True)
class Slice:
    """One slice: images (frame, y, x), LV and myocardium at ``frame`` (y, x), pixel in mm and RR in seconds."""

    name: str
    images: np.ndarray
    cavity: np.ndarray
    wall: np.ndarray
    frame: int
    pixel_mm: float
    rr_s: float


def measure(one: Slice) -> dict[str, float]:
    """Return the measures of one slice."""
    images, cavity, wall, mm = one.images.astype(np.float64), one.cavity, one.wall, one.pixel_mm
    still = images[one.frame]
    centre = np.array(ndimage.center_of_mass(cavity))
    endo_mm, epi_mm = (float(np.sqrt(a.sum() / np.pi)) * mm for a in (cavity, cavity | wall))
    blood = float(np.median(still[ndimage.distance_transform_edt(cavity) * mm > 0.3 * endo_mm]))
    inner_wall = ndimage.distance_transform_edt(wall) > 1.5
    muscle = float(np.median(still[inner_wall if inner_wall.sum() > 20 else wall]))
    lung, fat, quiet = _surroundings(images, centre, epi_mm, mm)
    noise = _noise(images, quiet)
    edge_slope, edge_width = _edges(still, cavity, centre, mm)
    bands, slope = _spectrum(still, centre, mm)
    areas = area_curve(images, centre, endo_mm, 0.5 * (blood + muscle), mm, one.frame)
    largest, smallest = float(areas.max()), float(areas.min())
    return {
        "blood_to_wall": blood / max(muscle, 1e-9),
        "lung_to_blood": lung / blood,
        "fat_to_blood": fat / blood,
        "edge_per_mm": edge_slope,
        "edge_mm": edge_width,
        "noise_to_blood": noise / blood,
        "power_mid_db": bands[1] - bands[0],
        "power_high_db": bands[2] - bands[0],
        "power_top_db": bands[3] - bands[0],
        "spectral_slope": slope,
        "area_ratio": smallest / max(largest, 1e-9),
        "systole_ms": _time_of_smallest(areas) * one.rr_s * 1e3,
    }


def _surroundings(images: np.ndarray, centre: np.ndarray, epi_mm: float, mm: float) -> tuple[float, float, np.ndarray]:
    """Return the levels of the darkest and the brightest of three classes around the heart, inside the body.

    The classes are those of two Otsu thresholds on the logarithm of the temporal mean; air outside the body and a
    border left blank do not count. Also (y, x) bool, where nothing beats.
    """
    mean = images.mean(0)
    y, x = np.indices(mean.shape)
    distance = np.hypot(y - centre[0], x - centre[1]) * mm - epi_mm
    body = body_mask(torch.from_numpy(images)).numpy()
    body = ndimage.binary_erosion(body, iterations=max(1, round(4 / mm)))
    ring = body & (mean > 0) & (distance > RING_MM[0]) & (distance < RING_MM[1])
    values = np.log(mean[ring] + 1e-3 * np.median(mean[ring]))
    low, high = threshold_multiotsu(values, 3)
    return float(np.median(mean[ring][values < low])), float(np.median(mean[ring][values > high])), ring


def _noise(images: np.ndarray, where: np.ndarray) -> float:
    """Return the noise's standard deviation: the robust spread of second differences in time, where nothing beats.

    Where the least changes, a fifth of the pixels that are bright enough not to be rectified, motion counts least.
    """
    change = (np.roll(images, 1, 0) - 2 * images + np.roll(images, -1, 0)) / np.sqrt(6)
    spread = np.sqrt((change**2).mean(0))
    bright = where & (images.mean(0) > np.quantile(images.mean(0)[where], 0.4))
    return float(np.median(np.sort(spread[bright])[: max(1, int(0.4 * bright.sum()))]))


def _edges(image: np.ndarray, cavity: np.ndarray, centre: np.ndarray, mm: float) -> tuple[float, float]:
    """Return the median over rays of the steepest slope over the step (1/mm), and of the 20 to 80 % distance (mm)."""
    slopes, widths = [], []
    outward = np.arange(-9.0, 6.01, 0.2)
    for angle in np.linspace(0, 2 * np.pi, 72, endpoint=False):
        ray = np.array([np.sin(angle), np.cos(angle)])
        reach = np.arange(0, 70, 0.25)
        path = centre[:, None] + ray[:, None] * reach / mm
        inside = ndimage.map_coordinates(cavity.astype(float), path, order=1)
        edge = reach[np.flatnonzero(inside > 0.5)].max(initial=0.0)
        if edge < 6:
            continue
        profile = ndimage.map_coordinates(image, centre[:, None] + ray[:, None] * (edge + outward) / mm, order=3)
        top, bottom = np.quantile(profile[outward < -3], 0.5), profile[outward > -3].min()
        if top < 1.3 * bottom:
            continue
        fall = (profile - bottom) / (top - bottom)
        slopes.append(-np.gradient(fall, 0.2).min())
        at = int(np.argmin(np.gradient(fall)))
        before, after = np.flatnonzero(fall[: at + 1] >= 0.8), np.flatnonzero(fall[at:] <= 0.2)
        if len(before) and len(after):
            widths.append(0.2 * (at + after[0] - before[-1]))
    return (float(np.median(slopes)), float(np.median(widths))) if slopes and widths else (np.nan, np.nan)


def _spectrum(image: np.ndarray, centre: np.ndarray, mm: float) -> tuple[list[float], float]:
    """Return the mean power in each band (dB, arbitrary zero) and the slope of its logarithm."""
    half = round(CROP_MM / 2 / mm)
    row, column = (int(np.clip(round(c), half, n - half)) for c, n in zip(centre, image.shape, strict=True))
    crop = image[row - half : row + half, column - half : column + half]
    window = np.hanning(len(crop))[:, None] * np.hanning(len(crop))
    crop = (crop - (crop * window).sum() / window.sum()) * window
    power = np.abs(np.fft.fft2(crop)) ** 2
    f = np.fft.fftfreq(len(crop), mm)
    radius = np.hypot(f[:, None], f)
    bands = [10 * float(np.log10(power[(radius >= a) & (radius < b)].mean())) for a, b in BANDS]
    edges = np.geomspace(0.03, 0.20, 13)
    levels = [power[(radius >= a) & (radius < b)].mean() for a, b in pairwise(edges)]
    slope = np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(levels), 1)[0]
    return bands, float(slope)


def area_curve(
    images: np.ndarray, centre: np.ndarray, endo_mm: float, threshold: float, mm: float, first: int
) -> np.ndarray:
    """Return the left ventricle's area in each frame by a threshold: (frame,) mm^2.

    Of what is brighter within the end-diastolic radius and 2 mm, the piece next to the middle, with holes filled.
    """
    y, x = np.indices(images.shape[1:])
    near = np.hypot(y - centre[0], x - centre[1]) * mm < endo_mm + 2
    areas = []
    for image in images:
        bright = near & (ndimage.gaussian_filter(image, 0.5) > threshold)
        pieces, count = ndimage.label(bright)
        if count == 0:
            areas.append(0.0)
            continue
        sizes = ndimage.sum_labels(bright, pieces, range(1, count + 1))
        filled = ndimage.binary_fill_holes(pieces == 1 + int(np.argmax(sizes)))
        areas.append(float(filled.sum()) * mm * mm)
    return ndimage.gaussian_filter1d(np.array(areas), 0.6, mode="wrap")


def _time_of_smallest(areas: np.ndarray) -> float:
    """Return the phase in the middle of the run of frames within 15 % of the smallest area, which noise moves less."""
    low = areas < areas.min() + 0.15 * np.ptp(areas)
    place = (np.arange(len(areas)) - int(np.argmin(areas)) + len(areas) // 2) % len(areas) - len(areas) // 2
    pieces, _ = ndimage.label(low[np.argsort(place)])
    run = np.sort(place)[pieces == pieces[np.flatnonzero(np.sort(place) == 0)[0]]]
    return float((int(np.argmin(areas)) + run.mean() + 0.5) / len(areas)) % 1.0


def middle_slices(labels: Tensor, frame_of: list[int | None]) -> list[int]:
    """Return the middle half of the slices that have cavity and myocardium."""
    found = [k for k, f in enumerate(frame_of) if f is not None and bool((labels[k, f] == 2).sum() > 60)]
    quarter = len(found) // 4
    return found[quarter : len(found) - quarter]


def real_slices(data: Path) -> Iterator[Slice]:
    """Yield the middle slices of the Sunnybrook cines."""
    for name, file in HEARTS:
        folder = data / "sunnybrook" / name
        cine, labels = open_source(folder / file), read_labels(folder / "labels.nii.gz")
        frame = int(json.loads((folder / "expert.json").read_text())["ed_phase"])
        for k in middle_slices(labels, [frame] * cine.n_slices):
            yield _slice(name, cine.images[k], labels[k], frame, cine.geometry.spacing_mm[1], cine.slice_rr_s(k))


def virtual_slices(
    n_patients: int, per_patient: int, first_seed: int = FIRST_SEED, groups: list[Group] | None = None
) -> Iterator[Slice]:
    """Yield slices of exported cines, vendors mixed; groups as they are drawn, or these in turn with every vendor."""
    names = list(VENDORS)
    for number in range(n_patients):
        seed = first_seed + number
        patient = draw_patient(seed, group=groups[number // len(names) % len(groups)] if groups else None)
        vendor = VENDORS[names[number % len(names)]]
        style = draw_style(vendor, seed)
        body = place_in_scanner(patient, vendor, style, seed=seed)
        at = (np.arange(body.geometry.shape[0]) - 0.5) * body.geometry.spacing_mm[0] / patient.left.length_mm
        middle = np.flatnonzero((at > 0.22) & (at < 0.72))
        chosen = np.random.default_rng([seed, 1]).permutation(middle)[:per_patient]
        for k in sorted(int(k) for k in chosen):
            cine, labels = exported_cine(body, style, slices=[k], seed=seed)
            frame = int(torch.argmax((labels[0] == 1).sum((1, 2))))
            name = f"{vendor.name} {patient.group.value} {seed}"
            yield _slice(name, cine.images[0], labels[0], frame, cine.geometry.spacing_mm[1], patient.rr_s)


def _slice(name: str, images: Tensor, labels: Tensor, frame: int, mm: float, rr_s: float) -> Slice:
    drawn = labels[frame].numpy()
    return Slice(name, images.abs().numpy(), drawn == 1, drawn == 2, frame, mm, rr_s)


def rows_of(real: list[dict], virtual: list[dict]) -> list[tuple[str, list[float], tuple[float, float, float], bool]]:
    """Return name, the real hearts' medians, the simulated 5, 50 and 95 %, and whether the former lie between."""
    rows = []
    hearts = sorted({r["name"] for r in real})
    for key in MEASURES:
        values = np.array([v[key] for v in virtual])
        low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95])
        seen = [float(np.nanmedian([r[key] for r in real if r["name"] == name])) for name in hearts]
        rows.append((key, seen, (low, middle, high), all(low <= v <= high for v in seen)))
    return rows


def among_themselves(virtual: list[dict]) -> tuple[float, float, float]:
    """Return how simulated hearts fare by the same rule: what real ones could do if they were drawn from the same law.

    Of every pair of simulated patients, the mean number of measures that have both between the 5 and 95 % of all
    slices, and the shares of pairs with at most one measure outside and with none.
    """
    patients: dict[str, list[dict]] = {}
    for one in virtual:
        patients.setdefault(one["name"], []).append(one)
    inside = np.empty((len(patients), len(MEASURES)), bool)
    for column, key in enumerate(MEASURES):
        low, high = np.nanquantile([one[key] for one in virtual], [0.05, 0.95])
        medians = np.array([np.nanmedian([one[key] for one in slices]) for slices in patients.values()])
        inside[:, column] = (low <= medians) & (medians <= high)
    first, second = np.triu_indices(len(inside), 1)
    both = (inside[first] & inside[second]).sum(1)
    return float(both.mean()), float((both >= len(MEASURES) - 1).mean()), float((both == len(MEASURES)).mean())


def table(rows: list[tuple[str, list[float], tuple[float, float, float], bool]]) -> str:
    """Return the Markdown table."""
    lines = [
        "| measure | " + " | ".join(f"real {name}" for name, _ in HEARTS) + " | simulated 5 % | 50 % | 95 % | inside |",
        "| --- |" + " --- |" * 6,
    ]
    for key, seen, limits, inside in rows:
        cells = [f"{v:.3g}" for v in (*seen, *limits)]
        lines.append(f"| {MEASURES[key]} | " + " | ".join(cells) + f" | {'yes' if inside else 'NO'} |")
    return "\n".join(lines)


def draw(rows: list, real: list[dict], virtual: list[dict], path: Path) -> None:
    """Draw every measure: simulated as a histogram, real slices as lines."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 4, figsize=(13, 7.2), facecolor="white")
    colours = dict(zip([name for name, _ in HEARTS], ("#b3541e", "#7a2048"), strict=True))
    for axis, (key, _, (low, _, high), _) in zip(axes.flat, rows, strict=True):
        values = np.array([v[key] for v in virtual])
        values = values[np.isfinite(values)]
        span = np.quantile(values, [0.005, 0.995])
        axis.hist(values.clip(*span), bins=24, color="#9db8d6")
        axis.axvspan(low, high, color="#1f5a9c", alpha=0.12, lw=0)
        for name, colour in colours.items():
            for row in real:
                if row["name"] == name:
                    axis.axvline(row[key], color=colour, lw=1.1)
        axis.set_title(MEASURES[key], fontsize=6.3)
        axis.tick_params(labelsize=7)
        axis.set_yticks([])
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    handles = [plt.Line2D([], [], color=c, label=f"{n}, real, a line a slice") for n, c in colours.items()]
    handles.append(plt.Rectangle((0, 0), 1, 1, color="#9db8d6", label="simulated slices (synthetic); shaded 5 to 95 %"))
    figure.legend(handles=handles, loc="lower center", ncol=3, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.045, 1, 1))
    figure.savefig(path, dpi=75)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--slices", type=int, default=2, help="of each patient, at most 3")
    parser.add_argument(
        "--groups", nargs="*", type=Group, default=list(SUNNYBROOK),
        help="these in turn, by default as in the Sunnybrook collection; none for the usual mixture, half of it normal",
    )  # fmt: skip
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/realism.png"))
    parser.add_argument("--json", type=Path, help="file that gets every slice's measures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    real = [{"name": one.name, **measure(one)} for one in real_slices(arguments.data)]
    virtual = [
        {"name": one.name, **measure(one)}
        for one in virtual_slices(arguments.patients, min(3, arguments.slices), groups=arguments.groups)
    ]
    rows = rows_of(real, virtual)
    print(table(rows))
    print(
        f"\n{len(real)} real slices; {len(virtual)} simulated slices of {arguments.patients} virtual patients "
        f"(synthetic); {time.perf_counter() - started:.0f} s"
    )
    if arguments.patients > 1:
        mean, nearly, every = among_themselves(virtual)
        print(
            f"two simulated patients by the same rule: {mean:.1f} of {len(MEASURES)} measures inside on average; "
            f"at most one outside in {100 * nearly:.0f} % of pairs, none in {100 * every:.0f} %"
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"real": real, "virtual": virtual}))
    draw(rows, real, virtual, arguments.picture)


if __name__ == "__main__":
    main()
