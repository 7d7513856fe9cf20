"""What ``spokewise study`` does: compute the patients that are missing, then evaluate all and write the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kspace.errors import InputError, UsageError
from kspace.quality.calibration import Promise, write_calibration
from kspace.quality.measures import Tolerance
from simulate.output import plain
from simulate.study.evaluate import Question, evaluate
from simulate.study.page import PAGE, write_page
from simulate.study.progress import StudyProgress, in_words
from simulate.study.protocol import Protocol
from simulate.study.published import CITATION, DIFFERENCES, as_html, as_text, machado_table
from simulate.study.run import run_study
from simulate.study.seen import IMAGES, path_of
from simulate.study.store import Store, key_of

MACHADO = "machado2023"
CALIBRATION = "calibration.json"
"""The calibrated rule of a study, in its folder."""


@dataclass(frozen=True)
class StudyOptions:
    """What the user said.

    Parameters
    ----------
    config
        TOML file of a protocol.
    changes
        Of the protocol, from flags; None is what was not said.
    patients, seed, workers, scheduler, minutes
        See :func:`~simulate.study.run.run_study`; no patients evaluates what is there.
    ef_points, volume_percent, alpha, confidence
        The question.
    keep_images
        Keep what the networks were shown in the study's folder, for judges that look at images.
    machado
        Whether the page ends in the table of published figures.
    """

    config: Path | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    patients: int = 220
    seed: int = 0
    workers: int = 1
    scheduler: str | None = None
    minutes: float | None = None
    ef_points: float = 5.0
    volume_percent: float = 5.0
    alpha: float = 0.10
    confidence: float = 0.90
    keep_images: bool = False
    machado: bool = False

    def protocol(self) -> Protocol:
        """Return the protocol."""
        base = Protocol.of({}, "the defaults") if self.config is None else Protocol.read(self.config)
        said = {name: value for name, value in self.changes.items() if value is not None}
        return Protocol.of({**base.model_dump(), **said}, "the options") if said else base

    def question(self) -> Question:
        """Return the question."""
        for name, value in (("--alpha", self.alpha), ("--confidence", self.confidence)):
            if not 0 < value < 1:
                raise UsageError(f"{name} {value:g}", expected="a number between 0 and 1")
        return Question(Tolerance(self.ef_points, self.volume_percent), Promise(self.alpha, self.confidence))


def _stored(store: Store, protocol: Protocol, seed: int, say: Callable[[str], None]) -> tuple[str, Protocol]:
    """Return the study that was asked for, or else the largest in the store: weights may have changed since."""
    key = key_of(protocol, seed)
    if store.numbers(key):
        return key, protocol
    counts = {other: len(store.numbers(other)) for other in store.studies()}
    largest = max(counts, key=lambda other: counts[other], default=None)
    if largest is None or not counts[largest]:
        raise InputError(f"{store.path} holds no patients", expected="a study", hint="Compute some: --patients 220")
    facts: Any = store.studies()[largest]
    say(f"study {largest} of {counts[largest]} patients, of another protocol, seed or other weights than asked for")
    return largest, Protocol.of(facts["protocol"], str(store.path))


def study_command(out: Path, options: StudyOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run a study in a folder and return its record, whose ``text`` is for people.

    Raises
    ------
    UsageError, InputError
        When options make no sense, or the store cannot be used.
    """
    protocol, question = options.protocol(), options.question()
    store = Store(out)
    if options.patients:
        key = store.register(protocol, options.seed)
    else:
        key, protocol = _stored(store, protocol, options.seed, say)
    images = out / IMAGES / key if options.keep_images else None
    record: dict[str, Any] = {"out": str(out), "store": str(store.path), "key": key, "synthetic": True}
    if options.patients:
        known = sum(number < options.patients for number in store.numbers(key))
        if known:
            say(f"{known} of {options.patients} patients are there and are not computed again")
        with StudyProgress(known, options.patients) as progress:
            outcome = run_study(
                store, protocol, options.patients, seed=options.seed, workers=options.workers,
                scheduler=options.scheduler, minutes=options.minutes, on_patient=progress.patient,
                images=images,
            )  # fmt: skip
        for number, why in outcome.lost.items():
            say(f"patient {number} could not be computed: {why}")
        record |= {"computed": outcome.finished, "known": outcome.known, "wall_s": outcome.wall_s,
                   "lost": {str(number): why for number, why in outcome.lost.items()}}  # fmt: skip
    if images is not None:
        record["images"] = str(images)
        bare = sum(not path_of(images, number).exists() for number in store.numbers(key))
        if bare:
            say(f"{bare} patients have no images in {images}: they were computed without --keep-images, or pretended")
    costs = store.costs(key)
    if costs:
        record["core_s_per_patient"] = sum(cost for _, cost, _ in costs) / len(costs)
        record["rss_mb"] = {"first": costs[0][2], "last": costs[-1][2], "most": max(mb for _, _, mb in costs)}
    patients = [one for _, one in store.trajectories(key)]
    record["patients"] = len(patients)
    started = time.monotonic()
    try:
        evaluation = evaluate(patients, store.card_facts(key), question, date=time.strftime("%Y-%m-%d"))
    except InputError as error:
        say(f"not evaluated yet: {error}")
        return record | {"evaluation": None, "text": f"{len(patients)} patients in {store.path}"}
    say(f"evaluated {len(patients)} patients in {in_words(time.monotonic() - started)}")
    lines = machado_table(evaluation) if options.machado else ()
    notes = as_html(lines, DIFFERENCES, CITATION) if lines else ""
    title = "Machado et al. 2023, as a study of virtual patients" if lines else "A study of virtual patients"
    write_page(out, evaluation, protocol, title, notes)
    write_calibration(evaluation.family.calibration, out / CALIBRATION)
    text = "\n".join(
        f"{row.policy:22} {row.seconds:6.2f} s per slice, {row.missed:3d} of {row.patients} out of tolerance, "
        f"{row.over_oracle:.2f} times the oracle"
        for row in evaluation.rows
    )
    if lines:
        text += "\n\n" + as_text(lines, DIFFERENCES, CITATION)
        record["published"] = [{"figure": x.figure, "published": x.published, "ours": x.ours} for x in lines]
    return record | {
        "evaluation": plain(evaluation.record()),
        "page": str(out / PAGE),
        "text": f"{text}\nPage: {out / PAGE}",
    }
