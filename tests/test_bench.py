"""The benchmark on tiny problems: its references, its ratios, its tables, and what a broken tool comes to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cli
from bench.speed import worker
from bench.speed.floor import floor_seconds, measure_floor
from bench.speed.problem import RIDGE, Problem, Size
from bench.speed.process import FailedError, Worker
from bench.speed.run import BenchOptions, run_bench
from bench.speed.table import make_table, readme_table
from bench.speed.timing import summary
from bench.speed.tool import Case, fewest
from kspace.encoding import Encoding
from kspace.errors import UsageError

SIZE = Size(32, 3, 2, 8)
JOBS = "forward,normal"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("bench")
    return made


@pytest.fixture(scope="module")
def problem(folder: Path) -> Problem:
    return Problem(SIZE, folder)


@pytest.fixture
def ours(problem: Problem, folder: Path) -> Iterator[worker.Bench]:
    threads = torch.get_num_threads()
    yield worker.Bench(worker.OURS, SIZE, folder, threads, "cpu")
    torch.set_grad_enabled(True)
    torch.set_num_threads(threads)


def test_the_references_agree_with_a_direct_sum(problem: Problem) -> None:
    assert float(problem.cached["selfcheck"]) < 1e-9
    assert problem.path.exists()


def test_the_cg_reference_solves_the_regularised_normal_equations(problem: Problem) -> None:
    encoding = Encoding(
        torch.from_numpy(problem.positions), torch.from_numpy(problem.maps).to(torch.complex128), accuracy="reference"
    )
    x = torch.from_numpy(problem.cached["cg-sense"])
    left = encoding.normal(x) + RIDGE * SIZE.diagonal * x
    right = encoding.adjoint(torch.from_numpy(problem.samples).to(torch.complex128))
    assert float((left - right).norm() / right.norm()) < 1e-5


@pytest.mark.parametrize("job", ["forward", "adjoint", "normal", "cg-sense", "cs", "update", "decision"])
def test_every_job_of_ours_is_as_accurate_as_it_says(job: str, ours: worker.Bench) -> None:
    cases = ours.prepare(job)["cases"]
    assert cases
    limits = {"forward": 1e-4, "adjoint": 1e-4, "normal": 1e-4}
    for name in cases:
        answer = ours.run(name, SIZE.frames, score=True)
        assert answer["seconds"] > 0
        limit = answer["extra"].get("target", 0.3)
        if "error" in answer:
            assert answer["error"] <= limits.get(job, 1.1 * limit), name


def test_an_error_is_seen(problem: Problem) -> None:
    forward = np.zeros((SIZE.frames, SIZE.coils, SIZE.spokes, SIZE.readout), complex)
    assert problem.error("forward", forward, SIZE.frames) == pytest.approx(1.0)
    assert problem.error("truth", 1.5 * problem.images, SIZE.frames) == pytest.approx(0.5)


def test_the_fewest_iterations_are_found_or_their_lack_is_said() -> None:
    assert fewest(lambda n: 1 / n, 1 / 40) == (40, True)
    assert fewest(lambda n: 0.5, 0.1)[1] is False


def test_a_failing_case_is_an_answer(ours: worker.Bench) -> None:
    def broken(frames: int) -> Any:
        raise RuntimeError("no such luck")

    ours.cases = {"": Case(broken)}
    answer = ours.obey({"do": "run", "case": "", "frames": 1, "score": False})
    assert answer == {"failed": "RuntimeError: no such luck"}


def test_a_worker_that_cannot_start_says_why(folder: Path) -> None:
    order = {"do": "start", "tool": "nobody", "size": vars(SIZE), "folder": str(folder), "threads": 1, "device": "cpu"}
    process = Worker(order, 1)
    try:
        with pytest.raises(FailedError, match="nobody"):
            process.answer(60)
    finally:
        process.close()


def test_the_floor_is_made_of_what_was_measured(problem: Problem) -> None:
    parts = measure_floor(problem, 1, "cpu", 0.0)
    assert parts["fft_padded"]["seconds"] == min(parts["fft_padded"]["all"].values())
    found = floor_seconds("toeplitz", parts, SIZE, {})
    assert found is not None
    assert found[0] == 2 * parts["fft_padded"]["seconds"]


def test_spread_is_the_distance_of_the_quartiles() -> None:
    assert summary([1.0, 2.0, 3.0, 4.0, 5.0]) == {"median_s": 3.0, "spread_s": 2.0, "min_s": 1.0}


def test_a_peer_that_fails_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no bart
    options = BenchOptions((32,), 3, (2,), (8,), ("forward",), peers="bart", repeats=1, patience_s=0, threads=1)
    record = run_bench(options, tmp_path)
    failed = [row for row in record["rows"] if row["tool"] == "bart"]
    assert [row["failed"] for row in failed] == ["ModuleNotFoundError: bart is not installed"]
    assert "bart is not installed" in make_table(record)
    assert any("median_s" in row for row in record["rows"])


def test_the_command_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", "--quick", "--peers", "none", "--jobs", JOBS, "--out", str(tmp_path), "--json"])
    assert not stop.value.code
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "bench.json").read_text())
    assert record["schema"] == 1
    assert {"cpu", "processors", "system"} <= set(record["hardware"])
    assert record["versions"]["torch"]
    for row in record["rows"]:
        assert row["median_s"] > 0
        assert row["error"] < 1e-4
        assert row["ratio_to_ours"] >= 1
        assert row["ratio_to_floor"] > 0
    assert "### normal, N32-T3-C2-S8" in (tmp_path / "bench.md").read_text()
    assert "| forward | 8 |" in readme_table(tmp_path / "bench.json", matrix=32, coils=2)


@pytest.mark.parametrize("wrong", [{"peers": "nobody"}, {"jobs": ("sleep",)}, {"matrices": (33,)}, {"repeats": 0}])
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BenchOptions(**wrong)
