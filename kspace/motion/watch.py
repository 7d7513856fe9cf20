"""Distrust while the scan runs: each batch of spokes is held against the images that were made before it came."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kspace.gating import assign_frames
from kspace.motion.detector import Detector, default_detector
from kspace.motion.evidence import Evidence, gather, sparks
from kspace.motion.features import self_navigation, spoke_features
from kspace.motion.navigator import Short
from kspace.scan import RadialScan, concatenate


class Watch:
    """What is known of the spokes of a slice so far.

    The evidence of a batch is gathered once, so that its price does not grow with the scan; spokes that a new R wave
    sorts into another frame are looked at again.

    Parameters
    ----------
    n_frames
        Cardiac phases.
    detector
        The shipped network by default.
    """

    def __init__(self, n_frames: int, detector: Detector | None = None) -> None:
        self.n_frames = n_frames
        self._detector = detector
        self._short: Short | None = None
        self._small: RadialScan | None = None
        self._evidence: Evidence | None = None
        self._frame = torch.zeros(0, dtype=torch.int64)
        self._noise_std = 1.0
        self.probability = torch.zeros(0)
        """(spoke,) of all spokes so far, in the order of time."""

    @property
    def time_s(self) -> Tensor:
        """(spoke,) instants."""
        return torch.zeros(0, dtype=torch.float64) if self._small is None else self._small.time_s

    def judge(self, batch: RadialScan, image: Tensor | None, maps: Tensor | None, *, noise_std: float) -> Tensor:
        """Take in a batch and return the (spoke,) probability of all spokes so far to be corrupted.

        Parameters
        ----------
        batch
            Whitened spokes, with the R waves up to now.
        image, maps
            (frame, y, x) and (coil, y, x) of the reconstruction before the batch; None at the first step, when only
            spikes and lost signal can be told.
        noise_std
            Of one whitened sample.
        """
        self._noise_std = noise_std
        if self._short is None:
            self._short = Short.of(batch)
        short = self._short
        small_image = None if image is None else short.image(image)
        small_maps = (
            torch.zeros((short.coils.shape[0], *short.matrix), dtype=batch.samples.dtype)
            if maps is None
            else short.maps(maps)
        )

        new = short.cut(batch)
        found = gather(
            new, assign_frames(batch, self.n_frames), small_image, small_maps, n_frames=self.n_frames,
            spark=sparks(batch),
        )  # fmt: skip
        if self._small is None or self._evidence is None:
            self._small, self._evidence = new, found
        else:
            self._small = concatenate([replace(self._small, ecg_s=batch.ecg_s), new])
            self._evidence = Evidence.join([self._evidence, found])
        frame = assign_frames(self._small, self.n_frames)
        moved = torch.nonzero(frame[: len(self._frame)] != self._frame)[:, 0]
        if len(moved) and small_image is not None:
            again = gather(
                self._small.select(moved), frame[moved], small_image, small_maps, n_frames=self.n_frames,
                spark=self._evidence.spark[moved],
            )  # fmt: skip
            self._evidence = self._evidence.replaced(moved, again)
        self._frame = frame
        features = spoke_features(self._evidence, frame, self._small.time_s, batch.ecg_s, noise_std=noise_std)
        self.probability = (self._detector or default_detector())(features)
        return self.probability

    def navigation_mm(self) -> tuple[Tensor, Tensor]:
        """Return how far body and heart have gone in the plane, two (spoke,) in mm."""
        if self._small is None or self._evidence is None:
            return torch.zeros(0), torch.zeros(0)
        moves = self_navigation(self._evidence, self._frame, noise_std=self._noise_std)
        _, dy, dx = self._small.geometry.spacing_mm
        body = ((moves[:, 0] * dy) ** 2 + (moves[:, 1] * dx) ** 2).sqrt()
        return body, ((moves[:, 3] * dy) ** 2 + (moves[:, 4] * dx) ** 2).sqrt()
