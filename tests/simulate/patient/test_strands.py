from dataclasses import replace

import numpy as np
import pytest
import torch

from simulate.body import BodyState
from simulate.patient.anatomy import PatientBody
from simulate.patient.left import THETA
from simulate.patient.parameters import Group
from simulate.patient.placement import short_axis_geometry
from simulate.patient.population import draw_patient
from simulate.patient.strands import Strands
from simulate.tissues import Tissue


def test_half_of_all_hearts_have_a_false_tendon() -> None:
    tendons = np.array([draw_patient(seed, group=Group.NORMAL).left.tendons for seed in range(200)])
    assert (tendons > 0).mean() == pytest.approx(0.55, abs=0.1)
    assert tendons.max() <= 3


def test_rods_lie_in_the_cavity_and_fill_at_most_their_plane() -> None:
    left = replace(draw_patient(3).left, strands=30, tendons=3)
    height, endo = np.linspace(0.0, 1.0, 41), np.full((41, len(THETA)), 20.0)
    rods = Strands(left, 3).rods(height, np.zeros(41), endo, 90.0, 2.0)
    assert len(rods) == 33
    for rod in rods:
        assert rod.share.max() <= 1
        assert rod.share.max() > 0.1
        for end in (0, 1):
            assert np.hypot(rod.along[end], rod.across[end]).max() <= 20.0 + 1e-9
        assert (rod.share > 0).sum() < 20


def test_a_rod_passes_a_plane_without_a_jump() -> None:
    left = replace(draw_patient(3).left, strands=20, tendons=2)
    strands, endo = Strands(left, 3), np.full((1, len(THETA)), 20.0)
    shares = []
    for u in np.linspace(0.3, 0.9, 1201):  # 0.045 mm apart
        shares.append(sum(float(r.share[0]) for r in strands.rods(np.array([u]), np.zeros(1), endo, 90.0, 2.0)))
    assert np.abs(np.diff(shares)).max() < 0.25


def test_strands_are_muscle_in_the_cavity_and_no_part_of_the_labels() -> None:
    patient = draw_patient(3)
    bodies = []
    for strands in (0, 40):
        one = replace(patient, left=replace(patient.left, strands=strands, tendons=0))
        geometry = short_axis_geometry(one, n_slices=1, first_mm=0.6 * one.left.length_mm, rows=160, columns=160)
        bodies.append(PatientBody(one, geometry))
    state = BodyState(phase=0.9)
    bare, full = (body.fractions(0, state)[Tissue.MYOCARDIUM] for body in bodies)
    labels = bodies[0].labels(0, state)
    assert torch.equal(labels, bodies[1].labels(0, state))
    added = full - bare
    assert float(added.min()) > -1e-5
    assert float(added[labels == 1].max()) > 0.2
    assert float(added[labels != 1].abs().sum()) < 0.2 * float(added.sum())
