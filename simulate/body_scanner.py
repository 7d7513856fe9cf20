"""The virtual scanner: what a multi-coil radial sequence measures of a body that beats, breathes and moves.

Every spoke sees the body at its own instant; what spokes share to make that cheap, and what sharing costs, stands in
:mod:`simulate.body_sampling`. Truth never leaves the simulation by itself: it is recorded beside the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kspace.errors import InputError, UsageError
from kspace.gating import cardiac_phase
from kspace.metrics import body_mask
from kspace.nufft import AccuracyName
from kspace.scan import Geometry, RadialScan
from kspace.trajectory import golden_angles, radial_positions
from simulate.body import Body, BodyState
from simulate.body_sampling import SliceSampler
from simulate.body_states import Sharing
from simulate.coils import loop_sensitivities, noise_covariance
from simulate.events import EcgJitter, Event, Spike
from simulate.lines import spoke_lines
from simulate.look_ahead import LookAhead, add_noise
from simulate.physiology import Heartbeats
from simulate.scanner import ScannerOptions, band_limited, enclosing_ellipse_mm, reconstruction_grid
from simulate.spoke_truth import Truth
from simulate.timeline import States, Timeline, spike_hits


@dataclass(frozen=True)
class BodyScannerOptions(ScannerOptions):
    """How the virtual scanner is set up; see also :class:`~simulate.scanner.ScannerOptions`.

    Parameters
    ----------
    gradient_delays
        (dx, dy, dxy) in samples of the readout, see :func:`simulate.lines.spoke_lines`: where spokes truly lie; their
        reported positions are the nominal ones. One or two tenths of a sample are usual.
    receive_shading
        How far the image is shaded by the array, as the exponent of the root sum of squares of the loops' fields: 0 for
        an image that was corrected for it, 1 for none.
    ecg_jitter_s
        Standard deviation of the detector's error, in seconds.
    n_phases, breath_step_mm, accuracy, exact
        See :class:`~simulate.body_states.Sharing`; ``exact`` shares nothing.
    """

    gradient_delays: tuple[float, float, float] = (0.0, 0.0, 0.0)
    receive_shading: float = 0.3
    ecg_jitter_s: float = 2e-3
    n_phases: int = 48
    breath_step_mm: float = 1.0
    accuracy: AccuracyName = "standard"
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.gradient_delays) != 3 or not all(abs(delay) <= 8 for delay in self.gradient_delays):
            raise UsageError(f"gradient delays of {self.gradient_delays}", expected="(dx, dy, dxy), within 8 samples")
        if not 0 <= self.receive_shading <= 1:
            raise UsageError(f"a receive shading of {self.receive_shading}", expected="0 to 1")
        if not 0 <= self.ecg_jitter_s <= 0.1:
            raise UsageError(f"an ECG jitter of {self.ecg_jitter_s} s", expected="0 to 0.1 s")
        if self.seed < 0:
            raise UsageError(f"a seed of {self.seed}", expected="0 or more")
        _ = self.sharing  # checks itself

    @property
    def sharing(self) -> Sharing:
        """How much spokes share."""
        return Sharing(self.n_phases, self.breath_step_mm, not self.exact, self.accuracy)


class BodyScanner:
    """A :class:`~simulate.source.SpokeSource` that measures a body.

    Parameters
    ----------
    body
        Who lies in the scanner.
    options
        The scanner's setting.
    rr_s
        Mean RR interval in seconds.
    end_systole
        The body's end-systolic phase in a beat of that length; None takes the mean of healthy people.
    events
        What happens in every slice, times from its first spoke. Without breathing among them the breath is held.
    timeline
        Given the index of a slice, returns its whole timeline, instead of ``rr_s``, ``end_systole`` and ``events``.
    description
        What is scanned, in words.

    Raises
    ------
    InputError
        When the reconstruction grid would not be coarser than the body's, or the body gives no signal.
    """

    synthetic = True
    n_frames = None

    def __init__(
        self,
        body: Body,
        options: BodyScannerOptions | None = None,
        *,
        rr_s: float = 0.9,
        end_systole: float | None = None,
        events: Sequence[Event] = (),
        timeline: Callable[[int], Timeline] | None = None,
        description: str = "a virtual patient",
    ) -> None:
        self.body = body
        self.options = options or BodyScannerOptions()
        self.rr_s = rr_s
        self.description = description
        self._end_systole, self._events, self._timeline = end_systole, tuple(events), timeline
        n_slices = body.geometry.shape[0]
        self.geometry: Geometry = reconstruction_grid(body.geometry, self.options.matrix)
        # The first, middle and last slice tell how large and how bright the body is.
        some = sorted({0, n_slices // 2, n_slices - 1})
        images = torch.stack([body.image(index, BodyState()).abs().cpu() for index in some])
        if not bool(torch.isfinite(images).all()) or not float(images.max()) > 0:
            raise InputError("the body gives no signal, or one that is not finite", expected="an image with signal")
        masks = torch.stack([body_mask(image[None]) & (image.max() > 0) for image in images])
        self._place_coils(masks.any(0))
        shading = torch.stack([self._field(index) for index in some]) ** self.options.receive_shading
        self._shade_unit = float(shading[masks].mean())
        level = float((images * shading)[masks].mean()) / self._shade_unit
        self.noise_std = 0.0 if math.isinf(self.options.snr) else level / self.options.snr

    @cached_property
    def covariance(self) -> Tensor:
        """(coil, coil) noise covariance of one sample."""
        variance = self.noise_std**2 * self.options.readout_oversampling
        return noise_covariance(self.options.n_coils, seed=self.options.seed) * variance

    def timeline(self, index: int) -> Timeline:
        """Return what happens during a slice."""
        if self._timeline is not None:
            return self._timeline(index)
        options = self.options
        rhythm = Heartbeats(self.rr_s, variability=options.rr_variability, seed=options.seed * 1000 + index)
        jitter = (EcgJitter(sd_s=options.ecg_jitter_s, seed=rhythm.seed),) if options.ecg_jitter_s > 0 else ()
        return Timeline(rhythm, (*self._events, *jitter), self._end_systole)

    def shading(self, index: int) -> Tensor:
        """Return (y, x) float32 by which the array brightens a slice; 1 on average inside the body."""
        return self._field(index) ** self.options.receive_shading / self._shade_unit

    def coil_maps(self, index: int) -> Tensor:
        """Return (coil, y, x) complex64 of a slice, on the body's grid: sensitivities of unit root sum of squares."""
        return self._loops(index, normalised=True)

    def open_slice(self, index: int) -> BodySlice:
        """Start the scan of one slice."""
        if not 0 <= index < self.body.geometry.shape[0]:
            raise InputError(f"there is no slice {index}", expected=f"0 to {self.body.geometry.shape[0] - 1}")
        return BodySlice(self, index)

    def _place_coils(self, body: Tensor) -> None:
        rows, columns = torch.nonzero(body, as_tuple=True)
        middle = (int(rows.min() + rows.max()) // 2, int(columns.min() + columns.max()) // 2)
        _, dy, dx = self.body.geometry.spacing_mm
        self._middle_mm = ((middle[1] - body.shape[1] // 2) * dx, (middle[0] - body.shape[0] // 2) * dy)
        self.torso_mm = enclosing_ellipse_mm(body, self.body.geometry, middle=middle)

    def _loops(self, index: int, *, normalised: bool) -> Tensor:
        return loop_sensitivities(
            self.body.geometry, self.options.n_coils, seed=self.options.seed, torso_mm=self.torso_mm,
            middle_mm=self._middle_mm, slices=[index], normalised=normalised,
        )[0]  # fmt: skip

    def _field(self, index: int) -> Tensor:
        return self._loops(index, normalised=False).abs().square().sum(0).sqrt()


class BodySlice:
    """A :class:`~simulate.source.SliceStream`; see :class:`BodyScanner`.

    Parameters
    ----------
    scanner
        The scanner.
    index
        Which slice.
    """

    def __init__(self, scanner: BodyScanner, index: int) -> None:
        self._scanner, self._options, self._index = scanner, scanner.options, index
        self.timeline = scanner.timeline(index)
        self.geometry = scanner.geometry.select_slices([index])
        self._matrix = (self.geometry.shape[1], self.geometry.shape[2])
        self._n_readout = round(max(self._matrix) * self._options.readout_oversampling)
        shade = scanner.shading(index)
        maps = scanner.coil_maps(index) * shade
        self._sampler = SliceSampler(scanner.body, index, maps, self.geometry, self._options.sharing)
        self._shade = shade.to(self._sampler.device)
        # One generator a slice: slices can be scanned in any order, and alone, with the same result.
        self._generator = torch.Generator().manual_seed(7919 * self._options.seed + index)
        self._spokes = LookAhead(self._options.tr_s, self._compute)
        self._n_given = 0

    def again(self, timeline: Timeline) -> BodySlice:
        """Return the slice before its first spoke, under another timeline; the states that were drawn are shared."""
        other = copy(self)
        other.timeline = timeline
        other._generator = torch.Generator().manual_seed(7919 * self._options.seed + self._index)
        other._spokes, other._n_given = LookAhead(self._options.tr_s, other._compute), 0
        return other

    def acquire(self, seconds: float) -> RadialScan:
        """Measure for so many seconds more; see :class:`~simulate.source.SliceStream`."""
        batch = self._spokes.take(seconds)
        self._n_given += batch.n_spokes
        now = self._spokes.now_s
        ecg_s = self.timeline.recorded_ecg(now)
        # The first R wave is known from the start: without it, spokes before it could not be gated at all.
        return replace(batch, ecg_s=ecg_s[: max(1, int((ecg_s <= now).sum()))])

    def truth(self, n_frames: int) -> Tensor:
        """Return (frame, y, x), the magnitude at each phase of a regular beat in the breath-hold position.

        Limited to the disc of k-space that spokes reach.
        """
        return torch.stack([band_limited(image * self._shade, self._matrix).abs() for image in self._images(n_frames)])

    def channel_truth(self, n_frames: int) -> Tensor:
        """Return (frame, coil, y, x) complex, what each channel of a perfect scan would show; see :meth:`truth`."""
        maps = self._scanner.coil_maps(self._index).to(self._shade.device) * self._shade
        return torch.stack([band_limited(image * maps, self._matrix) for image in self._images(n_frames)])

    def _images(self, n_frames: int) -> Iterator[Tensor]:
        """Yield the (y, x) images of a regular beat on the body's own grid."""
        states, still = self._sampler.states, self._sampler.states.still(0, 0.0)
        window = states.window(0, 0.0)
        for state in _regular(n_frames):
            image = still.clone()
            image[slice(*window.rows), slice(*window.columns)] = states.image(state, window)
            yield image

    def labels(self, n_frames: int) -> Tensor:
        """Return (frame, y, x) uint8 on the reconstruction grid, as :meth:`truth`: what most of each pixel is."""
        body = self._scanner.body
        return torch.stack([vote(body.labels(self._index, state), self._matrix) for state in _regular(n_frames)])

    def volumes_ml(self, n_frames: int) -> list[dict[str, float]] | None:
        """Return the exact volumes of the whole heart at each frame in mL; None where the body does not know them."""
        known: Any = getattr(self._scanner.body, "volumes_ml", None)
        return None if known is None else [dict(known(state)) for state in _regular(n_frames)]

    def spoke_truth(self) -> Truth:
        """Return what each spoke that was given out suffered."""
        times, states = self._states(0, self._n_given)
        dropped, spiked = self.timeline.spoilt(times, self._options.tr_s)
        last = float(times[-1]) if len(times) else 0.0
        waves, _ = self.timeline.beats(last)
        waves = waves[: int((waves <= last).sum()) + 1]
        return Truth(
            time_s=times,
            slice_index=torch.full(times.shape, self._index),
            beat=states.beat,
            phase=states.phase,
            gated_phase=cardiac_phase(times, self.timeline.recorded_ecg(last), default_rr_s=self._scanner.rr_s),
            stroke=states.stroke,
            breath_mm=states.breath_mm,
            shift_mm=states.shift_mm,
            rotation_rad=states.rotation_rad,
            dropped=dropped,
            spiked=spiked,
            r_waves=torch.stack((torch.full_like(waves, self._index), waves), dim=1),
        )

    def _states(self, first: int, last: int) -> tuple[Tensor, States]:
        times = torch.arange(first, last, dtype=torch.float64) * self._options.tr_s
        return times, self.timeline.at(times)

    def _compute(self, first: int, last: int) -> RadialScan:
        options, device = self._options, self._sampler.device
        times, states = self._states(first, last)
        soon = self.timeline.at(times + options.tr_s / 8)
        moving = (soon.shift_mm != states.shift_mm).any(1) | (soon.rotation_rad != states.rotation_rad)
        angles = golden_angles(last - first, start=first, order=options.golden_order)
        _, dy, dx = self.geometry.spacing_mm
        lines = spoke_lines(angles, (dy, dx), self._n_readout, options.gradient_delays)
        samples = self._sampler.sample(lines, self._n_readout, states, moving)
        dropped, _ = self.timeline.spoilt(times, options.tr_s)
        samples[dropped.to(device)] = 0
        noisy = self._scanner.noise_std > 0
        if noisy:
            add_noise(samples, self._scanner.covariance, self._generator)
        self._spark(samples, times)
        return RadialScan(
            samples=samples,
            positions=radial_positions(angles, self._n_readout).to(device),
            time_s=times.to(device),
            geometry=self.geometry,
            noise_covariance=self._scanner.covariance.to(device) if noisy else None,
            source=self._scanner.description,
        )

    def _spark(self, samples: Tensor, times: Tensor) -> None:
        for event in self.timeline.events:
            if isinstance(event, Spike):
                at = min(max(round(event.readout * self._n_readout) + self._n_readout // 2, 0), self._n_readout - 1)
                for spoke in torch.nonzero(spike_hits(event, times, self._options.tr_s)).flatten().tolist():
                    samples[spoke, :, at] += event.size * samples[spoke].abs().max()


def _regular(n_frames: int) -> list[BodyState]:
    """Return the states in the middle of each frame of a beat of the mean length, in the breath-hold position."""
    if n_frames < 1:
        raise UsageError(f"the number of frames is {n_frames}", expected="at least 1")
    return [BodyState(phase=(frame + 0.5) / n_frames) for frame in range(n_frames)]


def vote(labels: Tensor, matrix: tuple[int, int], *, subsamples: int = 4) -> Tensor:
    """Return labels on a coarser grid of the same field of view: in each pixel, the one that covers most of it.

    Parameters
    ----------
    labels
        (y, x) uint8.
    matrix
        (rows, columns) of the coarser grid; pixels ``N // 2`` of both coincide.
    subsamples
        Points per side of a pixel that vote.

    Returns
    -------
    (rows, columns) uint8. Equal votes go to the lower label.
    """
    offsets = (torch.arange(subsamples, dtype=torch.float64) + 0.5) / subsamples - 0.5
    at = []
    for fine, coarse in zip(labels.shape, matrix, strict=True):
        centres = torch.arange(coarse, dtype=torch.float64)[:, None] - coarse // 2 + offsets
        at.append((centres * (fine / coarse) + fine // 2).round().long().clamp(0, fine - 1).flatten().to(labels.device))
    votes = labels[at[0]][:, at[1]].reshape(matrix[0], subsamples, matrix[1], subsamples)
    kinds = torch.unique(votes)
    counts = torch.stack([(votes == kind).sum((1, 3)) for kind in kinds])
    chosen: Tensor = kinds[counts.argmax(0)]
    return chosen.to(torch.uint8)
