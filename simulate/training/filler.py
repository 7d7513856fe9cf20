"""A process beside a training that draws what it will learn from."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch

from kspace.errors import SpokewiseError


class Filler:
    """Runs a function in a process of its own, for as long as it takes or the training lasts.

    Parameters
    ----------
    draw, arguments
        What it calls; both go to the process by pickle. One thread.
    """

    def __init__(self, draw: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_run, args=(draw, *arguments), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.join()

    def wait(self, path: Path) -> None:
        """Return when a file is there.

        Raises
        ------
        SpokewiseError
            When the process has ended without it.
        """
        while not path.exists():
            ended = not self._process.is_alive()  # asked first: its last file may come in between
            if ended and not path.exists():
                raise SpokewiseError(
                    f"drawing patients ended before {path.name} was there (exit code {self._process.exitcode})",
                    hint="Start the same training again: it goes on",
                )
            time.sleep(0.2)


def _run(draw: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    try:
        draw(*arguments)
    except (SpokewiseError, OSError) as error:
        sys.exit(f"drawing patients: {error}")
