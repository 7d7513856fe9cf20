"""The same corruptions for spokes simulated from a real magnitude cine, so that real hearts can be tested.

What a cine does not hold cannot be shown: breathing and ectopic beats are left to virtual patients. Phases are swapped
or mis-triggered by measuring another phase of the cine; a body that moves takes its coils along, which is easier to
undo than a body that moves under them; spikes and lost spokes are those of the virtual scanner.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kspace.coils import whiten, whitening_matrix
from kspace.errors import UsageError
from kspace.gating import cardiac_phase, frame_of_phase
from kspace.motion.rigid import Moves, undo
from kspace.scan import RadialScan
from kspace.trajectory import golden_angles, radial_positions
from simulate.corrupted_scans import CorruptedScan
from simulate.corruption import SpokeCorruption
from simulate.corruption_levels import Corruption
from simulate.events import BulkRotation, BulkShift, EcgJitter, Spike
from simulate.look_ahead import add_noise
from simulate.physiology import Heartbeats, smooth_phase_map
from simulate.scanner import SimulatedScanner, periodic_spline, sample_cine
from simulate.timeline import Timeline, spike_hits

CINE_KINDS = ("swapped", "mistrigger", "jitter", "shift", "rotate", "spike", "dropped")
"""Kinds that can be shown with a cine."""


def scan_cine(
    scanner: SimulatedScanner, index: int, corruption: Corruption | None, *, seconds: float = 4.0, n_frames: int = 20
) -> CorruptedScan:
    """Measure one slice of a cine with a corruption.

    Parameters
    ----------
    scanner
        The cine under the scanner.
    index
        Which slice.
    corruption
        What goes wrong; None for nothing.
    seconds, n_frames
        Of the scan.

    Raises
    ------
    UsageError
        When a cine cannot show the kind, or the scan is without noise.
    """
    if corruption is not None and corruption.kind not in CINE_KINDS:
        raise UsageError(f"a cine cannot show {corruption.kind!r}", expected=", ".join(CINE_KINDS))
    if scanner.noise_std <= 0:
        raise UsageError("a scan without noise", expected="a finite SNR")
    options, cine = scanner.options, scanner.cine
    images = cine.images[index]
    if not images.is_complex():
        images = images * smooth_phase_map((images.shape[-2], images.shape[-1]), seed=options.seed + index)
    n = int(seconds / options.tr_s)
    times = torch.arange(n, dtype=torch.float64) * options.tr_s
    rr_s = cine.slice_rr_s(index)
    events = () if corruption is None else corruption.events(seconds, rr_s, options.tr_s)
    rhythm = Heartbeats(mean_rr_s=rr_s, variability=options.rr_variability, seed=options.seed * 1000 + index)
    jitter = () if any(isinstance(event, EcgJitter) for event in events) else (EcgJitter(2e-3, seed=rhythm.seed),)
    timeline = Timeline(rhythm, (*events, *jitter))
    shown = cardiac_phase(times, rhythm.r_waves(seconds + 4.0))
    ecg_s = timeline.recorded_ecg(seconds)
    sorted_into = frame_of_phase(cardiac_phase(times, ecg_s), n_frames)
    frame = sorted_into if corruption is None else corruption.swap(sorted_into, n_frames)

    rows, columns = scanner.geometry.shape[1:]
    geometry = scanner.geometry.select_slices([index])
    _, dy, dx = geometry.spacing_mm
    shift_mm, turn = torch.zeros((n, 2), dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for event in events:
        if isinstance(event, BulkShift):
            shift_mm[times >= event.at_s] = torch.tensor([event.shift_mm[1], event.shift_mm[0]], dtype=torch.float64)
        elif isinstance(event, BulkRotation):
            turn[times >= event.at_s] = event.rotation_rad
    nominal = radial_positions(
        golden_angles(n, order=options.golden_order), round(max(rows, columns) * options.readout_oversampling)
    )
    shift = shift_mm / torch.tensor([dy, dx], dtype=torch.float64)
    empty = RadialScan(torch.zeros((n, 1, nominal.shape[1]), dtype=torch.complex64), nominal, times, geometry)
    seen = undo(empty, Moves(torch.zeros((n, 2)), turn)).positions  # where the body at rest is measured
    samples = sample_cine(periodic_spline(images.to(torch.complex64)), scanner.sensitivities[index], seen, shown,
                          (rows, columns))  # fmt: skip
    ramp = -2 * math.pi * (nominal.double() * shift[:, None]).sum(-1)
    samples = samples * torch.polar(torch.ones_like(ramp), ramp).to(samples.dtype)[:, None]
    dropped, spiked = timeline.spoilt(times, options.tr_s)
    samples[dropped] = 0
    add_noise(samples, scanner.covariance, torch.Generator().manual_seed(7919 * options.seed + index))
    n_readout = samples.shape[-1]
    for event in events:
        if isinstance(event, Spike):
            at = min(max(round(event.readout * n_readout) + n_readout // 2, 0), n_readout - 1)
            for spoke in torch.nonzero(spike_hits(event, times, options.tr_s)).flatten().tolist():
                samples[spoke, :, at] += event.size * samples[spoke].abs().max()
    raw = RadialScan(
        samples, nominal, times, geometry, ecg_s=ecg_s, noise_covariance=scanner.covariance, source=scanner.description
    )
    assert raw.noise_covariance is not None
    expected = torch.where(frame == sorted_into, cardiac_phase(times, ecg_s), (frame + 0.5) / n_frames)
    wrong = SpokeCorruption(
        filling=image_difference(images, shown, expected), breath_mm=torch.zeros(n, dtype=torch.float64),
        shift_mm=torch.linalg.vector_norm(shift_mm, dim=1), turn_rad=turn.abs(), spiked=spiked, dropped=dropped,
    )  # fmt: skip
    return CorruptedScan(whiten(raw), frame, wrong, n_frames, whitening_matrix(raw.noise_covariance))


def image_difference(images: Tensor, shown: Tensor, expected: Tensor) -> Tensor:
    """Return (spoke,): how far the image at one phase is from that at another, over the two most different of a cine.

    It stands in for the share of the stroke volume, which nobody knows of most frames.

    Parameters
    ----------
    images
        (frame, y, x).
    shown, expected
        (spoke,) phases in [0, 1).
    """
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(0)
    products = (flat @ flat.mH).real.double()
    squares = products.diagonal()
    apart = (squares[:, None] + squares - 2 * products).clamp_min(0).sqrt()
    apart = apart / apart.max().clamp_min(1e-30)
    # Frames of a real cine differ by noise too: what neighbours differ by counts for nothing.
    usual = torch.stack([apart.roll(step, 1).diagonal() for step in (-1, 1)]).mean()
    apart = ((apart - usual) / (1 - usual).clamp_min(1e-6)).clamp_min(0)
    first, second = (frame_of_phase(torch.remainder(phase, 1.0), len(images)) for phase in (shown, expected))
    return apart[first, second]
