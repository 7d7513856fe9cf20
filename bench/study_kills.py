"""Is a study that was killed the same as one that ran through? Tried again and again: ``python -m bench.study_kills``.

A study of pretended patients is begun in a process of its own and gets SIGKILL at a random moment, one to three times;
then it goes on to its end. Every row has to be the same, byte by byte, as in a study that nobody disturbed.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from simulate.study.protocol import PRETEND, Protocol
from simulate.study.run import run_study
from simulate.study.store import Store

PATIENTS = 40
PROTOCOL = Protocol(method=PRETEND, n_slices=3, frames=6)


def begin(folder: Path) -> subprocess.Popen[str]:
    """Begin the study in another process; return when it is about to compute."""
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.study_kills", "--child", str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    return child


def rows(folder: Path, key: str) -> list[tuple[int, bytes]]:
    """Return all patients of a study as they are stored."""
    return [(number, one.to_bytes()) for number, one in Store(folder).trajectories(key)]


def main() -> None:
    """Kill and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path)
    options = parser.parse_args()
    if options.child is not None:
        print("began", flush=True)
        run_study(Store(options.child), PROTOCOL, PATIENTS)
        return
    chance = random.Random(options.seed)
    same = 0
    with tempfile.TemporaryDirectory() as name:
        whole = run_study(Store(Path(name) / "whole"), PROTOCOL, PATIENTS)
        expected = rows(Path(name) / "whole", whole.key)
        for number in range(options.times):
            folder, kept = Path(name) / str(number), []
            for _ in range(chance.randint(1, 3)):
                child = begin(folder)
                time.sleep(chance.uniform(0, 1.2))
                child.send_signal(signal.SIGKILL)
                child.communicate()
                kept.append(len(Store(folder).numbers(whole.key)))
            outcome = run_study(Store(folder), PROTOCOL, PATIENTS)
            equal = rows(folder, whole.key) == expected and outcome.known == kept[-1]
            same += equal
            print(f"{number}: killed after {kept} of {PATIENTS} patients, {'the same' if equal else 'NOT the same'}",
                  flush=True)  # fmt: skip
    print(f"{same} of {options.times} the same")
    sys.exit(same != options.times)


if __name__ == "__main__":
    main()
