from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kspace.errors import InputError, SpokewiseError, UsageError
from simulate.training import trainer
from simulate.training.options import TrainingOptions
from simulate.training.ranks import training_device
from simulate.training.trainer import BEST, CHECKPOINT, TrainingResult, TrainingStatus, train

OPTIONS = TrainingOptions(10, 2e-2, max_steps=40, warmup_steps=4, validate_every=10, ema=0.9, checkpoint_every_s=0)
SHARED = replace(OPTIONS, max_steps=8, validate_every=4, checkpoint_every_s=1000)
Listener = Callable[[TrainingStatus], bool | None]


class Regression:
    """Learns a difference of two numbers, with dropout, whose chance a resumed run must repeat too."""

    name = "regression"

    def __init__(self, width: int = 8, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(2, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(0.1), nn.Linear(width, 1)
        )

    def loss(self, step: int) -> Tensor:
        x = torch.randn(16, 2, generator=torch.Generator().manual_seed(1000 + step))
        error: Tensor = self.model(x)[:, 0] - x[:, 0] + x[:, 1]
        return error.square().mean()

    def validate(self) -> float:
        assert not self.model.training
        assert not torch.is_grad_enabled()
        return float(self.loss(-1))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    """A training that was never interrupted."""
    out = tmp_path_factory.mktemp("whole")
    return out, train(Regression(), OPTIONS, out)


def run(out: Path, options: TrainingOptions = OPTIONS, on_step: Listener | None = None) -> TrainingResult:
    return train(Regression(seed=1), options, out, on_step=on_step)


def assert_same(out: Path, whole: Path) -> None:
    for name in (CHECKPOINT, BEST):
        ours, theirs = load_file(out / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(value, theirs[key]), key
    columns = [
        [line.split(",")[0::2] + line.split(",")[3:] for line in (folder / "curve.csv").read_text().splitlines()]
        for folder in (out, whole)
    ]
    assert columns[0] == columns[1]


def test_it_learns_and_leaves_weights_table_and_picture(whole: tuple[Path, TrainingResult]) -> None:
    out, result = whole
    assert (result.reason, result.steps, result.note) == ("steps", 40, "")
    assert result.weights == out / BEST
    rows = (out / "curve.csv").read_text().splitlines()
    assert rows[0] == "step,seconds,train_loss,validation"
    assert [row.split(",")[0] for row in rows[1:]] == ["10", "20", "30", "40"]
    values = [float(row.split(",")[3]) for row in rows[1:]]
    assert result.best == pytest.approx(min(values), rel=1e-6)
    assert values[-1] < values[0]
    assert (out / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_best_holds_the_average_that_was_validated(whole: tuple[Path, TrainingResult]) -> None:
    task = Regression()
    task.model.load_state_dict(load_file(whole[0] / BEST))
    task.model.eval()
    with torch.no_grad():
        assert task.validate() == whole[1].best


def test_a_run_that_is_killed_goes_on_bit_for_bit(tmp_path: Path, whole: tuple[Path, TrainingResult]) -> None:
    # A process of its own, killed without warning between or in the middle of steps and writes.
    process = subprocess.Popen([sys.executable, __file__, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 12:
            process.kill()
            break
    process.wait()
    process.stdout.close()
    assert (tmp_path / CHECKPOINT).exists()
    done: list[int] = []
    result = run(tmp_path, on_step=lambda status: done.append(status.step))
    assert 12 <= done[0] <= 39
    assert result.steps == 40
    assert_same(tmp_path, whole[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_a_checkpoint(
    number: signal.Signals, tmp_path: Path, whole: tuple[Path, TrainingResult]
) -> None:
    handlers = signal.getsignal(number)
    options = replace(OPTIONS, checkpoint_every_s=1000)

    def interrupt(status: TrainingStatus) -> None:
        if status.step == 13:
            os.kill(os.getpid(), number)

    result = train(Regression(), options, tmp_path, on_step=interrupt)
    assert signal.getsignal(number) == handlers
    assert (result.reason, result.steps) == ("interrupted", 13)
    assert result.weights == tmp_path / BEST
    assert run(tmp_path, options).reason == "steps"
    assert_same(tmp_path, whole[0])


def test_a_half_written_checkpoint_is_ignored(tmp_path: Path, whole: tuple[Path, TrainingResult]) -> None:
    train(Regression(), OPTIONS, tmp_path, on_step=lambda status: status.step == 21)
    content = (tmp_path / CHECKPOINT).read_bytes()
    leftover = tmp_path / f".0a1b2c3d.{CHECKPOINT}"
    leftover.write_bytes(content[: len(content) // 2])
    assert run(tmp_path).steps == 40
    assert not leftover.exists()
    assert_same(tmp_path, whole[0])


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    options = replace(OPTIONS, max_steps=5)
    first = run(tmp_path, options)
    assert run(tmp_path, options, on_step=lambda status: pytest.fail("trained again")).best == first.best


def test_time_ends_a_training_and_still_leaves_the_best(tmp_path: Path) -> None:
    options = replace(OPTIONS, minutes=1e-9, max_steps=1000)
    result = train(Regression(), options, tmp_path, on_step=lambda status: pytest.fail("there is no time"))
    assert (result.reason, result.weights) == ("time", None)
    result = train(Regression(), replace(options, minutes=0.001), tmp_path)
    assert result.reason == "time"
    assert 0 < result.steps < 1000
    assert result.weights == tmp_path / BEST
    again = train(Regression(), replace(options, minutes=0.003), tmp_path)
    assert again.steps > result.steps


def test_steps_are_planned_once_from_the_speed(tmp_path: Path) -> None:
    options = replace(OPTIONS, minutes=0.6 / 60, max_steps=None, warmup_steps=10, checkpoint_every_s=1000)
    plans: list[int | None] = []

    def listen(status: TrainingStatus) -> bool:
        time.sleep(0.005)
        plans.append(status.n_steps)
        return status.step == 20

    assert train(Regression(), options, tmp_path, on_step=listen).reason == "interrupted"
    assert plans[:9] == [None] * 9
    planned = plans[9]
    assert planned is not None
    assert 20 < planned < 200
    listen_again: list[int | None] = []
    train(Regression(), options, tmp_path, on_step=lambda status: listen_again.append(status.n_steps))
    assert set(plans[9:]) == set(listen_again) == {planned}


def test_patience_ends_a_training_that_no_longer_gains(tmp_path: Path) -> None:
    task = Regression()
    task.validate = lambda: 1.0  # type: ignore[method-assign]
    result = train(task, replace(OPTIONS, patience=2, validate_every=3), tmp_path)
    assert (result.reason, result.steps, result.best_step) == ("patience", 9, 3)


def test_a_loss_that_is_lost_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    task = Regression()
    good = task.loss
    task.loss = lambda step: good(step) * (math.nan if step == 6 else 1)  # type: ignore[method-assign]
    with pytest.raises(SpokewiseError, match="the training loss is nan near step 7"):
        train(task, OPTIONS, tmp_path)
    assert all(bool(torch.isfinite(value).all()) for value in load_file(tmp_path / CHECKPOINT).values())


def test_the_learning_rate_rises_and_falls() -> None:
    options = TrainingOptions(1, 2.0, warmup_steps=4, final_share=0.1)
    assert [options.rate(step, 20) for step in (0, 1, 3, 4)] == [0.5, 1.0, 2.0, 2.0]
    assert options.rate(12, 20) == pytest.approx(2 * 0.55)
    assert options.rate(20, 20) == options.rate(99, 20) == pytest.approx(0.2)
    assert options.rate(99, None) == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 5e-3}, "made with learning_rate = 0.02; expected 0.005"),
        ({"seed": 3}, "made with seed = 0; expected 3"),
    ],
)
def test_other_options_are_refused(change: dict[str, float], message: str, tmp_path: Path) -> None:
    run(tmp_path, replace(OPTIONS, max_steps=2))
    with pytest.raises(InputError, match=message):
        run(tmp_path, replace(OPTIONS, max_steps=2, **change))  # type: ignore[arg-type]


def test_other_models_and_foreign_files_are_refused(tmp_path: Path) -> None:
    run(tmp_path, replace(OPTIONS, max_steps=2))
    with pytest.raises(InputError, match=r"of another model: model/0\.weight differs"):
        train(Regression(width=9), replace(OPTIONS, max_steps=2), tmp_path)
    other = Regression()
    other.name = "classification"
    with pytest.raises(InputError, match="is of the task regression; expected classification"):
        train(other, replace(OPTIONS, max_steps=2), tmp_path)
    content = (tmp_path / CHECKPOINT).read_bytes()
    for broken in (content[:100], content[:-8], b"", b"\x80\x04pickle"):
        (tmp_path / CHECKPOINT).write_bytes(broken)
        with pytest.raises(InputError, match="cannot be read"):
            run(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be made \(File exists\)"):
        run(tmp_path / "file")


@pytest.mark.parametrize(
    "change",
    [{"minutes": 0}, {"learning_rate": -1}, {"ema": 1}, {"patience": 0}, {"max_steps": 0}, {"validate_every": 0}],
)
def test_options_without_sense_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(OPTIONS, **change)  # type: ignore[arg-type]


def test_the_callers_chance_is_left_alone(tmp_path: Path) -> None:
    task = Regression()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(task, replace(OPTIONS, max_steps=2), tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_a_rank_trains_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert training_device("cpu") == torch.device("cpu")
    assert training_device("cuda") == torch.device("cuda:3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training_device() == torch.device("cpu")


def test_two_processes_share_each_step(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path / "two"), "plain"],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors

    class Both(Plain):
        def loss(self, step: int) -> Tensor:
            return (super().loss(2 * step) + super().loss(2 * step + 1)) / 2

    train(Both(), SHARED, tmp_path / "one")
    two, one = (load_file(tmp_path / name / CHECKPOINT) for name in ("two", "one"))
    for key, value in one.items():
        assert torch.allclose(two[key], value, atol=1e-6), key


class Plain(Regression):
    """Without what depends on the rank's own chance or batch."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))


def main(out: str, kind: str = "") -> None:
    """Train in a process of its own, slowly enough to be killed, telling each step on standard output."""

    def tell(status: TrainingStatus) -> None:
        print(status.step, flush=True)
        if not kind:
            time.sleep(0.01)

    torch.set_num_threads(1)
    trainer.draw_curve = lambda *_: ""  # type: ignore[attr-defined]  # a picture takes longer than the training
    rank = int(os.environ.get("RANK", "0"))
    task, options = (Plain(seed=rank), SHARED) if kind else (Regression(), OPTIONS)
    result = train(task, options, Path(out), on_step=tell)
    assert result.weights is not None  # on every rank
    assert result.weights.exists()


if __name__ == "__main__":
    main(*sys.argv[1:])
