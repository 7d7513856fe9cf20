"""Whether an audit by group shows what imbalance does: ``python -m bench.imbalanced_audit --out DIR``.

A small network learns from 600 hearts of which 97 % are normal; again from the same hearts, the rare groups repeated
until all are drawn equally often; and from 600 other hearts, 120 of each group, which tells what is the groups' own
difficulty. All are judged on the same test patients, each drawn once in every group with the same look, so that groups
differ by their disease alone. After Puyol-Anton et al., MICCAI 2021 (arXiv 2106.12387), whose groups were of race and
sex. All hearts are synthetic. The folder is gone on with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from kspace.formats.files import atomic_json
from kspace.segment.inputs import network_inputs
from kspace.segment.network import NetworkOptions, SegmentationNetwork
from kspace.segment.scores import dice
from kspace.segment.segmentation import FOREGROUND
from simulate.patient.parameters import Group
from simulate.training.checkpoint import load_tensors
from simulate.training.dataset import HeartOptions, Split
from simulate.training.heart_bank import HeartBank, StoredHeart, read_heart
from simulate.training.options import TrainingOptions
from simulate.training.randomise import Randomisation
from simulate.training.segment_task import SegmentTask
from simulate.training.trainer import train

WAYS = ("imbalanced", "oversampled", "balanced")
"""Of choosing what is learnt from."""


@dataclass(frozen=True)
class Audit:
    """How large it is.

    Parameters
    ----------
    hearts, rare
        To learn from, and how many of them are of each group that is not normal.
    test
        Patients to be judged on, each in every group.
    steps
        Of each training.
    network, options, randomisation
        The network, what it sees, and how much that varies: slices through the ventricle, not beside it.
    """

    hearts: int = 600
    rare: Mapping[Group, int] = field(
        default_factory=lambda: {
            Group.DILATED: 5, Group.HYPERTROPHIC: 5, Group.INFARCT: 4, Group.ABNORMAL_RV: 4,
        }
    )  # fmt: skip
    test: int = 40
    steps: int = 1200
    network: NetworkOptions = field(default_factory=lambda: NetworkOptions((8, 16, 32, 64)))
    options: HeartOptions = field(default_factory=lambda: HeartOptions(frames=4, size=64, pixel_mm=2.8))
    randomisation: Randomisation = field(default_factory=lambda: Randomisation(height=(0.1, 0.9), off_heart=0.0))

    def drawn(self, folder: Path, split: Split, group: Group, indices: range) -> list[Path]:
        """Return the files of patients in a group, drawn where they are not there."""
        bank = HeartBank(folder / "hearts" / group.value, replace(self.options, group=group), self.randomisation)
        bank.fill(split, indices)
        return [bank.path(split, index) for index in indices]

    def training_files(self, folder: Path, way: str) -> list[Path]:
        """Return what a way learns from; a file may stand in it more than once."""
        each = self.hearts // len(Group)
        if way == "balanced":
            counts = dict.fromkeys(Group, each)
        else:
            counts = {group: self.rare.get(group, 0) for group in Group}
            counts[Group.NORMAL] = self.hearts - sum(self.rare.values())
        files, first = [], self.hearts if way == "balanced" else 0
        for group, count in counts.items():
            some = self.drawn(folder, Split.TRAIN, group, range(first, first + count))
            first += count
            times = counts[Group.NORMAL] if way == "oversampled" else count
            files += [some[k % count] for k in range(times)]
        return files


def learnt(audit: Audit, folder: Path, way: str, seed: int) -> SegmentationNetwork:
    """Return a network that has learnt; a training that was broken off goes on.

    It is the network after the last step: a validation cohort, with whatever groups it has, chooses nothing.
    """
    torch.manual_seed(seed)
    network = SegmentationNetwork(audit.network)
    checked = audit.drawn(folder, Split.VALIDATION, Group.NORMAL, range(4))
    files = audit.training_files(folder, way)
    task = SegmentTask(network, files, checked, frames=2, seed=seed, name=f"{way}-{seed}")
    options = TrainingOptions(
        minutes=120, learning_rate=2e-3, weight_decay=1e-4, ema=0.99, max_steps=audit.steps,
        validate_every=audit.steps, final_share=0.01, seed=seed,
    )  # fmt: skip
    result = train(task, options, folder / f"{way}-{seed}")
    if result.weights is None:  # stopped before its end
        raise KeyboardInterrupt
    network.load_state_dict(load_tensors(result.weights)[0])
    return network.eval()


def judged(network: SegmentationNetwork, heart: StoredHeart) -> float:
    """Return the mean Dice coefficient of the structures that a slice has, over all its frames."""
    with torch.no_grad():
        drawn = network(network_inputs(heart.images))[0].argmax(1)
    return float(np.nanmean([dice(drawn, heart.labels, structure) for structure in FOREGROUND]))


def audited(audit: Audit, folder: Path, way: str, seed: int) -> dict[str, list[float]]:
    """Return the Dice coefficients of every group's test hearts, from the folder if they are there."""
    path = folder / f"{way}-{seed}.json"
    if not path.exists():
        network = learnt(audit, folder, way, seed)
        scores = {
            group.value: [
                judged(network, read_heart(file)) for file in audit.drawn(folder, Split.TEST, group, range(audit.test))
            ]
            for group in Group
        }
        atomic_json(path, scores)
    found: dict[str, list[float]] = json.loads(path.read_text())
    return found


def spread(means: Sequence[float]) -> tuple[float, float]:
    """Return the SD of the groups' mean Dice and the skewed error ratio, worst over best 1 - Dice."""
    return float(np.std(means)), (1 - min(means)) / (1 - max(means))


def table(results: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> Iterator[str]:
    """Yield one line a way of learning: means over its trainings, with their standard deviations."""
    yield "| Dice | " + " | ".join(group.value.replace("_", " ") for group in Group) + " | SD of groups | SER |"
    yield "| --- |" + " --- |" * (len(Group) + 2)
    for way, trainings in results.items():
        rows = []
        for scores in trainings:
            means = [float(np.mean(scores[group.value])) for group in Group]
            rows.append([*means, *spread(means)])
        mean, deviation = np.mean(rows, 0), np.std(rows, 0, ddof=1) if len(rows) > 1 else [None] * len(rows[0])
        digits = [3] * len(Group) + [4, 2]
        cells = [_cell(m, d, n) for m, d, n in zip(mean, deviation, digits, strict=True)]
        yield f"| {way} | " + " | ".join(cells) + " |"


def _cell(mean: float, deviation: float | None, digits: int) -> str:
    return f"{mean:.{digits}f}" if deviation is None else f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trainings", type=int, default=3, help="of each way, with other weights and order")
    parser.add_argument("--steps", type=int, default=Audit.steps)
    given = parser.parse_args()
    audit = Audit(steps=given.steps)
    results: dict[str, list[dict[str, list[float]]]] = {way: [] for way in WAYS}
    for seed in range(given.trainings):
        for way in WAYS:
            results[way].append(audited(audit, given.out, way, seed))
            print(way, seed, *(f"{group} {np.mean(d):.3f}" for group, d in results[way][-1].items()), flush=True)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
