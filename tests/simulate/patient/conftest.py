from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from simulate.body import BodyState
from simulate.patient.heart import Heart


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Draw on one thread: the images are small, and threads that wait for each other cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def check_volumes() -> Callable[[Heart, BodyState], None]:
    """Compare the cavity and the wall, summed over planes a quarter of a millimetre apart, with the exact volumes."""

    def check(heart: Heart, state: BodyState) -> None:
        step = 0.25
        cavity = wall = 0.0
        for planes in np.array_split(np.arange(-5.0, heart.patient.left.length_mm + 5, step), 20):
            s = heart.section(planes, state)
            cavity += np.pi * (s.endo**2).mean(1).sum() * step / 1e3
            wall += np.pi * ((s.epi**2 - s.endo**2) * s.wall).mean(1).sum() * step / 1e3
        exact = heart.volumes_ml(state)
        assert cavity == pytest.approx(exact["lv"], rel=0.004)
        assert wall == pytest.approx(exact["myocardium"], rel=0.004)

    return check
