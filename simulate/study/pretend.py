"""Patients that nobody scans: areas that approach a reference as noise averages out. They try the engine, not medicine.

A study with the method ``pretend`` costs milliseconds a patient: to see that a cluster works, that a killed study goes
on, and what a page will look like. Its page says what it is.
"""

from __future__ import annotations

import time

import numpy as np

from kspace.quality.trajectory import Trajectory
from kspace.segment.segmentation import FOREGROUND
from simulate.study.protocol import PRETEND, Protocol, Who

_NAMES = ("lv", "myocardium", "rv")
_COST_S = 0.02  # a patient that costs nothing could not be killed halfway


def pretended_trajectory(protocol: Protocol, who: Who) -> Trajectory:
    """Return a trajectory drawn at random; the same patient has the same."""
    time.sleep(_COST_S)
    rng = np.random.default_rng([who.seed, 910])
    steps, slices, frames = len(protocol.seconds), protocol.n_slices, protocol.frames
    seconds = np.array(protocol.seconds)
    size = rng.uniform(900, 1800) * np.linspace(1.1, 0.5, slices)
    ef = {"normal": 0.6, "hypertrophic": 0.68, "dilated": 0.28, "infarct": 0.32}.get(who.group.value, 0.55)
    ef = float(np.clip(ef + rng.normal(0, 0.05), 0.1, 0.85))
    beat = 1 - ef * np.sin(np.pi * (np.arange(frames) + 0.5) / frames) ** 2
    parts = np.array([1.0, 0.9, 1.1])[:, None] * np.stack([beat, np.ones(frames), beat])
    reference = size[:, None, None] * parts[None]
    wrong = rng.lognormal(0, 0.4) * 10 / who.snr / np.sqrt(seconds)
    bias = rng.normal(-0.05, 0.04, (slices, len(FOREGROUND), 1))
    areas = reference * (1 + wrong[:, None, None, None] * (bias + rng.normal(0, 0.03, (steps, *reference.shape))))
    shape = (steps, protocol.members, *reference.shape)
    samples = areas[:, None] * (1 + wrong[:, None, None, None, None] * rng.normal(0, 0.04, shape))
    seen = wrong[:, None] * rng.lognormal(0, 0.2, (steps, slices))
    return Trajectory(
        patient=f"{protocol.digest[:6]}-{who.number:05d}", seconds=seconds, spacing_mm=18.0,
        areas_mm2=areas.clip(0), sample_areas_mm2=samples.clip(0), reference_areas_mm2=reference,
        exact_areas_mm2=reference,
        scores={
            "spokes_per_frame": np.repeat(seconds[:, None] * 8, slices, 1), "image_change": 0.1 * seen,
            "prediction_error": 0.15 * seen, "disagreement": 0.1 * seen, "flip_risk": 0.1 * seen, "entropy": 0.2 * seen,
        },
        truth_scores={
            "heart_nrmse": 0.15 * wrong[:, None].repeat(slices, 1), "heart_ssim": 1 - 0.1 * seen,
            **{f"{kind}_{name}": 1 - 0.05 * seen for kind in ("dice", "exact_dice") for name in _NAMES},
        },
        group=who.group.value, sex=str(rng.choice(["female", "male"])), vendor=who.vendor,
        facts={"number": str(who.number), "part": who.part.value, "synthetic": PRETEND, "snr": f"{who.snr:.2f}"},
    )  # fmt: skip
