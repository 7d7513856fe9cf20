from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kspace.errors import ShapeError
from kspace.segment.papillary import with_papillary_muscles
from kspace.segment.segmentation import Structure


def test_a_muscle_in_the_cavity_is_counted_to_it(heart: Tensor) -> None:
    dented = heart.clone()
    dented[18:23, 33:40] = Structure.MYOCARDIUM  # from the wall into the cavity
    assert int((dented == Structure.LV).sum()) < int((heart == Structure.LV).sum()) - 15
    mended = with_papillary_muscles(torch.stack([heart, dented]))
    assert float((mended[0] != heart).sum()) == 0
    assert float((mended[1] != heart).float().mean()) < 0.003


def test_nothing_but_myocardium_changes(heart: Tensor) -> None:
    dented = heart.clone()
    dented[18:23, 33:40] = Structure.RV
    mended = with_papillary_muscles(dented)
    assert torch.equal(mended == Structure.RV, dented == Structure.RV)
    assert torch.equal(mended == Structure.BACKGROUND, dented == Structure.BACKGROUND)


def test_no_cavity_is_left_as_it_is() -> None:
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[1, 2:4, 2:4] = Structure.LV
    assert torch.equal(with_papillary_muscles(labels), labels)


def test_other_labels_are_refused() -> None:
    with pytest.raises(ShapeError):
        with_papillary_muscles(torch.zeros(3, 3))
