from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.errors import SpokewiseError
from simulate.signal import (
    TISSUES,
    BalancedSequence,
    TissueProperties,
    inflow_factor,
    jet_factor,
    on_resonance_signals,
    steady_state,
    tissue_signals,
    transmit_map,
)
from simulate.tissues import N_TISSUES, Tissue


def bloch_steady_state(t1: float, t2: float, flip: float, tr: float, te: float, hz: float) -> complex:
    """Pulses of alternating sign about x, relaxation and precession as matrices, and their fixed point, in float64."""

    def evolve(seconds: float) -> tuple[np.ndarray, np.ndarray]:
        turn = 2 * math.pi * hz * seconds
        e1, e2 = math.exp(-seconds / t1), math.exp(-seconds / t2)
        c, s = e2 * math.cos(turn), e2 * math.sin(turn)
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, e1]]), np.array([0, 0, 1 - e1])

    def pulse(angle: float) -> np.ndarray:
        c, s = math.cos(angle), math.sin(angle)
        return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])  # from z towards +y

    rest, recover = evolve(tr)
    two_pulses = rest @ pulse(-flip) @ rest @ pulse(flip)
    added = rest @ pulse(-flip) @ recover + recover
    before = np.linalg.solve(np.eye(3) - two_pulses, added)  # what two TRs leave as it is
    to_echo, recovered = evolve(te)
    at_echo = to_echo @ pulse(flip) @ before + recovered
    return complex(at_echo[0], at_echo[1]) / 1j  # the receiver's phase makes +y real


def test_the_fixed_point_is_reached_by_many_pulses():
    t1, t2, tr, hz = 0.4, 0.08, 5e-3, 30.0
    e1, e2, turn = math.exp(-tr / t1), math.exp(-tr / t2), 2 * math.pi * hz * tr
    transverse, longitudinal = 0j, 1.0
    for number in range(4000):
        angle = 0.8 if number % 2 == 0 else -0.8
        after = complex(transverse.real, transverse.imag * math.cos(angle) + longitudinal * math.sin(angle))
        longitudinal = longitudinal * math.cos(angle) - transverse.imag * math.sin(angle)
        if number == 3998:
            assert after / 1j == pytest.approx(bloch_steady_state(t1, t2, 0.8, tr, 0.0, hz), rel=1e-9)
        transverse = after * e2 * complex(math.cos(turn), math.sin(turn))
        longitudinal = longitudinal * e1 + 1 - e1


def one(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@settings(deadline=None, max_examples=60)
@given(
    t1=st.floats(0.1, 4.0),
    ratio=st.floats(0.01, 1.0),
    flip=st.floats(0.05, 3.0),
    tr=st.floats(2e-3, 2e-2),
    echo=st.floats(0.0, 1.0),
    hz=st.floats(-500, 500),
)
def test_closed_form_is_the_steady_state_of_the_bloch_equations(
    t1: float, ratio: float, flip: float, tr: float, echo: float, hz: float
):
    t2, te = t1 * ratio, tr * echo
    got = complex(steady_state(one(t1), one(t2), one(1.0), flip, tr, hz, te_s=te))
    assert got == pytest.approx(bloch_steady_state(t1, t2, flip, tr, te, hz), rel=1e-8, abs=1e-12)


def test_on_resonance_limit():
    t1, t2, flip, tr = 1.5, 0.25, math.radians(50), 3e-3
    e1, e2 = math.exp(-tr / t1), math.exp(-tr / t2)
    known = math.sin(flip) * (1 - e1) / (1 - (e1 - e2) * math.cos(flip) - e1 * e2) * math.exp(-tr / 2 / t2)
    assert complex(steady_state(one(t1), one(t2), one(1.0), flip, tr)) == pytest.approx(known)
    # For TR far below T1 and T2 only their ratio counts, and half of the equilibrium is the most there is.
    best = steady_state(one(1.0), one(1.0), one(1.0), math.pi / 2, 1e-3)
    assert float(best.abs()) == pytest.approx(0.5, rel=2e-3)


def test_bands_are_one_over_tr_apart():
    tr = 4e-3
    hz = torch.linspace(-300, 300, 1201, dtype=torch.float64)
    signal = steady_state(one(1.0), one(0.05), one(1.0), math.radians(50), tr, hz)
    shifted = steady_state(one(1.0), one(0.05), one(1.0), math.radians(50), tr, hz + 1 / tr)
    torch.testing.assert_close(shifted.abs(), signal.abs())
    torch.testing.assert_close(shifted, -signal)  # half a turn more until the echo at TR / 2
    inside = hz.abs() < 0.9 / tr
    size = torch.where(inside, signal.abs(), 1.0)
    assert abs(float(hz[size.argmin()])) == pytest.approx(0.5 / tr, abs=0.6)
    # In the pass band the echo at TR / 2 is refocused: next to no phase.
    band = hz.abs() < 0.3 / tr
    assert float(signal[band].angle().abs().max()) < 0.06


@pytest.mark.parametrize("field_t", [1.5, 3.0])
def test_tissues_are_as_bright_as_they_look(field_t: float):
    signals = tissue_signals(BalancedSequence(field_t=field_t))
    assert signals.shape == (N_TISSUES,)
    assert signals.dtype == torch.complex64
    size = signals.abs() / signals[Tissue.ARTERIAL_BLOOD].abs()
    assert float(size[Tissue.AIR]) == 0
    assert float(size[Tissue.LUNG]) < 0.1
    assert float(size[Tissue.BONE]) < 0.02
    assert 0.25 < float(size[Tissue.MYOCARDIUM]) < 0.5
    assert float(size[Tissue.VENOUS_BLOOD]) < 1
    assert float(size[Tissue.SCAR]) > float(size[Tissue.MYOCARDIUM])
    assert 1 < float(size[Tissue.FAT]) < 3
    assert set(TISSUES[field_t]) == set(Tissue)
    assert all(properties.source for properties in TISSUES[field_t].values())


def test_fat_opposes_water_at_1_5_t():
    sequence = BalancedSequence(field_t=1.5, tr_s=3e-3)
    assert sequence.fat_hz == pytest.approx(-217, abs=1)
    signals = tissue_signals(sequence)
    # Fat is beyond the first band (1 / (2 TR) = 167 Hz): half a turn from water.
    assert abs(float(signals[Tissue.FAT].angle())) == pytest.approx(math.pi, abs=0.1)


def test_maps_give_each_pixel_its_own_signal():
    sequence = BalancedSequence(tr_s=3e-3)
    hz = torch.linspace(-200, 200, 12).reshape(3, 4)
    b1 = torch.linspace(0.7, 1.2, 12).reshape(3, 4)
    both = tissue_signals(sequence, hz, b1)
    assert both.shape == (N_TISSUES, 3, 4)
    properties = TISSUES[1.5][Tissue.LIVER]
    alone = steady_state(
        one(properties.t1_s), one(properties.t2_s), one(properties.density), sequence.flip_rad * b1[1, 2].double(),
        3e-3, hz[1, 2].double(),
    )  # fmt: skip
    assert complex(both[Tissue.LIVER, 1, 2]) == pytest.approx(complex(alone), rel=1e-5)
    torch.testing.assert_close(tissue_signals(sequence, hz * 0)[:, 0, 0], tissue_signals(sequence))
    torch.testing.assert_close(tissue_signals(sequence, None, b1 * 0 + 1)[:, 0, 0], tissue_signals(sequence))
    with pytest.raises(SpokewiseError, match="b1"):
        tissue_signals(sequence, hz, b1[:2])


def test_a_patient_may_have_values_of_his_own():
    own = {**TISSUES[1.5], Tissue.MYOCARDIUM: TissueProperties(1.2, 0.06, 0.78)}
    changed = tissue_signals(BalancedSequence(), tissues=own) != tissue_signals(BalancedSequence())
    assert changed.nonzero().flatten().tolist() == [Tissue.MYOCARDIUM]


def test_blood_that_flows_in_is_brighter_and_a_jet_is_dark():
    factor = inflow_factor(BalancedSequence(), torch.tensor([0.0, 20.0, 100.0, -100.0, 1e5]), 8.0)
    assert float(factor[0]) == pytest.approx(1, abs=1e-3)
    assert bool((factor.diff()[:2] > 0).all())
    assert float(factor[3]) == float(factor[2])
    assert 1.2 < float(factor[4]) < 1.6
    assert float(inflow_factor(BalancedSequence(), torch.tensor(1e5), 8.0, fresh=0.0)) == 1
    torch.testing.assert_close(jet_factor(torch.tensor([0.0, 2000.0])), torch.tensor([1.0, math.exp(-1)]))


def test_transmit_field_is_stronger_in_the_middle_and_worse_at_3_t():
    x = torch.linspace(-180, 180, 37)
    low, high = (transmit_map(x, torch.zeros(1), field_t=field_t) for field_t in (1.5, 3.0))
    assert float(low[18]) == float(high[18]) == 1
    assert 0.05 < 1 - float(low[8:29].min()) < 0.12
    assert 0.2 < 1 - float(high.min()) < 0.4
    tilted = transmit_map(x, torch.zeros(1), tilt=0.1)
    assert float(tilted[28] / tilted[8]) == pytest.approx(1.1 / 0.9)


@pytest.mark.parametrize(
    "wrong",
    [{"field_t": 7.0}, {"flip_rad": 0.0}, {"flip_rad": 55.0}, {"tr_s": 0.5}, {"te_s": 0.01}, {"tr_s": math.nan}],
)
def test_sequences_that_make_no_sense_are_refused(wrong: dict[str, Any]):
    with pytest.raises(SpokewiseError):
        BalancedSequence(**wrong)


def test_tissues_and_flows_that_make_no_sense_are_refused():
    for values in ((1.0, 2.0, 0.5), (1.0, 0.0, 0.5), (1.0, 0.5, 2.0), (1.0, 0.5, 0.5, 1.5)):
        with pytest.raises(SpokewiseError):
            TissueProperties(*values)
    speed = torch.tensor(1.0)
    for call in (
        lambda: inflow_factor(BalancedSequence(), speed, 0.0),
        lambda: inflow_factor(BalancedSequence(), speed, 8.0, fresh=2.0),
        lambda: jet_factor(speed, dark_mm_s=0.0),
        lambda: transmit_map(speed, speed, wavelength_mm=-1.0),
    ):
        with pytest.raises(SpokewiseError):
            call()


def test_on_resonance_blood_is_one_and_fat_opposes_it() -> None:
    signals = on_resonance_signals()
    assert signals.shape == (N_TISSUES,)
    assert complex(signals[Tissue.ARTERIAL_BLOOD]) == pytest.approx(1)
    assert float(signals[Tissue.FAT].real) < 0
    assert 0.2 < float(signals[Tissue.MYOCARDIUM].real) < 0.5
    assert complex(signals[Tissue.AIR]) == 0
