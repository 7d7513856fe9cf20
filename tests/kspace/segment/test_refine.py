"""Both ways to mend a topology: the gradient and the tidying up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from kspace.errors import InputError, ShapeError, UsageError
from kspace.segment.refine import MENDABLE, RefineOptions, refine, refined
from kspace.segment.segmentation import Structure
from kspace.segment.tidy import tidy
from kspace.segment.topology import betti_errors


def logits_of(labels: Tensor, height: float = 6.0) -> Tensor:
    """Logits (4, y, x) of a network that is sure of labels."""
    return height * functional.one_hot(labels.long(), len(Structure)).movedim(-1, 0).float()


def opened(heart: Tensor) -> Tensor:
    """Logits with a doubtful gap through the wall, which the labels show."""
    logits = logits_of(heart)
    logits[Structure.BACKGROUND, 19:22, 36:42] = 7.0
    return logits


def test_a_right_topology_is_left_as_it_is(heart: Tensor) -> None:
    logits = logits_of(heart)
    assert torch.equal(refine(logits), logits)
    assert torch.equal(tidy(heart), heart)


def test_only_the_gradient_closes_a_ring(heart: Tensor) -> None:
    logits = opened(heart)
    assert int(betti_errors(logits.argmax(0))) == 2
    assert int(betti_errors(tidy(logits.argmax(0).to(torch.uint8)))) == 2
    refined = refine(logits)
    labels = refined.argmax(0)
    assert int(betti_errors(labels)) == 0
    assert int((labels != heart).sum()) < int((logits.argmax(0) != heart).sum()), "nearer to the truth"
    changed = (refined != logits).any(0).nonzero()
    assert int(changed[:, 1].min()) > 4, "and nothing far from the heart"


def test_islands_and_holes_go(heart: Tensor) -> None:
    spoilt = heart.clone()
    spoilt[4:6, 4:6] = Structure.MYOCARDIUM
    spoilt[20:22, 30] = Structure.RV
    spoilt[20, 14] = Structure.BACKGROUND
    assert int(betti_errors(spoilt)) > 5
    assert int(betti_errors(refine(logits_of(spoilt)).argmax(0))) == 0
    assert torch.equal(tidy(spoilt), heart)
    assert torch.equal(tidy(torch.stack([heart, spoilt])[None]), torch.stack([heart, heart])[None])


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31))
def test_it_is_never_worse(heart: Tensor, seed: int) -> None:
    noise = torch.randn(4, *heart.shape, generator=torch.Generator().manual_seed(seed))
    logits = logits_of(heart, 4.0) + 1.3 * noise
    before = int(betti_errors(logits.argmax(0)))
    assert int(betti_errors(refine(logits, RefineOptions(steps=4)).argmax(0))) <= before


def test_the_anchor_holds(heart: Tensor) -> None:
    logits = opened(heart)
    held = refine(logits, RefineOptions(steps=3, anchor=15.0, step=1e-3))
    assert torch.equal(held, logits), "the first of equally wrong ones"


def test_an_image_without_a_heart_has_nothing_to_bend() -> None:
    logits = logits_of(torch.zeros(12, 12))
    assert torch.equal(refine(logits, RefineOptions(steps=2)), logits)
    assert int(tidy(torch.zeros(12, 12, dtype=torch.uint8)).sum()) == 0


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ShapeError):
        refine(torch.zeros(3, 8, 8))
    with pytest.raises(InputError, match="NaN"):
        refine(torch.full((4, 8, 8), torch.inf))
    with pytest.raises(ShapeError):
        tidy(torch.zeros(8, dtype=torch.uint8))
    with pytest.raises(InputError, match="uint8"):
        tidy(torch.zeros(8, 8))
    for wrong in ({"steps": 0}, {"step": 0.0}, {"smooth_px": float("nan")}, {"anchor": -1.0}):
        with pytest.raises(UsageError):
            RefineOptions(**wrong)  # type: ignore[arg-type]


def test_images_are_mended_where_it_is_worth_it(heart: Tensor) -> None:
    right, wrong = logits_of(heart).softmax(0), opened(heart).softmax(0)
    hopeless = torch.rand(4, *heart.shape, generator=torch.Generator().manual_seed(0)).softmax(0)
    probabilities = torch.stack([right, wrong, hopeless])
    labels = refined(probabilities)
    assert torch.equal(labels[0], heart)
    assert int(betti_errors(wrong.argmax(0).to(torch.uint8))) > 0
    assert int(betti_errors(labels[1])) == 0
    assert int(betti_errors(labels[2])) > MENDABLE
    assert torch.equal(labels[2], hopeless.argmax(0).to(torch.uint8))
