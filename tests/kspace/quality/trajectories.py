"""Random trajectories for tests: synthetic hearts whose areas come nearer to the reference as the scan goes on."""

from __future__ import annotations

import numpy as np

from kspace.quality.trajectory import Trajectory


def random_trajectory(
    seed: int = 0, *, steps: int = 8, slices: int = 5, frames: int = 10, samples: int = 3, noise: float = 0.3
) -> Trajectory:
    """Return a heart whose measured areas deviate by ``noise`` over the time, with scores that follow the deviation."""
    rng = np.random.default_rng(seed)
    seconds = 0.5 * np.arange(1, steps + 1)
    beat = 1 - 0.35 * np.sin(np.pi * np.arange(frames) / frames) ** 2
    size = rng.uniform(0.8, 1.2) * np.array([1600.0, 900.0, 1500.0])
    profile = np.sin(np.pi * (np.arange(slices) + 0.7) / (slices + 0.4)) + 0.1
    reference = profile[:, None, None] * size[:, None] * beat
    hardness = noise * rng.lognormal(0, 0.5, (1, slices, 1, 1))
    fall = hardness / seconds[:, None, None, None]
    errors = fall * rng.normal(size=(1, slices, 3, 1)) + 0.2 * fall * rng.normal(size=(steps, slices, 3, frames))
    areas = np.clip(reference * (1 + errors), 0, None)
    spread = fall[:, None] * rng.normal(size=(steps, samples, slices, 3, 1))
    sampled = np.clip(areas[:, None] * (1 + spread), 0, None)
    level = fall[:, :, 0, 0]
    return Trajectory(
        patient=f"random-{seed}",
        seconds=seconds,
        spacing_mm=10.0,
        areas_mm2=areas,
        sample_areas_mm2=sampled,
        reference_areas_mm2=reference,
        exact_areas_mm2=np.full_like(reference, np.nan),
        scores={
            "image_change": level * rng.lognormal(0, 0.2, level.shape),
            "disagreement": level * rng.lognormal(0, 0.2, level.shape),
            "spokes_per_frame": np.broadcast_to(16 * seconds[:, None], level.shape).copy(),
        },
        truth_scores={
            "heart_nrmse": level * rng.lognormal(0, 0.1, level.shape),
            "heart_ssim": 1 - level,
            **{
                name: 1 - share * level * rng.lognormal(0, 0.1, level.shape)
                for name, share in (("dice_lv", 0.8), ("dice_myocardium", 1.3), ("dice_rv", 1.1))
            },
        },
        group=("normal", "dilated")[seed % 2],
        facts={"kind": "synthetic"},
    )
