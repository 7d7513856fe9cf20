"""The command line: every command parses, calls one function and prints.

What computes is imported inside the commands, so that ``spokewise --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kspace.errors import SpokewiseError, UsageError

if TYPE_CHECKING:
    from simulate.record import StepRecord
    from simulate.subject import SubjectOptions

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Radial cine MR: a scanner that stops when the images are good enough, and reconstruction of its spokes.",
)
_state: dict[str, int] = {"debug": False, "told": 0}
_LATER = "the images were not segmented; spokewise segment does it"

_SCANNER = "Simulated scanner"
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="phantom, phantom:SEED, a 4D NIfTI file, a DICOM folder or a radial ISMRMRD file."
    ),
]
Frames = Annotated[int | None, typer.Option(help="Cardiac phases. (default: 25, or what the file fixes)")]
MatrixOption = Annotated[
    int | None,
    typer.Option(
        help="Pixels along the longer side. (default: 3/4 of the source's, at most 192)", rich_help_panel=_SCANNER
    ),
]
Coils = Annotated[int | None, typer.Option(help="Receive coils. (default: 8)", rich_help_panel=_SCANNER)]
Snr = Annotated[
    float | None,
    typer.Option(help="Signal to noise in one pixel; inf for no noise. (default: 30)", rich_help_panel=_SCANNER),
]
TrMs = Annotated[
    float | None, typer.Option(help="Milliseconds from spoke to spoke. (default: 2.8)", rich_help_panel=_SCANNER)
]
Seed = Annotated[int, typer.Option(min=0, max=2**31, help="Of noise, coils and heart rate.", rich_help_panel=_SCANNER)]
_PATIENT = "Virtual patient (phantom sources)"
GroupName = Annotated[
    str | None,
    typer.Option(
        help="normal, dilated, hypertrophic, infarct or abnormal-rv. (default: normal; a cohort is a mix)",
        rich_help_panel=_PATIENT,
    ),
]
SexName = Annotated[str | None, typer.Option(help="female or male. (default: drawn)", rich_help_panel=_PATIENT)]
HeartRate = Annotated[float | None, typer.Option(help="Beats per minute. (default: drawn)", rich_help_panel=_PATIENT)]
VendorName = Annotated[
    str | None,
    typer.Option(
        help="Style of imaging: siemens, siemens-3t, ge, philips, philips-3t. (default: siemens)",
        rich_help_panel=_PATIENT,
    ),
]
Breathing = Annotated[
    str | None,
    typer.Option(help="hold, drift[:MM_PER_S], free[:MM] or fails:SECONDS. (default: hold)", rich_help_panel=_PATIENT),
]
Events = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        help="shift@S:X,Y,Z (mm), rotate@S:DEGREES, ectopic@S, missed@S, false@S, mistrigger@S, spike@S[:SIZE], "
        "dropped@S:SECONDS; S seconds after a slice's first spoke; may be repeated.",
        rich_help_panel=_PATIENT,
    ),
]
GradientDelays = Annotated[
    str | None, typer.Option(help="dx,dy,dxy in samples. (default: 0,0,0)", rich_help_panel=_PATIENT)
]
Slices = Annotated[str | None, typer.Option(help="Which slices, for example 0,3-5. (default: all)")]
Series = Annotated[str | None, typer.Option(help="Number or UID of the series in a DICOM folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Delays = Annotated[
    str, typer.Option(help="Gradient delays to correct: auto (found from the spokes), off, or dx,dy,dxy in samples.")
]
MethodName = Annotated[str, typer.Option(help="unrolled or unet (learnt), cs, llr, l+s, cg-sense or gridding.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"spokewise {version('spokewise')}")
        raise typer.Exit


def _debug(wanted: bool) -> None:
    _state["debug"] = wanted or os.environ.get("SPOKEWISE_DEBUG", "") not in ("", "0")


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", callback=_debug, help="Show tracebacks of errors.")] = False,
) -> None: ...


@app.command()
def scan(
    source: SourceArgument,
    out: Annotated[Path, typer.Option(help="Folder for everything that comes of it.")],
    policy: Annotated[
        str,
        typer.Option(
            help="quality: each slice until its images are good enough. fixed: until the cap. uncertainty: all slices "
            "until the networks agree on volumes, or these settled. guaranteed: by a calibrated rule, with its promise."
        ),
    ] = "quality",
    max_seconds: Annotated[float, typer.Option(help="Cap on the scan time of a slice.")] = 12.0,
    min_seconds: Annotated[
        float | None, typer.Option(help="A slice never ends earlier. (default: 2, or the cap if that is lower)")
    ] = None,
    step: Annotated[float, typer.Option(help="Seconds between two decisions.")] = 0.5,
    max_prediction_error: Annotated[
        float, typer.Option(help="Good enough when new spokes are foreseen to this.")
    ] = 0.1,
    max_change: Annotated[float, typer.Option(help="Good enough when the image changes by less in a step.")] = 0.05,
    method: MethodName = "unrolled",
    delays: Delays = "auto",
    watched: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Distrust spokes that motion or faults seem to have corrupted.")
    ] = True,
    frames: Frames = None,
    slices: Slices = None,
    matrix: MatrixOption = None,
    coils: Coils = None,
    snr: Snr = None,
    tr_ms: TrMs = None,
    seed: Seed = 0,
    group: GroupName = None,
    sex: SexName = None,
    heart_rate: HeartRate = None,
    vendor: VendorName = None,
    breathing: Breathing = None,
    event: Events = None,
    gradient_delays: GradientDelays = None,
    series: Series = None,
    device: Device = "auto",
    segmented: Annotated[
        bool, typer.Option("--segment/--no-segment", help="Measure the heart in the images at the end.")
    ] = True,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Scan a heart slice by slice; each ends when its images are good enough. Writes a folder with a report."""
    from kspace.delay_estimate import DelayEstimate
    from kspace.delays import parse_delays
    from kspace.quality.change import ChangeJudge
    from kspace.quality.judge import StoppingRule
    from kspace.quality.prediction import PredictionJudge
    from kspace.quality.stopping import FixedRule, QualityRule
    from kspace.recon.methods import make_method, weights_of
    from kspace.segment.segmenter import Segmenter
    from simulate.acquisition import LoopOptions
    from simulate.choices import choose_device, choose_slices
    from simulate.opened import N_FRAMES, open_spokes, phantom_seed
    from simulate.output import FILES, require_other
    from simulate.progress import ScanProgress
    from simulate.protocol_scan import planned_scan
    from simulate.run import run_scan
    from simulate.stack_policy import guaranteed_scan, uncertainty_policy
    from simulate.subject import SubjectOptions

    if choose_device(device).type == "cuda" and device == "cuda":
        raise UsageError("the scan loop cannot use a GPU yet", expected="--device cpu or auto, which is the CPU")
    if policy not in ("quality", "fixed", "uncertainty", "guaranteed"):
        raise UsageError(f"there is no policy {policy!r}", expected="quality, fixed, uncertainty or guaranteed")
    for name, value in (
        ("--max-seconds", max_seconds),
        ("--max-prediction-error", max_prediction_error),
        ("--max-change", max_change),
        ("--step", step),
    ):
        if not 0 < value < float("inf"):
            raise UsageError(f"{name} {value:g}", expected="a positive number")
    if step > max_seconds:
        raise UsageError(f"a step of {step:g} s is longer than the cap of {max_seconds:g} s", expected="step <= cap")
    floor = min(2.0, max_seconds) if min_seconds is None else min_seconds
    if not 0 <= floor < float("inf"):
        raise UsageError(f"--min-seconds {floor:g}", expected="0 or more")
    rule: StoppingRule = QualityRule(floor, max_seconds) if policy == "quality" else FixedRule(max_seconds)
    options = LoopOptions(
        step_s=step,
        n_frames=N_FRAMES if frames is None else frames,
        method=make_method(method),
        judges=lambda: (PredictionJudge(max_prediction_error), ChangeJudge(max_change)),
        rule=rule,
        delays=parse_delays(delays),
        watched=watched,
    )
    found: dict[int, DelayEstimate] = {}
    require_other(source, (out / name for name in FILES))
    subject = _subject(group, sex, heart_rate, vendor, breathing, event, gradient_delays)
    if subject is None and phantom_seed(source) is not None:
        subject = SubjectOptions()  # so that the record says who it was
    progress = ScanProgress(max_seconds)
    own = _scanner(matrix, coils, snr, tr_ms)
    with progress:
        together = None
        if (
            policy == "guaranteed"
            and not own
            and frames is None
            and slices is None
            and (planned := planned_scan(source, subject))
        ):
            # Where the user asks for no protocol, the scan takes that of the calibration.
            spokes, options, together = planned.source, planned.options, planned.together
        else:
            spokes = open_spokes(source, own, seed=seed, n_frames=frames, series=series, subject=subject)
        chosen = choose_slices(spokes, slices)
        progress.n_slices = len(chosen)
        scanner = getattr(spokes, "options", None)
        if policy == "uncertainty":
            together = uncertainty_policy(step, floor, max_seconds)
        elif policy == "guaranteed" and together is None:
            together = guaranteed_scan(spokes, options, chosen)
        told: dict[str, Any] = {}  # filled in by the scan, slice by slice

        def tell(index: int, estimate: DelayEstimate) -> None:
            found[index], told[str(index)] = estimate, estimate.record()

        def stepped(index: int, record: StepRecord) -> None:
            progress.step(index, record)
            _give_way()

        try:
            result = run_scan(
                spokes,
                options,
                out,
                slices=chosen,
                record_options={
                    "source": _name_of(source),
                    "policy": policy,
                    "max_seconds": max_seconds,
                    "min_seconds": floor if policy == "quality" else None,
                    "step": step,
                    "max_prediction_error": max_prediction_error,
                    "max_change": max_change,
                    "method": method,
                    "weights": weights_of(options.method),
                    "delays": delays,
                    "delays_found": told,
                    "watched": watched,
                    "frames": spokes.n_frames or options.n_frames,
                    "slices": list(chosen),
                    "matrix": max(spokes.geometry.shape[1:]),
                    "coils": None if scanner is None else scanner.n_coils,
                    "snr": None if scanner is None else scanner.snr,
                    "tr_ms": None if scanner is None else scanner.tr_s * 1e3,
                    "seed": seed,
                    "patient": None if subject is None else asdict(subject),
                    "series": series,
                    "device": "cpu",
                },
                seed=seed,
                overwrite=overwrite,
                segment=Segmenter() if segmented else None,
                together=together,
                on_spokes=progress.spokes,
                on_step=stepped,
                on_slice=progress.slice,
                on_delays=tell,
            )
        except KeyboardInterrupt as stop:
            raise _interrupted(stop) from None
    for index, estimate in found.items():
        if estimate.significant:
            _say(f"slice {index}: {estimate.describe()}")
    if as_json:
        typer.echo(json.dumps({**result.summary, "out": str(out), "report": str(out / "report.html")}))
        return
    from simulate.report_words import verdict
    from simulate.segment_text import biomarker_line

    for record in result.record.slices:
        typer.echo(f"slice {record.index:>3}  {record.seconds:5.1f} s of {max_seconds:g}  {record.reason}")
    typer.echo(" ".join(verdict(result.record)))
    if not isinstance(result.record.heart, str):
        typer.echo(biomarker_line(result.record.heart.biomarkers))
    typer.echo(f"Report: {out / 'report.html'}")


@app.command()
def simulate(
    source: SourceArgument,
    out: Annotated[Path, typer.Option(help="ISMRMRD file; the truth goes beside it, to NAME.truth.nii.gz and more.")],
    seconds: Annotated[float, typer.Option(help="Scan time of each slice.")] = 12.0,
    frames: Annotated[int, typer.Option(help="Cardiac phases of the truth.")] = 25,
    slices: Slices = None,
    matrix: MatrixOption = None,
    coils: Coils = None,
    snr: Snr = None,
    tr_ms: TrMs = None,
    seed: Seed = 0,
    group: GroupName = None,
    sex: SexName = None,
    heart_rate: HeartRate = None,
    vendor: VendorName = None,
    breathing: Breathing = None,
    event: Events = None,
    gradient_delays: GradientDelays = None,
    series: Series = None,
    cohort: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            help="Instead of spokes, write a table (CSV) of so many virtual patients, seeds from phantom:SEED on.",
            rich_help_panel=_PATIENT,
        ),
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the spokes that a scanner would have measured of a virtual patient or a cine, and the truth beside them."""
    from simulate.choices import choose_device, choose_slices
    from simulate.opened import open_spokes, phantom_seed, write_cohort
    from simulate.output import require_other
    from simulate.scan_heart import biomarker_record
    from simulate.to_file import files_beside, simulate_to_file

    if choose_device(device).type == "cuda" and device == "cuda":
        raise UsageError("the simulated scanner cannot use a GPU yet", expected="--device cpu or auto, the CPU")
    subject = _subject(group, sex, heart_rate, vendor, breathing, event, gradient_delays)
    if cohort is not None:
        answer = write_cohort(source, cohort, out, subject, overwrite=overwrite)
        _answer(answer, as_json, f"Cohort: {answer['cohort']}")
        return
    require_other(source, (out, *files_beside(out, patient=phantom_seed(source) is not None).values()))
    # Frames are those of the truth: measured spokes are refused whatever theirs are.
    spokes = open_spokes(
        source, _scanner(matrix, coils, snr, tr_ms), seed=seed, n_frames=1, series=series, subject=subject
    )
    chosen = choose_slices(spokes, slices)
    try:
        answer = simulate_to_file(
            spokes,
            out,
            seconds=seconds,
            slices=chosen,
            n_frames=frames,
            overwrite=overwrite,
            on_slice=lambda index, count: _say(f"slice {index}: {count} spokes"),
        )
    except KeyboardInterrupt as stop:
        raise _interrupted(stop) from None
    _answer(
        {**answer, **biomarker_record(_LATER)},
        as_json,
        f"Spokes: {answer['raw']}\nTruth: {answer['truth']}",
    )


@app.command()
def recon(
    raw: Annotated[Path, typer.Argument(metavar="RAW.h5", help="A radial ISMRMRD file.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The cine to write, .nii or .nii.gz (default: RAW.METHOD.nii.gz, in this folder)."),
    ] = None,
    method: MethodName = "unrolled",
    delays: Delays = "auto",
    drift: Annotated[
        bool,
        typer.Option(
            "--drift", help="Take out slow drift of phase and gain, and a phase that goes with a spoke's direction."
        ),
    ] = False,
    frames: Frames = None,
    l2: Annotated[float | None, typer.Option(help="cg-sense: Tikhonov weight relative to the data.")] = None,
    noise_factor: Annotated[
        float | None, typer.Option(help="cs, llr, l+s: regularisation per noise in the image.")
    ] = None,
    signal_factor: Annotated[
        float | None, typer.Option(help="cs, llr, l+s: regularisation per level of the image.")
    ] = None,
    max_iterations: Annotated[int | None, typer.Option(help="cs, llr, l+s, cg-sense: at most so many.", min=1)] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Reconstruct all slices of a radial ISMRMRD file into a NIfTI cine of magnitudes."""
    from kspace.delays import parse_delays
    from kspace.drift import describe_drift
    from simulate.choices import choose_device, make_tuned_method
    from simulate.recon_command import reconstruct_file
    from simulate.scan_heart import biomarker_record

    where = choose_device(device)
    tuned = make_tuned_method(
        method,
        {"l2": l2, "noise_factor": noise_factor, "signal_factor": signal_factor, "max_iterations": max_iterations},
    )
    answer = reconstruct_file(
        raw,
        Path(f"{raw.stem}.{method}.nii.gz") if out is None else out,
        tuned,
        n_frames=frames,
        delays=parse_delays(delays),
        drift=drift,
        device=where,
        overwrite=overwrite,
        on_slice=lambda index: _say(f"slice {index} reconstructed"),
        on_delays=lambda estimate: _say(estimate.describe()),
        on_drift=lambda found: _say(describe_drift(found)),
    )
    zero = answer["slices_zero_in_recon"]
    note = f"\nWithout spokes, and zero: slices {', '.join(map(str, zero))}" if zero else ""
    _answer(
        {**answer, "device": str(where), **biomarker_record(_LATER)},
        as_json,
        f"Cine: {answer['cine']}{note}",
    )


@app.command()
def motion(
    raw: Annotated[Path, typer.Argument(metavar="RAW.h5", help="A radial ISMRMRD file.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="ISMRMRD file for the spokes that can be trusted: in the frame that they fit, motion undone, the rest "
            "left out."
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="PNG of the timeline. (default: RAW.motion.png, in this folder)")
    ] = None,
    delays: Delays = "auto",
    frames: Frames = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Find spokes that motion, arrhythmia or faults have corrupted, and mend or leave out what they have."""
    from kspace.delays import parse_delays
    from simulate.motion_command import motion_command, motion_text

    answer = motion_command(
        raw,
        Path(f"{raw.stem}.motion.png") if picture is None else picture,
        out=out,
        n_frames=frames,
        delays=parse_delays(delays),
        overwrite=overwrite,
        on_slice=lambda one: _say(f"slice {one['index']}: {one['flagged']} of {one['spokes']} spokes distrusted"),
    )
    _answer(answer, as_json, motion_text(answer))


@app.command()
def segment(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A 4D NIfTI cine, a DICOM folder or the folder of a scan.")
    ],
    out: Annotated[
        Path, typer.Option(help="The labels, NAME.nii.gz; NAME.json, a movie and a plot of the volumes go beside them.")
    ],
    labels: Annotated[
        Path | None, typer.Option(help="The truth to compare with: 4D NIfTI, phases may be empty.")
    ] = None,
    convention: Annotated[
        str, typer.Option(help="What its values mean: spokewise, acdc, mnms, ukbb or sunnybrook.")
    ] = "spokewise",
    seg: Annotated[
        Path | None, typer.Option(help="Folder for DICOM segmentation objects, one a phase (DICOM sources only).")
    ] = None,
    rr_s: Annotated[float | None, typer.Option(help="Seconds of a beat. (default: what the source says)")] = None,
    slices: Slices = None,
    series: Series = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw LV, myocardium and RV on a short-axis cine, and measure volumes, ejection fraction and mass."""
    from kspace.segment.segmenter import Segmenter
    from kspace.weights.store import read_card
    from simulate.choices import choose_device
    from simulate.segment_command import SegmentOptions, segment_command
    from simulate.segment_text import segment_text

    where = choose_device(device)
    segmenter = Segmenter()
    answer = segment_command(
        source,
        out,
        segmenter,
        SegmentOptions(labels, convention, slices, series, rr_s, seg, overwrite=overwrite),
        weights=[f"{name} ({read_card(name).sha256[:12]})" for name in segmenter.weights],
        device=where,
    )
    _answer(answer, as_json, segment_text(answer))


@app.command()
def study(
    out: Annotated[Path, typer.Option(help="Folder of patients, page and tables. A killed study goes on in it.")],
    preset: Annotated[
        str | None, typer.Option(help="machado2023, oksuz2019 or dautomap: ends in published beside ours.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Protocol as TOML; what it does not say is the default.")] = None,
    patients: Annotated[
        int, typer.Option(min=0, max=100_000, help="Virtual patients; 0 evaluates those that are there.")
    ] = 220,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Processes of one thread each.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="A Dask cluster instead: tcp://HOST:PORT (pip install 'spokewise[study]').")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Begin no patient later than this.", min=0)] = None,
    seed: Annotated[int, typer.Option(min=0, max=100, help="Other seeds are other patients.")] = 0,
    ef_points: Annotated[float, typer.Option(help="Tolerance of EF, in points.")] = 5.0,
    volume_percent: Annotated[float, typer.Option(help="Tolerance of LV volumes.")] = 5.0,
    alpha: Annotated[float, typer.Option(help="Largest risk of a scan out of tolerance.")] = 0.1,
    confidence: Annotated[float, typer.Option(help="That the risk is not larger.")] = 0.9,
    slices: Annotated[int | None, typer.Option("--slices", help="Of a stack. (default: 5)")] = None,
    matrix: Annotated[int | None, typer.Option(help="Pixels of the reconstruction. (default: 96)")] = None,
    frames: Annotated[int | None, typer.Option(help="Cardiac phases. (default: 10)")] = None,
    coils: Annotated[int | None, typer.Option(help="Receive coils. (default: 4)")] = None,
    tr_ms: Annotated[float | None, typer.Option(help="Milliseconds from spoke to spoke. (default: 12.5)")] = None,
    snr: Annotated[str | None, typer.Option(help="Smallest and largest: 5,25 is the default.")] = None,
    steps: Annotated[str | None, typer.Option(help="Seconds at which is decided, for example 1,2,4,8,12.")] = None,
    heart_rate: Annotated[float | None, typer.Option(help="Of all patients. (default: drawn)")] = None,
    drifting: Annotated[float | None, typer.Option(help="Share whose breath-hold drifts. (default: 0)")] = None,
    ectopic: Annotated[float | None, typer.Option(help="Share with ectopic beats. (default: 0)")] = None,
    method: Annotated[
        str | None, typer.Option(help="Reconstruction, or pretend: nobody is scanned. (default: unrolled)")
    ] = None,
    keep_images: Annotated[bool, typer.Option("--keep-images", help="For judges of images: 5 MB a patient.")] = False,
    as_json: Json = False,
) -> None:
    """Scan many virtual patients once, then ask any stopping policy what it would have done. Resumable."""
    if preset not in (None, "machado2023", "oksuz2019", "dautomap"):
        raise UsageError(f"there is no preset {preset!r}", expected="machado2023, oksuz2019 or dautomap")
    if preset in ("oksuz2019", "dautomap"):
        from bench.study_presets import study_preset

        answer = study_preset(preset, out, minutes, _say)
        _answer(answer, as_json, answer["text"])
        return
    from simulate.study.command import StudyOptions, study_command

    changes = {
        "n_slices": slices, "matrix": matrix, "frames": frames, "n_coils": coils, "tr_ms": tr_ms,
        "heart_rate_bpm": heart_rate, "drifting": drifting, "ectopic": ectopic, "method": method,
        "snr": _numbers("--snr", snr), "seconds": _numbers("--steps", steps),
    }  # fmt: skip
    options = StudyOptions(
        config, changes, patients, seed, workers, scheduler, minutes, ef_points, volume_percent, alpha, confidence,
        keep_images, machado=preset == "machado2023",
    )  # fmt: skip
    answer = study_command(out, options, _say)
    _answer({name: value for name, value in answer.items() if name != "text"}, as_json, answer["text"])


@app.command()
def check(
    source: Annotated[
        str, typer.Argument(metavar="CINE_OR_RAW", help="A 4D NIfTI cine, a DICOM folder or a radial ISMRMRD file.")
    ],
    method: MethodName = "unrolled",
    frames: Frames = None,
    slices: Slices = None,
    series: Series = None,
    rr_s: Annotated[float | None, typer.Option(help="Seconds of a beat. (default: what the source says)")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Judge a cine, or radial k-space: what a scan's quality control would say of it. Nothing is written."""
    from simulate.check import CheckOptions, check_source
    from simulate.choices import choose_device

    answer = check_source(
        source, CheckOptions(method, frames, slices, series, rr_s), device=choose_device(device), say=_say
    )
    _answer({name: value for name, value in answer.items() if name != "text"}, as_json, answer["text"])


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Folder for bench.json, bench.md, bench.png and cached data.")] = Path(
        "bench-results"
    ),
    matrix: Annotated[str, typer.Option(help="Image sizes, for example 192,256.")] = "192",
    frames: Annotated[int, typer.Option(help="Cardiac phases.")] = 25,
    coils: Annotated[str, typer.Option(help="Receive coils, for example 8,16.")] = "8",
    spokes: Annotated[str, typer.Option(help="Spokes per frame.")] = "13,34,100",
    jobs: Annotated[str, typer.Option(help="What to time.")] = "forward,adjoint,normal,cg-sense,cs,update,decision",
    peers: Annotated[str, typer.Option(help="all, none or names; what is not installed is one line.")] = "all",
    repeats: Annotated[int, typer.Option(help="Clean runs of each case.")] = 5,
    patience: Annotated[float, typer.Option(help="Seconds to wait for a quiet machine, for each case.")] = 30.0,
    threads: Annotated[int | None, typer.Option(help="Of every tool. (default: all processors)", min=1)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tiny problem, to see that it works.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Time reconstruction on this machine, and other libraries beside it where they are installed."""
    from bench.speed.command import bench_command

    record = bench_command(
        out, _say, matrix=matrix, frames=frames, coils=coils, spokes=spokes, jobs=jobs, peers=peers,
        repeats=repeats, patience_s=patience, threads=threads, quick=quick, device=device,
    )  # fmt: skip
    _answer(record, as_json, f"Table: {out / 'bench.md'}")


@app.command()
def train(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="recon (the unrolled network), unet (the baseline), segment, motion or motion-cartesian.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of all that it makes; a training in it is gone on from.")],
    minutes: Annotated[float, typer.Option(help="Time for it, beside the drawing of the first patients.")] = 120.0,
    patients: Annotated[
        int | None,
        typer.Option(
            help="Virtual patients to learn from. (default: 100 of 150 MB each; segment: as many of 0.6 MB as there is "
            "time for)",
            min=1,
        ),
    ] = None,
    scans: Annotated[
        Path | None, typer.Option(help="segment: folder of scans that recon has drawn, to learn from what they show.")
    ] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="segment: folder of cines without labels, to learn from those that look right.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of weights and order.")] = 0,
    go_on: Annotated[
        bool, typer.Option("--go-on", help="segment, recon: begin with the weights of the shipped networks.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A tiny network and few steps, to see that it works.")] = False,
    as_json: Json = False,
) -> None:
    """Train a network on virtual patients, which are drawn as it goes."""
    from simulate.training.command import TrainOptions, train_command

    options = TrainOptions(minutes, patients, seed, scans, unlabelled, go_on=go_on, quick=quick)
    record = train_command(task, out, _say, options)
    _answer(record, as_json, f"Model: {record['model']} ({record['reason']}, validation {record['validation']:.4f})")


@app.command()
def models(
    folder: Annotated[Path | None, typer.Option(help="Where they lie. (default: the shipped ones)")] = None,
    as_json: Json = False,
) -> None:
    """List the shipped models and check every byte of them."""
    from simulate.training.command import models_command

    record = models_command(folder)
    lines = []
    for card in record["models"]:
        state = card["problem"] or "intact"
        lines.append(f"{card['name']}: {card['n_parameters']:,} numbers, {card['bytes'] / 1e6:.2f} MB, {state}")
        lines.append(f"  {card['description']}")
    lines += record["other_problems"].values()
    _answer(record, as_json, "\n".join(lines) or "There are no models.")
    if any(card["problem"] for card in record["models"]) or record["other_problems"]:
        raise typer.Exit(3)


def _scanner(matrix: int | None, coils: int | None, snr: float | None, tr_ms: float | None) -> dict[str, Any]:
    """Return what the user said of the simulated scanner; the rest keeps its defaults."""
    given = {"matrix": matrix, "n_coils": coils, "snr": snr, "tr_s": None if tr_ms is None else tr_ms / 1e3}
    return {name: value for name, value in given.items() if value is not None}


def _subject(
    group: str | None,
    sex: str | None,
    heart_rate: float | None,
    vendor: str | None,
    breathing: str | None,
    events: list[str] | None,
    gradient_delays: str | None,
) -> SubjectOptions | None:
    """Return what the user said of the virtual patient; None where that is nothing."""
    said: dict[str, Any] = {
        "group": group,
        "sex": sex,
        "heart_rate_bpm": heart_rate,
        "vendor": vendor,
        "breathing": breathing,
        "events": tuple(events) if events else None,
    }
    if gradient_delays is not None:
        try:
            x, y, xy = (float(part) for part in gradient_delays.split(","))
        except ValueError:
            raise UsageError(f"--gradient-delays {gradient_delays!r}", expected="three numbers: dx,dy,dxy") from None
        said["gradient_delays"] = (x, y, xy)
    given = {name: value for name, value in said.items() if value is not None}
    if not given:
        return None
    from simulate.subject import SubjectOptions

    return SubjectOptions(**given)


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    """Return the numbers that ``1,2.5`` stands for."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{flag} {text!r}", expected="numbers, for example 1,2.5") from None


def _name_of(source: str) -> str:
    """Return what the record calls a source: the last part of a path, as folders may be named after a patient."""
    name = source if source == "phantom" or source.startswith("phantom:") else Path(source).resolve().name
    return os.fsencode(name).decode(errors="replace")


def _answer(answer: Mapping[str, object], as_json: bool, text: str) -> None:
    typer.echo(json.dumps(answer) if as_json else text)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _interrupted(stop: KeyboardInterrupt) -> typer.Exit:
    _say(f"interrupted: {stop}" if str(stop) else "interrupted")
    return typer.Exit(130)


@contextmanager
def _told_to_stop() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, and let what is finished be saved although somebody is impatient."""
    _state["told"] = 0

    def stop(number: int, frame: object) -> None:
        _state["told"] += 1
        if _state["told"] != 2:
            raise KeyboardInterrupt
        _say("saving what is finished; once more stops at once")

    told = sys.unraisablehook

    def hook(ignored: sys.UnraisableHookArgs) -> None:
        # Raised while Python tidied up after an object: nothing is lost, see _give_way.
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            told(ignored)

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # signals are the main thread's business
        yield
        return
    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = told
        for number, handler in before.items():
            signal.signal(number, handler)


def _give_way() -> None:
    """Stop here, if told to before: Python ignores what a signal raises while it tidies up after an object."""
    if _state["told"]:
        raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors become one line on stderr and an exit code."""
    _state["debug"] = False
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a name that the terminal cannot show is no reason to fail
            reconfigure(errors="backslashreplace")
    code = 0
    try:
        with _told_to_stop():
            result = app(args=arguments, prog_name="spokewise", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except BrokenPipeError:
        # Who read our answer has gone; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except KeyboardInterrupt:
        _say("interrupted")
        code = 130
    except SpokewiseError as error:
        _tell(error, str(error))
        code = error.exit_code
    except Exception as error:
        # Typer brings its own copy of Click in some versions; their usage errors have this in common.
        describe = getattr(error, "format_message", None)
        if describe is not None:
            said = " ".join(str(describe()).split())
            if said:  # without arguments the help has been shown
                _say(f"error: {said.rstrip('.')}. Try 'spokewise --help'.")
            code = 2
        elif type(error).__name__ in ("Abort", "Exit"):
            code = int(getattr(error, "exit_code", 130))
        elif isinstance(error, MemoryError) or "not enough memory" in str(error):
            _tell(error, "there is not enough memory. Choose fewer frames, a smaller matrix or fewer coils.")
            code = 1
        elif isinstance(error, OSError) and error.strerror:
            where = f"{os.fspath(error.filename)}: " if error.filename else ""
            _tell(error, f"{where}{error.strerror}")
            code = 3
        else:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            _tell(
                error, f"unexpected {said}. This is a fault of ours: see where with SPOKEWISE_DEBUG=1, and report it."
            )
            code = 1
    sys.exit(code)


def _tell(error: BaseException, message: str) -> None:
    if _state["debug"]:
        traceback.print_exception(error)
    _say("error: " + " ".join(message.split()))


if __name__ == "__main__":
    main()
