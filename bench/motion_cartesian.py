"""The published Cartesian experiment: ``python bench/motion_cartesian.py --bank DIR --out DIR``.

Mis-triggered lines found in and taken out of simulated test cines (synthetic): every third line, random shares, clean.
One JSON a scan is kept, so that a run that is broken off goes on where it was; ``--table`` prints what there is.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from kspace.formats.files import atomic_json
from kspace.formats.source import open_source
from kspace.metrics import nrmse, psnr, ssim
from kspace.motion.cartesian import Mistriggering, corrupted, to_image, to_kspace
from kspace.motion.line_correction import corrected, low_rank, robust
from kspace.motion.line_model import fit_lines
from kspace.motion.line_networks import wrong_lines
from kspace.scan import Cine
from kspace.segment.inputs import network_inputs, normalised
from kspace.segment.networks import members, stored_network
from kspace.segment.scores import dice
from kspace.segment.segmentation import Structure
from simulate.training.dataset import Split
from simulate.training.degrade import smooth_field
from simulate.training.line_scans import LineScan, line_bank

KINDS = {
    "every third": Mistriggering(every=3),
    "10 %": Mistriggering(0.1),
    "20 %": Mistriggering(0.2),
    "30 %": Mistriggering(0.3),
    "50 %": Mistriggering(0.5),
    "every third (same lines)": Mistriggering(every=3, same_lines=True),
    "clean": Mistriggering(),
}
PATIENTS = 40


def auroc(score: Tensor, wrong: Tensor) -> float:
    """Return the share of pairs of a wrong and a right line in which the wrong one scores higher."""
    rank = score.flatten().double().argsort().argsort().double() + 1
    n, m = int(wrong.sum()), int((~wrong).sum())
    return (float(rank[wrong.flatten()].sum()) - n * (n + 1) / 2) / (n * m) if n * m else math.nan


def hearts(image: Tensor) -> Tensor:
    """Return labels (frame, y, x) that a shipped network draws on the magnitude."""
    network, _ = stored_network(members()[0])
    with torch.no_grad():
        logits, _ = network(network_inputs(normalised(image.abs())))
    return logits.argmax(1)


def measure(scan: LineScan, *, full: bool) -> dict[str, dict[str, float]]:
    """Return figures of every method on a scan; the slow baselines and the segmentation where asked for in full."""
    model = fit_lines(scan.measured, scan.noise_std)
    probability = wrong_lines(scan.measured, scan.noise_std, model=model)
    oracle = scan.wrong.float()
    images = {
        "corrupted": scan.measured,
        "model alone": corrected(scan.measured, scan.noise_std, model.wrong),
        "ours": corrected(scan.measured, scan.noise_std, probability),
        "oracle": corrected(scan.measured, scan.noise_std, oracle),
        "clean": scan.clean,
    }
    if full:
        images["robust (Huber)"] = robust(scan.measured, scan.noise_std, iterations=8)
        images["ours, low rank"] = low_rank(scan.measured, scan.noise_std, probability, iterations=8)
    figures: dict[str, dict[str, float]] = {}
    for name, kspace in images.items():
        image = to_image(kspace)
        found = figures[name] = {
            "psnr": float(psnr(image, scan.truth)),
            "ssim": float(ssim(image, scan.truth)),
            "rmse": float(nrmse(image, scan.truth)),
        }
        if full and name in ("corrupted", "ours", "oracle", "clean"):
            labels = hearts(image)
            found["dice_myocardium"] = dice(labels, scan.labels, Structure.MYOCARDIUM)
            found["dice_lv"] = dice(labels, scan.labels, Structure.LV)
    for name, score in (("model alone", model.log_ratio), ("ours", probability)):
        if bool(scan.wrong.any()):
            figures[name]["auroc"] = auroc(score, scan.wrong)
    edges = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.01]
    figures["ours"]["calibration"] = sum(
        float(inside.float().mean() * (probability[inside].mean() - oracle[inside].mean()).abs())
        for low, high in pairwise(edges)
        if bool((inside := (probability >= low) & (probability < high)).any())
    )
    return figures


def real_scan(path: Path, kind: Mistriggering, size: int = 128, snr: float = 30.0) -> LineScan:
    """Measure the middle slice of a magnitude cine around what beats, under a smooth phase, on the cine's own grid."""
    cine = open_source(path)
    if not isinstance(cine, Cine):
        raise SystemExit(f"{path} holds no images")
    images = cine.images[len(cine.images) // 2].abs().float()
    beats = images.std(0).square()
    y, x = (int((beats.sum(axis) * torch.arange(beats.shape[1 - axis])).sum() / beats.sum()) for axis in (1, 0))
    top, left = (min(max(0, at - size // 2), n - size) for at, n in zip((y, x), beats.shape, strict=True))
    crop = images[:, top : top + size, left : left + size]
    generator = torch.Generator().manual_seed(0)
    truth = torch.polar(crop / crop.max(), (0.8 * smooth_field(size, 1.0, generator)).expand_as(crop))
    spectra = to_kspace(truth)
    noise_std = float(truth.abs().mean()) / snr
    noise = noise_std * torch.randn(spectra.shape, dtype=spectra.dtype, generator=generator)
    source = kind.draw(len(spectra), size, generator)
    labels = torch.zeros(crop.shape, dtype=torch.uint8)
    return LineScan(truth, spectra + noise, corrupted(spectra, source) + noise, source, noise_std, labels)


def table(out: Path) -> None:
    """Print the means of all scans that were measured."""
    for name in KINDS:
        records = [json.loads(path.read_text()) for path in sorted(out.glob(f"{name.replace(' ', '-')}--*.json"))]
        for method in dict.fromkeys(key for record in records for key in record):
            found = [record[method] for record in records if method in record]
            keys = dict.fromkeys(key for each in found for key in each)
            values = {key: [each[key] for each in found if key in each and not math.isnan(each[key])] for key in keys}
            cells = " | ".join(f"{key} {fmean(v):.4f}" for key, v in values.items() if v)
            print(f"{name} | {len(found)} | {method} | {cells}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=PATIENTS)
    parser.add_argument("--full", type=int, default=PATIENTS, help="patients with the slow baselines and Dice")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--cine", type=Path, help="a magnitude cine to check instead: DICOM folder or NIfTI")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.cine:
        for name in options.kinds.split(","):
            for method, figures in measure(real_scan(options.cine, KINDS[name]), full=False).items():
                print(name, "|", method, "|", " | ".join(f"{key} {value:.4f}" for key, value in figures.items()))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.table:
        bank = line_bank(options.bank, Split.TEST, PATIENTS)
        for name in options.kinds.split(","):
            for number in range(options.first, options.last):
                path = options.out / f"{name.replace(' ', '-')}--{number}.json"
                # A few windows of the virtual patients show no heart: nothing moves there, and nothing can be found.
                if not path.exists() and bool(bank.labels[number].any()):
                    generator = torch.Generator().manual_seed(number)
                    scan = bank.scan(number, KINDS[name], generator, snr=30.0)
                    atomic_json(path, measure(scan, full=number < options.full))
    table(options.out)


if __name__ == "__main__":
    main()
