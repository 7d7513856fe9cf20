"""Do images explain spokes that they were not made from? What a network invents does not, and leaves a trace here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.encoding import Encoding, pad_frames
from kspace.errors import ShapeError
from kspace.quality.prediction import prediction_error
from kspace.scan import RadialScan


@dataclass(frozen=True)
class HeldOutResidual:
    """How far spokes that had no part in images lie from what the images say they should be.

    Parameters
    ----------
    relative
        Norm of the residual over that of the samples, noise included.
    image_error
        The same with density weights and the noise taken out, by Parseval an estimate of the NRMSE of the images; see
        :func:`~kspace.quality.prediction.prediction_error`.
    over_noise
        Root mean square of the residual over the standard deviation of the noise: 1 where nothing but noise is left,
        NaN where the noise is not known.
    by_frame
        (frame,) float64, ``over_noise`` of each frame, NaN in those without spokes.
    """

    relative: float
    image_error: float
    over_noise: float
    by_frame: Tensor


def every_nth(frame: Tensor, n: int, *, first: int = 0) -> Tensor:
    """Return (spoke,) bool: in each frame every n-th spoke in the order of time, from the ``first`` on."""
    chosen = torch.zeros(len(frame), dtype=torch.bool)
    for number in torch.unique(frame).tolist():
        chosen[torch.nonzero(frame == number)[first::n, 0]] = True
    return chosen


def foresee(image: Tensor, maps: Tensor, spokes: RadialScan, frame: Tensor) -> Tensor:
    """Return the (spoke, coil, readout) samples that a cine says some spokes should have.

    Parameters
    ----------
    image
        (frame, y, x) complex.
    maps
        (coil, y, x) complex.
    spokes
        Where they lie; their samples are not looked at.
    frame
        (spoke,) int64, the cardiac phase of each.
    """
    positions, counts = pad_frames(spokes.positions, frame, image.shape[0], axis_order="positions")
    encoding = Encoding(positions, maps, spokes_per_frame=counts, accuracy="fast")
    samples = encoding.forward(image).transpose(1, 2)
    order = torch.argsort(frame, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.arange(frame.numel()) - starts[frame[order]]
    foreseen = torch.empty_like(spokes.samples)
    foreseen[order] = samples[frame[order], rank]
    return foreseen


def held_out_residual(
    image: Tensor, maps: Tensor, held_out: RadialScan, frame: Tensor, *, noise_std: float | None = None
) -> HeldOutResidual:
    """Compare images with spokes that they were not made from.

    Parameters
    ----------
    image, maps
        (frame, y, x) and (coil, y, x) complex.
    held_out
        Those spokes: newer than the images, or left out (:func:`every_nth`, or one group of
        :func:`~kspace.recon.uncertainty.deal`).
    frame
        (spoke,) int64, the cardiac phase of each.
    noise_std
        Standard deviation of the complex noise of one sample.

    Raises
    ------
    ShapeError
        When there are no spokes, or not a frame to each.
    """
    if held_out.n_spokes == 0 or frame.shape != (held_out.n_spokes,):
        raise ShapeError("the frames of held-out spokes", frame, f"(spoke,) = ({held_out.n_spokes},), 1 or more")
    samples, foreseen = held_out.samples, foresee(image, maps, held_out, frame)
    squares = (foreseen - samples).abs().double().square()
    energy = samples.abs().double().square().sum()
    by_spoke = squares.mean((-2, -1)).cpu()
    sums, counts = (
        torch.zeros(image.shape[0], dtype=torch.float64).index_add_(0, frame.cpu(), values)
        for values in (by_spoke, torch.ones_like(by_spoke))
    )
    noise = noise_std or math.nan
    return HeldOutResidual(
        relative=math.sqrt(float(squares.sum() / energy)) if energy > 0 else math.nan,
        image_error=prediction_error(samples, foreseen, held_out.positions, noise_std or 0.0),
        over_noise=math.sqrt(float(by_spoke.mean())) / noise,
        by_frame=(sums / counts).sqrt() / noise,  # nothing over nothing is NaN, as it should be
    )
