"""Draw what the unrolled network gains and loses: ``python docs/make_unrolled.py``.

Three of the 20 test patients of ``bench.unrolled`` (synthetic) at 2 s: those in which the network gains least, middling
and most over locally low rank, in PSNR around the heart.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from bench.regularisation import moments
from bench.unrolled import virtual_stream
from kspace.metrics import psnr
from kspace.recon.methods import make_method
from simulate.opened import N_FRAMES

mpl.use("Agg")
PICTURE = Path(__file__).parent / "pictures" / "unrolled.png"
INK, QUIET = "#1b1f24", "#667080"
PATIENTS = {"gains least": 17, "middling": 11, "gains most": 13}
METHODS = ("unet", "llr", "unrolled")
SECONDS, TIMES = 2.0, 8
MARGIN = 10  # pixels around the heart's region


def _show(axis: Axes, image: Tensor, top: float, text: str = "") -> None:
    axis.imshow(image.numpy(), cmap="gray", vmin=0, vmax=top, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.text(0.03, 0.04, text, color="white", transform=axis.transAxes, fontsize=10)


def main() -> None:
    """Reconstruct and draw."""
    torch.set_num_threads(1)
    columns = 1 + 2 * len(METHODS)
    figure, axes = plt.subplots(
        len(PATIENTS), columns, figsize=(2.1 * columns, 2.25 * len(PATIENTS)), facecolor="white",
        gridspec_kw={"wspace": 0.04, "hspace": 0.04},
    )  # fmt: skip
    for row, (title, index) in zip(axes, PATIENTS.items(), strict=True):
        _, stream, region = virtual_stream(index)
        truth = stream.truth(N_FRAMES)
        assert truth is not None
        moment = next(moments(stream, [SECONDS]))
        y, x = (torch.nonzero(region.any(axis))[:, 0] for axis in (1, 0))
        size = max(int(y.max() - y.min()), int(x.max() - x.min())) + 2 * MARGIN
        crop = tuple(
            slice(max(0, int(each.min() + each.max() - size) // 2), int(each.min() + each.max() + size) // 2)
            for each in (y, x)
        )
        frame = N_FRAMES // 5  # in systole, where the heart is fastest
        top = float(torch.quantile(truth[:, region], 0.995))
        _show(row[0], truth[frame][crop], top)
        row[0].set_ylabel(title, fontsize=11, color=INK)
        for number, name in enumerate(METHODS):
            found = make_method(name)(moment.equations, moment.calibration.maps, noise_std=moment.noise_std)
            image = found.image.abs() * moment.calibration.shading
            _show(row[1 + 2 * number], image[frame][crop], top, f"{float(psnr(image, truth, region)):.1f} dB")
            _show(row[2 + 2 * number], TIMES * (image - truth).abs()[frame][crop], top)
    for axis, title in zip(
        axes[0], ("truth", *(t for name in METHODS for t in (name, f"error × {TIMES}"))), strict=True
    ):
        axis.set_title(title, fontsize=11, color=INK)
    figure.suptitle(
        "Virtual patients (synthetic), 2 s of a scan, 8 coils, SNR 30; PSNR around the heart over all frames",
        fontsize=11, color=QUIET, y=0.95,
    )  # fmt: skip
    figure.savefig(PICTURE, dpi=90, bbox_inches="tight", pad_inches=0.08)


if __name__ == "__main__":
    main()
