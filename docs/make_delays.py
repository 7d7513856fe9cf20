"""Draw docs/pictures/delays.png: ``python docs/make_delays.py [--data ../shared/data]``.

Real perfusion spokes as they are, reported as if gradients lagged, and corrected by what the spokes themselves
tell. The number in each image is the root mean square gradient over the mean, in percent per pixel. Needs the extra
``docs``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from kspace.delay_estimate import estimate_delays
from kspace.delays import GradientDelays, correct
from kspace.formats.source import open_source
from kspace.recon.methods import make_method
from kspace.scan import RadialScan
from simulate.recon_command import reconstruct_slice

mpl.use("Agg")
OUT = Path(__file__).parent / "pictures" / "delays.png"
INK = "#1b1f24"
FRAMES = (2, 4, 6)
HEART = (slice(64, 208), slice(72, 216))
IMPOSED = GradientDelays(1.5, -1.0, 0.5)
LOST = 3


def sharpness(image: Tensor) -> float:
    """Return the root mean square gradient over the mean, in percent per pixel."""
    dy, dx = torch.gradient(image)
    return 100 * float((dy**2 + dx**2).mean().sqrt() / image.mean())


def main() -> None:
    """Reconstruct and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    scan = open_source(parser.parse_args().data / "radial/perfusion_golden_angle.h5")
    assert isinstance(scan, RadialScan)
    reported = GradientDelays(-IMPOSED.x, -IMPOSED.y, -IMPOSED.xy).apply(scan.positions)[:, LOST:-LOST]
    late = replace(scan, samples=scan.samples[..., LOST:-LOST], positions=reported)
    found = estimate_delays(late)
    print(found.describe())
    rows = (
        ("as measured", scan),
        (f"reported {IMPOSED}\nsamples off", late),
        (f"corrected by\n{found.delays}", correct(late, found.delays)),
    )
    images = [reconstruct_slice(s, make_method("cs"), 7, torch.device("cpu"))[list(FRAMES)] for _, s in rows]
    figure, axes = plt.subplots(len(rows), 2 * len(FRAMES), figsize=(13.5, 7), facecolor="white")
    top = float(np.percentile(images[0][:, *HEART], 99.6))
    for number, (row, (name, _), cine) in enumerate(zip(axes, rows, images, strict=True)):
        for column, frame in enumerate(FRAMES):
            heart = cine[column][HEART]
            _show(row[column], heart, top)
            row[column].text(4, 138, f"{sharpness(heart):.1f}", color="white", fontsize=10)
            _show(row[len(FRAMES) + column], 3 * (heart - images[0][column][HEART]).abs(), top)
            if number == 0:
                row[column].set_title(f"frame {frame + 1}", fontsize=10, color=INK)
                row[len(FRAMES) + column].set_title(f"frame {frame + 1}: 3 × difference", fontsize=10, color=INK)
        row[0].set_ylabel(name, fontsize=11, color=INK)
    figure.subplots_adjust(wspace=0.03, hspace=0.03, left=0.05, right=0.995, top=0.95, bottom=0.01)
    figure.savefig(OUT, dpi=90, bbox_inches="tight", pad_inches=0.1)


def _show(axis: plt.Axes, image: Tensor, top: float) -> None:
    axis.imshow(image.numpy(), cmap="gray", vmin=0, vmax=top, interpolation="lanczos")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


if __name__ == "__main__":
    main()
