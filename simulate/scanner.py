"""Spokes from a cine: what a multi-coil radial scanner would have measured of a beating slice.

The cine is taken as the body. It is finer than the reconstruction grid, is given a smooth phase and coil sensitivities,
and is interpolated periodically in time by cubic splines, so that every spoke sees the heart at its own instant. Its
spectrum is evaluated at the spokes' positions on the cine's own grid, never on that of the reconstruction; the truth to
compare with is the cine limited to the disc of k-space that spokes reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from kspace.errors import InputError, UsageError
from kspace.gating import cardiac_phase
from kspace.metrics import body_mask
from kspace.nufft import Nufft
from kspace.parallel import map_frames
from kspace.scan import Cine, Geometry, RadialScan
from kspace.trajectory import golden_angles, radial_positions
from simulate.coils import loop_sensitivities, noise_covariance
from simulate.look_ahead import LookAhead, add_noise
from simulate.physiology import Heartbeats, smooth_phase_map


@dataclass(frozen=True)
class ScannerOptions:
    """How the virtual scanner is set up.

    Parameters
    ----------
    matrix
        Pixels along the longer side of the reconstruction grid; by default 3/4 of the cine's, at most 192.
    n_coils
        Receive channels.
    snr
        Mean magnitude inside the body over the standard deviation of the complex noise that one fully sampled Cartesian
        frame of one average would have in a pixel of the reconstruction grid, before coil combination gains or losses;
        infinite for no noise.
    tr_s
        Repetition time in seconds: one spoke each.
    readout_oversampling
        Samples on a spoke over the matrix; the noise of a sample grows with its bandwidth.
    golden_order
        1 for the golden angle, more for tiny golden angles.
    rr_variability
        Standard deviation of the RR interval relative to its mean.
    seed
        Of noise, coils, phase and heart rate.
    """

    matrix: int | None = None
    n_coils: int = 8
    snr: float = 30.0
    tr_s: float = 2.8e-3
    readout_oversampling: float = 2.0
    golden_order: int = 1
    rr_variability: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_coils < 1:
            raise UsageError(f"{self.n_coils} coils", expected="at least one")
        if not self.snr > 0:
            raise UsageError(f"an SNR of {self.snr}", expected="a positive number, or inf for no noise")
        if not 1e-3 <= self.tr_s <= 0.1:
            raise UsageError(f"a TR of {self.tr_s} s", expected="0.001 to 0.1 s")
        if not 1 <= self.readout_oversampling <= 8:
            raise UsageError(f"a readout oversampling of {self.readout_oversampling}", expected="1 to 8")


class SimulatedScanner:
    """A :class:`~simulate.source.SpokeSource` that measures a cine.

    Parameters
    ----------
    cine
        The body; magnitude images get a smooth synthetic phase, complex ones keep theirs.
    options
        The scanner's setting.

    Raises
    ------
    InputError
        When the reconstruction grid would not be coarser than the cine, or the cine is empty of signal.
    """

    synthetic = True
    n_frames = None

    def __init__(self, cine: Cine, options: ScannerOptions | None = None) -> None:
        self.cine = cine
        self.options = options or ScannerOptions()
        if not float(cine.images.abs().max()) > 0:
            raise InputError("the cine is zero everywhere", expected="images with signal")
        self.geometry: Geometry = reconstruction_grid(cine.geometry, self.options.matrix)
        # One loudness for the whole stack, so that the noise is that of one scanner and not of each slice.
        mean = torch.stack([image.abs().mean(0) for image in cine.images])
        body = torch.stack([body_mask(image[None]) & (image.max() > 0) for image in mean])
        level = float(mean[body].mean()) if bool(body.any()) else float(mean.mean())
        self.torso_mm = enclosing_ellipse_mm(body.any(0), cine.geometry)
        self.noise_std = 0.0 if math.isinf(self.options.snr) else level / self.options.snr

    @property
    def description(self) -> str:
        """What is scanned, in words."""
        return self.cine.source or "a cine"

    @property
    def rr_s(self) -> float:
        """Mean RR interval of the stack in seconds."""
        return sum(self.cine.slice_rr_s(i) for i in range(self.cine.n_slices)) / self.cine.n_slices

    @cached_property
    def sensitivities(self) -> Tensor:
        """(slice, coil, y, x) complex on the cine's grid, unit root sum of squares."""
        options = self.options
        return loop_sensitivities(self.cine.geometry, options.n_coils, seed=options.seed, torso_mm=self.torso_mm)

    @cached_property
    def covariance(self) -> Tensor:
        """(coil, coil) noise covariance of one sample."""
        # A sample of a readout that is oversampled is noisier by the root of its bandwidth.
        variance = self.noise_std**2 * self.options.readout_oversampling
        return noise_covariance(self.options.n_coils, seed=self.options.seed) * variance

    def open_slice(self, index: int) -> SimulatedSlice:
        """Start the scan of one slice."""
        if not 0 <= index < self.cine.n_slices:
            raise InputError(f"there is no slice {index}", expected=f"0 to {self.cine.n_slices - 1}")
        return SimulatedSlice(self, index)


class SimulatedSlice:
    """A :class:`~simulate.source.SliceStream`; see :class:`SimulatedScanner`."""

    def __init__(self, scanner: SimulatedScanner, index: int) -> None:
        self._scanner = scanner
        self._options = scanner.options
        self._index = index
        cine = scanner.cine
        images = cine.images[index]
        if not images.is_complex():
            phase = smooth_phase_map((images.shape[-2], images.shape[-1]), seed=self._options.seed + index)
            images = images * phase
        self._splines = periodic_spline(images.to(torch.complex64))
        self._maps = scanner.sensitivities[index]
        self._matrix = scanner.geometry.shape[1:]
        self._geometry = scanner.geometry.select_slices([index])
        self._n_readout = round(max(self._matrix) * self._options.readout_oversampling)
        # One generator a slice: slices can be scanned in any order, and alone, with the same result.
        self._generator = torch.Generator().manual_seed(7919 * self._options.seed + index)
        self._heartbeats = Heartbeats(
            mean_rr_s=cine.slice_rr_s(index),
            variability=self._options.rr_variability,
            seed=self._options.seed * 1000 + index,
        )
        self._r_waves = torch.zeros(0, dtype=torch.float64)
        self._spokes = LookAhead(self._options.tr_s, self._compute)

    def acquire(self, seconds: float) -> RadialScan:
        """Measure for so many seconds more; see :class:`~simulate.source.SliceStream`."""
        batch = self._spokes.take(seconds)
        return replace(batch, ecg_s=self._r_waves[self._r_waves <= self._spokes.now_s])

    def truth(self, n_frames: int) -> Tensor:
        """Return (frame, y, x), the magnitude of the cine limited to the disc of k-space that spokes reach."""
        phases = (torch.arange(n_frames, dtype=torch.float64) + 0.5) / n_frames
        images = spline_images(self._splines, phases)
        return band_limited(images, (self._matrix[0], self._matrix[1])).abs()

    def _compute(self, first: int, last: int) -> RadialScan:
        numbers = torch.arange(first, last, dtype=torch.float64)
        times = numbers * self._options.tr_s
        if not self._r_waves.numel() or float(self._r_waves[-1]) <= float(times[-1]):
            self._r_waves = self._heartbeats.r_waves(max(2 * float(times[-1]), 16.0))
        angles = golden_angles(last - first, start=first, order=self._options.golden_order)
        positions = radial_positions(angles, self._n_readout)
        phase = cardiac_phase(times, self._r_waves)
        samples = sample_cine(self._splines, self._maps, positions, phase, (self._matrix[0], self._matrix[1]))
        if self._scanner.noise_std > 0:
            add_noise(samples, self._scanner.covariance, self._generator)
        return RadialScan(
            samples=samples,
            positions=positions,
            time_s=times,
            geometry=self._geometry,
            noise_covariance=self._scanner.covariance if self._scanner.noise_std > 0 else None,
            source=self._scanner.description,
        )


def reconstruction_grid(source: Geometry, matrix: int | None) -> Geometry:
    """Return the grid to reconstruct on: the source's field of view with coarser pixels.

    Parameters
    ----------
    source
        The grid that spokes are simulated from.
    matrix
        Pixels along the longer side; None takes 3/4 of the source's, at most 192.

    Raises
    ------
    InputError
        When the grid would not be coarser than the source, or is smaller than 8.
    """
    _, rows, columns = source.shape
    longest = max(rows, columns)
    wanted = min(192, longest * 3 // 4) if matrix is None else matrix
    if not 8 <= wanted < longest:
        raise InputError(
            f"a reconstruction matrix of {wanted} for a source of {rows} x {columns}",
            expected=f"8 to {longest - 1}: what simulates must be finer than what reconstructs",
            hint="Choose a smaller matrix, or a finer source",
        )
    return source.with_matrix(max(round(rows * wanted / longest), 4), max(round(columns * wanted / longest), 4))


def enclosing_ellipse_mm(
    body: Tensor, geometry: Geometry, *, middle: tuple[int, int] | None = None
) -> tuple[float, float]:
    """Return the axes (width, depth) of an ellipse about the middle of the field of view that holds a whole body.

    Coils lie outside the body: where the field of view cuts it off, the ellipse goes around the corners.

    Parameters
    ----------
    body
        (y, x) bool.
    geometry
        Of the images that it was found in.
    middle
        (row, column) to put the ellipse about instead.
    """
    rows, columns = torch.nonzero(body, as_tuple=True)
    row, column = (body.shape[0] // 2, body.shape[1] // 2) if middle is None else middle
    _, dy, dx = geometry.spacing_mm
    y = (rows - row).abs().double() * dy
    x = (columns - column).abs().double() * dx
    half_depth, half_width = max(float(y.max()), dy), max(float(x.max()), dx)
    grow = float(torch.sqrt((y / half_depth) ** 2 + (x / half_width) ** 2).max())
    return 2 * half_width * grow, 2 * half_depth * grow


def periodic_spline(images: Tensor) -> Tensor:
    """Return the (frame, y, x) coefficients of the cubic spline that passes through a periodic cine's frames.

    Uniform B-splines interpolate when their coefficients are the frames filtered by the inverse of (1, 4, 1) / 6
    (Unser, IEEE Signal Process. Mag. 16(6):22, 1999); on a circle the filter is a product of Fourier coefficients.
    """
    n = images.shape[0]
    frequency = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    response = ((4 + 2 * torch.cos(frequency)) / 6).to(torch.float32)
    spectrum: Tensor = torch.fft.fft(images, dim=0)
    coefficients: Tensor = torch.fft.ifft(spectrum / response[:, None, None], dim=0)
    return coefficients


def spline_weights(phases: Tensor, n_frames: int) -> tuple[Tensor, Tensor]:
    """Return which four coefficients a phase needs and how much of each: (phase, 4) int64 and (phase, 4) float64."""
    position = torch.remainder(phases.double(), 1.0) * n_frames - 0.5
    base = torch.floor(position)
    t = position - base
    weights = torch.stack(((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3), dim=-1) / 6
    indices = torch.remainder(base[:, None].long() + torch.arange(-1, 3), n_frames)
    return indices, weights


def spline_images(coefficients: Tensor, phases: Tensor) -> Tensor:
    """Return the (phase, y, x) images at cardiac phases in [0, 1)."""
    indices, weights = spline_weights(phases, coefficients.shape[0])
    dense = torch.zeros((len(phases), coefficients.shape[0]), dtype=torch.float64).scatter_add_(1, indices, weights)
    return torch.einsum("pf,fyx->pyx", dense.to(coefficients.dtype), coefficients)


def band_limited(images: Tensor, matrix: tuple[int, int]) -> Tensor:
    """Return (..., y, x) images on a coarser grid of the same field of view, limited to the disc |k| <= 0.5 of it."""
    rows, columns = images.shape[-2:]
    spectrum = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(images, dim=(-2, -1))), dim=(-2, -1))
    top, left = rows // 2 - matrix[0] // 2, columns // 2 - matrix[1] // 2
    kept = spectrum[..., top : top + matrix[0], left : left + matrix[1]]
    ky = (torch.arange(matrix[0]) - matrix[0] // 2) / matrix[0]
    kx = (torch.arange(matrix[1]) - matrix[1] // 2) / matrix[1]
    kept = kept * (ky[:, None] ** 2 + kx**2 <= 0.25)
    # The forward transform is unitary on either grid; a coarser one has fewer, larger pixels.
    scale = matrix[0] * matrix[1] / (rows * columns)
    result: Tensor = torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kept, dim=(-2, -1))), dim=(-2, -1)) * scale
    return result


def sample_cine(
    coefficients: Tensor, maps: Tensor, positions: Tensor, phase: Tensor, matrix: tuple[int, int]
) -> Tensor:
    """Measure spokes, each at its own cardiac phase.

    Parameters
    ----------
    coefficients
        (frame, y, x) complex, from :func:`periodic_spline`, on the fine grid.
    maps
        (coil, y, x) complex, on the fine grid.
    positions
        (spoke, readout, 2), cycles per pixel of the reconstruction grid.
    phase
        (spoke,) in [0, 1).
    matrix
        (rows, columns) of the reconstruction grid, of the same field of view.

    Returns
    -------
    (spoke, coil, readout) complex64, without noise.
    """
    n_spokes, n_readout, _ = positions.shape
    fine = (int(coefficients.shape[-2]), int(coefficients.shape[-1]))
    ratio = torch.tensor([matrix[0] / fine[0], matrix[1] / fine[1]], dtype=torch.float64)
    fine_positions = positions.double() * ratio
    indices, weights = spline_weights(phase, coefficients.shape[0])
    scale = math.sqrt(matrix[0] * matrix[1] / (fine[0] * fine[1]))

    def measure(frame: int) -> tuple[Tensor, Tensor] | None:
        spoke, slot = torch.nonzero(indices == frame, as_tuple=True)
        if not spoke.numel():
            return None
        plan = Nufft(
            fine_positions[spoke].reshape(-1, 2), fine, n_transforms=maps.shape[0], accuracy="standard", n_threads=1
        )
        values = plan.forward(coefficients[frame] * maps).reshape(maps.shape[0], -1, n_readout).transpose(0, 1)
        return spoke, values * (scale * weights[spoke, slot]).to(torch.float32)[:, None, None]

    samples = torch.zeros((n_spokes, maps.shape[0], n_readout), dtype=torch.complex64)
    for result in map_frames(measure, range(coefficients.shape[0])):
        if result is not None:
            samples.index_add_(0, *result)
    return samples
