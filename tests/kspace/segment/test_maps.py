from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.segment.maps import bounding_box, likeliest
from kspace.segment.papillary import with_papillary_muscles
from kspace.segment.tidy import tidy


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.sampled_from([2, 1000]))
def test_the_likeliest_label_is_that_of_argmax_and_the_first_of_equals(
    seed: int, n: int, rows: int, columns: int, levels: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    p = torch.randint(levels, (n, 4, rows, columns), generator=generator).float()
    labels = likeliest(p)
    # numpy promises the first of equal ones.
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), torch.from_numpy(p.numpy().argmax(1)))


def test_the_box_of_nothing_is_everything() -> None:
    assert bounding_box(torch.zeros(3, 4, dtype=torch.bool), 1) == (slice(None), slice(None))


@pytest.mark.parametrize("mend", [tidy, with_papillary_muscles])
@settings(deadline=None)
@given(seed=st.integers(0, 2**31))
def test_background_around_a_heart_changes_nothing(mend, seed: int) -> None:  # type: ignore[no-untyped-def]
    """Also where holes and pieces touch the border of what is there."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (2, 12, 11), generator=generator).to(torch.uint8)
    padded = torch.zeros(2, 30, 40, dtype=torch.uint8)
    padded[:, 7:19, 20:31] = labels
    assert torch.equal(mend(padded)[:, 7:19, 20:31], mend(labels))
    assert int((mend(padded) > 0).sum()) == int((mend(labels) > 0).sum())
