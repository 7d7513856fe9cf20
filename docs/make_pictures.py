"""Draw the pictures of the documentation: ``python docs/make_pictures.py [front] [perfusion] --data ../shared/data``.

The real hearts come from the data folder; spokes of the Sunnybrook cines are simulated, those of the perfusion scan are
measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from kspace.formats.source import open_source
from kspace.metrics import body_mask
from kspace.quality.stopping import QualityRule
from kspace.recon.method import Method
from kspace.recon.methods import make_method
from kspace.scan import RadialScan
from simulate.acquisition import LoopOptions, quality, scan_slice
from simulate.opened import open_spokes, with_frames
from simulate.recon_command import reconstruct_slice
from simulate.record import SliceRecord
from simulate.source import SpokeSource

mpl.use("Agg")
PICTURES = Path(__file__).parent / "pictures"
INK, QUIET, BLUE, RED = "#1b1f24", "#667080", "#1f5a9c", "#b3541e"
FRAMES = 25


def front(data: Path) -> None:
    """One slice of a real heart: what is seen after how many seconds, and when the scan stops."""
    source = open_spokes(str(data / "sunnybrook/SC-HF-I-4/cine.nii.gz"), {})
    index, seconds = 5, (1.0, 2.0, 12.0)
    stream = source.open_slice(index)
    truth = stream.truth(FRAMES)
    assert truth is not None
    record = scan_slice(
        source.open_slice(index), index, LoopOptions(rule=QualityRule(2.0, 12.0, in_a_row=24)), n_frames=FRAMES
    )
    stop = scan_slice(source.open_slice(index), index, LoopOptions(), n_frames=FRAMES).seconds
    figure = plt.figure(figsize=(13.5, 4.9), facecolor="white")
    grid = figure.add_gridspec(2, 5, width_ratios=(1, 1, 1, 1, 2.1), wspace=0.04, hspace=0.04)
    top = float(torch.quantile(truth, 0.997))
    frame, crop = FRAMES // 3, (slice(36, 148), slice(34, 146))
    for row, (name, label) in enumerate((("gridding", "gridding"), ("cs", "compressed sensing"))):
        for column, upto in enumerate(seconds):
            image = _image_at(source, index, upto, make_method(name))
            axis = figure.add_subplot(grid[row, column])
            _show(axis, image[frame][crop], top)
            decibels = quality(image, truth, body_mask(truth))["psnr_db"]
            axis.text(0.03, 0.04, f"{decibels:.1f} dB", color="white", transform=axis.transAxes, fontsize=10)
            if row == 0:
                axis.set_title(f"{upto:g} s" + ("  ·  stops here" if upto == stop else ""), fontsize=11, color=INK)
            if column == 0:
                axis.set_ylabel(label, fontsize=11, color=INK)
            if name == "cs" and upto == stop:
                error = (image - truth).abs()[frame][crop]
    axis = figure.add_subplot(grid[0, 3])
    _show(axis, truth[frame][crop], top)
    axis.set_title("truth", fontsize=11, color=INK)
    axis = figure.add_subplot(grid[1, 3])
    _show(axis, 5 * error, top)
    axis.text(0.03, 0.04, "error at the stop × 5", color="white", transform=axis.transAxes, fontsize=10)
    _curves(figure.add_subplot(grid[:, 4]), record, stop)
    figure.suptitle(
        "Spokes simulated from a real cine (Sunnybrook SC-HF-I-4, slice 5; 8 coils, SNR 30, TR 2.8 ms)",
        fontsize=11, color=QUIET, y=1.0,
    )  # fmt: skip
    _save(figure, "front.png")


def _image_at(source: SpokeSource, index: int, seconds: float, method: Method) -> Tensor:
    scan = source.open_slice(index).acquire(seconds)
    return reconstruct_slice(scan, method, FRAMES, torch.device("cpu"))


def _curves(axis: plt.Axes, record: SliceRecord, stop: float) -> None:
    seconds = [step.seconds for step in record.steps]
    foreseen = [next(s.value for s in step.scores if s.name == "prediction_error") for step in record.steps]
    axis.plot(seconds, foreseen, color=BLUE, lw=2)
    axis.plot(seconds, [step.truth["nrmse"] for step in record.steps], color=RED, lw=2)
    axis.text(2.3, 0.075, "error in foreseeing new spokes:\nwhat the scanner sees", color=BLUE, fontsize=9.5)
    axis.text(2.3, 0.006, "true NRMSE in the body:\nwhat only the simulation knows", color=RED, fontsize=9.5)
    axis.axvline(stop, color=INK, lw=1)
    axis.text(stop + 0.15, 0.19, f"good enough at {stop:g} s", color=INK, fontsize=10)
    axis.axvline(12, color=QUIET, lw=1, ls=":")
    axis.text(11.85, 0.19, "today: 12 s", color=QUIET, fontsize=10, ha="right")
    axis.set(xlim=(0, 12.4), ylim=(0, 0.2), xlabel="seconds of breath-hold")
    axis.spines[["top", "right"]].set_visible(False)
    axis.yaxis.tick_right()


def perfusion(data: Path) -> None:
    """Real k-space: seven frames of a first-pass perfusion scan by all methods."""
    measured = open_source(data / "radial/perfusion_golden_angle.h5")
    assert isinstance(measured, RadialScan)
    scan, n_frames = with_frames(measured, None)
    names = ("gridding", "cg-sense", "cs")
    figure, axes = plt.subplots(len(names), n_frames, figsize=(13.5, 5.9), facecolor="white")
    for row, name in zip(axes, names, strict=True):
        images = reconstruct_slice(scan, make_method(name), n_frames, torch.device("cpu"))
        heart = images[:, 64:208, 72:216]
        top = float(np.percentile(heart, 99.6))
        for frame, axis in enumerate(row):
            _show(axis, heart[frame], top)
            if name == names[0]:
                axis.set_title(f"frame {frame + 1}", fontsize=10, color=INK)
        row[0].set_ylabel(name, fontsize=11, color=INK)
    figure.subplots_adjust(wspace=0.03, hspace=0.03, left=0.03, right=0.995, top=0.95, bottom=0.01)
    _save(figure, "perfusion.png")


def _show(axis: plt.Axes, image: Tensor, top: float) -> None:
    axis.imshow(image.numpy(), cmap="gray", vmin=0, vmax=top, interpolation="lanczos")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _save(figure: plt.Figure, name: str) -> None:
    figure.savefig(PICTURES / name, dpi=100, bbox_inches="tight", pad_inches=0.1)
    plt.close(figure)


def main() -> None:
    """Draw what was asked for, or everything."""
    drawings = {"front": front, "perfusion": perfusion}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*drawings, []], help="which; all by default")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    arguments = parser.parse_args()
    for name in arguments.names or drawings:
        drawings[name](arguments.data)


if __name__ == "__main__":
    main()
