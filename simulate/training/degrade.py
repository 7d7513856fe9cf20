"""From a clean drawing to an image as a scanner might give it: shading, bands, blur, noise, artefacts, grey scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from simulate.exported import edge_filter
from simulate.training.randomise import Appearance


def smooth_field(size: int, cycles: float, generator: torch.Generator) -> Tensor:
    """Return a smooth random field (y, x) of about unit variance with up to so many cycles across; on the CPU."""
    n = max(2, round(2 * cycles) + 2)
    coarse = torch.randn(1, 1, n, n, generator=generator)
    fine: Tensor = interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)[0, 0]
    return fine * 1.2


def degraded(images: Tensor, blood: Tensor, look: Appearance, margin: int = 0) -> Tensor:
    """Return what a scanner makes of clean images.

    Parameters
    ----------
    images
        (frame, y, x) real, blood or wall about 1.
    blood
        (frame, y, x) share of blood.
    look
        How it looks.
    margin
        Pixels on each side that are cut off after all that wraps around.

    Returns
    -------
    (frame, y - 2 margin, x - 2 margin) float32, on the images' device.
    """
    generator = torch.Generator().manual_seed(look.seed)
    n_frames, size, _ = images.shape
    device, width = images.device, size * look.pixel_mm
    if look.jet > 0:
        images = images * (1 - look.jet * blood * _jets(size, n_frames, generator).to(device))
    gain = torch.exp(look.shading * smooth_field(size, width / look.shading_mm, generator))
    across = torch.linspace(-1, 1, size)
    ramp = math.cos(look.coil_rad) * across[None, :] + math.sin(look.coil_rad) * across[:, None]
    gain = gain * torch.exp(look.coil_pull * 0.5 * (ramp + 0.4 * ramp**2))
    if look.band > 0:
        gain = gain * _bands(size, width, look, generator)
    if look.fold > 0:
        images = images + look.fold * torch.roll(images, (int(0.7 * size), 0), (1, 2)) * _edge_ramp(size, device)
    images = images * gain.to(device)
    if look.ghost > 0:
        images = images + look.ghost * _ghosts(images, look.ghost_period)
    phase = 0.8 * smooth_field(size, 0.8, generator)
    spectra = _fft(torch.polar(images, phase.to(device).expand_as(images)))
    noise = torch.randn(n_frames, size, size, 2, generator=generator)
    spectra = spectra + torch.view_as_complex(noise).to(device) * (size / look.snr)
    if look.spike > 0:
        row, column = (int(v) for v in torch.randint(size // 5, 4 * size // 5, (2,), generator=generator))
        spectra[:, row, column] += look.spike * float(images.abs().mean()) * size * size
    if look.spokes_share < 1:
        spectra = spectra * _spokes(n_frames, size, look.spokes_share, generator).to(device)
    images = _ifft(spectra * _resolution(size, look).to(device)).abs()
    inner = slice(margin, size - margin)
    return _grey(images[:, inner, inner], look)


def _fft(images: Tensor) -> Tensor:
    shifted = torch.fft.fft2(torch.fft.ifftshift(images, dim=(-2, -1)))
    result: Tensor = torch.fft.fftshift(shifted, dim=(-2, -1))
    return result


def _ifft(spectra: Tensor) -> Tensor:
    shifted = torch.fft.ifft2(torch.fft.ifftshift(spectra, dim=(-2, -1)))
    result: Tensor = torch.fft.fftshift(shifted, dim=(-2, -1))
    return result


def _resolution(size: int, look: Appearance) -> Tensor:
    """Return the share of k-space (y, x) that is acquired, with the scanner's filter on it."""
    kept = [max(8, min(size, 2 * round(size * look.pixel_mm / mm / 2))) for mm in look.acquired_mm]
    mask = torch.zeros(size, size)
    rows, columns = (slice(size // 2 - n // 2, size // 2 - n // 2 + n) for n in kept)
    mask[rows, columns] = edge_filter((kept[0], kept[1]), look.edge_gain, look.taper)
    return mask


def _jets(size: int, n_frames: int, generator: torch.Generator) -> Tensor:
    """Return spots (frame, y, x) in [0, 1] that come and go within a third of the beat."""
    spots = torch.sigmoid(3 * (smooth_field(size, 4.0, generator) - 1))
    at = float(torch.rand((), generator=generator))
    away = (torch.arange(n_frames) / n_frames - at + 0.5) % 1 - 0.5
    return spots * torch.exp(-((away / 0.12) ** 2))[:, None, None]


def _bands(size: int, width_mm: float, look: Appearance, generator: torch.Generator) -> Tensor:
    """Return (y, x) in [0, 1]: the dark bands of a balanced sequence over a smooth, sloping field."""
    field = smooth_field(size, 1.2, generator)
    angle = float(torch.rand((), generator=generator)) * 2 * math.pi
    across = torch.linspace(-0.5, 0.5, size) * width_mm / look.band_mm
    slope = math.cos(angle) * across[None, :] + math.sin(angle) * across[:, None]
    turn = math.pi * (slope + 0.35 * field + float(torch.rand((), generator=generator)))
    return 1 - look.band * torch.exp(-((torch.cos(turn) / 0.22) ** 2))


def _edge_ramp(size: int, device: torch.device) -> Tensor:
    rows = torch.linspace(1, -2, size, device=device).clamp(0, 1)
    return rows[:, None]


def _ghosts(images: Tensor, period: int) -> Tensor:
    """Return copies (frame, y, x) of what moves, displaced along the rows by a share of the field of view."""
    moving = images - images.mean(0)
    shift = images.shape[1] // period
    return torch.roll(moving, shift, 1) + torch.roll(moving, -shift, 1)


def _spokes(n_frames: int, size: int, share: float, generator: torch.Generator) -> Tensor:
    """Return (frame, y, x): k-space on golden-angle spokes, a share of the Nyquist number, with the rest left out.

    Each cell of the grid has the number of spokes through it, at most the full density, over that density: a crude
    gridding that leaves a radial scan's streaks.
    """
    spokes = max(8, round(share * math.pi / 2 * size))
    first = float(torch.rand((), generator=generator)) * math.pi
    number = torch.arange(n_frames * spokes).reshape(n_frames, spokes)
    angles = first + number * (math.pi * (math.sqrt(5) - 1) / 2)
    radius = torch.arange(-size // 2, size // 2) + 0.25
    row = (size // 2 + radius * torch.sin(angles)[..., None]).round().long().clamp(0, size - 1)
    column = (size // 2 + radius * torch.cos(angles)[..., None]).round().long().clamp(0, size - 1)
    count = torch.zeros(n_frames, size * size)
    count.scatter_add_(1, (row * size + column).flatten(1), torch.ones(n_frames, spokes * size))
    place = torch.arange(size) - size // 2
    distance = torch.hypot(place[:, None].float(), place[None].float()).clamp_min(1.0)
    expected = (spokes / (math.pi * distance)).clamp(max=1e9)
    weight = count.reshape(n_frames, size, size) / expected
    seen = count.reshape(n_frames, size, size) > 0
    return torch.where(expected >= 1, seen.float(), weight.clamp(max=min(1.0 / share, 4.0))) * (distance <= size / 2)


def _grey(images: Tensor, look: Appearance) -> Tensor:
    """Apply clipping, gamma, a negative and blank borders to (frame, y, x) magnitudes."""
    flat = images.flatten()
    top = torch.quantile(flat[:: max(1, flat.numel() // 100_000)], look.clip).clamp_min(1e-6)
    images = (images / top).clamp(0, 1) ** look.gamma
    if look.negative:
        images = 1 - images
    size = images.shape[-1]
    above, below, left, right = look.border_px
    blank = torch.zeros(size, size, dtype=torch.bool, device=images.device)
    blank[:above], blank[size - below :], blank[:, :left], blank[:, size - right :] = True, True, True, True
    if look.round_view:
        place = torch.linspace(-1, 1, size, device=images.device)
        blank |= place[:, None] ** 2 + place**2 > 1.15
    return images.masked_fill(blank, 0.0)
