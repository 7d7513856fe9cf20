from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from kspace.equations import NormalEquations
from kspace.parallel import map_frames, one_thread
from kspace.trajectory import golden_angles, radial_positions

# Long enough for a worker to start on a busy machine; a hang would last for ever.
PATIENCE_S = 60

# Python 3.12 warns of every fork of a process with threads, which is what is tested here.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[1, 2, 5])
def any_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items(any_threads: int) -> None:
    def late(item: int) -> int:
        time.sleep(0.002 * (item % 3 == 0))
        return item**2

    assert map_frames(late, range(30)) == [item**2 for item in range(30)]
    assert map_frames(late, (item for item in (3, 1, 2))) == [9, 1, 4]


def test_no_items_are_no_results(any_threads: int) -> None:
    assert map_frames(str, []) == []


def test_the_first_exception_is_raised_and_the_next_call_works(any_threads: int) -> None:
    def odd(item: int) -> int:
        if item % 2:
            raise ValueError(f"item {item}")
        return item

    with pytest.raises(ValueError, match="item 1"):
        map_frames(odd, range(8))
    assert map_frames(odd, [0, 2, 4]) == [0, 2, 4]


def test_items_run_side_by_side(two_threads: None) -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE_S)
    assert sorted(map_frames(lambda _: meeting.wait(), range(2))) == [0, 1]


def test_one_thread_works_in_the_caller() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert set(map_frames(lambda _: threading.get_ident(), range(4))) == {threading.get_ident()}
    finally:
        torch.set_num_threads(before)


def within_patience(function: Any) -> Any:
    """Run in a thread of its own, so that a hang is a failure and not a hang."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "it hangs"
    assert results, "it failed"
    return results[0]


def test_calls_within_calls_do_not_wait_for_each_other(two_threads: None) -> None:
    def outer(item: int) -> list[int]:
        time.sleep(0.01)
        return map_frames(lambda other: 10 * item + other, range(3))

    assert within_patience(lambda: map_frames(outer, range(4))) == [[10 * i + j for j in range(3)] for i in range(4)]


def test_several_threads_may_call_at_a_time(two_threads: None) -> None:
    def call(start: int) -> list[int]:
        return map_frames(lambda item: item + 1, range(start, start + 50))

    results: dict[int, list[int]] = {}
    threads = [threading.Thread(target=lambda s=s: results.update({s: call(s)}), daemon=True) for s in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert results == {s: list(range(s + 1, s + 51)) for s in range(8)}


# In the workers of a DataLoader


def sums(seed: int) -> NormalEquations:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(6, 2, 24, dtype=torch.complex64, generator=generator)
    equations = NormalEquations((12, 10), 3, 2)
    equations.add(samples, radial_positions(golden_angles(6), 24), torch.arange(6) % 3)
    return equations


class Scans(Dataset[np.ndarray]):
    """Each item sums spokes and applies the normal operator, both frame by frame in threads."""

    def __init__(self, n_threads: int | None) -> None:
        self.n_threads = n_threads

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> np.ndarray:
        if self.n_threads is not None:
            torch.set_num_threads(self.n_threads)
        equations = sums(index)
        return equations.normal(equations.adjoint[:, 0], torch.ones(2, 12, 10, dtype=torch.complex64)).numpy()


@forks
@pytest.mark.parametrize("n_threads", [None, 2])
def test_forked_workers_make_pools_of_their_own(n_threads: int | None, two_threads: None) -> None:
    expected = [Scans(None)[index] for index in range(4)]  # and the pool of this process exists
    loader = DataLoader(
        Scans(n_threads), num_workers=2, batch_size=None, timeout=PATIENCE_S, multiprocessing_context="fork"
    )
    got = list(loader)
    assert len(got) == 4
    for mine, theirs in zip(expected, got, strict=True):
        np.testing.assert_allclose(np.asarray(theirs), mine, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(Scans(None)[0], expected[0])


@one_thread()
def fails_alone() -> None:
    assert torch.get_num_threads() == 1
    raise ZeroDivisionError


def test_one_thread_is_a_promise_for_a_while(two_threads: None) -> None:
    with pytest.raises(ZeroDivisionError):
        fails_alone()
    assert torch.get_num_threads() == 2
    with one_thread(), one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
