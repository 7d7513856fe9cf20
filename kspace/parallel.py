"""Work on frames side by side.

A radial cine is many small, equal problems. One thread per frame beats many threads per transform: nothing waits at a
barrier, and a busy core delays only its own frame.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_THREAD_NAME = "spokewise"
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _pool(n_threads: int) -> ThreadPoolExecutor:
    # A pool does not survive a fork; a DataLoader worker finds another process number and makes its own.
    key = (os.getpid(), n_threads)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(n_threads, thread_name_prefix=_THREAD_NAME, initializer=_work_alone)
    return _pools[key]


def _work_alone() -> None:
    # In torch a number of threads belongs to the thread that set it: this one's operations start no team of their own.
    torch.set_num_threads(1)


def map_frames(function: Callable[[Item], Result], items: Iterable[Item], *, teams: bool = True) -> list[Result]:
    """Apply a function that releases the interpreter lock to each item, in as many threads as torch would use.

    The results come in the order of the items. An exception in any of them is raised here. Gradients are not recorded
    in the threads.

    Parameters
    ----------
    teams
        Whether a single item is left to the calling thread, where each operation may start a team of threads. Many
        small operations wait longer for their teams than they work, above all on a busy machine.
    """
    work = list(items)
    n_threads = min(torch.get_num_threads(), len(work) if teams else 2)
    # A thread of the pool that waited for the pool might wait for itself.
    if not work or n_threads <= 1 or threading.current_thread().name.startswith(_THREAD_NAME):
        return [function(item) for item in work]
    wanted = torch.get_num_threads()
    results = list(_pool(wanted).map(function, work))
    # Threads that are yet to be born, the user's among them, inherit what was set last.
    torch.set_num_threads(wanted)
    return results


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch's operations in the calling thread start no team of their own, in the block or function decorated.

    For hundreds of small elementwise operations, whose barriers cost more than a second core gains: fifteen times the
    time when that core is busy with something else.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
