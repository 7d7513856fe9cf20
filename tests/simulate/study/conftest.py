from __future__ import annotations

import pytest

from simulate.study.protocol import PRETEND, Protocol


@pytest.fixture
def pretended() -> Protocol:
    """A study that costs nothing."""
    return Protocol(method=PRETEND, n_slices=3, frames=6)
