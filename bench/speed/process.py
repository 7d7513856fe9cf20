"""The other end of a worker: starts it, gives orders, and ends it when it takes too long."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any


class FailedError(Exception):
    """A tool that is missing, broken or too slow: a row, not a crash."""


class Worker:
    """A process of one tool.

    Parameters
    ----------
    first
        The first order, see :mod:`bench.speed.worker`.
    threads
        Threads for whatever reads the usual variables.
    environment
        More variables, which must be there before the process starts.
    """

    def __init__(self, first: dict[str, Any], threads: int, environment: dict[str, str] | None = None) -> None:
        # -P: a file of the same name in the folder that somebody happens to be in is none of ours.
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
        given = os.environ | {name: str(threads) for name in names} | {"PYTHONPATH": path} | (environment or {})
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", "bench.speed.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=given,
        )  # fmt: skip
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._send(first)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _send(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise FailedError("its process has ended") from None

    def answer(self, limit_s: float) -> dict[str, Any]:
        """Return the next answer.

        Raises
        ------
        FailedError
            When the tool says so, has died, or has not answered in time; in the last case it is ended.
        """
        try:
            line = self._answers.get(timeout=limit_s)
        except queue.Empty:
            self.close()
            raise FailedError(f"stopped after {limit_s:g} s") from None
        if not line:
            raise FailedError(f"its process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise FailedError(answer["failed"])
        return answer

    def ask(self, order: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """Give an order and return its answer."""
        self._send(order)
        return self.answer(limit_s)

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
