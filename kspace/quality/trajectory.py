"""How the quality of one patient's scan grows: all that any stopping policy may need, computed once and then kept.

Every slice is reconstructed, segmented and judged after each decision step up to the cap. As areas are kept slice by
slice, any combination of stopping times can be looked at afterwards without computing anything again.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kspace.errors import InputError, ShapeError
from kspace.segment.segmentation import FOREGROUND

Array = NDArray[np.float64]

SCORES = {
    "spokes_per_frame": "Mean number of spokes per cardiac phase",
    "image_change": "Change of the image since the last step, relative",
    "prediction_error": "Error with which the image of the step before foresaw the newest spokes, noise taken out",
    "held_out_over_noise": "Residual of held-out spokes over the noise",
    "reconstruction_spread": "Spread of reconstructions of parts of the spokes over the heart, relative",
    "distrusted_share": "Mean probability that a spoke so far is corrupted, from motion detection",
    "entropy": "Entropy of the labels' probabilities, mean over the pixels labelled as heart, nats",
    "flip_risk": "Entropy among the foreground labels, mean over labelled pixels and frames, nats",
    "betti_errors": "Wrong pieces and holes per frame, where the slice's position says what is right",
    "disagreement": "1 - mean Dice of the samples with the labels, over structures and frames",
    "label_change": "1 - mean Dice of the labels with those of the step before",
    "position_base": "Probability that the slice lies at the base",
    "position_middle": "Probability that it lies in the middle",
    "position_apex": "Probability that it lies at the apex",
}
"""Scores that need no truth, (step, slice) each; a trajectory may hold further ones, and lack some."""
TRUTH_SCORES = {
    "heart_nrmse": "NRMSE against the fully sampled truth in a box around the heart",
    "heart_ssim": "SSIM likewise",
    "dice_lv": "Dice against the reference labels, mean over frames",
    "dice_myocardium": "The same of the myocardium",
    "dice_rv": "The same of the RV",
    "exact_dice_lv": "Dice against the exact labels",
    "exact_dice_myocardium": "The same of the myocardium",
    "exact_dice_rv": "The same of the RV",
}
"""Scores that know the truth: no policy but the oracle may look at them."""
MAX_BYTES = 64 * 1024 * 1024
"""A larger record is no trajectory."""


@dataclass(frozen=True)
class Trajectory:
    """One patient's scan, judged after every step up to the cap.

    Parameters
    ----------
    patient
        A name that is unique in the cohort.
    group, sex, vendor
        Of the patient and the scanner, for audits; empty where not known.
    facts
        Whatever else is known: heart rate, breathing, events, protocol.
    seconds
        (step,) scan time of a slice after each decision, ascending; the last is the cap.
    spacing_mm
        From one slice to the next, gap included.
    areas_mm2
        (step, slice, structure, frame) of the labels drawn at that step, structures in the order of
        :data:`~kspace.segment.segmentation.FOREGROUND`; 0 in slices in which no heart was found.
    sample_areas_mm2
        (step, sample, slice, structure, frame), of what each network (or each look) would have drawn alone. May hold no
        samples.
    reference_areas_mm2
        (slice, structure, frame), of what the same networks draw on the fully sampled truth, as a complete scan would
        give it. Errors are judged against it (Machado et al., IEEE TBME 2023, did so too).
    exact_areas_mm2
        The same of exact labels, where there are some; NaN elsewhere.
    scores
        Of what can be known without a truth, (step, slice) each; NaN where it could not be told: see :data:`SCORES`.
    truth_scores
        Of what only a simulation knows, (step, slice) each: see :data:`TRUTH_SCORES`.

    Raises
    ------
    ShapeError
        When shapes do not fit.
    InputError
        When times do not ascend, or areas are not finite or negative.
    """

    patient: str
    seconds: Array
    spacing_mm: float
    areas_mm2: Array
    sample_areas_mm2: Array
    reference_areas_mm2: Array
    exact_areas_mm2: Array
    scores: Mapping[str, Array]
    truth_scores: Mapping[str, Array]
    group: str = ""
    sex: str = ""
    vendor: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.areas_mm2.ndim != 4 or self.areas_mm2.shape[2] != len(FOREGROUND) or min(self.areas_mm2.shape) < 1:
            raise ShapeError("the areas", self.areas_mm2, f"(step, slice, {len(FOREGROUND)}, frame), none empty")
        steps, slices, structures, frames = self.areas_mm2.shape
        samples = self.sample_areas_mm2.shape[1] if self.sample_areas_mm2.ndim == 5 else 0
        for name, value, expected in (
            ("the seconds", self.seconds, (steps,)),
            ("the samples' areas", self.sample_areas_mm2, (steps, samples, slices, structures, frames)),
            ("the reference areas", self.reference_areas_mm2, (slices, structures, frames)),
            ("the exact areas", self.exact_areas_mm2, (slices, structures, frames)),
            *((f"the score {name}", score, (steps, slices)) for name, score in self.scores.items()),
            *((f"the truth score {name}", score, (steps, slices)) for name, score in self.truth_scores.items()),
        ):
            if value.shape != expected:
                raise ShapeError(name, value, str(expected))
        if not (np.isfinite(self.seconds).all() and self.seconds[0] > 0 and (np.diff(self.seconds) > 0).all()):
            raise InputError(f"the times of {self.patient} do not ascend", expected="positive, ascending seconds")
        if not 0 < self.spacing_mm < np.inf:
            raise InputError(f"slices of {self.patient} lie {self.spacing_mm} mm apart", expected="a positive distance")
        for name, areas in (
            ("areas", self.areas_mm2),
            ("samples' areas", self.sample_areas_mm2),
            ("reference areas", self.reference_areas_mm2),
        ):
            if not (np.isfinite(areas).all() and (areas >= 0).all()):
                raise InputError(f"the {name} of {self.patient} are not all known", expected="finite, 0 or more")

    @property
    def n_steps(self) -> int:
        """Decisions up to the cap."""
        return len(self.seconds)

    @property
    def n_slices(self) -> int:
        """Slices of the stack."""
        return int(self.areas_mm2.shape[1])

    @property
    def n_frames(self) -> int:
        """Cardiac phases."""
        return int(self.areas_mm2.shape[3])

    @property
    def n_samples(self) -> int:
        """Samples of the labels."""
        return int(self.sample_areas_mm2.shape[1])

    def to_bytes(self) -> bytes:
        """Return it as a compressed NumPy archive, in float32; see :meth:`from_bytes`."""
        header = {
            "patient": self.patient, "spacing_mm": self.spacing_mm, "group": self.group, "sex": self.sex,
            "vendor": self.vendor, "facts": dict(self.facts), "scores": list(self.scores),
            "truth_scores": list(self.truth_scores),
        }  # fmt: skip
        arrays: dict[str, NDArray[Any]] = {
            "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
            "seconds": self.seconds,
        }
        for name in _AREAS:
            arrays[name] = np.asarray(getattr(self, name), dtype=np.float32)
        for kind in ("scores", "truth_scores"):
            values = getattr(self, kind).values()
            arrays[kind] = np.array(list(values), dtype=np.float32).reshape(len(values), self.n_steps, self.n_slices)
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        return stream.getvalue()

    @staticmethod
    def from_bytes(content: bytes) -> Trajectory:
        """Read what :meth:`to_bytes` wrote.

        Raises
        ------
        InputError
            When it is no such archive, or holds no trajectory. Nothing in it can run.
        """
        if len(content) > MAX_BYTES:
            raise InputError(f"a record of {len(content)} bytes", expected=f"a trajectory, at most {MAX_BYTES}")
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as parts:
                if sum(part.file_size for part in parts.infolist()) > 8 * MAX_BYTES:
                    raise ValueError("it is too large unpacked")
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                header = json.loads(archive["header"].tobytes())
                areas = {name: archive[name].astype(np.float64) for name in _AREAS}
                scores = {
                    kind: dict(zip(header[kind], archive[kind].astype(np.float64), strict=True))
                    for kind in ("scores", "truth_scores")
                }
                return Trajectory(
                    patient=str(header["patient"]), seconds=archive["seconds"].astype(np.float64),
                    spacing_mm=float(header["spacing_mm"]), group=str(header["group"]), sex=str(header["sex"]),
                    vendor=str(header["vendor"]), facts={str(k): str(v) for k, v in header["facts"].items()},
                    scores=scores["scores"], truth_scores=scores["truth_scores"], **areas,
                )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"the record is no trajectory ({error})", expected="what Trajectory.to_bytes wrote") from (
                error
            )


_AREAS = ("areas_mm2", "sample_areas_mm2", "reference_areas_mm2", "exact_areas_mm2")
