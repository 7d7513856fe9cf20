"""What a scanner would export of a virtual patient: a fully sampled cine of magnitudes, as DICOM files hold it.

The beating body is averaged over each phase's acquisition window, limited to the acquired matrix, given complex noise,
filtered, interpolated in time and by zero-filling, shaded by what the scanner's normalisation left, and scaled to the
range of 12-bit integers. All of it is synthetic; one seed, one cine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, one_hot

from kspace.errors import InputError, UsageError
from kspace.scan import Cine, Geometry
from kspace.segment.maps import likeliest
from simulate.body import BodyState
from simulate.magnet import ChestArray, MagnetSignals
from simulate.patient.anatomy import PatientBody
from simulate.patient.parameters import Patient
from simulate.patient.placement import short_axis_geometry
from simulate.signal import BalancedSequence
from simulate.vendors import Vendor, sharpness_filter

_LINE_S = 3e-3  # a line of k-space
_MOST_SQUARED = 12  # elements of an array that lie over the heart and are switched on: this simulator's choice
_PER_WINDOW = 2  # states of the heart that are averaged over the acquisition of one phase


@dataclass(frozen=True)
class ExportStyle:
    """How a cine is acquired and what the scanner makes of it.

    Parameters
    ----------
    n_frames
        Phases that are exported.
    matrix
        Rows and columns that are exported, of the body's field of view.
    acquired_mm
        Resolution along the columns, in mm.
    phase_share
        Resolution along the rows over that along the columns, at most 1.
    window_s
        Time over which one phase is acquired, in seconds; exported phases are interpolated between acquired ones.
    trigger_s
        Time from end-diastole to the start of the first phase: when the R wave is noticed.
    snr
        Of resting blood at the heart: its signal over the standard deviation of the real part, in the acquired matrix.
    n_coils, coil_mm
        Loops on the chest and their radius.
    normalised
        How much of the loops' shading is taken out, from 0 (none) to 1 (all).
    edge_gain
        Of the sharpness filter at the edge of k-space.
    taper
        Share of k-space's radius over which it is faded out against ringing.
    rotation_rad
        Of the field of view in its plane.
    round_view
        Whether all outside the disc that the field of view encloses is blank.
    unrest
        Relative change of the signal from one heartbeat's lines to the next's: flow, breath and eddy currents, which
        leave faint ghosts along the rows.
    peak
        Exported value of the 99.5th percentile.
    n_squared
        Channels that are combined as the root of the sum of their squares, whose noise adds up where nothing shines:
        about sqrt(2 n) standard deviations. 1 is a combination by the sensitivities, in phase.
    thickness_mm
        Of a slice; slices lie as far apart as the vendor's, or as they are thick.

    Raises
    ------
    UsageError
        When a number is out of range.
    """

    n_frames: int = 20
    matrix: int = 256
    acquired_mm: float = 1.8
    phase_share: float = 0.85
    window_s: float = 0.045
    trigger_s: float = 0.02
    snr: float = 30.0
    n_coils: int = 16
    coil_mm: float = 55.0
    normalised: float = 0.6
    edge_gain: float = 1.0
    taper: float = 0.15
    rotation_rad: float = 0.0
    round_view: bool = False
    unrest: float = 0.01
    peak: float = 600.0
    n_squared: int = 1
    thickness_mm: float = 8.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("n_frames", 1, 200), ("matrix", 8, 1024), ("acquired_mm", 0.5, 10), ("phase_share", 0.2, 1),
            ("window_s", 0.005, 0.5), ("trigger_s", -0.2, 0.5), ("snr", 0.5, math.inf), ("n_coils", 1, 64),
            ("coil_mm", 10, 150), ("normalised", 0, 1), ("edge_gain", 0.05, 3), ("taper", 0, 1), ("unrest", 0, 0.5),
            ("peak", 1, 65000), ("n_squared", 1, 64), ("thickness_mm", 2, 20),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"the style's {name} is {getattr(self, name)}", expected=f"{low} to {high}")


def draw_style(vendor: Vendor, seed: int) -> ExportStyle:
    """Draw a style around a vendor's preset.

    Published protocols: 1.6 to 2.2 mm acquired (Kramer et al., JCMR 22:17, 2020), 70 to 100 % of it in the phase
    direction, at most 45 ms a phase, longer in older ones (Kramer et al., JCMR 15:91, 2013); slices of 6 to 8 mm, in
    collections from many sites up to 10 (Campello et al., IEEE Trans Med Imaging 40:3543, 2021). SNR of blood at 1.5 T
    and 3 T, 20 to 80, less with parallel imaging: Gutberlet et al., Magn Reson Imaging 24:421, 2006.
    """
    rng = np.random.default_rng([seed, 420])
    strong = vendor.field_t / 1.5
    return ExportStyle(
        n_frames=int(rng.choice([20, 25, 30])),
        matrix=256 if vendor.matrix < 208 else int(rng.choice([vendor.matrix, 256])),
        acquired_mm=float(vendor.pixel_mm * rng.uniform(0.88, 1.2)),
        phase_share=float(rng.uniform(0.7, 1.0)),
        window_s=float(rng.uniform(0.028, 0.060)),
        trigger_s=float(rng.uniform(0.0, 0.07)),
        snr=float(np.exp(rng.uniform(math.log(12), math.log(70))) * strong**0.5),
        n_coils=vendor.n_coils,
        coil_mm=float(rng.uniform(40, 75)),
        normalised=float(rng.choice([0.0, rng.uniform(0.2, 0.9)], p=[0.35, 0.65])),
        edge_gain=float(np.clip(vendor.edge_gain * np.exp(rng.normal(0, 0.15)), 0.4, 1.8)),
        taper=float(rng.uniform(0.0, 0.4)),
        rotation_rad=float(rng.choice([0.0, rng.normal(0, 0.5)])),
        round_view=bool(vendor.name.startswith("ge") and rng.random() < 0.5),
        unrest=float(rng.uniform(0.0, 0.04)),
        peak=float(np.exp(rng.uniform(math.log(250), math.log(2500)))),
        n_squared=int(rng.choice([1, min(vendor.n_coils, _MOST_SQUARED)])),
        thickness_mm=float(rng.uniform(6.0, 10.0)),
    )


def draw_sequence(vendor: Vendor, seed: int) -> BalancedSequence:
    """Draw a sequence around a vendor's: TR by a tenth, as the field of view asks; flip angle, as heating allows."""
    rng = np.random.default_rng([seed, 421])
    tr_s = float(vendor.tr_s * np.exp(rng.uniform(-0.08, 0.12)))
    flip = float(np.clip(vendor.flip_rad * np.exp(rng.uniform(-0.25, 0.15)), math.radians(30), math.radians(85)))
    return BalancedSequence(vendor.field_t, flip, tr_s, tr_s / 2)


def place_in_scanner(
    patient: Patient, sequence: BalancedSequence | Vendor, style: ExportStyle | None = None, *, seed: int = 0,
    field_of_view_mm: float = 360.0, pixel_mm: float = 1.25, thickness_mm: float = 8.0, gap_mm: float = 2.0,
    planes: int = 3,
) -> PatientBody:  # fmt: skip
    """Return a patient's body on a fine grid, with the signals of a scanner.

    Parameters
    ----------
    patient
        Who it is.
    sequence
        A sequence, or a vendor whose field of view and slices are used, with a sequence drawn around its own.
    style
        For the rotation of its field of view and, with a vendor, the thickness of slices.
    seed
        Of the scanner's fields.
    field_of_view_mm, thickness_mm, gap_mm
        Used where no vendor says.
    pixel_mm
        Of the fine grid on which the body is drawn.
    planes
        Drawn through the thickness of a slice.
    """
    if isinstance(sequence, Vendor):
        field_of_view_mm = sequence.field_of_view_mm
        thickness_mm, gap_mm = sequence.slice_thickness_mm, sequence.slice_gap_mm
        if style is not None:
            gap_mm = max(0.0, thickness_mm + gap_mm - style.thickness_mm)
            thickness_mm = style.thickness_mm
        sequence = draw_sequence(sequence, seed)
    n = round(field_of_view_mm / pixel_mm / 2) * 2
    geometry = short_axis_geometry(
        patient, rows=n, columns=n, pixel_mm=field_of_view_mm / n, thickness_mm=thickness_mm, gap_mm=gap_mm
    )
    if style is not None and style.rotation_rad:
        geometry = turned(geometry, style.rotation_rad)
    fresh = float(np.random.default_rng([patient.seed, 430, seed]).uniform(0.1, 0.5))
    signals = MagnetSignals(patient, geometry, sequence, fresh=fresh, seed=seed)
    return PatientBody(patient, geometry, signals=signals, planes=planes, cached_slices=2)


def turned(geometry: Geometry, angle_rad: float) -> Geometry:
    """Return a geometry turned in its plane about the pixel ``N // 2``, from its columns towards its rows."""
    affine = geometry.affine.copy()
    _, dy, dx = geometry.spacing_mm
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    along, down = affine[:3, 0] / dx, affine[:3, 1] / dy
    middle = np.array([geometry.shape[2] // 2, geometry.shape[1] // 2, 0, 1.0])
    before = affine @ middle
    affine[:3, 0], affine[:3, 1] = dx * (c * along + s * down), dy * (c * down - s * along)
    affine[:3, 3] += (before - affine @ middle)[:3]
    return Geometry(geometry.shape, affine, geometry.slice_thickness_mm)


def exported_cine(
    body: PatientBody, style: ExportStyle | None = None, *, slices: Sequence[int] | None = None, seed: int = 0
) -> tuple[Cine, Tensor]:
    """Return what a scanner would export, with the truth.

    Parameters
    ----------
    body
        The patient in the scanner, on a grid finer than the acquired one.
    style
        How it is acquired and exported.
    slices
        Which slices, evenly spaced; all by default.
    seed
        Of the noise.

    Returns
    -------
    The cine (slice, frame, y, x), float32 of whole numbers, and labels of the same shape, uint8.

    Raises
    ------
    InputError
        When the body's grid is not finer than what is acquired.
    """
    style = style or ExportStyle()
    chosen = list(range(body.geometry.shape[0])) if slices is None else [int(k) for k in slices]
    geometry = body.geometry.select_slices(chosen).with_matrix(style.matrix, style.matrix)
    _, dy, dx = body.geometry.spacing_mm
    if style.acquired_mm < max(dy, dx):
        raise InputError(
            f"the body's pixels of {max(dy, dx):.2f} mm are no finer than {style.acquired_mm:.2f} mm, what is acquired",
            expected="a finer body",
        )
    phases = (torch.arange(style.n_frames) + 0.5) / style.n_frames + style.trigger_s / body.patient.rr_s
    level = _blood_level(body)
    images = torch.stack([_export_slice(body, style, k, phases, level, seed) for k in chosen])
    top = torch.quantile(images.flatten()[:: max(1, images.numel() // 1_000_000)], 0.995)
    images = (images * (style.peak / top.clamp_min(1e-12))).round_()
    labels = torch.stack(
        [
            labels_on(
                torch.stack([body.labels(k, BodyState(float(p) % 1)) for p in phases]), (style.matrix, style.matrix)
            )
            for k in chosen
        ]
    )
    return Cine(images, geometry, body.patient.rr_s, "a virtual patient"), labels


def labels_on(labels: Tensor, matrix: tuple[int, int]) -> Tensor:
    """Return (frame, y, x) labels on another matrix of the same field of view, the winner of linear interpolation."""
    rows, columns = labels.shape[-2:]
    y, x = (
        (torch.arange(n, device=labels.device) - n // 2) * (full / n) + full // 2
        for n, full in ((matrix[0], rows), (matrix[1], columns))
    )
    at = torch.stack(torch.meshgrid(2 * y / (rows - 1) - 1, 2 * x / (columns - 1) - 1, indexing="ij"), -1).flip(-1)
    shares = one_hot(labels.long(), 4).movedim(-1, 1).float()
    there = grid_sample(
        shares, at[None].expand(len(labels), -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=True
    )
    return likeliest(there)


def _export_slice(body: PatientBody, style: ExportStyle, index: int, phases: Tensor, level: float, seed: int) -> Tensor:
    """Return one slice (frame, y, x), of arbitrary scale."""
    rr = body.patient.rr_s
    n_acquired = int(np.clip(round(rr / style.window_s), 6, 60))
    generator = torch.Generator().manual_seed((seed * 1_000_003 + body.patient.seed * 1009 + index) % (2**63))
    array = ChestArray(style.n_coils, style.coil_mm, seed=seed)
    shading = array.shading(body.patient, body.geometry, index)
    spectra = []
    for phase in range(n_acquired):
        states = [BodyState(((phase + (s + 0.5) / _PER_WINDOW) / n_acquired) % 1) for s in range(_PER_WINDOW)]
        image = torch.stack([body.image(index, state) for state in states]).mean(0)
        spectra.append(acquired_spectrum(image.cpu() * shading, style, body.geometry))
    acquired = torch.stack(spectra)
    if style.unrest > 0:
        acquired = acquired * _unrest(style, acquired.shape[0], acquired.shape[1], generator)
    sigma = level / style.snr / math.sqrt(acquired[0].numel())
    noise = torch.randn((*acquired.shape, 2), generator=generator)
    acquired = acquired + sigma * torch.view_as_complex(noise)
    acquired = acquired * edge_filter((acquired.shape[-2], acquired.shape[-1]), style.edge_gain, style.taper)
    weights = circular_weights(phases, n_acquired)
    frames = torch.einsum("fa,ayx->fyx", weights.to(acquired.dtype), acquired)
    images = zero_filled(frames, (style.matrix, style.matrix)).abs()
    if style.n_squared > 1:
        images = (images.square() + _noise_power(style, weights, acquired.shape, sigma, generator)).sqrt_()
    flat = resized(shading, style.matrix)
    images = images / flat**style.normalised
    if style.round_view:
        place = torch.linspace(-1, 1, style.matrix)
        images = images * (place[:, None] ** 2 + place**2 <= 0.98**2)
    return images


def _noise_power(
    style: ExportStyle, weights: Tensor, shape: torch.Size, sigma: float, generator: torch.Generator
) -> Tensor:
    """Return what noise adds to the square of the magnitude (frame, y, x).

    White noise is white in any basis of the channels: one of them holds the signal with its noise, all others noise
    alone (Constantinides, Atalar and McVeigh, Magn Reson Med 38:852, 1997).
    """
    gain = edge_filter((shape[-2], shape[-1]), style.edge_gain, style.taper)
    power = torch.zeros(len(weights), style.matrix, style.matrix)
    for _ in range(style.n_squared - 1):
        noise = sigma * torch.view_as_complex(torch.randn((*shape, 2), generator=generator)) * gain
        frames = torch.einsum("fa,ayx->fyx", weights.to(noise.dtype), noise)
        there = torch.view_as_real(zero_filled(frames, (style.matrix, style.matrix)))
        power += there.square().sum(-1)
    return power


def _unrest(style: ExportStyle, n_acquired: int, rows: int, generator: torch.Generator) -> Tensor:
    """Return the factor of each line (acquired, y, 1): lines of one heartbeat share it."""
    per_beat = max(1, round(style.window_s / _LINE_S))
    beats = math.ceil(rows / per_beat)
    beat = torch.randn(1, beats, 2, generator=generator) + 0.7 * torch.randn(n_acquired, beats, 2, generator=generator)
    per_line = torch.view_as_complex(beat).repeat_interleave(per_beat, 1)[:, :rows, None]
    return 1 + style.unrest / 1.22 * per_line / math.sqrt(2)


def _blood_level(body: PatientBody) -> float:
    """Return the signal of the left ventricle's blood in the middle slice, at end-diastole and of unit shading."""
    middle = body.geometry.shape[0] // 2
    cavity = body.labels(middle, BodyState()) == 1
    image = body.image(middle, BodyState()).abs()
    return float(image[cavity].median()) if bool(cavity.any()) else float(image.max())


def acquired_spectrum(image: Tensor, style: ExportStyle, geometry: Geometry) -> Tensor:
    """Return the centred spectrum (y, x) of an image, cut to the acquired matrix; its value at 0 is the mean."""
    rows, columns = image.shape
    height, width = geometry.field_of_view_mm
    tall = min(rows, 2 * round(height * style.phase_share / style.acquired_mm / 2))
    wide = min(columns, 2 * round(width / style.acquired_mm / 2))
    spectrum = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image))) / image.numel()
    top, left = rows // 2 - tall // 2, columns // 2 - wide // 2
    kept: Tensor = spectrum[top : top + tall, left : left + wide]
    return kept


def zero_filled(spectra: Tensor, matrix: tuple[int, int]) -> Tensor:
    """Return complex images (..., y, x) on a matrix, of centred spectra that it may pad or cut."""
    rows, columns = spectra.shape[-2:]
    padded = torch.zeros((*spectra.shape[:-2], *matrix), dtype=spectra.dtype, device=spectra.device)
    tall, wide = min(rows, matrix[0]), min(columns, matrix[1])

    def middle(full: int, kept: int) -> slice:
        return slice(full // 2 - kept // 2, full // 2 - kept // 2 + kept)

    padded[..., middle(matrix[0], tall), middle(matrix[1], wide)] = spectra[
        ..., middle(rows, tall), middle(columns, wide)
    ]
    shifted = torch.fft.ifftshift(padded, dim=(-2, -1))
    images: Tensor = torch.fft.fftshift(torch.fft.ifft2(shifted), dim=(-2, -1)) * (matrix[0] * matrix[1])
    return images


def edge_filter(matrix: tuple[int, int], edge_gain: float, taper: float) -> Tensor:
    """Return the scanner's filter over k-space (y, x): sharpness, times a cosine fade at the edge of each axis."""
    gain = sharpness_filter(matrix, edge_gain)
    fades = []
    for n in matrix:
        radius = ((torch.arange(n) - n // 2) / (n / 2)).abs()
        inside = ((radius - (1 - taper)) / max(taper, 1e-6)).clamp(0, 1)
        fades.append(0.5 * (1 + torch.cos(math.pi * inside)) if taper > 0 else torch.ones(n))
    return gain * fades[0][:, None] * fades[1]


def circular_weights(phases: Tensor, n_acquired: int) -> Tensor:
    """Return (frame, acquired) weights of linear interpolation on the circle, from windows centred at (a + 0.5) / n."""
    place = (phases % 1) * n_acquired - 0.5
    low = torch.floor(place)
    share = (place - low).float()
    frames = torch.arange(len(phases))
    weights = torch.zeros(len(phases), n_acquired)
    weights[frames, (low.long()) % n_acquired] += 1 - share
    weights[frames, (low.long() + 1) % n_acquired] += share
    return weights


def resized(field: Tensor, matrix: int) -> Tensor:
    """Return a smooth (y, x) field on a square matrix of the same field of view."""
    result: Tensor = interpolate(field[None, None], size=(matrix, matrix), mode="bilinear", align_corners=False)
    return result[0, 0]
