"""Finished patients on disk: one SQLite file, one row a patient, written at once and never computed again.

What a row belongs to is named by its key: a hash of the protocol, the study's seed, the version of the virtual patients
and the weights of all networks that took part. A study with another protocol, of other hearts or after new weights can
share the file and does not mix with it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from kspace.errors import InputError
from kspace.formats.files import one_line
from kspace.quality.trajectory import Trajectory
from kspace.recon.methods import make_method, weights_of
from kspace.segment.networks import members
from kspace.weights.store import read_card
from simulate.patient.population import POPULATION_VERSION
from simulate.study.protocol import PRETEND, Protocol

FILE = "study.sqlite"
"""Name of the file in a study's folder."""
_ENGINE = 1  # to be raised when the same protocol gives other trajectories
_TABLES = """
CREATE TABLE IF NOT EXISTS studies (key TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS patients (
    key TEXT NOT NULL, number INTEGER NOT NULL, trajectory BLOB NOT NULL,
    core_s REAL NOT NULL, rss_mb REAL NOT NULL, PRIMARY KEY (key, number)
);
"""


@dataclass(frozen=True)
class Finished:
    """One patient that was computed.

    Parameters
    ----------
    number
        In the study.
    trajectory
        As :meth:`kspace.quality.trajectory.Trajectory.to_bytes` gives it.
    core_s
        Processor time that it took.
    rss_mb
        Memory of the process after it, in MB.
    """

    number: int
    trajectory: bytes
    core_s: float
    rss_mb: float


def facts_of(protocol: Protocol, seed: int) -> dict[str, object]:
    """Return what decides what comes out: protocol, seed, patients, and the networks' weights by name and hash."""
    names: list[str] = []
    if protocol.method != PRETEND:
        shipped = weights_of(make_method(protocol.method))
        names = [*([shipped.split(" ")[0]] if shipped else []), *members()[: protocol.members]]
    weights = {name: read_card(name).sha256 for name in names}
    return {
        "engine": _ENGINE,
        "population": POPULATION_VERSION,
        "seed": seed,
        "protocol": protocol.model_dump(mode="json"),
        "weights": weights,
    }


def key_of(protocol: Protocol, seed: int) -> str:
    """Return the key of a study."""
    return hashlib.sha256(json.dumps(facts_of(protocol, seed), sort_keys=True).encode()).hexdigest()[:16]


class Store:
    """A study's file.

    Parameters
    ----------
    folder
        Where it lies; made when missing.

    Raises
    ------
    InputError
        When the folder or the file cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be made ({error.strerror})", expected="a folder for the study"
            ) from error
        self.path = folder / FILE
        with self._open() as database:
            database.executescript(_TABLES)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise InputError(
                f"{self.path}: {one_line(error)}", expected="a study's SQLite file that is whole"
            ) from error

    def register(self, protocol: Protocol, seed: int) -> str:
        """Note a study; return its key."""
        key = key_of(protocol, seed)
        with self._open() as database:
            facts = json.dumps(facts_of(protocol, seed), sort_keys=True)
            database.execute("INSERT OR IGNORE INTO studies VALUES (?, ?)", (key, facts))
        return key

    def add(self, key: str, finished: Finished) -> None:
        """Keep a patient; one that is there stays."""
        row = (key, finished.number, finished.trajectory, finished.core_s, finished.rss_mb)
        with self._open() as database:
            database.execute("INSERT OR IGNORE INTO patients VALUES (?, ?, ?, ?, ?)", row)

    def numbers(self, key: str) -> set[int]:
        """Return which patients are there."""
        with self._open() as database:
            return {row[0] for row in database.execute("SELECT number FROM patients WHERE key = ?", (key,))}

    def trajectories(self, key: str) -> list[tuple[int, Trajectory]]:
        """Return all patients of a study in the order of their numbers.

        Raises
        ------
        InputError
            When a row is no trajectory.
        """
        with self._open() as database:
            query = "SELECT number, trajectory FROM patients WHERE key = ? ORDER BY number"
            return [(number, Trajectory.from_bytes(content)) for number, content in database.execute(query, (key,))]

    def costs(self, key: str) -> list[tuple[int, float, float]]:
        """Return (number, seconds of processor time, MB) in the order in which patients were finished."""
        with self._open() as database:
            query = "SELECT number, core_s, rss_mb FROM patients WHERE key = ? ORDER BY rowid"
            return [(int(n), float(s), float(m)) for n, s, m in database.execute(query, (key,))]

    def card_facts(self, key: str) -> dict[str, JsonValue]:
        """Return what the promise of a rule that a study calibrated depends on: protocol and weights."""
        facts: Any = self.studies()[key]
        return {**facts["protocol"], "weights": facts["weights"]}

    def studies(self) -> dict[str, dict[str, object]]:
        """Return the facts of every study in the file by its key."""
        with self._open() as database:
            return {key: json.loads(facts) for key, facts in database.execute("SELECT key, facts FROM studies")}
