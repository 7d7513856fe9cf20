from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kspace.errors import InputError, UsageError
from simulate.study import run as engine
from simulate.study.protocol import Protocol
from simulate.study.run import run_study
from simulate.study.store import FILE, Finished, Store, key_of

_PATIENTS = 30
_CHILD = """
import sys
from pathlib import Path
from simulate.study.protocol import Protocol
from simulate.study.run import run_study
from simulate.study.store import Store
if __name__ == "__main__":
    protocol = Protocol(method="pretend", n_slices=3, frames=6)
    print("began", flush=True)
    run_study(Store(Path(sys.argv[1])), protocol, int(sys.argv[2]), workers=int(sys.argv[3]))
"""


def table(folder: Path, key: str) -> list[tuple[int, bytes]]:
    with sqlite3.connect(folder / FILE) as database:
        query = "SELECT number, trajectory FROM patients WHERE key = ? ORDER BY number"
        return list(database.execute(query, (key,)))


def begin(folder: Path, n_patients: int, workers: int) -> subprocess.Popen[str]:
    script = folder.parent / "child.py"
    script.write_text(_CHILD)
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(n_patients), str(workers)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_same_seed_gives_the_same_table_and_another_seed_another(tmp_path: Path, pretended: Protocol) -> None:
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    first, second = run_study(one, pretended, 5), run_study(other, pretended, 5)
    assert first.finished == 5
    assert table(tmp_path / "one", first.key) == table(tmp_path / "other", second.key)
    third = run_study(other, pretended, 5, seed=1)
    assert third.key != first.key
    assert table(tmp_path / "other", third.key) != table(tmp_path / "other", second.key)


def test_nothing_is_computed_twice(tmp_path: Path, pretended: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    store, computed = Store(tmp_path), []
    real = engine.compute_patient

    def counted(work: engine.Work, who: object) -> Finished:
        found = real(work, who)  # type: ignore[arg-type]
        computed.append(found.number)
        return found

    monkeypatch.setattr(engine, "compute_patient", counted)
    run_study(store, pretended, 4)
    outcome = run_study(store, pretended, 7)
    assert computed == list(range(7))
    assert (outcome.known, outcome.finished) == (4, 3)
    assert [number for number, _ in store.trajectories(outcome.key)] == list(range(7))


def test_a_study_killed_at_any_moment_goes_on_to_the_same_table(tmp_path: Path, pretended: Protocol) -> None:
    whole = run_study(Store(tmp_path / "whole"), pretended, _PATIENTS)
    chance = random.Random(4)
    folder = tmp_path / "killed"
    kept = 0
    for _ in range(2):
        child = begin(folder, _PATIENTS, workers=1)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.uniform(0.05, 0.5))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        now = len(Store(folder).numbers(whole.key))
        assert now >= kept
        kept = now
    outcome = run_study(Store(folder), pretended, _PATIENTS)
    assert outcome.known == kept
    assert table(folder, whole.key) == table(tmp_path / "whole", whole.key)


def test_a_lost_worker_costs_only_its_patient(
    tmp_path: Path, pretended: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = []

    def kill(finished: Finished) -> None:
        if not killed:
            workers = [w for w in made if w.who is not None]
            killed.append(workers[0].process.pid)
            workers[0].process.kill()

    made: list[engine._Worker] = []

    class Noted(engine._Worker):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(engine, "_Worker", Noted)
    outcome = run_study(Store(tmp_path), pretended, 12, workers=2, on_patient=kill)
    assert killed
    assert outcome.lost == {}
    whole = run_study(Store(tmp_path / "whole"), pretended, 12)
    assert table(tmp_path, outcome.key) == table(tmp_path / "whole", whole.key)


def test_time_that_is_up_begins_no_patient(tmp_path: Path, pretended: Protocol) -> None:
    outcome = run_study(Store(tmp_path), pretended, 5, minutes=0)
    assert outcome.finished == 0
    assert not outcome.lost


def test_other_protocols_share_the_file_and_do_not_mix(tmp_path: Path, pretended: Protocol) -> None:
    store = Store(tmp_path)
    one = run_study(store, pretended, 2)
    other = run_study(store, pretended.model_copy(update={"frames": 8}), 3)
    assert len(store.trajectories(one.key)) == 2
    assert len(store.trajectories(other.key)) == 3
    assert set(store.studies()) == {one.key, other.key}


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(InputError, match="SQLite"):
        Store(tmp_path)


def test_a_study_of_nobody_is_refused(tmp_path: Path, pretended: Protocol) -> None:
    with pytest.raises(UsageError):
        run_study(Store(tmp_path), pretended, 0)


@pytest.mark.parametrize("name", ["_ENGINE", "POPULATION_VERSION"])
def test_engine_and_population_are_part_of_the_key(
    name: str, pretended: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simulate.study import store

    before = key_of(pretended, 0)
    monkeypatch.setattr(store, name, 99)
    assert key_of(pretended, 0) != before


def test_two_dask_workers_of_which_one_is_killed(tmp_path: Path, pretended: Protocol) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        killed = []

        def kill(finished: Finished) -> None:
            if not killed:
                pid = next(iter(cluster.workers.values())).pid
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

        outcome = run_study(Store(tmp_path), pretended, 12, scheduler=cluster.scheduler_address, on_patient=kill)
    assert killed
    assert outcome.lost == {}
    whole = run_study(Store(tmp_path / "whole"), pretended, 12)
    assert table(tmp_path, outcome.key) == table(tmp_path / "whole", whole.key)
