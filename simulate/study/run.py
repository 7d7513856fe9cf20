"""Patients one after another, side by side, or on a cluster; each is kept as soon as it is finished."""

from __future__ import annotations

import gc
import os
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

from kspace.errors import SpokewiseError, UsageError
from kspace.formats.files import one_line
from simulate.study.compute import patient_trajectory
from simulate.study.protocol import Protocol, Who
from simulate.study.seen import Seen, path_of
from simulate.study.store import Finished, Store

_TRIES = 2
"""A patient whose worker was lost is tried once more; a second loss may be the patient's own doing."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

OnPatient = Callable[[Finished], None]


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Parameters
    ----------
    key
        Of the study in its store.
    finished
        Patients that this run computed.
    known
        Patients that were there before it.
    lost
        Patients that could not be computed, and why.
    wall_s
        How long it took.
    """

    key: str
    finished: int
    known: int
    lost: dict[int, str] = field(default_factory=dict)
    wall_s: float = 0.0


@dataclass(frozen=True)
class Work:
    """What is done with every patient of a run.

    Parameters
    ----------
    protocol
        How they are scanned.
    images
        Folder that keeps what was seen of them, see :mod:`simulate.study.seen`; None keeps nothing.
    """

    protocol: Protocol
    images: Path | None = None


def compute_patient(work: Work, who: Who) -> Finished:
    """Compute one patient, and measure what that cost."""
    started = time.process_time()
    keep = None if work.images is None else partial(Seen.write, path=path_of(work.images, who.number))
    content = patient_trajectory(work.protocol, who, keep).to_bytes()
    gc.collect()  # cycles may hold images; the collector counts objects and not megabytes
    return Finished(who.number, content, time.process_time() - started, resident_mb())


def resident_mb() -> float:
    """Return this process's memory in MB; where the system does not say, the largest it ever was."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest / 1e6 if sys.platform == "darwin" else largest / 1e3


def run_study(
    store: Store,
    protocol: Protocol,
    n_patients: int,
    *,
    seed: int = 0,
    workers: int = 1,
    scheduler: str | None = None,
    on_patient: OnPatient | None = None,
    minutes: float | None = None,
    images: Path | None = None,
) -> Outcome:
    """Compute the patients of a study that its store does not hold.

    Parameters
    ----------
    store
        Keeps what is finished, at once: a killed run goes on where it was.
    protocol, seed
        What is studied.
    n_patients
        Numbers from 0 on.
    workers
        Processes of one thread each; 1 computes in this one.
    scheduler
        Address of a Dask scheduler, instead of workers here.
    on_patient
        Hears of every patient that is safe.
    minutes
        Begin no patient later than this; None goes on to the end.
    images
        See :class:`Work`; only patients that are computed now are kept.

    Raises
    ------
    UsageError
        When there are no patients or workers, or Dask is missing.
    """
    if n_patients < 1 or workers < 1:
        raise UsageError(f"{n_patients} patients, {workers} workers", expected="1 or more of each")
    started = time.monotonic()
    key = store.register(protocol, seed)
    known = store.numbers(key)
    wanted = [protocol.who(number, seed) for number in range(n_patients) if number not in known]
    lost: dict[int, str] = {}
    until = None if minutes is None else started + 60 * minutes
    work = Work(protocol, images)
    if scheduler is not None:
        results = _on_cluster(work, wanted, scheduler, until, lost)
    elif workers == 1:
        results = _here(work, wanted, until, lost)
    else:
        results = _side_by_side(work, wanted, workers, until, lost)
    count = 0
    for finished in results:
        store.add(key, finished)
        count += 1
        if on_patient is not None:
            on_patient(finished)
    return Outcome(key, count, sum(number < n_patients for number in known), lost, time.monotonic() - started)


def _late(until: float | None) -> bool:
    return until is not None and time.monotonic() >= until


def _here(work: Work, wanted: Sequence[Who], until: float | None, lost: dict[int, str]) -> Iterator[Finished]:
    for who in wanted:
        if _late(until):
            return
        try:
            yield compute_patient(work, who)
        except SpokewiseError as error:
            lost[who.number] = str(error)


def _work(pipe: Any) -> None:
    """Compute what comes through a pipe until it says None; die with the process that began this one."""
    import torch

    torch.set_num_threads(1)
    parent = parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        threading.Thread(target=lambda: (connection.wait([sentinel]), os._exit(1)), daemon=True).start()
    with suppress(EOFError, OSError):  # nobody is there any more
        while (task := pipe.recv()) is not None:
            try:
                answer: Finished | str = compute_patient(*task)
            except Exception as error:
                answer = f"{type(error).__name__}: {one_line(error)}"
            pipe.send(answer)


class _Worker:
    """One process and the patient that it has."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other,), daemon=True)
        # What the numerical libraries read when they are loaded.
        before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        try:
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        other.close()
        self.who: Who | None = None

    def give(self, work: Work, who: Who) -> None:
        self.who = who
        self.pipe.send((work, who))

    def end(self) -> None:
        if self.who is None:
            with suppress(OSError):
                self.pipe.send(None)
            self.process.join(1)
        self.process.terminate()
        self.process.join(5)
        self.pipe.close()


def _side_by_side(
    work: Work, wanted: Sequence[Who], workers: int, until: float | None, lost: dict[int, str]
) -> Iterator[Finished]:
    waiting, tries = deque(wanted), dict.fromkeys((who.number for who in wanted), 0)
    busy: list[_Worker] = []

    def feed(worker: _Worker) -> bool:
        if not waiting or _late(until):
            return False
        worker.give(work, waiting.popleft())
        return True

    try:
        for _ in range(min(workers, len(waiting))):
            worker = _Worker()
            busy.append(worker)
            if not feed(worker):
                break
        while any(worker.who is not None for worker in busy):
            ready = connection.wait([worker.pipe for worker in busy if worker.who is not None])
            for worker in [worker for worker in busy if worker.pipe in ready]:
                who, worker.who = worker.who, None
                assert who is not None
                try:
                    answer = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.end()
                    busy.remove(worker)
                    tries[who.number] += 1
                    if tries[who.number] < _TRIES:
                        waiting.append(who)
                    else:
                        lost[who.number] = "its worker was lost twice"
                    if waiting and not _late(until):
                        worker = _Worker()
                        busy.append(worker)
                        feed(worker)
                    continue
                if isinstance(answer, Finished):
                    yield answer
                else:
                    lost[who.number] = str(answer)
                feed(worker)
    finally:
        for worker in busy:
            worker.end()


def _on_cluster(
    work: Work, wanted: Sequence[Who], scheduler: str, until: float | None, lost: dict[int, str]
) -> Iterator[Finished]:
    try:
        from dask.distributed import Client, as_completed
    except ImportError:
        raise UsageError("Dask is not installed", expected="pip install 'spokewise[study]'") from None
    try:
        client = Client(scheduler, timeout="30s", set_as_default=False)
    except OSError as error:
        raise UsageError(
            f"no scheduler answers at {scheduler} ({one_line(error)})", expected="tcp://HOST:PORT"
        ) from None
    with client:
        waiting = deque(wanted)
        # A few more than are worked on: what has begun when time is up is waited for.
        running: dict[Any, Who] = {}
        done = as_completed(loop=client.loop)

        def feed() -> None:
            room = 2 * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
            while waiting and len(running) < room and not _late(until):
                who = waiting.popleft()
                future = client.submit(compute_patient, work, who, pure=False, retries=_TRIES - 1)
                running[future] = who
                done.add(future)

        feed()
        for future in done:
            who = running.pop(future)
            failed = future.exception()
            if failed is None:
                yield future.result()
            else:
                lost[who.number] = f"{type(failed).__name__}: {one_line(failed)}"
            future.release()
            feed()
