"""The command line as people and scripts meet it: what it prints, how it exits, and what it leaves behind."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

import cli
from kspace.errors import InputError
from kspace.formats.mrd import read_scan, write_scan
from kspace.formats.nifti import read_cine, write_cine
from kspace.scan import Cine, Geometry, RadialScan
from kspace.segment.segmentation import Segmentation, SlicePosition, Structure
from kspace.trajectory import cartesian_positions, golden_angles, radial_positions, spoke_angles

ROOT = Path(__file__).resolve().parents[1]
HEARTS = ROOT.parent / "shared" / "data"
QUICK = [
    "--coils", "2", "--frames", "3", "--method", "gridding", "--max-seconds", "0.6", "--step", "0.3", "--no-segment",
]  # fmt: skip
FOLDER = ["decisions.csv", "raw.h5", "recon.nii.gz", "report.html", "scan.json", "truth.nii.gz"]


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def spokewise(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Answer(int(stop.value.code or 0), out, err)

    return run


@pytest.fixture
def left(tmp_path: Path) -> Callable[[], list[str]]:
    """Give every file and folder under ``tmp_path``, hidden ones too."""
    return lambda: sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))


def heart(frames: int = 4, rows: int = 32, columns: int = 32, slices: int = 1) -> Cine:
    y, x = torch.linspace(-1, 1, rows)[:, None], torch.linspace(-1, 1, columns)
    body = 60.0 * (y**2 + 1.4 * x**2 < 0.8)
    beat = 0.35 + 0.1 * torch.cos(2 * math.pi * (torch.arange(frames) + 0.5) / frames)
    images = body + 80.0 * ((y - 0.1) ** 2 + (x + 0.25) ** 2 < beat[:, None, None] ** 2)
    geometry = Geometry.from_spacing((slices, rows, columns), (8.0, 4.0, 4.0))
    return Cine(images.expand(slices, -1, -1, -1).contiguous(), geometry, 0.8)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``cine.nii.gz`` of two slices, and ``raw.h5`` measured of it with ECG and noise."""
    folder = tmp_path_factory.mktemp("inputs")
    write_cine(folder / "cine.nii.gz", heart(slices=2))
    arguments = f"simulate {folder}/cine.nii.gz --out {folder}/raw.h5 --seconds 1 --coils 2 --frames 3 --snr 40"
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments.split())
    assert not stop.value.code
    return folder


def refused(answer: Answer, code: int, *fragments: str) -> None:
    assert answer.code == code, answer
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1, answer.err
    assert "fault of ours" not in answer.err
    for fragment in fragments:
        assert fragment in answer.err, answer.err


# What works


def test_scan_leaves_a_folder_and_prints_what_came_of_it(spokewise: Command, inputs: Path, left: Any) -> None:
    code, out, err = spokewise("scan", inputs / "cine.nii.gz", "--out", "d", *QUICK)
    assert code == 0
    assert left() == ["d", *(f"d/{name}" for name in FOLDER)]
    assert [line.split()[:2] for line in out.splitlines()[:2]] == [["slice", "0"], ["slice", "1"]]
    assert out.splitlines()[-1] == "Report: d/report.html"
    assert [line.split(":")[0] for line in err.splitlines()] == ["slice 0", "slice 1"]
    images = read_cine(Path("d/recon.nii.gz")).images
    assert images.shape == (2, 3, 24, 24)


def test_json_is_one_object_on_stdout_and_progress_goes_to_stderr(spokewise: Command, inputs: Path) -> None:
    code, out, err = spokewise("scan", inputs / "cine.nii.gz", "--out", "d", "--slices", "1", "--json", *QUICK)
    assert code == 0
    answer = json.loads(out)
    assert len(err.splitlines()) == 1
    assert answer["out"] == "d"
    saved = json.loads(Path("d/scan.json").read_text(encoding="utf-8"))
    assert {key: value for key, value in answer.items() if key not in ("out", "report", "timings")} == {
        key: value for key, value in saved.items() if key != "timings"
    }
    assert saved["options"]["source"] == "cine.nii.gz"
    assert set(saved["biomarkers"].values()) == {None}


def test_simulate_writes_spokes_and_the_truth_beside_them(spokewise: Command, inputs: Path, left: Any) -> None:
    arguments = ["--seconds", "0.5", "--coils", "2", "--frames", "5", "--slices", "1", "--json"]
    code, out, err = spokewise("simulate", inputs / "cine.nii.gz", "--out", "r.h5", *arguments)
    assert code == 0
    answer = json.loads(out)
    assert answer["slices"] == [{"index": 1, "seconds": 0.5, "spokes": 179}]
    assert err == "slice 1: 179 spokes\n"
    assert left() == ["r.h5", "r.truth.nii.gz"]
    assert read_scan(Path("r.h5")).slices.unique().tolist() == [1]
    assert read_cine(Path("r.truth.nii.gz")).images.shape == (2, 5, 24, 24)


def test_a_cohort_is_a_table_and_a_virtual_patient_can_be_scanned(spokewise: Command, left: Any) -> None:
    answer = spokewise("simulate", "phantom:7", "--cohort", 3, "--out", "c.csv", "--json")
    assert json.loads(answer.out) == {"cohort": "c.csv", "patients": 3, "synthetic": True}
    patient = ["--group", "abnormal-rv", "--breathing", "drift", "--event", "missed@0.3", "--matrix", 48]
    answer = spokewise("scan", "phantom:7", "--out", "d", "--slices", 5, *patient, *QUICK, "--json")
    assert answer.code == 0, answer
    record = json.loads(answer.out)
    assert record["synthetic"] is True
    assert record["options"]["patient"]["events"] == ["missed@0.3"]
    assert left() == ["c.csv", "d", *(f"d/{name}" for name in FOLDER)]


def test_recon_names_the_cine_after_the_raw_file_and_the_method(spokewise: Command, inputs: Path, left: Any) -> None:
    answer = spokewise("recon", inputs / "raw.h5", "--method", "gridding", "--frames", 3)
    assert answer.code == 0, answer
    assert left() == ["raw.gridding.nii.gz"]


@pytest.mark.parametrize("method", ["cs", "cg-sense", "gridding"])
def test_recon_writes_a_cine(spokewise: Command, inputs: Path, left: Any, method: str) -> None:
    code, out, _ = spokewise(
        "recon", inputs / "raw.h5", "--method", method, "--frames", 3, "--out", "c.nii.gz", "--json"
    )
    assert code == 0
    answer = json.loads(out)
    assert answer["method"] == method
    assert answer["frames"] == 3
    assert set(answer["biomarkers"].values()) == {None}
    assert left() == ["c.nii.gz"]
    cine, truth = read_cine(Path("c.nii.gz")), read_cine(inputs / "raw.truth.nii.gz")
    np.testing.assert_allclose(cine.geometry.affine, truth.geometry.affine, atol=1e-4)
    assert float((cine.images - truth.images).norm() / truth.images.norm()) < 0.2


def test_scan_replays_measured_spokes(spokewise: Command, inputs: Path, left: Any) -> None:
    arguments = ["--frames", "3", "--method", "gridding", "--step", "0.3", "--json"]
    code, out, _ = spokewise("scan", inputs / "raw.h5", "--out", "d", *arguments)
    assert code == 0
    answer = json.loads(out)
    assert answer["synthetic"] is False
    assert all(entry["reason"].startswith("the source has no more") for entry in answer["slices"])
    assert "d/truth.nii.gz" not in left()


@pytest.mark.parametrize(
    ("cine", "options"),
    [
        (heart(frames=1), []),
        (heart(), ["--coils", "1"]),
        (heart(), ["--frames", "1"]),
        (heart(rows=31, columns=29), ["--matrix", "23"]),
        (heart(rows=40, columns=18), []),
        (heart(), ["--snr", "inf"]),
        (heart(), ["--max-seconds", "0.7"]),
        (heart(), ["--step", "0.002", "--max-seconds", "0.012"]),
    ],
    ids=["one frame", "one coil", "one frame out", "odd", "narrow", "no noise", "cap between steps", "below TR"],
)
def test_scan_of_odd_sizes_works(spokewise: Command, cine: Cine, options: list[str]) -> None:
    write_cine("cine.nii", cine)
    code, out, _ = spokewise("scan", "cine.nii", "--out", "d", "--json", *QUICK, *options)
    assert code == 0
    (entry,) = json.loads(out)["slices"]
    cap = float(options[-1]) if "--max-seconds" in options else 0.6
    assert entry["seconds"] == pytest.approx(cap, abs=1e-6)


def raw_of(n_spokes: int, n_coils: int = 2, matrix: int = 16, *, frame: bool = True) -> RadialScan:
    generator = torch.Generator().manual_seed(0)
    return RadialScan(
        samples=torch.randn(n_spokes, n_coils, 2 * matrix, dtype=torch.complex64, generator=generator),
        positions=radial_positions(golden_angles(n_spokes), 2 * matrix),
        time_s=torch.arange(n_spokes, dtype=torch.float64) * 3e-3,
        geometry=Geometry((1, matrix, matrix)),
        frame=torch.arange(n_spokes) % 2 if frame else None,
    )


@pytest.mark.parametrize(
    "scan", [raw_of(1), raw_of(40, n_coils=1), raw_of(40, matrix=17)], ids=["one spoke", "one coil", "odd matrix"]
)
def test_raw_data_of_odd_sizes_work(spokewise: Command, scan: RadialScan) -> None:
    write_scan("raw.h5", scan)
    assert spokewise("recon", "raw.h5", "--out", "c.nii.gz").code == 0
    assert read_cine(Path("c.nii.gz")).images.shape[2:] == scan.matrix
    assert spokewise("scan", "raw.h5", "--out", "d", "--frames", "1").code == 0


def test_frames_1_is_the_average_over_time(spokewise: Command) -> None:
    write_scan("raw.h5", raw_of(40, frame=False))
    refused(spokewise("recon", "raw.h5", "--out", "c.nii.gz"), 3, "neither R waves nor frames", "--frames 1")
    assert spokewise("recon", "raw.h5", "--out", "c.nii.gz", "--frames", "1").code == 0
    assert read_cine(Path("c.nii.gz")).n_frames == 1


def test_overwrite_replaces(spokewise: Command, inputs: Path, left: Any) -> None:
    recon = ["recon", inputs / "raw.h5", "--out", "c.nii.gz", "--frames", 3, "--method", "gridding"]
    assert spokewise(*recon).code == 0
    before = Path("c.nii.gz").read_bytes()
    refused(spokewise(*recon), 3, "exists already", "--overwrite")
    assert Path("c.nii.gz").read_bytes() == before
    assert spokewise(*recon, "--overwrite").code == 0
    assert left() == ["c.nii.gz"]


def test_names_that_are_no_text_do_no_harm(spokewise: Command, inputs: Path) -> None:
    source = os.fsdecode(b"caf\xe9 \xff.nii.gz")
    try:
        Path(source).write_bytes((inputs / "cine.nii.gz").read_bytes())
    except OSError:
        pytest.skip("this file system only takes names that are text")
    code, out, err = spokewise("scan", source, "--out", os.fsdecode(b"d\xff"), "--slices", "0", *QUICK)
    assert code == 0, err
    assert "Report" in out


def test_only_the_last_part_of_a_path_is_recorded(spokewise: Command, inputs: Path) -> None:
    Path("phantoms of Jane").mkdir()
    Path("phantoms of Jane/c.nii.gz").write_bytes((inputs / "cine.nii.gz").read_bytes())
    assert spokewise("scan", "phantoms of Jane/c.nii.gz", "--out", "d", "--slices", "0", *QUICK).code == 0
    for name in ("scan.json", "report.html"):
        assert "Jane" not in Path("d", name).read_text(encoding="utf-8")


class FakeSegmenter:
    """Draws a ring where the heart of the inputs is, without any network."""

    weights = ()

    def __call__(self, cine: Cine, *, on_slice: Callable[[int, int], None]) -> Segmentation:
        labels = torch.zeros(cine.images.shape, dtype=torch.uint8)
        labels[:, :, 11:24, 7:18] = Structure.MYOCARDIUM
        labels[:, :, 13:22, 9:16] = Structure.LV
        on_slice(cine.n_slices, cine.n_slices)
        return Segmentation(
            labels, cine.geometry, (SlicePosition.MIDDLE,) * cine.n_slices, torch.zeros(cine.n_slices, 4),
            labels[None], torch.zeros(labels.shape), torch.zeros(labels.shape[:2]),
        )  # fmt: skip


def test_segment_writes_labels_and_what_they_say(
    spokewise: Command, inputs: Path, left: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kspace.segment.segmenter.Segmenter", FakeSegmenter)
    code, out, err = spokewise("segment", inputs / "cine.nii.gz", "--out", "s.nii.gz", "--device", "cpu", "--json")
    assert (code, err) == (0, "2 slice(s) segmented\n")
    answer = json.loads(out)
    assert answer["biomarkers"]["lv_edv_ml"] is None
    assert "both ends" in answer["biomarkers_missing"]["lv_edv_ml"]
    assert [name.split(".")[-1] for name in left() if name.startswith("s.")] == ["json", "gz", "svg", "webp"]
    code, out, _ = spokewise(
        "segment", inputs / "cine.nii.gz", "--out", "t.nii.gz", "--slices", "1", "--labels", "s.nii.gz"
    )
    assert code == 0
    assert "Dice" in out
    assert out.splitlines()[-3:] == ["Labels: t.nii.gz", f"Movie: {left()[-1]}", "Plot: t.svg"]
    refused(spokewise("segment", inputs / "raw.h5", "--out", "u.nii.gz"), 3, "holds spokes", "spokewise recon")
    refused(spokewise("segment", inputs / "cine.nii.gz", "--out", "s.nii.gz"), 3, "exists already")
    refused(spokewise("segment", inputs / "cine.nii.gz", "--out", "u.png"), 2, "does not end like a NIfTI")
    assert not any(name.startswith("u.") for name in left())


# What is refused: usage, exit code 2


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ("scan", "Missing argument 'SOURCE'"),
        ("scan {cine}", "Missing option '--out'"),
        ("scan {cine} --out d --nonsense", "--nonsense"),
        ("bogus", "No such command"),
        ("scan {cine} --out d --max-seconds -3", "--max-seconds -3"),
        ("scan {cine} --out d --max-seconds nan", "--max-seconds nan"),
        ("scan {cine} --out d --max-seconds inf", "--max-seconds inf"),
        ("scan {cine} --out d --max-seconds soon", "--max-seconds"),
        ("scan {cine} --out d --min-seconds -1", "--min-seconds -1"),
        ("scan {cine} --out d --min-seconds -1 --policy fixed", "--min-seconds -1"),
        ("scan {cine} --out d --min-seconds 20", "a floor of 20 s and a cap of 12 s"),
        ("scan {cine} --out d --step 0", "--step 0"),
        ("scan {cine} --out d --step 1e-9", "a step of 1e-09 s"),
        ("scan {cine} --out d --step 13", "longer than the cap"),
        ("scan {cine} --out d --max-change -1", "--max-change"),
        ("scan {cine} --out d --policy magic", "'magic'"),
        ("scan {cine} --out d --method magic", "'magic'"),
        ("scan {cine} --out d --device tpu", "'tpu'"),
        ("scan {cine} --out d --frames 0", "0 frames"),
        ("scan {cine} --out d --frames 2.5", "'--frames'"),
        ("scan {cine} --out d --slices 7", "no slice 7"),
        ("scan {cine} --out d --slices 1-0", "1-0"),
        ("scan {cine} --out d --slices one", "one"),
        ("scan {cine} --out d --slices 0-99999999999999999999", "no slice"),
        ("scan {cine} --out d --coils 0", "0 coils"),
        ("scan {cine} --out d --snr 0", "SNR of 0"),
        ("scan {cine} --out d --snr nan", "SNR of nan"),
        ("scan {cine} --out d --tr-ms 0", "TR of 0"),
        ("scan {cine} --out d --seed -1", "--seed"),
        ("scan phantom: --out d", "phantom:SEED"),
        ("scan phantom:x --out d", "phantom:SEED"),
        ("scan phantom:-1 --out d", "phantom:SEED"),
        ("scan {raw} --out d --coils 4", "--coils"),
        ("simulate {cine} --out r.h5 --seconds -1", "-1 seconds"),
        ("simulate {cine} --out r.h5 --seconds nan", "nan seconds"),
        ("simulate {cine} --out r.h5 --frames 0", "0 frames"),
        ("simulate {raw} --out r.h5", "measured spokes already"),
        ("recon {raw} --out c.nii.gz --method magic", "'magic'"),
        ("recon {raw} --out c.nii.gz --method cs --l2 1", "--l2"),
        ("recon {raw} --out c.nii.gz --method cg-sense --l2 nan", "--l2 nan"),
        ("recon {raw} --out c.nii.gz --frames 0", "0 frames"),
        ("recon {raw} --out c.mp4", ".nii"),
        ("recon {raw} --out c.nii.gz --delays some", "--delays 'some'"),
        ("recon {raw} --out c.nii.gz --delays 1,2", "dx,dy,dxy"),
        ("recon {raw} --out c.nii.gz --delays nan,0,0", "within 8"),
        ("scan {raw} --out d --delays 9,0,0", "within 8"),
    ],
)
def test_usage_is_refused(spokewise: Command, inputs: Path, left: Any, arguments: str, fragment: str) -> None:
    filled = arguments.format(cine=inputs / "cine.nii.gz", raw=inputs / "raw.h5")
    refused(spokewise(*filled.split()), 2, fragment)
    assert left() == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("command", ["scan {cine} --out d", "recon {raw} --out c.nii.gz"])
def test_a_gpu_that_is_not_there_is_refused(spokewise: Command, inputs: Path, left: Any, command: str) -> None:
    filled = command.format(cine=inputs / "cine.nii.gz", raw=inputs / "raw.h5")
    refused(spokewise(*filled.split(), "--device", "cuda"), 2, "CUDA")
    assert left() == []


def test_frames_that_the_file_fixes_are_kept(spokewise: Command) -> None:
    write_scan("raw.h5", raw_of(40))
    for command in (["recon", "raw.h5", "--out", "c.nii.gz"], ["scan", "raw.h5", "--out", "d"]):
        refused(spokewise(*command, "--frames", "7"), 2, "7 frames of a file that fixes 2")


@pytest.mark.parametrize(("delays", "applied"), [("off", [0, 0, 0]), ("1.2,-0.7,0.4", [1.2, -0.7, 0.4])])
def test_recon_corrects_the_delays_it_is_told(
    spokewise: Command, inputs: Path, delays: str, applied: list[float]
) -> None:
    options = ["--frames", "3", "--method", "gridding", "--delays", delays, "--json"]
    answer = spokewise("recon", inputs / "raw.h5", "--out", "c.nii.gz", *options)
    assert json.loads(answer.out)["delays"]["applied"] == applied


def test_recon_takes_out_drift_when_asked_to(spokewise: Command, inputs: Path) -> None:
    scan = read_scan(inputs / "raw.h5")
    phase = 0.5 * torch.cos(spoke_angles(scan.positions))
    write_scan(
        "eddy.h5", replace(scan, samples=scan.samples * torch.polar(torch.ones_like(phase), phase)[:, None, None])
    )
    options = ["--frames", "3", "--method", "gridding", "--delays", "off", "--json"]
    answer = spokewise("recon", "eddy.h5", "--out", "c.nii.gz", "--drift", *options)
    for found in json.loads(answer.out)["drift"].values():
        assert found["cosine_rad"] == pytest.approx(0.5, abs=0.1)
    assert "drift taken out" in answer.err
    assert json.loads(spokewise("recon", "eddy.h5", "--out", "d.nii.gz", *options).out)["drift"] is None


def test_delays_are_found_and_told(spokewise: Command, inputs: Path) -> None:
    scan = read_scan(inputs / "raw.h5")
    late = replace(scan, samples=scan.samples[..., 1:], positions=scan.positions[..., :-1, :])  # a sample of all spokes
    write_scan("late.h5", late)
    options = ["--frames", "3", "--method", "gridding", "--json"]
    answer = spokewise("recon", "late.h5", "--out", "c.nii.gz", *options)
    told = json.loads(answer.out)["delays"]
    assert told["asked"] == "auto"
    assert told["significant"]
    np.testing.assert_allclose(told["applied"], [1, 1, 0], atol=0.05)
    assert "corrected" in answer.err
    answer = spokewise("scan", "late.h5", "--out", "d", *options, "--step", "0.5")
    record = json.loads(Path("d/scan.json").read_text())["options"]
    assert record["delays"] == "auto"
    np.testing.assert_allclose(record["delays_found"]["0"]["estimate"], [1, 1, 0], atol=0.05)
    assert "slice 0: gradient delays" in answer.err
    assert read_scan(Path("d/raw.h5")).n_readout == late.n_readout


def test_the_source_is_never_replaced(spokewise: Command, inputs: Path, left: Any) -> None:
    Path("raw.h5").write_bytes((inputs / "raw.h5").read_bytes())
    Path("r.truth.nii.gz").write_bytes((inputs / "cine.nii.gz").read_bytes())
    refused(spokewise("scan", "raw.h5", "--out", ".", "--overwrite"), 2, "the source itself")
    for out in ("r.h5", "r.truth.nii.gz"):
        answer = spokewise("simulate", "r.truth.nii.gz", "--out", out, "--overwrite", "--seconds", "0.1")
        refused(answer, 2, "the source itself")
    assert left() == ["r.truth.nii.gz", "raw.h5"]
    assert Path("raw.h5").read_bytes() == (inputs / "raw.h5").read_bytes()


# What is refused: input, exit code 3


def save(path: str, shape: tuple[int, ...], value: float = 1.0) -> str:
    data = np.full(shape, value, np.float32)
    data.flat[0] = 0
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return path


def truncated(path: Path, to: str) -> str:
    Path(to).write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return to


def altered(path: Path, change: Callable[[h5py.File], None]) -> str:
    Path("bad.h5").write_bytes(path.read_bytes())
    with h5py.File("bad.h5", "r+") as file:
        change(file)
    return "bad.h5"


def without_header(file: h5py.File) -> None:
    del file["dataset/xml"]


def without_trajectory(file: h5py.File) -> None:
    rows = file["dataset/data"][()]
    rows["head"]["trajectory_dimensions"] = 0
    for row in rows:
        row["traj"] = np.zeros(0, np.float32)
    file["dataset/data"][...] = rows


def with_nan(file: h5py.File) -> None:
    row = file["dataset/data"][20]
    row["data"][7] = math.nan
    file["dataset/data"][20] = row


def cartesian(inputs: Path) -> str:
    lines = torch.arange(16)
    scan = replace(raw_of(16, matrix=16), positions=cartesian_positions(lines, 16, 32))
    write_scan("cartesian.h5", scan)
    return "cartesian.h5"


def dicom(slices: int, phases: int, *, series: str = "1.2.3") -> None:
    folder = Path("dicom")
    folder.mkdir(exist_ok=True)
    for index in range(slices):
        for phase in range(phases):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID = MRImageStorage
            meta.MediaStorageSOPInstanceUID = generate_uid()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
            data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
            data.SeriesInstanceUID, data.SeriesNumber = series, int(series[-1])
            data.InstanceNumber, data.TriggerTime, data.NominalInterval = phase + 1, 200.0 * phase, 800
            data.Rows, data.Columns, data.PixelSpacing, data.SliceThickness = 32, 32, [4.0, 4.0], 8
            data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
            data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
            data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, -8.0 * index]
            data.PixelData = heart(phases).images[0, phase].numpy().astype("<u2").tobytes()
            data.save_as(folder / f"{series}-{index}-{phase}.dcm", enforce_file_format=True)


def missing_phase(inputs: Path) -> str:
    dicom(2, 4)
    Path("dicom/1.2.3-1-2.dcm").unlink()
    return "dicom"


def mixed_series(inputs: Path) -> str:
    dicom(1, 4)
    dicom(1, 4, series="1.2.4")
    return "dicom"


def truncated_dicom(inputs: Path) -> str:
    dicom(1, 4)
    truncated(Path("dicom/1.2.3-0-1.dcm"), "dicom/1.2.3-0-1.dcm")
    return "dicom"


def empty(inputs: Path) -> str:
    Path("empty").touch()
    return "empty"


BAD: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing": (lambda _: "nowhere.nii.gz", "does not exist"),
    "below a file": (lambda inputs: str(inputs / "cine.nii.gz" / "x"), "does not exist"),
    "a name too long": (lambda _: "x" * 400, "too long"),
    "empty": (empty, "no known format"),
    "3D NIfTI": (lambda _: save("a.nii", (16, 16, 4)), "has 3 axes"),
    "truncated NIfTI": (lambda inputs: truncated(inputs / "cine.nii.gz", "a.nii.gz"), "truncated"),
    "NaN in NIfTI": (lambda _: save("a.nii", (16, 16, 1, 4), math.nan), "NaN"),
    "NIfTI of nothing": (lambda _: save("a.nii", (16, 16, 1, 4), 0.0), "zero everywhere"),
    "NIfTI too small": (lambda _: save("a.nii", (9, 9, 1, 4)), "finer than what reconstructs"),
    "truncated HDF5": (lambda inputs: truncated(inputs / "raw.h5", "a.h5"), "truncated"),
    "no header": (lambda inputs: altered(inputs / "raw.h5", without_header), "no 'xml'"),
    "no trajectory": (lambda inputs: altered(inputs / "raw.h5", without_trajectory), "trajectory of 0 dimensions"),
    "NaN samples": (lambda inputs: altered(inputs / "raw.h5", with_nan), "NaN"),
    "not radial": (cartesian, "straight spokes through the centre"),
    "missing phase": (missing_phase, "a phase is missing"),
    "mixed series": (mixed_series, "2 series"),
    "truncated DICOM": (truncated_dicom, "1.2.3-0-1.dcm"),
}


@pytest.mark.parametrize("bad", list(BAD))
def test_bad_input_is_refused_in_one_line(spokewise: Command, inputs: Path, left: Any, bad: str) -> None:
    make, fragment = BAD[bad]
    source = make(inputs)
    before = left()
    refused(spokewise("scan", source, "--out", "out", "--frames", "2"), 3, fragment)
    assert left() == before
    if source.endswith(".h5"):
        refused(spokewise("recon", source, "--out", "c.nii.gz", "--frames", "2"), 3, fragment)
    else:
        refused(spokewise("simulate", source, "--out", "r.h5", "--seconds", "0.1"), 3, fragment)
    assert left() == before


def test_a_series_can_be_chosen(spokewise: Command, inputs: Path) -> None:
    mixed_series(inputs)
    assert spokewise("scan", "dicom", "--out", "d", "--series", "4", *QUICK).code == 0
    refused(spokewise("scan", "dicom", "--out", "e", "--series", "9", *QUICK), 3, "no series 9")


def test_images_cannot_be_reconstructed(spokewise: Command, inputs: Path, left: Any) -> None:
    refused(spokewise("recon", inputs / "cine.nii.gz", "--out", "c.nii.gz"), 3, "holds images")
    assert left() == []


@pytest.mark.parametrize("matrix", [0, 8, 32, 500])
def test_a_matrix_that_cannot_be_is_refused(spokewise: Command, inputs: Path, left: Any, matrix: int) -> None:
    answer = spokewise("scan", inputs / "cine.nii.gz", "--out", "d", "--matrix", matrix, *QUICK)
    refused(answer, 3, "expected")
    assert left() == []


def test_places_that_cannot_be_written_are_refused(spokewise: Command, inputs: Path, left: Any) -> None:
    Path("file").write_text("mine")
    Path("full").mkdir()
    Path("full/mine").write_text("mine")
    cine, raw = inputs / "cine.nii.gz", inputs / "raw.h5"
    for arguments, fragment in (
        (["scan", cine, "--out", "file", *QUICK], "is a file"),
        (["scan", cine, "--out", "file/d", *QUICK], "cannot be written"),
        (["scan", cine, "--out", "full", *QUICK], "not empty"),
        (["scan", cine, "--out", "x" * 300, *QUICK], "too long"),
        (["simulate", cine, "--out", "file"], "exists already"),
        (["simulate", cine, "--out", "file/r.h5"], "does not exist"),
        (["simulate", cine, "--out", "nowhere/r.h5"], "does not exist"),
        (["simulate", cine, "--out", "full"], "is a folder"),
        (["simulate", cine, "--out", "x" * 252 + ".h5"], "too long"),
        (["recon", raw, "--out", "file/c.nii.gz"], "does not exist"),
        (["recon", raw, "--out", "nowhere/c.nii.gz"], "does not exist"),
    ):
        refused(spokewise(*arguments), 3, fragment)
        assert left() == ["file", "full", "full/mine"]


def test_a_full_disk_is_refused_before_it_breaks_anything(
    spokewise: Command, inputs: Path, left: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    for arguments in (["scan", "--out", "d", *QUICK], ["simulate", "--out", "r.h5", "--seconds", "0.2"]):
        refused(spokewise(*arguments, inputs / "cine.nii.gz"), 3, "full but for 1 MB")
        assert left() == []


def test_an_unexpected_fault_is_one_line_too_and_leaves_nothing(
    spokewise: Command, inputs: Path, left: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_(*_: Any, **__: Any) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("simulate.acquisition.calibrate", break_)
    code, out, err = spokewise("scan", inputs / "cine.nii.gz", "--out", "d", *QUICK)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "RuntimeError: first line second line" in err
    assert left() == []
    assert "Traceback" in spokewise("--debug", "scan", inputs / "cine.nii.gz", "--out", "d", *QUICK).err


def test_too_little_memory_is_said_so(spokewise: Command, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("simulate.acquisition.calibrate", full)
    code, _, err = spokewise("scan", inputs / "cine.nii.gz", "--out", "d", *QUICK)
    assert code == 1
    assert "not enough memory" in err


def test_an_interrupted_simulation_keeps_its_spokes(
    spokewise: Command, inputs: Path, left: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    say = cli._say

    def interrupt(line: str) -> None:
        say(line)
        if line.startswith("slice 0"):
            raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_say", interrupt)
    code, out, err = spokewise("simulate", inputs / "cine.nii.gz", "--out", "r.h5", "--seconds", "0.2", "--coils", "2")
    assert (code, out) == (130, "")
    assert "interrupted: 72 spokes are kept in r.h5" in err
    assert left() == ["r.h5", "r.truth.nii.gz"]
    assert read_scan(Path("r.h5")).n_spokes == 72


# In a process of its own


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_help_is_quick_because_it_imports_little(tmp_path: Path) -> None:
    program = (
        "import sys, time\nstart = time.process_time()\nimport cli\ntry:\n    cli.main(['scan', '--help'])\n"
        "finally:\n    heavy = {'torch', 'numpy', 'scipy', 'h5py', 'sigpy', 'nibabel', 'pydicom'} & set(sys.modules)\n"
        "    print(time.process_time() - start, sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "--max-seconds" in done.stdout
    seconds, heavy = done.stderr.split(maxsplit=1)
    assert heavy.strip() == "[]"
    assert float(seconds) < 1


def test_without_arguments_the_help_is_shown(spokewise: Command) -> None:
    code, out, err = spokewise()
    assert (code, err) == (2, "")
    assert "scan" in out
    assert spokewise("--version").out.startswith("spokewise ")


def test_bad_input_and_a_reader_that_goes_away_in_a_process(tmp_path: Path, inputs: Path) -> None:
    bad = start("scan", "nowhere", "--out", "d", "--json", cwd=tmp_path)
    left_alone = start("recon", inputs / "raw.h5", "--method", "gridding", "--out", "c.nii.gz", "--json", cwd=tmp_path)
    assert left_alone.stdout is not None
    assert left_alone.stderr is not None
    left_alone.stdout.close()
    out, err = bad.communicate(timeout=60)
    assert (bad.returncode, out, err.count("\n")) == (3, "", 1)
    err = left_alone.stderr.read()
    left_alone.stderr.close()
    assert left_alone.wait(60) == 1
    assert [line.split(":")[0].split()[0] for line in err.splitlines()] == ["gradient", "slice", "slice"]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A scan of three slices, each of a second or more, of which the first is finished."""
    write_cine(tmp_path / "cine.nii.gz", heart(slices=3))
    options = "--coils 2 --frames 3 --method gridding --policy fixed --step 0.1 --max-seconds 12 --json"
    process = start("scan", "cine.nii.gz", "--out", "d", *options.split(), cwd=tmp_path)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("slice 0: 12 s"), line
    yield process
    process.kill()
    process.communicate()


def finished_slices(folder: Path) -> list[int]:
    said = json.loads((folder / "scan.json").read_text(encoding="utf-8"))
    images = read_cine(folder / "recon.nii.gz").images
    done = [entry["index"] for entry in said["slices"]]
    assert [index for index in range(3) if float(images[index].abs().max()) > 0] == done
    assert said["interrupted"] is True
    return done


def until_it_grows(folder: Path, wait_s: float = 30.0) -> None:
    """Return when spokes of the second slice have come: on a busy machine a tenth of a second may bring none."""
    raw = next(path for path in folder.iterdir() if path.name.endswith("raw.h5"))
    before, until = raw.stat().st_size, time.monotonic() + wait_s
    while raw.stat().st_size == before:
        assert time.monotonic() < until, "no more spokes came"
        time.sleep(0.005)


def test_an_interrupt_that_comes_while_python_tidies_up_is_obeyed_without_a_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Thing:
        pass

    before = sys.unraisablehook
    thing = Thing()
    reference = weakref.ref(thing, lambda dead: signal.raise_signal(signal.SIGINT))
    with cli._told_to_stop():
        del thing  # Python ignores what a callback raises, and says so
        assert reference() is None
        with pytest.raises(KeyboardInterrupt):
            cli._give_way()
    assert capsys.readouterr().err == ""
    assert sys.unraisablehook is before


def test_a_scan_that_is_told_to_stop_keeps_what_was_finished(running: subprocess.Popen[str], tmp_path: Path) -> None:
    until_it_grows(tmp_path / "d")
    running.send_signal(signal.SIGINT)
    time.sleep(0.02)  # people press it twice, and schedulers are impatient too
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert out == ""
    assert "interrupted: 1 of 3 slices were finished and are kept in d" in err
    assert "Traceback" not in err
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == FOLDER
    assert finished_slices(tmp_path / "d") == [0]
    raw = read_scan(tmp_path / "d" / "raw.h5")
    counts = torch.bincount(raw.slices).tolist()
    assert counts[0] == 4286
    assert 0 < counts[1] < 4286


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_python_loses_is_made_up_for_after_the_step() -> None:
    class Tidied:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with cli._told_to_stop():
        cli._give_way()
        Tidied()  # what is raised in a finaliser is ignored
        with pytest.raises(KeyboardInterrupt):
            cli._give_way()
    with cli._told_to_stop():
        cli._give_way()


def test_a_scan_that_is_killed_leaves_finished_slices_readable(running: subprocess.Popen[str], tmp_path: Path) -> None:
    time.sleep(0.1)
    running.kill()
    running.communicate(timeout=60)
    names = {path.name for path in (tmp_path / "d").iterdir() if not path.name.startswith(".")}
    assert names == {"decisions.csv", "recon.nii.gz", "scan.json"}
    assert finished_slices(tmp_path / "d") == [0]
    with pytest.raises(InputError):
        read_scan(tmp_path / "d" / "raw.h5")


@pytest.mark.real
def test_a_real_heart_is_scanned(spokewise: Command) -> None:
    source = HEARTS / "sunnybrook" / "SC-HF-I-4" / "cine.nii.gz"
    if not source.is_file():
        pytest.skip(f"the real hearts are not at {HEARTS}")
    options = ["--slices", "5", "--matrix", "96", "--method", "cg-sense", "--frames", "8"]
    code, out, _ = spokewise("scan", source, "--out", "d", "--json", *options, *QUICK[:2], "--max-seconds", "1")
    assert code == 0
    (entry,) = json.loads(out)["slices"]
    assert entry["psnr_db"] > 22
    assert entry["ssim"] > 0.6
