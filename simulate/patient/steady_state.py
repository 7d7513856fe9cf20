"""A minimal on-resonance balanced SSFP at 1.5 T, for a body that is given no other signal."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from simulate.tissues import N_TISSUES, Tissue

# T1 ms, T2 ms, proton density (Stanisz et al., Magn Reson Med 54:507, 2005; de Bazelaire et al., Radiology 230:652,
# 2004); lung is mostly air. Negative: fat, whose phase opposes that of water at TE = TR / 2.
_RELAXATION = {
    Tissue.LUNG: (1200.0, 40.0, 0.16),
    Tissue.FAT: (343.0, 58.0, -0.85),
    Tissue.MUSCLE: (1008.0, 44.0, 0.75),
    Tissue.SKIN: (900.0, 35.0, 0.60),
    Tissue.BONE: (1000.0, 1.0, 0.20),
    Tissue.MARROW: (549.0, 49.0, 0.50),
    Tissue.MYOCARDIUM: (1030.0, 40.0, 0.85),
    Tissue.ARTERIAL_BLOOD: (1441.0, 290.0, 0.95),
    Tissue.VENOUS_BLOOD: (1441.0, 220.0, 0.95),
    Tissue.PERICARDIUM: (1000.0, 20.0, 0.40),
    Tissue.LIVER: (576.0, 46.0, 0.70),
    Tissue.SPLEEN: (1057.0, 79.0, 0.80),
    Tissue.STOMACH: (1600.0, 90.0, 0.75),
    Tissue.CORD: (1000.0, 80.0, 0.70),
    Tissue.CSF: (4000.0, 2000.0, 0.65),
    Tissue.SCAR: (1080.0, 45.0, 0.85),
}


def default_signals(flip_rad: float = float(np.deg2rad(50.0)), tr_ms: float = 3.2) -> Tensor:
    """Return (N_TISSUES,) complex64 signals, arterial blood 1.

    Source: Freeman and Hill, J Magn Reson 4:366, 1971; Scheffler and Lehnhardt, Eur Radiol 13:2409, 2003.
    """
    values = np.zeros(N_TISSUES)
    for tissue, (t1, t2, density) in _RELAXATION.items():
        e1, e2 = np.exp(-tr_ms / t1), np.exp(-tr_ms / t2)
        steady = np.sin(flip_rad) * (1 - e1) / (1 - (e1 - e2) * np.cos(flip_rad) - e1 * e2)
        values[tissue] = density * steady * np.exp(-tr_ms / 2 / t2)
    return torch.from_numpy((values / values[Tissue.ARTERIAL_BLOOD]).astype(np.complex64))
