"""Published experiments that are no cohort studies, run by the benches that measure them.

`spokewise study --preset` ends in their tables. Each gives a table of published and ours. All of ours is synthetic.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.console import Console

from kspace.errors import SpokewiseError
from kspace.formats.files import atomic_json, atomic_text
from simulate.study.published import Line, as_text
from simulate.training.dataset import Split

_DAUTOMAP = "Schlemper et al., arXiv 1909.10995 (2019)"
_DAUTOMAP_WHY = (
    "Our images are synthetic: virtual patients under a smooth random phase, seen by one coil.",
    "We train for minutes on one core, they for 1000 epochs; the learning rate may not have come down.",
    "The mask, the noise and the scaling of k-space are ours (docs/automap.md).",
)
_PUBLISHED_DAUTOMAP = {"dautomap": "27.2 / 0.89", "dautomap-fourier": "27.2 / 0.89", "automap": "22.8 / 0.80"}
_OKSUZ = "Oksuz et al., MIDL 2019 (Dice), MICCAI 2019 (arXiv 1906.05695), IEEE TMI 2020 (arXiv 1910.05370; PSNR)"
_OKSUZ_WHY = (
    "Our images are synthetic: virtual patients under a smooth phase, 128 x 128, one coil, drawn by our own simulator; "
    "theirs are UK Biobank cines of 50 frames, with Dice against experts.",
    "Our detector fits a Gaussian model over the beat and two small networks on its evidence; theirs is a 3D network.",
    "Dice of ours is that of one shipped network, which was trained for other windows, against exact labels.",
)
_OKSUZ_PATIENTS = 20
_EVERY_THIRD = "every third"


def study_preset(name: str, out: Path, minutes: float | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Run ``dautomap`` or ``oksuz2019`` and write its table into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    return _dautomap(out, minutes) if name == "dautomap" else _oksuz(out, minutes, say)


def _dautomap(out: Path, minutes: float | None) -> dict[str, Any]:
    from bench.automap import RUNS, judge, learn

    chosen = [run for run in RUNS if not run.radial]
    share = 1.0 if minutes is None else minutes / sum(sum(run.minutes) for run in chosen)
    lines = []
    for run in chosen:
        model, _ = learn(run, out / "frames", out, share, Console(stderr=True))
        found = judge(run, model, out / "frames")
        lines.append(
            Line(
                f"{run.network}, {run.n} x {run.n}, Cartesian R = 2: PSNR in dB / SSIM",
                _PUBLISHED_DAUTOMAP[run.network],
                f"{found['psnr']:.1f} / {found['ssim']:.2f} (zero-filled {found['zero_psnr']:.1f} / "
                f"{found['zero_ssim']:.2f})",
            )
        )
    return _answer("dautomap", out, tuple(lines), _DAUTOMAP_WHY, _DAUTOMAP)


def _oksuz(out: Path, minutes: float | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Every third line from another phase, on test patients; each is kept as soon as it is measured."""
    from bench.motion_cartesian import KINDS, measure
    from simulate.training.line_scans import line_bank

    until = None if minutes is None else time.monotonic() + 60 * minutes
    bank = line_bank(out / "bank", Split.TEST, _OKSUZ_PATIENTS)
    found = []
    for number in range(_OKSUZ_PATIENTS):
        path = out / f"oksuz-{number}.json"
        if not bool(bank.labels[number].any()):  # a window without a heart: nothing moves there
            continue
        if not path.exists():
            if until is not None and time.monotonic() >= until:
                break
            generator = torch.Generator().manual_seed(number)
            atomic_json(path, measure(bank.scan(number, KINDS[_EVERY_THIRD], generator, snr=30.0), full=True))
            say(f"patient {number} of {_OKSUZ_PATIENTS} measured")
        found.append(json.loads(path.read_text()))
    if not found:
        raise SpokewiseError("no patient was measured in that time", expected="more --minutes")

    def mean(method: str, figure: str) -> float:
        values = [each[method][figure] for each in found if each[method].get(figure) is not None]
        return fmean(value for value in values if value == value)

    lines = (
        Line("wrong lines found, AUROC", "0.89", f"{mean('ours', 'auroc'):.3f}"),
        Line("myocardium Dice, clean", "0.912", f"{mean('clean', 'dice_myocardium'):.3f}"),
        Line("myocardium Dice, every third line wrong", "0.590", f"{mean('corrupted', 'dice_myocardium'):.3f}"),
        Line("myocardium Dice, corrected", "0.696", f"{mean('ours', 'dice_myocardium'):.3f}"),
        Line("PSNR in dB, every third line wrong", "-", f"{mean('corrupted', 'psnr'):.1f}"),
        Line("PSNR in dB, corrected", "37.1 (TMI; other corruption)", f"{mean('ours', 'psnr'):.1f}"),
        Line("PSNR in dB, if the wrong lines were known", "-", f"{mean('oracle', 'psnr'):.1f}"),
        Line("patients", "148 (MIDL)", str(len(found))),
    )
    return _answer("oksuz2019", out, lines, _OKSUZ_WHY, _OKSUZ)


def _answer(name: str, out: Path, lines: tuple[Line, ...], why: tuple[str, ...], citation: str) -> dict[str, Any]:
    text = as_text(lines, why, citation)
    rows = [{"figure": line.figure, "published": line.published, "ours": line.ours} for line in lines]
    record = {"preset": name, "synthetic": True, "published": rows, "out": str(out)}
    atomic_json(out / f"{name}.json", record)
    atomic_text(out / f"{name}.txt", text + "\n")
    return {**record, "text": text}
