"""Our own operators under pytest-benchmark: ``pytest bench --benchmark-enable`` (not a part of the tests)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.speed.ours import Ours
from bench.speed.problem import Problem, Size

SIZES = {"small": Size(64, 5, 4, 13), "full": Size(192, 25, 8, 13)}


@pytest.fixture(scope="module", params=list(SIZES))
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    folder: Path = tmp_path_factory.mktemp("speed")
    yield Ours(Problem(SIZES[request.param], folder), torch.get_num_threads())
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("job", ["forward", "adjoint", "normal", "cs", "update"])
def test_speed(ours: Ours, job: str, benchmark: Any) -> None:
    cases = ours.cases(job)
    case = cases.get("toeplitz", next(iter(cases.values())))

    def ready() -> None:
        if case.before is not None:
            case.before()

    result = benchmark.pedantic(lambda: case.run(ours.frames), setup=ready, rounds=3, warmup_rounds=1)
    if case.reference is not None:
        assert ours.problem.error(case.reference, case.result(result), ours.frames) < 0.3
