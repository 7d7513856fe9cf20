"""The report of a scan that really ran, as a browser paints it."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from kspace.quality.stopping import FixedRule
from kspace.recon.cg_sense import CgSense
from simulate.acquisition import LoopOptions
from simulate.run import run_scan
from simulate.scanner import ScannerOptions, SimulatedScanner

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=1500 "
    "--force-prefers-reduced-motion --hide-scrollbars --window-size=1366,1500"
)


def panels_of(shot: np.ndarray) -> list[np.ndarray]:
    """Cut the tallest row of pictures that fills most of the page's width out of a grey screenshot."""
    drawn = np.abs(shot - shot[0, 0]) > 20
    full = np.r_[False, drawn.mean(axis=1) > 0.4, False]
    runs = np.flatnonzero(np.diff(full.astype(int))).reshape(-1, 2)
    top, bottom = max(runs, key=lambda run: run[1] - run[0])
    empty = np.flatnonzero(~drawn[top:bottom].any(axis=0))
    return [shot[top:bottom, a + 1 : b] for a, b in pairwise(empty) if b - a > 50]


def alike(panel: np.ndarray, image: Tensor) -> float:
    """Correlation of a panel with an image, on the image's grid."""
    rows, columns = image.shape
    small = np.asarray(Image.fromarray(panel.astype(np.float32)).resize((columns, rows), Image.Resampling.BOX))
    return float(np.corrcoef(small.ravel(), image.numpy().ravel())[0, 1])


@pytest.mark.skipif(not CHROMIUM, reason="no chromium to open the report with")
def test_a_browser_paints_what_was_scanned(make_cine: Any, tmp_path: Path) -> None:
    source = SimulatedScanner(make_cine(slices=2, rows=64, columns=64), ScannerOptions(n_coils=3, snr=15))
    options = LoopOptions(step_s=0.3, n_frames=4, method=CgSense(max_iterations=5), rule=FixedRule(0.6))
    result = run_scan(source, options, tmp_path / "scan", slices=[0, 1], record_options={"max_seconds": 0.6})
    page, picture = tmp_path / "scan" / "report.html", tmp_path / "page.png"
    command = [
        CHROMIUM,
        *FLAGS.split(),
        f"--user-data-dir={tmp_path}/profile",
        f"--screenshot={picture}",
        page.as_uri(),
    ]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in seen.stderr, seen.stderr

    with Image.open(picture) as shot:
        panels = panels_of(np.asarray(shot.convert("L")).astype(int))
    assert len(panels) == 3
    assert all(panel.std() > 5 for panel in panels)
    shown = result.record.slices[1]
    assert shown.truth is not None
    recon, truth = shown.image[0], shown.truth[0]
    assert alike(panels[0], recon) > 0.99 > alike(panels[0], recon.flip(-1))
    assert alike(panels[1], truth) > 0.99
    assert alike(panels[2], (recon - truth).abs()) > 0.9
