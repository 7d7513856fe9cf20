"""Published experiments that are no cohort studies, run by the benches that measure them.

`spokewise study --preset` ends in their tables. Each gives a table of published and ours. All of ours is synthetic.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from kspace.errors import SpokewiseError
from kspace.formats.files import atomic_json, atomic_text
from simulate.study.published import Line, as_text

_DAUTOMAP = "Schlemper et al., arXiv 1909.10995 (2019)"
_DAUTOMAP_WHY = (
    "Our images are synthetic: virtual patients under a smooth random phase, seen by one coil.",
    "We train for minutes on one core, they for 1000 epochs; the learning rate may not have come down.",
    "The mask, the noise and the scaling of k-space are ours (docs/automap.md).",
)
_PUBLISHED_DAUTOMAP = {"dautomap": "27.2 / 0.89", "dautomap-fourier": "27.2 / 0.89", "automap": "22.8 / 0.80"}
_OKSUZ = "Oksuz et al., MICCAI 2019 (arXiv 1906.05695); MIDL 2019; IEEE TMI 2020 (arXiv 1910.05370)"


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
    if importlib.util.find_spec("bench.motion_cartesian") is None:
        raise SpokewiseError(
            "the Cartesian motion experiment is not part of this version, so that there is nothing to compare with "
            "Oksuz et al.",
            expected="bench/motion_cartesian.py",
        )
    raise NotImplementedError


def _answer(name: str, out: Path, lines: tuple[Line, ...], why: tuple[str, ...], citation: str) -> dict[str, Any]:
    text = as_text(lines, why, citation)
    rows = [{"figure": line.figure, "published": line.published, "ours": line.ours} for line in lines]
    record = {"preset": name, "synthetic": True, "published": rows, "out": str(out)}
    atomic_json(out / f"{name}.json", record)
    atomic_text(out / f"{name}.txt", text + "\n")
    return {**record, "text": text}
