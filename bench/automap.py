"""dAUTOMAP as published beside AUTOMAP, on virtual patients: ``python bench/automap.py --cache DIR --out DIR``.

Trains on the CPU, against the clock, and prints the table of docs/automap.md: PSNR and SSIM of the magnitude on frames
of patients that were never trained on, beside the zero-filled image. A run that is broken off goes on where it was.

Each network is trained in two parts. The convolutions cost nearly all of a step, and learn nothing before the
transform has learnt to form an image; so the transform is trained alone first, in a small part of a step's time, and
then everything together. One that starts as the inverse transform needs no first part. All data are synthetic.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.automap_data import Batch, Scan, frames_of, turned
from kspace.formats.files import atomic_json
from kspace.metrics import psnr, ssim
from kspace.recon.networks.automap import Automap
from kspace.recon.networks.dautomap import DAutomap
from simulate.training.dataset import Split
from simulate.training.options import TrainingOptions
from simulate.training.trainer import TrainingStatus, train

TRAIN, VALIDATION, TEST = (250, 8), (16, 4), (25, 4)  # patients, frames of each
TEST_SNR = (25.0, 25.0)
SPOKES = {128: 32, 64: 16}


@dataclass(frozen=True)
class Run:
    """One network on one scan.

    Parameters
    ----------
    network
        ``dautomap`` (random start), ``dautomap-fourier`` (starts as the inverse transform) or ``automap``.
    n
        Rows and columns.
    radial
        Golden-angle spokes, gridded, instead of Cartesian lines.
    minutes
        For the transform alone, and for everything together.
    rates
        Learning rates of the two parts.
    batches
        Frames a step of the two parts.
    windows
        Whether everything together is trained on a random quarter of each image, which costs the convolutions less.
    """

    network: str
    n: int
    radial: bool
    minutes: tuple[float, float]
    rates: tuple[float, float] = (1e-2, 2e-3)
    batches: tuple[int, int] = (16, 4)
    windows: bool = False

    @property
    def name(self) -> str:
        return f"{self.network}-{self.n}-{'radial' if self.radial else 'cartesian'}"

    def scan(self, snr: tuple[float, float] = (15.0, 40.0)) -> Scan:
        return Scan(self.n, SPOKES[self.n] if self.radial else 0, snr)

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        if self.network == "automap":
            return Automap(self.n)
        if self.network == "dautomap":
            return DAutomap((self.n, self.n))
        model = DAutomap((self.n, self.n), start="fourier")
        gain = self.scan().axis_gain
        with torch.no_grad():
            for step in (model.first.rows, model.first.columns):
                step.weight /= gain[:, None]
        return model


RUNS = (
    Run("dautomap", 128, False, (5, 7), windows=True),
    Run("dautomap-fourier", 128, False, (0, 7), rates=(0, 3e-4), batches=(0, 2)),
    Run("dautomap-fourier", 128, True, (0, 5), rates=(0, 3e-4), batches=(0, 2)),
    Run("automap", 64, False, (3, 2), rates=(1e-3, 5e-4), batches=(64, 16)),
    Run("dautomap", 64, False, (2, 2.5), batches=(32, 8)),
)


class Reconstruct:
    """Learns truth from input; the transform alone, or all of the network."""

    def __init__(self, run: Run, model: nn.Module, cache: Path, *, whole: bool) -> None:
        self.name = f"{run.name}-{'whole' if whole else 'transform'}"
        self.run, self.model, self.whole, self.size = run, model, whole, run.batches[whole]
        self.scan = run.scan()
        self.frames = self.scan.fine(frames_of(cache, Split.TRAIN, *TRAIN))
        held_out = self.scan.fine(frames_of(cache, Split.VALIDATION, *VALIDATION))[::2]
        generator = torch.Generator().manual_seed(1)
        self.held_out = [self.scan.batch(part, generator) for part in held_out.split(8)]

    def image(self, kspace: Tensor, window: tuple[slice, slice]) -> Tensor:
        """Return a window of what this part makes of k-space; the convolutions work on the window alone."""
        rows, columns = window
        if isinstance(self.model, Automap):
            seen = self.model.transform(kspace)[:, None, rows, columns]
            # Alone, the dense part's output is half of the image, which tanh keeps below one.
            return self.model.refine(seen)[:, 0] if self.whole else 2 * seen[:, 0]
        seen = self.model.transform(kspace)[:, :, rows, columns]
        # Alone, the transform makes the image plus an offset that will carry negative parts past the ReLU.
        channels = self.model.refine(torch.relu(seen)) if self.whole else seen - 1
        return torch.complex(channels[:, 0], channels[:, 1])

    def error(self, batch: Batch, window: tuple[slice, slice] = (slice(None), slice(None))) -> Tensor:
        """Return the square of the error in a window over that of the whole truth, per pixel."""
        truth = batch.truth.abs() if isinstance(self.model, Automap) else batch.truth
        error = self.image(batch.kspace, window) - truth[:, window[0], window[1]]
        return error.abs().square().mean() / truth.abs().square().mean()

    def loss(self, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(10_000_000 + step)
        chosen = torch.randint(len(self.frames), (self.size,), generator=generator)
        batch = self.scan.batch(turned(self.frames[chosen], generator), generator)
        if not (self.whole and self.run.windows):
            return self.error(batch)
        half = self.run.n // 2
        row, column = torch.randint(half + 1, (2,), generator=generator).tolist()
        return self.error(batch, (slice(row, row + half), slice(column, column + half)))

    def validate(self) -> float:
        return fmean(float(self.error(batch)) for batch in self.held_out)


def learn(run: Run, cache: Path, out: Path, share: float, console: Console) -> tuple[nn.Module, dict[str, float]]:
    """Train both parts, or go on with them, and return the best network and what it cost."""
    model = run.model()
    cost: dict[str, float] = {}
    for whole in (False, True):
        if run.minutes[whole] == 0:
            continue
        task = Reconstruct(run, model, cache, whole=whole)
        options = TrainingOptions(
            share * run.minutes[whole], run.rates[whole], warmup_steps=30, validate_every=50, clip_norm=1.0
        )

        def tell(status: TrainingStatus, name: str = task.name) -> None:
            if status.point is not None:
                point = status.point
                console.print(
                    f"{name}: step {point.step} of {status.n_steps}, {point.seconds:.0f} s, "
                    f"loss {point.train_loss:.4f}, validation {point.validation:.4f}"
                )

        result = train(task, options, out / task.name, on_step=tell)
        if result.reason == "interrupted":
            raise SystemExit("interrupted; the same command goes on")
        assert result.weights is not None
        model.load_state_dict(load_file(result.weights))
        part = "whole" if whole else "transform"
        cost |= {f"{part}_steps": result.steps, f"{part}_s": result.seconds, f"{part}_validation": result.best}
    return model, cost


def judge(run: Run, model: nn.Module, cache: Path) -> dict[str, float]:
    """Return median PSNR in dB and SSIM over the test frames, of the network and of the zero-filled image."""
    scan = run.scan(TEST_SNR)
    frames = scan.fine(frames_of(cache, Split.TEST, *TEST))
    generator = torch.Generator().manual_seed(2)
    figures: dict[str, list[float]] = {key: [] for key in ("psnr", "ssim", "zero_psnr", "zero_ssim")}
    model.eval()
    with torch.no_grad():
        for part in frames.split(10):
            batch = scan.batch(part, generator)
            images = {"": model(batch.kspace), "zero_": batch.zero_filled}
            for kind, image in images.items():
                # A gridded image has no scale of its own: it gets the best one. The network's scale is its own.
                free = kind == "zero_"
                for one, truth in zip(image, batch.truth, strict=True):
                    figures[f"{kind}psnr"].append(float(psnr(one, truth, rescale=free)))
                    figures[f"{kind}ssim"].append(float(ssim(one, truth, rescale=free)))
    return {key: median(values) for key, values in figures.items()}


def table(rows: list[dict[str, float | str]]) -> str:
    """Return the rows as Markdown."""
    head = "network | matrix | k-space | parameters | minutes | steps | zero-filled | network's"
    lines = [f"| {head} |", "|" + " --- |" * 8]
    for row in rows:
        minutes = (float(row.get("transform_s", 0)) + float(row["whole_s"])) / 60
        lines.append(
            f"| {row['network']} | {row['n']} | {row['kspace']} | {int(row['parameters']):,} | {minutes:.1f} "
            f"| {row.get('transform_steps', 0)} + {row['whole_steps']} "
            f"| {row['zero_psnr']:.1f} / {row['zero_ssim']:.2f} "
            f"| {row['psnr']:.1f} / {row['ssim']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for drawn frames (0.3 GB)")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and results")
    parser.add_argument("--minutes", type=float, help="for all runs together; by default the sum of their own")
    parser.add_argument("--runs", nargs="+", choices=[run.name for run in RUNS], default=[run.name for run in RUNS])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(stderr=True)
    chosen = [run for run in RUNS if run.name in arguments.runs]
    share = (arguments.minutes or sum(sum(run.minutes) for run in chosen)) / sum(sum(run.minutes) for run in chosen)
    rows: list[dict[str, float | str]] = []
    for run in chosen:
        model, cost = learn(run, arguments.cache, arguments.out, share, console)
        row: dict[str, float | str] = {"network": run.network, "n": run.n}
        row["kspace"] = f"{SPOKES[run.n]} spokes" if run.radial else "Cartesian R = 2"
        row["parameters"] = sum(p.numel() for p in model.parameters())
        rows.append(row | cost | judge(run, model, arguments.cache))
        atomic_json(arguments.out / f"{run.name}.json", rows[-1])
    print(table(rows))


if __name__ == "__main__":
    main()
