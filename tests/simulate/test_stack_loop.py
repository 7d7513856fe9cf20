from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from kspace.errors import InputError, UsageError
from kspace.quality.measures import measured
from kspace.quality.policies import Choice, Fixed, Uncertainty
from kspace.quality.view import View
from kspace.recon.cg_sense import CgSense
from kspace.scan import Cine
from kspace.volume_curves import volume_curves
from simulate.acquisition import LoopOptions, SliceScan
from simulate.scanner import ScannerOptions, SimulatedScanner
from simulate.source import Replay
from simulate.stack_judge import SegmenterDrawer
from simulate.stack_loop import scan_stack_together

TIMES = (0.3, 0.6, 1.2)
QUICK = LoopOptions(n_frames=3, method=CgSense(max_iterations=3), times=TIMES)


@pytest.fixture(scope="module")
def scanner(make_cine: Any) -> SimulatedScanner:
    return SimulatedScanner(make_cine(rows=32, columns=32, slices=3), ScannerOptions(n_coils=2, snr=40))


@pytest.fixture
def draw(segment_cine: Any) -> SegmenterDrawer:
    return SegmenterDrawer(lambda cine, on_slice=None: segment_cine(cine, samples=3))


@dataclass
class Script:
    """A policy that does what it is told, and keeps what it saw."""

    turns: list[list[bool]]
    seen: list[View] = field(default_factory=list)
    name: str = "script"

    def __call__(self, view: View) -> Choice:
        self.seen.append(view)
        turn = self.turns[len(self.seen) - 1] if len(self.seen) <= len(self.turns) else [False] * len(view.steps)
        return Choice(np.array(turn), "as told", reached=not any(turn))


def test_slices_go_on_wait_and_are_gone_back_to(scanner: SimulatedScanner, draw: SegmenterDrawer) -> None:
    policy = Script([[True, False, True], [False, True, False]])
    heard: list[tuple[int, float]] = []
    result = scan_stack_together(
        scanner, QUICK, policy, draw, on_step=lambda index, step: heard.append((index, step.seconds))
    )
    assert [r.seconds for r in result.records] == pytest.approx([0.6, 0.6, 0.6])
    assert [index for index, _ in heard] == [0, 1, 2, 0, 2, 1]
    assert "waits" in result.records[1].steps[0].reason
    for record in result.records:
        assert record.steps[-1].stop
        assert record.stopped
        assert record.reason == "as told"
    assert [view.steps.tolist() for view in policy.seen] == [[1, 1, 1], [2, 1, 2], [2, 2, 2]]


def test_a_view_is_what_was_drawn_and_measured(scanner: SimulatedScanner, draw: SegmenterDrawer) -> None:
    policy = Script([[True] * 3])
    result = scan_stack_together(scanner, QUICK, policy, draw)
    view = policy.seen[-1]
    cine = Cine(torch.stack([r.image for r in result.records]), scanner.geometry, 0.8)
    found = draw.segmenter(cine)
    volumes = volume_curves(found.labels, found.geometry, found.positions)
    left = float(volumes.areas_mm2[0].sum(0).max()) * view.spacing_mm / 1000
    assert measured(view.areas_mm2[0], view.spacing_mm)[0] == pytest.approx(left)
    assert view.sample_areas_mm2.shape == (3, 3, 3, 3)
    assert view.seconds.tolist() == pytest.approx([0.6] * 3)
    for name in ("prediction_error", "image_change", "held_out_over_noise", "disagreement", "label_change"):
        assert np.isfinite(view.score(name)).all(), name
        assert np.isnan(policy.seen[0].score(name)).all() or name == "disagreement"
    assert view.score("spokes_per_frame", 1) == pytest.approx(policy.seen[0].score("spokes_per_frame"))


def test_the_cap_ends_what_no_policy_ends_and_a_fixed_time_is_kept(
    scanner: SimulatedScanner, draw: SegmenterDrawer
) -> None:
    forever = scan_stack_together(scanner, QUICK, Script([[True] * 2] * 9), draw, slices=(0, 2))
    assert [r.seconds for r in forever.records] == pytest.approx([1.2, 1.2])
    assert [r.index for r in forever.records] == [0, 2]
    fixed = scan_stack_together(scanner, QUICK, Fixed(0.6), draw)
    assert [r.seconds for r in fixed.records] == pytest.approx([0.6] * 3)
    unsure = scan_stack_together(scanner, QUICK, Uncertainty(), draw)
    assert "differ" in unsure.choice.reason or "agree" in unsure.choice.reason or "time" in unsure.choice.reason


def test_spokes_are_given_slice_after_slice_also_when_the_scan_breaks_off(
    scanner: SimulatedScanner, draw: SegmenterDrawer
) -> None:
    heard: list[int] = []

    def breaks(index: int, step: object) -> None:
        if len(heard) == 0 and index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_stack_together(
            scanner, QUICK, Script([[True] * 3]), draw, on_step=breaks, on_spokes=lambda i, b: heard.append(i)
        )
    assert heard == [0, 1, 2]
    heard.clear()
    scan_stack_together(scanner, QUICK, Script([[True] * 3]), draw, on_spokes=lambda i, b: heard.append(i))
    assert heard == [0, 0, 1, 1, 2, 2]


def test_a_source_that_runs_dry_ends_its_slice(scanner: SimulatedScanner, draw: SegmenterDrawer) -> None:
    raw = scanner.open_slice(0).acquire(0.5)
    replay = Replay(replace(raw, slice_index=torch.zeros(raw.n_spokes, dtype=torch.int64)))
    result = scan_stack_together(replay, QUICK, Script([[True]] * 5), draw, slices=(0,))
    assert result.records[0].reason.startswith("the source has no more spokes")
    with pytest.raises(InputError, match="no spokes"):
        scan_stack_together(replay, QUICK, Script([]), draw, slices=(1,))


def test_times_have_to_be_given_and_to_ascend(scanner: SimulatedScanner, draw: SegmenterDrawer) -> None:
    with pytest.raises(UsageError, match="times"):
        scan_stack_together(scanner, replace(QUICK, times=()), Script([]), draw)
    with pytest.raises(UsageError, match="decisions"):
        replace(QUICK, times=(1.0, 0.5))


def test_what_motion_detection_says_is_seen_by_the_policy(scanner: SimulatedScanner, draw: SegmenterDrawer) -> None:
    policy = Script([[True] * 3])
    scan_stack_together(scanner, replace(QUICK, watched=True), policy, draw)
    share = policy.seen[-1].score("distrusted_share")
    assert ((share >= 0) & (share < 0.5)).all()


def test_no_stack_ends_on_a_frame_that_trusted_spokes_do_not_carry(
    scanner: SimulatedScanner, draw: SegmenterDrawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = "frame 2 rests on 1 trusted spokes of 9"
    monkeypatch.setattr(
        SliceScan, "uncarried", property(lambda scan: poor if scan._index == 1 and scan.seconds < 1 else None)
    )
    result = scan_stack_together(scanner, QUICK, Script([]), draw)
    assert [r.seconds for r in result.records] == pytest.approx([0.3, 1.2, 0.3])
    assert result.records[1].steps[0].reason == f"as told, but slice 1, {poor}"
    assert result.choice.reached
    at_the_cap = scan_stack_together(scanner, replace(QUICK, times=(0.3,)), Script([]), draw)
    assert [r.seconds for r in at_the_cap.records] == pytest.approx([0.3] * 3)
