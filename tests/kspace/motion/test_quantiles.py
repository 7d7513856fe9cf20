from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.errors import InputError
from kspace.motion.features import quantile_along
from kspace.scan import Geometry, RadialScan


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 20), st.floats(0, 1), st.sampled_from([0, 1, -1]))
def test_quantiles_are_those_of_torch(seed: int, rows: int, columns: int, share: float, dim: int) -> None:
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        quantile_along(values, share, dim), values.quantile(share, dim=dim), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "bad", [complex("nan"), complex(0, float("nan")), complex(float("inf")), complex(0, -float("inf"))]
)
def test_one_bad_sample_among_many_is_noticed_and_counted(bad: complex) -> None:
    samples = torch.ones(50, 3, 16, dtype=torch.complex64)
    samples[17, 2, 5] = bad
    with pytest.raises(InputError, match=r"samples holds 1 value"):
        RadialScan(samples, torch.zeros(50, 16, 2), torch.arange(50.0), Geometry((1, 16, 16)))
