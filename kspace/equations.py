"""The normal equations of a scan, kept as sums over spokes.

All that a least-squares reconstruction needs of the spokes is additive: per cardiac phase and coil the adjoint image
E_c^H W s, and per phase the spectrum of the point spread, which applies E_c^H W E_c as two FFTs. A batch of spokes is
added for what the batch costs, a distrusted one is subtracted, and the price of a decision does not grow with the scan.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError, UsageError
from kspace.nufft import Accuracy, AccuracyName, EngineName, Nufft
from kspace.parallel import map_frames
from kspace.toeplitz import psf_spectrum, sense_normal
from kspace.trajectory import ramp_weights

Density = Literal["ramp", "none"]

# A frame with less trust than this has lost all its spokes: what is left of its sums is rounding.
_EMPTY = 1e-6
_SUMS = ("adjoint", "spectrum", "spokes", "energy", "weight", "squared_weight")


class NormalEquations:
    """Running sums over weighted spokes, from which every reconstruction starts.

    Parameters
    ----------
    matrix
        (rows, columns) of the reconstruction grid.
    n_frames, n_coils
        Cardiac phases and receive channels.
    density
        The weights W. ``ramp``: the area of k-space of each sample, in pixels of the Cartesian grid, as if its spoke
        were alone, so that E^H W E is about the number of spokes times the identity; needed by gridding, and quick to
        solve. ``none``: ones, the maximum-likelihood weights of white noise.
    accuracy, engine
        Of the transforms, see :mod:`kspace.nufft`.
    device, dtype
        Where and in which type the sums are kept.

    Attributes
    ----------
    adjoint
        (frame, coil, y, x) complex, the sum of E_c^H W s.
    spectrum
        (frame, 2 y, 2 x) real, see :mod:`kspace.toeplitz`.
    spokes
        (frame,) float64, number of spokes, each counted by its trust.
    energy
        (frame,) float64, the sum of w |s|^2; with it the residual of any image follows without the samples.
    weight, squared_weight
        (frame,) float64, sums of w and w^2 over samples, divided by Ny Nx: the mean of the normal operator's diagonal,
        and the variance of one pixel of the coil-wise adjoint for noise of unit variance.
    """

    def __init__(
        self,
        matrix: tuple[int, int],
        n_frames: int,
        n_coils: int,
        *,
        density: Density = "ramp",
        accuracy: AccuracyName | Accuracy = "standard",
        engine: EngineName = "auto",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.complex64,
    ) -> None:
        if min(*matrix, n_frames, n_coils) < 1:
            raise InputError(f"matrix {matrix}, {n_frames} frames, {n_coils} coils", expected="positive sizes")
        if density not in ("ramp", "none"):
            raise UsageError(f"unknown density {density!r}", expected="ramp or none")
        real = torch.float64 if dtype == torch.complex128 else torch.float32
        rows, columns = matrix
        self.matrix = (int(rows), int(columns))
        self.density: Density = density
        self.accuracy: AccuracyName | Accuracy = accuracy
        self.engine: EngineName = engine
        self.adjoint = torch.zeros((n_frames, n_coils, rows, columns), dtype=dtype, device=device)
        self.spectrum = torch.zeros((n_frames, 2 * rows, 2 * columns), dtype=real, device=device)
        self.spokes = torch.zeros(n_frames, dtype=torch.float64)
        self.energy = torch.zeros(n_frames, dtype=torch.float64)
        self.weight = torch.zeros(n_frames, dtype=torch.float64)
        self.squared_weight = torch.zeros(n_frames, dtype=torch.float64)

    @property
    def n_frames(self) -> int:
        """Number of cardiac phases."""
        return int(self.adjoint.shape[0])

    @property
    def n_coils(self) -> int:
        """Number of receive channels."""
        return int(self.adjoint.shape[1])

    def add(self, samples: Tensor, positions: Tensor, frame: Tensor, trust: Tensor | None = None) -> None:
        """Add spokes.

        Parameters
        ----------
        samples
            (spoke, coil, readout) complex.
        positions
            (spoke, readout, 2), order (ky, kx), cycles per pixel.
        frame
            (spoke,) int64, the cardiac phase of each.
        trust
            (spoke,) in [0, 1], how much each counts; ones by default.
        """
        self._accumulate(samples, positions, frame, trust, sign=1.0)

    def remove(self, samples: Tensor, positions: Tensor, frame: Tensor, trust: Tensor | None = None) -> None:
        """Take spokes out again; samples, positions, frame and trust as they were when added."""
        self._accumulate(samples, positions, frame, trust, sign=-1.0)

    def _accumulate(
        self, samples: Tensor, positions: Tensor, frame: Tensor, trust: Tensor | None, *, sign: float
    ) -> None:
        if samples.ndim != 3 or samples.shape[1] != self.n_coils:
            raise ShapeError("samples", samples, f"(spoke, coil, readout) with {self.n_coils} coils")
        n_spokes, _, n_readout = samples.shape
        if positions.shape != (n_spokes, n_readout, 2):
            raise ShapeError("positions", positions, f"({n_spokes}, {n_readout}, 2)")
        if frame.shape != (n_spokes,):
            raise ShapeError("frame", frame, f"({n_spokes},)")
        if trust is not None and trust.shape != (n_spokes,):
            raise ShapeError("trust", trust, f"({n_spokes},)")
        for values in (samples, positions):
            if values.device != self.adjoint.device:
                raise InputError(f"the spokes lie on {values.device}", expected=f"{self.adjoint.device}")
        if n_spokes == 0:
            return
        if trust is not None and not bool(((trust >= 0) & (trust <= 1)).all()):
            raise InputError("the trust in a spoke is not a share", expected="numbers from 0 to 1")
        if not 0 <= int(frame.min()) <= int(frame.max()) < self.n_frames:
            raise InputError(
                f"frames run from {int(frame.min())} to {int(frame.max())}", expected=f"0 to {self.n_frames - 1}"
            )
        touched = [int(f) for f in torch.unique(frame)]
        n_threads = 1 if samples.device.type == "cpu" and len(touched) > 1 else None
        # Which spokes belong to which frame is settled on the host, before the threads start; and so are the weights,
        # so that spokes that are refused leave all frames as they were.
        members = [(f, torch.nonzero(frame == f)[:, 0].to(samples.device)) for f in touched]
        counts = torch.ones(n_spokes) if trust is None else trust
        counts = counts.to(samples.device, torch.float64)
        weights = self._weights(positions) * counts.to(self.spectrum.dtype)[:, None]

        def add_frame(item: tuple[int, Tensor]) -> None:
            f, chosen = item
            self._add_frame(f, samples[chosen], positions[chosen], weights[chosen], sign, n_threads)
            self.spokes[f] += sign * float(counts[chosen].sum())
            if sign < 0 and abs(float(self.spokes[f])) < _EMPTY:
                self._clear_frame(f)

        map_frames(add_frame, members)

    def _weights(self, positions: Tensor) -> Tensor:
        """Return the (spoke, readout) weights W of spokes."""
        if self.density == "ramp":
            return (ramp_weights(positions, n_spokes=1) * math.prod(self.matrix)).to(self.spectrum.dtype)
        return torch.ones(positions.shape[:-1], dtype=self.spectrum.dtype, device=positions.device)

    def _add_frame(
        self, frame: int, samples: Tensor, positions: Tensor, weights: Tensor, sign: float, n_threads: int | None
    ) -> None:
        n_coils = samples.shape[1]
        pixels = math.prod(self.matrix)
        points = positions.reshape(-1, 2)
        plan = Nufft(
            points,
            self.matrix,
            n_transforms=n_coils,
            accuracy=self.accuracy,
            engine=self.engine,
            dtype=self.adjoint.dtype,
            n_threads=n_threads,
        )
        weighted = (samples * weights[:, None]).transpose(0, 1).reshape(n_coils, -1).to(self.adjoint.dtype)
        self.adjoint[frame].add_(plan.adjoint(weighted), alpha=sign)
        spectrum = psf_spectrum(
            points, weights.reshape(-1), self.matrix, accuracy=self.accuracy, engine=self.engine, n_threads=n_threads
        )
        self.spectrum[frame].add_(spectrum, alpha=sign)
        self.energy[frame] += sign * float((samples.abs().double() ** 2 * weights[:, None].double()).sum())
        self.weight[frame] += sign * float(weights.double().sum()) / pixels
        self.squared_weight[frame] += sign * float((weights.double() ** 2).sum()) / pixels

    def _clear_frame(self, frame: int) -> None:
        for name in _SUMS:
            getattr(self, name)[frame] = 0

    def normal(self, images: Tensor, maps: Tensor) -> Tensor:
        """Return E^H W E x for (..., frame, y, x) images and (coil, y, x) maps."""
        return sense_normal(images, maps, self.spectrum)

    def right_hand_side(self, maps: Tensor) -> Tensor:
        """Return (frame, y, x) E^H W s for (coil, y, x) maps."""
        if maps.shape != self.adjoint.shape[1:]:
            raise ShapeError("maps", maps, f"(coil, y, x) = {tuple(self.adjoint.shape[1:])}")
        if self.adjoint.device.type != "cpu" or (torch.is_grad_enabled() and maps.requires_grad):
            return torch.einsum("cyx,fcyx->fyx", maps.conj(), self.adjoint)
        conjugated, adjoint = maps.detach().conj().resolve_conj(), self.adjoint
        combined = adjoint.new_empty((self.n_frames, *self.matrix))

        def combine(frame: int) -> None:
            # A sixth of the time of einsum, which sorts its factors first.
            total = torch.mul(adjoint[frame, 0], conjugated[0], out=combined[frame])
            for values, factors in zip(adjoint[frame, 1:], conjugated[1:], strict=True):
                total.addcmul_(values, factors)

        map_frames(combine, range(self.n_frames), teams=False)
        return combined

    def data_misfit(self, images: Tensor, maps: Tensor) -> Tensor:
        """Return (frame,) float64, the weighted sum of |E x - s|^2, from the sums alone."""
        quadratic = (images.conj() * self.normal(images, maps)).real.double().sum((-2, -1))
        linear = (images.conj() * self.right_hand_side(maps)).real.double().sum((-2, -1))
        return (quadratic - 2 * linear).cpu() + self.energy

    def over_time(self) -> NormalEquations:
        """Return the sums of one frame that holds the spokes of all frames."""
        one = self.like(1)
        for name in _SUMS:
            getattr(one, name).copy_(getattr(self, name).sum(0, keepdim=True))
        return one

    def less(self, part: NormalEquations) -> NormalEquations:
        """Return the sums without a part of the spokes that are in them, at the price of a subtraction.

        Parameters
        ----------
        part
            Sums over those spokes.

        Raises
        ------
        ShapeError
            When the part is of other frames, coils or matrix.
        UsageError
            When it is of other weights.
        """
        if part.adjoint.shape != self.adjoint.shape:
            raise ShapeError("the part", part.adjoint, f"(frame, coil, y, x) = {tuple(self.adjoint.shape)}")
        if part.density != self.density:
            raise UsageError(f"a part weighted by {part.density!r}", expected=f"density={self.density!r}")
        rest = self.like(self.n_frames)
        for name in _SUMS:
            torch.sub(getattr(self, name), getattr(part, name), out=getattr(rest, name))
        for frame in torch.nonzero(rest.spokes.abs() < _EMPTY)[:, 0].tolist():
            rest._clear_frame(frame)
        return rest

    def like(self, n_frames: int) -> NormalEquations:
        """Return sums over no spokes yet, of so many frames and otherwise of the same kind."""
        return NormalEquations(
            self.matrix,
            n_frames,
            self.n_coils,
            density=self.density,
            accuracy=self.accuracy,
            engine=self.engine,
            device=self.adjoint.device,
            dtype=self.adjoint.dtype,
        )

    def time_average(self) -> Tensor:
        """Return (coil, y, x) complex, coil images gridded from the spokes of all frames together.

        Raises
        ------
        UsageError
            When the sums are not density-weighted.
        InputError
            When there are no spokes.
        """
        self._require_ramp("the time average")
        total = float(self.spokes.sum())
        if total <= 0:
            raise InputError("no spokes have been added", expected="at least one")
        return self.adjoint.sum(0) / total

    def gridded(self) -> Tensor:
        """Return (frame, coil, y, x) complex, the density-compensated adjoint of each frame; empty frames are zero."""
        self._require_ramp("gridding")
        counts = self.spokes.clamp_min(1e-9).to(self.spectrum)
        return self.adjoint / counts[:, None, None, None]

    def _require_ramp(self, what: str) -> None:
        if self.density != "ramp":
            raise UsageError(f"{what} needs density-weighted sums", expected="density='ramp'")

    @property
    def scale(self) -> float:
        """Mean of the normal operator's diagonal over frames: by what it multiplies a smooth image, about."""
        return float(self.weight.mean())

    def noise_in_image(self, noise_std: float) -> float:
        """Return the standard deviation of the noise in one pixel of E^H W s / diagonal, averaged over frames.

        Parameters
        ----------
        noise_std
            Standard deviation of the complex noise of one whitened sample.
        """
        used = self.weight > 0
        if not bool(used.any()):
            return math.inf
        return noise_std * float((self.squared_weight[used].sqrt() / self.weight[used]).mean())
