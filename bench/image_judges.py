"""Judges that look at images, beside the linear ones that look at numbers, on test patients of a stored study.

    python -m bench.image_judges STUDY_FOLDER --out FOLDER [--steps 1500] [--references 8] [--reverse-patients 20]

Synthetic patients of a study that kept its images (``spokewise study --keep-images``). Two classifiers after Machado et
al. (images good, labels good) learn from most of the study's fit patients; the others choose when learning was best.
Reverse classification accuracy takes its references from all fit patients. All figures are of test patients.
Networks, and what was said of each patient, are kept in the folder: a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits

from bench.stored import Parts, parts_of
from kspace.formats.files import atomic_text, written_beside
from kspace.quality.figures import auroc, correlation, expected_calibration_error
from kspace.quality.image_judge import ImageJudge, judge_inputs
from kspace.quality.policies.policy import Policy, excess_at, run
from kspace.quality.policies.two_classifiers import NETWORK_SCORES, TwoClassifiers, TwoNetworks
from kspace.quality.predictors import DICES, FitOptions, SliceRows, fit_predictors, mean_dice, slice_rows
from kspace.quality.reverse import reverse_dice
from kspace.quality.trajectory import Array, Trajectory
from simulate.study.seen import IMAGES, Seen, path_of

_NAMES = ("image", "labels")
_CHOOSE = 5  # of so many fit patients one chooses


@dataclass(frozen=True)
class Lessons:
    """Slices at steps: what a judge sees of some frames, and whether it is good.

    Parameters
    ----------
    inputs
        (case, frame, 6, y, x) float16.
    image, labels
        (case,) 0 or 1; NaN where there is nothing to judge.
    """

    inputs: Tensor
    image: Tensor
    labels: Tensor


def seen_of(folder: Path, one: Trajectory) -> Seen:
    """Return the images of a study's patient."""
    return Seen.read(path_of(folder, int(one.facts["number"])))


def cases(seen: Seen) -> Iterator[Tensor]:
    """Yield (frame, 6, y, x) of every slice after every step, steps first."""
    for images, labels in zip(seen.images, seen.labels, strict=True):
        for frames, drawn in zip(images, labels, strict=True):
            yield judge_inputs(torch.from_numpy(frames), torch.from_numpy(drawn))


def lessons(folder: Path, patients: Sequence[Trajectory], options: FitOptions, frames: slice) -> Lessons:
    """Return what there is to learn from some patients."""
    inputs, image, labels = [], [], []
    for one in patients:
        rows = slice_rows([one])
        inputs += [case[frames].half() for case in cases(seen_of(folder, one))]
        good = goodness(rows, options)
        image.append(torch.from_numpy(good["image"]).float())
        labels.append(torch.from_numpy(good["labels"]).float())
    return Lessons(torch.stack(inputs), torch.cat(image), torch.cat(labels))


def goodness(rows: SliceRows, options: FitOptions) -> dict[str, Array]:
    """Return (row,) 0 or 1 for images and for labels, NaN where there is nothing to judge."""
    error, dice = rows.truth["heart_nrmse"], mean_dice(rows)
    return {
        "image": np.where(np.isfinite(error), error <= options.good.nrmse, np.nan),
        "labels": np.where(np.isfinite(dice), dice >= options.good.dice, np.nan),
    }


def learn(taught: Lessons, chosen_on: Lessons, which: str, steps: int, path: Path, seed: int = 0) -> ImageJudge:
    """Return a judge, learnt or read if it is there."""
    torch.manual_seed(seed)
    judge = ImageJudge(labels=which == "labels")
    if path.exists():
        judge.load_state_dict(load_file(path))
        return judge.eval()
    good = getattr(taught, which)
    known = torch.nonzero(torch.isfinite(good))[:, 0]
    optimiser = torch.optim.AdamW(judge.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    best, weights = np.inf, {name: value.clone() for name, value in judge.state_dict().items()}
    for step in track(range(steps), f"classifier of {which}"):
        picked = known[torch.randint(len(known), (32,))]
        frame = torch.randint(taught.inputs.shape[1], (32,))
        inputs = _turned(taught.inputs[picked, frame, : judge.channels].float())
        loss = binary_cross_entropy_with_logits(judge(inputs), good[picked])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 99 or step == steps - 1:
            said = torch.cat([_odds(judge, case) for case in chosen_on.inputs.float()])
            truth = getattr(chosen_on, which)
            there = torch.isfinite(truth)
            off = float(binary_cross_entropy_with_logits(said[there], truth[there]))
            if off < best:
                best, weights = off, {name: value.clone() for name, value in judge.state_dict().items()}
    with written_beside(path) as temporary:
        save_file(weights, temporary)
    judge.load_state_dict(weights)
    return judge.eval()


def _turned(inputs: Tensor) -> Tensor:
    """Turn and mirror a batch: goodness does not depend on it."""
    turns = int(torch.randint(4, ()))
    inputs = torch.rot90(inputs, turns, (-2, -1))
    return inputs.flip(-1) if int(torch.randint(2, ())) else inputs


def _odds(judge: ImageJudge, case: Tensor) -> Tensor:
    """Return (1,) the mean logit over frames."""
    judge.eval()
    with torch.inference_mode():
        odds = judge(case[:, : judge.channels]).mean()[None]
    judge.train()
    return odds


def said_of(judges: Mapping[str, ImageJudge], seen: Seen, shape: tuple[int, int]) -> dict[str, Array]:
    """Return (step, slice) probabilities by the names of :data:`NETWORK_SCORES`."""
    found: dict[str, list[float]] = {name: [] for name in NETWORK_SCORES}
    for case in cases(seen):
        for score, which in zip(NETWORK_SCORES, _NAMES, strict=True):
            found[score].append(float(_odds(judges[which], case).sigmoid()))
    return {name: np.array(values).reshape(shape) for name, values in found.items()}


def reversed_dice(seen: Seen, references: Seen, shape: tuple[int, int]) -> Array:
    """Return (step, slice, structure) of the first frame, predicted by reverse classification accuracy.

    References are truths with exact labels, (slice, reference, y, x) in the place of frames.
    """

    def half(images: Tensor) -> Tensor:
        return avg_pool2d(images.float()[None], 2)[0]

    found = np.empty((*shape, len(DICES)))
    for index in range(shape[1]):
        images = half(torch.from_numpy(references.truth[index]))
        labels = torch.from_numpy(references.exact[index, :, ::2, ::2])
        for step in range(shape[0]):
            image = half(torch.from_numpy(seen.images[step, index, :1]))[0]
            drawn = torch.from_numpy(seen.labels[step, index, 0, ::2, ::2])
            found[step, index] = reverse_dice(image, drawn, images, labels).numpy()
    return found


def first_frames(folder: Path, patients: Sequence[Trajectory]) -> Seen:
    """Return the first frames of some patients, in the place of the frames of one."""
    kept = [seen_of(folder, one) for one in patients]
    parts = {
        name: np.concatenate([getattr(one, name)[..., :1, :, :] for one in kept], axis=-3) for name in vars(kept[0])
    }
    return Seen(**parts)


def figures(said: Array, true: Array) -> dict[str, float]:
    """Return AUROC and calibration error where the truth is known."""
    there = np.isfinite(true)
    return {
        "auroc": auroc(said[there], true[there]),
        "ece": expected_calibration_error(said[there], true[there]),
        "share": float(true[there].mean()),
    }


def policy_row(policy: Policy, patients: Sequence[Trajectory], options: FitOptions) -> dict[str, float]:
    """Return what becomes of patients under a policy."""
    stops = [run(policy, one) for one in patients]
    missed = [excess_at(one, stop.steps, options.tolerance) > 1 for one, stop in zip(patients, stops, strict=True)]
    return {"seconds": float(np.mean([stop.mean_seconds for stop in stops])), "missed": float(np.sum(missed))}


def judged(
    parts: Parts, folder: Path, out: Path, steps: int, references: int, reverse_patients: int
) -> dict[str, object]:
    """Learn, judge the test patients, and return all figures."""
    options = FitOptions()
    teach = [one for k, one in enumerate(parts.fit) if k % _CHOOSE]
    choose = [one for k, one in enumerate(parts.fit) if not k % _CHOOSE]
    paths = {which: out / f"{which}.safetensors" for which in _NAMES}
    if all(path.exists() for path in paths.values()):
        nothing = Lessons(torch.empty(0), torch.empty(0), torch.empty(0))
        taught, chosen_on = nothing, nothing
    else:
        taught = lessons(folder, teach, options, slice(None, None, 3))
        chosen_on = lessons(folder, choose, options, slice(None, None, 5))
    judges = {which: learn(taught, chosen_on, which, steps, path) for which, path in paths.items()}
    del taught, chosen_on
    test = []
    for one in track(parts.test, "test patients"):
        scores = _kept(out / f"said-{one.patient}.json")
        if scores is None:
            scores = said_of(judges, seen_of(folder, one), (one.n_steps, one.n_slices))
            _keep(out / f"said-{one.patient}.json", scores)
        test.append(replace(one, scores={**one.scores, **scores}))
    rows = slice_rows(test)
    good = goodness(rows, options)
    predictors = fit_predictors(parts.fit, parts.cohort, options)
    numbers = {"image": predictors.image_good(rows.features), "labels": predictors.segmentation_good(rows.features)}
    found: dict[str, object] = {"synthetic": True, "fit": len(parts.fit), "test": len(test)}
    for which, score in zip(_NAMES, NETWORK_SCORES, strict=True):
        said = np.concatenate([one.scores[score].reshape(-1) for one in test])
        found[f"{which}_good"] = {
            "network": figures(said, good[which]), "numbers": figures(numbers[which], good[which])
        }  # fmt: skip
    found["policies"] = {
        policy.name: policy_row(policy, test, options)
        for policy in (TwoClassifiers(predictors.image_good, predictors.segmentation_good), TwoNetworks())
    }
    found["reverse"] = _reverse(parts, folder, out, references, reverse_patients, predictors.dice)
    return found


def _reverse(
    parts: Parts, folder: Path, out: Path, references: int, patients: int, models: Mapping[str, object]
) -> dict[str, object]:
    chosen = parts.test[:patients]
    if not chosen:
        return {}
    atlas = first_frames(folder, parts.fit[:: max(1, len(parts.fit) // references)][:references])
    rows, predicted = [], []
    for one in track(chosen, "reverse classification"):
        kept = _kept(out / f"reverse-{one.patient}.json")
        if kept is None:
            kept = {"dice": reversed_dice(seen_of(folder, one), atlas, (one.n_steps, one.n_slices))}
            _keep(out / f"reverse-{one.patient}.json", kept)
        predicted.append(kept["dice"].reshape(-1, len(DICES)))
        rows.append(one)
    table = slice_rows(rows)
    by_reverse = np.concatenate(predicted)
    found: dict[str, object] = {"patients": len(chosen), "references": references}
    for k, name in enumerate(DICES):
        model = models[name]
        assert callable(model)
        found[name] = {
            "reverse": correlation(by_reverse[:, k], table.truth[name]),
            "numbers": correlation(model(table.features), table.truth[name]),
        }
    return found


def _keep(path: Path, values: Mapping[str, Array]) -> None:
    atomic_text(path, json.dumps({name: np.where(np.isfinite(v), v, None).tolist() for name, v in values.items()}))


def _kept(path: Path) -> dict[str, Array] | None:
    if not path.exists():
        return None
    return {name: np.array(values, dtype=np.float64) for name, values in json.loads(path.read_text()).items()}


def main() -> None:
    """Print figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="of a study that kept its images")
    parser.add_argument("--key", help="of the study in it, where there are several")
    parser.add_argument("--out", type=Path, required=True, help="folder of networks and figures")
    parser.add_argument("--steps", type=int, default=1500, help="of learning")
    parser.add_argument("--references", type=int, default=8, help="of reverse classification accuracy")
    parser.add_argument("--reverse-patients", type=int, default=20, help="test patients for it")
    arguments = parser.parse_args()
    parts = parts_of(arguments.folder, arguments.key)
    images = arguments.folder / IMAGES / parts.key
    if not images.is_dir():
        parser.error(f"{images} does not exist: the study has to be computed with --keep-images")
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = judged(parts, images, arguments.out, arguments.steps, arguments.references, arguments.reverse_patients)
    print(json.dumps(found, indent=1))
    atomic_text(arguments.out / "figures.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
