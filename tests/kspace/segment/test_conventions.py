from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kspace.errors import InputError, UsageError
from kspace.segment.conventions import CONVENTIONS, from_spokewise, to_spokewise


@pytest.mark.parametrize(
    ("convention", "theirs", "ours"),
    [
        ("spokewise", [0, 1, 2, 3], [0, 1, 2, 3]),
        ("acdc", [0, 1, 2, 3], [0, 3, 2, 1]),
        ("mnms", [0, 1, 2, 3], [0, 1, 2, 3]),
        ("ukbb", [0, 1, 2, 3, 4], [0, 1, 2, 3, 3]),
        ("sunnybrook", [0, 1, 2], [0, 1, 2]),
    ],
)
def test_values_mean_what_the_convention_says(convention: str, theirs: list[int], ours: list[int]) -> None:
    mapped = to_spokewise(torch.tensor(theirs), convention)
    assert mapped.tolist() == ours
    assert mapped.dtype == torch.uint8


@given(
    convention=st.sampled_from(sorted(CONVENTIONS)),
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_there_and_back_changes_nothing(convention: str, shape: list[int], seed: int) -> None:
    top = 3 if convention == "sunnybrook" else 4
    labels = torch.randint(0, top, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(to_spokewise(from_spokewise(labels, convention), convention), labels)


def test_the_first_of_two_values_is_written() -> None:
    assert from_spokewise(torch.tensor([3], dtype=torch.uint8), "ukbb").tolist() == [3]


def test_unknown_values_are_listed() -> None:
    with pytest.raises(InputError, match="hold 4, 200, which acdc has no meaning for; expected 0 and 1, 2, 3"):
        to_spokewise(torch.tensor([0, 1, 200, 4], dtype=torch.uint8), "acdc")
    with pytest.raises(InputError, match="hold 3, which sunnybrook"):
        from_spokewise(torch.tensor([3], dtype=torch.uint8), "sunnybrook")


def test_an_unknown_convention_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"'kaggle'.*spokewise, acdc, mnms, ukbb, sunnybrook"):
        to_spokewise(torch.zeros(1), "kaggle")
