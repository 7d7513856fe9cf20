"""Which spokes count as corrupted, and that each kind of corruption becomes events of its severity."""

import math

import numpy as np
import pytest
import torch

from kspace.errors import UsageError
from simulate.corruption import CAUSES, FILLING, corruption_of
from simulate.corruption_cine import image_difference
from simulate.corruption_levels import KINDS, SEVERITIES, Corruption, every_corruption
from simulate.spoke_truth import Truth
from simulate.timeline import Timeline


def truth(n=5, **changed):
    zeros = torch.zeros(n, dtype=torch.float64)
    none = torch.zeros(n, dtype=torch.bool)
    values = {
        "time_s": torch.arange(n) * 0.1, "slice_index": zeros.long(), "beat": zeros.long(), "phase": zeros,
        "gated_phase": zeros, "stroke": zeros + 1, "breath_mm": zeros, "shift_mm": torch.zeros(n, 3).double(),
        "rotation_rad": zeros, "dropped": none, "spiked": none, "r_waves": torch.zeros(1, 2).double(),
    }  # fmt: skip
    return Truth(**{**values, **changed})


def full(phase):
    return 0.5 + 0.5 * math.cos(2 * math.pi * phase)


def test_nothing_wrong_is_not_corrupted():
    assert not bool(corruption_of(truth(), full).corrupted.any())


def test_the_wrong_phase_counts_where_the_ventricle_is_another():
    phase = torch.tensor([0.0, 0.05, 0.5, 0.3, 0.7], dtype=torch.float64)
    sorted_into = torch.tensor([0.0, 0.0, 0.0, 0.7, 0.3], dtype=torch.float64)
    wrong = corruption_of(truth(phase=phase, gated_phase=sorted_into), full)
    # 0.3 and 0.7 are as full as each other.
    assert wrong.corrupted.tolist() == [False, False, True, False, False]
    assert float(wrong.filling[2]) == pytest.approx(1.0, abs=1e-3)
    assert float(wrong.strength[2]) == pytest.approx(1 / FILLING, rel=1e-2)
    assert CAUSES[int(wrong.causes[2].int().argmax())] == "wrong phase"


def test_a_beat_that_was_not_filled_is_wrong_in_diastole():
    wrong = corruption_of(truth(stroke=torch.full((5,), 0.5, dtype=torch.float64)), full)
    assert bool(wrong.corrupted.all())


def test_the_body_counts_from_where_the_scan_began():
    moved = torch.zeros(5, 3).double()
    moved[:, 0] = 7.0
    assert not bool(corruption_of(truth(shift_mm=moved), full).corrupted.any())
    breath = torch.tensor([5.0, 5.0, 6.0, 7.0, 9.0], dtype=torch.float64)
    assert corruption_of(truth(breath_mm=breath), full).corrupted.tolist() == [False, False, False, True, True]


def test_frames_that_were_swapped_on_purpose():
    frame_phase = torch.tensor([0.0, 0.5, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert int(corruption_of(truth(), full, frame_phase=frame_phase).corrupted.sum()) == 1


def test_the_truth_is_written_whole(tmp_path):
    path = tmp_path / "c.npz"
    corruption_of(truth(spiked=torch.tensor([True, False, False, False, False])), full).write_npz(path)
    with np.load(path) as stored:
        assert stored["corrupted"].tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("corruption", every_corruption(3), ids=lambda c: f"{c.severity} {c.kind}")
def test_events_fit_a_timeline_and_repeat(corruption):
    events = corruption.events(4.0, 0.9, 3e-3)
    assert events == corruption.events(4.0, 0.9, 3e-3)
    assert (len(events) == 0) == (corruption.kind == "swapped")
    Timeline(events=events).at(torch.linspace(0, 4, 50).double())


def test_severity_grows():
    frame = torch.arange(4000) % 20
    shares = [float((Corruption("swapped", s, 1).swap(frame, 20) != frame).double().mean()) for s in SEVERITIES]
    assert shares == sorted(shares)
    assert shares[1] == pytest.approx(0.15, abs=0.03)
    with pytest.raises(UsageError):
        Corruption("sneeze", "mild")
    assert len(every_corruption(0)) == 3 * len(KINDS)


def test_frames_of_a_cine_differ_by_their_distance():
    radius = 4 + 2 * torch.cos(2 * math.pi * (torch.arange(12) + 0.5) / 12)
    y, x = torch.meshgrid(torch.arange(24) - 12, torch.arange(24) - 12, indexing="ij")
    images = torch.stack([(r - torch.sqrt(y**2 + x**2)).sigmoid() for r in radius]).to(torch.complex64)
    phases = torch.tensor([0.04, 0.04, 0.04]).double()
    apart = image_difference(images, phases, torch.tensor([0.04, 0.12, 0.54]).double())
    assert float(apart[0]) == 0
    assert float(apart[1]) < 0.1
    assert float(apart[2]) > 0.95
