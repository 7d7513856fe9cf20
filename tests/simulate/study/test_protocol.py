from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from kspace.errors import InputError
from simulate.patient.parameters import Group
from simulate.study.protocol import FIRST_PATIENT, Part, Protocol, part_of
from simulate.training.dataset import Split, patient_seed


def test_parts_share_no_patient_and_have_their_groups_however_far_a_study_has_come() -> None:
    protocol = Protocol(groups=(0.5, 0.125, 0.125, 0.125, 0.125))
    for n in (66, 220):
        people = [protocol.who(number) for number in range(n)]
        assert len({who.seed for who in people}) == n
        parts = Counter(who.part for who in people)
        assert parts[Part.FIT] == parts[Part.TEST] == 3 * n // 11
        for part in Part:
            healthy = [who.group is Group.NORMAL for who in people if who.part is part]
            assert abs(sum(healthy) / len(healthy) - 0.5) < 0.12


def test_patients_are_test_patients_that_nothing_learnt_from() -> None:
    who = Protocol().who(7, seed=3)
    assert who.seed == patient_seed(FIRST_PATIENT + 3_000_000 + 7, Split.TEST)
    assert who == Protocol().who(7, seed=3)
    assert who.seed != Protocol().who(7, seed=4).seed
    assert part_of(7) is who.part


def test_a_changed_value_is_another_study() -> None:
    assert Protocol().digest == Protocol(frames=10).digest
    assert Protocol().digest != Protocol(frames=13).digest


def test_a_file_says_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text("frames = 16\nseconds = [1, 2, 4]\nsnr = [10, 20]\n")
    assert Protocol.read(path) == Protocol(frames=16, seconds=(1, 2, 4), snr=(10, 20))


@pytest.mark.parametrize(
    "text", ["frames = ", "frames = 1", "colour = 3", "seconds = [2, 1]", "groups = [1, 1, 0, 0, 0]", "vendors = ['x']"]
)
def test_a_file_that_is_no_protocol_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"study\.toml"):
        Protocol.read(path)


def test_a_window_that_networks_cannot_halve_is_refused() -> None:
    with pytest.raises(ValidationError):
        Protocol(window=100)
