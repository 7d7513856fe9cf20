"""bench/imbalanced_audit.py from end to end on a few hearts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.imbalanced_audit import WAYS, Audit, audited, judged, spread, table
from kspace.segment.network import NetworkOptions, SegmentationNetwork
from kspace.segment.segmentation import SlicePosition
from simulate.patient.parameters import Group
from simulate.training.dataset import HeartOptions, SimulatedHearts, Split
from simulate.training.heart_bank import StoredHeart, read_heart

SMALL = Audit(
    hearts=10, rare={Group.DILATED: 2, Group.HYPERTROPHIC: 1, Group.INFARCT: 1, Group.ABNORMAL_RV: 1}, test=2, steps=2,
    network=NetworkOptions((4, 8)), options=HeartOptions(frames=2, size=32, pixel_mm=5.6, planes=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


def groups(files: list[Path]) -> Counter[str]:
    return Counter(path.parent.name for path in files)


def test_rare_hearts_are_repeated_and_no_others_come_in(folder: Path) -> None:
    imbalanced, oversampled, balanced = (SMALL.training_files(folder, way) for way in WAYS)
    assert groups(imbalanced) == {"normal": 5, "dilated": 2, "hypertrophic": 1, "infarct": 1, "abnormal_rv": 1}
    assert len(set(imbalanced)) == 10
    assert set(oversampled) == set(imbalanced)
    assert set(groups(oversampled).values()) == {5}
    assert set(groups(balanced).values()) == {2}
    seen = [{path.name for path in files} for files in (imbalanced, balanced)]
    assert len(seen[0]) == len(seen[1]) == 10, "every heart is another patient's"
    assert not seen[0] & seen[1]


def test_test_patients_differ_by_their_disease_alone(folder: Path) -> None:
    normal, dilated = (
        read_heart(SMALL.drawn(folder, Split.TEST, group, range(1))[0]) for group in (Group.NORMAL, Group.DILATED)
    )
    assert not torch.equal(normal.labels, dilated.labels)
    looks = [
        SimulatedHearts(1, Split.TEST, replace(SMALL.options, group=group), SMALL.randomisation).appearance(0)
        for group in (Group.NORMAL, Group.DILATED)
    ]
    assert replace(looks[0], group=Group.DILATED) == looks[1]


def test_results_are_kept(folder: Path) -> None:
    first = audited(SMALL, folder, "oversampled", 0)
    assert {group: len(scores) for group, scores in first.items()} == dict.fromkeys(first, 2)
    assert set(first) == {group.value for group in Group}
    written = (folder / "oversampled-0.json").stat().st_mtime_ns
    assert audited(SMALL, folder, "oversampled", 0) == first
    assert (folder / "oversampled-0.json").stat().st_mtime_ns == written
    assert audited(SMALL, folder, "oversampled", 1) != first


def test_structures_that_are_not_there_are_not_judged() -> None:
    network = SegmentationNetwork(NetworkOptions((4, 8))).eval()
    with torch.no_grad():
        network.labels.conv.conv.weight.zero_()
        network.labels.conv.conv.bias.copy_(torch.tensor([0.0, 9.0, 0.0, 0.0]))
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[0, :4] = 1
    heart = StoredHeart(torch.randn(1, 8, 8), labels, SlicePosition.APEX)
    assert judged(network, heart) == pytest.approx(2 / 3)
    labels[0, 4:6] = 2
    assert judged(network, heart) == pytest.approx(1 / 3)


def test_figures_of_the_table() -> None:
    assert spread([0.9, 0.8, 0.8, 0.9]) == (pytest.approx(0.05), pytest.approx(2.0))
    scores = {group.value: [0.8, 1.0] for group in Group}
    scores["dilated"] = [0.6, 0.8]
    head, _, one, two = table({"one": [scores], "two": [scores, scores]})
    assert head.count("|") == one.count("|") == two.count("|")
    assert one == "| one | 0.900 | 0.700 | 0.900 | 0.900 | 0.900 | 0.0800 | 3.00 |"
    assert "0.700 ± 0.000" in two
