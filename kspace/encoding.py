"""The encoding operator E of a multi-coil, many-frame non-Cartesian acquisition.

E multiplies each frame by the coil sensitivities and transforms it to that frame's own samples. Plans are made once,
one per frame, and reused; frames run side by side on a CPU. Gradients go through the adjoint operator, never through
the gridding, so that they are exact and cost one transform.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError, UsageError
from kspace.normal_cost import NormalForm, cheaper_form
from kspace.nufft import Accuracy, AccuracyName, EngineName, Nufft
from kspace.parallel import map_frames
from kspace.toeplitz import SenseNormal, psf_spectrum, sense_normal


class Encoding:
    """Forward, adjoint and normal operator of an acquisition with a different trajectory in every frame.

    Parameters
    ----------
    positions
        (frame, spoke, readout, 2), order (ky, kx), cycles per pixel in [-0.5, 0.5]. Its device is where all happens.
    maps
        (coil, y, x) complex, coil sensitivities.
    spokes_per_frame
        (frame,) how many of the spokes of each frame are real, where frames differ: the rest, at the end, is padding,
        which the forward operator fills with zeros and the adjoint does not read.
    weights
        (frame, spoke, readout) real, at least 0: the weights W of the normal operator E^H W E (trust, or density
        compensation). Forward and adjoint do not use them.
    accuracy
        ``fast``, ``standard`` or ``reference``; the errors are listed in :mod:`kspace.nufft`.
    engine
        ``auto`` picks FINUFFT on a CPU, and on a GPU cuFINUFFT where installed, else torchkbnufft.

    Raises
    ------
    ShapeError, InputError
        When shapes or devices do not fit together.
    """

    def __init__(
        self,
        positions: Tensor,
        maps: Tensor,
        *,
        spokes_per_frame: Tensor | None = None,
        weights: Tensor | None = None,
        accuracy: AccuracyName | Accuracy = "standard",
        engine: EngineName = "auto",
    ) -> None:
        if positions.ndim != 4 or positions.shape[-1] != 2:
            raise ShapeError("positions", positions, "(frame, spoke, readout, 2)")
        if maps.ndim != 3 or not maps.is_complex():
            raise ShapeError("maps", maps, "(coil, y, x), complex")
        if maps.device != positions.device:
            raise InputError(f"maps lie on {maps.device}", expected=f"{positions.device}, where the positions are")
        self.n_frames, self.n_spokes, self.n_readout = (int(n) for n in positions.shape[:3])
        if spokes_per_frame is None:
            spokes_per_frame = torch.full((self.n_frames,), self.n_spokes, dtype=torch.int64)
        if spokes_per_frame.shape != (self.n_frames,) or bool((spokes_per_frame > self.n_spokes).any()):
            raise ShapeError("spokes_per_frame", spokes_per_frame, f"({self.n_frames},), none over {self.n_spokes}")
        if weights is not None and weights.shape != positions.shape[:-1]:
            raise ShapeError("weights", weights, f"(frame, spoke, readout) = {tuple(positions.shape[:-1])}")
        self.positions = positions
        self.maps = maps
        self.spokes_per_frame = spokes_per_frame
        self.weights = weights
        self.accuracy: AccuracyName | Accuracy = accuracy
        self.n_coils = int(maps.shape[0])
        self.matrix = (int(maps.shape[1]), int(maps.shape[2]))
        self._engine: EngineName = engine
        self._spectrum: Tensor | None = None
        self._ready: tuple[tuple[int, int] | None, SenseNormal] | None = None
        on_cpu = positions.device.type == "cpu"
        self._plans = map_frames(
            lambda frame: Nufft(
                positions[frame, : int(spokes_per_frame[frame])].reshape(-1, 2),
                self.matrix,
                n_transforms=self.n_coils,
                accuracy=accuracy,
                engine=engine,
                dtype=maps.dtype,
                n_threads=1 if on_cpu and self.n_frames > 1 else None,
            ),
            range(self.n_frames),
        )
        self.engine = self._plans[0].engine

    @property
    def sample_shape(self) -> tuple[int, int, int, int]:
        """(frame, coil, spoke, readout) of the samples."""
        return self.n_frames, self.n_coils, self.n_spokes, self.n_readout

    def forward(self, images: Tensor) -> Tensor:
        """Return the (..., frame, coil, spoke, readout) samples of (..., frame, y, x) images.

        Differentiable with respect to the images and, through :attr:`maps`, to the sensitivities.
        """
        self._check_images(images)
        if self._records(images):
            return self._transform(images[..., None, :, :] * self.maps)
        batches = images.reshape(-1, *images.shape[-3:])
        samples = torch.zeros((batches.shape[0], *self.sample_shape), dtype=self.maps.dtype, device=images.device)
        for source, target in zip(batches, samples, strict=True):

            def run(frame: int, source: Tensor = source, target: Tensor = target) -> None:
                self._forward_frame(frame, _times(source[frame], self.maps), target[frame])

            map_frames(run, self._all())
        return samples.reshape(*images.shape[:-3], *self.sample_shape)

    def adjoint(self, samples: Tensor) -> Tensor:
        """Return the (..., frame, y, x) images E^H s of (..., frame, coil, spoke, readout) samples.

        Differentiable with respect to the samples and, through :attr:`maps`, to the sensitivities.
        """
        if tuple(samples.shape[-4:]) != self.sample_shape:
            raise ShapeError("samples", samples, f"(..., frame, coil, spoke, readout) = (..., {self.sample_shape})")
        if self._records(samples):
            coil_images = self._transform_adjoint(samples)
            return (coil_images * self.maps.conj()).sum(-3)
        batches = samples.reshape(-1, *self.sample_shape)
        shape = (batches.shape[0], self.n_frames, *self.matrix)
        images = torch.empty(shape, dtype=self.maps.dtype, device=samples.device)
        for source, target in zip(batches, images, strict=True):

            def run(frame: int, source: Tensor = source, target: Tensor = target) -> None:
                target[frame] = _combine(self._adjoint_frame(frame, source[frame]), self.maps)

            map_frames(run, self._all())
        return images.reshape(*samples.shape[:-4], *images.shape[1:])

    @property
    def normal_form(self) -> NormalForm:
        """What ``auto`` stands for in :meth:`normal`, by :mod:`kspace.normal_cost`; on a GPU always ``toeplitz``."""
        if self.positions.device.type != "cpu":
            return "toeplitz"
        mean = float(self.spokes_per_frame.double().mean()) * self.n_readout
        return cheaper_form(self.matrix, round(mean))

    def normal(self, images: Tensor, form: NormalForm | Literal["auto"] = "auto") -> Tensor:
        """Return E^H W E x, (..., frame, y, x) to the same.

        Parameters
        ----------
        images
            (..., frame, y, x).
        form
            ``toeplitz``: two padded FFTs on a spectrum that is made at the first call and kept; ``gridded``: forward,
            weights, adjoint; ``auto``: the faster of them, :attr:`normal_form`. Both are exact to the chosen accuracy.
        """
        self._check_images(images)
        if form == "auto":
            form = self.normal_form
        if form == "gridded":
            samples = self.forward(images)
            return self.adjoint(samples if self.weights is None else samples * self.weights[:, None])
        if form != "toeplitz":
            raise UsageError(f"unknown form {form!r} of the normal operator", expected="auto, toeplitz or gridded")
        if self._records(images):
            return sense_normal(images, self.maps, self.spectrum)
        return self._convolution().of_batches(images)

    def _convolution(self) -> SenseNormal:
        """Return the Toeplitz form made ready, anew where the maps have been written to since."""
        # Maps that were made in inference mode have no versions.
        made_of = None if self.maps.is_inference() else (id(self.maps), self.maps._version)
        if self._ready is None or made_of is None or self._ready[0] != made_of:
            self._ready = made_of, SenseNormal(self.maps, self.spectrum)
        return self._ready[1]

    @property
    def spectrum(self) -> Tensor:
        """(frame, 2 y, 2 x) real spectrum of the weighted point spread, made at the first use."""
        if self._spectrum is None:
            self._spectrum = torch.stack(map_frames(self._frame_spectrum, self._all()))
        return self._spectrum

    def _frame_spectrum(self, frame: int) -> Tensor:
        n = int(self.spokes_per_frame[frame])
        real = torch.float64 if self.maps.dtype == torch.complex128 else torch.float32
        positions = self.positions[frame, :n].reshape(-1, 2)
        if self.weights is None:
            weights = torch.ones(positions.shape[0], dtype=real, device=positions.device)
        else:
            weights = self.weights[frame, :n].reshape(-1).to(real)
        threads = 1 if positions.device.type == "cpu" and self.n_frames > 1 else None
        return psf_spectrum(
            positions, weights, self.matrix, accuracy=self.accuracy, engine=self._engine, n_threads=threads
        )

    def _all(self) -> range:
        return range(self.n_frames)

    def _records(self, values: Tensor) -> bool:
        return torch.is_grad_enabled() and (values.requires_grad or self.maps.requires_grad)

    def _check_images(self, images: Tensor) -> None:
        expected = (self.n_frames, *self.matrix)
        if tuple(images.shape[-3:]) != expected or not images.is_complex():
            raise ShapeError("images", images, f"(..., frame, y, x) = (..., {expected}), complex")

    def _transform(self, coil_images: Tensor) -> Tensor:
        result: Tensor = _Transform.apply(coil_images, self, False)  # type: ignore[no-untyped-call]
        return result

    def _transform_adjoint(self, samples: Tensor) -> Tensor:
        result: Tensor = _Transform.apply(samples, self, True)  # type: ignore[no-untyped-call]
        return result

    def _forward_frame(self, frame: int, coil_images: Tensor, out: Tensor) -> None:
        n = int(self.spokes_per_frame[frame])
        samples = self._plans[frame].forward(coil_images)
        out[:, :n] = samples.reshape(self.n_coils, n, self.n_readout)

    def _adjoint_frame(self, frame: int, samples: Tensor) -> Tensor:
        n = int(self.spokes_per_frame[frame])
        return self._plans[frame].adjoint(samples[:, :n].reshape(self.n_coils, -1))


class _Transform(torch.autograd.Function):
    """The coil-wise transform of all frames, or its adjoint; each is the other's gradient, to any order."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, encoding: Encoding, adjoint: bool) -> Tensor:
        ctx.encoding, ctx.adjoint = encoding, adjoint
        tail = 4
        batches = values.detach().reshape(-1, *values.shape[-tail:])
        shape = (encoding.n_frames, encoding.n_coils, *encoding.matrix) if adjoint else encoding.sample_shape
        result = torch.zeros((batches.shape[0], *shape), dtype=values.dtype, device=values.device)
        for source, target in zip(batches, result, strict=True):

            def run(frame: int, source: Tensor = source, target: Tensor = target) -> None:
                if adjoint:
                    target[frame] = encoding._adjoint_frame(frame, source[frame])
                else:
                    encoding._forward_frame(frame, source[frame], target[frame])

            map_frames(run, range(encoding.n_frames))
        return result.reshape(*values.shape[:-tail], *shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Transform.apply(grads[0], ctx.encoding, not ctx.adjoint), None, None  # type: ignore[no-untyped-call]


def _times(image: Tensor, maps: Tensor) -> Tensor:
    """Return maps times image; on the CPU in numpy, whose one thread does not fight with the frames' threads."""
    # A thread of its own does not know that gradients are off, nor does numpy know of a lazy conjugation.
    image, maps = image.detach(), maps.detach()
    if image.device.type != "cpu":
        return image * maps
    return torch.from_numpy(np.multiply(image.resolve_conj().numpy(), maps.resolve_conj().numpy()))


def _combine(coil_images: Tensor, maps: Tensor) -> Tensor:
    """Return the sum over coils of conj(map) times image."""
    maps = maps.detach()
    if coil_images.device.type != "cpu":
        return (coil_images * maps.conj()).sum(0)
    product = np.multiply(coil_images.numpy(), maps.conj().resolve_conj().numpy())
    return torch.from_numpy(product.sum(0))


def pad_frames(
    values: Tensor, frame: Tensor, n_frames: int, *, axis_order: Literal["samples", "positions"]
) -> tuple[Tensor, Tensor]:
    """Sort a stream of spokes into frames of equal length.

    Parameters
    ----------
    values
        (spoke, coil, readout) samples, or (spoke, readout, 2) positions.
    frame
        (spoke,) int64, each spoke's frame.
    n_frames
        Number of frames.
    axis_order
        Which of the two it is.

    Returns
    -------
    padded
        (frame, coil, spoke, readout) samples or (frame, spoke, readout, 2) positions, zeros at the end of short frames.
    spokes_per_frame
        (frame,) int64.
    """
    counts = torch.bincount(frame, minlength=n_frames)
    longest = int(counts.max()) if counts.numel() else 0
    padded = values.new_zeros((n_frames, longest, *values.shape[1:]))
    order = torch.argsort(frame, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.arange(frame.numel(), device=frame.device) - starts[frame[order]]
    padded[frame[order], rank] = values[order]
    return (padded.transpose(1, 2) if axis_order == "samples" else padded), counts


def image_norm(images: Tensor) -> float:
    """Return the l2 norm of all values as a number."""
    return math.sqrt(float((images.abs().double() ** 2).sum()))
