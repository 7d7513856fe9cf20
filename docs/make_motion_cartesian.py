"""Draw a cine with mis-triggered lines, and what is made of it: ``python docs/make_motion_cartesian.py BANK``.

Every third line of a test patient (synthetic) of ``bench.motion_cartesian``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt

from bench.motion_cartesian import KINDS, PATIENTS
from kspace.metrics import psnr
from kspace.motion.cartesian import to_image
from kspace.motion.line_correction import corrected
from kspace.motion.line_networks import wrong_lines
from simulate.training.dataset import Split
from simulate.training.line_scans import line_bank

mpl.use("Agg")
PICTURE = Path(__file__).parent / "pictures" / "motion_cartesian.png"
PATIENT, TIMES = 0, 5


def main() -> None:
    """Reconstruct and draw the frame that corruption harmed most."""
    torch.set_num_threads(1)
    scan = line_bank(Path(sys.argv[1]), Split.TEST, PATIENTS).scan(
        PATIENT, KINDS["every third"], torch.Generator().manual_seed(PATIENT), snr=30.0
    )
    probability = wrong_lines(scan.measured, scan.noise_std)
    cines = {
        "corrupted": scan.measured,
        "corrected": corrected(scan.measured, scan.noise_std, probability),
        "oracle": corrected(scan.measured, scan.noise_std, scan.wrong.float()),
    }
    truth = scan.truth.abs()
    images = {name: to_image(kspace).abs() for name, kspace in cines.items()}
    frame = int((images["corrupted"] - truth).square().sum((1, 2)).argmax())
    figure, axes = plt.subplots(
        2, 4, figsize=(11, 5.7), facecolor="white", gridspec_kw={"wspace": 0.04, "hspace": 0.06}
    )
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    top = float(torch.quantile(truth[frame], 0.998))
    axes[0, 0].imshow(truth[frame], cmap="gray", vmin=0, vmax=top)
    axes[0, 0].set_title("truth")
    axes[1, 0].imshow(probability.T, cmap="magma", vmin=0, vmax=1, aspect="auto")
    axes[1, 0].set_xlabel("distrust: frame across, line down")
    for column, (name, image) in enumerate(images.items(), 1):
        axes[0, column].imshow(image[frame], cmap="gray", vmin=0, vmax=top)
        axes[0, column].set_title(f"{name}, {float(psnr(image, truth)):.1f} dB")
        axes[1, column].imshow(TIMES * (image - truth)[frame].abs(), cmap="gray", vmin=0, vmax=top)
        axes[1, column].set_xlabel(f"error x {TIMES}")
    figure.suptitle(
        "A virtual patient (synthetic), every third line of another phase; PSNR over all frames", fontsize=11
    )
    figure.savefig(PICTURE, dpi=90, bbox_inches="tight", pad_inches=0.08)


if __name__ == "__main__":
    main()
