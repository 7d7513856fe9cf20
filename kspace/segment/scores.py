"""How far labels are from an expert's: overlap, distance of the edges, flipped and missed pixels, volumes.

Experts draw two phases of twenty, and not every structure in both. A frame counts when the truth has any label in it,
and a structure counts in the frames in which the truth has that structure; what was never drawn is not scored.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kspace.biomarkers import BIOMARKERS, Measure, Missing, measure
from kspace.errors import InputError, ShapeError
from kspace.scan import Geometry
from kspace.segment.segmentation import FOREGROUND, Segmentation, Structure
from kspace.volume_curves import VolumeCurves, volume_curves

NAMES = {Structure.LV: "lv", Structure.MYOCARDIUM: "myocardium", Structure.RV: "rv"}
"""Of the structures, as keys."""


@dataclass(frozen=True)
class StructureScore:
    """One structure, frame by frame.

    Parameters
    ----------
    frames
        Those in which the truth has the structure; all else is in their order.
    dice
        2 |P and T| / (|P| + |T|) over all slices, 0 to 1.
    hd95_mm
        95th percentile of the distance from one surface to the other, the larger of both directions, over the whole
        stack with its distance of slices; in the plane where there is one slice. Infinite where the prediction has
        nothing.
    volume_ml, truth_ml
        Of prediction and truth, as :func:`kspace.volume_curves.volume_curves` counts; cm2 of a single slice.
    """

    frames: tuple[int, ...]
    dice: tuple[float, ...]
    hd95_mm: tuple[float, ...]
    volume_ml: tuple[float, ...]
    truth_ml: tuple[float, ...]


@dataclass(frozen=True)
class Flips:
    """Shares of the truth's foreground pixels; they sum to 1 (Achara et al., arXiv 2604.13326).

    Parameters
    ----------
    correct
        Labelled as the truth labels them.
    flipped
        Labelled as another structure.
    missed
        Labelled as background.
    """

    correct: float
    flipped: float
    missed: float


@dataclass(frozen=True)
class Scores:
    """A segmentation beside the truth.

    Parameters
    ----------
    structures
        Those that the truth has.
    flips
        Over the frames that the truth labels.
    errors
        Prediction minus truth for each of :data:`kspace.biomarkers.BIOMARKERS`, each side measured in its own
        end-diastole and end-systole; :class:`~kspace.biomarkers.Missing` where one side cannot be measured.
    """

    structures: Mapping[Structure, StructureScore]
    flips: Flips
    errors: Mapping[str, float | Missing]

    def mean_dice(self, structure: Structure) -> float:
        """Return the mean over the frames, NaN where the truth lacks the structure."""
        scored = self.structures.get(structure)
        return math.nan if scored is None else sum(scored.dice) / len(scored.dice)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for JSON, but for infinite distances, which JSON does not know and which stay floats."""
        return {
            "structures": {
                NAMES[structure]: {name: list(getattr(scored, name)) for name in StructureScore.__annotations__}
                for structure, scored in self.structures.items()
            },
            "flips": {"correct": self.flips.correct, "flipped": self.flips.flipped, "missed": self.flips.missed},
            "errors": {name: None if isinstance(e, Missing) else e for name, e in self.errors.items()},
            "errors_missing": {name: e.reason for name, e in self.errors.items() if isinstance(e, Missing)},
        }


def score(prediction: Segmentation | Tensor, truth: Tensor, geometry: Geometry) -> Scores:
    """Compare labels with the truth on the same grid.

    Parameters
    ----------
    prediction
        A segmentation, or its labels (slice, frame, y, x) uint8.
    truth
        (slice, frame, y, x) uint8, in this project's convention (:mod:`kspace.segment.conventions` maps others).
    geometry
        Of both.

    Raises
    ------
    ShapeError
        When the shapes differ from each other or from the geometry.
    InputError
        When the truth has no label at all.
    """
    positions = prediction.positions if isinstance(prediction, Segmentation) else None
    labels = prediction.labels if isinstance(prediction, Segmentation) else prediction
    if labels.shape != truth.shape:
        raise ShapeError("the truth", truth, f"the prediction's {tuple(labels.shape)}")
    labels, truth = labels.cpu(), truth.cpu()
    found, expected = volume_curves(labels, geometry, positions), volume_curves(truth, geometry)
    if not expected.drawn:
        raise InputError("the truth has no label in any frame", expected="at least one labelled phase")
    structures = {}
    for structure in FOREGROUND:
        frames = [frame for frame in range(truth.shape[1]) if bool((truth[:, frame] == structure).any())]
        if frames:
            structures[structure] = _structure(structure, frames, labels, truth, geometry, found, expected)
    return Scores(structures, flips(labels, truth), _errors(found, expected))


def dice(prediction: Tensor, truth: Tensor, structure: Structure) -> float:
    """Return the overlap of one structure in labels of any shape; NaN where neither side has it."""
    p, t = prediction == structure, truth == structure
    total = int(p.sum()) + int(t.sum())
    return 2 * int((p & t).sum()) / total if total else math.nan


def flips(prediction: Tensor, truth: Tensor) -> Flips:
    """Return what became of the truth's foreground pixels, in labels of any shape; NaN where it has none."""
    predicted, true = prediction[truth != 0], truth[truth != 0]
    if not len(true):
        return Flips(math.nan, math.nan, math.nan)
    correct, missed = (float(part.double().mean()) for part in (predicted == true, predicted == 0))
    return Flips(correct, float(((predicted != true) & (predicted != 0)).double().mean()), missed)


def hd95_mm(prediction: Tensor, truth: Tensor, spacing_mm: tuple[float, ...]) -> float:
    """Return the 95th percentile of the distance of two surfaces, the larger of both directions.

    Parameters
    ----------
    prediction, truth
        (y, x) or (slice, y, x) bool.
    spacing_mm
        Of their axes.

    Returns
    -------
        Millimetres; infinite where one side is empty, NaN where both are.
    """
    if not bool(prediction.any()) or not bool(truth.any()):
        return math.nan if bool(prediction.any()) == bool(truth.any()) else math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's, of what it calls itself
        from monai.metrics.hausdorff_distance import compute_hausdorff_distance  # takes seconds to import

        p, t = prediction[None, None].float(), truth[None, None].float()
        return float(compute_hausdorff_distance(p, t, include_background=True, percentile=95, spacing=spacing_mm))


def _structure(
    structure: Structure,
    frames: list[int],
    labels: Tensor,
    truth: Tensor,
    geometry: Geometry,
    found: VolumeCurves,
    expected: VolumeCurves,
) -> StructureScore:
    distances = []
    for frame in frames:
        p, t = labels[:, frame] == structure, truth[:, frame] == structure
        flat = len(p) == 1
        spacing = geometry.spacing_mm
        distances.append(hd95_mm(p[0], t[0], spacing[1:]) if flat else hd95_mm(p, t, spacing))
    volumes = found.of(structure).nan_to_num(0.0)
    return StructureScore(
        tuple(frames),
        tuple(dice(labels[:, frame], truth[:, frame], structure) for frame in frames),
        tuple(distances),
        tuple(float(volumes[frame]) for frame in frames),
        tuple(float(expected.of(structure)[frame]) for frame in frames),
    )


def _errors(found: VolumeCurves, expected: VolumeCurves) -> dict[str, float | Missing]:
    predicted, true = measure(found).measures, measure(expected).measures
    errors: dict[str, float | Missing] = {}
    for name in BIOMARKERS:
        p, t = predicted[name], true[name]
        if isinstance(p, Measure) and isinstance(t, Measure):
            errors[name] = p.value - t.value
        else:
            side, missing = ("truth", t) if isinstance(t, Missing) else ("prediction", p)
            errors[name] = Missing(f"in the {side}, {missing.reason if isinstance(missing, Missing) else ''}")
    return errors
