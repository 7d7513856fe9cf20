"""One honest run: seconds, whether something else used the processor meanwhile, and the memory it needed.

Where the kernel's counters are missing (not Linux), a run is timed all the same and the rest says that it is not known.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """Seconds of a run, and processor seconds that others used meanwhile; None where that cannot be known."""

    seconds: float
    foreign_s: float | None

    @property
    def clean(self) -> bool:
        """Whether the machine was ours but for 5 % of one processor, and for what the counters cannot resolve."""
        return self.foreign_s is None or self.foreign_s <= 0.03 + 0.05 * self.seconds


def timed(function: Callable[[], Any]) -> tuple[Any, Run]:
    """Call a function and return what it returned, and how it went."""
    busy, own = _busy_s(), _own_s()
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    now = _busy_s()
    foreign = None if busy is None or now is None else max(0.0, now - busy - (_own_s() - own))
    return result, Run(seconds, foreign)


def wait_idle(limit_s: float) -> float:
    """Wait until the machine is quiet, at most so long, and return how long that took."""
    start = time.perf_counter()
    while time.perf_counter() - start < limit_s:
        if timed(lambda: time.sleep(0.25))[1].clean:
            break
    return time.perf_counter() - start


def summary(seconds: list[float]) -> dict[str, float]:
    """Return median, quartile distance and minimum."""
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else (seconds[0],) * 3
    return {"median_s": statistics.median(seconds), "spread_s": high - low, "min_s": min(seconds)}


def memory_mib(key: str) -> float | None:
    """Return ``VmRSS`` or ``VmHWM`` of this process."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def reset_peak() -> bool:
    """Let the peak memory start again from what is used now; return whether that was possible."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _busy_s() -> float | None:
    """Return the processor seconds of the whole machine since it started."""
    try:
        fields = [int(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return None
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
